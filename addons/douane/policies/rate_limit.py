"""``rate_limit``: how often, how much and how many at once.

A rate is a token bucket (GCRA): it holds ``burst`` (by default the whole limit) and fills evenly. So up to ``limit + burst``
may pass in one period, and never more. Tokens are taken as the call's input and its bound for the output, before it goes on;
what it did not use is given back when it ends.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from douane.call import Call
from douane.errors import ConfigError
from douane.ledger.base import Rate, Slots
from douane.policy import Setting, policy
from douane.providers.table import builtin
from douane.scopes import Scope, parse_scope, who
from douane.source import suggest
from douane.tiers import Tier
from douane.units import Rated, Spelled, parse_count, parse_rate
from douane.verdict import ALLOW, Allow, Verdict

__all__ = ["EXPENSIVE", "RateLimit"]

EXPENSIVE = ("async_invoke", "audio", "batches", "images", "interactions", "ocr", "predict", "realtime")
"""What ``operations: expensive`` stands for: what costs by the piece, or runs for long."""

type _Rate = Literal["tier"] | Annotated[Rated, Spelled(parse_rate, "60/minute")]
type _Count = Annotated[int, Spelled(parse_count, "10")]


@policy("rate_limit")
@dataclass(frozen=True, slots=True)
class RateLimit:
    """Let on so many *requests* and *tokens* a period, and so many calls at once (*concurrent*)."""

    per_answer: ClassVar[bool] = True

    per: Annotated[Scope, Spelled(parse_scope, "principal")]
    requests: _Rate | None = None
    tokens: _Rate | None = None
    concurrent: Literal["tier"] | _Count | None = None
    burst: _Count | None = None
    operations: Literal["expensive"] | tuple[str, ...] = ()
    book: str = ""

    def bind(self, setting: Setting) -> "_RateLimit":
        given = (self.requests, self.tokens, self.concurrent)
        if all(one is None for one in given):
            raise ConfigError("name at least one of requests, tokens, concurrent")
        if "tier" in given and not setting.tiers:
            raise ConfigError("tier: no file has `tiers`")
        if self.burst is not None and not isinstance(self.requests, Rated):
            raise ConfigError("burst: of requests, which are not given")
        if self.burst == 0 or self.concurrent == 0:
            raise ConfigError("burst, concurrent: 1 or more")
        known = sorted({row.name for provider in builtin().values() for row in provider.operations})
        for operation in self.operations if isinstance(self.operations, tuple) else ():
            if operation not in known:
                raise ConfigError(f"operations: there is no operation `{operation[:40]}`{suggest(operation, known)}")
        tiers = setting.tiers if "tier" in given else {"": Tier()}
        counted = EXPENSIVE if self.operations == "expensive" else self.operations
        return _RateLimit(self, frozenset(counted), {name: self._rules(tier) for name, tier in tiers.items()})

    def _rules(self, tier: Tier) -> tuple[Rate | Slots, ...]:
        """With keys that say of which rule they are: one that is changed begins anew."""
        requests = tier.requests if self.requests == "tier" else self.requests
        tokens = tier.tokens if self.tokens == "tier" else self.tokens
        concurrent = tier.concurrent if self.concurrent == "tier" else self.concurrent
        found: list[Rate | Slots] = []
        of = (str(self.per), self.book, ",".join(self.operations) if isinstance(self.operations, tuple) else self.operations)
        if requests is not None:
            burst = self.burst or requests.limit
            found.append(Rate((*of, "requests", f"{requests.limit}/{requests.period}+{burst}"), "requests", requests.limit,
                              requests.period, burst))
        if tokens is not None:
            found.append(Rate((*of, "tokens", f"{tokens.limit}/{tokens.period}"), "tokens", tokens.limit, tokens.period,
                              tokens.limit))
        if concurrent is not None:
            found.append(Slots((*of, "concurrent"), concurrent))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _RateLimit:
    rules: RateLimit
    operations: frozenset[str]
    """Empty: all."""
    limits: dict[str, tuple[Rate | Slots, ...]]
    """By tier; under the empty name where they do not depend on it."""

    async def admit(self, call: Call) -> Verdict:
        if self.operations and call.operation not in self.operations:
            return ALLOW
        name = who(self.rules.per, call)
        rules = self.limits[call.principal.tier if "" not in self.limits else ""]
        return Allow(rates=tuple(_of(rule, call.principal.org, name) for rule in rules
                                 if not (call.session and isinstance(rule, Slots))))  # the session itself has one


def _of(rule: Rate | Slots, org: str, name: str) -> Rate | Slots:
    key = (org, name, *rule.key)
    return Slots(key, rule.limit) if isinstance(rule, Slots) else Rate(key, rule.unit, rule.limit, rule.period, rule.burst)
