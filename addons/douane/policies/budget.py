"""``budget``: what may be spent.

Law 6: a call is let on only while the most it can cost is held in every window at once. What it is charged in the end
follows from its record alone: ``cost_usd`` where the answer told its whole usage, nothing where it was never forwarded
or the provider refused it, and otherwise what was reserved, or seen if that is more: a price taken at the ceiling, missing
usage, an answer that was cut off (the usage that such an answer has told by then is a floor: Anthropic's first event says
one token).

A policy in observe mode is not asked whether it is; what it would have refused and what went on all the same is counted
when it ends.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from douane.call import Call, Outcome
from douane.errors import ConfigError
from douane.ledger.base import NANO, Account, Demand, LedgerUnavailableError, Refused, nano
from douane.ledger.estimate import UNSEEN, input_bound
from douane.ledger.till import Till
from douane.ledger.windows import Period, window
from douane.policy import Setting, Wires, policy
from douane.units import Limit, Spelled, parse_limit, parse_usd
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict

__all__ = ["Budget", "Unbounded", "charge", "output_bound"]

_FREE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_FREE = frozenset({"models", "count_tokens"})
"""Operations that no provider bills."""
_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_INSERTED = {"chat": "max_completion_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}
"""Operation → the member in which it takes a bound."""
_MOST = 10_000_000
"""Tokens, or choices, that one call may ask for; more is a slip or an attack on our arithmetic."""
_LARGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Unbounded:
    """What becomes of a call that states no bound for its output."""

    act: Literal["insert", "assume", "deny"]
    tokens: int = 4096


def parse_unbounded(text: str) -> Unbounded:
    """``assume 4096``, ``insert 4096``, ``insert``, ``deny``. Raises ValueError."""
    match = re.fullmatch(r"(?:(insert|assume)(?: ([1-9][0-9]{0,6}))?|(deny))", text.strip())
    if match is None or (match[1] == "assume" and match[2] is None):
        raise ValueError("allowed: insert, insert N, assume N, deny (N: tokens)")
    if match[3]:
        return Unbounded("deny")
    return Unbounded("insert" if match[1] == "insert" else "assume", int(match[2] or 4096))


type Unpriced = int | Literal["ceiling", "deny"]


def parse_unpriced(text: str) -> Unpriced:
    """``ceiling``, ``deny``, or an amount such as ``0.50 USD``, in nano-USD. Raises ValueError."""
    match text.strip():
        case "ceiling":
            return "ceiling"
        case "deny":
            return "deny"
    return parse_usd(text)


type _Limit = Annotated[Limit, Spelled(parse_limit, "50 USD/day")]


@policy("budget")
@dataclass(frozen=True, slots=True)
class Budget:
    """Hold what a call can cost, against one limit or several, and refuse what does not fit."""

    per_answer: ClassVar[bool] = True

    per: Literal["principal", "team", "org"]
    limit: _Limit | tuple[_Limit, ...]
    unbounded: Annotated[Unbounded, Spelled(parse_unbounded, "assume 4096")] = Unbounded("assume", 4096)
    unpriced: Annotated[Unpriced, Spelled(parse_unpriced, "ceiling, deny, 0.50 USD")] = "ceiling"
    book: str = ""

    def bind(self, setting: Setting) -> "_Budget":
        limits = (self.limit,) if isinstance(self.limit, Limit) else self.limit
        if not limits:
            raise ConfigError("limit: name at least one, such as 50 USD/day")
        if len({one.period for one in limits}) < len(limits):
            raise ConfigError("limit: one for each window; two stand for the same")
        if len(self.book) > _LARGEST_NAME:
            raise ConfigError(f"book: up to {_LARGEST_NAME} characters")
        return _Budget(self, limits, setting.till, setting.wires)


@dataclass(slots=True)
class _Open:
    """A call on its way."""

    demands: tuple[Demand, ...]
    reserved: int | None = None
    """Nano-USD that are held; None: nothing is."""


@dataclass(frozen=True, slots=True)
class _Budget:
    rules: Budget
    limits: tuple[Limit, ...]
    till: Till
    wires: Wires
    open: dict[str, _Open] = field(default_factory=dict, repr=False)
    """By call id, from ``admit`` to ``settle``."""

    async def admit(self, call: Call) -> Verdict:
        if call.method in _FREE_METHODS or call.operation in _FREE:
            return ALLOW
        one = self.open[call.id] = _Open(self._demands(call))
        bounded = self._bounded(call)
        if isinstance(bounded, Deny):
            return bounded
        call_on, tokens = bounded
        amount = self._amount(call, tokens)
        if amount is None:
            return Deny("budget_exceeded", f"the price of {call.model[:100]!r} is not known, so no budget can hold it: name it "
                                           "in prices, or leave out unpriced: deny")
        one.reserved = amount  # before the wait: whoever leaves meanwhile is settled
        try:
            answer = await self.till.ledger.reserve(call.id, call.at, one.demands, amount)
        except LedgerUnavailableError as error:
            return Deny(error.code, error.reason)
        if isinstance(answer, Refused):
            one.reserved = None
            return self._refused(answer, amount)
        usd = amount / NANO
        return Allow(reserved_usd=usd) if call_on is call else Rewrite(call_on, reserved_usd=usd)

    async def settle(self, call: Call, outcome: Outcome) -> None:
        one = self.open.pop(call.id, None)
        if one is None:
            return
        ledger, spent = self.till.ledger, charge(outcome, one.reserved or 0)
        if one.reserved is not None:
            await (ledger.void(call.id) if spent == 0 else ledger.capture(call.id, spent))
        elif spent:  # refused, and went on all the same: observe mode
            uncapped = tuple(replace(demand, limit=None) for demand in one.demands)
            await ledger.reserve(call.id, call.at, uncapped, spent)
            await ledger.capture(call.id, spent)

    def _demands(self, call: Call) -> tuple[Demand, ...]:
        per = self.rules.per
        who = call.principal
        name = who.name if per == "principal" else who.team if per == "team" else who.org
        return tuple(Demand(_account(self.rules.book, per, name, limit.period, call.at), limit.nano_usd)
                     for limit in self.limits)

    def _bounded(self, call: Call) -> tuple[Call, tuple[int, int] | None] | Deny:
        """The call, with a bound where one is inserted, and the tokens (input, output) it is reserved at; None: its body says
        nothing of them."""
        wire = self.wires(call)
        if wire is None or not isinstance(call.document, dict):
            return call, None
        try:
            choices = _whole(call.document, "n") or 1
            bound = output_bound(call.document)
        except ValueError as error:
            return Deny("bad_request", str(error))
        if bound is None:
            rule = self.rules.unbounded
            if rule.act == "deny":
                return Deny("budget_exceeded", "the call states no bound for its output, such as "
                                               f"{_INSERTED.get(call.operation, 'max_tokens')}")
            bound = rule.tokens
            if rule.act == "insert":
                inserted = _insert(call, bound)
                if isinstance(inserted, Deny):
                    return inserted
                call = inserted
        texts = (position.text for position in wire.walk(call.document))
        given = input_bound(call.provider, call.document, texts, call.model)
        return call, (given + call.context, bound * choices)

    def _amount(self, call: Call, tokens: tuple[int, int] | None) -> int | None:
        """Nano-USD; None where the price or the size is unknown and ``unpriced`` refuses that."""
        document = call.document if isinstance(call.document, dict) else {}
        tier = document.get("speed" if call.operation == "messages" else "service_tier")
        tier = tier if isinstance(tier, str) and tier != "auto" else ""
        most = self.till.prices.at_most(call.provider, call.model, tokens or (UNSEEN, self.rules.unbounded.tokens),
                                        call.at, tier)
        if (most.ceiling or tokens is None) and self.rules.unpriced != "ceiling":
            return None if self.rules.unpriced == "deny" else self.rules.unpriced
        return nano(most.usd)

    def _refused(self, answer: Refused, amount: int) -> Deny:
        of = answer.account
        whose = f"{of.scope} {of.name[:100]!r}" if of.name else f"calls without {of.scope}"
        within = "in total" if of.period == "total" else f"this {of.period}"
        return Deny("budget_exceeded", f"the budget of {whose} has {max(answer.left, 0) / NANO:.6f} USD left {within}; "
                                       f"this call may cost {amount / NANO:.6f}", answer.retry_after)


def charge(outcome: Outcome, reserved: int) -> int | None:
    """Nano-USD that a call is charged in the end; None: what was held for it. *reserved*: how much that was."""
    if outcome.ended == "denied":
        return 0
    if outcome.cost_usd is not None:
        seen = nano(outcome.cost_usd)
        return None if outcome.estimated and seen < reserved else seen
    if outcome.status >= 300 or (outcome.status == 0 and outcome.ended == "upstream_error"):
        return 0  # the provider refused it, or was never reached
    return None


def output_bound(document: Mapping[str, Any]) -> int | None:
    """Tokens that one choice may have at most, as the call itself says; None where it does not. Raises ValueError."""
    stated = [value for name in _BOUNDS if (value := _whole(document, name)) is not None]
    return max(stated) if stated else None


def _whole(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError(f"{name} must be a whole number, up to {_MOST}")
    return value


def _account(book: str, scope: str, name: str, period: Period, at: float) -> Account:
    start, end = window(period, at)
    return Account(book, scope, name, period, start, end)


def _insert(call: Call, bound: int) -> Call | Deny:
    """The call with a bound put in after the opening brace: every other byte stays."""
    name = _INSERTED.get(call.operation)
    coding = call.header(b"content-encoding")
    if name is None or (coding is not None and coding.strip().lower() not in (b"", b"identity")):
        return Deny("budget_exceeded", "the call states no bound for its output, and none can be inserted in such a body")
    if any(other in call.document for other in _BOUNDS):
        return Deny("bad_request", "a bound of null is none: leave the member out, so that one can be inserted")
    at = call.body.index(b"{") + 1
    comma = b"," if call.document else b""
    body = b'%b"%b":%d%b%b' % (call.body[:at], name.encode(), bound, comma, call.body[at:])
    return replace(call, body=body, document={name: bound, **call.document})
