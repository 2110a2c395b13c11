"""Records for a person's eyes.

Law: what a caller made up (a model's name, a path, a tag, a text) commands no terminal and forges no line: what does not
print is shown as its escape, and each line of a text stands behind a bar.
"""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from douane.audit.conversation import Turn, conversation
from douane.placeholders import LOOKS_LIKE

__all__ = ["as_json", "exchange", "one_line", "whole"]

_BODIES = ("request", "response")


def as_json(record: dict[str, Any]) -> str:
    return json.dumps(record)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(record: dict[str, Any]) -> str:
    """``2026-01-02T03:04:05.678Z outcome  support-bot  openai/chat gpt-4o  allow 200  120→45 tokens  $0.000750  0190…``"""
    kind = record.get("kind", "?")
    if kind == "event":
        said = " ".join(f"{k}={v}" for k, v in record.items()
                        if k not in ("kind", "event", "at", "seq", "node", "prev", "hash", *_BODIES))
        return _printable(f"{record.get('at')} event    {record.get('event')} {said}")
    who = (record.get("principal") or {}).get("name") or "-"
    what = f"{record.get('provider')}/{record.get('operation')} {record.get('model') or '-'}"
    parts = [str(record.get("at")), f"{kind:<8}", who, what]
    if kind == "outcome":
        verdict = record.get("verdict") or {}
        parts.append(f"deny {verdict.get('code')}" if verdict.get("action") == "deny" else f"allow {record.get('status')}")
        if record.get("ended") not in ("complete", "denied"):
            parts.append(str(record.get("ended")))
        usage = record.get("usage")
        if usage:
            parts.append(f"{usage['input']}→{usage['output']} tokens")
        if record.get("cost_usd") is not None:
            parts.append(f"${record['cost_usd']:.6f}")
    return _printable("  ".join([*parts, str(record.get("id"))]))


def whole(record: dict[str, Any]) -> str:
    """Every field on a line of its own; what is empty is left out, and so are bodies."""
    lines = [f"{record.get('kind')} {record.get('id', '')}"]
    for name, value in record.items():
        if name in ("kind", "id", *_BODIES) or value in (None, [], {}, ""):
            continue
        said = value
        if isinstance(value, dict):
            said = ", ".join(f"{k}={v}" for k, v in value.items() if v not in (None, {}, ""))
        elif name == "findings":
            said = "; ".join(map(_finding, value))
        lines.append(_printable(f"  {name:<20}{said}"))
    return "\n".join(lines)


def _finding(one: dict[str, Any]) -> str:
    """``redact: EMAIL_ADDRESS ×2 at $.messages[0].content``"""
    where = ", ".join(one.get("where") or ())
    return f"{one.get('policy')}: {one.get('type')} ×{one.get('count')}{' at ' * bool(where)}{where}"


def exchange(records: Sequence[dict[str, Any]], console: Console) -> None:
    """Print one call: the fields of its last record, then who said what, with what was found marked."""
    console.print(Text(whole(records[-1])), soft_wrap=True)
    for name in _BODIES:
        found = next((one[name].get("found") for one in records if isinstance(one.get(name), dict)), None)
        if found:
            said = ", ".join(f"{kind} ×{count}" for kind, count in found.items())
            console.print(Text(f"  {'log_' + name:<20}the log itself replaced {said}"), soft_wrap=True)
    turns = conversation(records)
    if not turns:
        console.print(Text("\n  no bodies are kept (audit level metadata, or a call without any)", "dim"))
    for turn in turns:
        _say(turn, console)


def _say(turn: Turn, console: Console) -> None:
    head = Text(f"\n{turn.role.replace('_', ' ')}", "bold")
    if turn.note:
        head.append(f"  ({_printable(turn.note)})", "not bold dim")
    console.print(head, soft_wrap=True)
    for line in turn.text.split("\n") if turn.text else ():
        said = Text(_printable(line))
        said.highlight_regex(LOOKS_LIKE, "bold black on yellow")
        console.print(Text.assemble(("  │ ", "dim"), said), soft_wrap=True)
