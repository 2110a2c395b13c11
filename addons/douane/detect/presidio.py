"""Presidio, imported without spaCy: what finds patterns needs nothing of it, and it takes a second of CPU and half of a
detector's memory.

Presidio names spaCy's classes in annotations and registers one function there; while it is imported, an empty module answers to
those names, and what else it would import where that is installed is as good as missing. Nor are the patterns of recognizers
that nobody asks for compiled. Who needs a language model (``ner.py``) calls :func:`forget` and imports all of it."""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["EntityRecognizer", "NlpArtifacts", "PatternRecognizer", "RecognizerResult", "forget", "pattern_recognizer",
           "predefined_recognizers"]

_SPACY, _PRESIDIO = "spacy", "presidio_analyzer"
_PATTERN, _RECOGNIZERS = "presidio_analyzer.pattern", "presidio_analyzer.predefined_recognizers"
_HEAVY = frozenset({"azure", "gliner", "langextract", "openai", "spacy_huggingface_pipelines", "stanza", "torch",
                    "transformers"})
"""What presidio imports where it is installed, for recognizers that are none of ours: torch alone takes seconds and 500 MB."""
_TRIES = "_Pattern__validate_regex"


class _Names(type):
    """Of a class that has every name, and that decorates with nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __call__(cls, *_: object) -> Any:
        return lambda made: made


class _Nothing(metaclass=_Names):
    pass


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _Finder:
    """Finds an empty module for spaCy and each of its parts, and nothing for what is heavy."""

    _pattern: Any = None
    _try: Any = None

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == _RECOGNIZERS:  # their hundred patterns are known to be some; to compile each once for that takes 0.3 s
            self._pattern = sys.modules[_PATTERN].Pattern
            self._try = self._pattern.__dict__[_TRIES]
            setattr(self._pattern, _TRIES, staticmethod(lambda _: None))
        package = name.partition(".")[0]
        if package in _HEAVY:
            raise ImportError(f"{package} is not looked at here", name=name)
        if package != _SPACY:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""

    def end(self) -> None:
        """Patterns that are made from now on are tried again."""
        if self._pattern is not None:
            setattr(self._pattern, _TRIES, self._try)


@contextmanager
def _without_spacy() -> Iterator[None]:
    """Where it is imported already, it stays."""
    if _SPACY in sys.modules:
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.end()
        sys.meta_path.remove(finder)
        _drop(_SPACY)


def _drop(package: str) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == package]:
        del sys.modules[name]


def forget() -> None:
    """Have the next import of presidio be of all of it, if this was not: its classes are other ones than those here."""
    if _HOLLOW:
        _drop(_PRESIDIO)


_HOLLOW = _SPACY not in sys.modules
"""Whether it is imported without spaCy, which may be imported later."""
with _without_spacy():
    from presidio_analyzer import (
        EntityRecognizer,
        PatternRecognizer,
        RecognizerResult,
        pattern_recognizer,
        predefined_recognizers,
    )
    from presidio_analyzer.nlp_engine import NlpArtifacts
