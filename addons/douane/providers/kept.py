"""Histories that the provider keeps: what a request says of them, and what an answer is called there.

The Responses API (https://platform.openai.com/docs/api-reference/responses, …/conversations): ``previous_response_id`` and
``conversation`` go on from what lies there, ``store: false`` leaves nothing, an answer's ``id`` is the name under which
it can be gone on from or fetched again (``background``); ``GET /v1/responses/ID`` names it in the path. Google's interactions
(``previous_interaction_id``) are the same, an assistant's thread is as a conversation, and of cached contents
(``cachedContent``) the answer tells the ``name``.

Batches (https://platform.openai.com/docs/api-reference/batch, https://docs.anthropic.com/en/api/creating-message-batches,
https://ai.google.dev/api/batch-api, https://docs.mistral.ai/api batch) are answered later: what their requests hold lies in a
file (``input_file_id``) or with the batch, the answers come with the batch or in a file that it names (``output_file_id``).
"""

import re
from typing import Any

__all__ = ["answer_names", "conversations", "goes_on_from", "in_lines", "is_kept"]

_LONGEST = 256
"""Characters of an id."""
_IN_PATH = re.compile(r"/(responses|conversations|interactions|cachedContents|threads|batches|batch/jobs|files|uploads"
                      r"|chat/completions)"
                      r"/(?!(?:compact|input_tokens|runs)(?:/|\Z))([A-Za-z0-9_-]{1,256})(?:[/:]|\Z)")
_STORED = re.compile(r"/chat/completions/?\Z")
"""Kept where the request asks for it."""
_MADE = re.compile(r"/(?:responses(?:/compact)?|conversations|interactions|cachedContents|threads(?:/runs)?|files|batches"
                   r"|batch/jobs)/?\Z|:(?:batchGenerateContent|asyncBatchEmbedContent)\Z")
_TELLS = re.compile(r"/(?:batches|batch/jobs)/[A-Za-z0-9_-]{1,256}/?\Z")
"""A batch, whose answer names the files of its answers."""
_LINES = re.compile(r"/(?:files/[^/]{1,256}/content|batches/[^/]{1,256}/results)/?\Z")
_KINDS = frozenset({"response", "response.compaction", "conversation", "interaction", "thread", "file", "batch",
                    "message_batch", "chat.completion", "chat.completion.chunk"})
_OUTPUTS = ("output_file_id", "error_file_id", "output_file", "error_file")
_GROW = frozenset({"conversations", "threads", "uploads"})
_NAMED = re.compile(r"(?:.*/)?(?:cachedContents|batches)/([A-Za-z0-9_-]{1,256})")
"""Google's. In Vertex AI the project stands before it, by its name or by its number."""
_MOST_FILES = 100
"""Of a batch."""


_GOES_ON = frozenset({"previous_response_id", "previous_interaction_id", "cachedContent", "cached_content", "conversation",
                      "input_file_id", "input_files"})
"""Members of a request that goes on from something, which most have none of."""


def goes_on_from(path: str, document: Any) -> tuple[str, ...]:
    """The ids of the histories that a request continues, or asks for. *path*: raw; *document*: its body's JSON, or None."""
    in_path = _IN_PATH.search(path)
    found = [in_path[2]] if in_path is not None else []
    if isinstance(document, dict) and not _GOES_ON.isdisjoint(document):
        found += [one for one in (_id(document.get("previous_response_id")), _id(document.get("previous_interaction_id")),
                                  _named(document.get("cachedContent", document.get("cached_content"))),
                                  _conversation(document), _id(document.get("input_file_id"))) if one]
        given = document.get("input_files")
        found += [name for one in given[:_MOST_FILES] if (name := _id(one))] if isinstance(given, list) else []
    return tuple(found)


def conversations(path: str, document: Any) -> tuple[str, ...]:
    """The ids of the conversations that a request adds to."""
    in_path = _IN_PATH.search(path) if isinstance(document, dict) else None
    found = [in_path[2]] if in_path is not None and in_path[1] in _GROW else []
    named = _conversation(document) if isinstance(document, dict) else ""
    return (*found, named) if named else tuple(found)


def is_kept(path: str, document: Any) -> bool:
    """Whether the provider keeps the answer to a request, or what the request holds."""
    if _TELLS.search(path) is not None:
        return True
    if not isinstance(document, dict) or document.get("store") is False:
        return False
    if _STORED.search(path) is not None:
        return document.get("store") is True
    return _MADE.search(path) is not None or _IN_PATH.search(path) is not None


def in_lines(path: str) -> bool:
    """Whether what a request fetches may be the answers of a batch, a JSON document a line, whatever its media type says."""
    return _LINES.search(path) is not None


def answer_names(document: Any) -> tuple[str, ...]:
    """The ids in an answer, or in an event of its stream, by which it can be asked for; of a batch its files' too."""
    if not isinstance(document, dict):
        return ()
    inside = (document.get(name) for name in ("response", "interaction", "file"))
    body = next((one for one in inside if isinstance(one, dict)), document)
    if body.get("object") == "thread.run":
        found = [body.get("thread_id")]
    elif body.get("object", body.get("type")) in _KINDS:
        found = [body.get("id"), *(body.get(name) for name in _OUTPUTS)]
    else:
        found = [_named(body.get("name"))]
    return tuple(name for one in found if (name := _id(one)))


def _conversation(document: dict[str, Any]) -> str:
    value = document.get("conversation")
    return _id(value.get("id") if isinstance(value, dict) else value)


def _named(value: Any) -> str:
    found = _NAMED.fullmatch(value) if isinstance(value, str) and len(value) <= 2 * _LONGEST else None
    return "" if found is None else found[1]


def _id(value: Any) -> str:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST else ""
