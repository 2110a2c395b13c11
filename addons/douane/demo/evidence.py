"""What the demo saw, and what may be claimed on the strength of it.

Law: nothing is claimed that is not checked here against what the other side saw: the app tells what it sent, the local
provider what arrived, the log what was recorded, and only where they agree a claim holds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from douane.audit.verify import Report
from douane.demo.questions import FORBIDDEN, QUESTIONS
from douane.demo.wire import Seen

__all__ = ["Evidence", "Told", "claims", "key_of", "mask"]

_SHOWN = 10


def mask(key: str) -> str:
    """The beginning of a key: enough to tell it from another, too little to use it."""
    return f"{key[:_SHOWN]}…" if key else "none"


def key_of(seen: Seen) -> str:
    """The key that a request brought to the provider."""
    return seen.header("authorization").removeprefix("Bearer ") or seen.header("x-api-key")


@dataclass(frozen=True, slots=True)
class Told:
    """One call, as the app tells it."""

    sdk: str
    model: str
    question: str
    stream: bool
    url: str
    body: str
    key: str
    status: int
    pieces: tuple[str, ...]
    """The answer's text, as it came: one piece, or a stream's."""
    refused: str
    """The SDK's exception, where it raised one."""
    code: str
    id: str

    @property
    def answer(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Evidence:
    told: tuple[Told, ...]
    said: str
    """All that the app wrote, to standard output and error."""
    seen: tuple[Seen, ...]
    """What arrived at the provider."""
    records: tuple[Mapping[str, Any], ...]
    report: Report
    real_keys: Mapping[str, str]
    """Provider → the key that the gateway holds."""
    app_keys: tuple[str, ...]
    kept: bytes
    """Everything that the gateway wrote to its data folder and its log."""

    def arrived(self, told: Told) -> list[Seen]:
        """The requests at the provider that have this call's body, byte for byte."""
        return [one for one in self.seen if one.body == told.body.encode()]

    def recorded(self, told: Told) -> list[Mapping[str, Any]]:
        return [one for one in self.records if one.get("id") == told.id]


def claims(all_of_it: Evidence) -> Iterator[tuple[bool, str]]:
    """(whether it is so, what is claimed), one for each thing that the demo shows."""
    one = all_of_it
    passed = [told for told in one.told if not told.refused]
    refused = [told for told in one.told if told.refused]
    yield (tuple(told.question for told in one.told) == QUESTIONS and len(passed) == 4,
           "the app ran to its end with both SDKs, its code unchanged: 4 calls answered, 1 refused")
    yield (len(one.seen) == 4 and all(key_of(seen) == one.real_keys[_provider(seen)] for seen in one.seen),
           "every call arrived at its provider with the real key")
    yield (not any(key.encode() in seen.head + seen.body for seen in one.seen for key in one.app_keys),
           "no key that the app held reached a provider")
    yield (all(len(one.arrived(told)) == 1 for told in passed),
           "each body arrived once, byte for byte as the app sent it")
    yield (all(told.answer == f"You said: {told.question}" and (len(told.pieces) > 1) == told.stream
               for told in passed),
           "each answer came back whole, the streams in pieces")
    yield (len(refused) == 1 and not one.arrived(refused[0]) and _refused_once(one, refused[0]),
           f"{FORBIDDEN} never left: the SDK raised its own PermissionDeniedError, after one attempt")
    yield (all(_kinds(one, told) == ["intent", "outcome"] for told in passed)
           and all(_kinds(one, told) == ["outcome"] for told in refused),
           "the log has an intent and an outcome for each call that left, one outcome for the refused one")
    yield (not any(key in one.said for key in one.real_keys.values()), "the app never saw a real key")
    yield (not any(text.encode() in one.kept for text in (*one.real_keys.values(), *one.app_keys, *QUESTIONS)),
           "neither a key nor a question stands in anything that the gateway wrote")
    yield (one.report.ok and one.report.open == 0, f"the log verifies: {one.report.records} records, no call left open")


def _provider(seen: Seen) -> str:
    return "anthropic" if seen.path.startswith("/v1/messages") else "openai"


def _refused_once(one: Evidence, told: Told) -> bool:
    tries = [record for record in one.records if record.get("model") == told.model]
    return (len(tries) == 1 and told.status == 403 and told.code == "model_not_allowed"
            and told.refused.startswith("PermissionDeniedError"))


def _kinds(one: Evidence, told: Told) -> list[str]:
    return [str(record["kind"]) for record in one.recorded(told)]
