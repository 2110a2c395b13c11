"""This gateway's own keys, wherever they stand.

Law: a credential is found in every form of :mod:`douane.keyforms`; a principal's key, of which only the sha256 is kept, where
it stands by itself (letters, digits, ``-`` and ``_``, 16 to 128 of them), plain or within base64."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from douane.detect.find_secrets import decoded
from douane.keyforms import CODED, Forms
from douane.secrets import Secret

__all__ = ["GATEWAY_KEY", "NO_KEYS", "OwnKeys"]

GATEWAY_KEY = "GATEWAY_KEY"

_SHORTEST, _LONGEST = 16, 128
_RUNS = bytes(1 if chr(code).isascii() and (chr(code).isalnum() or chr(code) in "-_") else 0 for code in range(256))
_RUN = b"\1" * _SHORTEST


class People(Protocol):
    def has_secrets(self) -> bool: ...
    def by_secret(self, digest: bytes) -> object:
        """Whose key has this sha256; None: nobody's."""
        ...


class OwnKeys:
    """*secrets*: credentials, and what else opens something of ours; one that is shorter than ``CODED`` might stand anywhere
    and is not looked for. *people*: whose keys they could be."""

    __slots__ = ("_people", "forms")

    def __init__(self, secrets: Iterable[Secret], people: People | None) -> None:
        self.forms = Forms(key for one in secrets if len(key := one.reveal()) >= CODED)
        self._people = people

    def find(self, raw: bytes) -> list[tuple[int, int]]:
        """Where one stands in *raw*: sorted, nowhere overlapping."""
        found = list(self.forms.find(raw))
        if self._people is None or not self._people.has_secrets():
            return found
        found += self._principals(raw, self._people)
        found += [(start, end) for start, end, meant in decoded(raw)
                  if any(self._principals(meant.encode("latin-1", "replace"), self._people))]
        if len(found) < 2:
            return found
        apart: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if apart and start < apart[-1][1]:
                apart[-1] = apart[-1][0], max(end, apart[-1][1])
            else:
                apart.append((start, end))
        return apart

    @staticmethod
    def _principals(raw: bytes, people: People) -> Iterator[tuple[int, int]]:
        runs = raw.translate(_RUNS)
        at = runs.find(_RUN)
        while at >= 0:
            end = runs.find(b"\0", at + _SHORTEST)
            if end < 0:
                end = len(runs)
            if end - at <= _LONGEST and people.by_secret(hashlib.sha256(raw[at:end]).digest()):
                yield at, end
            at = runs.find(_RUN, end)


NO_KEYS = OwnKeys((), None)
