"""Texts in, the secrets in them out: by form, and the gateway's own keys by what they are.

Law: a key of this gateway is found whatever else is left out: a credential in every form of :mod:`douane.keyforms`; a
principal's key, of which only the sha256 is kept, where it stands by itself (letters, digits, ``-`` and ``_``, 16 to 128 of
them), plain or within base64. A text that was seen before costs a keyed hash; no text is kept.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from douane.detect.find_secrets import decoded, find_in_member, find_secrets, together
from douane.detect.memory import Keys, Memory
from douane.detect.secret_rules import CONTEXTS, TOKENS
from douane.detect.values import Span
from douane.keyforms import Forms

__all__ = ["GATEWAY_KEY", "KINDS", "SecretScanner"]

GATEWAY_KEY = "GATEWAY_KEY"
KINDS = (*dict.fromkeys(rule.name for rule in (*TOKENS, *CONTEXTS)), GATEWAY_KEY)
"""What can be found, by name."""

_AT_ONCE = 256 * 1024
"""Characters of new texts (2 ms); what is longer is read in a thread."""
_SHORTEST, _LONGEST = 16, 128
_RUNS = bytes(1 if chr(code).isascii() and (chr(code).isalnum() or chr(code) in "-_") else 0 for code in range(256))
_RUN = b"\1" * _SHORTEST
_DIGEST = "sha256:"

type _Text = tuple[str, str]
"""A text, and the name of the member whose value it is, where that tells; else empty."""


class SecretScanner:
    """*forms*: of the configured credentials. *knows*: whether this is the sha256 of somebody's key here. *allow*: globs of
    values, or ``sha256:`` and the beginning of a value's digest, that are no secrets; a key of the gateway's always is one."""

    def __init__(self, forms: Forms, knows: Callable[[bytes], object], allow: Sequence[str] = (), *,
                 remembered: int = 50_000) -> None:
        self._forms, self._knows = forms, knows
        self._globs = tuple(one for one in allow if not one.startswith(_DIGEST))
        self._digests = tuple(one.removeprefix(_DIGEST).lower() for one in allow if one.startswith(_DIGEST))
        self._memory = Memory(remembered)

    async def scan(self, keys: Keys, texts: Sequence[_Text]) -> list[tuple[Span, ...]]:
        """What stands in each text: sorted, nowhere overlapping. *keys*: of the tenant's texts."""
        asked = [keys[text] + name.encode("utf-8", "surrogatepass") if name else keys[text] for text, name in texts]
        found = [self._memory.get(key) for key in asked]
        new = {key: text for key, text, known in zip(asked, texts, found, strict=True) if known is None}
        if not new:
            return [spans or () for spans in found]
        size = sum(len(text) for text, _ in new.values())
        made = self._find(new) if size <= _AT_ONCE else await asyncio.to_thread(self._find, new)
        for key, spans in made.items():
            self._memory.put(key, spans)
        return [made[key] if known is None else known for key, known in zip(asked, found, strict=True)]

    def _find(self, texts: dict[bytes, _Text]) -> dict[bytes, tuple[Span, ...]]:
        return {key: self.find(text, name) for key, (text, name) in texts.items()}

    def find(self, text: str, name: str = "") -> tuple[Span, ...]:
        """What stands in *text*, the value of a member called *name*."""
        spans = find_in_member(name, text) if name else find_secrets(text)
        if spans and (self._globs or self._digests):
            spans = tuple(one for one in spans if not self._allowed(text[one.start:one.end]))
        ours = self._ours(text)
        return together(spans, ours) if ours else spans

    def _allowed(self, value: str) -> bool:
        if any(fnmatchcase(value, glob) for glob in self._globs):
            return True
        digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest() if self._digests else ""
        return any(digest.startswith(one) for one in self._digests)

    def _ours(self, text: str) -> tuple[Span, ...]:
        raw = text.encode("latin-1", "replace")  # one byte a character; what is beyond is in no key
        spans = [Span(GATEWAY_KEY, start, end, 1.0) for start, end in self._forms.find(raw)]
        spans += [Span(GATEWAY_KEY, start, end, 1.0) for start, end in self._principals(raw)]
        spans += [Span(GATEWAY_KEY, start, end, 1.0) for start, end, meant in decoded(raw)
                  if any(self._principals(meant.encode("latin-1", "replace")))]
        return together((), spans)

    def _principals(self, raw: bytes) -> Iterator[tuple[int, int]]:
        runs = raw.translate(_RUNS)
        at = runs.find(_RUN)
        while at >= 0:
            end = runs.find(b"\0", at + _SHORTEST)
            if end < 0:
                end = len(runs)
            if end - at <= _LONGEST and self._knows(hashlib.sha256(raw[at:end]).digest()):
                yield at, end
            at = runs.find(_RUN, end)
