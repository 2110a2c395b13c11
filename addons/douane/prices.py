"""What a call costs, in USD, after ``prices:`` of the policy files and the pinned price list (genai-prices, offline).

Law 6: what is not known is never free. :meth:`Prices.cost` says None for it, :meth:`Prices.bill` and :meth:`Prices.at_most`
take the ceiling (``prices: unknown``) in its place and the bill says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from douane.call import Usage
from douane.modelnames import LONGEST, spellings
from douane.pricebook import NO_BOOKS, Books, Tariff, open_books, tariff
from douane.pricerules import MOST_STEPS, NO_RULES, Rule, Rules
from douane.rates import Rates

__all__ = ["BATCH", "Bill", "Prices", "Quote", "Rates"]

BATCH = "batch"
"""The tier of calls that were made in a batch."""
_CACHED_MODELS = 4096
_NONE: Mapping[str, str] = MappingProxyType({})
_ALWAYS = (float("-inf"), float("inf"))


@dataclass(frozen=True, slots=True)
class Bill:
    """What a call cost."""

    usd: float
    ceiling: bool
    """Whether some of it has no known price and was taken at the ceiling."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What holds for one model of one provider, and why."""

    tariff: Tariff | None
    """None: nothing is known, the ceiling holds."""
    name: str | None
    """As the list or the policy line has it."""
    rules: tuple[Rule, ...] = ()
    """The policy's lines that led here, in the order in which they were followed."""
    book: str = ""
    """Id in the price list; empty where a policy line says the price."""
    factor: float = 1.0
    """Of the price as it is written, for discounts and batches; already in ``tariff``."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a model's name leads to, whenever and in whichever tier."""

    name: str
    rules: tuple[Rule, ...]
    factor: float
    own: Rates | None = None
    book: str = ""
    entry: Any = None


class Prices:
    """The price list. *lists* maps our providers' names to ids of the price list; *overrides* go before the list."""

    __slots__ = ("_books", "_cache", "_found", "_lists", "_over", "_rules")

    def __init__(self, overrides: Rules = NO_RULES, lists: Mapping[str, str] = _NONE, books: Books = NO_BOOKS) -> None:
        self._rules = overrides
        self._over = _ceiling(overrides.ceiling)
        self._lists = dict(lists)
        self._books = books
        self._cache: dict[tuple[str, str, str], Tariff | None] = {}
        self._found: dict[tuple[str, str], _Found | None] = {}

    @classmethod
    def open(cls, folder: Path, lists: Mapping[str, str], overrides: Rules = NO_RULES) -> Self:
        """With the list kept in *folder*, which is built there where it is missing or damaged (about a second).

        Raises EnvironmentFailedError where it cannot be."""
        return cls(overrides, lists, open_books(folder))

    def with_overrides(self, overrides: Rules) -> "Prices":
        """The same list under other overrides, for a reload."""
        return Prices(overrides, self._lists, self._books)

    def bill(self, provider: str, models: tuple[str, ...], usage: Usage, at: float, tier: str = "") -> Bill:
        """What *usage* cost. *models*: the names of the model, those that the answer gave before the one that was asked for;
        a policy line for any of them goes before the list, and there the name that was asked for before the others. *tier*:
        the service tier that the answer named, or ``batch``."""
        names = [name for name in reversed(models) if self._has_line(provider, name)] if self._rules.lines else []
        partly = None
        for name in (*names, *models):
            cost = self.cost(provider, name, usage, at, tier)
            if cost is not None:
                return Bill(cost, ceiling=False)
            partly = partly or self._rates(provider, name, usage.input, at, tier)
        return Bill((partly or self._over).filled(self._over).cost(usage) or 0.0, ceiling=True)

    def cost(self, provider: str, model: str, usage: Usage, at: float, tier: str = "") -> float | None:
        """USD of one call at *at* (seconds since the epoch); None where something of it has no known price."""
        rates = self._rates(provider, model, usage.input, at, tier)
        return None if rates is None else rates.cost(usage)

    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> Bill:
        """What *tokens* (input, output) can cost at most, whatever of them is cached or thought, in the standard tier or in
        *tier*; searches and other tools are not in it."""
        given, made = tokens
        found: list[Rates] = []
        for name in ("", tier) if tier else ("",):
            one = self._tariff(provider, model, at, name)
            found += [self._over] if one is None else [one.base, *(rates for start, rates in one.tiers if given > start)]
        costs = [rates.at_most(given, made) for rates in found]
        sure = [cost for cost in costs if cost is not None]
        over = [self._over.at_most(given, made) or 0.0] if len(sure) < len(costs) else []
        return Bill(max(sure + over), ceiling=bool(over) or self._over in found)

    def known(self, provider: str, model: str) -> str | None:
        """The price list's own name of *model*, else that of the policy line it falls under, else None: never a name that
        only a caller made up, so that it may label a metric."""
        found = self._find(provider, model)
        return None if found is None else found.name

    def quote(self, provider: str, model: str, at: float, tier: str = "") -> Quote:
        """What holds, and why."""
        found = self._find(provider, model)
        if found is None:
            return Quote(None, None)
        one, factor = self._price(found, at, tier)
        return Quote(one, found.name, found.rules, found.book, factor)

    @property
    def rules(self) -> Rules:
        """The policy's lines."""
        return self._rules

    @property
    def ceiling(self) -> Rates:
        """What is asked where nothing is known."""
        return self._over

    # -- finding -----------------------------------------------------------------------------------------------------

    def _rates(self, provider: str, model: str, given: int, at: float, tier: str) -> Rates | None:
        one = self._tariff(provider, model, at, tier)
        if one is None:
            return None
        for start, rates in one.tiers:
            if given > start:
                return rates
        return one.base

    def _tariff(self, provider: str, model: str, at: float, tier: str) -> Tariff | None:
        key = (provider, model, tier)
        one = self._cache.get(key)
        if one is not None and one.start <= at < one.end:
            return one
        if len(tier) > LONGEST:
            tier = ""
        found = self._find(provider, model)
        if found is None:
            return None
        one, _ = self._price(found, at, tier)
        if len(self._cache) >= _CACHED_MODELS:
            self._cache.clear()
        self._cache[key] = one
        return one

    def _price(self, found: _Found, at: float, tier: str) -> tuple[Tariff, float]:
        own_tier = False
        if found.own is not None:
            one = Tariff(*_ALWAYS, found.own)
        else:
            one, own_tier = tariff(found.entry, at, tier)
        factor = found.factor * (self._rules.batch if tier == BATCH and not own_tier else 1.0)
        return one.times(factor), factor

    def _find(self, provider: str, model: str) -> _Found | None:
        key = (provider, model)
        if key in self._found:
            return self._found[key]
        if len(model) > LONGEST:
            return None
        found = self._follow(provider, model)
        if len(self._found) >= _CACHED_MODELS:
            self._found.clear()  # names come from callers: bounded, whatever they send
        self._found[key] = found
        return found

    def _has_line(self, provider: str, model: str) -> bool:
        found = self._find(provider, model)
        return found is not None and bool(found.rules) and any(rule.rates is not None or rule.to for rule in found.rules)

    def _line(self, provider: str, model: str) -> Rule | None:
        if not self._rules.lines or len(model) > LONGEST:
            return None
        return self._rules.price(provider, self._names(provider, model))

    def _follow(self, provider: str, model: str) -> _Found | None:
        """Through the policy's lines to a price."""
        trail: tuple[Rule, ...] = ()
        asked, factor = (provider, model), 1.0
        for _ in range(MOST_STEPS):
            rule = self._line(provider, model)
            if rule is None:
                break
            trail += (rule,)
            if rule.rates is not None:
                listed = self._listed(*asked)
                return _Found(rule.key if listed is None else listed[1][0], trail, factor, own=rule.rates)
            factor *= 1 - (rule.discount or 0.0)
            provider, model = self._rules.target(rule, provider, model)
        named = any(rule.discount is not None for rule in trail)
        less = None if named else self._rules.discount(asked[0], self._names(*asked))
        if (listed := self._listed(provider, model)) is None:
            return None
        if less is not None:
            trail, factor = (*trail, less), factor * (1 - (less.discount or 0.0))
        return _Found(listed[1][0], trail, factor, book=listed[0], entry=listed[1])

    def _listed(self, provider: str, model: str) -> tuple[str, Any] | None:
        """The list that has *model*, and its entry there."""
        for book, name in spellings(self._lists.get(provider, ""), model):
            if (entry := self._books.find(book, name)) is not None:
                return book, entry
        return None

    def _names(self, provider: str, model: str) -> list[str]:
        return [name.lower() for _, name in spellings(self._lists.get(provider, ""), model)]


def _ceiling(usd: float) -> Rates:
    """*usd* for a million tokens of any kind; what has no tokens counts as some: a search or a page as a thousand, a second of
    sound as 40, a character as one."""
    return Rates(input=usd, output=usd, web_search=usd, file_search=usd, audio_hour=usd * 40 * 3600 / 1e6, characters=usd,
                 page=usd)
