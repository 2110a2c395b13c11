"""The one walk: where a request's body holds text, and an answer's.

Law 4, fail closed: **every string of a body is a text position**, in fields nobody heard of too, but for the members
a :class:`Grammar` names as *tokens* (identifiers, enumerations) or *blobs* (base64, signatures), and these only while
the value looks like one: a token with a space or an ``@`` in it is text, and one with a card's number or an IBAN. Names of
tools and functions are text. Keys are text where the caller makes them up (*free* members, such as metadata, tool input and
schemas), and elsewhere where they do not look like a field's name. Numbers are not text. Empty strings are left out: there is
nothing in them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from douane.providers.base import Position, Role
from douane.providers.edit import Path

__all__ = ["ANSWER", "ANSWER_TOKENS", "BLOBS", "CAMEL", "SNAKE", "TOKENS", "TURNS", "Grammar", "walk"]

TOKENS = frozenset({
    "type", "role", "model", "id", "object", "status", "phase", "execution", "detail", "format", "syntax", "media_type",
    "mime_type", "tool_call_id", "call_id", "tool_use_id", "file_id", "item_id", "connector_id", "container",
    "container_id", "conversation", "previous_response_id", "vector_store_ids", "file_ids", "effort",
    "reasoning_effort", "verbosity",
    "service_tier", "truncation", "include", "modalities", "mode", "ttl", "search_context_size", "require_approval",
    "inference_geo", "speed", "stop_reason",
})
"""Members that hold identifiers or enumerations, in the OpenAI and Anthropic formats."""

ANSWER_TOKENS = TOKENS | {"finish_reason", "native_finish_reason", "system_fingerprint", "request_id", "expires_at",
                          "severity", "source_type"}
"""The same in answers (the last two: what Azure's content filters say)."""

BLOBS = frozenset({"data", "file_data", "b64_json", "url", "image_url", "signature", "encrypted_content",
                   "encrypted_index"})
"""Members that may hold base64, bare or as a ``data:`` URL. Any other value of theirs (a web address, say) is text."""

TURNS: Mapping[str, Role] = {"USER": "user", "CHATBOT": "assistant", "SYSTEM": "system", "TOOL": "tool_result",
                             "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
                             "tool": "tool_result", "function": "tool_result", "model": "assistant"}
"""What ``role`` in a message says."""

_TOKEN = re.compile(r"(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_.:/+=|~-]{1,256}")
_EIGHT = re.compile(r"[0-9]{8}")
_ACCOUNT = re.compile(r"(?<![A-Za-z0-9])(?:(?!1[5-9](?:[0-9]{11}|[0-9]{14}|[0-9]{17})(?![0-9]))[0-9]{12,19}|"
                      r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30})(?![A-Za-z0-9])")
"""In a token: the number of a card, or what reads like an IBAN. No moment, in milliseconds or less, and no part of what has
letters beside it, as random identifiers do."""
_NUMBER = re.compile(r"(?<![A-Za-z0-9])(?!(?:19|20)[0-9]{6}(?![0-9]))[0-9]{8,11}(?![A-Za-z0-9])")
"""In a token: another number that may be somebody's. Not the date of a model."""
_MADE = re.compile(r"(?:call|gen|fp|msg|resp|conv|fc|rs|ws|toolu|chatcmpl|cmpl|batch|file|req|item|run|thread|step|asst|"
                   r"vs)[_-]")
"""How identifiers of providers begin: some are a short number or a moment."""
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_WORDS = frozenset({"user", "assistant", "system", "tool", "text", "function", "object", "string", "input_text", "output_text",
                    "message", "tool_use", "tool_result"})
"""Tokens told at once."""
SNAKE = re.compile(r"[a-z][a-z0-9_]{0,63}")
CAMEL = re.compile(r"[a-z][A-Za-z0-9_]{0,63}")
_COMMON = frozenset({"role", "content", "type", "text", "name", "function", "description", "parameters", "arguments",
                     "tool_calls", "tool_call_id", "id", "messages", "model", "parts", "input"})
"""Names that any field pattern takes, told at once."""
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
    """Types of objects whose ``signature`` covers their text, or names of the members that such objects are."""
    tokens: frozenset[str] = TOKENS
    blobs: frozenset[str] = BLOBS
    fields: re.Pattern[str] = SNAKE
    """What a field's name looks like; a key that does not is text."""
    inner: frozenset[str] = frozenset()
    """Members that, where true, make an object's text the model's own thinking: it goes back as it came."""


ANSWER = Grammar({}, {}, {}, frozenset(), tokens=ANSWER_TOKENS)
"""Of an answer of which nothing is known but that it is JSON: every text of it is ``unknown``."""


type _Level = tuple[Iterator[tuple[Any, Any]], Path, Role, str, bool, bool, Mapping[str, Role] | None, Role, bool]
"""An object or a list on the way: its items, its path, its role, the nearest member's name, whether it is free and sealed;
then, of an object that is not free, the roles by member, the role of other members, and whether it has its words in
``data``. A tuple, as this is made for each object of each body: a class takes ten times as long."""


def walk(grammar: Grammar, document: Any) -> Iterator[Position]:  # noqa: C901 - one loop: functions would take twice as long
    """The text positions of *document*, in its order. Iterative: depth costs no stack."""
    if type(document) is str:
        if document:
            yield Position((), "unknown", document)
        return
    new = tuple.__new__  # what Position(…) comes to, in half the time
    tokens, blobs, free_members, fields = grammar.tokens, grammar.blobs, grammar.free, grammar.fields.fullmatch
    levels: list[_Level] = []
    below: Path = ()
    role: Role = "unknown"
    value, member, free, sealed = document, "", False, False
    while True:
        if type(value) is dict:
            if not free:
                role = _role(grammar, value, role)
            for key in value:
                if (free or not (key in _COMMON or fields(key))) and key:
                    yield new(Position, ((*below, key), role, key, True, sealed))
            levels.append((iter(value.items()), below, role, member, True, sealed, None, role, False) if free else
                          _object(grammar, below, value, role, sealed=sealed))
        elif type(value) is list:
            levels.append((iter(enumerate(value)), below, role, member, free, sealed, None, role, False))
        while levels:
            items, path, role, member, free, sealed, roles, otherwise, words = levels[-1]
            for step, value in items:
                kind = type(value)
                if kind is not str and kind is not dict and kind is not list:
                    continue
                if roles is not None:
                    role = roles.get(step, otherwise)
                    free = step in free_members
                    member = "" if words and step in blobs else step
                elif type(step) is str:
                    member = step
                if kind is not str:
                    below = (*path, step)
                    break
                if value and (free or (member not in tokens and member not in blobs) or not _opaque(grammar, member, value)):
                    yield new(Position, ((*path, step), role, value, False, sealed))
            else:
                levels.pop()
                continue
            break
        else:
            return


def _object(grammar: Grammar, path: Path, value: dict[str, Any], role: Role, *, sealed: bool) -> _Level:
    kind = value.get("type")
    if not sealed and grammar.sealed and value.get("signature"):
        sealed = (type(kind) is str and kind in grammar.sealed) or (bool(path) and path[-1] in grammar.sealed)
    if grammar.inner and not sealed:
        sealed = any(value.get(name) is True for name in grammar.inner)
    roles, otherwise = (grammar.members, role) if path else (grammar.top, "unknown")
    return iter(value.items()), path, role, "", False, sealed, roles, otherwise, kind == "text"


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
        return value in _WORDS or (_TOKEN.fullmatch(value) is not None
                                   and (_EIGHT.search(value) is None or not _is_numbered(value)))
    if member not in grammar.blobs or not value.isascii():
        return False
    url = _DATA_URL.match(value)
    if url is None and (len(value) < _SHORTEST_BLOB or member in _LINKS):
        return False
    return not value[url.end() if url else 0:].encode("ascii").translate(None, _BASE64)


def _is_numbered(token: str) -> bool:
    """Whether an identifier of eight digits in a row holds a number that may be a person's."""
    rest = _UUID.sub("", token)
    return _ACCOUNT.search(rest) is not None or (_MADE.match(token) is None and _NUMBER.search(rest) is not None)
