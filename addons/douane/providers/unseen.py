"""What of a request body cannot be searched, and what leads elsewhere: media, stored files, token ids, hosted tools, addresses
that the provider fetches.

Law, fail closed: known by shape, in any format and at any depth, wherever the format and not the app's own data speaks (tool
arguments, schemas); and what looks like base64 is ``binary`` anywhere. What the provider itself sent before, in a seal that
only it can open (encrypted reasoning, signatures of thoughts), is ``encrypted``: our own conversation coming back.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

from douane.providers.base import Unseen, UnseenKind
from douane.providers.edit import Path
from douane.providers.tools import LISTS, MAYBE_PAYLOADS, MCP_TYPES, PAYLOADS, SERVERS, hosted, is_payload, link_host

__all__ = ["unseen"]

_SEALED = frozenset({"encrypted_content", "encrypted_index", "encrypted_stdout", "thoughtSignature", "thought_signature",
                     "signature", "redactedContent", "redacted_content"})
_LINKS = frozenset({"url", "uri", "image_url", "file_url", "video_url", "audio_url", "document_url", "fileUri", "file_uri",
                    "gcsUri", "gcs_uri", "s3Uri", "s3_uri"})
_STORED = frozenset({"file_id", "file_ids", "vector_store_ids", "fileSearchStoreNames", "file_search_store_names"})
_BYTES = frozenset({"data", "bytes", "b64_json", "base64", "file_data", "bytesBase64Encoded", "bytes_base64_encoded"})
_EITHER = frozenset({"image", "images", "mask", "audio", "video", "inputImage"})
"""Base64 or an address; any other value is text."""
_LEAVES = _SEALED | _LINKS | _STORED | _BYTES | _EITHER
_HOLDERS: dict[str, UnseenKind] = {
    "image": "image", "images": "image", "image_url": "image", "mask": "image", "inputImage": "image", "video": "video",
    "video_url": "video", "audio": "audio", "input_audio": "audio", "audio_url": "audio", "document": "document",
    "file": "document", "file_data": "document"}
_MAGIC: tuple[tuple[str, UnseenKind], ...] = (
    ("iVBOR", "image"), ("/9j/", "image"), ("R0lGOD", "image"), ("JVBERi", "document"))
"""How PNG, JPEG, GIF and PDF begin in base64."""
_TOKEN_IDS = frozenset({"prompt", "input", "inputs", "input_ids", "prompt_token_ids", "context", "tokens", "texts"})
_RESULTS = frozenset({
    "url_citation", "web_search_call", "web_search_result", "web_search_result_location", "web_search_tool_result",
    "web_fetch_result", "web_fetch_tool_result", "file_search_call", "google_search_result", "url_context_result",
    "container_file_citation"}) | MCP_TYPES
"""Types of objects whose addresses are where something was found, and are not fetched; an MCP server's is told as such."""

_LONGEST = 256
"""Characters from which what looks like base64 is that, whatever member holds it."""
_SHORTEST = 32
"""The same under a member that holds bytes: as in the walk, to which anything shorter is text."""
_BEGINS = re.compile(r"(?:[A-Za-z0-9+/_=-]{32,}(?:\r?\n|\Z)|[A-Za-z0-9+/_=-]{256})")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=\r\n"
_DATA_URL = re.compile(r"data:(?P<media>[A-Za-z0-9.+/-]*)(?:;[^,; ]{0,100})*;base64,", re.IGNORECASE)
_OWN_FILE = re.compile(r"https://generativelanguage\.googleapis\.com/(?:v[A-Za-z0-9]+/)?files/")

type _Where = Literal["format", "result", "payload"]


def unseen(document: Any) -> Iterator[Unseen]:  # noqa: C901 - one loop, as in the walk: functions would take twice as long
    """In no order. Iterative: depth costs no stack."""
    tasks: list[tuple[Path, str, Any, _Where]] = [((), "", document, "format")]
    while tasks:
        path, member, value, where = tasks.pop()
        if type(value) is dict:
            kind = value.get("type")
            if where == "format" and type(kind) is str and kind in _RESULTS:
                where = "result"
            for key, item in value.items():
                kind = type(item)
                if kind is str:
                    if key in _LEAVES or (len(item) >= _LONGEST and " " not in item[:40]):
                        yield from _leaf((*path, key), key, item, value, where)
                elif kind is dict or kind is list:
                    below = (*path, key)
                    if where == "payload" or key in PAYLOADS or (key in MAYBE_PAYLOADS and is_payload(key, value)):
                        tasks.append((below, key, item, "payload"))
                    else:
                        if key in LISTS:
                            yield from hosted(below, item)
                        tasks.append((below, key, item, "result" if key in SERVERS else where))
        elif type(value) is list:
            if value and where != "payload" and (member in _TOKEN_IDS or type(value[0]) is int) and _are_tokens(member, value):
                yield Unseen(path, "tokens")
                continue
            for at, item in enumerate(value):
                kind = type(item)
                if kind is str:
                    if member in _LEAVES or (len(item) >= _LONGEST and " " not in item[:40]):
                        yield from _leaf((*path, at), member, item, {}, where)
                elif kind is dict or kind is list:
                    tasks.append(((*path, at), member, item, where))
        elif type(value) is str:
            yield from _leaf(path, member, value, {}, where)


def _are_tokens(member: str, value: list[Any]) -> bool:
    """Numbers, or lists of them, in place of text; elsewhere 32 of them may spell one too."""
    if member in _TOKEN_IDS:
        return any(type(one) is int or (type(one) is list and one and type(one[0]) is int) for one in value)
    return len(value) >= _SHORTEST


def _leaf(path: Path, member: str, text: str, parent: dict[str, Any], where: _Where) -> Iterator[Unseen]:
    """What a string is, if not text."""
    url = _DATA_URL.match(text) if text[:5].lower() == "data:" else None
    if url is not None:
        yield Unseen(path, _of_media(url["media"]))
    elif where == "payload" or member not in _LEAVES:
        if _is_base64(text, _LONGEST):
            yield Unseen(path, _of_beginning(text))
    elif member in _SEALED or parent.get("type") == "redacted_thinking":
        if _is_base64(text, 1):
            yield Unseen(path, "encrypted")
    elif member in _STORED:
        if text:
            yield Unseen(path, "file")
    elif _is_base64(text, _SHORTEST):
        yield Unseen(path, _kind(path, text, parent))
    elif member in _LINKS or (member in _EITHER and "://" in text):
        if text and where == "format":
            yield Unseen(path, "file") if _OWN_FILE.match(text) else Unseen(path, "url", link_host(text))
    elif text and member in _BYTES and _is_base64(text, 1) and _kind(path, text, parent) != "binary":
        yield Unseen(path, _kind(path, text, parent))


def _is_base64(text: str, least: int) -> bool:
    if len(text) < least or not text.isascii():
        return False
    if len(text) >= _LONGEST and _BEGINS.match(text) is None:
        return False
    return not text.encode("ascii").translate(None, _BASE64)


def _kind(path: Path, text: str, parent: dict[str, Any]) -> UnseenKind:
    """Of base64: by the media type beside it, by the members round it, by its beginning."""
    media = next((parent[name] for name in ("media_type", "mimeType", "mime_type") if name in parent), None)
    if isinstance(media, str) and media:
        return _of_media(media)
    holder = next((_HOLDERS[step] for step in reversed(path[-4:]) if isinstance(step, str) and step in _HOLDERS), None)
    return holder or _of_beginning(text)


def _of_media(media: str) -> UnseenKind:
    whole = media.lower()
    kinds: dict[str, UnseenKind] = {"image": "image", "audio": "audio", "video": "video", "text": "document"}
    return kinds.get(whole.partition("/")[0], "document" if whole == "application/pdf" else "binary")


def _of_beginning(text: str) -> UnseenKind:
    return next((kind for begin, kind in _MAGIC if text.startswith(begin)), "binary")
