"""``detect_secrets``: keys, tokens and passwords do not leave: they are refused, or placeholders go in their place.

Laws: every text position of the one walk is looked at, or the call is denied. A key of this gateway is refused whatever
``action`` says, unless the rule ``GATEWAY_KEY`` says otherwise, and comes back in no answer. A refusal and a finding name kind,
count and place, never the value.

What is replaced goes the way of :mod:`douane.policies.redact`, which restores it and keeps it with histories: one way to do
that. This policy says what is a secret, and what is to become of each.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Literal, cast

from douane.call import Call, Finding, Headers, Outcome
from douane.detect.byrole import Eyes
from douane.detect.find_secrets import TELLING
from douane.detect.memory import Keys
from douane.detect.own_keys import GATEWAY_KEY, OwnKeys
from douane.detect.secret_scanner import KINDS, SecretScanner
from douane.detect.values import Span
from douane.echo import EchoMask
from douane.keyforms import Forms
from douane.policies.redact import Redact, _Redact, parse_remember
from douane.policy import BodyFilter, Setting, Wires, policy, positions
from douane.providers.base import Position, Wire
from douane.providers.kept import goes_on_from
from douane.reading import read_texts, text_keys
from douane.redaction import Text
from douane.shown import PLACES, shown
from douane.units import Spelled
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict

__all__ = ["DetectSecrets"]

type Action = Literal["deny", "redact", "observe"]

_NAME, _VALUE = 64, 256
"""Characters of a member's name that may tell what its value is, and of that value."""
_NAMED = 3
"""Kinds and places in a reason."""
_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{8,64}")
_OF_OURS = re.compile(rf"<(?:{'|'.join(KINDS)})_[a-z2-7]{{8,48}}>")


@policy("detect_secrets")
@dataclass(frozen=True, slots=True)
class DetectSecrets:
    """Keep keys, tokens and passwords from leaving.

    ``rules``: another action for one kind (``GATEWAY_KEY``: a key of this gateway). ``allow``: what is none, as globs of the
    value, or as ``sha256:`` and eight digits or more of its digest."""

    action: Action = "redact"
    rules: Mapping[str, Action] = MappingProxyType({})
    allow: tuple[str, ...] = ()
    restore: bool = True
    remember: Annotated[int, Spelled(parse_remember, "30d, never")] = 30 * 86400

    def __post_init__(self) -> None:
        for name in self.rules:
            if name.upper() not in KINDS:
                raise ValueError(f"rules: {name} is not known; allowed: {', '.join(sorted(KINDS))}")
        for one in self.allow:
            if not one.strip("*? ") or (one.startswith("sha256:") and not _DIGEST.fullmatch(one)):
                raise ValueError("allow: a glob of more than `*`, or sha256: and 8 to 64 hexadecimal digits")

    def bind(self, setting: Setting) -> "_DetectSecrets":
        own = OwnKeys(setting.secrets, setting.directory)
        actions = {**dict.fromkeys(KINDS, self.action), GATEWAY_KEY: "deny",
                   **{name.upper(): action for name, action in self.rules.items()}}
        return _DetectSecrets(SecretScanner(own, self.allow), setting.wires, actions, own.forms,
                              Redact(entities=(), restore=self.restore, remember=self.remember).bind(setting))


class _Found:
    """A scanner for the policy that replaces: it is given what was found, by text."""

    def __init__(self, spans: Mapping[str, tuple[Span, ...]]) -> None:
        self._spans = spans

    async def scan(self, _: Keys, texts: Sequence[str], _roles: Sequence[str]) -> list[tuple[Span, ...]]:
        return [self._spans.get(text, ()) for text in texts]

    def know(self, _: Keys, texts: Sequence[str]) -> None:
        """What is left of a text holds placeholders, which are no secrets."""


@dataclass(frozen=True, slots=True)
class _DetectSecrets:
    scanner: SecretScanner
    wires: Wires
    actions: Mapping[str, str]
    keys: Forms
    replacing: _Redact
    """Of ``redact``: it is lent a scanner that knows what was found here."""

    async def admit(self, call: Call) -> Verdict:
        wire = self.wires(call)
        if call.document is None or wire is None:
            if call.body:
                return Deny("uninspectable", "the request's body cannot be searched for secrets")
            return await self._replaced(call, {}, ())
        texts, spans = await self._find(call, wire)
        if not spans:
            return await self._replaced(call, {}, ())
        findings = _findings(texts, spans)
        refused = [one for one in findings if self.actions[one.type] == "deny"]
        if refused:
            return Deny("secret_found", _reason(refused), findings=findings)
        go = {text: kept for text, each in spans.items()
              if (kept := tuple(one for one in each if self.actions[one.type] == "redact"))}
        return await self._replaced(call, go, findings)

    async def _find(self, call: Call, wire: Wire) -> tuple[list[tuple[Position, Text]], dict[str, tuple[Span, ...]]]:
        """The texts of *call* by place; and of each in which there is something, what there is."""
        read = list(zip(positions(call, wire), await read_texts(call, wire), strict=True))
        asked = [(part, "" if at else _telling(one)) for one, text in read for at, part in enumerate(text.scanned)]
        every = await self.scanner.scan(text_keys(call), asked)
        found: dict[str, tuple[Span, ...]] = {}
        if any(every):
            for (part, name), spans in zip(asked, every, strict=True):
                if spans and (name or part not in found):  # with a name, there may be more in it
                    found[part] = spans
        return read, found

    async def _replaced(self, call: Call, spans: Mapping[str, tuple[Span, ...]], findings: tuple[Finding, ...]) -> Verdict:
        """With placeholders for *spans*, and what the history before stands for."""
        if not spans and not goes_on_from(call.path, call.document):
            return Allow(findings) if findings else ALLOW
        verdict = await replace(self.replacing, scanner=cast("Eyes", _Found(spans))).admit(call)
        if isinstance(verdict, Deny):
            return verdict
        return Rewrite(verdict.call, findings) if isinstance(verdict, Rewrite) else Allow(findings)

    def filter(self, call: Call) -> BodyFilter | None:
        """Masks the gateway's keys, then restores: nothing to restore, where no placeholder is of a secret."""
        restoring = self.replacing.filter(call) if any(map(_OF_OURS.fullmatch, call.originals)) else None
        mask = EchoMask.of(self.keys) if self.keys else None
        return restoring if mask is None else mask if restoring is None else _Both(mask, restoring)

    async def settle(self, call: Call, outcome: Outcome) -> None:
        await self.replacing.settle(call, outcome)


@dataclass(slots=True)
class _Both:
    """One filter behind the other."""

    first: BodyFilter
    then: BodyFilter
    rewrites: bool = True

    def headers(self, headers: Headers) -> Headers:
        return self.then.headers(self.first.headers(headers))

    def feed(self, chunk: bytes) -> bytes:
        return self.then.feed(passed) if (passed := self.first.feed(chunk)) else b""

    def close(self) -> bytes:
        rest = self.first.close()
        return (self.then.feed(rest) if rest else b"") + self.then.close()


def _telling(one: Position) -> str:
    """The name of the member whose value it is, where that says what a bare value does not."""
    name = one.path[-1] if one.path and not one.key else None
    return name if isinstance(name, str) and len(name) <= _NAME and len(one.text) <= _VALUE and TELLING.search(name) else ""


def _findings(texts: Sequence[tuple[Position, Text]], spans: Mapping[str, tuple[Span, ...]]) -> tuple[Finding, ...]:
    counts: Counter[str] = Counter()
    places: dict[str, dict[str, None]] = {}
    for position, text in texts:
        whole = spans.get(text.text, ())
        inner = [one for part in text.scanned[1:] for one in spans.get(part, ())]
        told = Counter(one.type for one in whole) | Counter(one.type for one in inner)  # the same, as written and as meant
        for kind, count in told.items():
            counts[kind] += count
            places.setdefault(kind, {})[shown(position.path, key=position.key)] = None
    return tuple(Finding("detect_secrets", kind, count, tuple(places[kind])[:PLACES]) for kind, count in sorted(counts.items()))


def _reason(refused: Sequence[Finding]) -> str:
    told = "; ".join(f"{one.type} at {', '.join(one.where[:_NAMED])}" for one in refused[:_NAMED])
    more = len(refused) - _NAMED
    return f"the request holds a secret: {told}" + (f"; and {more} other kinds" if more > 0 else "")
