"""Phone numbers: phonenumbers' matcher, as presidio runs it, on what can be one.

Law: what stock presidio finds for these regions is found, but for numbers of less than seven digits, ISO dates, fractions and
IPv4 addresses. phonenumbers takes 50 µs to say that a candidate is none of a region's, so it is only asked where a cheap look
has not said so already: digits that fit no pattern of the region's numbers, whatever is taken from their beginning, are none of
them."""

import unicodedata
from collections.abc import Iterator
from itertools import zip_longest

import phonenumbers
import regex  # type: ignore[import-untyped]
from phonenumbers import PhoneMetadata
from presidio_analyzer import RecognizerResult, predefined_recognizers
from presidio_analyzer.nlp_engine import NlpArtifacts

from douane.detect.values import PHONE_REGIONS

__all__ = ["ENDS", "Phones"]

ENDS = r"\d(?:[-xX/ .()\[\]~]{0,4}\d){6}"
"""What ASCII text that holds a number holds, for the prefilter."""
_PUNCTUATION = ("-xX\u2010-\u2015\u2212\u30fc\uff0d-\uff0f \u00a0\u00ad\u200b\u2060\u3000()\uff08\uff09\uff3b\uff3d"
                ".\\[\\]/~\u2053\u223c\uff5e")
_NUMBER = regex.compile(rf"\d(?:[{_PUNCTUATION}]{{0,4}}+\d){{6,}}+")
"""Seven digits and more with what phonenumbers takes for punctuation between them."""
_NO_PHONE = regex.compile(
    r"(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d|-\d)|0\.\d++(?![-x./~#]|\s\d)|"
    r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|\d\d?)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|\d\d?)(?:/\d\d?)?(?![.\d/])(?![-x(~#]|\s\d)|"
    r"\d++[a-df-wyz]|(?<=[a-z])\d++(?![-x(.\s/~#\]\u2010-\u2015\uff08])", regex.IGNORECASE)
"""An ISO date, a fraction or an IPv4 address, which phonenumbers takes for numbers in Germany; digits that touch a letter: it
takes none of those, but is slow to say so."""
_DIGIT = regex.compile(r"\d")
_LEAD, _EXTENSION = regex.compile(r"(?r)\D{0,12}"), 24
_PLAIN = regex.compile(r"[0-9 ()/.\[\]~-]+")
"""A candidate that is a number of the region itself, and nothing else: no ``+``, no extension, no carrier's code."""
_NO_DIGITS = {code: None for code in range(128) if not chr(code).isdigit()}
_MOST_BEFORE = 12
"""Digits before a number that its region takes for a prefix: 0, a country code, a carrier's code."""
_KINDS = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
          "voicemail")


def _rules(region: str) -> PhoneMetadata:
    rules = PhoneMetadata.metadata_for_region(region)
    if rules is None:
        raise LookupError(f"phonenumbers knows no region {region}")
    return rules


def _patterns(region: str) -> Iterator[str]:
    """Of the numbers that are read by the rules of *region*: its own, and those of all who share its country code."""
    code = phonenumbers.country_code_for_region(region)
    for each in phonenumbers.region_codes_for_country_code(code):
        rules = _rules(each)
        for kind in _KINDS:
            described = getattr(rules, kind)
            if described is not None and described.national_number_pattern:
                yield described.national_number_pattern


class _Region:
    """Whether digits can be a number of one region."""

    def __init__(self, name: str) -> None:
        self.name = name
        union = "|".join(f"(?:{one})" for one in sorted(set(_patterns(name))))
        self._number = regex.compile(rf"(?:{union})", regex.ASCII)
        self._abroad = regex.compile(_rules(name).international_prefix)

    def may_have(self, candidate: str) -> bool:
        if not candidate.isascii():  # phonenumbers reads any digit as that digit
            candidate = "".join(str(unicodedata.decimal(sign, sign)) for sign in candidate)
        if _PLAIN.fullmatch(candidate) is None:
            return True
        digits = candidate.translate(_NO_DIGITS)
        return self._abroad.match(digits) is not None or any(
            self._number.fullmatch(digits, at) for at in range(min(_MOST_BEFORE, len(digits) - 1) + 1))


class _Matcher(phonenumbers.PhoneNumberMatcher):
    def __init__(self, text: str, region: _Region) -> None:
        super().__init__(text, region.name, leniency=phonenumbers.Leniency.VALID)
        self._region = region

    def _parse_and_verify(self, candidate: str, offset: int) -> phonenumbers.PhoneNumberMatch | None:
        return super()._parse_and_verify(candidate, offset) if self._region.may_have(candidate) else None


class Phones(predefined_recognizers.PhoneRecognizer):
    """A region that takes all of a candidate is the last asked."""

    def __init__(self, regions: tuple[str, ...] = PHONE_REGIONS) -> None:
        super().__init__(supported_regions=regions)
        self._each = [_Region(name) for name in regions]

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None) -> list[RecognizerResult]:
        found: list[RecognizerResult] = []
        matches = list(_NUMBER.finditer(text))
        for match, after in zip_longest(matches, matches[1:]):
            begin = _begin(text, match.start(), match.end())
            if begin is None:
                continue
            start = _LEAD.match(text, 0, begin).start()
            piece = text[start:min(match.end() + _EXTENSION, after.start() if after else len(text))]
            for region in self._each:
                results = [RecognizerResult("PHONE_NUMBER", one.start + start, one.end + start, self.SCORE)
                           for one in _Matcher(piece, region) if sum(map(str.isdecimal, one.raw_string)) >= 7]
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
