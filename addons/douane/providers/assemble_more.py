"""More streams put together, as :mod:`douane.providers.assemble` does: sound and pictures, assistants, legacy completions."""

from typing import Any

from douane.providers.merge import Rows, later, merge, plain

__all__ = ["AssembleCompletion", "AssembleResults", "AssembleRun", "AssembleSaid"]


class AssembleSaid:
    """Transcriptions, pictures, speech: the last event is the whole; before it a text stands as the sum of its pieces."""

    __slots__ = ("_begun", "_whole")

    def __init__(self) -> None:
        self._begun: dict[str, Any] = {}
        self._whole: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        name, _, step = kind.rpartition(".") if type(kind) is str else ("", "", "")
        if step in ("done", "completed"):
            self._whole |= {member: value for member, value in event.items() if member != "type"}
            return True
        if step == "delta" and name.endswith(".text") and type(event.get("delta")) is str:
            merge(self._begun, {"text": event["delta"]})
            return True
        return (step == "delta" and name.endswith(".audio")) or step == "partial_image"  # binary: in the log nothing of it

    def document(self) -> dict[str, Any]:
        return self._begun | self._whole


class AssembleRun:
    """A run of an assistant: the run as it was last, ``messages`` and ``steps`` beside it."""

    __slots__ = ("_objects", "_run")

    def __init__(self) -> None:
        self._run: dict[str, Any] = {}
        self._objects: dict[str, dict[str, Any]] = {}

    def take(self, event: dict[str, Any]) -> bool:
        kind, name, delta = event.get("object"), event.get("id"), event.get("delta")
        if kind == "thread.run":
            self._run = event
            return True
        if type(name) is not str:
            return False
        if kind in ("thread.message", "thread.run.step"):
            held = self._objects.get(name)
            if event.get("status") == "in_progress" and held is not None:
                return True
            self._objects[name] = event
            return True
        if kind in ("thread.message.delta", "thread.run.step.delta") and type(delta) is dict:
            held = self._objects.setdefault(name, {"id": name, "object": str(kind).removesuffix(".delta")})
            _put(held, delta)
            return True
        return False

    def document(self) -> dict[str, Any]:
        objects = [plain(one) for one in self._objects.values()]
        found = {"messages": [one for one in objects if one.get("object") == "thread.message"],
                 "steps": [one for one in objects if one.get("object") == "thread.run.step"]}
        return self._run | {name: those for name, those in found.items() if those}


def _put(held: dict[str, Any], delta: dict[str, Any]) -> None:
    """What a list or object was before the first piece is made one that pieces go into."""
    for name, value in list(held.items()):
        if type(value) is list and name in delta:
            held[name] = Rows(name, value)
    merge(held, delta)


class AssembleCompletion:
    """Texts that come alone, in ``completion`` (Anthropic) or ``value`` (Writer), into one document."""

    __slots__ = ("_top",)

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> bool:
        pieces = {name: event.pop(name) for name in ("completion", "value") if type(event.get(name)) is str}
        merge(self._top, pieces)
        self._top |= event
        return bool(pieces)

    def document(self) -> dict[str, Any]:
        return self._top


class AssembleResults:
    """watsonx: ``results`` whose texts are joined; of all else the last stands."""

    __slots__ = ("_results", "_top")

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._results = Rows("results")

    def take(self, event: dict[str, Any]) -> bool:
        results = event.pop("results", None)
        if type(results) is not list or not all(type(one) is dict for one in results):
            return False
        for at, one in enumerate(results):
            held = self._results.at(at)
            merge(held, {"generated_text": one.pop("generated_text", "")})
            later(held, {name: value for name, value in one.items() if value or name not in held})
        later(self._top, event)
        return True

    def document(self) -> dict[str, Any]:
        return self._top | {"results": self._results.plain()}
