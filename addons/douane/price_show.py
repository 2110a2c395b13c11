"""What a model costs and why, for people and for programs: ``douane prices``.

It opens no port and asks no gateway: the policy files and the price list are all there is to it, and the latest records of
the audit log where no model is named.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from math import inf
from typing import Any

from douane.audit.read import tail
from douane.call import Usage
from douane.errors import ConfigError
from douane.loader import Loaded, load
from douane.places import Places, private_folder
from douane.pricebook import Tariff, list_version
from douane.pricerules import Rule
from douane.prices import BATCH, Prices, Quote
from douane.rates import Rates
from douane.source import suggest

__all__ = ["explain", "overview"]

_LATEST = 2000
"""Records of the audit log that are looked through for models in use."""
_UNITS = {"web_search": "thousand searches", "file_search": "thousand searches", "request": "thousand requests",
          "page": "thousand pages", "audio_hour": "hour of audio", "characters": "million characters"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One model of one provider."""

    provider: str
    """Empty: the same holds for any."""
    model: str
    quote: Quote
    batch: Tariff | None
    ceiling: Rates
    ceiling_place: str


def explain(places: Places, model: str, provider: str | None) -> list[Answer]:
    """What holds now for *model*, given as MODEL or PROVIDER/MODEL; for every provider that knows it where none is named
    (servers of one's own know none).

    Raises ConfigError where there is no such provider."""
    loaded, prices = _open(places)
    first, slash, rest = model.partition("/")
    if provider is None and slash and first in loaded.providers:
        provider, model = first, rest
    if provider is not None and provider not in loaded.providers:
        raise ConfigError(f"there is no provider {provider}{suggest(provider, loaded.providers)}")
    names = [name for name, one in loaded.providers.items() if not one.free] if provider is None else [provider]
    found = [_answer(prices, name, model) for name in names]
    known = [one for one in found if one.quote.tariff is not None] or found
    if provider is not None:
        return known
    anywhere = [one for one in known if not one.quote.book and not any(rule.provider for rule in one.quote.rules)]
    return [one for one in known if one not in anywhere] + [replace(one, provider="") for one in anywhere[:1]]


def overview(places: Places) -> tuple[list[Rule], list[Answer], list[str]]:
    """The policy's own lines; what holds for each model that the latest records name; and what holds for the others."""
    loaded, prices = _open(places)
    asked = {(str(record.get("provider")), str(record["model"])): None for record in tail(places.audit, n=_LATEST)
             if record.get("model") and record.get("provider") in loaded.providers} if places.audit.is_dir() else {}
    rules = prices.rules
    rest = [f"unknown: {rules.ceiling:g} USD for a million tokens ({rules.ceiling_place or 'the default'})",
            f"batch: {rules.batch:.0%} where the price list has no price of its own for batches",
            f"price list: genai-prices {list_version()}"]
    return list(rules.lines), [_answer(prices, *one) for one in sorted(asked)], rest


def _open(places: Places) -> tuple[Loaded, Prices]:
    loaded = load(places.policies)
    private_folder(places.data)
    lists = {name: one.prices for name, one in loaded.providers.items() if one.prices}
    return loaded, Prices.open(places.data, lists, loaded.prices)


def _answer(prices: Prices, provider: str, model: str) -> Answer:
    now = time.time()
    return Answer(provider, model, prices.quote(provider, model, now), prices.quote(provider, model, now, BATCH).tariff,
                  prices.ceiling, prices.rules.ceiling_place)


# -- for programs ------------------------------------------------------------------------------------------------------


def as_object(one: Answer) -> dict[str, Any]:
    """JSON: prices in USD, each in the unit of its name in ``prices:``."""
    quote = one.quote
    of: dict[str, Any] = {"provider": one.provider or None, "model": one.model, "known": quote.tariff is not None,
                          "name": quote.name, "list": quote.book or None, "factor": quote.factor,
                          "rules": [{"key": rule.key, "place": rule.place} for rule in quote.rules]}
    if quote.tariff is None:
        return {**of, "prices": _given(one.ceiling), "place": one.ceiling_place or None}
    return {**of, "prices": _given(quote.tariff.base),
            "above": [{"input": start, "prices": _given(rates)} for start, rates in quote.tariff.tiers],
            "from": _time(quote.tariff.start), "until": _time(quote.tariff.end),
            "batch": None if one.batch is None else _given(one.batch.base)}


def _given(rates: Rates) -> dict[str, float]:
    return {one.name: round(price, 9) for one in fields(rates) if (price := getattr(rates, one.name)) is not None
            and (price or one.name in ("input", "output"))}


def _time(at: float) -> str | None:
    return None if at in (inf, -inf) else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


# -- for people --------------------------------------------------------------------------------------------------------


def as_text(one: Answer) -> str:
    """Some lines: what it costs, and why."""
    quote, lines = one.quote, [f"{one.provider}/{one.model}" if one.provider else f"{one.model} (any provider)"]
    lines += [f"  {rule.place}: {rule.key}: {_says(rule)}" for rule in quote.rules]
    if quote.tariff is None:
        whose = one.ceiling_place or "the default; `prices: unknown` sets it"
        lines.append(f"  no price is known: the ceiling holds ({whose}), and records say estimated")
        return "\n".join([*lines, *_prices("  ", Rates(input=one.ceiling.input, output=one.ceiling.output))])
    if quote.book:
        lines.append(f"  price list genai-prices {list_version()}, {quote.book}: {quote.name}"
                     + (f", times {quote.factor:.4g}" if quote.factor != 1 else ""))
    lines += _prices("  ", quote.tariff.base)
    for start, rates in sorted(quote.tariff.tiers):
        lines += [f"  above {start} input tokens, all tokens:", *_prices("    ", rates)]
    since, until = _time(quote.tariff.start), _time(quote.tariff.end)
    if since or until:
        lines.append("  these prices hold" + (f" from {since}" if since else "") + (f" until {until}" if until else ""))
    if one.batch is not None:
        lines.append(f"  in a batch: {_usd(one.batch.base.input)} input, {_usd(one.batch.base.output)} output")
    example = quote.tariff.base.cost(Usage(1000, 1000))
    lines.append("  1000 tokens in and 1000 out: " + ("no price is known for one of them" if example is None
                                                      else f"{example:.6f} USD"))
    return "\n".join(lines)


def _says(rule: Rule) -> str:
    less = f"discount {rule.discount:.4%}".replace(".0000", "") if rule.discount is not None else ""
    if rule.rates is not None:
        return "0" if not any(_given(rule.rates).values()) else "a price"
    return ", ".join(part for part in (f"as {rule.to}" if rule.to else "", less) if part)


def _prices(indent: str, rates: Rates) -> list[str]:
    return [f"{indent}{name:<16}{_usd(price):>12} USD for a {_UNITS.get(name, 'million tokens')}".replace(" a hour", " an hour")
            for name, price in _given(rates).items()]


def _usd(price: float | None) -> str:
    return "-" if price is None else f"{price:.6f}".rstrip("0").rstrip(".")


def table(rules: Sequence[Rule], used: Iterable[Answer], rest: Sequence[str]) -> str:
    """The policy's lines, the models in use, and what holds for the others."""
    lines = [f"{rule.place}: {rule.key}: {_says(rule)}" for rule in rules] or ["the policy files name no prices"]
    rows = [("PROVIDER", "MODEL", "INPUT", "OUTPUT", "FROM")]
    for one in used:
        quote = one.quote
        rates = one.ceiling if quote.tariff is None else quote.tariff.base
        why = "ceiling" if quote.tariff is None else quote.book or "policy"
        rows.append((one.provider, _printable(one.model), _usd(rates.input), _usd(rates.output),
                     " + ".join([*(rule.place for rule in quote.rules), why]) if quote.rules and quote.book else
                     quote.rules[-1].place if quote.rules else why))
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    shown = ["  ".join([*(cell.ljust(width) if at < 2 else cell.rjust(width)
                          for at, (cell, width) in enumerate(zip(row[:4], widths, strict=True))), row[4]]) for row in rows]
    return "\n".join([*lines, *(["", *shown] if len(rows) > 1 else []), "", *rest])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:100])
