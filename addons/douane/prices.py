"""What a call cost, in USD, after the pinned price list (genai-prices, offline) and the ``prices:`` of policy files.

Law 6: what is not known is None, never zero: a model that is in no list, and tokens of a kind the list has no price
for. The list is written to a file once for each version of genai-prices, by a process of its own
(:mod:`douane.pricelist`), and only the providers asked for are kept in memory. Prices follow the library's rules: the
last period that applies; a tier holds for all tokens once the input exceeds its start; what has no price of its own
costs what its whole costs.
"""

import fnmatch
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
from typing import Any, Self

from douane.call import Usage
from douane.errors import EnvironmentFailedError

__all__ = ["Prices", "Rates"]

_BUILD_SECONDS = 60
_CACHED_MODELS = 4096
_LONGEST_NAME = 256
_DATED = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")
_DAY = 86400
_NOTHING = Usage()
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens, and per thousand web searches and requests; None: no price of its own.

    The first six are the schema of one entry of ``prices:``. Cached input and cache writes without a price cost what
    input costs, an hour's cache what a cache write costs, reasoning what output costs."""

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    web_search: float | None = None
    reasoning: float | None = None
    request: float = 0.0

    def cost(self, usage: Usage) -> float | None:
        """None where *usage* has something without a price. Parts that exceed their whole cost what they say."""
        whole, cached, written, hour = usage.input, usage.cached_input, usage.cache_write, usage.cache_write_1h
        total = self.request * 1000
        if whole or cached or written:
            price = self.input
            if price is None:
                return None
            total += max(whole - cached - written, 0) * price
            if cached:
                total += cached * (price if self.cached_input is None else self.cached_input)
            if written:
                store = price if self.cache_write is None else self.cache_write
                total += max(written - hour, 0) * store
                total += hour * (store if self.cache_write_1h is None else self.cache_write_1h)
        if usage.output:
            price = self.output
            if price is None:
                return None
            thought = usage.reasoning if self.reasoning is not None else 0
            total += max(usage.output - thought, 0) * price + thought * (self.reasoning or 0.0)
        if usage.web_searches:
            if self.web_search is None:
                return None
            total += usage.web_searches * self.web_search * 1000
        return total / 1_000_000


    def at_most(self, given: int, made: int) -> float | None:
        """USD of *given* input and *made* output tokens, each at the highest price that some of them may have."""
        if self.input is None or (made and self.output is None):
            return None
        dearest = max(self.input, self.cached_input or 0.0, self.cache_write or 0.0, self.cache_write_1h or 0.0)
        return (self.request * 1000 + given * dearest + made * max(self.output or 0.0, self.reasoning or 0.0)) / 1_000_000


@dataclass(frozen=True, slots=True)
class _Tariff:
    """The rates of one model, valid in [start, end); *tiers* by falling start: the first that the input exceeds."""

    start: float
    end: float
    base: Rates
    tiers: tuple[tuple[int, Rates], ...]


@dataclass(frozen=True, slots=True)
class _Book:
    """One provider's part of the list."""

    models: tuple[Any, ...]
    fallback: tuple[str, ...]


class Prices:
    """The price list. *lists* maps our providers' names to ids of the price list; *overrides* go before the list, their
    names are models, exact or as a glob (``llama3*``), an exact one first, else in the order given."""

    __slots__ = ("_books", "_cache", "_globs", "_lists", "_names", "_overrides")

    def __init__(self, overrides: Mapping[str, Rates] = _NONE, lists: Mapping[str, str] = _NONE,
                 books: Mapping[str, _Book] = _NONE) -> None:
        self._overrides = dict(overrides)
        self._globs = tuple((re.compile(fnmatch.translate(name)), name) for name in overrides)
        self._lists = dict(lists)
        self._books = dict(books)
        self._cache: dict[tuple[str, str, str], _Tariff | None] = {}
        self._names: dict[tuple[str, str], str | None] = {}

    @classmethod
    def open(cls, folder: Path, lists: Mapping[str, str], overrides: Mapping[str, Rates] = _NONE) -> Self:
        """With the list kept in *folder*, which is built there where it is missing or damaged (about a second).

        Raises EnvironmentFailedError where it cannot be."""
        path = folder / f"prices-{version('genai-prices')}.jsonl"
        wanted = {name for name in lists.values() if name}
        books = _load(path, wanted)
        if books is None:
            _build(path)
            books = _load(path, wanted)
        if books is None:
            raise EnvironmentFailedError(f"{path}: the price list cannot be read back after it was written")
        return cls(overrides, lists, books)

    def with_overrides(self, overrides: Mapping[str, Rates]) -> "Prices":
        """The same list under other overrides, for a reload."""
        return Prices(overrides, self._lists, self._books)

    def cost(self, provider: str, model: str, usage: Usage, at: float, tier: str = "") -> float | None:
        """USD of one call at *at* (seconds since the epoch); *tier* is the service tier the answer named."""
        key = (provider, model, tier)
        try:
            tariff = self._cache[key]
        except KeyError:
            tariff = self._remember(key, at)
        if tariff is None:
            return None
        if not tariff.start <= at < tariff.end:
            tariff = self._remember(key, at)
            if tariff is None:
                return None
        for start, rates in tariff.tiers:
            if usage.input > start:
                return rates.cost(usage)
        return tariff.base.cost(usage)

    def at_most(self, provider: str, model: str, tokens: tuple[int, int], at: float, tier: str = "") -> float | None:
        """USD that *tokens* (input, output) can cost at most, whatever of them is cached or thought, in the standard tier or
        in *tier*; searches and other tools are not in it. None: no price is known."""
        given, made = tokens
        most: float | None = None
        for name in ("", tier) if tier else ("",):
            self.cost(provider, model, _NOTHING, at, name)  # the tariff in force is remembered then
            tariff = self._cache.get((provider, model, name))
            if tariff is None:
                return None
            for rates in (tariff.base, *(rates for start, rates in tariff.tiers if given > start)):
                cost = rates.at_most(given, made)
                if cost is None:
                    return None
                most = cost if most is None else max(most, cost)
        return most

    def known(self, provider: str, model: str) -> str | None:
        """The price list's own name of *model*, else that of the override it falls under, else None: never a name that
        only a caller made up, so that it may label a metric."""
        key = (provider, model)
        if key in self._names:
            return self._names[key]
        if len(model) > _LONGEST_NAME:
            return None
        found = self._find(provider, model)
        name: str | None = found[0] if found is not None else self._override(model)
        if len(self._names) >= _CACHED_MODELS:
            self._names.clear()  # names come from callers: bounded, whatever they send
        self._names[key] = name
        return name

    def _override(self, model: str) -> str | None:
        if model in self._overrides:
            return model
        return next((name for pattern, name in self._globs if pattern.match(model)), None)

    def _remember(self, key: tuple[str, str, str], at: float) -> _Tariff | None:
        provider, model, tier = key
        if len(model) > _LONGEST_NAME or len(tier) > _LONGEST_NAME:
            return None
        name = self._override(model)
        if name is not None:
            tariff: _Tariff | None = _Tariff(float("-inf"), float("inf"), self._overrides[name], ())
        else:
            found = self._find(provider, model)
            tariff = _tariff(found, at, tier) if found is not None else None
        if len(self._cache) >= _CACHED_MODELS:
            self._cache.clear()
        self._cache[key] = tariff
        return tariff

    def _find(self, provider: str, model: str) -> Any:
        """As the library: lower case, the provider's models, its fallbacks', then with a dated name's dashes put in."""
        book = self._books.get(self._lists.get(provider, ""))
        if book is None:
            return None
        name = model.lower()
        dashed = _DATED.sub(r"-\1-\2-\3", name)
        for text in (name,) if dashed == name else (name, dashed):
            for models in (book.models, *(self._books[other].models for other in book.fallback)):
                for entry in models:
                    if _matches(entry[1], text):
                        return entry
        return None


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


def _tariff(entry: Any, at: float, tier: str) -> _Tariff:
    """The rates in force at *at*, and how long they are."""
    _, _, periods, variants = entry
    asked = [(when, rates) for value, when, rates in variants if tier and value == tier]
    whens = [when for when, _ in (*periods, *asked) if when is not None]
    edges = [edge for when in whens for edge in _edges(when, at)]
    standard = next((rates for when, rates in reversed(periods) if _active(when, at)), periods[0][1])
    merged = dict(standard)
    for when, rates in reversed(asked):
        if _active(when, at):
            merged |= rates
    tiers = (price[1] for price in merged.values() if isinstance(price, list))
    starts = sorted({start for steps in tiers for start, _ in steps}, reverse=True)
    return _Tariff(max((edge for edge in edges if edge <= at), default=float("-inf")),
                   min((edge for edge in edges if edge > at), default=float("inf")),
                   _flat(merged, -1), tuple((start, _flat(merged, start)) for start in starts))


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


def _flat(rates: Mapping[str, Any], start: int) -> Rates:
    """The rates of inputs just above *start* (-1: of the smallest)."""

    def at(key: str) -> float | None:
        price = rates.get(key)
        if isinstance(price, list):
            base, tiers = price
            price = next((value for begin, value in reversed(tiers) if start >= begin), base)
        return price

    return Rates(at("input_mtok"), at("output_mtok"), at("cache_read_mtok"), at("cache_write_mtok"),
                 at("cache_write_1h_mtok"), at("web_searches_kcount"), at("output_reasoning_mtok"),
                 at("requests_kcount") or 0.0)


def _load(path: Path, wanted: set[str]) -> dict[str, _Book] | None:
    """The *wanted* books and those they fall back to; None where the file is missing, cut or not the one we wrote."""
    try:
        checksum, _, text = path.read_bytes().partition(b"\n")
        if checksum != hashlib.sha256(text).hexdigest().encode():
            return None
        head, *lines = text.decode().splitlines()
        ids = json.loads(head)["providers"]
        if len(lines) != len(ids):
            return None
        line_of = dict(zip(ids, lines, strict=True))
        books: dict[str, _Book] = {}
        pending = [name for name in wanted if name in line_of]
        while pending:
            name = pending.pop()
            if name not in books:
                book = json.loads(line_of[name])
                books[name] = _Book(tuple(book["models"]), tuple(book["fallback"]))
                pending += book["fallback"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        raise EnvironmentFailedError(f"{path}: cannot read the price list: {error.strerror}") from error
    return books


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
