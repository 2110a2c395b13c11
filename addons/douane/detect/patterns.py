"""Presidio's look for patterns, without what it writes down of each finding and nobody reads: a tenth of the time.

Law: the same patterns, checks and scores as presidio's ``PatternRecognizer``, and the same that stay of those that overlap. A
pattern that runs out of time raises."""

from bisect import bisect_right
from typing import Any

import regex  # type: ignore[import-untyped]

from douane.detect.presidio import EntityRecognizer, PatternRecognizer, RecognizerResult, pattern_recognizer
from douane.detect.values import ScanFailedError

__all__ = ["by_patterns", "without_doubles"]

_SHORT = 1000
"""Characters that no pattern takes long over: a clock for each match would take longer. (The worker has an alarm besides.)"""


def by_patterns(recognizer: PatternRecognizer, text: str) -> list[RecognizerResult]:
    """What *recognizer* finds. Raises :class:`ScanFailedError`."""
    flags, kind = recognizer.global_regex_flags, recognizer.supported_entities[0]
    limit = pattern_recognizer.REGEX_TIMEOUT_SECONDS if len(text) > _SHORT else None
    found = []
    patterns: Any = recognizer.patterns  # type: ignore[has-type]
    for pattern in patterns:
        if not pattern.compiled_regex or pattern.compiled_with_flags != flags:
            pattern.compiled_regex, pattern.compiled_with_flags = regex.compile(pattern.regex, flags), flags
        try:
            for match in pattern.compiled_regex.finditer(text, timeout=limit, concurrent=False):
                start, end = match.span()
                score = _score(recognizer, match[0], pattern.score) if end > start else EntityRecognizer.MIN_SCORE
                if score > EntityRecognizer.MIN_SCORE:
                    found.append(RecognizerResult(kind, start, end, score))
        except TimeoutError:
            raise ScanFailedError("a pattern ran out of time") from None
    return without_doubles(found)


def _score(recognizer: PatternRecognizer, text: str, score: float) -> float:
    valid = recognizer.validate_result(text)
    if valid is not None:
        score = EntityRecognizer.MAX_SCORE if valid else EntityRecognizer.MIN_SCORE
    return EntityRecognizer.MIN_SCORE if recognizer.invalidate_result(text) else score


def without_doubles(results: list[RecognizerResult]) -> list[RecognizerResult]:
    """What presidio's own gives, which compares each result with each: those within none of their type that is surer (or as
    sure, and longer)."""
    kept: list[RecognizerResult] = []
    if len(results) < 2:
        return [one for one in results if one.score]
    surer: dict[str, dict[float, tuple[list[int], list[int]]]] = {}
    """By type and score: starts, ascending, and how far what begins up to there reaches."""
    for one in sorted(set(results), key=lambda one: (-one.score, one.start, one.start - one.end)):
        above = surer.setdefault(one.entity_type, {})
        if not one.score or any((at := bisect_right(starts, one.start)) and reach[at - 1] >= one.end
                                for starts, reach in above.values()):
            continue
        kept.append(one)
        starts, reach = above.setdefault(one.score, ([], []))
        starts.append(one.start)
        reach.append(max(one.end, reach[-1] if reach else 0))
    return kept
