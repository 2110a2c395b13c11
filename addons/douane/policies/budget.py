"""``budget``: what may be spent.

Law 6: a call is let on only while the most it can cost is held in every window at once. What it is charged in the end
follows from its record alone (``ledger/charge.py``).

A policy in observe mode is not asked whether it is; what it would have refused and what went on all the same is counted
when it ends.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from douane.call import Call, Outcome
from douane.errors import ConfigError
from douane.ledger.base import NANO, Account, Demand, LedgerUnavailableError, Refused, nano
from douane.ledger.charge import charge
from douane.ledger.estimate import UNSEEN, input_bound
from douane.ledger.till import Till
from douane.ledger.windows import Period, window
from douane.policy import Setting, Wires, policy, positions
from douane.providers.base import Bound
from douane.providers.edit import Path, put
from douane.providers.wires import read_json
from douane.units import Limit, Spelled, parse_limit, parse_usd
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict

__all__ = ["Budget", "Unbounded", "output_bound"]

_FREE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_FREE = frozenset({"models", "count_tokens"})
"""Operations that no provider bills."""
_NO_OUTPUT = frozenset({"embeddings", "rerank", "classify"})
"""Operations whose answers have no tokens that are billed."""
_MOST = 10_000_000
"""Tokens, or choices, that one call may ask for; more is a slip or an attack on our arithmetic."""
_LARGEST_NAME = 200
_OF_THE_BYTES = frozenset({b"content-encoding", b"content-md5", b"digest", b"content-digest"})
"""Headers of a body that no byte can be put into."""


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
            # the outcome, which is durable next, tells it should we die
            ledger.capture(call.id, spent, [demand.account for demand in one.demands])
        elif spent:  # refused, and went on all the same: observe mode
            uncapped = tuple(replace(demand, limit=None) for demand in one.demands)
            await ledger.reserve(call.id, call.at, uncapped, spent)
            ledger.capture(call.id, spent, [demand.account for demand in one.demands])

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
        of, silent = wire.bound, call.operation in _NO_OUTPUT
        if not of.stated and not silent:
            return call, None
        given = input_bound(call.provider, call.document, (one.text for one in positions(call, wire)), call.model)
        given += _token_ids(call.document)
        if silent:
            return call, (given + call.context, 0)
        try:
            answers = _answers(of, call.document)
            bound = output_bound(of, call.document)
        except ValueError as error:
            return Deny("bad_request", str(error))
        if bound is None:
            rule = self.rules.unbounded
            if rule.act == "deny":
                return Deny("budget_exceeded", "the call states no bound for its output, such as "
                                               f"{_spelled(of.insert or of.stated[0])}")
            bound = rule.tokens
            if rule.act == "insert":
                inserted = _insert(call, of, bound)
                if isinstance(inserted, Deny):
                    return inserted
                call = inserted
        return call, (given + call.context, bound * answers)

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


def output_bound(of: Bound, document: Any) -> int | None:
    """Tokens that one choice may have at most, as the call itself says; None where it does not. Raises ValueError."""
    stated = [value for path in of.stated if (value := _whole(document, path)) is not None]
    return max(stated) if stated else None


def _answers(of: Bound, document: Any) -> int:
    """How many answers are made, each as long as the bound. Raises ValueError."""
    choices = [_whole(document, path) or 1 for path in (of.choices, *of.tries) if path is not None]
    asked = None if of.each is None else _at(document, of.each)
    many = len(asked) if isinstance(asked, list) and not all(isinstance(one, int) for one in asked) else 1
    return max(choices, default=1) * many


def _token_ids(document: Any) -> int:
    """Tokens that are given as numbers, alone or in lists."""
    found = 0
    for name in ("input", "prompt"):
        given = document.get(name)
        for one in given if isinstance(given, list) else ():
            found += len(one) if isinstance(one, list) else isinstance(one, int)
    return found


def _at(document: Any, path: Path) -> Any:
    for name in path:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def _whole(document: Any, path: Path) -> int | None:
    value = _at(document, path)
    if value is None or value == "inf" or (value == -1 and path[-1] == "num_predict"):  # Realtime's, Ollama's word for no bound
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError(f"{_spelled(path)} must be a whole number, up to {_MOST}")
    return value


def _spelled(path: Path) -> str:
    return ".".join(map(str, path))


def _account(book: str, scope: str, name: str, period: Period, at: float) -> Account:
    start, end = window(period, at)
    return Account(book, scope, name, period, start, end)


def _insert(call: Call, of: Bound, bound: int) -> Call | Deny:
    """The call with a bound put in: every other byte stays."""
    if of.insert is None or not _OF_THE_BYTES.isdisjoint(name for name, _ in call.headers):
        return Deny("budget_exceeded", "the call states no bound for its output, and none can be inserted in such a body")
    if any(path[-1] in holder for path in of.stated if isinstance(holder := _at(call.document, path[:-1]), dict)
           and holder.get(path[-1]) is None):
        return Deny("bad_request", "a bound of null is none: leave the member out, so that one can be inserted")
    try:
        body = put(call.body, _beside(of, call.document), b"%d" % bound)
    except ValueError as error:
        return Deny("bad_request", str(error))
    return replace(call, body=body, document=read_json(body))


def _beside(of: Bound, document: Any) -> Path:
    """Where the bound goes: into the object that the call has, where a format knows it by two names."""
    path = of.insert or ()
    spelled = (one for one in of.stated if len(one) > 1 and len(one) == len(path) and isinstance(_at(document, one[:-1]), dict))
    return next(spelled, path) if len(path) > 1 and _at(document, path[:-1]) is None else path
