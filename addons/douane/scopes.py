"""By whom calls are counted: the scopes of budgets, rate limits and emergency stops."""

import re
from dataclasses import dataclass

from douane.call import Call, Principal

__all__ = ["SCOPES", "Scope", "parse_scope", "who"]

SCOPES = ("principal", "user", "agent", "team", "org", "model", "provider")
_TAG = re.compile(r"tag:([A-Za-z0-9_.-]{1,64})")
_LONGEST = 200
"""Characters of a name that the app makes up (user, agent, tag, model): longer ones are counted together by their beginning."""


@dataclass(frozen=True, slots=True)
class Scope:
    """*tag*: the tag's name where *kind* is ``tag``."""

    kind: str
    tag: str = ""

    def __str__(self) -> str:
        return f"tag:{self.tag}" if self.tag else self.kind


def parse_scope(text: str) -> Scope:
    """``team``, ``tag:project`` … Raises ValueError."""
    if text in SCOPES:
        return Scope(text)
    match = _TAG.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text[:40]}` is not allowed; allowed: {', '.join(SCOPES)}, tag:NAME")
    return Scope("tag", match[1])


def who(scope: Scope, call: Call) -> str:
    """The name under which *call* counts; empty where it has none of that kind."""
    principal: Principal = call.principal
    match scope.kind:
        case "principal":
            return principal.name
        case "team":
            return principal.team
        case "org":
            return principal.org
        case "user":
            return principal.user[:_LONGEST]
        case "agent":
            return principal.agent[:_LONGEST]
        case "model":
            return call.model[:_LONGEST]
        case "provider":
            return call.provider
    return principal.tags.get(scope.tag, "")[:_LONGEST]
