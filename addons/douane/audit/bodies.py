"""What was said, as the audit log keeps it: the bodies of requests and answers, without what must not stand in a log.

Laws: the log's own redaction (the built-in entities and secrets) goes over **every string** of a body, whatever the chain
did and whatever the format is: names of members too, and what a provider's table takes for an identifier. A value gets the
placeholder that ``redact`` gives it. Base64 and other bytes are never kept. What cannot be searched is left out, and the
record says so; nothing is kept on trust.
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import jiter
import orjson

from douane.answer import Capture
from douane.call import Call
from douane.coding import coding_of, decode
from douane.detect import ScanFailedError, Scanner, Span
from douane.detect.find_secrets import find_in_member, find_secrets
from douane.detect.memory import Memory
from douane.errors import RefusedError
from douane.placeholders import DataKey, Minter
from douane.providers.base import Wire
from douane.providers.edit import Place, rewrite
from douane.redaction import Text, read_text

__all__ = ["MOST", "Scribe"]

MOST = 256 * 1024
"""Bytes of a body that are kept; of a longer one, so many from its beginning."""
_LIMIT = 1 << 40
"""Bytes; the body was read within ``edge.max_body`` before."""
_NAMES = 4096
_LOGPROBS = re.compile(rb'logprobs[A-Za-z_]*"\s*:\s*[\[{]', re.IGNORECASE)
_AT_ONCE = 128 * 1024
"""Bytes of a stream; a longer one is put together in a thread."""
_WORD = re.compile(r"[a-z_]{1,64}|.{0,5}|[A-Za-z_ .,;!?'/()-]{1,19}", re.DOTALL)
"""What no entity and no secret can be: they have a digit or an ``@``, or are longer."""
_MEMBER = 256
"""Characters of a member's value up to which its name may tell that it is a secret."""
_LONG = 10**6
"""A whole number of seven digits may be a phone's or a person's; arguments of tools have those as numbers."""
_MEASURE = re.compile(r"_at$|_?time|date|created|expires|updated|deadline|token|count|total|duration|bytes|size|seed|max|min|"
                      r"limit|budget|latency|offset|^usage$", re.IGNORECASE)
"""In the name of a member whose number is a moment or a measure."""
_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|(?:req_)?[0-9a-f]{24,32}|[a-z_/]{1,64}")
"""A name that is no more than one: what request ids look like, and words."""
_TELLING = re.compile(r"pass|pwd|secret|token|key|auth|cred|kennwort", re.IGNORECASE)
"""In the name of a member whose bare value may be a secret."""
_BLOB = re.compile(r"(?:data:[^,\s]{0,200},)?[A-Za-z0-9+/_=\r\n-]{256,}")


class Scribe:
    """Writes bodies down. *scanner* finds the built-in entities; *key* makes the placeholders."""

    def __init__(self, key: DataKey, scanner: Scanner, *, remembered: int = 50_000) -> None:
        self._key = key
        self._scanner = scanner
        self._memory = Memory(remembered)
        self._clean: set[str] = set()
        """Names in which nothing was found: models and paths, the same in most calls."""

    def warm(self) -> None:
        """Before the first call: start what takes long to start."""
        self._scanner.warm()

    async def request(self, call: Call) -> dict[str, Any] | None:
        """*call*'s body as it stands now; None where it has none."""
        if not call.body:
            return None
        try:
            raw = decode(call.body, coding_of(call.headers), _LIMIT)
        except RefusedError as error:
            return {"bytes": len(call.body), "left_out": error.reason}
        if isinstance(call.document, dict) and (call.header(b"content-type") or b"").lower().startswith(b"multipart/"):
            written = orjson.dumps(call.document)  # its texts, as they are read
            return {**await self._said(call.principal.tenant, written, call.document), "bytes": len(raw)}
        return await self._said(call.principal.tenant, raw, call.document)

    async def response(self, call: Call, wire: Wire | None, answer: Capture) -> dict[str, Any] | None:
        """The provider's answer, as it came; a stream as the document that it came to."""
        if not answer.size:
            return None
        if answer.lost:
            return {"bytes": answer.size, "left_out": answer.lost}
        raw = answer.text()
        document = None
        if answer.framing is not None and wire is not None:
            large = len(raw) > _AT_ONCE
            document = await asyncio.to_thread(wire.assembled, raw, answer.framing) if large else wire.assembled(
                raw, answer.framing)
        more: dict[str, Any] = {} if document is None else {"assembled": True}
        told = _LOGPROBS.search(raw) is not None
        if document is None and answer.framing is not None:
            return {"bytes": answer.size, "left_out": "a stream that is not understood"}  # its values may be in pieces
        if told:
            document = _without_logprobs(_parsed(raw) if document is None else document)
            if document is None:
                return {"bytes": answer.size, "left_out": "told token by token, and not whole"}
        if more or told:
            raw = orjson.dumps(_without_events(document))
        return {**await self._said(call.principal.tenant, raw, document), "bytes": answer.size, **more}

    async def names(self, tenant: str, given: Mapping[str, str]) -> Mapping[str, str]:
        """Names that an app or a provider made up, by what they name; percent-encoded ones are read as meant."""
        asked = {name: unquote(value) for name, value in given.items()
                 if value not in self._clean and not _ID.fullmatch(value)}
        if not asked:
            return given
        put = Minter(self._key, tenant, {}).placeholder
        try:
            spans = await self._spans(tenant, tuple(asked.values()))
        except ScanFailedError as error:
            return {name: f"(left out: {error})" if name in asked else value for name, value in given.items()}
        hidden = {name: Text(text, (text,)).write([found], put).text
                  for (name, text), found in zip(asked.items(), spans, strict=True) if found}
        if len(self._clean) < _NAMES:
            self._clean.update(given[name] for name in asked if name not in hidden)
        return {**given, **hidden} if hidden else given

    async def _said(self, tenant: str, raw: bytes, document: Any) -> dict[str, Any]:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "left_out": "binary"}
        try:
            text, found = await self._redacted(tenant, text, _parsed(raw) if document is None else document)
        except ScanFailedError as error:
            return {"bytes": len(raw), "left_out": str(error)}
        said: dict[str, Any] = {"text": text, "bytes": len(raw)}
        if found:
            said["found"] = dict(sorted(found.items()))
        if len(text) * 4 > MOST and len(written := text.encode("utf-8", "replace")) > MOST:
            said |= {"text": written[:MOST].decode(errors="ignore"), "cut": True,
                     "sha256": hashlib.sha256(written).hexdigest()}
        return said

    async def _redacted(self, tenant: str, text: str, document: Any) -> tuple[str, Counter[str]]:
        """*text* without what must not be kept, and what that was. *document*: its JSON value; None: it is no JSON. Raises
        ScanFailedError."""
        put = Minter(self._key, tenant, {}).placeholder
        found: Counter[str] = Counter()
        if document is None:
            read = read_text(text)
            written = read.write(await self._spans(tenant, read.scanned), put)
            return written.text, Counter(written.types)
        places: list[Place] = []
        texts: list[Text] = []
        changes: dict[Place, str] = {}
        for place, one in _strings(document):
            if len(one) >= 256 and _BLOB.fullmatch(one):
                changes[place] = f"({len(one)} characters left out)"
            else:
                places.append(place)
                texts.append(read_text(one))
        spans = iter(await self._spans(tenant, [part for one in texts for part in one.scanned]))
        for place, read in zip(places, texts, strict=True):
            found_here = [next(spans) for _ in read.scanned]
            (path, key) = place
            if (not key and path and len(read.text) <= _MEMBER and isinstance(name := path[-1], str)
                    and _TELLING.search(name)):
                found_here[0] = _together(found_here[0], find_in_member(name, read.text))
            if any(found_here):
                written = read.write(found_here, put)
                if written.text != read.text:
                    changes[place] = written.text
                    found.update(written.types)
        return rewrite(text, changes), found

    async def _spans(self, tenant: str, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Entities and secrets in each text. Raises ScanFailedError."""
        keys = [self._memory.key(tenant, one) for one in texts]
        known = [self._memory.get(key) for key in keys]
        new = [at for at, spans in enumerate(known) if spans is None]
        if new:
            for at, spans in zip(new, await self._scanner.scan(tenant, [texts[at] for at in new]), strict=True):
                both = _together(spans, find_secrets(texts[at]))
                known[at] = both
                self._memory.put(keys[at], both)
        return [spans or () for spans in known]


def _parsed(raw: bytes) -> Any:
    """The JSON value, or None."""
    try:
        return jiter.from_json(raw, cache_mode="keys")
    except ValueError:
        return None


def _without_logprobs(document: Any) -> Any:
    """They tell the answer once more, token by token and as bytes, where no value is in one piece."""
    tasks = [document]
    while tasks:
        value = tasks.pop()
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, (dict, list)):
                    if "logprobs" in name.lower():
                        value[name] = "(left out)"
                    else:
                        tasks.append(item)
        elif isinstance(value, list):
            tasks.extend(item for item in value if isinstance(item, (dict, list)))
    return document


def _without_events(document: Any) -> Any:
    """Events of a stream that have no place in its document may hold a value in pieces."""
    if isinstance(document, dict) and isinstance(document.get("events"), list):
        document["events"] = f"({len(document['events'])} left out)"
    return document


def _strings(document: Any) -> Iterator[tuple[Place, str]]:
    """Every string of *document* that could hold something, and every whole number that could be somebody's. Iterative: depth
    costs no stack."""
    tasks: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while tasks:
        path, value = tasks.pop()
        if isinstance(value, str):
            if value not in _quiet and not _is_quiet(value):
                yield (path, False), value
        elif isinstance(value, dict):
            for key, item in value.items():
                if key not in _quiet and not _is_quiet(key):
                    yield ((*path, key), True), key
                if isinstance(item, (dict, list)) or (isinstance(item, str) and item not in _quiet):
                    tasks.append(((*path, key), item))
                elif type(item) is int and _is_long(item) and _MEASURE.search(key) is None:
                    yield ((*path, key), False), str(item)
        elif isinstance(value, list):
            tasks.extend(((*path, at), item) for at, item in enumerate(value) if isinstance(item, (str, dict, list)))
            yield from ((((*path, at), False), str(item)) for at, item in enumerate(value)
                        if type(item) is int and _is_long(item))


def _is_long(number: int) -> bool:
    return not -_LONG < number < _LONG


_quiet: set[str] = set()
"""Words that were found to be nothing but words: the members and enumerations of the formats, most of them."""


def _is_quiet(text: str) -> bool:
    if _WORD.fullmatch(text) is None:
        return False
    if len(_quiet) < 4096:
        _quiet.add(text)
    return True


def _together(spans: Sequence[Span], secrets: Sequence[Span]) -> tuple[Span, ...]:
    """Both, sorted; where a secret overlaps something, one span of the secret's type covers both."""
    if not secrets:
        return tuple(spans)
    joined: list[Span] = []
    for span in sorted((*secrets, *spans), key=lambda one: (one.start, -one.end)):
        last = joined[-1] if joined else None
        if last is None or last.end <= span.start:
            joined.append(span)
        else:
            kind = last.type if last in secrets else span.type
            joined[-1] = Span(kind, last.start, max(last.end, span.end), max(last.score, span.score))
    return tuple(joined)
