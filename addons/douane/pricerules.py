"""``prices:`` of policy files: prices of one's own, free models, other names, discounts, and what an unknown model costs.

A key is a model, or ``PROVIDER/MODEL`` where what stands before the first ``/`` is one of our providers; either may be a
glob. Of the lines that say a price, the exact one with its provider goes first, then the exact one without, then globs in
the order of the files. A line of discount alone lowers what the price list says, never a price that a policy file says.
"""

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Self

from douane.rates import Rates
from douane.schema import INVALID, read
from douane.source import Entry, Problems, Scalar, Table
from douane.units import Spelled

__all__ = ["NO_RULES", "Rule", "Rules", "read_prices"]

_MODEL = "*"
MOST_STEPS = 8
"""Names that are followed one after the other."""


def parse_percent(text: str) -> float:
    """``20%`` → 0.2. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%", text.strip())
    if match is None or float(match[1]) > 100:
        raise ValueError("a share is a number from 0 to 100 with %")
    return float(match[1]) / 100


def parse_ceiling(text: str) -> float:
    """``75 USD/million`` → 75.0. Raises ValueError, also for 0: what is unknown is never free."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?USD ?/ ?million", text.strip())
    if match is None or float(match[1]) == 0:
        raise ValueError("a ceiling is an amount above 0 for a million tokens")
    return float(match[1])


@dataclass(frozen=True, slots=True)
class PriceSpec:
    """A price of one's own: USD per million tokens and characters, per thousand searches, pages and requests, per hour of
    audio; the fields are its schema."""

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    web_search: float | None = None
    request: float = 0.0
    input_audio: float | None = None
    cached_audio: float | None = None
    output_audio: float | None = None
    input_image: float | None = None
    cached_image: float | None = None
    output_image: float | None = None
    file_search: float | None = None
    audio_hour: float | None = None
    characters: float | None = None
    page: float | None = None


type _Share = Annotated[float, Spelled(parse_percent, "20%")]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: ``rates``, ``to``, or a discount alone."""

    provider: str
    """Empty: of any provider."""
    model: str
    """A name or a glob, in lower case."""
    place: str
    """``file:line``."""
    rates: Rates | None = None
    to: str = ""
    """``PROVIDER/MODEL`` or a model of the same provider; ``*`` in it stands for the model that was asked for."""
    discount: float | None = None
    """0.2 for 20 %; None: the line names none."""
    pattern: re.Pattern[str] | None = None
    """None: the name is exact."""

    @property
    def key(self) -> str:
        return f"{self.provider}/{self.model}" if self.provider else self.model

    @classmethod
    def of(cls, key: str, providers: Collection[str], place: str, **more: Any) -> Self:
        provider, slash, model = key.partition("/")
        if not slash or provider not in providers:
            provider, model = "", key
        model = model.lower()
        pattern = re.compile(fnmatch.translate(model)) if re.search(r"[*?\[]", model) else None
        return cls(provider, model, place, pattern=pattern, **more)

    def fits(self, provider: str, names: Sequence[str]) -> bool:
        if self.provider and self.provider != provider:
            return False
        return self.model in names if self.pattern is None else any(map(self.pattern.match, names))


@dataclass(frozen=True, slots=True)
class Rules:
    """All lines of ``prices:``, in the order of the files."""

    lines: tuple[Rule, ...] = ()
    ceiling: float = 75.0
    """USD for a million tokens of a model whose price is not known."""
    ceiling_place: str = ""
    """Where that stands; empty: nowhere, it is the default."""
    batch: float = 0.5
    """What a call in a batch costs of its price, where the list has no price of its own for batches."""
    providers: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, rates: Mapping[str, Rates], providers: Collection[str] = ()) -> Self:
        """Prices that stand in no file."""
        return cls(tuple(Rule.of(key, providers, "", rates=one) for key, one in rates.items()), providers=frozenset(providers))

    def and_free(self, providers: Iterable[str]) -> Self:
        """These, and behind them that *providers* cost nothing."""
        rates = Rates(**dict.fromkeys(_PRICES, 0.0))
        more = tuple(Rule.of(f"{name}/*", (name,), "a server of one's own", rates=rates) for name in providers)
        return replace(self, lines=self.lines + more)

    def price(self, provider: str, names: Sequence[str]) -> Rule | None:
        """The line that says what a model costs; *names*: all that it goes by, in lower case."""
        return self._first(provider, names, [line for line in self.lines if line.rates is not None or line.to])

    def discount(self, provider: str, names: Sequence[str]) -> Rule | None:
        """The line of discount alone that holds for a model at its list price."""
        return self._first(provider, names, [line for line in self.lines if line.rates is None and not line.to])

    def target(self, rule: Rule, provider: str, model: str) -> tuple[str, str]:
        """The provider and model whose price *rule* gives to *model*."""
        first, slash, rest = rule.to.partition("/")
        to, name = (first, rest) if slash and first in self.providers else (provider, rule.to)
        return to, name.replace(_MODEL, model)

    def _first(self, provider: str, names: Sequence[str], lines: list[Rule]) -> Rule | None:
        fitting = [line for line in lines if line.fits(provider, names)]
        return min(fitting, key=lambda line: 2 if line.pattern is not None else 0 if line.provider else 1, default=None)


NO_RULES = Rules()


def read_prices(section: Mapping[str, Entry], providers: Collection[str], problems: Problems) -> Rules:
    """``prices:``. *providers*: the names that may stand before a ``/``."""
    given: dict[str, Any] = {}
    lines: dict[str, Rule] = {}
    for key, entry in section.items():
        what = f"prices.{key}"
        if key == "unknown":
            given |= _only(entry, Annotated[float, Spelled(parse_ceiling, "75 USD/million")], what, problems, "ceiling")
            given["ceiling_place"] = str(entry.place)
        elif key == "batch":
            given |= _only(entry, _Share, what, problems, "batch")
        elif (line := _line(key, entry, what, providers, problems)) is not None:
            lines[key] = line
    rules = Rules(tuple(lines.values()), providers=frozenset(providers), **given)
    for key, line in lines.items():
        if line.to and (problem := _endless(rules, line)):
            problems.add(section[key].place, f"prices.{key}: as: {problem}")
    return rules


def _only(entry: Entry, hint: Any, what: str, problems: Problems, name: str) -> dict[str, float]:
    value = read(entry.node, hint, what, problems)
    return {} if value is INVALID else {name: value}


def _line(key: str, entry: Entry, what: str, providers: Collection[str], problems: Problems) -> Rule | None:
    node = entry.node
    if isinstance(node, Table) and {"as", "discount"} & node.entries.keys():
        return _other(key, entry, what, providers, problems)
    if isinstance(node, Scalar) and isinstance(node.value, int | float) and node.value != 0 and node.value is not True:
        problems.add(entry.place, f"{what}: a single number may only be 0; else {{input: …, output: …}}")
        return None
    spec = read(node, PriceSpec | float, what, problems)
    if spec is INVALID:
        return None
    free = isinstance(spec, float)
    rates = Rates(**dict.fromkeys(_PRICES, 0.0)) if free else Rates(**{name: getattr(spec, name) for name in _PRICES})
    if any((getattr(rates, name) or 0) < 0 for name in _PRICES):
        problems.add(entry.place, f"{what}: a price is 0 or more")
        return None
    return Rule.of(key, providers, str(entry.place), rates=rates)


_PRICES = tuple(one.name for one in fields(PriceSpec))


def _other(key: str, entry: Entry, what: str, providers: Collection[str], problems: Problems) -> Rule | None:
    node = entry.node
    if not isinstance(node, Table) or not node.entries.keys() <= {"as", "discount"}:
        problems.add(entry.place, f"{what}: `as` and `discount` stand alone or together, not beside a price")
        return None
    to: Any = ""
    discount: Any = None
    if "as" in node.entries:
        to = read(node.entries["as"].node, str, f"{what}.as", problems)
    if "discount" in node.entries:
        discount = read(node.entries["discount"].node, _Share, f"{what}.discount", problems)
    if INVALID in (to, discount):
        return None
    if "as" in node.entries and not to:
        problems.add(entry.place, f"{what}.as: names nothing; allowed: a model, or PROVIDER/MODEL")
        return None
    return Rule.of(key, providers, str(entry.place), to=to, discount=discount)


def _endless(rules: Rules, line: Rule) -> str:
    """Why the names that *line* leads to come to no end; empty where they do."""
    rule, provider, seen = line, line.provider, [line.key]
    model = line.model
    while rule.to:
        provider, model = rules.target(rule, provider, model)
        seen.append(f"{provider}/{model}" if provider else model)
        found = rules.price(provider, (model.lower(),))
        if found is None:
            return ""
        if found is line or len(seen) > MOST_STEPS:
            return f"leads back to itself or through more than {MOST_STEPS} names: {' → '.join(seen)}"
        rule = found
    return ""

