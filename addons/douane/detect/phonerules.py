"""What digits can be a phone number of one region, told without asking phonenumbers, which takes 60 µs for each.

Law: what phonenumbers would take is not refused here. Of digits it may take an international prefix, a country code or a
national prefix from the beginning, and what is left fits a pattern of the region's numbers, or it takes none of them: so it is
here, with its own patterns. A number with ``+`` and a country code, or behind an international prefix, is the same to all
regions."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata, phonenumberutil, region_codes_for_country_code

__all__ = ["Reading", "Region", "read", "who_may_have"]

_PLAIN = re.compile(r"[\d ()/.\[\]\u2010-\u2015\u2212\u30fc\uff0d-\uff0f\u00a0\u00ad\u200b\u2060\u3000\uff08\uff09\uff3b\uff3d"
                    r"-]+")
"""A candidate that is digits and nothing else: no ``+``, no extension, no carrier's code."""
_NO_DIGITS = {code: None for code in range(128) if not chr(code).isdigit()}
_CHARACTERS, _FEWEST, _MOST = 250, 2, 32
"""Characters that phonenumbers reads at most; digits of a number: 17, and what may stand before them."""
_CODE = 3
"""Digits of the longest country code."""
_KINDS = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
          "voicemail")


class Reading(NamedTuple):
    """What phonenumbers reads of a candidate before it asks any region."""

    digits: str
    plus: bool
    plain: bool
    """There is nothing else in the candidate."""


def read(candidate: str) -> Reading | None:
    """None: it is no number anywhere."""
    if len(candidate) > _CHARACTERS:
        return None
    plain, plus = _PLAIN.fullmatch(candidate) is not None, False
    if plain:
        digits = candidate.translate(_NO_DIGITS) if candidate.isascii() else phonenumberutil.normalize_digits_only(candidate)
    else:
        number = phonenumberutil._extract_possible_number(candidate)
        if not phonenumberutil._is_viable_phone_number(number):
            return None
        _, number = phonenumberutil._maybe_strip_extension(number)
        digits, plus = phonenumberutil._normalize(number), number[0] in "+\uff0b"
    return Reading(digits, plus, plain) if _FEWEST <= len(digits) <= _MOST else None


def _abroad(digits: str) -> bool:
    """Whether *digits* may be a country code and a number there."""
    return digits[:1] != "0" and any(
        int(digits[:size]) in COUNTRY_CODE_TO_REGION_CODE and len(digits) - size >= _FEWEST
        for size in range(1, min(_CODE, len(digits)) + 1))


def _rules(region: str) -> PhoneMetadata:
    rules = PhoneMetadata.metadata_for_region(region)
    if rules is None:
        raise LookupError(f"phonenumbers knows no region {region}")
    return rules


def _described(regions: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The patterns of all numbers of *regions*, and how long they may be."""
    for each in regions:
        rules = _rules(each)
        for kind in _KINDS:
            described = getattr(rules, kind)
            if described is not None and described.national_number_pattern:
                yield described.national_number_pattern, described.possible_length or tuple(range(_MOST))


def _written(rules: PhoneMetadata, *, bare: bool) -> re.Pattern[str]:
    """The forms in which numbers are written without their national prefix, or never are."""
    forms = [f"(?={one.leading_digits_pattern[-1]})(?:{one.pattern})" if one.leading_digits_pattern else f"(?:{one.pattern})"
             for one in rules.number_format if bare == (
                 not one.national_prefix_formatting_rule or bool(one.national_prefix_optional_when_formatting)
                 or phonenumberutil._formatting_rule_has_first_group_only(one.national_prefix_formatting_rule))]
    return re.compile("|".join(forms) or "(?!)", re.ASCII)


class Region:
    """Whether digits can be a number of one region: its own, or of one that shares its country code."""

    def __init__(self, name: str) -> None:
        self.name = name
        rules = _rules(name)
        every = list(region_codes_for_country_code(rules.country_code or 0))
        self._main = _rules(every[0])
        self._abroad = re.compile(rules.international_prefix or "(?!)")
        both = [rules] if self._main is rules else [rules, self._main]
        prefixes = "|".join(f"(?:{one.national_prefix_for_parsing})" for one in both if one.national_prefix_for_parsing)
        described = list(_described(every))
        number = "|".join(f"(?:{one})" for one in sorted({pattern for pattern, _ in described}))
        self._lengths = frozenset(length for _, lengths in described for length in lengths)
        self._begins = re.compile(f"(?:{prefixes or '(?!)'}|{rules.country_code})", re.ASCII)
        self._number = re.compile(f"(?:{number})", re.ASCII)
        led = f"(?:{prefixes})?"
        self._led = re.compile(f"{led}(?:{rules.country_code}{led})?{led}(?:{number})", re.ASCII)
        """With what there may be before it, in this order."""
        self._code = len(str(rules.country_code))
        self._instead = [(re.compile(one.national_prefix_for_parsing), one.national_prefix_transform_rule) for one in both
                         if one.national_prefix_for_parsing and one.national_prefix_transform_rule]
        """Where other digits are put in place of a prefix."""
        self._bare, self._not_bare = (_written(self._main, bare=bare) for bare in (True, False))

    def beyond(self, digits: str) -> str | None:
        """What stands behind the international prefix; None where there is none."""
        found = self._abroad.match(digits)
        return digits[found.end():] if found is not None and digits[found.end():found.end() + 1] != "0" else None

    def may_have(self, reading: Reading) -> bool:
        """Whether it can be a number of this country, without an international prefix."""
        digits = reading.digits
        if self._begins.match(digits) is not None or not reading.plain:
            return self._led.fullmatch(digits) is not None or any(map(self._led.fullmatch, self._others(digits)))
        return len(digits) in self._lengths and self._number.fullmatch(digits) is not None and self._stands_alone(digits)

    def _others(self, digits: str) -> Iterator[str]:
        for pattern, instead in self._instead:
            for each in (digits, digits[self._code:]):
                once = pattern.sub(instead, each, count=1)
                yield from (once, pattern.sub(instead, once, count=1))

    def _stands_alone(self, digits: str) -> bool:
        """Whether *digits*, a number as it stands, may stand so: many countries write a 0 before it."""
        return self._bare.fullmatch(digits) is not None or self._not_bare.fullmatch(digits) is None


def who_may_have(reading: Reading, regions: Iterable[Region]) -> dict[str, str]:
    """Those of *regions* that may have it as a number; and what of it is dialled from abroad, or nothing."""
    if reading.plus and _abroad(reading.digits):
        return {region.name: reading.digits for region in regions}
    may = {}
    for region in regions:
        beyond = region.beyond(reading.digits)
        if beyond is None:
            if region.may_have(reading):
                may[region.name] = ""
        elif _abroad(beyond):
            may[region.name] = beyond
    return may
