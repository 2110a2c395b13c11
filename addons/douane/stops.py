"""Emergency stops, as this process knows them: the store has them (``ledger/base.py``), who is told last is a second late.

Law: what was in force when the store was last heard stays in force while it is not.
"""

from collections.abc import Callable

from douane.call import Call
from douane.ledger.base import Stop
from douane.scopes import parse_scope, who
from douane.verdict import Deny

__all__ = ["ALL", "StopBoard", "stopped"]

ALL = "all"
_DENIED = "an administrator has stopped {whose}; ask before you try again"


def stopped(stops: frozenset[Stop], call: Call) -> Deny | None:
    """Whether one of *stops* holds for *call*."""
    for one in stops:
        if one.scope == ALL:
            return Deny("stopped", _DENIED.format(whose="all calls"))
        if who(parse_scope(one.scope), call) == one.name:
            return Deny("stopped", _DENIED.format(whose=f"calls of {one.scope} {one.name[:100]!r}"))
    return None


class StopBoard:
    """What is in force, and the calls that run."""

    __slots__ = ("_running", "in_force")

    def __init__(self) -> None:
        self.in_force: frozenset[Stop] = frozenset()
        self._running: dict[Callable[[Deny], None], Call] = {}

    def deny(self, call: Call) -> Deny | None:
        return stopped(self.in_force, call) if self.in_force else None

    def entered(self, call: Call, end: Callable[[Deny], None]) -> None:
        """*call* runs now; *end* ends it, from the loop."""
        self._running[end] = call

    def left(self, end: Callable[[Deny], None]) -> None:
        self._running.pop(end, None)

    def update(self, stops: frozenset[Stop]) -> tuple[frozenset[Stop], frozenset[Stop]]:
        """Take in what the store says; on the loop. Ends the calls that must not run on. Returns what is new, and what is
        resumed."""
        new, gone = stops - self.in_force, self.in_force - stops
        self.in_force = stops
        at_once = frozenset(one for one in new if one.running)
        if at_once:
            for end, call in list(self._running.items()):
                denial = stopped(at_once, call)
                if denial is not None:
                    end(denial)
        return new, gone
