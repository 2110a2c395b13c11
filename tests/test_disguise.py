"""Values in disguise: what is meant is found, and covered as it is written."""

import random
import time
from typing import Any

import pytest
from bench import goods
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.detect import Scanner, Wanted
from douane.detect.disguise import may_be_disguised, undisguised
from tests import house

MAIL, CARD, IBAN = "ann.lee@example.com", "4111 1111 1111 1111", "GB82WEST12345698765432"
WIDE = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})
DISGUISED = {
    "zero-width": "ann\u200b.lee@exa\u200bmple.com",
    "joiners": "ann.lee\u2060@\u200dexample.com",
    "byte order": "ann.lee\ufeff@example.com",
    "soft hyphens": "ann.l\u00adee@exam\u00adple.com",
    "card with joiners": "4111\u200b1111\u200b1111\u200b1111",
    "iban with joiners": "GB82\u200bWEST\u200b1234\u200b5698\u200b7654\u200b32",
    "wide": MAIL.translate(WIDE),
    "wide iban": IBAN.translate(WIDE),
    "mathematical": "𝐚𝐧𝐧@𝐞𝐱𝐚𝐦𝐩𝐥𝐞.𝐜𝐨𝐦",
    "cyrillic": "аnn.lее@ехаmрlе.соm",
    "greek iban": "GΒ82WΕST12345698765432",
    "cyrillic iban": "GВ82WЕSТ12345698765432",
    "all cyrillic": "осе@ехаmрlе.соm",
    "escapes": r"ann.lee\u0040example\u002ecom",
    "digits as escapes": r"\u0034111 1111 1111 111\u0031",
    "bytes": r"ann.lee\x40example.com",
    "entities": "ann.lee&#64;example&#46;com",
    "hex entities": "ann.lee&#x40;example.com",
    "named": "ann.lee&commat;example&period;com",
    "named in words": "annlee&commat;example&period;com",
    "escaped twice": "ann.lee&amp;#64;example.com",
    "percent": "ann.lee%40example.com",
    "hard blanks": "4111\u00a01111\u00a01111\u00a01111",
    "dashes": "4111\u20111111\u20111111\u20111111",
    "tags": "ann.lee@example\U000e0041.com",
    "emoji's": "4111\ufe0f1111\ufe0f11111111",
    "circled": "④①①①①①①①①①①①①①①①",
}


def scan(*texts: str, **more: Any) -> list[list[str]]:
    async def work() -> list[list[str]]:
        scanner = Scanner(Wanted(**more))
        await scanner.scan("w", ["warm@example.com"])  # the worker tells what the first pass looks for
        found = await scanner.scan("t", texts)
        return [[text[one.start:one.end] for one in each] for text, each in zip(texts, found, strict=True)]

    return house.run(work(), 40)


@pytest.mark.parametrize("name", DISGUISED)
def test_what_is_meant_is_found_and_covered(name: str) -> None:
    value = DISGUISED[name]
    assert scan(f"write, {value} he said") == [[value]]


def test_words_of_ones_own_are_found_in_disguise_too() -> None:
    assert scan("ask An\u200bn L\u00adee now", entities=("PERSON",), names=("Ann Lee",)) == [["An\u200bn L\u00adee"]]


@pytest.mark.parametrize("text", [
    "plain text, 100 % of it & more \\ here", "caf\u00e9 \u2019tis \u2014 na\u00efve \u201cquoted\u201d",
    "thanks \u2764\ufe0f \U0001f468\u200d\U0001f469",
    "Москва, столица России, и Волга", "Ελληνικά γράμματα", "&lt;b&gt; &eacute; \\n \\u2019 %zz",
    "日本語、テキスト！（全角）", "C:\\users\\new"])
def test_ordinary_texts_are_not_looked_at_twice(text: str) -> None:
    assert not may_be_disguised(text)
    assert undisguised(text) is None


@given(st.text(alphabet="ab1@.\u200b\u00ad\uff11\u0430\\u0040&#64;%4", max_size=60))
@settings(max_examples=300, deadline=None)
def test_every_place_leads_back_to_what_it_was(text: str) -> None:
    plain = undisguised(text)
    if plain is None:
        return
    assert len(plain.text) <= len(text)
    ends = [0]
    for at in range(len(plain.text)):
        start, end = plain.back(at, at + 1)
        assert ends[-1] <= start < end <= len(text)
        ends.append(end)
        if end - start == 1 and text[start].isascii():
            assert text[start] == plain.text[at]


def test_a_look_costs_next_to_nothing_and_grows_with_the_length() -> None:
    rng = random.Random(5)
    prose = goods.prose(rng, 20_000)
    for text, micros in ((prose, 500), (prose.replace("e", "\u00e9"), 500), (prose.replace("a", "\u0430"), 10_000)):
        best = min(_seconds(text) for _ in range(5))
        assert best * 1e6 < micros
    for hostile in ("\u0430", "\u200b", "&#", "%4", "\\u004", "\\", "&amp;", "\u2010", "1\u00a0"):
        small, large = (min(_seconds(hostile * (size // len(hostile))) for _ in range(3)) for size in (16_000, 64_000))
        assert large < 4 * small * 2.5 + 0.002, hostile


def _seconds(text: str) -> float:
    began = time.process_time()
    undisguised(text)
    return time.process_time() - began
