"""Which language model a policy names, and whether it can be used: found and tried before anything runs on it.

Laws: a name in a policy file leads to files on this machine, never to a download, and never to a module that is no spaCy model
(a package counts if it says so in its ``spacy_models`` entry point). This process does not import spaCy: a model is tried in a
process of its own, once for the same files."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from douane.detect.pool import worker_environment
from douane.detect.values import BY_MODEL, Model
from douane.units import Spelled, parse_duration

__all__ = ["Ner", "Tried", "find_model", "install_line"]

_TRIES = 120.0
"""Seconds a model may take to load and to read a sentence."""
_FILES = 10_000

type _Entity = Literal["PERSON", "LOCATION", "ORGANIZATION", "NRP"]
type _NerRole = Literal["user", "system", "assistant", "tool_result", "tool_call", "schema", "metadata"]


@dataclass(frozen=True, slots=True)
class Ner:
    """A language model that finds names. *model*: an installed spaCy package, or a folder (a relative one starts at the policy
    folder). *timeout*: what it may take for the new texts of one call."""

    model: str
    entities: tuple[_Entity, ...] = ()
    roles: tuple[_NerRole, ...] = ("user",)
    timeout: Annotated[int, Spelled(parse_duration, "2s")] = 2
    transformers: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """What trying a model has shown."""

    finds: tuple[str, ...]
    seconds: float
    """To load it, with the libraries."""
    mb: int
    """Resident, with the libraries."""


_tried: dict[Model, Tried] = {}


def install_line(name: str = "en_core_web_lg") -> str:
    """What a shell is told to get a model, here."""
    return f"{sys.executable} -m spacy download {name}"


def find_model(asked: Ner, wanted: tuple[str, ...], folder: str) -> tuple[Model, Tried]:
    """The model that *asked* names, with those of *wanted* that it finds, or those that *asked* names. Raises ValueError."""
    where, stamp = _found(asked.model, folder)
    transformers = ""
    if asked.transformers:
        path = Path(folder) / asked.transformers
        if not (path / "config.json").is_file():
            raise ValueError(f"ner.transformers: {path} is no folder of a transformers model: it has no config.json")
        if find_spec("spacy_huggingface_pipelines") is None:
            raise ValueError("ner.transformers: its libraries are missing: "
                             f"{sys.executable} -m pip install spacy-huggingface-pipelines transformers")
        transformers, stamp = str(path.resolve()), f"{stamp} {_stamp(path)}"
    model = Model(where, (), float(asked.timeout), stamp, transformers)
    tried = _try(model, asked.model)
    if missing := [one for one in asked.entities if one not in tried.finds]:
        raise ValueError(f"ner.entities: {asked.model} does not find {', '.join(missing)}; it finds: {', '.join(tried.finds)}")
    entities: tuple[str, ...] = asked.entities or tuple(one for one in wanted if one in tried.finds)
    if not entities:
        finds = ", ".join(tried.finds) or f"none of {', '.join(BY_MODEL)}"
        raise ValueError(f"ner: {asked.model} finds {finds}, and nothing of that is asked for")
    return replace(model, entities=entities), tried


def _found(name: str, folder: str) -> tuple[str, str]:
    """Where a model is, and the stamp of its files."""
    path = Path(folder) / name
    if "/" in name or os.sep in name or name.startswith(".") or path.is_dir():
        if not path.is_dir():
            raise ValueError(f"ner: there is no folder {path}")
        if not (path / "config.cfg").is_file():
            raise ValueError(f"ner: {path} is no spaCy model: it has no config.cfg")
        return str(path.resolve()), _stamp(path)
    installed = {one.name: one for one in entry_points(group="spacy_models")}
    if name not in installed:
        beside = f" (installed: {', '.join(sorted(installed))})" if installed else ""
        raise ValueError(f"ner: no spaCy model `{name}` is installed{beside}; allowed: a folder, or a package: "
                         f"{install_line(name)}")
    distribution = installed[name].dist
    return name, distribution.version if distribution is not None else ""


def _stamp(folder: Path) -> str:
    """Of names, sizes and times of all files."""
    digest = hashlib.sha256()
    for count, path in enumerate(sorted(folder.rglob("*"))):
        if count == _FILES:
            raise ValueError(f"ner: {folder} holds more than {_FILES} files")
        if path.is_file():
            about = path.stat()
            digest.update(os.fsencode(f"{path.relative_to(folder)}\0{about.st_size}\0{about.st_mtime_ns}\0"))
    return digest.hexdigest()[:16]


def _try(model: Model, name: str) -> Tried:
    same = replace(model, seconds=0.0)
    if same in _tried:
        return _tried[same]
    try:
        done = subprocess.run(  # noqa: S603  # our own module, by our own interpreter
            [sys.executable, "-m", "douane.detect.try_model", json.dumps(asdict(same))], timeout=_TRIES, check=True,
            capture_output=True, env=worker_environment(), stdin=subprocess.DEVNULL)
        said = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise ValueError(f"ner: {name} was not loaded within {_TRIES:.0f} seconds") from None
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        raise ValueError(f"ner: {name}: the process that loads it died") from None
    if "broken" in said:
        raise ValueError(f"ner: {name} cannot be loaded: {said['broken']}")
    _tried[same] = Tried(tuple(said["finds"]), said["seconds"], said["mb"])
    return _tried[same]
