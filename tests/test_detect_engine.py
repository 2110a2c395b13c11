"""Presidio as we run it against presidio as it comes: the same spans, no network, no skipped pattern."""

import random
import re
import socket
import warnings
from collections.abc import Iterable
from functools import cache

import pytest
from bench import goods

from douane.detect.shadow import SEED, shadow
from douane.detect.spans import cut, join, resolve
from douane.detect.values import DEFAULT_ENTITIES, ENTITIES, ScanFailedError, Span, Wanted
from douane.detect.worker import _forbid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of presidio's and spaCy's own imports
    import presidio_analyzer.pattern_recognizer
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers

    from douane.detect.engine import _MENDED, REGIONS, Engine, _NoLanguage, prepare

NO_PHONE = re.compile(r"(?:19|20)\d\d-[01]\d-[0-3]\d.*|\(?0\.\d+.*", re.DOTALL)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    prepare()


@cache
def engine(wanted: Wanted) -> Engine:
    return Engine(wanted)


@cache
def stock(entities: tuple[str, ...]) -> AnalyzerEngine:
    made = []
    for name in filter(ENTITIES.get, entities):
        kind = getattr(predefined_recognizers, ENTITIES[name])
        if name == "PHONE_NUMBER":
            made.append(kind(supported_regions=(*REGIONS, "CA")))
        elif name in _MENDED:
            made.append(_MENDED[name](supported_language="en"))
        elif name == "URL":
            made.append(kind(patterns=[one for one in kind.PATTERNS if "https?://" in one.regex]))
        else:
            made.append(kind(supported_language="en"))
    return AnalyzerEngine(RecognizerRegistry(made, supported_languages=["en"]), _NoLanguage(), supported_languages=["en"])


def by_stock(text: str, entities: tuple[str, ...], threshold: float) -> list[Span]:
    return [Span(one.entity_type, one.start, one.end, one.score)
            for one in stock(entities).analyze(text, "en", score_threshold=threshold)]


def kept(text: str, spans: Iterable[Span]) -> tuple[Span, ...]:
    """Less what we leave out on purpose: phone numbers of less than seven digits, dates and fractions taken for one."""
    return resolve(one for one in spans if one.type != "PHONE_NUMBER" or (
        sum(map(str.isdecimal, text[one.start:one.end])) >= 7 and not NO_PHONE.fullmatch(text[one.start:one.end])))


@pytest.mark.parametrize(("entities", "threshold"), [(DEFAULT_ENTITIES, 0.4), (tuple(ENTITIES), 0.0)])
def test_the_same_spans_as_stock_presidio(entities: tuple[str, ...], threshold: float) -> None:
    rng = random.Random(20)
    found: set[str] = set()
    for _ in range(150):
        text = goods.text(rng, rng.choice((5, 30, 120)), found=rng.choice((0.02, 0.1, 0.4)), noise=0.15)
        ours = kept(text, engine(Wanted(entities, threshold)).scan(text))
        assert ours == kept(text, by_stock(text, entities, threshold))
        found |= {one.type for one in ours}
    assert found >= {"EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "CRYPTO", "ES_NIF",
                     "IT_FISCAL_CODE", "PL_PESEL", "UK_NHS", "FI_PERSONAL_IDENTITY_CODE"}


@pytest.mark.parametrize("text", ["GET /login?mail=ann@example.com", "users/ann@example.com", "a#ann@example.com",
                                  "k=/ann@example.com", "~/ann@example.co.uk!", "https://x.de/?m=ann@example.com"])
def test_an_address_behind_a_path_is_one(text: str) -> None:
    """Stock presidio lets these pass."""
    assert [one.type for one in engine(Wanted(("EMAIL_ADDRESS",))).scan(text)] == ["EMAIL_ADDRESS"]


@pytest.mark.parametrize(("number", "found"), [("44051401359", True), ("02070803628", True), ("44051401351", False)])
def test_a_pesel_is_told_by_its_check_digit(number: str, found: bool) -> None:
    """Stock presidio compares it with the wrong number."""
    assert [one.type for one in engine(Wanted(("PL_PESEL",))).scan(f"nr {number}.")] == ["PL_PESEL"] * found


def test_a_long_text_gives_in_chunks_what_it_gives_whole() -> None:
    text = goods.dense(random.Random(3), 70_000)
    chunks = cut(len(text))
    assert len(chunks) == 3
    ours = engine(Wanted())
    pieces = join(chunks, [ours.scan(text[start:end]) for start, end in chunks])
    assert pieces == resolve(ours.scan(text))
    assert len(pieces) > 1000


def test_a_pattern_that_runs_out_of_time_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presidio_analyzer.pattern_recognizer, "REGEX_TIMEOUT_SECONDS", 0.05)
    with pytest.raises(ScanFailedError, match="out of time"):
        engine(Wanted()).scan("a." * 10_000 + "@")


def test_a_suffix_is_known_without_network() -> None:
    assert [one.score for one in engine(Wanted()).scan("mail a@example.co.uk and b@example.notasuffix")] == [1.0]
    with pytest.raises(PermissionError, match=r"socket\.connect"):
        _forbid("socket.connect", ())


def test_a_shadow_leads_back() -> None:
    rng = random.Random(4)
    for _ in range(200):
        text = goods.text(rng, 200, found=0.02, noise=0.02)
        dark = shadow(text)
        assert len(dark.text) <= len(text)
        for hit in SEED.finditer(dark.text):
            at = dark.back(hit.start())
            assert text[at:at + len(hit.group())] == hit.group()
        assert len(SEED.findall(dark.text)) == len(SEED.findall(text))
