"""Stored objects: which a request names, which an answer says were made, and which requests list everybody's.

An object is called ``collection/id`` here (``files/file-abc``), so that an id of one kind proves nothing about another: some
providers let callers choose names. One table serves all providers: their collections have different names, or mean the same.

https://platform.openai.com/docs/api-reference (files, uploads, batches, vector stores, assistants, threads, responses,
conversations, containers, videos, evals, fine-tuning), https://docs.anthropic.com/en/api (files, message batches, skills),
https://ai.google.dev/api (files, cachedContents, tunedModels, batches, fileSearchStores, interactions),
https://docs.mistral.ai/api (files, batch/jobs, agents, conversations, libraries).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard
from urllib.parse import parse_qsl

from douane.providers.offlimits import steps

__all__ = ["Spot", "in_query", "is_stored", "made", "named", "of_resource", "own_alone", "spot", "tells"]

_LONGEST = 256
"""Characters of an id."""

_COLLECTIONS = {name.lower(): name for name in (
    "files", "uploads", "batches", "vector_stores", "assistants", "threads", "responses", "conversations", "containers",
    "videos", "evals", "fine_tuning/jobs", "skills", "batch/jobs", "agents", "libraries", "chat/completions",
    "cachedContents", "tunedModels", "fileSearchStores", "corpora", "interactions", "batchPredictionJobs", "tuningJobs",
    "ragCorpora", "reasoningEngines", "operations", "collections", "characters")}
_NO_IDS = frozenset({"responses/compact", "responses/input_tokens", "threads/runs"})
"""What stands in the place of an id and makes something, or nothing."""
_NAMES = frozenset({"models", "deployments", "engines", "publishers", "endpoints"})
"""What follows one of these is a name that somebody chose."""
_MAKES = frozenset({("remix",), ("edits",), ("extensions",)})
"""Last steps of a path by which one object makes another of its kind."""
_TELLS = frozenset({"batches", "batch/jobs", "fine_tuning/jobs", "uploads", "threads", "responses", "conversations",
                    "interactions", "operations", "batchPredictionJobs"})
"""Collections whose objects, when they are fetched, tell of others that came of them."""
_BEGINS = frozenset({"batchGenerateContent", "asyncBatchEmbedContent", "predictLongRunning"})
"""Google's verbs that answer with something to be fetched later."""

_FIELDS = {
    **dict.fromkeys(("file_id", "file_ids", "input_file_id", "output_file_id", "error_file_id", "training_file",
                     "validation_file", "result_files", "input_files", "training_files", "output_file", "error_file",
                     "file", "document_ids"), "files"),
    **dict.fromkeys(("previous_response_id", "response_id"), "responses"),
    **dict.fromkeys(("conversation", "conversation_id"), "conversations"),
    **dict.fromkeys(("vector_store_id", "vector_store_ids"), "vector_stores"),
    **dict.fromkeys(("container", "container_id"), "containers"),
    **dict.fromkeys(("part_id", "part_ids"), "parts"),
    **dict.fromkeys(("video_id", "video"), "videos"),
    "assistant_id": "assistants", "thread_id": "threads", "batch_id": "batches", "message_batch_id": "batches",
    "agent_id": "agents", "library_ids": "libraries", "collection_ids": "collections", "eval_id": "evals",
    "previous_interaction_id": "interactions", "upload_id": "uploads", "audio": "audio",
    "skill_id": "skills"}
"""Member → collection. Its value is an id, a list of them, or an object with an ``id``."""
_BESIDE = {"file": ("file-", "file_"), "video": ("video_",), "audio": ("audio_",), "skill_id": ("skill_",)}
"""Members that may be other strings than ids, and how ids begin there."""
_RESOURCES = frozenset({"cachedContent", "cached_content", "fileUri", "file_uri", "fileName", "file_name", "name", "batch",
                        "fileSearchStoreNames", "file_search_store_names", "parent", "baseModel", "uri", "ragCorpus"})
"""Members that hold a Google resource's name or address: ``files/abc``, ``https://…/v1beta/files/abc``."""
_GOOGLE = frozenset({"files", "cachedContents", "tunedModels", "fileSearchStores", "corpora", "batches", "operations",
                     "interactions", "batchPredictionJobs", "tuningJobs", "ragCorpora", "reasoningEngines"})
_FREE = frozenset({"metadata", "parameters", "schema", "input_schema", "json_schema", "response_schema", "responseSchema",
                   "responseJsonSchema", "arguments", "args", "attributes", "headers", "labels", "logit_bias", "properties"})
"""Members that callers and models fill as they like: nothing in them is looked up by the provider."""
_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
"""Blocks whose ``input`` is free as well."""
_LOOKED_UP = frozenset({"item_reference", "image_generation_call", "reasoning"})
"""Items of a response that the provider may look up by their id alone, where what they hold is not with them."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a path stands. *name*: the object that it is of or below, as ``collection/id``; empty for the collection itself."""

    collection: str
    name: str
    below: tuple[str, ...] = ()


@lru_cache(maxsize=1024)
def spot(path: str) -> Spot | None:
    """Raw *path* → Spot; None for a path of no collection. Raises ValueError where it can be read in more than one way."""
    read = steps(path)
    if read is None:
        raise ValueError("a path with many layers of percent signs")
    at = 0
    while at < len(read):
        one, two = read[at].partition(":")[0].lower(), "/".join(read[at:at + 2]).lower()
        found = _COLLECTIONS.get(two) or _COLLECTIONS.get(one)
        if found is not None:
            rest = read[at + 1 + found.count("/"):]
            if rest and f"{found}/{rest[0].lower()}" in _NO_IDS:
                return Spot(found, "", rest)
            return Spot(found, f"{found}/{_bare(rest[0], found)}" if rest else "", rest[1:])
        at += 2 if one in _NAMES else 1
    return None


def named(document: Any, *, google: bool) -> Iterator[str]:
    """The objects that a request's *document* names, or an answer's: ``collection/id``."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        key, value = waiting.pop()
        if type(value) is list:
            waiting += [(key, one) for one in value if type(one) is dict or type(one) is list]
        elif type(value) is dict:
            kind = value.get("type")
            yield from _looked_up(key, value, kind)
            for name, inner in value.items():
                if google and name in _RESOURCES:
                    for one in inner if isinstance(inner, list) else (inner,):
                        yield from of_resource(one)
                elif name in _FIELDS:
                    yield from _of_member(name, inner)
                of = type(inner)
                if (of is dict or of is list) and name not in _FREE and not (name == "input" and kind in _CALLS):
                    waiting.append((name, inner))


def in_query(query: str, place: Spot | None) -> Iterator[str]:
    """The objects that a raw *query* names, the cursors of a list among them."""
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=1000, separator="&"):
        plain = name.removesuffix("[]")
        if plain in _FIELDS and value:
            yield f"{_FIELDS[plain]}/{value}"
        elif place is not None and not place.name and plain in ("after", "before", "after_id", "before_id") and value:
            yield f"{place.collection}/{value}"


def own_alone(method: str, place: Spot | None) -> bool:
    """Whether the answer is a list of a whole collection, of which a caller may see what is its own."""
    return place is not None and method == "GET" and not place.name and not place.below


def is_stored(place: Spot | None, document: Any) -> bool:
    """Whether the provider keeps the answer itself; what it says of other objects counts all the same."""
    stored = document.get("store") if isinstance(document, dict) else None
    if place is None or place.collection == "chat/completions":
        return place is not None and stored is True
    return not (place.collection in ("responses", "interactions") and stored is False)


def tells(method: str, path: str, place: Spot | None, document: Any) -> bool:
    """Whether the answer to a request may say what the caller now has. What callers themselves have written is not asked:
    the content of a file could name anybody's objects."""
    given = document if isinstance(document, dict) else {}
    if place is None:
        return method == "POST" and (path.rpartition(":")[2] in _BEGINS or any(
            isinstance(one, dict) and one.get("type") not in (None, "custom") for one in _list(given.get("tools"))))
    if place.collection == "chat/completions":
        return method == "POST" and (given.get("store") is True or "audio" in _list(given.get("modalities")))
    if method == "GET":
        return place.name != "" and place.collection in _TELLS and place.below[-1:] not in (("content",), ("results",))
    return method == "POST"


def made(method: str, place: Spot | None, document: Any, *, google: bool, stored: bool) -> Iterator[str]:
    """What an answer, or an event of its stream, says that the caller now has: what was made, and what came of it."""
    if not isinstance(document, dict) or (isinstance(document.get("error"), dict) and "object" not in document):
        return
    yield from named(document, google=google)
    inner = document.get("response")
    bodies = [one for one in (document, inner, document.get("interaction")) if isinstance(one, dict)]
    if not stored or place is None:
        return
    if method == "POST" and (not place.name or place.below[-1:] in _MAKES):
        for body in bodies:
            if _is_id(body.get("id")) and not str(body.get("object")).startswith("thread."):
                yield f"{place.collection}/{body['id']}"
    if method == "POST" and place.below == ("parts",) and _is_id(document.get("id")):
        yield f"parts/{document['id']}"
    items = [document.get("item"), *(one for body in bodies for one in _list(body.get("output")))]
    if place.collection in ("responses", "conversations") and place.below[:1] in (("items",), ("input_items",)):
        items += [*_list(document.get("data")), document]
    yield from (f"items/{one['id']}" for one in items if isinstance(one, dict) and _is_id(one.get("id")))


def _of_member(name: str, value: Any) -> Iterator[str]:
    values = value if isinstance(value, list) else [value]
    for one in [each.get("id") if isinstance(each, dict) else each for each in values]:
        if not _is_id(one):
            continue
        prefix = _BESIDE.get(name) if isinstance(value, str) else None
        if prefix is None or one.startswith(prefix):  # else it is something else: bytes, a skill of the provider's own
            yield f"{_FIELDS[name]}/{one}"


def of_resource(text: Any) -> Iterator[str]:
    """A Google resource's name or address. Other hosts' addresses are no objects of the provider's."""
    if not isinstance(text, str) or "/" not in text:
        return
    host, _, path = text.partition("://")[2].partition("/") if "://" in text else ("googleapis.com", "", text)
    read = steps(path) or ()
    for one, name in itertools.pairwise(read if host.lower().partition(":")[0].endswith("googleapis.com") else ()):
        if one in _GOOGLE:
            yield f"{one}/{_bare(name, one)}"
            return


def _looked_up(key: str, value: dict[str, Any], kind: Any) -> Iterator[str]:
    name = value.get("id")
    if key not in ("input", "items") or not _is_id(name):
        return
    if (kind in _LOOKED_UP and not (value.get("encrypted_content") or value.get("result"))) or value.keys() <= {"id", "type"}:
        yield f"items/{name}"


def _bare(name: str, collection: str) -> str:
    """Without a Google verb: ``files/abc:download``."""
    return name.partition(":")[0] if collection in _GOOGLE else name


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST
