"""What the demo saw, and what may be claimed on the strength of it.

Law: nothing is claimed that is not checked here against what the other side saw: the app tells what it sent and got, the
local provider what arrived and what it answered, the ledger what was charged, the log what was recorded. Only where they
agree a claim holds.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from douane.audit.verify import Report
from douane.demo.questions import DEAR, FORBIDDEN, FORM, FORM_VALUES, LETTER, PAGES, PERSONAL
from douane.demo.wire import Seen
from douane.ledger.base import Balance, nano

__all__ = ["Arrival", "Command", "Evidence", "Tampered", "Told", "key_of", "left_as", "log_claims", "mask", "model_claims",
           "money_claims", "personal_claims", "wire_text"]

_SHOWN = 10
type Claims = Iterator[tuple[bool, str]]
"""(whether it is so, what is claimed)."""


def mask(key: str) -> str:
    """The beginning of a key: enough to tell it from another, too little to use it."""
    return f"{key[:_SHOWN]}…" if key else "none"


def key_of(seen: Seen) -> str:
    """The key that a request brought to the provider."""
    return seen.header("authorization").removeprefix("Bearer ") or seen.header("x-api-key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One call, as the app tells it."""

    sdk: str
    model: str
    question: str
    stream: bool
    url: str
    body: str
    """As the SDK sent it."""
    key: str
    status: int
    pieces: tuple[str, ...]
    """The answer as the SDK gave it, a text or the arguments of *tool*: one piece, or a stream's."""
    tool: str
    refused: str
    """The name of the SDK's exception, where it raised one."""
    error: Mapping[str, str]
    """What that says: ``code``, ``type``, ``message``."""
    code: str
    id: str
    """The audit record's."""
    request: str
    """The id the provider gave."""

    @property
    def answer(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request at the provider, and what that answered."""

    seen: Seen
    id: str
    answer: bytes


@dataclass(frozen=True, slots=True)
class Command:
    """A command of ours that was run, and what it said."""

    line: str
    code: int
    said: str


@dataclass(frozen=True, slots=True)
class Tampered:
    """A copy of the log with one byte changed, in line *line* (from 1)."""

    line: int
    before: str
    after: str
    """What stood there, and stands there now."""
    report: Report
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    rules: str
    """Of the policy file that the gateway was given: from the chain on."""
    told: tuple[Told, ...]
    said: str
    """All that the app wrote, to standard output and error."""
    arrivals: tuple[Arrival, ...]
    records: tuple[Mapping[str, Any], ...]
    balances: tuple[Balance, ...]
    report: Report
    real_keys: Mapping[str, str]
    """Provider → the key that the gateway holds."""
    app_keys: tuple[str, ...]
    kept: bytes
    """Everything that the gateway wrote to its data folder and its log."""
    budget: Command
    tail: Command
    shown: Command
    """``audit show`` of the first call."""
    verified: Command
    tampered: Tampered

    def asked(self, *questions: str) -> list[Told]:
        return [one for one in self.told if one.question in questions]

    def arrived(self, told: Told) -> Arrival | None:
        """What came to the provider of this call: the one whose id the app got with the answer."""
        found = [one for one in self.arrivals if told.request and one.id == told.request]
        return found[0] if len(found) == 1 else None

    def recorded(self, told: Told, kind: str) -> Mapping[str, Any]:
        """The call's intent or outcome; empty where there is none, or more than one."""
        found = [one for one in self.records if one.get("id") == told.id and one["kind"] == kind]
        return found[0] if len(found) == 1 else {}

    def bodies(self, told: Told) -> tuple[str, str]:
        """What the log holds of the call's request and of its answer; empty where it holds none."""
        request, response = self.recorded(told, "intent").get("request"), self.recorded(told, "outcome").get("response")
        return (request or {}).get("text", ""), (response or {}).get("text", "")


def left_as(told: Told, arrival: Arrival | None) -> dict[str, str] | None:
    """What the personal values of *told* became on the way, a value → a placeholder of its type; None where anything else
    of the body is not as it was sent, or a value is."""
    names: dict[str, str] = {}

    def expected(found: re.Match[str]) -> str:
        value = found[0]
        if value in names:
            return f"(?P={names[value]})"
        names[value] = f"v{len(names)}"
        return f"(?P<{names[value]}><{PERSONAL[value]}_[a-z2-7]{{8,}}>)"

    pattern = "|".join(map(re.escape, PERSONAL))
    parts = re.split(f"({pattern})", told.body)
    wanted = "".join(re.sub(pattern, expected, part) if part in PERSONAL else re.escape(part) for part in parts)
    found = re.fullmatch(wanted, arrival.seen.body.decode("utf-8", "replace")) if arrival else None
    return {value: found[name] for value, name in names.items()} if found else None


def wire_text(answer: bytes) -> tuple[str, str]:
    """What a provider's answer says, read from its bytes: (tool, its arguments), or ("", text). Of a stream, all deltas."""
    if not answer.startswith((b"data:", b"event:")):
        document = json.loads(answer)
        if "error" in document:
            return "", str(document["error"]["message"])
        choices = document.get("choices")
        return "", str(choices[0]["message"]["content"] if choices else document["content"][0]["text"])
    lines = [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: {")]
    parts = [_delta(json.loads(line)) for line in lines]
    return "".join(tool for tool, _ in parts), "".join(text for _, text in parts)


def _delta(event: Mapping[str, Any]) -> tuple[str, str]:
    choices = event.get("choices", [event])
    delta = choices[0].get("delta", {}) if choices else {}
    for call in delta.get("tool_calls") or ():
        return call["function"].get("name") or "", call["function"]["arguments"]
    return "", delta.get("content") or delta.get("text") or ""


# -- the claims ----------------------------------------------------------------------------------------------------


def personal_claims(one: Evidence) -> Claims:
    pairs = [(told, one.arrived(told)) for told in one.asked(FORM, LETTER)]
    left = [left_as(told, arrival) for told, arrival in pairs]
    met = [mapping for mapping in left if mapping is not None]
    yield (len(met) == 2 and {value for mapping in met for value in mapping} == set(PERSONAL)
           and not _stands(PERSONAL, *(arrival.seen.head + arrival.seen.body for arrival in one.arrivals)),
           "every value left as a placeholder, nothing else in the bodies changed, no provider saw one")
    yield (len(met) == 2 and bool(met[0].keys() & met[1].keys())
           and all(met[0][value] == met[1][value] for value in met[0].keys() & met[1].keys()),
           "the same address has the same placeholder at both providers")
    yield (len(met) == 2 and all(_came_back(*pair, mapping) for pair, mapping in zip(pairs, met, strict=True)),
           "the answers held placeholders; the SDKs got the values, streamed, in text and in tool arguments")
    yield (bool(one.arrivals) and all(key_of(at.seen) == one.real_keys[_provider(at.seen)] for at in one.arrivals)
           and not _stands(one.app_keys, *(at.seen.head + at.seen.body for at in one.arrivals)),
           "every call arrived with the real key, none with a key that the app held")
    yield (not any(key in one.said for key in one.real_keys.values()), "the app never saw a real key")


def _came_back(told: Told, arrival: Arrival | None, mapping: Mapping[str, str]) -> bool:
    """Whether the provider said placeholders only, and the app was told the values, in pieces."""
    if arrival is None or _stands(PERSONAL, arrival.answer):
        return False
    tool, text = wire_text(arrival.answer)
    for value, placeholder in mapping.items():
        if placeholder not in text:
            return False
        text = text.replace(placeholder, value)
    if (told.tool, told.answer) != (tool, text) or len(told.pieces) < 2:
        return False
    return json.loads(text) == FORM_VALUES if tool else text == f"You said: {told.question}"


def money_claims(one: Evidence) -> Claims:
    pages, dear = one.asked(*PAGES), one.asked(DEAR)
    paid = [told for told in pages if not told.refused]
    yield (len(paid) > 1 and all((at := one.arrived(told)) is not None and at.seen.body == told.body.encode()
                                 and told.answer == f"You said: {told.question}" for told in paid),
           "what holds no personal data arrives byte for byte")
    yield (len(pages) == len(paid) + 1 and _over(one, pages[-1], 429, "RateLimitError", "insufficient_quota")
           and len(dear) == 1 and _over(one, dear[0], 402, "PaymentRequiredError", "billing_error"),
           "when it was spent, nothing left: each SDK raised an error of its own, after one attempt")
    costs = [record["cost_usd"] for record in one.records if record["kind"] == "outcome"]
    spent = one.balances[0] if len(one.balances) == 1 else None
    yield (spent is not None and spent.reserved == 0 and None not in costs and sum(map(nano, costs)) == spent.captured
           and spent.limit is not None and spent.captured <= spent.limit,
           "the ledger charged what the records say, to the nano-dollar, and no more than the limit")


def _over(one: Evidence, told: Told, status: int, exception: str, kind: str) -> bool:
    return (told.status == status and told.refused == exception and kind in (told.error.get("type"), told.error.get("code"))
            and told.code == "budget_exceeded" and _never_left(one, told))


def model_claims(one: Evidence) -> Claims:
    asked = one.asked(FORBIDDEN)
    yield (len(asked) == 1 and asked[0].status == 403 and asked[0].refused == "PermissionDeniedError"
           and asked[0].code == "model_not_allowed" and _never_left(one, asked[0]),
           "it never left: the SDK raised its own PermissionDeniedError, after one attempt")


def _never_left(one: Evidence, told: Told) -> bool:
    """Whether the provider never saw it, and it was tried once."""
    tries = [record for record in one.records if record.get("model") == told.model and _denied(record)]
    return len(tries) == 1 and not any(told.question.encode() in at.seen.body for at in one.arrivals)


def _denied(record: Mapping[str, Any]) -> bool:
    return bool((record.get("verdict") or {}).get("action") == "deny")


def log_claims(one: Evidence) -> Claims:
    passed = [told for told in one.told if not told.refused]
    yield (all(one.recorded(told, "outcome") for told in one.told)
           and [told for told in one.told if one.recorded(told, "intent")] == passed,
           "an intent and an outcome for each call that left, one outcome for each that was refused")
    yield (all(_as_on_the_wire(one, told) for told in one.asked(FORM, LETTER)),
           "the log holds what the providers were asked and what they answered, in placeholders")
    yield (not _stands((*one.real_keys.values(), *one.app_keys, *PERSONAL), one.kept),
           "no key and no personal value stands in anything that the gateway wrote")
    yield (one.report.ok and one.report.open == 0 and one.verified.code == 0,
           f"the log verifies: {one.report.records} records, no call left open")
    bad = one.tampered.report.first_bad
    yield (bad is not None and bad.line == one.tampered.line and one.tampered.command.code == 1
           and len(one.tampered.before) == len(one.tampered.after)
           and sum(a != b for a, b in zip(one.tampered.before, one.tampered.after, strict=True)) == 1,
           f"one byte changed in a copy: verify names line {one.tampered.line}")


def _as_on_the_wire(one: Evidence, told: Told) -> bool:
    arrival, (asked, answered) = one.arrived(told), one.bodies(told)
    mapping = left_as(told, arrival)
    return (arrival is not None and mapping is not None and asked == arrival.seen.body.decode()
            and all(placeholder in answered for placeholder in mapping.values()))


def _provider(seen: Seen) -> str:
    return "anthropic" if seen.path.startswith("/v1/messages") else "openai"


def _stands(words: Sequence[str] | Mapping[str, str], *texts: bytes) -> bool:
    """Whether one of *words* stands in one of *texts*."""
    return any(word.encode() in text for word in words for text in texts)
