"""One model, many names: each finds the price, and no name finds another provider's."""

import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from douane.call import Usage
from douane.modelnames import spellings
from douane.prices import Prices
from douane.providers.table import builtin
from tests.wire import asked, records, url

NOW = 1_795_188_600.0
LISTS = {"openai": "openai", "anthropic": "anthropic", "google": "google", "vertex": "google", "azure": "azure",
         "bedrock": "aws", "cohere": "cohere", "mistral": "mistral", "groq": "groq", "openrouter": "openrouter",
         "huggingface": "huggingface", "xai": "x-ai", "deepseek": "deepseek", "together": "together", "cerebras": "cerebras",
         "zai": "zai", "voyage": "voyageai", "fireworks": "fireworks", "perplexity": "perplexity",
         "replicate": "replicate"}
"""Our name → the price list's, of every provider that the list has."""


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Prices:
    return Prices.open(tmp_path_factory.mktemp("prices"), LISTS)


def test_the_table_of_providers_says_the_same() -> None:
    said = {name: provider.prices for name, provider in builtin().items() if provider.prices}
    assert said == {name: LISTS[name] for name in said}


@pytest.mark.parametrize(("provider", "model", "same"), [
    ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
     "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("bedrock", "arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
    ("bedrock", "apac.amazon.nova-micro-v1:0", "amazon.nova-micro-v1:0"),
    ("bedrock", "openai.gpt-oss-120b", "openai.gpt-oss-120b-1:0"),
    ("vertex", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
    ("vertex", "publishers/anthropic/models/claude-opus-4-1@20250805", "claude-opus-4-1"),
    ("vertex", "projects/p/locations/global/publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
    ("vertex", "google/gemini-2.5-flash", "gemini-2.5-flash"),
    ("google", "models/gemini-2.5-flash", "gemini-2.5-flash"),
    ("azure", "gpt-35-turbo", "gpt-3.5-turbo"), ("azure", "gpt-5.2_2025-12-11", "gpt-5.2"),
    ("openrouter", "openai/gpt-4o:online", "openai/gpt-4o"),
    ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
])
def test_a_name_costs_what_the_model_does(prices: Prices, provider: str, model: str, same: str) -> None:
    cost = prices.cost(provider, same, Usage(1000, 1000), NOW)
    assert cost
    assert prices.cost(provider, model, Usage(1000, 1000), NOW) == cost
    assert prices.known(provider, model) == prices.known(provider, same)


def test_what_is_resold_costs_what_its_vendor_asks(prices: Prices) -> None:
    usage = Usage(1000, 1000)
    assert prices.known("openrouter", "anthropic/claude-3-5-sonnet-20241022") == "claude-3-5-sonnet"
    assert prices.cost("huggingface", "deepseek-ai/DeepSeek-R1:together", usage, NOW)
    assert prices.cost("bedrock", "anthropic.claude-v2:1", usage, NOW) == prices.cost("anthropic", "claude-2", usage, NOW)


@pytest.mark.parametrize(("provider", "model"), [
    ("bedrock", "arn:aws:bedrock:us-east-1:1:application-inference-profile/a1b2c3"), ("openai", "openai/gpt-4o"),
    ("bedrock", "arn:aws:bedrock:us-east-1:1:provisioned-model/x"), ("google", "tunedModels/mine"), ("openai", "us.gpt-4o"),
    ("huggingface", "deepseek-ai/DeepSeek-R1"), ("openrouter", "openrouter/auto"), ("groq", "x" * 300), ("azure", "")])
def test_what_says_nothing_of_its_model_is_not_known(prices: Prices, provider: str, model: str) -> None:
    assert prices.cost(provider, model, Usage(1, 1), NOW) is None


def test_the_name_as_it_came_is_looked_up_first() -> None:
    assert spellings("", "a/b@c") == (("", "a/b@c"),)
    for book in ("aws", "google", "openrouter", "azure", "huggingface", "openai"):
        assert spellings(book, "some.model-1")[0] == (book, "some.model-1")


PRICED = {"chat", "responses", "messages", "complete", "completions", "embeddings", "generate_content", "converse", "invoke"}


def model(record: dict[str, Any]) -> tuple[str, str]:
    """(the answer's name, that which was asked for)."""
    document, answer = asked(record), None
    with contextlib.suppress(ValueError):
        answer = json.loads(record["response"].get("body") or "null")
    path = [unquote(part) for part in url(record).path.split("/")]
    name = document.get("model") if isinstance(document, dict) else None
    for before in ("models", "model", "deployments"):
        if name is None and before in path:
            name = re.sub(r":(?:[a-z]+[A-Z]|predict)\w*$", "", path[path.index(before) + 1])
    said = answer.get("model") or answer.get("modelVersion") if isinstance(answer, dict) else None
    return (said if isinstance(said, str) else "", name if isinstance(name, str) else "")


def test_recorded_replies_find_their_price(prices: Prices) -> None:
    """Every successful reply of a priced operation by a provider with a list; what is unknown stands by name in the list
    of this test's message, so that one can look."""
    seen, lacking = 0, Counter[tuple[str, str]]()
    for record in records():
        if record["provider"] not in LISTS or record["operation"] not in PRICED or record["response"]["status"] != 200:
            continue
        said, wanted = model(record)
        seen += 1
        if prices.bill(record["provider"], (said, wanted), Usage(1000), NOW).ceiling:
            lacking[record["provider"], wanted] += 1
    assert seen > 1200
    assert sum(lacking.values()) <= seen * 0.04, dict(lacking)


def test_the_list_is_read_from_where_it_is_kept(tmp_path: Path, prices: Prices) -> None:
    assert Prices.open(tmp_path, {"openai": "openai"}).known("anthropic", "claude-opus-4-1") is None
    assert prices.known("anthropic", "claude-opus-4-1") == "claude-opus-4-1"
