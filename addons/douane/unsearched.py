"""What is declared at the door of a body's content: what cannot be searched, and what leads elsewhere.

Law: it is recorded whatever the rule is, by kind, count and place; names that an app made up (hosts, types nobody knows) stand
in no record. ``edge: uninspectable: deny`` refuses what cannot be searched, also what the provider would fetch itself. Tools
and MCP servers hold no content; ``allow_tools`` is the rule for them. What only the provider can open (its own encrypted
reasoning) passes: without it no such conversation can go on.
"""

import re
from collections.abc import Iterable
from typing import Literal

from douane.call import Finding
from douane.providers.base import Unseen
from douane.shown import PLACES, shown
from douane.verdict import Deny

__all__ = ["declare", "tool_type"]

_PASSING = frozenset({"encrypted", "hosted_tool", "mcp"})
_TYPE = re.compile(r"[a-z]{2,20}(?:[:_-][a-z0-9]{1,12}){0,6}")


def tool_type(name: str) -> str:
    """A tool's type as it may be recorded: as the request has it where it reads like one, else ``other``."""
    return name if len(name) <= 48 and _TYPE.fullmatch(name) and sum(map(str.isdigit, name)) <= 8 else "other"


def declare(found: Iterable[Unseen], rule: Literal["allow", "deny"]) -> tuple[list[Finding], Deny | None]:
    """Findings of the policy ``edge`` for what a :meth:`~douane.providers.base.Wire.unseen` gives, and the denial, if any."""
    places: dict[str, list[Unseen]] = {}
    refused: Unseen | None = None
    for one in found:
        places.setdefault(_type(one), []).append(one)
        if rule == "deny" and refused is None and one.kind not in _PASSING:
            refused = one
    findings = [Finding("edge", kind, len(ones), tuple(dict.fromkeys(shown(one.path) for one in ones))[:PLACES])
                for kind, ones in sorted(places.items())]
    if refused is None:
        return findings, None
    what = "content at an address (url)" if refused.kind == "url" else refused.kind
    return findings, Deny("uninspectable", f"{what} at {shown(refused.path)} cannot be inspected (edge: uninspectable: deny)")


def _type(one: Unseen) -> str:
    if one.kind == "hosted_tool":
        return f"hosted_tool:{tool_type(one.name)}"
    return {"mcp": "mcp_server", "url": "remote_url"}.get(one.kind, f"uninspectable:{one.kind}")
