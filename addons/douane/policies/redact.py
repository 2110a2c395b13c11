"""``redact``: personal data leaves as placeholders and comes back in the answer.

Laws: every text position of the one walk is scanned, or the call is denied (a scan that fails raises, and what raises is a
denial). Only the strings in which something was found are other bytes upstream. Signed reasoning is not touched. Findings
name type, count and place, never the value. Where the provider keeps the history, what its requests put in is kept too,
under the provider's name for it, before the app sees the end of the answer that can be gone on from.
"""

import asyncio
import functools
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import Annotated, Any

from douane.call import Call, Finding, Outcome
from douane.coding import coding_of, decode
from douane.detect import DEFAULT_ENTITIES
from douane.detect.byrole import BUILTIN, Eyes, eyes
from douane.detect.models import Ner
from douane.detect.values import PHONE_REGIONS, Span
from douane.histories.base import NOTHING, History, Name, Shelf, durable
from douane.pauses import Paused, with_pauses
from douane.placeholders import DataKey, Minter
from douane.policy import BodyFilter, Setting, Wires, policy, positions
from douane.providers.base import Position, Wire
from douane.providers.deltas import COMMON
from douane.providers.edit import Place
from douane.providers.kept import conversations, goes_on_from, in_lines, is_kept
from douane.reading import read_texts, text_keys
from douane.redaction import Replace, Text, Written, reading
from douane.redactrules import NOBODY, Action, Allowed, AllowList, Entities, Recognizer, Region, Rules
from douane.rehydrate import Restorer, hosts_in
from douane.remember import Remembering
from douane.restore import RestoreFilter
from douane.seams import Seams, across, join, seams_in
from douane.secrets import Originals
from douane.shown import PLACES, shown
from douane.units import Spelled, parse_duration
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict

__all__ = ["Redact"]

_OF_THE_BYTES = frozenset({b"content-encoding", b"content-md5", b"digest", b"content-digest"})
_ASKING = frozenset({"system", "user"})
"""Whose word counts for where a value may go. A page that a tool has read names hosts too, and so does the model in the
answers that come back as history: were theirs to count, an injected text need only name its own host."""
_INSTRUCTIONS = frozenset({("system",), ("instructions",), ("system_instruction",), ("systemInstruction",), ("preamble",)})
"""Where a body has them beside the turns."""
_TOLD = 10_000
_NO_LIMIT = 1 << 40
"""Bytes; the body was read within ``edge.max_body`` before."""


def parse_remember(text: str) -> int:
    """A duration in seconds; ``never`` is 0. Raises ValueError."""
    return 0 if text.strip() == "never" else parse_duration(text)


@policy("redact")
@dataclass(frozen=True, slots=True)
class Redact:
    """Replace personal data in requests; with ``restore``, put it back into the answers.

    ``action`` says by what: a placeholder, as many ``*`` as characters, or a salted sha256; ``deny`` refuses the call,
    ``observe`` only says so. ``remember``: how long what stands for what is kept where the provider keeps the history (OpenAI
    keeps answers for 30 days)."""

    entities: Entities = DEFAULT_ENTITIES
    restore: bool = True
    action: Action = "placeholder"
    names: tuple[str, ...] = ()
    ner: str | Ner = BUILTIN
    threshold: float = 0.4
    allow: tuple[Allowed, ...] = ()
    recognizers: Mapping[str, Recognizer] = MappingProxyType({})
    phone_regions: tuple[Region, ...] = PHONE_REGIONS
    remember: Annotated[int, Spelled(parse_remember, "30d, never")] = 30 * 86400

    def __post_init__(self) -> None:
        self._rules()
        AllowList.of(self.allow)

    def _rules(self) -> Rules:
        return Rules.of(self.entities, self.action, self.threshold, self.names, self.recognizers, self.phone_regions)

    def bind(self, setting: Setting) -> "_Redact":
        rules = self._rules()
        allow = AllowList.of(self.allow)
        looking = replace(eyes(rules.wanted, self.ner, setting.folder), allowed=None if allow is NOBODY else allow.holds)
        return _Redact(looking, setting.wires, setting.data_key, self.action, self.restore and rules.restores, setting.shelf,
                       self.remember, rules.actions, allow)


@dataclass(slots=True)
class _Open:
    """A call on its way that goes on from another, or may be gone on from."""

    hosts: frozenset[str] = frozenset()
    """Of the requests before."""
    history: Callable[[], History] | None = None
    """Gives what is to be kept; None: nothing is."""
    saving: "asyncio.Future[None] | None" = None
    fetched: tuple[tuple[Name, int], ...] = ()
    """Of a GET: what is :attr:`_Redact.told` once it is saved."""


@dataclass(frozen=True, slots=True)
class _Written:
    """The texts of a call as they may leave, and what their placeholders stand for."""

    texts: list[Written]
    minter: Minter


@dataclass(frozen=True, slots=True)
class _Redact:
    scanner: Eyes
    wires: Wires
    key: DataKey
    action: Action
    restore: bool
    shelf: Shelf = field(default_factory=Shelf)
    remember: int = 0
    """Seconds."""
    actions: Mapping[str, Action] = MappingProxyType({})
    """By type, where another is meant than :attr:`action`."""
    allow: AllowList = NOBODY
    open: dict[str, _Open] = field(default_factory=dict, repr=False)
    """By call id, to ``settle``."""
    told: OrderedDict[tuple[Name, int], None] = field(default_factory=OrderedDict, repr=False)
    """What was kept for a GET, under which name and how much: an app polls a batch, and it need not be kept each time."""

    def warm(self) -> None:
        """Before the first call: start what takes long to start."""
        self.scanner.warm()

    def finds(self) -> tuple[str, ...]:
        """For ``douane check``."""
        return self.scanner.told

    async def admit(self, call: Call) -> Verdict:
        before = await self._before(call)
        if before:
            call = replace(call, originals=Originals({**before.originals, **call.originals}))
        verdict = await self._search(call)
        return Rewrite(call, verdict.findings) if before and isinstance(verdict, Allow) else verdict

    async def _before(self, call: Call) -> History:
        """What the requests of the history put in that this call goes on from. Raises HistoryUnavailableError."""
        names = goes_on_from(call.path, call.document) if self.restore and self.remember else ()
        if not names:
            return NOTHING
        found = await self.shelf.histories.load([_name(call, one) for one in names])
        if found:
            self.open[call.id] = _Open(found.hosts)
        return found

    async def _search(self, call: Call) -> Verdict:
        wire = self.wires(call)
        if call.document is None or wire is None:
            return Deny("uninspectable", "the request's body cannot be searched for personal data") if call.body else ALLOW
        found, read = positions(call, wire), await read_texts(call, wire)
        seams = seams_in(found, read)
        asked = [text for one in read for text in one.scanned]
        roles = [one.role for one, text in zip(found, read, strict=True) for _ in text.scanned]
        for seam in seams:
            asked += seam.texts
            roles += [found[seam.parts[0]].role] * len(seam.texts)
        if (order := _read_in(found, read, seams)) is None:
            spans = await self.scanner.scan(text_keys(call), asked, roles)
        else:
            each = await self.scanner.scan(text_keys(call), [asked[at] for at in order], [roles[at] for at in order])
            spans = [one for _, one in sorted(zip(order, each, strict=True), key=itemgetter(0))]
        if not any(spans):
            return ALLOW
        written = await with_pauses(self._written(call, read, seams, asked, spans))
        return await with_pauses(self._judged(call, wire, found, written))

    def _written(self, call: Call, texts: Sequence[Text], seams: list[Seams], asked: list[str],
                 spans: list[tuple[Span, ...]]) -> "Paused[_Written]":
        """*texts* as they may leave; *spans*: what stands in each of *asked*."""
        tenant = call.principal.tenant
        minter = Minter(self.key, tenant, call.originals)
        put = self._replacing(minter, tenant)
        rest = (self.allow.less(text, each) for text, each in zip(asked, spans, strict=True))
        left: list[list[tuple[Span, ...]]] = []
        written: list[Written] = []
        for text in texts:
            own = [next(rest) for _ in text.scanned]
            left.append(own)
            written.append((yield from text.writing(own, put)))
            if written[-1].types:
                yield
                yield from self._know(call, text, own, written[-1])
        for one in seams:
            alone = [left[at][0] for at in one.parts]
            split = across(one, alone, rest)
            if split:
                parts = join(one, [texts[at].text for at in one.parts], alone, split, put)
                for at, part in zip(one.parts, parts, strict=True):
                    written[at] = part
            yield
        return _Written(written, minter)

    def _know(self, call: Call, text: Text, found: Sequence[tuple[Span, ...]], written: Written) -> Paused[None]:
        """The log looks at what was *written* next, and a later turn may: nothing that was *found* is left in it."""
        if self.allow is not NOBODY or written.text == text.text or not all(
                self._action(span.type) == "placeholder" for each in found for span in each):
            return
        again = (written.text,) if not text.inner and not text.coded else (yield from reading(written.text)).scanned
        self.scanner.know(text_keys(call), again)

    def _judged(self, call: Call, wire: Wire, found: tuple[Position, ...], written: "_Written") -> Paused[Verdict]:
        changes: dict[Place, str] = {}
        counts: Counter[str] = Counter()
        places: dict[str, dict[str, None]] = {}
        for position, one in zip(found, written.texts, strict=True):
            if one.types:
                where = shown(position.path, key=position.key)
                counts.update(one.types)
                for kind in dict.fromkeys(one.types):
                    places.setdefault(kind, {})[where] = None
            if one.text != position.text and not position.sealed:
                changes[position.path, position.key] = one.text
        findings = tuple(Finding("redact", kind, count, tuple(places[kind])[:PLACES])
                         for kind, count in sorted(counts.items()))
        refused = next((one for one in findings if self._action(one.type) == "deny"), None)
        if refused is not None:
            return Deny("pii_found", f"{refused.type} at {refused.where[0]} may not be sent", findings=findings)
        if not changes:
            return Allow(findings) if findings else ALLOW
        originals = written.minter.originals() if self.restore else call.originals
        yield
        return Rewrite(_rewritten(call, wire, changes, originals), findings)

    def _action(self, kind: str) -> Action:
        return self.actions.get(kind, self.action)

    def _replacing(self, minter: Minter, tenant: str) -> Replace:
        def put(kind: str, value: str) -> str:
            action = self._action(kind)
            if action == "placeholder":
                return minter.placeholder(kind, value)
            if action == "mask":
                return "*" * len(value)
            if action == "hash":  # without a salt, anybody could try values until the hash fits
                return hashlib.sha256(value.encode("utf-8", "surrogatepass") + self.key.digest("salt", tenant)).hexdigest()
            return value
        return put

    def filter(self, call: Call) -> BodyFilter | None:
        if not self.restore or not call.originals:
            return None
        one = self.open.get(call.id) or _Open()
        wire = self.wires(call)
        hosts = functools.cache(functools.partial(_hosts, wire, call, one.hosts))
        restoring = RestoreFilter(Restorer(call.originals, hosts), json_text=_asks_for_json(call.document),
                                  deltas=wire.deltas if wire else COMMON, array=wire.array if wire else False,
                                  lines=in_lines(call.path))
        if not self.remember or not is_kept(call.path, call.document):
            return restoring
        one.history = lambda: History(call.originals, hosts())
        self.open[call.id] = one
        return Remembering(restoring, lambda names: self._save(call, one, names))

    def _save(self, call: Call, one: _Open, answer: tuple[str, ...]) -> None:
        names = [_name(call, each) for each in (*answer, *conversations(call.path, call.document))]
        if call.method == "GET":
            one.fetched = tuple(each for name in names if (each := (name, len(call.originals))) not in self.told)
            names = [name for name, _ in one.fetched]
        if names and one.history is not None:
            one.saving = self.shelf.histories.save(names, one.history(), call.at + self.remember)

    async def settle(self, call: Call, outcome: Outcome) -> None:
        one = self.open.pop(call.id, None)
        if one is None:
            return
        if one.saving is None and outcome.ended != "denied" and outcome.status < 300:
            self._save(call, one, ())  # no answer was named, and the conversation may have grown all the same
        if one.saving is not None:
            await durable(one.saving)
            self.told.update(dict.fromkeys(one.fetched))
            while len(self.told) > _TOLD:
                self.told.popitem(last=False)


def _read_in(found: Sequence[Position], texts: Sequence[Text], seams: Sequence[Seams]) -> list[int] | None:
    """The order in which all that is asked for is read, where it is not as it stands: instructions come first, wherever an SDK
    puts them, and what stands across parts comes with the last of these. Names go from a text to those after it, and the
    provider caches in this order: a turn that is added must not change what was there before."""
    first = [one.role == "system" and one.path[:1] in _INSTRUCTIONS for one in found]
    if not seams and not any(late and not before for before, late in pairwise(first)):
        return None
    ranks = [(not first[at], at) for at, one in enumerate(texts) for _ in one.scanned]
    ranks += [(not first[one.parts[-1]], one.parts[-1]) for one in seams for _ in one.texts]
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def _name(call: Call, one: str) -> Name:
    return Name(call.provider, call.principal.tenant, one)


def _hosts(wire: Wire | None, call: Call, before: frozenset[str]) -> frozenset[str]:
    """Hosts that those who ask have named, in the call's request or in one that it goes on from."""
    if wire is None or call.document is None:
        return before
    return before | hosts_in([one.text for one in wire.walk(call.document) if one.role in _ASKING])


def _rewritten(call: Call, wire: Wire, changes: Mapping[Place, str], originals: Originals) -> Call:
    """The call with a new body. A compressed one goes on uncompressed: the provider reads it just the same."""
    plain = decode(call.body, coding_of(call.headers), _NO_LIMIT)
    body, document = wire.rewrite(plain, call.header(b"content-type") or b"", call.document, changes)
    headers = tuple(header for header in call.headers if header[0] not in _OF_THE_BYTES)
    model = wire.model(document) or call.model
    return replace(call, headers=headers, body=body, document=document, model=model, originals=originals)


def _asks_for_json(document: Any) -> bool:
    """Whether the answer's text shall be JSON: chat's ``response_format``, responses' ``text.format``, Anthropic's
    ``output_format`` and ``output_config.format``, Gemini's ``responseMimeType``."""
    if not isinstance(document, dict):
        return False
    config = document.get("generationConfig", document.get("generation_config"))
    if isinstance(config, dict) and "json" in str(config.get("responseMimeType", config.get("response_mime_type"))):
        return True
    formats = [document.get("response_format"), document.get("output_format"),
               *(one.get("format") for one in (document.get("text"), document.get("output_config")) if isinstance(one, dict))]
    return any(isinstance(one, dict) and str(one.get("type", "")).startswith("json") for one in formats)
