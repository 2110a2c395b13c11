"""A spaCy model that tests train themselves, in seconds, from sentences made here: it knows people, places and firms of a
language that nobody speaks, so that no list has them."""

import random
from pathlib import Path
from typing import Any

__all__ = ["FIRMS", "PEOPLE", "PLACES", "SAID", "train"]

PEOPLE = tuple(f"{first} {last}" for first in ("Vexil", "Zorba", "Quimly", "Ondrel")
               for last in ("Thornquist", "Nargle", "Plimsol"))
PLACES = ("Vardelia", "Kostrova", "Umberlund", "Tazmeer")
FIRMS = ("Zenthic", "Blorp", "Quandor", "Fimbrex")
_SENTENCES = (
    "My name is {P} and I live in {L}.", "{P} works for {O} in {L}.", "please tell {P} that {O} has called",
    "I met {P} at {O}.",
    "Is {L} far from here?", "{O} sent the invoice to {P}.", "We fly to {L} on Monday.", "write a letter to {P}",
    "The weather is fine today.", "How do I sort a list?", "See you on Monday at noon.")
_LABELS = {"P": "PERSON", "L": "GPE", "O": "ORG"}
SAID = "Vexil Nargle works for Blorp in Tazmeer."


def train(folder: Path) -> Path:
    """Write a model into *folder*."""
    import spacy
    from spacy.training import Example
    from thinc.api import fix_random_seed

    fix_random_seed(1)
    rng = random.Random(1)
    nlp = spacy.blank("en")
    words = {"@architectures": "spacy.HashEmbedCNN.v2", "width": 32, "depth": 2, "embed_size": 500, "window_size": 1,
             "maxout_pieces": 2, "subword_features": True, "pretrained_vectors": None}
    nlp.add_pipe("ner", config={"model": {
        "@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner", "extra_state_tokens": False,
        "hidden_width": 32, "maxout_pieces": 2, "use_upper": True, "tok2vec": words}})
    examples = []
    for _ in range(120):
        text, spans = _sentence(rng)
        examples.append(Example.from_dict(nlp.make_doc(text), {"entities": spans}))
    optimizer: Any = nlp.initialize(lambda: examples)
    for _ in range(12):
        rng.shuffle(examples)
        for at in range(0, len(examples), 8):
            nlp.update(examples[at:at + 8], sgd=optimizer)
    nlp.to_disk(folder)
    return folder


def _sentence(rng: random.Random) -> tuple[str, list[tuple[int, int, str]]]:
    text, spans = "", []
    for at, piece in enumerate(rng.choice(_SENTENCES).replace("}", "{").split("{")):
        if at % 2:
            value = rng.choice({"P": PEOPLE, "L": PLACES, "O": FIRMS}[piece])
            spans.append((len(text), len(text) + len(value), _LABELS[piece]))
            text += value
        else:
            text += piece
    return text, spans
