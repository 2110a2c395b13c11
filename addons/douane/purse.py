"""What one call may come to, held for it and settled when it ends.

Law 6: the most a call can come to is held in all the accounts it must fit, in one step; it is reckoned once, for the call as it
goes upstream. What it is charged in the end follows from its record alone (``ledger/charge.py``).

No I/O of its own: the store is asked through :class:`~douane.ledger.base.Ledger`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote

from douane.call import Call, Finding, Outcome
from douane.ledger.base import (
    NANO,
    NOTHING_SPENT,
    Account,
    Demand,
    Ledger,
    LedgerUnavailableError,
    Limited,
    Limiter,
    Rate,
    Refused,
    Slots,
    Spent,
    Take,
    nano,
)
from douane.ledger.charge import charge
from douane.ledger.claim import Cap, Claim
from douane.providers.base import Operation, Wire
from douane.providers.edit import put, quoted
from douane.providers.room import Room
from douane.providers.wires import read_json
from douane.size import OF_THE_BYTES, Size, size_of
from douane.verdict import Deny

__all__ = ["Most", "Pricing", "Purse", "Till", "with_model"]

_ASSUMED = 1024
"""Tokens of output that a rate limit takes for a call which states no bound, until it has ended."""


class Till(Ledger, Limiter, Protocol):
    """What a purse asks of the store."""


class Most(Protocol):
    @property
    def usd(self) -> float: ...
    @property
    def ceiling(self) -> bool:
        """Whether some of it has no known price and was taken at the ceiling."""
        ...


class Pricing(Protocol):
    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> Most:
        """What *tokens* (input, output) can cost at most, whatever is cached or thought."""
        ...


@dataclass(frozen=True, slots=True)
class _Owned:
    """A claim, and the entry of the chain that makes it. Not *hard*: it counts and refuses nothing."""

    claim: Claim
    policy: str
    hard: bool


class Purse:
    """One exchange's: :meth:`claim` while the policies speak, :meth:`hold` once, :meth:`settle` and :meth:`book` at the end."""

    __slots__ = ("_asked", "_at_risk", "_claims", "_demands", "_ledger", "_prices", "_spent", "_taken", "call", "findings",
                 "policy", "reserved_usd", "size")

    def __init__(self, ledger: Till, prices: Pricing) -> None:
        self._ledger, self._prices = ledger, prices
        self._claims: list[_Owned] = []
        self._asked: Sequence[Demand] = ()
        """For what the ledger was asked last, and for what it was when it said yes."""
        self._demands: Sequence[Demand] = ()
        self._taken: list[Take] = []
        self._at_risk = False
        """The ledger was asked to hold something, and may."""
        self._spent: Spent | None = None
        """Reckoned and not booked."""
        self.call: Call | None = None
        """As it was held for."""
        self.size: Size | None = None
        self.policy = ""
        """The entry that refused."""
        self.reserved_usd: float | None = None
        """The most that is held in one account; None: nothing is."""
        self.findings: list[Finding] = []

    def forget(self) -> None:
        """The claims of a call that is judged anew."""
        self._claims.clear()

    def claim(self, policy: str, claims: Sequence[Claim], *, hard: bool) -> None:
        self._claims += [_Owned(one, policy, hard) for one in claims]

    @property
    def assumed(self) -> int | None:
        """Tokens of output that are held for a call which states no bound, where a limit depends on them; None: there is a
        bound, or no limit."""
        if self.size is None or self.size.output is not None or not self.size.known:
            return None
        hard = [one.claim.unbounded.tokens for one in self._claims if one.hard]
        return min(hard) * self.size.answers if hard else None

    async def hold(self, call: Call, operation: Operation | None) -> Call | Deny:
        """Hold what *call* may come to; returns the call as it may go on, with another model where a budget says so."""
        wire = operation.wire if operation is not None else None
        tried = {call.model}
        while self._claims:
            answer = await self._hold(call, wire)
            if not isinstance(answer, Refused):
                return call if answer is None else answer
            refusing = self._refusing(answer.account)
            self.policy = refusing[0].policy
            model = next((one.claim.downgrade for one in refusing if one.claim.downgrade), "")
            cheaper = with_model(call, operation, model) if model and model not in tried else None
            if cheaper is None:
                return self._refused(answer)
            tried.add(model)
            call = cheaper
            self.findings.append(Finding(self.policy, "downgraded"))
        return call

    async def take(self, call: Call, operation: Operation | None, rates: Sequence[Rate | Slots]) -> Deny | None:
        """Take what *call* needs of all *rates*, or of none. Raises LedgerUnavailableError."""
        tokens = 0
        if any(isinstance(rule, Rate) and rule.unit == "tokens" for rule in rates):
            try:
                tokens = sum(size_of(call, operation.wire if operation is not None else None).tokens(_ASSUMED))
            except ValueError as error:
                return Deny("bad_request", str(error))
        takes = [Take(rule, tokens if isinstance(rule, Rate) and rule.unit == "tokens" else 1) for rule in rates]
        self._taken += takes  # before the wait: whoever leaves meanwhile gives back
        self.call = self.call or call
        limited = await self._ledger.take(call.id, call.principal.org, call.at, takes)
        if limited is None:
            return None
        del self._taken[-len(takes):]
        return _limited(limited)

    async def extend(self, output: int) -> Deny | None:
        """Hold *output* tokens of output in place of those that were assumed."""
        if self.call is None or self.size is None:
            return None
        size = replace(self.size, output=output, answers=1)
        demands = self._wanted(self.call, size)
        if isinstance(demands, Deny):
            return demands
        answer = await self._ask(self.call, demands)
        if isinstance(answer, Refused):
            self.policy = self._refusing(answer.account)[0].policy
            return self._refused(answer)
        return answer

    def settle(self, outcome: Outcome, at: float) -> float:
        """Reckon what came of it, for :meth:`book`, and give back its slots. Returns the USD by which it came to more than was
        held. *at*: seconds since the epoch. Raises LedgerUnavailableError."""
        if self.call is None:
            return 0.0
        if self._taken:
            back, self._taken = self._given_back(outcome), []
            if back:
                self._ledger.give_back(self.call.id, self.call.principal.org, at, back)
        if not self._at_risk:
            return 0.0
        self._at_risk = False
        self._spent = spent = charge(outcome) if self._demands else NOTHING_SPENT
        return max(0.0, spent.usd / NANO - (self.reserved_usd or 0.0)) if self.reserved_usd is not None else 0.0

    def book(self) -> None:
        """Book what was reckoned; it is in line when this returns. Once the log has the outcome and not before: who dies in
        between books at the next start what the log says. Raises LedgerUnavailableError."""
        if self.call is not None and self._spent is not None:
            spent, self._spent = self._spent, None
            self._ledger.capture(self.call.id, self.call.principal.org, spent)

    def _given_back(self, outcome: Outcome) -> list[Take]:
        """Slots, and tokens that the call took too many or too few of. That it was a call stays."""
        spent, found = charge(outcome), []
        for one in self._taken:
            if isinstance(one.rule, Slots):
                found.append(one)
            elif one.rule.unit == "tokens" and (rest := one.cost - spent.of("tokens", one.cost)):
                found.append(Take(one.rule, rest))
        return found

    # -- reckoning -------------------------------------------------------------------------------------------------

    async def _hold(self, call: Call, wire: Wire | None) -> Refused | Deny | None:
        try:
            size = size_of(call, wire)
        except ValueError as error:
            return Deny("bad_request", str(error))
        demands = self._wanted(call, size)
        if isinstance(demands, Deny):
            return demands
        self.call, self.size = call, size
        return await self._ask(call, demands) if demands else None

    async def _ask(self, call: Call, demands: Sequence[Demand]) -> Refused | Deny | None:
        self._asked = demands
        before, self._at_risk = self._at_risk, True  # before the wait: whoever leaves meanwhile is settled
        try:
            answer = await self._ledger.reserve(call.id, call.principal.org, call.at, demands)
        except LedgerUnavailableError as error:
            self.policy = self._claims[0].policy
            return Deny(error.code, error.reason)
        if isinstance(answer, Refused):
            self._at_risk = before
            return answer
        self._demands = demands
        held = [one.amount for one in demands if one.account.unit == "usd"]
        self.reserved_usd = max(held) / NANO if held else None
        for account in answer.over:
            self._would_deny(self._refusing(account)[0].policy)
        return None

    def _wanted(self, call: Call, size: Size) -> Sequence[Demand] | Deny:
        """What must be held, an account once."""
        found: dict[Account, Demand] = {}
        for owned in self._claims:
            amounts = self._amounts(owned, call, size)
            if isinstance(amounts, Deny):
                if owned.hard:
                    self.policy = owned.policy
                    return amounts
                self._would_deny(owned.policy)
                continue
            for cap in owned.claim.caps:
                amount = amounts[cap.unit]
                if cap.account is not None:
                    one = Demand(cap.account, amount, cap.limit, owned.hard, owned.claim.alerts)
                    found[cap.account] = _both(found.get(cap.account), one)
                elif amount > cap.limit:
                    if owned.hard:
                        self.policy = owned.policy
                        return Deny("budget_exceeded", f"this call may come to {_shown(amount, cap)}, and one call may come to "
                                                       f"{_shown(cap.limit, cap)}")
                    self._would_deny(owned.policy)
        return tuple(found.values())

    def _amounts(self, owned: _Owned, call: Call, size: Size) -> dict[str, int] | Deny:
        """By unit."""
        claim = owned.claim
        tokens = size.tokens(claim.unbounded.tokens)
        amounts = {"tokens": sum(tokens), "calls": 1}
        if any(cap.unit == "usd" for cap in claim.caps):
            most = self._prices.at_most(call.provider, call.model, tokens, call.at, _tier(call))
            if (most.ceiling or not size.known) and claim.unpriced != "ceiling":
                if claim.unpriced == "deny":
                    return Deny("budget_exceeded", f"the price of {call.model[:100]!r} is not known, so no budget can hold it: "
                                                   "name it in prices, or leave out unpriced: deny")
                amounts["usd"] = claim.unpriced
            else:
                amounts["usd"] = nano(most.usd)
        return amounts

    # -- saying no -------------------------------------------------------------------------------------------------

    def _would_deny(self, policy: str) -> None:
        finding = Finding(policy, "would_deny:budget_exceeded")
        if finding not in self.findings:
            self.findings.append(finding)

    def _refusing(self, account: Account) -> list[_Owned]:
        return [one for one in self._claims if any(cap.account == account for cap in one.claim.caps)]

    def _refused(self, answer: Refused) -> Deny:
        of = answer.account
        cap = Cap(of, of.unit, 0)
        asked = next((one.amount for one in self._asked if one.account == of), 0)
        whose = f"{of.scope} {of.name[:100]!r}" if of.name else f"calls without {of.scope}"
        within = "in total" if of.period == "total" else f"this {of.period}"
        return Deny("budget_exceeded", f"the budget of {whose} has {_shown(max(answer.left, 0), cap)} left {within}; "
                                       f"this call may come to {_shown(asked, cap)}", answer.retry_after)


def _limited(limited: Limited) -> Deny:
    rule = limited.rule
    whose = f"{rule.key[2]} {rule.key[1][:100]!r}" if rule.key[1] else f"calls without {rule.key[2]}"
    if isinstance(rule, Slots):
        return Deny("rate_limited", f"{whose}: {rule.limit} calls are running, and no more may", limited.retry_after)
    every = {1: "second", 60: "minute", 3600: "hour"}.get(rule.period, "day")
    return Deny("rate_limited", f"{whose}: {rule.limit} {rule.unit} a {every}", limited.retry_after,
                room=Room(rule.unit, rule.limit, limited.remaining, limited.reset_after))


def _both(first: Demand | None, second: Demand) -> Demand:
    """What must be held in one account for two claims."""
    if first is None:
        return second
    if first.hard == second.hard:
        stricter = first if first.limit <= second.limit else second
    else:
        stricter = first if first.hard else second
    return replace(stricter, amount=max(first.amount, second.amount), alerts=first.alerts or second.alerts)


def _shown(amount: int, cap: Cap) -> str:
    return f"{amount / NANO:.6f} USD" if cap.unit == "usd" else f"{amount} {cap.unit}"


def _tier(call: Call) -> str:
    document = call.document if isinstance(call.document, dict) else {}
    tier = document.get("speed" if call.operation == "messages" else "service_tier")
    return tier if isinstance(tier, str) and tier != "auto" else ""


def with_model(call: Call, operation: Operation | None, model: str) -> Call | None:
    """*call* for another *model* of the same provider; None where it cannot be given one."""
    if operation is None or call.session:
        return None
    found = operation.path.fullmatch(call.path) if operation.model_in_path else None
    if found is not None and found["model"]:
        start, end = found.span("model")
        return replace(call, path=call.path[:start] + quote(model, safe="") + call.path[end:], model=model)
    if not isinstance(call.document, dict) or not OF_THE_BYTES.isdisjoint(name for name, _ in call.headers):
        return None
    try:
        body = put(call.body, ("model",), quoted(model).encode())
    except ValueError:
        return None
    return replace(call, body=body, document=read_json(body), model=model)
