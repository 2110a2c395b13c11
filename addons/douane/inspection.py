"""What Douane sees in an exchange: ``douane inspect``. It is how "you missed this" is reported, and how coverage is measured.

Law: this asks the same table, the same walk, the same meters and the same prices as the gateway; nothing here knows a format,
but for one thing: a WebSocket session that was recorded without its address is named after what its messages say.
A host of this machine or of a private network that no table names is taken for a server that speaks a known language
(``local``), if its path ends as one of theirs does: in the gateway such a server is named in ``providers:``.
"""

import ipaddress
import json
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from douane.call import Headers, Usage
from douane.coding import CODINGS, coding_of, decode
from douane.edge import host_key
from douane.errors import RefusedError
from douane.exchanges import Recorded, read_exchanges
from douane.loader import load
from douane.places import Places, private_folder
from douane.pricerules import NO_RULES, Rules
from douane.prices import Bill, Prices
from douane.providers.base import Operation, Position, Provider, Reading, Wire
from douane.providers.by_host import ByHost
from douane.providers.framing import AWS, MESSAGES, SSE, Framing, framing_of
from douane.providers.table import builtin

__all__ = ["Inspector", "Sight", "as_object", "as_text", "inspect_files", "open_inspector"]

type Frames = tuple[tuple[bool, str], ...]
"""Of a session: whether the client sent it, and the message."""

_REGIONS = {r"[a-z0-9-]+-aiplatform\.googleapis\.com": "vertex", r"bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com": "bedrock"}
_OF_GEMINI = frozenset({"setup", "setupComplete", "serverContent", "clientContent", "client_content", "realtimeInput",
                        "realtime_input"})
"""Members of a message of Gemini Live (https://ai.google.dev/api/live)."""
_FIRST = 8
_LIMIT = 256 * 1024 * 1024
_LANGUAGES = ("openai", "anthropic", "google", "vertex", "bedrock", "ollama")
"""Whose paths a local server may end with, in this order."""
_STREAM = re.compile(rb"\s*(?::[^\n]*\n\s*)*(?:data|event|id):")


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of one exchange; ``provider`` empty where it is no call to an AI provider that we know."""

    provider: str = ""
    operation: str = ""
    model: str = ""
    stream: bool = False
    texts: tuple[Position, ...] = ()
    answer: tuple[Position, ...] = ()
    usage: Mapping[str, int] | None = None
    cost_usd: float | None = None
    estimated: bool = False
    error: str = ""
    """What could not be read, and why."""


class Inspector:
    """*providers*: by name, as the gateway has them."""

    def __init__(self, providers: Mapping[str, Provider], prices: Prices) -> None:
        self._providers = providers
        self._hosts = ByHost(providers.values())
        self._prices = prices

    def see(self, one: Recorded) -> Sight:
        if one.frames is not None and not one.url:
            return self._nowhere(one.frames)
        provider, operation, path = self.recognise(one)
        if not provider:
            return Sight()
        if operation is None:
            return Sight(provider, "unknown", error="" if one.frames is None else "a WebSocket session of an unknown path")
        wire = operation.wire
        problems: list[str] = []
        if wire is None:
            return Sight(provider, operation.name, operation.model_of(path, None))
        if one.frames is not None:
            return self._session(provider, operation, operation.model_of(path, None), one.frames)
        document = _asked(one, wire, problems)
        texts = () if document is None else tuple(wire.walk(document))
        framing = _framing(one, wire)
        answered, reading = _answered(one, wire, framing, problems)
        model = operation.model_of(path, document)
        streamed = framing is not None or (document is not None and wire.stream(document))
        usage, estimated = reading.usage, reading.partial
        names = tuple(dict.fromkeys(name for name in (reading.model, model) if name))
        cost = reading.cost_usd
        if cost is None and usage is not None and names:
            bill = self._prices.bill(provider, names, usage, time.time(), reading.tier)
            cost, estimated = bill.usd, estimated or bill.ceiling
        return Sight(provider, operation.name, model or reading.model, streamed, texts, answered,
                     None if usage is None else _usage(usage), cost, estimated, "; ".join(problems))

    def _nowhere(self, frames: Frames) -> Sight:
        """A session without an address. OpenAI's servers and Azure's say the same: it is taken for OpenAI's."""
        name, operation = _speaks(frames)
        rows = self._providers[name].operations if name in self._providers else ()
        spoken = (row for row in rows if row.name == operation and row.dialogue is not None)
        row = next(spoken, None) or next((row for row in rows if row.name == "generate_content"), None)
        if row is None:
            return Sight()
        return self._session(name, row if row.name == operation else replace(row, name=operation), "", frames)

    def _session(self, provider: str, operation: Operation, model: str, frames: Frames) -> Sight:
        """A WebSocket session: the texts of each message, at ``$[n]``; usage and cost of all its answers together."""
        wire, talk = operation.wire, operation.dialogue
        if wire is None:
            return Sight(provider, operation.name, model)
        texts: list[Position] = []
        answer: list[Position] = []
        bills: list[tuple[Usage, Bill | None]] = []
        problems = []
        for at, (sent, text) in enumerate(frames):
            raw = text.encode("utf-8", "surrogatepass")
            try:
                document = wire.read(raw, b"application/json")
            except ValueError as error:
                problems.append(f"frame {at} cannot be read: {error}")
                continue
            model = model or (talk.model(document) if talk is not None else wire.model(document.get("setup")))
            found = wire.walk(document) if sent else wire.answered(document)
            (texts if sent else answer).extend(one._replace(path=(at, *one.path)) for one in found)
            if not sent and talk is not None and (reading := _of_message(wire, raw)).usage is not None:
                names = tuple(dict.fromkeys(name for name in (reading.model, model) if name))
                bill = self._prices.bill(provider, names, reading.usage, time.time(), reading.tier) if names else None
                bills.append((reading.usage, bill))
        priced = [bill for _, bill in bills if bill is not None]
        return Sight(provider, operation.name, model, True, tuple(texts), tuple(answer), _together(usage for usage, _ in bills),
                     sum(bill.usd for bill in priced) if priced else None, any(bill.ceiling for bill in priced),
                     "; ".join(problems))

    def recognise(self, one: Recorded) -> tuple[str, Operation | None, str]:
        """Provider (empty: none of ours), operation, and the path below the provider's root."""
        url = urlsplit(one.url)
        try:
            host = host_key(url.hostname or "", url.port or (443 if url.scheme in ("https", "wss") else 80),
                            443 if url.scheme in ("https", "wss") else 80)
        except ValueError:
            return "", None, ""
        path = url.path or "/"
        found = self._hosts.at(host, path)
        if found is None:
            return self._region(one.method, host, path) or self._local(one.method, url.hostname or "", path)
        provider, below = found
        if below is None:
            return "", None, path
        return provider.name, provider.operation(one.method, below), below

    def _region(self, method: str, host: str, path: str) -> tuple[str, Operation | None, str] | None:
        """A region that the table does not have: the gateway refuses it by that name, and here it is still known."""
        name = next((name for pattern, name in _REGIONS.items() if re.fullmatch(pattern, host)), None)
        return None if name is None or name not in self._providers else (
            name, self._providers[name].operation(method, path), path)

    def _local(self, method: str, host: str, path: str) -> tuple[str, Operation | None, str]:
        if not _is_private(host):
            return "", None, path
        starts = [at for at, char in enumerate(path) if char == "/"]
        for start in starts:
            for name in _LANGUAGES:
                provider = self._providers.get(name)
                for below in (path[start:], f"/v1{path[start:]}"):
                    row = provider.operation(method, below) if provider is not None else None
                    if row is not None and row.wire is not None:
                        return "local", row, below
        return "", None, path


def open_inspector(places: Places) -> Inspector:
    """With the providers and prices of the policy files, where there are some that can be read; else the built-in ones.

    Raises ConfigError, EnvironmentFailedError."""
    providers: Mapping[str, Provider] = builtin()
    rules: Rules = NO_RULES
    if places.policies.is_dir() and any(places.policies.glob("*.yaml")):
        loaded = load(places.policies)
        providers, rules = loaded.providers, loaded.prices
    private_folder(places.data)
    lists = {name: one.prices for name, one in providers.items() if one.prices}
    return Inspector(providers, Prices.open(places.data, lists, rules))


def inspect_files(inspector: Inspector, files: Iterable[str]) -> Iterator[Sight]:
    """Raises ConfigError for a file that cannot be read."""
    for name in files:
        for one in read_exchanges(Path(name)):
            yield inspector.see(one)


def _is_private(host: str) -> bool:
    """This machine, a private address, or a name without a dot."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return bool(host) and "." not in host


def _plain(body: bytes, headers: Headers) -> bytes:
    """*body* decoded; as it is where the recorder has undone the coding and kept its header."""
    try:
        coding = coding_of(headers)
        return decode(body, coding, _LIMIT) if coding in CODINGS else body
    except RefusedError:
        return body


def _asked(one: Recorded, wire: Wire, problems: list[str]) -> Any:
    if not one.body:
        return None
    kind = next((value for name, value in one.headers if name == b"content-type"), b"")
    try:
        return wire.read(_plain(one.body, one.headers), kind)
    except ValueError as error:
        problems.append(f"the request cannot be read: {error}")
        return None


def _framing(one: Recorded, wire: Wire) -> Framing | None:
    if one.status >= 300:
        return None
    kind = next((value for name, value in one.answer_headers if name == b"content-type"), b"")
    if not kind and _STREAM.match(one.answer):
        return SSE
    if not kind and len(one.answer) > 12 and zlib.crc32(one.answer[:8]).to_bytes(4, "big") == one.answer[8:12]:
        return AWS
    return framing_of(kind or b"application/json", array=wire.array and one.answer.lstrip()[:1] == b"[")


def _answered(one: Recorded, wire: Wire, framing: Framing | None, problems: list[str]) -> tuple[tuple[Position, ...], Reading]:
    body = _plain(one.answer, one.answer_headers)
    reading = Reading()
    if not body:
        return (), reading
    if one.status < 300:
        meter = wire.meter(framing, one.answer_headers)
        meter.feed(body)
        reading = meter.reading()
    try:
        document = json.loads(body) if framing is None else wire.assembled(body, framing)
    except (ValueError, RecursionError):
        if one.status < 300 and any(name == b"content-type" and b"json" in value for name, value in one.answer_headers):
            problems.append("the answer is no JSON")
        return (), reading
    return () if document is None else tuple(wire.answered(document)), reading


def _speaks(frames: Frames) -> tuple[str, str]:
    """Provider and operation, by what the first messages say; empty where nobody we know speaks so."""
    for _, text in frames[:_FIRST]:
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if not isinstance(said, dict):
            continue
        if not _OF_GEMINI.isdisjoint(said):
            return "google", "realtime"
        session, kind = said.get("session"), str(said.get("type"))
        if kind.startswith(("session.", "conversation.", "input_audio_buffer.")):
            grok = isinstance(session, dict) and str(session.get("model")).startswith("grok")
            return "xai" if grok else "openai", "realtime"
        if kind == "response.create" and "model" in said:
            return "xai" if str(said["model"]).startswith("grok") else "openai", "responses"
    return "", ""


def _of_message(wire: Wire, raw: bytes) -> Reading:
    meter = wire.meter(MESSAGES, ())
    meter.feed(raw + b"\x1e")
    return meter.reading()


def _together(usages: Iterable[Usage]) -> Mapping[str, int] | None:
    total: Counter[str] = Counter()
    none = True
    for one in usages:
        none = False
        total.update(_usage(one))
    return None if none else dict(total)


def _usage(usage: Any) -> dict[str, int]:
    """Every count that is there; input and output always."""
    return {name: value for name in usage.__dataclass_fields__
            if (value := getattr(usage, name)) or name in ("input", "output")}


# -- for programs and for people ---------------------------------------------------------------------------------------


def _path(position: Position) -> str:
    shown = ["$"]
    for step in position.path:
        if isinstance(step, int):
            shown.append(f"[{step}]")
        else:
            shown.append(f".{step}" if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", step) else f"[{json.dumps(step)}]")
    return "".join([*shown, "~"] if position.key else shown)


def as_object(one: Sight) -> dict[str, Any]:
    """JSON; the members in the order that DESIGN gives. A path that ends in ``~`` names the member's name, not its value."""
    return {
        "provider": one.provider or None,
        "operation": one.operation or None,
        "model": one.model or None,
        "stream": one.stream,
        "texts": [{"path": _path(text), "role": text.role, "text": text.text} for text in one.texts],
        "answer": [{"path": _path(text), "text": text.text} for text in one.answer],
        "usage": None if one.usage is None else dict(one.usage),
        "cost_usd": one.cost_usd,
        "estimated": one.estimated,
        "error": one.error or None,
    }


def as_text(one: Sight, *, width: int = 100) -> str:
    """A few lines, each text cut to *width* characters."""
    if not one.provider:
        return "not a call to an AI provider that Douane knows"
    said = [f"{one.provider}/{one.operation}  {one.model or '-'}{'  stream' if one.stream else ''}"]
    if one.usage is not None:
        said.append("  usage   " + ", ".join(f"{name} {value}" for name, value in one.usage.items()))
    if one.cost_usd is not None:
        said.append(f"  cost    ${one.cost_usd:.6f}{' (estimated)' if one.estimated else ''}")
    if one.error:
        said.append(f"  error   {one.error}")
    for name, texts in (("texts", one.texts), ("answer", one.answer)):
        for text in texts:
            shown = ascii(text.text)[1:-1] if not text.text.isprintable() else text.text
            said.append(f"  {name:<7} {_path(text)} ({text.role}) {shown[:width]}{'…' if len(shown) > width else ''}")
    return "\n".join(said)
