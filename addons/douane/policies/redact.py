"""``redact``: personal data leaves as placeholders and comes back in the answer.

Laws: every text position of the one walk is scanned, or the call is denied (a scan that fails raises, and what raises is a
denial). Only the strings in which something was found are other bytes upstream. Signed reasoning is not touched. Findings
name type, count and place, never the value.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jiter

from douane.call import Call, Finding
from douane.coding import coding_of, decode
from douane.detect import DEFAULT_ENTITIES, Scanner, Wanted
from douane.placeholders import DataKey, Minter
from douane.policy import BodyFilter, Setting, policy
from douane.providers.base import Position, Wire
from douane.providers.edit import Place, rewrite_bytes
from douane.redaction import Replace, read_text
from douane.rehydrate import Restorer, hosts_in
from douane.restore import RestoreFilter
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict

__all__ = ["Redact"]

_KNOWN = frozenset({
    "arguments", "content", "context", "description", "developer", "document", "documents", "function", "function_call",
    "functions", "input", "input_schema", "instructions", "json_schema", "mcp_servers", "messages", "metadata", "name",
    "output", "output_config", "output_format", "parameters", "prediction", "prompt", "refusal", "response_format", "schema",
    "source", "stop", "stop_sequences", "summary", "system", "text", "thinking", "title", "tool_calls", "tool_choice", "tools",
    "url", "user", "user_id", "variables",
})
"""Members that a finding's place may name; another key may be the user's own and is shown as ``*``."""
_PLACES = 20
"""Places that one finding names."""
_OF_THE_BYTES = frozenset({b"content-encoding", b"content-md5", b"digest", b"content-digest"})
_NO_LIMIT = 1 << 40
"""Bytes; the body was read within ``edge.max_body`` before."""


@policy("redact")
@dataclass(frozen=True, slots=True)
class Redact:
    """Replace personal data in requests; with ``restore``, put it back into the answers.

    ``action`` says by what: a placeholder, as many ``*`` as characters, or a salted sha256."""

    entities: tuple[str, ...] = DEFAULT_ENTITIES
    restore: bool = True
    action: Literal["placeholder", "mask", "hash"] = "placeholder"
    names: tuple[str, ...] = ()
    threshold: float = 0.4

    def bind(self, setting: Setting) -> "_Redact":
        wanted = Wanted(entities=self.entities, threshold=self.threshold, names=self.names)
        return _Redact(Scanner(wanted), setting.wires, setting.data_key, self.action,
                       self.restore and self.action == "placeholder")


@dataclass(frozen=True, slots=True)
class _Redact:
    scanner: Scanner
    wires: Mapping[tuple[str, str], Wire]
    key: DataKey
    action: Literal["placeholder", "mask", "hash"]
    restore: bool

    def warm(self) -> None:
        """Before the first call: start what takes long to start."""
        self.scanner.warm()

    async def admit(self, call: Call) -> Verdict:
        if call.document is None:
            return Deny("uninspectable", "the request's body cannot be searched for personal data") if call.body else ALLOW
        wire = self.wires[call.provider, call.operation]
        positions = list(wire.walk(call.document))
        texts = [read_text(one.text) for one in positions]
        spans = iter(await self.scanner.scan(call.principal.tenant, [text for one in texts for text in one.scanned]))
        minter = Minter(self.key, call.principal.tenant, call.originals)
        put = self._replacing(minter, call.principal.tenant)
        changes: dict[Place, str] = {}
        counts: Counter[str] = Counter()
        places: dict[str, dict[str, None]] = {}
        for position, text in zip(positions, texts, strict=True):
            written = text.write([next(spans) for _ in text.scanned], put)
            for kind in written.types:
                counts[kind] += 1
                places.setdefault(kind, {})[_place(position)] = None
            if written.text != text.text and not position.sealed:
                changes[position.path, position.key] = written.text
        if not counts:
            return ALLOW
        findings = tuple(Finding("redact", kind, count, tuple(places[kind])[:_PLACES])
                         for kind, count in sorted(counts.items()))
        if not changes:
            return Allow(findings)
        changed = _rewritten(call, wire, changes)
        return Rewrite(replace(changed, originals=minter.originals()) if self.restore else changed, findings)

    def _replacing(self, minter: Minter, tenant: str) -> Replace:
        if self.action == "placeholder":
            return minter.placeholder
        if self.action == "mask":
            return lambda _, value: "*" * len(value)
        salt = self.key.digest("salt", tenant)  # without one, anybody could try values until the hash fits
        return lambda _, value: hashlib.sha256(value.encode("utf-8", "surrogatepass") + salt).hexdigest()

    def filter(self, call: Call) -> BodyFilter | None:
        if not self.restore or not call.originals:
            return None
        wire, document = self.wires[call.provider, call.operation], call.document
        held = Restorer(call.originals, lambda: hosts_in([one.text for one in wire.walk(document)]))
        return RestoreFilter(held, json_text=_asks_for_json(document))


def _rewritten(call: Call, wire: Wire, changes: Mapping[Place, str]) -> Call:
    """The call with a new body. A compressed one goes on uncompressed: the provider reads it just the same."""
    body = rewrite_bytes(decode(call.body, coding_of(call.headers), _NO_LIMIT), changes)
    document = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    headers = tuple(header for header in call.headers if header[0] not in _OF_THE_BYTES)
    return replace(call, headers=headers, body=body, document=document, model=wire.model(document))


def _place(position: Position) -> str:
    """``$.messages[0].content``."""
    path = position.path[:-1] if position.key else position.path
    shown = ["$", *(f"[{one}]" if isinstance(one, int) else f".{one if one in _KNOWN else '*'}" for one in path)]
    return "".join([*shown, ".*~"] if position.key else shown)


def _asks_for_json(document: Any) -> bool:
    """Whether the answer's text shall be JSON: chat's ``response_format``, responses' ``text.format``, Anthropic's
    ``output_format`` and ``output_config.format``."""
    if not isinstance(document, dict):
        return False
    formats = [document.get("response_format"), document.get("output_format"),
               *(one.get("format") for one in (document.get("text"), document.get("output_config")) if isinstance(one, dict))]
    return any(isinstance(one, dict) and str(one.get("type", "")).startswith("json") for one in formats)
