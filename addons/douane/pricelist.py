"""Prints genai-prices' price list as JSON lines: ``python -P pricelist.py OUT``.

It runs in a process of its own, so that the gateway's does not carry the library (43 MB and 0.3 s). Imports nothing
of ``douane``. First line: ``{"version", "providers"}``, then one line a provider,
``{"id", "fallback", "models"}``, where a
model is ``[id, match, periods, variants]``
match  ``[kind, text]`` or ``["or"|"and", [match…]]``
period  ``[when, rates]``, *when* being null, ``["from", epoch]`` or ``["daily", second, second]``
variant  ``[value, when, rates]``, *value* being a service tier or ``batch``
rates  ``{price key: USD | [USD, [[start, USD]…]]}``, tokens and characters by the million, searches,
pages and requests by the thousand, audio by the hour
"""

import datetime
import json
import sys
from importlib.metadata import version
from typing import Any

from genai_prices import types
from genai_prices.data import providers

_KEYS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok",
         "output_reasoning_mtok", "web_searches_kcount", "requests_kcount", "storage_searches_kcount",
         "input_audio_mtok", "cache_audio_read_mtok", "output_audio_mtok", "input_image_mtok", "cache_image_read_mtok",
         "output_image_mtok", "input_audio_hours", "audio_hours", "input_mchars", "input_document_kpages")
"""What :class:`douane.call.Usage` can count. Of the other keys (video, citations, social searches) its calls have none."""


def _rates(prices: types.ModelPrice) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in _KEYS:
        price = getattr(prices, key)
        if isinstance(price, types.TieredPrices):
            found[key] = [float(price.base), [[tier.start, float(tier.price)] for tier in price.tiers]]
        elif price is not None:
            found[key] = float(price)
    return found


def _seconds(value: datetime.time) -> int:
    offset = value.utcoffset()
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return seconds - int(offset.total_seconds()) if offset else seconds


def _when(constraint: object) -> list[Any] | None:
    if constraint is None:
        return None
    if isinstance(constraint, types.StartDateConstraint):
        midnight = datetime.datetime.combine(constraint.start_date, datetime.time(), datetime.UTC)
        return ["from", midnight.timestamp()]
    if isinstance(constraint, types.TimeOfDateConstraint):
        return ["daily", _seconds(constraint.start_time) % 86400, _seconds(constraint.end_time) % 86400]
    raise TypeError(f"a price with a constraint of unknown kind: {type(constraint).__name__}")


def _match(clause: Any) -> list[Any]:
    for kind in ("starts_with", "ends_with", "contains", "regex", "equals"):
        text = getattr(clause, kind, None)
        if text is not None:
            return [kind, text if kind == "regex" else text.lower()]
    for kind in ("or", "and"):
        clauses = getattr(clause, f"{kind}_", None)
        if clauses is not None:
            return [kind, [_match(inner) for inner in clauses]]
    raise TypeError(f"a model match of unknown kind: {type(clause).__name__}")


def _model(model: types.ModelInfo) -> list[Any]:
    prices = model.prices
    periods = ([[None, _rates(prices)]] if isinstance(prices, types.ModelPrice)
               else [[_when(period.constraint), _rates(period.prices)] for period in prices])
    variants = [[next(iter(variant.when.values())), _when(variant.constraint), _rates(variant.prices)]
                for variant in model.price_variants or () if len(variant.when) == 1]
    return [model.id, _match(model.match), periods, variants]


def main(out: str) -> None:
    lines = [json.dumps({"version": version("genai-prices"), "providers": [provider.id for provider in providers]})]
    lines += [json.dumps({"id": provider.id, "fallback": provider.fallback_model_providers or [],
                          "models": [_model(model) for model in provider.models]}, separators=(",", ":"))
              for provider in providers]
    with open(out, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
