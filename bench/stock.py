"""presidio as it comes, but for what would make it another thing than ours: what it is measured and compared with."""

from collections.abc import Iterable, Iterator
from typing import Any

from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

__all__ = ["analyzer"]


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


def analyzer(recognizers: Iterable[EntityRecognizer]) -> AnalyzerEngine:
    """The stock engine over *recognizers*, without a language model."""
    return AnalyzerEngine(RecognizerRegistry(list(recognizers), supported_languages=["en"]), _NoLanguage(),
                          supported_languages=["en"])
