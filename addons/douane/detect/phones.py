"""Phone numbers: phonenumbers' matcher, as presidio runs it, on what can be one.

Law: what stock presidio finds for these regions is found, but for numbers of less than seven digits, ISO dates, fractions, DOIs
and IPv4 addresses. It is phonenumbers that says what may be read as a number, once for all regions, and whether it is one for a
region; it takes 60 µs for that, so it is only asked where the digits can be one (:mod:`douane.detect.phonerules`)."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import phonenumbers

from douane.detect.phonerules import Reading, Region, read, who_may_have
from douane.detect.presidio import NlpArtifacts, RecognizerResult, predefined_recognizers
from douane.detect.values import PHONE_REGIONS

__all__ = ["ENDS", "Phones", "Tries"]

ENDS = r"\d(?:[-xX/ .()\[\]~]{0,4}\d){6}"
"""What ASCII text that holds a number holds, for the prefilter."""
_PUNCTUATION = ("-xX\u2010-\u2015\u2212\u30fc\uff0d-\uff0f \u00a0\u00ad\u200b\u2060\u3000()\uff08\uff09\uff3b\uff3d"
                ".\\[\\]/~\u2053\u223c\uff5e")
_NUMBER = re.compile(rf"\d(?=[{_PUNCTUATION}\d]{{6}})(?:\d|[{_PUNCTUATION}]{{1,4}}+\d){{6,}}+")
"""Seven digits and more with what phonenumbers takes for punctuation between them."""
_IPV4 = r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|\d\d?)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|\d\d?)"
_NO_PHONE = re.compile(
    r"(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d|-\d)|0\.\d++(?![-x./~#]|\s\d)|"
    r"(?<![+.\d])[1-9]\.(?:\d{7,8}|\d{12,}|(?<=[=(\[-]\d\.)\d{9,11})(?!\d|[-x/~#(]|\.\d|\s\d)|"
    r"10\.\d{4,5}/\d[\d.]*+(?![-x/~#(]|\s\d)|"
    rf"{_IPV4}(?:/(?:{_IPV4}|\d\d?))?(?![.\d/])(?![-x(~#]|\s\d)|"
    r"\d++[a-df-wyz]|(?<=[a-z])\d++(?![-x(.\s/~#\]\u2010-\u2015\uff08])", re.IGNORECASE)
"""An ISO date, a fraction, a DOI or an IPv4 address with its mask, which phonenumbers takes for numbers in Germany; digits that
touch a letter: it takes none of those, but is slow to say so. ``2.3033456789`` may be the second of a list."""
_DIGIT = re.compile(r"\d")
_LEAD, _EXTENSION = 12, 24
"""Characters before and behind a run that may belong to a number in it."""
_SINCE_DIGIT = re.compile(r"\D*\Z")


class _Try(NamedTuple):
    """A candidate that phonenumbers would parse, and what has been said of it."""

    text: str
    at: int
    may: Mapping[str, str]
    """By region that may have it: what is dialled from abroad, which is the same to all; empty for a number of its own."""
    said: dict[str, bool]
    """Of what is dialled from abroad, whether it is a number."""

    @property
    def end(self) -> int:
        return self.at + len(self.text)


class _Step(NamedTuple):
    tries: list[_Try]
    end: int
    """Where the next begins if none of these is a number."""


class Tries(phonenumbers.PhoneNumberMatcher):
    """What phonenumbers would parse in one piece of text, in its order: the same for all *regions*."""

    def __init__(self, text: str, regions: Sequence[Region]) -> None:
        super().__init__(text, None)
        self._regions = regions
        self._steps: dict[int, _Step | None] = {}
        self._tries: dict[tuple[int, int], _Try] = {}
        self._may: dict[Reading, Mapping[str, str]] = {}
        self._asked: dict[str, phonenumbers.PhoneNumberMatcher] = {}

    def any(self) -> bool:
        """Whether a region may have one of them."""
        at = 0
        while (step := self._step(at)) is not None:
            if step.tries:
                return True
            at = step.end
        return False

    def numbers(self, region: str) -> Iterator[_Try]:
        """Those that are numbers for *region*, and nowhere overlap."""
        at = 0
        while (step := self._step(at)) is not None:
            found = next((one for one in step.tries if region in one.may and self._is_number(one, region)), None)
            if found is not None:
                yield found
            at = step.end if found is None else found.end

    def _step(self, at: int) -> _Step | None:
        if at not in self._steps:
            found: Any = self._find(at)  # which passes on what the next method gives
            self._steps[at] = found
        return self._steps[at]

    def _extract_match(self, candidate: str, offset: int) -> _Step:  # type: ignore[override]
        self._tries, self._max_tries = {}, sys.maxsize  # nothing is skipped
        super()._extract_match(candidate, offset)
        return _Step([one for one in self._tries.values() if one.may], offset + len(candidate))

    def _parse_and_verify(self, candidate: str, offset: int) -> None:
        key = offset, len(candidate)
        if key not in self._tries:
            reading = read(candidate)
            if reading not in self._may and reading is not None:
                self._may[reading] = who_may_have(reading, self._regions)
            self._tries[key] = _Try(candidate, offset, self._may[reading] if reading is not None else {}, {})

    def _is_number(self, one: _Try, region: str) -> bool:
        dialled = one.may[region]
        if not dialled:
            return self._ask(one, region)
        if dialled not in one.said:
            one.said[dialled] = self._ask(one, region)
        return one.said[dialled]

    def _ask(self, one: _Try, region: str) -> bool:
        if region not in self._asked:
            self._asked[region] = phonenumbers.PhoneNumberMatcher(self.text, region)
        return self._asked[region]._parse_and_verify(one.text, one.at) is not None


class Phones(predefined_recognizers.PhoneRecognizer):
    """A region that takes all of a candidate is the last asked."""

    def __init__(self, regions: tuple[str, ...] = PHONE_REGIONS) -> None:
        super().__init__(supported_regions=regions)
        self._each = [Region(name) for name in regions]

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None) -> list[RecognizerResult]:
        found: list[RecognizerResult] = []
        matches = list(_NUMBER.finditer(text))
        for match, after in zip_longest(matches, matches[1:]):
            begin = _begin(text, match.start(), match.end())
            if begin is None:
                continue
            start = _lead(text, begin)
            tries = Tries(text[start:min(match.end() + _EXTENSION, after.start() if after else len(text))], self._each)
            for region in self._each if tries.any() else ():
                results = [RecognizerResult("PHONE_NUMBER", one.at + start, one.end + start, self.SCORE)
                           for one in tries.numbers(region.name) if sum(map(str.isdecimal, one.text)) >= 7]
                found += results
                if any(one.start <= begin and one.end >= match.end() for one in results):
                    break
        return found


def _begin(text: str, start: int, end: int) -> int | None:
    """Where in a run of digits a number may begin, behind what is none; None: nowhere."""
    while (skipped := _NO_PHONE.match(text, start)) is not None:
        following = _DIGIT.search(text, skipped.end(), end)
        if following is None:
            return None
        start = following.start()
    return start if sum(map(str.isdecimal, text[start:end])) >= 7 else None


def _lead(text: str, begin: int) -> int:
    """Where what stands before a number may begin: behind the last digit, at most so far away."""
    found = _SINCE_DIGIT.search(text, max(0, begin - _LEAD), begin)
    return found.start() if found is not None else begin
