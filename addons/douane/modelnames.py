"""The names under which one model goes: providers put regions, accounts, vendors and versions before and behind them.

:func:`spellings` is the one place that knows. A caller's name is taken apart only where the provider itself would: what
OpenRouter calls ``vendor/model`` is no model of Bedrock's. Nothing here asks whether a name exists.
"""

import re
from urllib.parse import unquote

__all__ = ["LONGEST", "spellings"]

LONGEST = 256
"""Characters of a name that is looked up."""

type Spelling = tuple[str, str]
"""Id in the price list (genai-prices), and the model's name there."""

_REGION = re.compile(r"(?:us|eu|apac|jp|au|ca|sa|us-gov|global)\.(?=[a-z0-9-]+\.)")
_VENDORS = {"anthropic": "anthropic", "openai": "openai", "google": "google", "deepseek": "deepseek", "mistralai": "mistral",
            "x-ai": "x-ai", "cohere": "cohere", "z-ai": "zai", "perplexity": "perplexity", "moonshotai": "moonshotai"}
"""OpenRouter's vendors → their own lists, at whose prices it resells."""
_CLAUDE_2 = re.compile(r"anthropic\.claude-(v2(?::1)?|instant-v1)(?::|$)")


def spellings(book: str, model: str) -> tuple[Spelling, ...]:
    """The lists and names under which *model* may stand, the first that is known being right. *book*: the id of its
    provider's price list; empty: it has none, and the name is all there is.

    >>> spellings("aws", "arn:aws:bedrock:us-east-1:1:inference-profile/eu.amazon.nova-lite-v1:0")[-1]
    ('aws', 'amazon.nova-lite-v1:0')"""
    name = (unquote(model) if "%" in model else model)[:LONGEST + 1]
    if book == "aws":
        found = _bedrock(name)
    elif book == "google":
        found = [(book, one) for one in _google(name)]
    elif book == "openrouter":
        found = _openrouter(name)
    elif book == "azure":
        found = [(book, name), (book, name.replace("_", "-"))]
    elif book == "huggingface":
        org, colon, host = name.rpartition(":")
        found = [(f"huggingface_{host}", org), (book, org)] if colon else [(book, name)]
    else:
        found = [(book, name)]
    return tuple(dict.fromkeys([(book, name), *found]))


def _bedrock(name: str) -> list[Spelling]:
    """Ids, inference profiles of a region (``us.``…), ARNs of either. An application's own profile or a provisioned model
    says nothing of its model: an alias must."""
    names = [name]
    if name.startswith("arn:"):
        kind, _, tail = name.rpartition("/")
        if kind.endswith((":inference-profile", ":foundation-model")):
            names.append(tail)
    plain = _REGION.sub("", names[-1], count=1)
    if plain != names[-1]:
        names.append(plain)
    found = [("aws", one) for one in names]
    if ":" not in plain:
        found.append(("aws", f"{plain}-1:0"))  # the ids of the other endpoint, bedrock-mantle
    if old := _CLAUDE_2.match(plain):
        found.append(("anthropic", "claude-instant-1.2" if old[1].startswith("instant") else "claude-2"))
    return found


def _google(name: str) -> list[str]:
    """``models/M``, ``publishers/google/models/M``, ``projects/…/publishers/P/models/M``, ``google/M``, ``M@20250101``."""
    tail = name.rpartition("models/")[2] if re.search(r"(?:^|/)models/", name) else name.removeprefix("google/")
    plain, at, day = tail.partition("@")
    return [tail, f"{plain}-{day}", plain] if at else [tail]


def _openrouter(name: str) -> list[Spelling]:
    """``vendor/model:variant``: a variant without a price of its own costs what the model does, at its vendor's price where
    OpenRouter's is not known."""
    plain = name.partition(":")[0]
    vendor, slash, model = plain.partition("/")
    found = [("openrouter", plain)]
    if slash and vendor in _VENDORS:
        found.append((_VENDORS[vendor], model))
    return found
