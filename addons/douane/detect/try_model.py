"""``python -m douane.detect.try_model JSON``: load a language model, have it read a sentence, say what it finds.

Law: as in a worker, no connection can be opened before the model is touched."""

import json
import resource
import sys
import time
from typing import Any

from douane.detect.ner import SENTENCE, load
from douane.detect.values import BY_MODEL, Model
from douane.detect.worker import stay_home

__all__ = ["main"]

_FAILURES = (ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
             ValueError, SystemExit)
"""What reading a model's files may raise."""


def _finds(model: Model) -> list[str]:
    """Which of ``BY_MODEL`` *model* has labels for; all, where that cannot be seen. Raises ValueError."""
    engine = load(model)
    if model.transformers:
        engine.process_text(SENTENCE, "en")
        return list(BY_MODEL)
    nlp = engine.get_nlp("en")
    if not nlp(SENTENCE).has_annotation("ENT_IOB"):
        raise ValueError(f"it finds no entities: its pipeline ({', '.join(nlp.pipe_names) or 'empty'}) has no `ner`")
    labels = [label for pipe in nlp.pipe_labels.values() for label in pipe]
    meant = engine.ner_model_configuration.model_to_presidio_entity_mapping or {}
    named = {meant.get(label, label) for label in labels}
    return [one for one in BY_MODEL if one in named] if nlp.pipe_labels.get("ner") else list(BY_MODEL)


def main() -> int:
    """Prints ``{"finds": [...], "seconds": S, "mb": M}``, or ``{"broken": WHY}``."""
    stay_home()
    given = json.loads(sys.argv[1])
    began = time.monotonic()
    try:
        said: dict[str, Any] = {"finds": _finds(Model(**{**given, "entities": BY_MODEL})), "seconds": time.monotonic() - began,
                                "mb": _megabytes()}
    except _FAILURES as error:
        said = {"broken": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    print(json.dumps(said))
    return 0


def _megabytes() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // (1_000_000 if sys.platform == "darwin" else 1000)


if __name__ == "__main__":
    sys.exit(main())
