"""Records for a person's eyes.

Law: what a caller made up (a model's name, a path, a tag) commands no terminal and forges no line: what does not print
is shown as its escape.
"""

import json
from typing import Any

__all__ = ["as_json", "one_line", "whole"]


def as_json(record: dict[str, Any]) -> str:
    return json.dumps(record)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(record: dict[str, Any]) -> str:
    """``2026-01-02T03:04:05.678Z outcome  support-bot  openai/chat gpt-4o  allow 200  120→45 tokens  $0.000750  0190…``"""
    kind = record.get("kind", "?")
    if kind == "event":
        said = " ".join(f"{k}={v}" for k, v in record.items()
                        if k not in ("kind", "event", "at", "seq", "node", "prev", "hash"))
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
    """Every field on a line of its own; what is empty is left out."""
    lines = [f"{record.get('kind')} {record.get('id', '')}"]
    for name, value in record.items():
        if name in ("kind", "id") or value in (None, [], {}, ""):
            continue
        said = value
        if isinstance(value, dict):
            said = ", ".join(f"{k}={v}" for k, v in value.items() if v not in (None, {}, ""))
        lines.append(_printable(f"  {name:<20}{said}"))
    return "\n".join(lines)
