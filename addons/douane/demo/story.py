"""The demo's scenes, as data: what is shown of the evidence, in which order, whatever it is shown on.

Law: a key is shown by its first characters only, and every word but the headings comes from the evidence.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from douane.demo.evidence import (
    Arrival,
    Command,
    Evidence,
    Told,
    key_of,
    log_claims,
    mask,
    model_claims,
    money_claims,
    personal_claims,
    wire_text,
)
from douane.demo.questions import DEAR, FORBIDDEN, FORM, LETTER, PAGES

__all__ = ["APP", "INTRO", "Compared", "Grid", "Note", "Scene", "story"]

INTRO = ("The real openai and anthropic SDKs in an app that knows nothing of Douane, a gateway, and a provider on this machine "
         "that plays both and says back what it was told. No key, no network.")
APP = "douane run --as demo-app -- python -m douane.demo.app"
_DATE = len("2026-01-02T")
type Lines = tuple[tuple[str, str], ...]
"""(what, value)."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One call, side by side."""

    title: str
    sent: Lines
    got: Lines
    back: Lines


@dataclass(frozen=True, slots=True)
class Grid:
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Note:
    text: str


@dataclass(frozen=True, slots=True)
class Scene:
    title: str
    parts: tuple[Compared | Grid | Command | Note, ...]
    claims: tuple[tuple[bool, str], ...]


def story(one: Evidence) -> tuple[Scene, ...]:
    """The four scenes."""
    return (
        Scene("1  Personal data leaves as placeholders, and comes back",
              tuple(_compared(one, told) for told in one.asked(FORM, LETTER)), tuple(personal_claims(one))),
        Scene("2  A budget that runs out", (_spending(one), *_errors(one.asked(*PAGES, DEAR)), one.budget),
              tuple(money_claims(one))),
        Scene("3  A model that is not on the list",
              tuple(_compared(one, told) for told in one.asked(FORBIDDEN)), tuple(model_claims(one))),
        Scene("4  A log in which a change is seen", tuple(_log(one)), tuple(log_claims(one))))


def _compared(one: Evidence, told: Told) -> Compared:
    how = [part for part in ("streaming" if told.stream else "", "a tool is offered" if _tools(told) else "") if part]
    verdict = one.recorded(told, "outcome").get("verdict") or {"action": "no verdict recorded"}
    end = f"{verdict['action']} {verdict.get('code', told.status)}"
    return Compared(f"{', '.join([f'{told.sdk} SDK', told.model, *how])}: {end}", _sent(told), _got(one.arrived(told)),
                    _back(told))


def _tools(told: Told) -> Any:
    return json.loads(told.body).get("tools")


def _sent(told: Told) -> Lines:
    return (("to", urlsplit(told.url).netloc), ("key", mask(told.key)), ("user", _last(told.body)))


def _last(body: str) -> str:
    """The text of the last message."""
    return str(json.loads(body)["messages"][-1]["content"])


def _got(arrival: Arrival | None) -> Lines:
    if arrival is None:
        return (("", "nothing"),)
    asked = _last(arrival.seen.body.decode("utf-8", "replace"))
    return (("key", mask(key_of(arrival.seen))), ("user", asked), *_answer(*wire_text(arrival.answer)))


def _answer(tool: str, text: str) -> Lines:
    """A text, or the arguments of *tool* one by one."""
    if not tool:
        return (("says", text),)
    try:
        arguments = json.loads(text).items()
    except ValueError:  # not what the tool was asked for: it is shown as it is, and the claims say so
        arguments = (("with", text),)
    return (("calls", tool), *((name, str(value)) for name, value in arguments))


def _back(told: Told) -> Lines:
    if told.refused:
        return (("raised", told.refused), ("says", told.error.get("message", "")))
    pieces = (("in", f"{len(told.pieces)} pieces"),) if told.stream else ()
    return (*pieces, *_answer(told.tool, told.answer))


def _spending(one: Evidence) -> Grid:
    """What each call was held and charged, from its records."""
    rows = []
    for told in one.asked(*PAGES, DEAR):
        outcome = one.recorded(told, "outcome")
        held, cost = outcome.get("reserved_usd"), None if told.refused else outcome.get("cost_usd")
        first, _, more = told.question.partition(". ")
        rows.append((told.model, first + ("…" if more else ""), _usd(held), _usd(cost),
                     f"{told.status} {told.refused or 'answered'}"))
    return Grid(("model", "question", "held", "charged", "came back"), tuple(rows))


def _usd(amount: float | None) -> str:
    return "-" if amount is None else f"${amount:.6f}"


def _errors(calls: list[Told]) -> list[Note]:
    return [Note(f"{told.sdk}.{told.refused} ({told.status} {told.error.get('type', '')}): {told.error.get('message', '')}")
            for told in calls if told.refused]


def _log(one: Evidence) -> list[Command | Note]:
    fields, _, conversation = one.shown.said.partition("\n\n")
    shown = Command(f"{one.shown.line} | sed '1,/^$/d'", one.shown.code, conversation or fields)
    changed = f"One byte is changed in line {one.tampered.line} of a copy: {one.tampered.before} → {one.tampered.after}"
    cut = "\n".join(line[_DATE:] for line in one.tail.said.splitlines())
    tail = Command(f"{one.tail.line} | cut -c{_DATE + 1}-", one.tail.code, cut)
    return [tail, shown, one.verified, Note(changed), one.tampered.command]
