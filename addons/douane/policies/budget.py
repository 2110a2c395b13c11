"""``budget``: what may be spent.

Law 6: a call is let on only while the most it can come to is held in every window at once. What is held, and what is charged
in the end, is reckoned for all budgets together (``purse.py``): here is what the policy files ask for.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from douane.call import Call
from douane.errors import ConfigError
from douane.ledger.base import Account
from douane.ledger.claim import ASSUMED, CEILING, Cap, Claim, Unbounded, Unpriced
from douane.ledger.windows import window
from douane.policy import Setting, Wires, policy
from douane.scopes import Scope, parse_scope, who
from douane.size import SILENT, inserted, output_bound, spelled
from douane.units import Limit, Spelled, parse_limit, parse_usd
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict

__all__ = ["Budget", "parse_unbounded", "parse_unpriced"]

_FREE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_FREE = frozenset({"models", "count_tokens"})
"""Operations that no provider bills."""
_LARGEST_NAME = 200
_RECENT = 1024
"""Claims that are kept: of callers and seconds."""


def parse_unbounded(text: str) -> Unbounded:
    """``assume 4096``, ``insert 4096``, ``insert``, ``deny``. Raises ValueError."""
    match = re.fullmatch(r"(?:(insert|assume)(?: ([1-9][0-9]{0,6}))?|(deny))", text.strip())
    if match is None or (match[1] == "assume" and match[2] is None):
        raise ValueError("allowed: insert, insert N, assume N, deny (N: tokens)")
    if match[3]:
        return Unbounded("deny")
    return Unbounded("insert" if match[1] == "insert" else "assume", int(match[2] or 4096))


def parse_unpriced(text: str) -> Unpriced:
    """``ceiling``, ``deny``, or an amount such as ``0.50 USD``, in nano-USD. Raises ValueError."""
    match text.strip():
        case "ceiling":
            return "ceiling"
        case "deny":
            return "deny"
    return parse_usd(text)


type _Limit = Annotated[Limit, Spelled(parse_limit, "50 USD/day")]


@dataclass(frozen=True, slots=True)
class Downgrade:
    """The model that takes a call which does not fit otherwise."""

    to: str


@policy("budget")
@dataclass(frozen=True, slots=True)
class Budget:
    """Hold what a call can come to, against one limit or several, and refuse what does not fit."""

    per_answer: ClassVar[bool] = True

    per: Annotated[Scope, Spelled(parse_scope, "team")]
    limit: Literal["tier"] | _Limit | tuple[_Limit, ...]
    unbounded: Annotated[Unbounded, Spelled(parse_unbounded, "assume 4096")] = ASSUMED
    unpriced: Annotated[Unpriced, Spelled(parse_unpriced, "ceiling, deny, 0.50 USD")] = CEILING
    book: str = ""
    alert_at: tuple[float, ...] = ()
    downgrade: Downgrade | None = None
    zone: str = "UTC"

    def bind(self, setting: Setting) -> "_Budget":
        if self.limit == "tier":
            if not setting.tiers:
                raise ConfigError("limit: tier: no file has `tiers`")
            limits = {name: _checked(tier.limits, f"tiers.{name}.limit") for name, tier in setting.tiers.items()}
        else:
            limits = {"": _checked((self.limit,) if isinstance(self.limit, Limit) else self.limit, "limit")}
        if len(self.book) > _LARGEST_NAME:
            raise ConfigError(f"book: up to {_LARGEST_NAME} characters")
        if any(not 0 < share <= 10 for share in self.alert_at):
            raise ConfigError("alert_at: shares of the limit, such as 0.8")
        if self.downgrade is not None and not self.downgrade.to:
            raise ConfigError("downgrade.to: name a model")
        alerts = tuple(sorted({max(1, round(share * 1000)) for share in self.alert_at}))
        claim = _Claims(self, limits, alerts, _zone(self.zone)).of
        return _Budget(self, lru_cache(_RECENT)(claim), "" not in limits, setting.wires)


def _checked(limits: tuple[Limit, ...], what: str) -> tuple[Limit, ...]:
    if not limits:
        raise ConfigError(f"{what}: name at least one, such as 50 USD/day")
    if len({(one.unit, one.period) for one in limits}) < len(limits):
        raise ConfigError(f"{what}: one for each window and unit; two stand for the same")
    return limits


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"zone: `{name[:40]}` is no time zone; allowed: such as Europe/Paris") from None


@dataclass(frozen=True, slots=True)
class _Claims:
    """What is asked of whom, when."""

    rules: Budget
    limits: dict[str, tuple[Limit, ...]]
    """By tier; under the empty name where they do not depend on it."""
    alerts: tuple[int, ...]
    zone: tzinfo

    def of(self, at: int, tier: str, org: str, name: str) -> Claim:
        """*at*: seconds since the epoch. *name*: who it is, in the budget's scope."""
        rules, scope = self.rules, str(self.rules.per)
        caps = []
        for limit in self.limits[tier]:
            if limit.period is None:
                caps.append(Cap(None, limit.unit, limit.amount))
                continue
            account = Account(org, rules.book, scope, name, limit.unit, limit.period, *window(limit.period, at, self.zone))
            caps.append(Cap(account, limit.unit, limit.amount))
        downgrade = rules.downgrade.to if rules.downgrade is not None else ""
        return Claim(scope, name, tuple(caps), rules.unbounded, rules.unpriced, self.alerts, downgrade)


@dataclass(frozen=True, slots=True)
class _Budget:
    rules: Budget
    claim: Callable[[int, str, str, str], Claim]
    """:meth:`_Claims.of`, which gives all calls of a second and a caller the same: windows begin at whole seconds."""
    by_tier: bool
    wires: Wires

    async def admit(self, call: Call) -> Verdict:
        if call.method in _FREE_METHODS or call.operation in _FREE:
            return ALLOW
        bounded = self._bounded(call)
        if isinstance(bounded, Deny):
            return bounded
        of = call.principal
        claims = (self.claim(int(call.at), of.tier if self.by_tier else "", of.org, who(self.rules.per, call)),)
        return Allow(claims=claims) if bounded is call else Rewrite(bounded, claims=claims)

    def _bounded(self, call: Call) -> Call | Deny:
        """The call, with a bound put in where it states none and one is asked for."""
        rule = self.rules.unbounded
        wire = self.wires(call) if rule.act != "assume" else None
        if wire is None or not isinstance(call.document, dict) or not wire.bound.stated or call.operation in SILENT:
            return call
        of = wire.bound
        try:
            if output_bound(of, call.document) is not None:
                return call
        except ValueError as error:
            return Deny("bad_request", str(error))
        if rule.act == "insert":
            return inserted(call, of, rule.tokens)
        return Deny("budget_exceeded", f"the call states no bound for its output, such as {spelled(of.insert or of.stated[0])}")
