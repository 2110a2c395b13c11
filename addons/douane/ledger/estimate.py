"""How many tokens a request's texts may come to: a bound from their bytes, with no tokenizer.

No BPE makes more tokens than bytes, but texts are reserved at what they come to by experience, not at four times that:
each kind of byte at a share that held on the recordings of ``shared/wire`` (tests/test_estimate.py measures it), times
a factor for the provider's family (notes/wire.md "Estimate against recorded usage": OpenAI 1.02, Claude 1.4 and 650
tokens for tools). What is no text (pictures, files, a history that the provider keeps) counts UNSEEN tokens each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_letters, digits
from typing import Any

__all__ = ["UNSEEN", "Family", "count", "family", "input_bound", "unseen"]

UNSEEN = 4096
"""Tokens for each thing in a request whose size nobody can tell from its text."""

_WORDS = (ascii_letters + " ").encode()
_DIGITS = digits.encode()
_ASCII = bytes(range(128))
_PER_CALL = 64
"""Tokens that a provider adds to any call."""
_PER_TEXT = 8
"""Tokens for the frame round each text: role, separators, the member that holds it."""
_KINDS = frozenset({"image_url", "input_image", "image", "input_file", "file", "document", "input_audio", "container_upload"})
_PLAIN_TOOLS = frozenset({"function", "custom", None})
_HISTORIES = ("previous_response_id", "conversation", "prompt", "container")


@dataclass(frozen=True, slots=True)
class Family:
    factor: float
    tools: int = 0
    """Tokens for the provider's own words where tools are given."""


_FAMILIES = {"anthropic": Family(1.4, 650), "openai": Family(1.02, 200)}
_OTHERS = Family(1.3, 650)


def family(provider: str) -> Family:
    """By a built-in provider's name; others at the margin measured for Gemini, with tools as Claude has them."""
    return _FAMILIES.get(provider, _OTHERS)


def count(texts: Iterable[str]) -> int:
    """Tokens of *texts*, rounded up: a third of the letters and blanks, half of the digits and of what is not ASCII (UTF-8
    bytes), each other sign; and the frame round each."""
    thirds = halves = ones = frames = 0
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        other = data.translate(None, _WORDS)
        signs = other.translate(None, _DIGITS)
        ascii_signs = len(signs) if data.isascii() else len(signs) - len(signs.translate(None, _ASCII))
        thirds += len(data) - len(other)
        halves += len(other) - ascii_signs
        ones += ascii_signs
        frames += _PER_TEXT
    return (thirds + 2) // 3 + (halves + 1) // 2 + ones + frames


def unseen(document: Any) -> int:
    """How many things of *document* have tokens that no text shows: pictures and files, a history or prompt kept by the
    provider, tools that the provider runs. Iterative: depth costs no stack."""
    found, waiting = 0, [document]
    if isinstance(document, dict):
        found = sum(1 for name in _HISTORIES if document.get(name))
        for name in ("tools", "mcp_servers"):
            listed = document.get(name)
            if isinstance(listed, list):
                found += sum(1 for one in listed if isinstance(one, dict) and one.get("type") not in _PLAIN_TOOLS)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str) and kind in _KINDS:
                found += 1
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found


def input_bound(provider: str, document: Any, texts: Iterable[str]) -> int:
    """Tokens that a request with *document* and these *texts* is reserved at."""
    of = family(provider)
    tools = of.tools if isinstance(document, dict) and (document.get("tools") or document.get("functions")) else 0
    return int(count(texts) * of.factor) + _PER_CALL + tools + unseen(document) * UNSEEN
