"""How many tokens a request's texts may come to: a bound from their bytes, with no tokenizer.

No BPE makes more tokens than bytes, but texts are reserved at what they come to by experience, not at four times that:
each kind of byte at a share that held on the recordings of ``shared/wire`` (tests/test_estimate.py measures it;
docs/budget.md has the table), times a factor for the provider's family. What is no text (pictures, files, a history that
the provider keeps) counts UNSEEN tokens each.

A tokenizer was measured against this and left out: rs-bpe with o200k counts OpenAI's texts to 2 %, but needs as
wide a margin for Claude's and Gemini's, whose own are not published, and costs 1.4 ms and 71 MB where this costs 20 µs a
20 KB prompt. The excess is held for the seconds of the call and given back when the answer has told its usage.
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
_WORD, _LONG = 12, 64
"""Letters to a blank in words of any tongue, at most; letters that may stand without one."""
_PER_CALL = 64
"""Tokens that a provider adds to any call."""
_PER_TEXT = 8
"""Tokens for the frame round each text: role, separators, the member that holds it."""
_KINDS = frozenset({"image_url", "input_image", "image", "input_file", "file", "document", "document_url", "input_audio",
                    "container_upload", "compaction", "item_reference"})
"""``type`` of parts whose size no text shows."""
_HOLDERS = frozenset({"inlineData", "inline_data", "fileData", "file_data"})
"""Members that hold such a part (Gemini)."""
_SOURCED = frozenset({"image", "document", "video", "audio"})
"""Members that do where their value has a ``source`` (Bedrock converse)."""
_PLAIN_TOOLS = frozenset({"function", "custom"})
_PLAIN_MEMBERS = frozenset({"functionDeclarations", "function_declarations", "function", "name", "toolSpec", "cachePoint",
                            "parameter_definitions"})
"""A tool without a type is the caller's own where it has one of these."""
_TOOLS = ("tools", "functions", "toolConfig")
_HISTORIES = ("previous_response_id", "conversation", "container", "cachedContent", "cached_content")
_AGENTS = ("compound", "deep-research")
"""Models that search and call themselves before they answer; they count as AGENT_CALLS unseen things."""
_AGENT_CALLS = 4


@dataclass(frozen=True, slots=True)
class Family:
    factor: float
    tools: int = 0
    """Tokens for the provider's own words where tools are given."""
    base: int = 0
    """Tokens for the provider's own words in any call."""


_FAMILIES = {"anthropic": Family(1.4, 650), "openai": Family(1.02, 200), "cohere": Family(1.3, 900, 550)}
_OTHERS = Family(1.3, 650)


def family(provider: str, model: str = "") -> Family:
    """By a built-in provider's name, or by the model where another serves it; the rest at the margin measured for Gemini, with
    tools as Claude has them."""
    if "claude" in model:
        return _FAMILIES["anthropic"]
    return _FAMILIES.get(provider, _OTHERS)


def count(texts: Iterable[str]) -> int:
    """Tokens of *texts*, rounded up: a third of the letters and blanks, half of the digits and of what is not ASCII (UTF-8
    bytes), each other sign; two thirds of letters that no blanks part (base64, random names); no fewer than there are blanks;
    and the frame round each."""
    given = list(texts)
    excess = parted = 0
    for text in given:
        blanks = text.count(" ")
        parted += blanks
        if len(text) > _LONG + _WORD * blanks:  # there may be as many letters
            letters = _letters(text.encode("utf-8", "surrogatepass"))
            if letters > _LONG + _WORD * blanks:
                excess += letters - _WORD * blanks
    data = "".join(given).encode("utf-8", "surrogatepass")
    other = data.translate(None, _WORDS)
    signs = other.translate(None, _DIGITS)
    ones = len(signs) if data.isascii() else len(signs) - len(signs.translate(None, _ASCII))
    thirds, halves = len(data) - len(other) + excess, len(other) - ones
    return max((thirds + 2) // 3, parted) + (halves + 1) // 2 + ones + _PER_TEXT * len(given)


def _letters(data: bytes) -> int:
    """And blanks."""
    return len(data) - len(data.translate(None, _WORDS))


def unseen(document: Any) -> int:
    """How many things of *document* have tokens that no text shows: pictures and files, a history or prompt kept by the
    provider, tools that the provider runs. Iterative: depth costs no stack."""
    found, waiting = 0, [document]
    if isinstance(document, dict):
        found = sum(1 for name in _HISTORIES if document.get(name)) + isinstance(document.get("prompt"), dict)
        for name in ("tools", "mcp_servers", "plugins"):
            listed = document.get(name)
            if isinstance(listed, list):
                found += sum(1 for one in listed if isinstance(one, dict) and _hosted(one))
        model = document.get("model")
        if isinstance(model, str) and any(name in model for name in _AGENTS):
            found += _AGENT_CALLS
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            kind = value.get("type")
            if type(kind) is str and kind in _KINDS:
                found += 1
            for name, one in value.items():
                of = type(one)
                if of is dict:
                    found += name in _HOLDERS or (name in _SOURCED and "source" in one)
                    waiting.append(one)
                elif of is list:
                    found += len(one) if name == "images" else 0
                    waiting.append(one)
        elif type(value) is list:
            waiting += [one for one in value if type(one) is dict or type(one) is list]
    return found


def _hosted(tool: dict[str, Any]) -> bool:
    kind = tool.get("type")
    return not tool.keys() & _PLAIN_MEMBERS if kind is None else kind not in _PLAIN_TOOLS


def input_bound(provider: str, document: Any, texts: Iterable[str], model: str = "") -> int:
    """Tokens that a request with *document* and these *texts* is reserved at."""
    of = family(provider, model)
    tools = of.tools if isinstance(document, dict) and any(map(document.get, _TOOLS)) else 0
    return int(count(texts) * of.factor) + _PER_CALL + of.base + tools + unseen(document) * UNSEEN
