"""Prices: equal to genai-prices' own for every model, None for what is not known, and no library in the gateway."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import types
from genai_prices.data import providers as their_providers
from genai_prices.data_snapshot import get_snapshot

from douane.call import Usage
from douane.errors import EnvironmentFailedError
from douane.pricerules import Rules
from douane.prices import Prices
from douane.rates import Rates

NOW = datetime(2026, 11, 20, 15, 30, tzinfo=UTC).timestamp()
LISTS = {"openai": "openai", "anthropic": "anthropic", "deepseek": "deepseek", "google": "google", "azure": "azure",
         "bedrock": "aws", "openrouter": "openrouter", "vllm": ""}
USAGES = (Usage(1000, 500), Usage(150_000, 1, cached_input=100_000), Usage(1), Usage(output=7), Usage(),
          Usage(5000, 800, cached_input=1000, cache_write=2000, cache_write_1h=500, reasoning=300),
          Usage(200_001, 10, cache_write=200_000, cache_write_1h=200_000), Usage(300_000, 3000, web_searches=3),
          Usage(272_000, 1), Usage(272_001, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("prices")
    Prices.open(made, LISTS)
    return made


@pytest.fixture(scope="module")
def prices(folder: Path) -> Prices:
    return Prices.open(folder, LISTS)


def names(provider: types.Provider) -> Iterator[str]:
    """Names that callers use: ids, and what the list's own matches are made of."""

    def of(clause: object) -> Iterator[str]:
        for kind in ("equals", "starts_with", "contains", "ends_with"):
            if text := getattr(clause, kind, None):
                yield from (text, text.upper(), f"{text}-20251211", f"{text}-2026-01-01")
        for inner in getattr(clause, "or_", None) or getattr(clause, "and_", None) or ():
            yield from of(inner)

    for model in provider.models:
        yield model.id
        yield from of(model.match)


def theirs(provider: str, model: str, usage: Usage, at: float, context: dict[str, str] | None = None) -> float:
    counted = TheirUsage(
        input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached_input,
        cache_write_tokens=usage.cache_write, cache_write_1h_tokens=usage.cache_write_1h,
        output_reasoning_tokens=usage.reasoning, web_searches=usage.web_searches, storage_searches=usage.file_searches,
        input_audio_tokens=usage.input_audio, cache_audio_read_tokens=usage.cached_audio,
        output_audio_tokens=usage.output_audio, input_image_tokens=usage.input_image,
        cache_image_read_tokens=usage.cached_image, output_image_tokens=usage.output_image, audio_seconds=usage.audio_seconds,
        input_audio_seconds=usage.audio_seconds, input_characters=usage.characters, input_document_pages=usage.pages)
    when = datetime.fromtimestamp(at, UTC)
    return float(get_snapshot().calc(counted, model, provider, None, when, context).total_price)


def unpriced(model: types.ModelInfo, usage: Usage, at: float) -> bool:
    rates = model.get_prices(datetime.fromtimestamp(at, UTC))
    return bool((usage.input and rates.input_mtok is None) or (usage.output and rates.output_mtok is None)
                or (usage.web_searches and rates.web_searches_kcount is None))


def check(prices: Prices, ours: str, id_: str, model: str, at: float) -> int:
    _, found = get_snapshot().find_provider_model(model, None, id_, None)
    checked = 0
    for usage in USAGES:
        cost = prices.cost(ours, model, usage, at)
        if unpriced(found, usage, at):
            assert cost is None, (model, usage)
        else:
            assert cost is not None, (model, usage)
            assert math.isclose(cost, theirs(id_, model, usage, at), rel_tol=1e-9), (model, usage)
            checked += 1
    return checked


@pytest.mark.parametrize("ours", ["openai", "anthropic", "deepseek"])
def test_every_model_of_the_list_costs_what_the_library_says(prices: Prices, ours: str) -> None:
    provider = next(provider for provider in their_providers if provider.id == LISTS[ours])
    seen = checked = 0
    for model in dict.fromkeys(names(provider)):
        try:
            _, found = get_snapshot().find_provider_model(model, None, provider.id, None)
        except LookupError:
            assert prices.known(ours, model) is None
            assert prices.cost(ours, model, Usage(1), NOW) is None
            continue
        assert prices.known(ours, model) == found.id
        checked += check(prices, ours, provider.id, model, NOW)
        seen += 1
    assert seen >= len(provider.models)
    assert checked > 5 * seen


@pytest.mark.parametrize("ours", ["openai", "anthropic", "deepseek", "google", "bedrock", "openrouter"])
def test_prices_that_change_with_the_calendar_and_the_hour(prices: Prices, ours: str) -> None:
    provider = next(provider for provider in their_providers if provider.id == LISTS[ours])
    moments = [datetime(2024, 1, 1, tzinfo=UTC).timestamp(), *(NOW + hour * 3600 for hour in range(0, 24, 5))]
    seen = 0
    for model in provider.models:
        if isinstance(model.prices, types.ModelPrice) or prices.known(ours, model.id) != model.id:
            continue
        for at in moments:
            cost = prices.cost(ours, model.id, Usage(1000, 500, cached_input=100), at)
            if cost is not None:
                expected = theirs(provider.id, model.id, Usage(1000, 500, cached_input=100), at)
                assert math.isclose(cost, expected, rel_tol=1e-9), (model.id, at)
                seen += 1
    assert seen > 5


def test_tiers_of_service(prices: Prices) -> None:
    seen = 0
    for ours, key in (("openai", "service_tier"), ("anthropic", "speed")):
        provider = next(provider for provider in their_providers if provider.id == ours)
        for model in provider.models:
            for tier in {value for variant in model.price_variants or () for value in variant.when.values()}:
                if not any(variant.when == {key: tier} for variant in model.price_variants or ()):
                    continue
                for usage in (Usage(1000, 500), Usage(300_000, 5, cached_input=7)):
                    cost = prices.cost(ours, model.id, usage, NOW, tier)
                    assert cost is not None
                    assert math.isclose(cost, theirs(ours, model.id, usage, NOW, {key: tier}), rel_tol=1e-9)
                    seen += 1
    assert seen > 50
    assert prices.cost("openai", "gpt-4o", Usage(9), NOW, "made up") == prices.cost("openai", "gpt-4o", Usage(9), NOW)


def test_models_of_another_provider_are_found_as_the_library_finds_them(prices: Prices) -> None:
    assert prices.known("azure", "gpt-4o") == "gpt-4o"
    assert check(prices, "azure", "azure", "claude-sonnet-4-5", NOW) > 5


SOUND = Usage(10_000, 3000, cached_input=1000, input_audio=4000, cached_audio=300, output_audio=1500, input_image=2000,
              cached_image=200, output_image=500)


@pytest.mark.parametrize(("ours", "keys", "usage", "least"), [
    ("openai", {"input_audio_mtok", "input_image_mtok"}, SOUND, 8),
    ("google", {"input_audio_mtok", "output_image_mtok"}, SOUND, 8),
    ("openai", {"input_audio_hours"}, Usage(audio_seconds=90.5), 2), ("groq", {"audio_hours"}, Usage(audio_seconds=7200), 1),
    ("openai", {"input_mchars"}, Usage(characters=12_345), 2), ("mistral", {"input_document_kpages"}, Usage(pages=7), 3),
    ("openai", {"storage_searches_kcount"}, Usage(1000, 10, file_searches=3), 20)])
def test_sound_pictures_and_pages_cost_what_the_library_says(folder: Path, ours: str, keys: set[str], usage: Usage,
                                                             least: int) -> None:
    prices = Prices.open(folder, {ours: ours})
    provider = next(provider for provider in their_providers if provider.id == ours)
    seen = 0
    for model in provider.models:
        if prices.known(ours, model.id) != model.id:
            continue  # the id of a family, that no call names
        _, found = get_snapshot().find_provider_model(model.id, None, provider.id, None)
        rates = found.get_prices(datetime.fromtimestamp(NOW, UTC))
        if not any(getattr(rates, key, None) is not None for key in keys) or unpriced(found, usage, NOW):
            continue
        cost = prices.cost(ours, model.id, usage, NOW)
        assert cost is not None, model.id
        assert math.isclose(cost, theirs(provider.id, model.id, usage, NOW), rel_tol=1e-9), model.id
        seen += 1
    assert seen >= least


def test_what_is_not_known_is_none(prices: Prices) -> None:
    for provider, model in (("openai", "no-such-model"), ("nobody", "gpt-4o"), ("vllm", "gpt-4o"), ("openai", ""),
                            ("openai", "gpt-4o" + "x" * 300)):
        assert prices.cost(provider, model, Usage(1, 1), NOW) is None
        assert prices.known(provider, model) is None
    assert prices.cost("openai", "text-embedding-3-small", Usage(5, 0), NOW)
    assert prices.cost("openai", "text-embedding-3-small", Usage(5, 5), NOW) is None
    assert prices.cost("openai", "whisper-1", Usage(5, 5), NOW) is None


def test_overrides_win_exact_before_glob(prices: Prices) -> None:
    own = prices.with_overrides(Rules.of({"llama3*": Rates(0, 0), "gpt-4o": Rates(3, 12, cached_input=1, web_search=10),
                                          "gpt-*": Rates(1, 1), "in-only": Rates(2)}))
    assert own.cost("ollama", "llama3.2:1b", Usage(10_000, 5), NOW) == 0.0
    assert own.cost("openai", "gpt-4o", Usage(1_000_000, 1_000_000, cached_input=500_000, web_searches=2), NOW) == (
        pytest.approx(1.5 + 0.5 + 12 + 0.02))
    assert own.cost("openai", "gpt-4.1", Usage(1_000_000, 0), NOW) == pytest.approx(1)
    assert own.cost("x", "in-only", Usage(1, 1), NOW) is None
    assert own.cost("anthropic", "claude-sonnet-4-5", Usage(9), NOW) == prices.cost(
        "anthropic", "claude-sonnet-4-5", Usage(9), NOW)
    assert own.known("ollama", "llama3.2:1b") == "llama3*"
    assert own.known("openai", "gpt-4o-2024-08-06") == "gpt-4o"
    assert Prices().known("openai", "gpt-4o") is None


def test_parts_beyond_their_whole_are_charged_as_they_are() -> None:
    own = Prices(Rules.of({"m": Rates(10, 10, cached_input=1)}))
    assert own.cost("p", "m", Usage(5, 0, cached_input=1_000_000), NOW) == pytest.approx(1)


def test_memory_is_bounded_whatever_callers_name(prices: Prices) -> None:
    own = prices.with_overrides(Rules())
    for number in range(9000):
        own.cost("openai", f"made-up-{number}", Usage(1), NOW)
        own.known("openai", f"made-up-{number}")
    assert len(own._cache) <= 4096
    assert len(own._found) <= 4096


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "changed", "garbage"])
def test_a_damaged_list_is_built_again(folder: Path, tmp_path: Path, damage: str) -> None:
    (whole,) = folder.iterdir()
    path = tmp_path / whole.name
    good = whole.read_bytes()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": good[:-500], "changed": good.replace(b"2.5", b"0.5", 1),
                          "garbage": b"\xff\n" * 9}[damage])
    assert Prices.open(tmp_path, LISTS).known("openai", "gpt-4o") == "gpt-4o"
    assert [entry.name for entry in tmp_path.iterdir()] == [whole.name]
    assert path.read_bytes() == good


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentFailedError, match="file"):
        Prices.open(tmp_path / "file", LISTS)


def test_the_gateway_never_imports_the_library(folder: Path) -> None:
    script = ("import sys, json; from pathlib import Path\n"
              "from douane.prices import Prices; from douane.call import Usage\n"
              f"p = Prices.open(Path({str(folder)!r}), {{'openai': 'openai'}})\n"
              "print(json.dumps([p.cost('openai', 'gpt-4o', Usage(9, 9), 1.8e9), 'genai_prices' in sys.modules,"
              " 'pydantic' in sys.modules]))")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    cost, library, pydantic = json.loads(done.stdout)
    assert cost > 0
    assert not library
    assert not pydantic


def test_a_price_costs_microseconds(prices: Prices) -> None:
    usage = Usage(1000, 500, cached_input=100)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(2000):
            prices.cost("openai", "gpt-4o", usage, NOW)
            prices.known("openai", "gpt-4o")
        best = min(best, (time.perf_counter() - start) / 2000)
    assert best < 20e-6
