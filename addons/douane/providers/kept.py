"""Histories that the provider keeps: what a request says of them, and what an answer is called there.

The Responses API (https://platform.openai.com/docs/api-reference/responses, …/conversations): ``previous_response_id`` and
``conversation`` go on from what lies there, ``store: false`` leaves nothing, an answer's ``id`` is the name under which
it can be gone on from or fetched again (``background``); ``GET /v1/responses/ID`` names it in the path. Google's interactions
(``previous_interaction_id``) are the same, an assistant's thread is as a conversation, and of cached contents
(``cachedContent``) the answer tells the ``name``.
"""

import re
from typing import Any

__all__ = ["answer_name", "conversations", "goes_on_from", "is_kept"]

_LONGEST = 256
"""Characters of an id."""
_IN_PATH = re.compile(r"/(responses|conversations|interactions|cachedContents|threads)"
                      r"/(?!(?:compact|input_tokens|runs)(?:/|\Z))([A-Za-z0-9_-]{1,256})(?:/|\Z)")
_MADE = re.compile(r"/(?:responses(?:/compact)?|conversations|interactions|cachedContents|threads(?:/runs)?)/?\Z")
_KINDS = frozenset({"response", "response.compaction", "conversation", "interaction", "thread"})
_GROW = frozenset({"conversations", "threads"})
_CACHE = re.compile(r"(?:.*/)?cachedContents/([A-Za-z0-9_-]{1,256})")
"""In Vertex AI the project stands before it, by its name or by its number."""


def goes_on_from(path: str, document: Any) -> tuple[str, ...]:
    """The ids of the histories that a request continues, or asks for. *path*: raw; *document*: its body's JSON, or None."""
    in_path = _IN_PATH.search(path)
    found = [in_path[2]] if in_path is not None else []
    if isinstance(document, dict):
        found += [one for one in (_id(document.get("previous_response_id")), _id(document.get("previous_interaction_id")),
                                  _cache(document.get("cachedContent", document.get("cached_content"))),
                                  _conversation(document)) if one]
    return tuple(found)


def conversations(path: str, document: Any) -> tuple[str, ...]:
    """The ids of the conversations that a request adds to."""
    in_path = _IN_PATH.search(path) if isinstance(document, dict) else None
    found = [in_path[2]] if in_path is not None and in_path[1] in _GROW else []
    named = _conversation(document) if isinstance(document, dict) else ""
    return (*found, named) if named else tuple(found)


def is_kept(path: str, document: Any) -> bool:
    """Whether the provider keeps the answer to a request, or what the request holds."""
    return isinstance(document, dict) and document.get("store") is not False \
        and (_MADE.search(path) is not None or _IN_PATH.search(path) is not None)


def answer_name(document: Any) -> str:
    """The id in an answer, or in an event of its stream; empty where there is none."""
    if not isinstance(document, dict):
        return ""
    body = next((one for one in (document.get("response"), document.get("interaction")) if isinstance(one, dict)), document)
    if body.get("object") == "thread.run":
        return _id(body.get("thread_id"))
    return _id(body.get("id")) if body.get("object") in _KINDS else _cache(body.get("name"))


def _conversation(document: dict[str, Any]) -> str:
    value = document.get("conversation")
    return _id(value.get("id") if isinstance(value, dict) else value)


def _cache(value: Any) -> str:
    found = _CACHE.fullmatch(value) if isinstance(value, str) and len(value) <= 2 * _LONGEST else None
    return "" if found is None else found[1]


def _id(value: Any) -> str:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST else ""
