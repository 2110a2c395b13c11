"""``prices:`` of policy files: which line goes first, where aliases lead, what a discount lowers, what the ceiling is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from douane.call import Usage
from douane.errors import ConfigError
from douane.pricerules import Rules, parse_ceiling, parse_percent, read_prices
from douane.prices import BATCH, Bill, Prices
from douane.source import Problems, parse

NOW = 1_795_188_600.0
PROVIDERS = ("openai", "azure", "bedrock", "openrouter", "ollama", "anthropic")
LISTS = {"openai": "openai", "azure": "azure", "bedrock": "aws", "openrouter": "openrouter", "anthropic": "anthropic"}
MILLION = Usage(1_000_000, 1_000_000)


def rules(text: str) -> Rules:
    problems = Problems()
    table = parse("p.yaml", text.encode(), problems)
    assert table is not None
    found = read_prices(table.entries, PROVIDERS, problems)
    problems.raise_any()
    return found


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Prices:
    return Prices.open(tmp_path_factory.mktemp("prices"), LISTS)


type Priced = Callable[[str], Prices]


@pytest.fixture
def priced(listed: Prices) -> Priced:
    return lambda text: listed.with_overrides(rules(text))


def test_provider_and_name_then_name_then_globs_in_their_order(priced: Priced) -> None:
    prices = priced("gpt-*: {input: 5, output: 0}\ngpt-4o*: {input: 4, output: 0}\ngpt-4o: {input: 3, output: 0}\n"
                    "openai/gpt-4o: {input: 2, output: 0}\nopenai/*: {input: 1, output: 0}\n")
    costs = [prices.cost(provider, model, Usage(1_000_000), NOW) for provider, model in (
        ("openai", "gpt-4o"), ("azure", "GPT-4o"), ("azure", "gpt-4o-mini"), ("openai", "o1"), ("azure", "o1"))]
    assert costs[:4] == [2, 3, 5, 1]
    assert costs[4] not in (None, 1), "another provider's line"


def test_what_stands_before_a_slash_is_a_provider_only_where_there_is_such_a_one(priced: Priced) -> None:
    prices = priced("openai/gpt-4o: 0\nmeta/llama: {input: 7, output: 0}\nopenrouter/openai/gpt-4o: {input: 8, output: 0}\n")
    assert prices.cost("openai", "gpt-4o", MILLION, NOW) == 0
    assert prices.cost("ollama", "meta/llama", Usage(1_000_000), NOW) == 7
    assert prices.cost("openrouter", "openai/gpt-4o", Usage(1_000_000), NOW) == 8


def test_a_line_for_a_model_holds_for_all_its_spellings(priced: Priced) -> None:
    prices = priced("bedrock/amazon.nova-lite-v1:0: 0\n")
    for model in ("amazon.nova-lite-v1:0", "eu.amazon.nova-lite-v1%3A0",
                  "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0"):
        assert prices.cost("bedrock", model, MILLION, NOW) == 0


def test_free_is_free_of_everything(priced: Priced) -> None:
    usage = Usage(9, 9, web_searches=3, audio_seconds=60, characters=5, pages=2, file_searches=1, output_audio=4)
    assert priced("ollama/*: 0\n").bill("ollama", ("llama3.2:1b",), usage, NOW) == Bill(0.0, ceiling=False)
    assert priced("ollama/*: 0\n").bill("openai", ("llama3.2:1b",), usage, NOW).ceiling


def test_an_alias_is_followed_and_lowered(priced: Priced, listed: Prices) -> None:
    prices = priced("azure/prod: {as: openai/gpt-4o}\nazure/cheap: {as: azure/prod, discount: 20%}\nlocal-copy: {as: gpt-4o}\n"
                    "ollama/*: {as: openai/*}\n"
                    "'bedrock/arn:aws:bedrock:us-east-1:1:application-inference-profile/x1': {as: amazon.nova-lite-v1:0}\n")
    whole = listed.cost("openai", "gpt-4o", MILLION, NOW)
    assert whole
    assert prices.cost("azure", "prod", MILLION, NOW) == whole
    assert prices.cost("azure", "cheap", MILLION, NOW) == pytest.approx(whole * 0.8)
    assert prices.cost("openai", "local-copy", MILLION, NOW) == whole
    assert prices.cost("ollama", "gpt-4o", MILLION, NOW) == whole
    profile = "arn:aws:bedrock:us-east-1:1:application-inference-profile/x1"
    assert prices.cost("bedrock", profile, MILLION, NOW) == listed.cost("bedrock", "amazon.nova-lite-v1:0", MILLION, NOW)
    assert prices.known("azure", "prod") == "gpt-4o"
    quote = prices.quote("azure", "cheap", NOW)
    assert ([rule.key for rule in quote.rules], quote.book, quote.factor) == (["azure/cheap", "azure/prod"], "openai", 0.8)


def test_a_discount_alone_lowers_the_list_and_no_price_of_ones_own(priced: Priced, listed: Prices) -> None:
    prices = priced("azure/*: {discount: 10%}\nazure/gpt-4o: {discount: 25%}\nazure/mine: {input: 3, output: 3}\n"
                    "azure/prod: {as: openai/gpt-4o}\nazure/dear: {as: openai/gpt-4o, discount: 0%}\n")
    whole = listed.cost("azure", "gpt-4o", MILLION, NOW)
    assert whole
    assert prices.cost("azure", "gpt-4o", MILLION, NOW) == pytest.approx(whole * 0.75)
    assert prices.cost("azure", "mine", MILLION, NOW) == 6
    assert prices.cost("azure", "prod", MILLION, NOW) == pytest.approx(whole * 0.9)
    assert prices.cost("azure", "dear", MILLION, NOW) == whole
    assert prices.cost("openai", "gpt-4o", MILLION, NOW) == whole


def test_a_batch_costs_what_the_list_says_else_the_share_that_is_set(priced: Priced, listed: Prices) -> None:
    prices = priced("batch: 40%\nmine: {input: 10, output: 0}\n")
    standard = listed.cost("openai", "gpt-4o", MILLION, NOW)
    assert standard
    assert prices.cost("openai", "gpt-4o", MILLION, NOW, BATCH) == pytest.approx(standard / 2), "the list's own"
    assert prices.cost("openai", "mine", Usage(1_000_000), NOW, BATCH) == pytest.approx(4)
    nova = listed.cost("bedrock", "amazon.nova-lite-v1:0", MILLION, NOW)
    assert nova
    assert listed.cost("bedrock", "amazon.nova-lite-v1:0", MILLION, NOW, BATCH) == pytest.approx(nova / 2)


def test_what_is_unknown_costs_the_ceiling_and_says_so(priced: Priced, listed: Prices) -> None:
    usage = Usage(600_000, 400_000, 100_000)
    assert listed.bill("openai", ("unheard-of", ""), usage, NOW) == Bill(75.0, ceiling=True)
    assert priced("unknown: 30 USD/million\n").bill("openai", ("unheard-of",), usage, NOW) == Bill(30.0, ceiling=True)
    assert listed.bill("openai", ("unheard-of",), Usage(web_searches=1, pages=1), NOW).usd == pytest.approx(0.15)
    assert listed.bill("openai", ("unheard-of",), Usage(audio_seconds=10, characters=100), NOW).usd == pytest.approx(0.0375)
    embedded = listed.bill("openai", ("text-embedding-3-small",), Usage(1_000_000, 1_000_000), NOW)
    assert embedded.ceiling
    assert embedded.usd == pytest.approx(0.02 + 75), "what is known of it at its price, the rest at the ceiling"


def test_the_answers_name_goes_before_the_one_asked_for_but_a_policys_line_before_both(priced: Priced, listed: Prices) -> None:
    given = listed.cost("openai", "gpt-4o-mini", MILLION, NOW)
    assert given
    assert listed.bill("openai", ("gpt-4o-mini", "gpt-4o"), MILLION, NOW) == Bill(given, ceiling=False)
    assert listed.bill("openai", ("snapshot-7", "gpt-4o-mini"), MILLION, NOW) == Bill(given, ceiling=False)
    prices = priced("my-deployment: {input: 1, output: 1}\nopenai/*: {discount: 50%}\n")
    assert prices.bill("openai", ("gpt-4o-mini", "my-deployment"), MILLION, NOW) == Bill(2.0, ceiling=False)
    assert prices.bill("openai", ("gpt-4o-mini", "gpt-4o"), MILLION, NOW).usd == pytest.approx(given / 2)


@pytest.mark.parametrize(("text", "said"), [
    ("m: {as: ''}", "p.yaml:1: prices.m.as: names nothing"),
    ("a: 0\nm: {as: x, input: 1}", "p.yaml:2: prices.m: `as` and `discount` stand alone or together, not beside a price"),
    ("m: {discount: 20}", "p.yaml:1: prices.m.discount: a share is a number from 0 to 100 with %, such as 20%"),
    ("m: {discount: 101%}", "prices.m.discount: a share is"),
    ("m: {as: 4}", "prices.m.as: a number is not allowed here"),
    ("m: {as: m}", "p.yaml:1: prices.m: as: leads back to itself"),
    ("a: {as: b}\nopenai/b: 0\nb: {as: c}\nc: {as: a}", "a → b → c → a"),
    ("azure/*: {as: azure/x}", "prices.azure/*: as: leads back to itself"),
    ("unknown: 0 USD/million", "p.yaml:1: prices.unknown: a ceiling is an amount above 0"),
    ("unknown: 0", "prices.unknown: a ceiling is an amount above 0"),
    ("batch: half", "prices.batch: a share is"),
    ("m: {input: 1, output: 1, page: -1}", "prices.m: a price is 0 or more"),
    ("m: 0.5", "prices.m: a single number may only be 0"),
    ("m: {input: 1, output: 1, per_minute: 3}", "there is no key `per_minute`"),
])
def test_wrong_lines_are_refused_with_their_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rules(text)
    assert said in str(refused.value)
    assert max(line.count("→") for line in str(refused.value).splitlines()) <= 3, "a circle is told once"


def test_spellings_of_shares_and_ceilings() -> None:
    assert (parse_percent("12.5 %"), parse_percent("0%"), parse_ceiling("0.5 USD / million")) == (0.125, 0.0, 0.5)


def test_a_line_without_a_target_on_the_list_is_at_the_ceiling(priced: Priced) -> None:
    prices = priced("azure/prod: {as: openai/gpt-40}\n")
    assert prices.bill("azure", ("prod",), MILLION, NOW).ceiling
    assert prices.quote("azure", "prod", NOW).tariff is None


def test_no_gateway_file_is_needed(tmp_path: Path) -> None:
    assert Prices(rules("m: {input: 1, output: 1}\n")).bill("openai", ("m",), MILLION, NOW) == Bill(2.0, ceiling=False)
