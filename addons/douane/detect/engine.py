"""Presidio, made fit for the line. Imported in worker processes only: it costs seconds and a hundred megabytes.

Law: nothing skipped, nothing fetched. A recognizer that runs out of time raises; tldextract reads the suffix list it
brought along. Context words are not looked at: presidio's enhancer costs the square of a text's length."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import regex  # type: ignore[import-untyped]
import tldextract.tldextract as suffixes
from presidio_analyzer import (
    AnalyzerEngine,
    ContextAwareEnhancer,
    EntityRecognizer,
    PatternRecognizer,
    RecognizerRegistry,
    RecognizerResult,
    predefined_recognizers,
)
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

from douane.detect.shadow import SEED, shadow
from douane.detect.values import ENTITIES, ScanFailedError, Span, Wanted

__all__ = ["REGIONS", "Engine", "prepare"]

_FOLD = regex.IGNORECASE
_NEEDS = {name: regex.compile(pattern, flags) for name, pattern, flags in (
    ("EMAIL_ADDRESS", r"@", 0),
    ("IBAN_CODE", r"[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{4}", 0),
    ("CREDIT_CARD", r"\d(?:[- ]?\d){11}", 0),
    ("CRYPTO", r"(?:bc1|[13])[a-z0-9]{25}", _FOLD),
    ("US_SSN", r"[0-9](?:[- .]?[0-9]){8}", 0),
    ("IT_FISCAL_CODE", r"[a-z]{6}[\dlmnp-v]{2}", _FOLD),
    ("FI_PERSONAL_IDENTITY_CODE", r"\d{6}[-+a-z]\d{3}", _FOLD),
    ("ES_NIE", r"[0-9]{7}-?[a-z]", _FOLD),
    ("ES_NIF", r"[0-9]{7}-?[a-z]", _FOLD),
    ("PL_PESEL", r"[0-9]{11}", 0),
    ("NG_NIN", r"\d{11}", 0),
    ("KR_RRN", r"\d{6}-?\d{7}", 0),
    ("TH_TNIN", r"\d{13}", 0),
    ("IN_AADHAAR", r"[0-9]{4}[- :]?[0-9]{4}[- :]?[0-9]{4}", 0),
    ("UK_NHS", r"[0-9]{3}[- ]?[0-9]{3}[- ]?[0-9]{4}", 0),
    ("IP_ADDRESS", r"[0-9]\.[0-9]|::|:[0-9a-f]{1,4}:", _FOLD),
    ("URL", r"://", 0),
)}
"""What every finding of that type holds. A text without it is not given to the recognizer; one that has no line here gets
every text."""

_PUNCTUATION = ("-x\u2010-\u2015\u2212\u30fc\uff0d-\uff0f \u00a0\u00ad\u200b\u2060\u3000()\uff08\uff09\uff3b\uff3d"
                ".\\[\\]/~\u2053\u223c\uff5e")
_NUMBER = regex.compile(rf"\d(?:[{_PUNCTUATION}]{{0,4}}+\d){{6,}}+")
"""Seven digits and more with what phonenumbers takes for punctuation between them."""
_NO_PHONE = regex.compile(
    r"(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d|-\d)|0\.\d++(?![-x./~#]|\s\d)|"
    r"\d++[a-df-wyz]|(?<=[a-z])\d++(?![-x(.\s/~#])", _FOLD)
"""An ISO date or a fraction, which phonenumbers takes for numbers in Germany; digits that touch a letter: it takes none of
those, but is slow to say so."""
_LEAD, _EXTENSION = regex.compile(r"(?r)\D{0,12}"), 24


REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "BR")
"""Whose numbers are read as they are written at home; with ``+`` and a country code any is. Presidio's own list (in which two
are misspelt), without Canada: its numbers are read by the rules of the US."""


class _NoLanguage(NlpEngine):
    """No model, no tokens: the patterns need none."""

    def load(self) -> None:
        """Nothing to load."""

    def is_loaded(self) -> bool:
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        return NlpArtifacts([], [], [], [], self, language)  # type: ignore[arg-type]  # nobody reads the tokens

    def process_batch(self, texts: Iterable[str], language: str, batch_size: int = 1, n_process: int = 1,
                      **kwargs: Any) -> Iterator[tuple[str, NlpArtifacts]]:
        return ((text, self.process_text(text, language)) for text in texts)

    def is_stopword(self, word: str, language: str) -> bool:
        return False

    def is_punct(self, word: str, language: str) -> bool:
        return False

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return ["en"]


class _NoContext(ContextAwareEnhancer):
    """The results as they are. Costs nothing, whatever the text."""

    def __init__(self) -> None:
        super().__init__(context_similarity_factor=0, min_score_with_context_similarity=0, context_prefix_count=0,
                         context_suffix_count=0)

    def enhance_using_context(self, text: str, raw_results: list[RecognizerResult], nlp_artifacts: NlpArtifacts,
                              recognizers: list[EntityRecognizer], context: list[str] | None = None) -> list[RecognizerResult]:
        return raw_results


class _Phones(predefined_recognizers.PhoneRecognizer):
    """The stock recognizer on what has seven digits. phonenumbers takes 50 µs for a candidate and region, so a region that
    takes all of it is the last asked."""

    def __init__(self) -> None:
        super().__init__(supported_regions=REGIONS)
        self._each = [predefined_recognizers.PhoneRecognizer(supported_regions=(name,)) for name in REGIONS]
        self._source = {RecognizerResult.RECOGNIZER_NAME_KEY: "PhoneRecognizer",
                        RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id}

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None) -> list[RecognizerResult]:
        found: list[RecognizerResult] = []
        matches = list(_NUMBER.finditer(text))
        for match, after in zip_longest(matches, matches[1:]):
            if _NO_PHONE.match(text, match.start()):
                continue
            start = _LEAD.match(text, 0, match.start()).start()
            piece = text[start:min(match.end() + _EXTENSION, after.start() if after else len(text))]
            for region in self._each:
                results = [one for one in region.analyze(piece, entities)
                           if sum(map(str.isdecimal, piece[one.start:one.end])) >= 7]
                for one in results:
                    one.start, one.end = one.start + start, one.end + start
                    one.recognition_metadata = dict(self._source)
                found += results
                if any(one.start <= match.start() and one.end >= match.end() for one in results):
                    break
        return EntityRecognizer.remove_duplicates(found)


class _Email(predefined_recognizers.EmailRecognizer):
    """The stock recognizer asks for the suffix of all that it took, as of a URL; where a path or a query stands before the
    address (``/login?mail=ann@example.com``), that has none, and the address would pass."""

    def validate_result(self, pattern_text: str) -> bool:
        return bool(suffixes.TLD_EXTRACTOR(pattern_text.rpartition("@")[2]).fqdn)


class _Pesel(predefined_recognizers.PlPeselRecognizer):
    """The stock recognizer takes the weighted sum's last digit for the check digit, which is what that one lacks to ten: of
    five true numbers it lets four pass."""

    def validate_result(self, pattern_text: str) -> bool:
        weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
        return sum(weight * int(digit) for weight, digit in zip(weights, pattern_text, strict=True)) % 10 == 0


_MENDED: Mapping[str, type[_Email | _Pesel]] = {"EMAIL_ADDRESS": _Email, "PL_PESEL": _Pesel}


class _NoSkip(logging.Handler):
    """Presidio writes a warning for a pattern that ran out of time and goes on without it. Here that is the end of the scan."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None and issubclass(record.exc_info[0], TimeoutError):
            raise ScanFailedError("a pattern ran out of time")


def prepare() -> None:
    """Once in a process, before the first :class:`Engine`. Presidio's log is cut off: its messages name what was found."""
    suffixes.TLD_EXTRACTOR = suffixes.TLDExtract(suffix_list_urls=(), cache_dir=None)
    log = logging.getLogger("presidio-analyzer")
    log.handlers, log.propagate = [_NoSkip()], False
    log.setLevel(logging.WARNING)
    suffixes.TLD_EXTRACTOR("warm@example.com")


def _recognizer(name: str) -> EntityRecognizer:
    if name == "PHONE_NUMBER":
        return _Phones()
    if name in _MENDED:
        return _MENDED[name](supported_language="en")
    if name == "URL":
        stock = predefined_recognizers.UrlRecognizer
        return stock(patterns=[pattern for pattern in stock.PATTERNS if "https?://" in pattern.regex])
    made: EntityRecognizer = getattr(predefined_recognizers, ENTITIES[name])(supported_language="en")
    return made


class Engine:
    """Finds in one text what is wanted. Raises :class:`ScanFailedError` where a pattern runs out of time."""

    def __init__(self, wanted: Wanted) -> None:
        self._threshold = wanted.threshold
        self._entities = [name for name in wanted.entities if ENTITIES[name]]
        registry = RecognizerRegistry(recognizers=[_recognizer(name) for name in self._entities], supported_languages=["en"])
        self._analyzer = AnalyzerEngine(registry, _NoLanguage(), supported_languages=["en"],
                                        context_aware_enhancer=_NoContext())
        self._names = PatternRecognizer("PERSON", deny_list=list(wanted.names)) \
            if wanted.names and "PERSON" in wanted.entities else None

    def scan(self, text: str) -> list[Span]:
        """In no order; they may overlap."""
        return [*self._by_pattern(text), *self._by_name(text)]

    def _by_name(self, text: str) -> Iterator[Span]:
        if self._names is not None:
            for one in self._names.analyze(text, ["PERSON"]):
                yield Span("PERSON", one.start, one.end, one.score)

    def _by_pattern(self, text: str) -> Iterator[Span]:
        if not self._entities or SEED.search(text) is None:
            return
        dark = shadow(text)
        likely = [name for name in self._entities if (need := _NEEDS.get(name)) is None or need.search(dark.text)]
        if likely:
            for one in self._analyzer.analyze(dark.text, "en", entities=likely, score_threshold=self._threshold):
                start = dark.back(one.start)
                yield Span(one.entity_type, start, start + one.end - one.start, one.score)
