"""What was said, as the audit log keeps it: the bodies of requests and answers, without what must not stand in a log.

Laws: the log's own redaction (the built-in entities and secrets) goes over **every string** of a body, whatever the chain
did and whatever the format is: names of members too, and what a provider's table takes for an identifier. A value gets the
placeholder that ``redact`` gives it. Base64 and other bytes are never kept. What cannot be searched is left out, and the
record says so; nothing is kept on trust.
"""

import asyncio
import hashlib
import json as json_text
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import jiter
import orjson

from douane.answer import Capture
from douane.call import Call
from douane.coding import coding_of, decode
from douane.detect import ScanFailedError, Scanner, Span
from douane.detect.find_secrets import TELLING, find_in_member, find_secrets, together
from douane.detect.memory import Keys, Memory
from douane.detect.own_keys import GATEWAY_KEY, NO_KEYS, OwnKeys
from douane.errors import RefusedError
from douane.pauses import Paused, with_pauses
from douane.placeholders import DataKey, Minter
from douane.providers.base import Wire
from douane.providers.edit import quoted
from douane.reading import text_keys
from douane.redaction import Replace, Text, Written, read_text, reading

__all__ = ["MOST", "Scribe"]

MOST = 256 * 1024
"""Bytes of a body that are kept; of a longer one, so many from its beginning."""
_LIMIT = 1 << 40
"""Bytes; the body was read within ``edge.max_body`` before."""
_NAMES = 4096
_NOTHING: Mapping[str, int] = MappingProxyType({})
_LOGPROBS = re.compile(rb'logprobs[a-z_]*"\s*:\s*[\[{]')
"""In lower case."""
_AT_ONCE = 128 * 1024
"""Bytes of a stream; a longer one is put together in a thread."""
_SCALAR = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(?<![0-9.eE+-])-?[0-9]{7,}(?:\.0+)?(?![0-9.eE])', re.DOTALL)
_WORD = re.compile(r"[a-z_]{1,64}|[\0-9;-@\[-\x7f]{0,5}|[a-z_ .,;!?'/()-]{1,19}", re.DOTALL)
"""What no entity and no secret can be: they have a digit or an ``@``, a capital (a name), are longer, or (``::1``) have
colons."""
_NAME = 64
"""Characters of a member's name up to which it may tell that its value is a secret …"""
_MEMBER = 256
"""… and of that value."""
_LONG = b"0000000"
"""A whole number of seven digits may be a phone's or a person's; arguments of tools have those as numbers."""
_CREATED = b'"created":'
_DIGITS = bytes(ord("0") if chr(code) in "0123456789" else code for code in range(256))
_RUN = re.compile(rb"([0-9]{7,}+)(?:\.0++)?(?:(?![0-9.eE])())?")
"""A number of seven digits and more; its last group where it is whole."""
_BEFORE_NUMBERS = (b"", b":", b"[", b",")
_BEFORE = 256
"""Bytes before a number in which the member's name is looked for."""
_MEASURES = frozenset({
    b"at", b"time", b"times", b"timestamp", b"ts", b"ms", b"timeout", b"ttl", b"date", b"created", b"expires", b"expiry",
    b"updated", b"deadline", b"token", b"tokens", b"count", b"total", b"duration", b"bytes", b"size", b"seed", b"max", b"min",
    b"limit", b"budget", b"latency", b"offset", b"usage"})
"""Words in the name of a member whose number is a moment or a measure."""
_WORDS_OF = re.compile(rb"[A-Z]?[a-z]+|[A-Z]+")
_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|(?:req_)?[0-9a-f]{24,32}|[a-z_/]{1,64}")
"""A name that is no more than one: what request ids look like, and words."""
_BLOB = re.compile(r"(?:data:[^,\s]{0,200},)?[A-Za-z0-9+/_=\r\n-]{256,}")


class Scribe:
    """Writes bodies down. *scanner* finds the built-in entities; *key* makes the placeholders; *own* are the gateway's keys."""

    def __init__(self, key: DataKey, scanner: Scanner, own: OwnKeys = NO_KEYS, *, remembered: int = 50_000) -> None:
        self._key = key
        self._own = own
        self._scanner = scanner
        self._memory = Memory(remembered)
        self._clean = Memory(remembered)
        """Strings of JSON bodies, as they are written, that may stand as they are."""
        self._innocent: set[str] = set()
        """Names in which nothing was found: models and paths, the same in most calls."""

    def warm(self) -> None:
        """Before the first call: start what takes long to start."""
        self._scanner.warm()

    def adopt(self, own: OwnKeys) -> None:
        """Look for other keys of the gateway's from now on."""
        self._own = own
        self._innocent.clear()

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
            return {**await self._said(text_keys(call), written, json=True), "bytes": len(raw)}
        # what a session says besides its turns is not kept with it
        keys = Keys(call.principal.tenant) if call.document is None else text_keys(call)
        return await self._said(keys, raw, json=False)

    async def response(self, call: Call, wire: Wire | None, answer: Capture, *, json: bool = False) -> dict[str, Any] | None:
        """The provider's answer, as it came; a stream as the document that it came to. *json*: it has been read as one JSON
        document."""
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
        told = _LOGPROBS.search(raw.lower()) is not None
        if document is None and answer.framing is not None:
            return {"bytes": answer.size, "left_out": "a stream that is not understood"}  # its values may be in pieces
        if told:
            document = _without_logprobs(_parsed(raw) if document is None else document)
            if document is None:
                return {"bytes": answer.size, "left_out": "told token by token, and not whole"}
        if more or told:
            raw = orjson.dumps(_without_events(document))
        return {**await self._said(text_keys(call), raw, json=json or bool(more) or told), "bytes": answer.size, **more}

    async def names(self, tenant: str, given: Mapping[str, str]) -> Mapping[str, str]:
        """Names that an app or a provider made up, by what they name; percent-encoded ones are read as meant."""
        new = {name: value for name, value in given.items() if value not in self._innocent}
        ours = {name: "(left out: a key of this gateway)" for name, value in new.items()
                if self._own.find(value.encode("latin-1", "replace"))}
        if ours:
            return await self.names(tenant, {**given, **ours})
        asked = {name: unquote(value) for name, value in new.items() if not _ID.fullmatch(value)}
        if not asked:
            return given
        put = Minter(self._key, tenant, {}).placeholder
        try:
            spans = await self._spans(Keys(tenant), tuple(asked.values()))
        except ScanFailedError as error:
            return {name: f"(left out: {error})" if name in asked else value for name, value in given.items()}
        hidden = {name: Text(text, (text,)).write([found], put).text
                  for (name, text), found in zip(asked.items(), spans, strict=True) if found}
        if len(self._innocent) < _NAMES:
            self._innocent.update(given[name] for name in asked if name not in hidden)
        return {**given, **hidden} if hidden else given

    async def _said(self, keys: Keys, raw: bytes, *, json: bool) -> dict[str, Any]:
        """*json*: it has been read as JSON, or written."""
        size = len(raw)
        raw, ours = self._without_ours(keys.tenant, raw)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return {"bytes": size, "sha256": hashlib.sha256(raw).hexdigest(), "left_out": "binary"}
        try:
            json = json or _parsed(raw) is not None
            text, found = await (self._redacted(keys, raw, text) if json else self._plain(keys, text))
        except ScanFailedError as error:
            return {"bytes": size, "left_out": str(error)}
        said: dict[str, Any] = {"text": text, "bytes": size}
        if found or ours:
            said["found"] = dict(sorted((Counter(found) + Counter({GATEWAY_KEY: ours})).items()))
        if len(text) * 4 > MOST and len(written := text.encode("utf-8", "replace")) > MOST:
            said |= {"text": written[:MOST].decode(errors="ignore"), "cut": True,
                     "sha256": hashlib.sha256(written).hexdigest()}
        return said

    def _without_ours(self, tenant: str, raw: bytes) -> tuple[bytes, int]:
        """*raw* without keys of the gateway's, in whatever form, and how many those were."""
        found = self._own.find(raw)
        if not found:
            return raw, 0
        put, out, at = Minter(self._key, tenant, {}).placeholder, [], 0
        for start, end in found:
            out += [raw[at:start], put(GATEWAY_KEY, raw[start:end].decode("utf-8", "replace")).encode()]
            at = end
        return b"".join([*out, raw[at:]]), len(found)

    async def _plain(self, keys: Keys, text: str) -> tuple[str, Mapping[str, int]]:
        """*text*, which is no JSON, without what must not be kept, and what that was. Raises ScanFailedError."""
        read = await with_pauses(reading(text))
        put = Minter(self._key, keys.tenant, {}).placeholder
        written = await with_pauses(read.writing(await self._spans(keys, read.scanned), put))
        return written.text, Counter(written.types)

    async def _redacted(self, keys: Keys, raw: bytes, text: str) -> tuple[str, Mapping[str, int]]:
        """The same of JSON, written as it stands. A string is looked at by itself, wherever it stands; one that was found to
        hold nothing is known by its hash. Raises ScanFailedError."""
        parts = _parts(text)
        strings = set(parts[1::2])
        names = strings & _telling
        known = self._clean
        new = [string for string in strings - _words - _telling if known.get(keys[string]) is None]
        changes, fresh = await with_pauses(_sorted(new, names))
        fresh.update((token, Text(number, (number,))) for token, number in _numbers(raw))
        if fresh:
            changes.update(await self._changed(keys, fresh))
            for string in new:
                token = _written(string)
                if token in fresh and token not in changes and string not in names:
                    known.put(keys[string], ())
        for value, secrets in _told(parts, names).items():
            changes.update(await self._changed(keys, {value: read_text(_meant(value))}, secrets))
        return _spliced(text, changes) if changes else (text, _NOTHING)

    async def _changed(self, keys: Keys, texts: Mapping[str, Text], secrets: tuple[Span, ...] = ()) -> dict[str, Written]:
        """Those of *texts* that cannot stand as they are. *secrets*: what is known of each beside what is found in it."""
        spans = await self._spans(keys, [part for one in texts.values() for part in one.scanned])
        return await with_pauses(_changing(texts, spans, secrets, Minter(self._key, keys.tenant, {}).placeholder))

    async def _spans(self, keys: Keys, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Entities and secrets in each text. Raises ScanFailedError."""
        known = [self._memory.get(keys[text]) for text in texts]
        new = [at for at, spans in enumerate(known) if spans is None]
        if new:
            for at, spans in zip(new, await self._scanner.scan(keys.tenant, [texts[at] for at in new], keys), strict=True):
                both = together(spans, find_secrets(texts[at]))
                known[at] = both
                self._memory.put(keys[texts[at]], both)
        return [spans or () for spans in known]


def _changing(texts: Mapping[str, Text], spans: Sequence[tuple[Span, ...]], secrets: tuple[Span, ...],
              put: Replace) -> Paused[dict[str, Written]]:
    """Those of *texts* that are other ones without *spans*, what stands in each of their parts, and *secrets*."""
    rest = iter(spans)
    changed: dict[str, Written] = {}
    for token, read in texts.items():
        found = [next(rest) for _ in read.scanned]
        found[0] = together(found[0], secrets)
        if any(found):
            written = yield from read.writing(found, put)
            if written.text != read.text:
                changed[token] = written
            yield
    return changed


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


_words: set[str] = set()
"""Strings, as they are written between their quotes, that were found to be nothing but words: the members and enumerations of
the formats, most of them …"""
_telling: set[str] = set()
"""… and those that tell, as the name of a member, that its value may be a secret."""


def _sorted(new: Iterable[str], names: set[str]) -> Paused[tuple[dict[str, Written], dict[str, Text]]]:
    """Of *new* strings: what is left out, and what must be searched, by token. Mere words are noted as that, and what tells as
    the name of a member goes to *names*."""
    left_out: dict[str, Written] = {}
    fresh: dict[str, Text] = {}
    for string in new:
        token = _written(string)
        value = _meant(token)
        tells = len(value) <= _NAME and TELLING.search(value) is not None
        if tells:
            names.add(string)
        if _WORD.fullmatch(value):
            kind = _telling if tells else _words
            if len(kind) < _NAMES:
                kind.add(string)
        elif len(value) >= 256 and _BLOB.fullmatch(value):
            left_out[token] = Written(f"({len(value)} characters left out)", ())
        else:
            fresh[token] = yield from reading(value)
            yield
    return left_out, fresh


def _parts(text: str) -> list[str]:
    """The JSON *text* between its quotes: what stands outside of strings and within them, in turns. A string is as it is
    written, but for escaped backslashes and quotes, which are marked by a NUL, that no JSON holds. So ``split`` can be used: a
    fifth of what a pattern takes."""
    if '\\"' in text:
        text = text.replace("\\\\", "\0b").replace('\\"', "\0q")
    return text.split('"')


def _written(string: str) -> str:
    """A string of :func:`_parts`, with its quotes, as the text has it."""
    if "\0" in string:
        string = string.replace("\0q", '\\"').replace("\0b", "\\\\")
    return f'"{string}"'


def _meant(token: str) -> str:
    """What a JSON string means; *token* has its quotes."""
    if "\\" not in token:
        return token[1:-1]
    try:
        return str(jiter.from_json(token.encode(), cache_mode="none"))
    except ValueError:  # half of a surrogate pair
        return str(json_text.loads(token, strict=False))


def _numbers(raw: bytes) -> Iterator[tuple[str, str]]:
    """Whole numbers of JSON that could be somebody's, as they are written and as digits; and what looks like one within a
    string."""
    digits = raw.translate(_DIGITS)
    at = digits.find(_LONG)
    while at >= 0:
        run = _RUN.match(raw, at)
        end = at + len(_LONG) if run is None else run.end(1)
        if run is not None and run[2] is not None and not raw.endswith(_CREATED, 0, at):
            before = raw[max(at - _BEFORE, 0):at]
            sign = "-" if before.endswith(b"-") else ""
            before = before.removesuffix(b"-").rstrip(b" \t\r\n")
            name = before[:-1].rstrip(b" \t\r\n")[:-1].rpartition(b'"')[2] if before.endswith(b":") else b""
            if before[-1:] in _BEFORE_NUMBERS and not _is_measure(name):
                yield sign + run[0].decode(), sign + run[1].decode()
        at = digits.find(_LONG, end)


def _is_measure(name: bytes) -> bool:
    """Whether a member's number is a moment or a measure, by a word of its *name*."""
    return not _MEASURES.isdisjoint(word.lower() for word in _WORDS_OF.findall(name))


def _told(parts: Sequence[str], names: Collection[str]) -> dict[str, tuple[Span, ...]]:
    """What the members called by one of *names* tell of their values, which are strings: by value, with its quotes."""
    found: dict[str, tuple[Span, ...]] = {}
    if not names:
        return found
    for name, between, value in zip(parts[1::2], parts[2::2], parts[3::2], strict=False):
        if name in names and len(value) <= 6 * _MEMBER and between.strip() == ":":
            token = _written(value)
            text = _meant(token)
            secrets = find_in_member(_meant(_written(name)), text) if len(text) <= _MEMBER else ()
            if secrets:
                found[token] = together(found.get(token, ()), secrets)
    return found


def _spliced(text: str, changes: Mapping[str, Written]) -> tuple[str, Counter[str]]:
    """*text* with the strings and numbers of *changes* as strings, and what was found in them."""
    found: Counter[str] = Counter()

    def put(match: re.Match[str]) -> str:
        written = changes.get(match[0])
        if written is None:
            return match[0]
        found.update(written.types)
        return quoted(written.text)

    return _SCALAR.sub(put, text), found
