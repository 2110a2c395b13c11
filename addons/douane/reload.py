"""Law 8: build the new house whole, then swap; the last good one stays where the new one is wrong.

Nothing is watched here: whoever hears SIGHUP or ``reload`` on the control socket calls :meth:`Reloader.reload`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from douane.errors import DouaneError
from douane.loader import Loaded

__all__ = ["Reloader", "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a reload came to."""

    ok: bool
    revision: str
    """The revision in force now: the new one, or that which stays."""
    changed: bool = False
    """Whether it is another one than before. Keys and prices may have changed under the same revision."""
    lines: tuple[str, ...] = ()
    """What is wrong, where not ``ok``."""


class Reloader:
    """*load* builds a Loaded, reading files, and runs in a thread; *adopt* takes it into use, on the loop.

    Both refuse by raising DouaneError: *adopt* before it has changed anything."""

    def __init__(self, loaded: Loaded, load: Callable[[], Loaded], adopt: Callable[[Loaded], None]) -> None:
        self.loaded = loaded
        """The last good one."""
        self._load = load
        self._adopt = adopt
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> Result:
        """Swap, or say why not. Calls that come meanwhile wait and then read the files anew."""
        async with self._one_at_a_time:
            before = self.loaded.chain.revision
            try:
                fresh = await asyncio.to_thread(self._load)
                self._adopt(fresh)
            except DouaneError as error:
                return Result(ok=False, revision=before, lines=tuple(str(error).splitlines()))
            self.loaded = fresh
            revision = fresh.chain.revision
            return Result(ok=True, revision=revision, changed=revision != before)
