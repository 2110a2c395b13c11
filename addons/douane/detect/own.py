"""The operator's own recognizers at work. Imported in worker processes only.

Law: each pattern has a time for each text, and one that runs out of it is a failed scan, not a skipped pattern."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import regex  # type: ignore[import-untyped]

from douane.detect.custom import Custom, Validator, plain_for_prefilter, words_pattern
from douane.detect.values import ScanFailedError, Span

__all__ = ["Own"]

_SECONDS = 0.2
"""For one pattern on one text, of at most 32 KB."""
_RAISED, _LEAST = 0.35, 0.4
"""What a word of the context adds to a score, and what that then is at least: presidio's own figures."""
_BEFORE, _AFTER = 60, 30
"""Characters in which such a word is looked for."""


def _digits(text: str) -> list[int]:
    return [int(char) for char in text if char.isdecimal()]


def _luhn(text: str) -> bool:
    digits = _digits(text)[::-1]
    return len(digits) > 1 and sum(sum(divmod(one * (1 + at % 2), 10)) for at, one in enumerate(digits)) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 7064 mod 97-10, with the first four characters last."""
    signs = [char for char in text.upper() if char.isascii() and char.isalnum()]
    return len(signs) > 4 and int("".join(str(int(char, 36)) for char in signs[4:] + signs[:4])) % 97 == 1


_TURNED = ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 0, 6, 7, 8, 9, 5), (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
           (3, 4, 0, 1, 2, 8, 9, 5, 6, 7), (4, 0, 1, 2, 3, 9, 5, 6, 7, 8), (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
           (6, 5, 9, 8, 7, 1, 0, 4, 3, 2), (7, 6, 5, 9, 8, 2, 1, 0, 4, 3), (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
           (9, 8, 7, 6, 5, 4, 3, 2, 1, 0))
_SHIFTED = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _verhoeff(text: str) -> bool:
    digits, check = _digits(text)[::-1], 0
    for at, digit in enumerate(digits):
        shifted = digit
        for _ in range(at % 8):
            shifted = _SHIFTED[shifted]
        check = _TURNED[check][shifted]
    return len(digits) > 1 and check == 0


_VALIDATORS: Mapping[Validator, Callable[[str], bool]] = MappingProxyType({"luhn": _luhn, "iban": _iban, "verhoeff": _verhoeff})


class Own:
    """One of them, compiled."""

    def __init__(self, custom: Custom) -> None:
        self.name = custom.name
        self._score = custom.score
        self._validator = _VALIDATORS.get(custom.validator)
        self._patterns = []
        if custom.regex:
            self._patterns.append(regex.compile(custom.regex))
        if custom.words:
            self._patterns.append(regex.compile(r"(?<!\w)\L<words>(?!\w)", regex.IGNORECASE, words=list(custom.words)))
        self._context = None
        if custom.context:
            self._context = regex.compile(r"(?<!\w)\L<words>", regex.IGNORECASE, words=list(custom.context))
        seen = [custom.regex] * bool(custom.regex) + [words_pattern(custom.words)] * bool(custom.words)
        self.sought = tuple(seen) if all(map(plain_for_prefilter, seen)) else ()
        """What the prefilter may look for in ASCII text; empty: it cannot."""

    def find(self, text: str, threshold: float) -> Iterator[Span]:
        """Raises :class:`ScanFailedError` where a pattern runs out of time."""
        for pattern in self._patterns:
            try:
                for match in pattern.finditer(text, timeout=_SECONDS):
                    start, end = match.span()
                    score = self._scored(text, start, end) if end > start else 0.0
                    if score and score >= threshold:
                        yield Span(self.name, start, end, score)
            except TimeoutError:
                raise ScanFailedError("a pattern ran out of time") from None

    def _scored(self, text: str, start: int, end: int) -> float:
        if self._validator is not None:
            return 1.0 if self._validator(text[start:end]) else 0.0
        if self._context is not None and (self._context.search(text, max(0, start - _BEFORE), start)
                                          or self._context.search(text, end, end + _AFTER)):
            return min(1.0, max(self._score + _RAISED, _LEAST))
        return self._score
