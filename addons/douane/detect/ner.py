"""A language model as presidio runs it: spaCy's, or a transformers model beside one. Imported in worker processes only.

Law: nothing is fetched. What is named is on this machine (``models.py`` has looked), presidio's own download is never reached,
and this process can open no connection. A model that was changed on disk takes the place of the one before."""

import sys
from dataclasses import dataclass
from typing import Any, Self

from douane.detect.values import Model, Span

if "douane.detect.presidio" in sys.modules:
    from douane.detect.presidio import forget

    forget()

from presidio_analyzer import predefined_recognizers
from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine, TransformersNlpEngine

__all__ = ["SENTENCE", "Reader", "load"]

SENTENCE = "Ann Lee flew from Berlin to meet the people of Acme Ltd, who are Dutch."

_OF_NAMES = frozenset({"tok2vec", "transformer", "curated_transformer", "ner", "hf_token_pipe"})
_OF_GRAMMAR = frozenset({"tagger", "morphologizer", "parser", "senter", "sentencizer", "attribute_ruler", "lemmatizer",
                         "trainable_lemmatizer", "textcat", "textcat_multilabel"})
"""Parts of a pipeline that names do not need, and that take most of the time. A part that is in neither may need them."""


@dataclass(slots=True)
class _Loaded:
    stamp: str
    engine: SpacyNlpEngine


_loaded: dict[tuple[str, str], _Loaded] = {}
"""By where its files are. One model there is at a time: it is large."""


class Reader:
    """Finds what *model* is asked for."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._recognizer = predefined_recognizers.SpacyRecognizer(supported_entities=list(model.entities))

    @classmethod
    def of(cls, model: Model) -> Self:
        """One that has read a sentence: what a model puts off until then is done. Raises what the libraries raise."""
        before = _loaded.get((model.name, model.transformers))
        if before is None or before.stamp != model.stamp:
            _loaded[model.name, model.transformers] = _Loaded(model.stamp, load(model))
        made = cls(model)
        made.find(SENTENCE)
        return made

    def find(self, text: str) -> list[Span]:
        engine = _loaded[self._model.name, self._model.transformers].engine
        artifacts = engine.process_text(text, "en")
        return [Span(one.entity_type, one.start, one.end, one.score)
                for one in self._recognizer.analyze(text, list(self._model.entities), artifacts)]


def load(model: Model) -> SpacyNlpEngine:
    """Raises what the libraries raise."""
    configuration = NerModelConfiguration(labels_to_ignore=[])
    if model.transformers:
        names: Any = [{"lang_code": "en", "model_name": {"spacy": model.name, "transformers": model.transformers}}]
        engine: SpacyNlpEngine = TransformersNlpEngine(names, configuration)
    else:
        engine = SpacyNlpEngine([{"lang_code": "en", "model_name": model.name}], configuration)
    engine.load()
    nlp = engine.get_nlp("en")
    nlp.max_length = sys.maxsize  # texts are cut before they come here
    if {meta.factory for meta in map(nlp.get_pipe_meta, nlp.pipe_names)} <= _OF_NAMES | _OF_GRAMMAR:
        nlp.select_pipes(disable=[name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory in _OF_GRAMMAR])
    return engine
