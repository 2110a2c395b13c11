"""The one walk: where a request's body holds text, and an answer's.

Law 4, fail closed: **every string of a body is a text position**, in fields nobody heard of too, but for the members
a :class:`Grammar` names as *tokens* (identifiers, enumerations) or *blobs* (base64, signatures), and these only while
the value looks like one: a token with a space or an ``@`` in it is text. Names of tools and functions are text. Keys
are text where the caller makes them up (*free* members, such as metadata, tool input and schemas), and elsewhere where
they do not look like a field's name. Numbers are not text. Empty strings are left out: there is nothing in them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from douane.providers.base import Position, Role

__all__ = ["ANSWER", "ANSWER_TOKENS", "BLOBS", "TOKENS", "TURNS", "Grammar", "walk"]

TOKENS = frozenset({
    "type", "role", "model", "id", "object", "status", "phase", "execution", "detail", "format", "syntax", "media_type",
    "mime_type", "tool_call_id", "call_id", "tool_use_id", "file_id", "item_id", "connector_id", "container",
    "container_id", "conversation", "previous_response_id", "vector_store_ids", "file_ids", "effort",
    "reasoning_effort", "verbosity",
    "service_tier", "truncation", "include", "modalities", "mode", "ttl", "search_context_size", "require_approval",
    "inference_geo", "speed", "stop_reason",
})
"""Members that hold identifiers or enumerations, in the OpenAI and Anthropic formats."""

ANSWER_TOKENS = TOKENS | {"finish_reason", "native_finish_reason", "system_fingerprint", "request_id", "expires_at"}
"""The same in answers."""

BLOBS = frozenset({"data", "file_data", "b64_json", "url", "image_url", "signature", "encrypted_content",
                   "encrypted_index"})
"""Members that may hold base64, bare or as a ``data:`` URL. Any other value of theirs (a web address, say) is text."""

TURNS: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant",
                             "tool": "tool_result", "function": "tool_result"}
"""What ``role`` in a message says."""

_TOKEN = re.compile(r"(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_.:/+=|~-]{1,256}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DATA_URL = re.compile(r"data:(?!text/)[A-Za-z0-9.+/-]*(?:;[A-Za-z0-9=._-]+)*;base64,", re.IGNORECASE)
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=\r\n"
_SHORTEST_BLOB = 32
"""Characters; a shorter run of letters may be a word."""
_LINKS = frozenset({"url", "image_url"})
"""Blobs only as a ``data:`` URL."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What one format's bodies are made of; members in none of the sets are text of the role around them."""

    top: Mapping[str, Role]
    """Role by member of the body itself; ``unknown`` for those not named."""
    members: Mapping[str, Role]
    """Role by member, at any depth outside free members."""
    kinds: Mapping[str, Role]
    """Role by an object's ``type``; it goes before its ``role``."""
    free: frozenset[str]
    """Members whose objects the caller makes up: every key and string below is text, and nothing there sets a role."""
    sealed: frozenset[str] = frozenset()
    """Types of objects whose ``signature`` covers their text."""
    tokens: frozenset[str] = TOKENS
    blobs: frozenset[str] = BLOBS


ANSWER = Grammar({}, {}, {}, frozenset(), tokens=ANSWER_TOKENS)
"""Of an answer of which nothing is known but that it is JSON: every text of it is ``unknown``."""


type _Task = tuple[tuple[str | int, ...], Any, Role, str, bool, bool]
"""Path, value, role, nearest member's name, free, sealed."""


def walk(grammar: Grammar, document: Any) -> Iterator[Position]:
    """The text positions of *document*, in its order. Iterative: depth costs no stack."""
    tasks: list[_Task] = [((), document, "unknown", "", False, False)]
    while tasks:
        path, value, role, member, free, sealed = tasks.pop()
        if isinstance(value, str):
            if value and (free or not _opaque(grammar, member, value)):
                yield Position(path, role, value, sealed=sealed)
        elif isinstance(value, dict):
            if not free:
                role = _role(grammar, value, role)
            yield from (Position((*path, key), role, key, key=True, sealed=sealed) for key in value
                        if key and (free or not _FIELD.fullmatch(key)))
            if free:
                below: list[_Task] = [((*path, key), item, role, key, True, sealed) for key, item in value.items()]
            else:
                below = _members(grammar, path, value, role, sealed=sealed)
            below.reverse()
            tasks.extend(below)
        elif isinstance(value, list):
            tasks.extend(((*path, index), value[index], role, member, free, sealed)
                         for index in range(len(value) - 1, -1, -1))


def _members(grammar: Grammar, path: tuple[str | int, ...], value: dict[str, Any], role: Role, *,
             sealed: bool) -> list[_Task]:
    kind = value.get("type")
    sealed = sealed or (isinstance(kind, str) and kind in grammar.sealed and bool(value.get("signature")))
    words = kind == "text"  # a document of type text has its words in `data`
    roles, otherwise = (grammar.members, role) if path else (grammar.top, "unknown")
    return [((*path, key), item, roles.get(key, otherwise), "" if words and key in grammar.blobs else key,
             key in grammar.free, sealed) for key, item in value.items()]


def _role(grammar: Grammar, value: dict[str, Any], around: Role) -> Role:
    kind = value.get("type")
    if isinstance(kind, str) and kind in grammar.kinds:
        return grammar.kinds[kind]
    turn = value.get("role")
    if turn is None:
        return around
    return TURNS.get(turn, "unknown") if isinstance(turn, str) else "unknown"


def _opaque(grammar: Grammar, member: str, value: str) -> bool:
    """Whether there is nothing to read in *value*."""
    if member in grammar.tokens:
        return _TOKEN.fullmatch(value) is not None
    if member not in grammar.blobs or not value.isascii():
        return False
    url = _DATA_URL.match(value)
    if url is None and (len(value) < _SHORTEST_BLOB or member in _LINKS):
        return False
    return not value[url.end() if url else 0:].encode("ascii").translate(None, _BASE64)
