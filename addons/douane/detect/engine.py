"""Presidio, made fit for the line. Imported in worker processes only: it costs seconds and a hundred megabytes.

Law: nothing skipped, nothing fetched. A recognizer that runs out of time raises; tldextract reads the suffix list it
brought along. Context words are not looked at: presidio's enhancer costs the square of a text's length."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import phonenumbers
import regex  # type: ignore[import-untyped]
import tldextract.tldextract as suffixes

from douane.detect.disguise import undisguised
from douane.detect.names import find_names
from douane.detect.nobodys import is_network, is_nobodys_address, stands_for_nothing
from douane.detect.own import Own
from douane.detect.patterns import by_patterns, without_doubles
from douane.detect.phones import ENDS, Phones
from douane.detect.prefilter import Prefilter
from douane.detect.presidio import EntityRecognizer, NlpArtifacts, PatternRecognizer, RecognizerResult, predefined_recognizers
from douane.detect.shadow import shadow
from douane.detect.values import ENTITIES, Model, ScanFailedError, Span, Wanted

if TYPE_CHECKING:
    from douane.detect.ner import Reader

__all__ = ["Engine", "prepare"]

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
    ("PHONE_NUMBER", r"\d(?:\D{0,4}\d){6}", 0),
)}
"""What every finding of that type holds, for where the prefilter cannot tell. A text without it is not given to the
recognizer; one that has no line here gets every text."""
_SOUGHT = {"EMAIL_ADDRESS": "@", "URL": "://", "PHONE_NUMBER": ENDS}
"""What the prefilter looks for in place of a recognizer's own patterns."""
_WHOLE = frozenset({"URL", "IN_PAN"})
"""Whose patterns look far ahead."""
_MOST = {"EMAIL_ADDRESS": 320}
"""Characters without a blank that one may have, on either side of what was looked for: its pattern takes the square of them."""
_NO_TOKENS: Any = None
"""No recognizer here reads tokens of a language model."""
_AROUND = 80
"""Characters to both sides of what stood there in disguise that are looked at once more."""
_REACH = 48
"""Characters to both sides of what was looked for: an IBAN with blanks in it has 42. What has no blank in it may be longer."""


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


class _Address(predefined_recognizers.IpRecognizer):
    """Without the addresses that are nobody's: this host itself, nowhere, everybody, those kept for examples; and without
    networks (``10.0.0.0/8``)."""

    def invalidate_result(self, pattern_text: str) -> bool:
        return bool(super().invalidate_result(pattern_text)) or is_nobodys_address(pattern_text)

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None,
                regex_flags: int | None = None) -> list[RecognizerResult]:
        return [one for one in by_patterns(self, text) if not is_network(text, one.start, one.end)]


_MENDED: Mapping[str, type[_Email | _Pesel | _Address]] = {
    "EMAIL_ADDRESS": _Email, "PL_PESEL": _Pesel, "IP_ADDRESS": _Address}


class _NoSkip(logging.Handler):
    """Presidio writes a warning for a pattern that ran out of time and goes on without it. Here that is the end of the scan."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None and issubclass(record.exc_info[0], TimeoutError):
            raise ScanFailedError("a pattern ran out of time")


def prepare() -> None:
    """Once in a process, before the first :class:`Engine`. Presidio's log is cut off: its messages name what was found."""
    EntityRecognizer.remove_duplicates = staticmethod(without_doubles)  # type: ignore[method-assign]
    suffixes.TLD_EXTRACTOR = suffixes.TLDExtract(suffix_list_urls=(), cache_dir=None)
    getattr(phonenumbers, "enable_pattern_cache", bool)()  # where it has one: a third of the time
    log = logging.getLogger("presidio-analyzer")
    log.handlers, log.propagate = [_NoSkip()], False
    log.setLevel(logging.WARNING)
    suffixes.TLD_EXTRACTOR("warm@example.com")


def _with_patterns(recognizer: PatternRecognizer) -> Any:
    """*recognizer*, whose ``patterns`` presidio gives no type."""
    return recognizer


def _recognizer(name: str, wanted: Wanted) -> EntityRecognizer:
    threshold = wanted.threshold_of(name)
    if name == "PHONE_NUMBER":
        return Phones(wanted.phone_regions)
    stock = predefined_recognizers.UrlRecognizer
    if name == "URL":
        made: EntityRecognizer = stock(patterns=[pattern for pattern in stock.PATTERNS if "https?://" in pattern.regex])
    else:
        made = _MENDED.get(name, getattr(predefined_recognizers, ENTITIES[name]))(supported_language="en")
    if isinstance(made, PatternRecognizer) and type(made).validate_result is PatternRecognizer.validate_result:
        # no checksum will raise what is too weak
        _with_patterns(made).patterns = [one for one in _with_patterns(made).patterns if one.score >= threshold]
    return made


class _Detector(NamedTuple):
    name: str
    recognizer: EntityRecognizer
    whole: bool
    """It needs more than parts of a text."""

    def find(self, text: str) -> list[RecognizerResult]:
        if isinstance(self.recognizer, PatternRecognizer) and type(self.recognizer).analyze is PatternRecognizer.analyze:
            return by_patterns(self.recognizer, text)
        return self.recognizer.analyze(text, [self.name], _NO_TOKENS)

    def sought(self) -> list[tuple[str, bool]]:
        """For the prefilter: what all that it finds ends with, and whether its case counts."""
        if self.name in _SOUGHT:
            return [(_SOUGHT[self.name], True)]
        if not isinstance(self.recognizer, PatternRecognizer):
            raise TypeError(f"nothing is known of what {self.name} needs")
        cased = not self.recognizer.global_regex_flags & regex.IGNORECASE
        return [(pattern.regex, cased) for pattern in _with_patterns(self.recognizer).patterns]


def _reader(model: Model) -> "Reader":
    from douane.detect.ner import Reader  # with all of presidio, and spaCy

    return Reader.of(model)


class Engine:
    """Finds in one text what is wanted. Raises :class:`ScanFailedError` where a pattern runs out of time."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._detectors = [_Detector(name, made, name in _WHOLE) for name in wanted.entities if ENTITIES[name]
                           if not isinstance(made := _recognizer(name, wanted), PatternRecognizer)
                           or _with_patterns(made).patterns]
        self._thresholds = {name: wanted.threshold_of(name) for name in wanted.entities}
        self._own = [Own(one) for one in wanted.custom]
        sought = {at: one.sought() for at, one in enumerate(self._detectors)}
        for at, own in enumerate(self._own, len(self._detectors)):
            if own.sought and Prefilter.can(own.sought):
                sought[at] = [(pattern, True) for pattern in own.sought]
        self.sees_all = len(sought) == len(self._detectors) + len(self._own)
        """Whether the prefilter looks for all that patterns find, in ASCII text."""
        self.prefilter = Prefilter.compile(sought) if sought else None
        """None: there is no hyperscan, or nothing to look for by pattern."""
        self._looked_for = sought.keys() if self.prefilter is not None else frozenset[int]()
        self._names = PatternRecognizer("PERSON", deny_list=list(wanted.names)) \
            if wanted.names and "PERSON" in wanted.entities else None
        self._by_rule = wanted.by_rule and "PERSON" in wanted.entities
        self._reader = _reader(wanted.model) if wanted.model is not None else None

    def scan(self, text: str) -> list[Span]:
        """As it is written and as it is meant, in no order; they may overlap."""
        found = self.as_written(text)
        plain = undisguised(text)
        if plain is not None:
            dark = shadow(plain.text, [(at - _AROUND, at + _AROUND) for at in plain.changed])
            for one in self.as_written(dark.text):
                start, end = dark.back(one.start), dark.back(one.end - 1) + 1
                if end - start == one.end - one.start:  # within one part
                    found.append(Span(one.type, *plain.back(start, end), one.score))
        return found

    def as_written(self, text: str) -> list[Span]:
        """What presidio would find, but for what the module says."""
        ends = self.prefilter.ends(text) if self.prefilter is not None else None
        found = [*self._by_pattern(text, ends), *self._by_own(text, ends), *self._by_name(text)]
        if self._reader is not None:
            found += [one for one in self._reader.find(text) if one.score >= self._wanted.threshold_of(one.type)]
        return found

    def _by_own(self, text: str, ends: Mapping[int, list[int]] | None) -> Iterator[Span]:
        for at, own in enumerate(self._own, len(self._detectors)):
            if ends is None or at in ends or at not in self._looked_for or not text.isascii():
                yield from own.find(text, self._wanted.threshold_of(own.name))

    def _by_name(self, text: str) -> Iterator[Span]:
        if self._names is not None:
            for one in self._names.analyze(text, ["PERSON"]):
                yield Span("PERSON", one.start, one.end, one.score)
        if self._by_rule:
            least = self._wanted.threshold_of("PERSON")
            yield from (one for one in find_names(text) if one.score >= least)

    def _by_pattern(self, text: str, ends: Mapping[int, list[int]] | None) -> Iterator[Span]:
        for detector, spans in self._likely(text, ends):
            name, threshold = detector.name, self._thresholds[detector.name]
            dark = shadow(text, [(0, len(text))] if detector.whole else spans, _MOST.get(name))
            found = {(one.start, one.end, one.score) for one in detector.find(dark.text)
                     if one.score >= threshold}
            for at, end, score in found:
                start = dark.back(at)
                if not stands_for_nothing(name, text, start, start + end - at):
                    yield Span(name, start, start + end - at, score)

    def _likely(self, text: str, ends: Mapping[int, list[int]] | None
                ) -> Iterator[tuple[_Detector, Iterable[tuple[int, int]]]]:
        """Who may find something in *text*, and where. *ends*: what the prefilter says."""
        if ends is not None:
            for at, each in ends.items():
                if at < len(self._detectors):
                    yield self._detectors[at], [(end - _REACH, end + _REACH) for end in each]
            return
        for detector in self._detectors:
            need = _NEEDS.get(detector.name)
            spans = [(0, len(text))] if need is None else [
                (hit.start() - _REACH, hit.end() + _REACH) for hit in need.finditer(text)]
            if spans:
                yield detector, spans
