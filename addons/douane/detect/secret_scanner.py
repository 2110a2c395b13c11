"""Texts in, the secrets in them out: by form, and the gateway's own keys by what they are.

Law: a key of this gateway (``own_keys.py``) is found whatever else is left out. A text that was seen before costs a keyed hash;
no text is kept.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from douane.detect.find_secrets import find_in_member, find_secrets, together
from douane.detect.memory import Keys, Memory
from douane.detect.own_keys import GATEWAY_KEY, OwnKeys
from douane.detect.secret_rules import CONTEXTS, TOKENS
from douane.detect.values import Span

__all__ = ["KINDS", "SecretScanner"]

KINDS = (*dict.fromkeys(rule.name for rule in (*TOKENS, *CONTEXTS)), GATEWAY_KEY)
"""What can be found, by name."""

_AT_ONCE = 256 * 1024
"""Characters of new texts (2 ms); what is longer is read in a thread."""
_DIGEST = "sha256:"

type _Text = tuple[str, str]
"""A text, and the name of the member whose value it is, where that tells; else empty."""


class SecretScanner:
    """*allow*: globs of values, or ``sha256:`` and the beginning of a value's digest, that are no secrets; a key of the
    gateway's always is one."""

    def __init__(self, own: OwnKeys, allow: Sequence[str] = (), *, remembered: int = 50_000) -> None:
        self._own = own
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
        return tuple(Span(GATEWAY_KEY, start, end, 1.0) for start, end in self._own.find(raw))
