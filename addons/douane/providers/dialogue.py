"""How the two sides of a WebSocket talk: which frames ask, which answer, which text an answer's frames belong to.

Law: what a frame does is said by its ``type`` alone. A client's frame of a kind nobody heard of is text, like any other;
if it makes the provider answer, the answer itself says that it has begun, and is judged then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

__all__ = ["KEY_PROTOCOLS", "SOCKET", "Dialogue", "response_id", "without_keys"]

SOCKET = "WEBSOCKET"
"""The method of a row, and of a call, that is a WebSocket's: no HTTP client can send it."""

KEY_PROTOCOLS = ("openai-insecure-api-key.", "xai-client-secret.")
"""What a browser's app puts before its key in ``Sec-WebSocket-Protocol``, for it can set no header."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One operation's frames, each a JSON object with a ``type``."""

    asks: frozenset[str]
    """Of the client: each is answered by a response."""
    media: frozenset[str] = frozenset()
    """Of the client: sound, which the provider may answer by itself once it hears a pause."""
    taken: frozenset[str] = frozenset()
    """Of the provider: the sound was taken for speech, which will be answered."""
    heard: frozenset[str] = frozenset()
    """Of the provider: what was said in it."""
    sound: frozenset[str] = frozenset()
    """Of the provider: pieces of sound, in which there is nothing to restore and nothing for the log."""
    begins: str = "response.created"
    ends: frozenset[str] = frozenset({"response.done"})
    whole: bool = False
    """Whether a frame that asks holds all that is asked with, as a request does; else the session is one conversation."""
    error_ends: bool = False
    """Whether an ``error`` ends the response that is under way."""
    model: Callable[[Any], str] = lambda _: ""
    """The model that a client's frame names, empty where it names none."""
    listens: Callable[[Any], bool | None] = lambda _: None
    """Of a provider's frame: whether it answers sound by itself from now on; None: it does not say."""
    in_query: tuple[str, ...] = ("model", "deployment")
    """Where the handshake's query names the model."""

    def asked_for(self, query: str) -> str:
        """The model of a raw query."""
        named = dict(reversed(parse_qsl(query)))
        return next((named[name] for name in self.in_query if named.get(name)), "")


def response_id(document: Any) -> str:
    """The response that a provider's frame belongs to; empty where it does not say."""
    if not isinstance(document, dict):
        return ""
    inner = document.get("response")
    found = inner.get("id") if isinstance(inner, dict) else document.get("response_id")
    return found if isinstance(found, str) else ""


def without_keys(protocols: list[str]) -> tuple[list[str], str]:
    """The subprotocols that are none of a key's, and the key; empty where there is none."""
    keys = [name[len(one):] for name in protocols for one in KEY_PROTOCOLS if name.startswith(one)]
    return [name for name in protocols if not name.startswith(KEY_PROTOCOLS)], keys[0] if keys else ""
