"""``limit_tokens``: how large one call may be.

A call that states no bound for its output gets the limit put in, and no other byte changes: so the limit holds for all of them.
The input is estimated as budgets estimate it (``ledger/estimate.py``): on the high side.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from douane.call import Call
from douane.errors import ConfigError
from douane.policy import Setting, Wires, policy
from douane.size import inserted, size_of
from douane.units import Spelled, parse_count
from douane.verdict import ALLOW, Deny, Rewrite, Verdict

__all__ = ["LimitTokens"]

type _Count = Annotated[int, Spelled(parse_count, "16k")]


@policy("limit_tokens")
@dataclass(frozen=True, slots=True)
class LimitTokens:
    """Refuse calls with more than *input* tokens, or that ask for more than *output* in one answer, or for more than *context*
    together."""

    per_answer: ClassVar[bool] = True

    input: _Count | None = None
    output: _Count | None = None
    context: _Count | None = None

    def bind(self, setting: Setting) -> "_LimitTokens":
        given = [one for one in (self.input, self.output, self.context) if one is not None]
        if not given or min(given) < 1:
            raise ConfigError("name at least one of input, output, context: 1 or more")
        return _LimitTokens(self, setting.wires)


@dataclass(frozen=True, slots=True)
class _LimitTokens:
    rules: LimitTokens
    wires: Wires

    async def admit(self, call: Call) -> Verdict:
        rules, wire = self.rules, self.wires(call)
        try:
            size = size_of(call, wire)
        except ValueError as error:
            return Deny("bad_request", str(error))
        if not size.known or wire is None:
            return ALLOW
        if rules.input is not None and size.input > rules.input:
            return _over("about", size.input, "input", rules.input)
        output = size.output
        if output is None and rules.output is not None and not call.session:
            on = inserted(call, wire.bound, rules.output)
            if isinstance(on, Deny):
                return on
            call, output = on, rules.output
        if rules.output is not None and output is not None and output > rules.output:
            return _over("up to", output, "output", rules.output)
        if rules.context is not None and size.input + (output or 0) > rules.context:
            return _over("about", size.input + (output or 0), "input and output together", rules.context)
        return Rewrite(call) if size.output is None and output is not None else ALLOW


def _over(how: str, asked: int, what: str, limit: int) -> Deny:
    return Deny("too_large", f"the call comes to {how} {asked} tokens of {what}; here, up to {limit} are allowed")
