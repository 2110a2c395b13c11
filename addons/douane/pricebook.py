"""The pinned price list (genai-prices), offline: built once for each version of it by a process of its own
(:mod:`douane.pricelist`), kept as a file, and read a provider at a time when that is first asked for.

Prices follow the library's rules: the last period that applies; a tier holds for all tokens once the input exceeds its
start; a service tier's own prices stand in for the standard ones.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from douane.errors import EnvironmentFailedError
from douane.modelnames import LONGEST
from douane.rates import Rates

__all__ = ["NO_BOOKS", "Books", "Tariff", "list_version", "open_books", "tariff"]

_BUILD_SECONDS = 60
_DATED = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rates of one model, valid in [start, end); *tiers* by falling start: the first that the input exceeds."""

    start: float
    end: float
    base: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()

    def times(self, factor: float) -> "Tariff":
        return Tariff(self.start, self.end, self.base.times(factor),
                      tuple((start, rates.times(factor)) for start, rates in self.tiers))


class Books:
    """Price list id → its models, parsed when first asked for."""

    __slots__ = ("_lines", "_read")

    def __init__(self, lines: Mapping[str, str]) -> None:
        self._lines = lines
        self._read: dict[str, dict[str, Any]] = {}

    def find(self, book: str, model: str) -> Any:
        """The entry of *model*, as the library finds it: lower case, the provider's models, its fallbacks', then with a
        dated name's dashes put in. None where there is none."""
        if book not in self._lines or len(model) > LONGEST:
            return None
        name = model.lower()
        dashed = _DATED.sub(r"-\1-\2-\3", name)
        own = self._book(book)
        for text in (name,) if dashed == name else (name, dashed):
            for models in (own["models"], *(self._book(other)["models"] for other in own["fallback"])):
                for entry in models:
                    if _matches(entry[1], text):
                        return entry
        return None

    def _book(self, book: str) -> dict[str, Any]:
        if book not in self._read:
            self._read[book] = json.loads(self._lines[book])
        return self._read[book]


NO_BOOKS = Books(MappingProxyType({}))


def list_version() -> str:
    """The release of genai-prices whose list is read."""
    return version("genai-prices")


def open_books(folder: Path) -> Books:
    """The list kept in *folder*, which is built there where it is missing or damaged (about a second).

    Raises EnvironmentFailedError where it cannot be."""
    path = folder / f"prices-{list_version()}-2.jsonl"
    books = _load(path)
    if books is None:
        _build(path)
        books = _load(path)
    if books is None:
        raise EnvironmentFailedError(f"{path}: the price list cannot be read back after it was written")
    return books


def _matches(clause: list[Any], text: str) -> bool:
    kind, what = clause
    match kind:
        case "equals":
            return bool(text == what)
        case "starts_with":
            return text.startswith(str(what))
        case "ends_with":
            return text.endswith(str(what))
        case "contains":
            return str(what) in text
        case "regex":
            return re.search(what, text) is not None
        case "or":
            return any(_matches(inner, text) for inner in what)
        case "and":
            return all(_matches(inner, text) for inner in what)
    raise ValueError(f"a model match of unknown kind: {kind}")


def tariff(entry: Any, at: float, tier: str) -> tuple[Tariff, bool]:
    """The rates in force at *at*, and how long they are; whether the list has prices of its own for *tier*."""
    _, _, periods, variants = entry
    asked = [(when, rates) for value, when, rates in variants if tier and value == tier]
    whens = [when for when, _ in (*periods, *asked) if when is not None]
    edges = [edge for when in whens for edge in _edges(when, at)]
    standard = next((rates for when, rates in reversed(periods) if _active(when, at)), periods[0][1])
    merged = dict(standard)
    special = [rates for when, rates in reversed(asked) if _active(when, at)]
    for rates in special:
        merged |= rates
    tiers = (price[1] for price in merged.values() if isinstance(price, list))
    starts = sorted({start for steps in tiers for start, _ in steps}, reverse=True)
    return Tariff(max((edge for edge in edges if edge <= at), default=float("-inf")),
                  min((edge for edge in edges if edge > at), default=float("inf")),
                  _flat(merged, -1), tuple((start, _flat(merged, start)) for start in starts)), bool(special)


def _edges(when: list[Any], at: float) -> Iterable[float]:
    if when[0] == "from":
        return (when[1],)
    midnight = at - at % _DAY
    return (midnight, midnight + when[1], midnight + when[2], midnight + _DAY)


def _active(when: list[Any] | None, at: float) -> bool:
    if when is None:
        return True
    if when[0] == "from":
        return bool(at >= when[1])
    second, start, end = at % _DAY, when[1], when[2]
    return bool(start <= second < end) if start <= end else bool(second >= start or second < end)


_KEYS = {
    "input": "input_mtok", "output": "output_mtok", "cached_input": "cache_read_mtok", "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok", "web_search": "web_searches_kcount", "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok", "cached_audio": "cache_audio_read_mtok", "output_audio": "output_audio_mtok",
    "input_image": "input_image_mtok", "cached_image": "cache_image_read_mtok", "output_image": "output_image_mtok",
    "file_search": "storage_searches_kcount", "characters": "input_mchars", "page": "input_document_kpages"}
"""Field of Rates → key of the price list."""


def _flat(rates: Mapping[str, Any], start: int) -> Rates:
    """The rates of inputs just above *start* (-1: of the smallest)."""

    def at(key: str) -> float | None:
        price = rates.get(key)
        if isinstance(price, list):
            base, tiers = price
            price = next((value for begin, value in reversed(tiers) if start >= begin), base)
        return price

    hour = at("input_audio_hours")
    return Rates(request=at("requests_kcount") or 0.0, audio_hour=at("audio_hours") if hour is None else hour,
                 **{name: at(key) for name, key in _KEYS.items()})


def _load(path: Path) -> Books | None:
    """None where the file is missing, cut or not the one we wrote."""
    try:
        checksum, _, text = path.read_bytes().partition(b"\n")
        if checksum != hashlib.sha256(text).hexdigest().encode():
            return None
        head, *lines = text.decode().splitlines()
        return Books(dict(zip(json.loads(head)["providers"], lines, strict=True)))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        raise EnvironmentFailedError(f"{path}: cannot read the price list: {error.strerror}") from error


def _build(path: Path) -> None:
    """Write the list of the installed genai-prices to *path*; to a new file first, so that none reads half of it."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
        os.close(handle)
        script = Path(__file__).with_name("pricelist.py")
        # -P: the script's own folder holds modules named like the standard library's.
        subprocess.run([sys.executable, "-P", str(script), temporary], check=True,  # noqa: S603 - our own file
                       capture_output=True, timeout=_BUILD_SECONDS, stdin=subprocess.DEVNULL)
        text = Path(temporary).read_bytes()
        Path(temporary).write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        os.replace(temporary, path)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFailedError(f"{path}: the price list could not be built: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailedError(f"{path}: building the price list took over {_BUILD_SECONDS} s") from error
    except OSError as error:
        raise EnvironmentFailedError(f"{path}: the price list cannot be written: {error.strerror}") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
