"""What a request is reserved at, against what providers counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.ledger.estimate import UNSEEN, count, family, input_bound, unseen
from douane.providers.framing import SSE
from tests import house
from tests.wire import answer, asked, records


@given(st.text(), st.text())
def test_it_never_exceeds_its_bytes_and_parts_add_up(a: str, b: str) -> None:
    assert count([a]) <= len(a.encode()) + 12
    assert count([a, b]) >= max(count([a]), count([b]))
    assert count([a, b]) <= count([a]) + count([b])


def test_kinds_of_signs() -> None:
    frame = count([""])
    assert count(["abc def ghi "]) - frame == 4
    assert count(["2024"]) - frame == 2
    assert count(["{}[]"]) - frame == 4
    assert count(["日本"]) - frame == 3
    assert count(["\udcff"]) > frame  # no encoding error


def test_letters_that_no_blanks_part_and_blanks_that_part_single_ones() -> None:
    frame = count([""])
    prose, random, single = "some words of ordinary length " * 40, "qzjxkvbwpfhg" * 100, "a b c d e f " * 100
    assert count([prose]) - frame == len(prose) // 3
    assert count([random]) - frame == len(random) * 2 // 3
    assert count([single]) - frame == 600


def test_what_no_text_shows_counts() -> None:
    document = {"previous_response_id": "resp_1", "tools": [{"type": "web_search"}, {"type": "function"}],
                "input": [{"content": [{"type": "input_image", "image_url": "data:"}]}]}
    assert unseen(document) == 3
    assert input_bound("openai", document, ()) >= 3 * UNSEEN
    assert unseen({"messages": [{"content": "image"}]}) == unseen([]) == unseen("x") == 0


@pytest.mark.parametrize(("document", "found"), [
    ({"tools": [{"googleSearch": {}}, {"functionDeclarations": [{}]}], "cachedContent": "cachedContents/1"}, 2),
    ({"contents": [{"parts": [{"inlineData": {"data": "x"}}, {"file_data": {"fileUri": "gs:"}}, {"text": "t"}]}]}, 2),
    ({"messages": [{"content": [{"image": {"format": "png", "source": {}}}, {"document": {"source": {}}}]}]}, 2),
    ({"messages": [{"content": "look", "images": ["x", "y"]}]}, 2),
    ({"tools": [{"toolSpec": {"name": "n"}}, {"name": "n", "input_schema": {"properties": {"image": {"type": "string"}}}}]}, 0),
    ({"model": "groq/compound"}, 4), ({"plugins": [{"id": "web"}]}, 1), ({"model": "gpt-4o", "tools": None}, 0)])
def test_what_no_text_shows_in_every_shape(document: dict[str, object], found: int) -> None:
    assert unseen(document) == found


def test_the_family_goes_by_the_model_where_another_serves_it() -> None:
    assert family("bedrock", "us.anthropic.claude-opus-4-1") == family("anthropic")
    assert family("bedrock", "amazon.nova-lite-v1:0") == family("google")
    assert family("cohere").base > 0
    texts = ["some words " * 100]
    assert input_bound("vertex", {}, texts, "claude-sonnet-4-5") > input_bound("vertex", {}, texts, "gemini-2.5-flash")


@pytest.mark.parametrize(("provider", "some"), [("openai", 380), ("anthropic", 200)])
def test_recorded_calls_are_reserved_at_what_they_came_to(provider: str, some: int) -> None:
    """99 of 100 whose texts show their size; nine of ten of the others (docs/budget.md)."""
    table = house.PROVIDERS[provider]
    enough, seen = [0, 0], [0, 0]
    for one in records(provider):
        row = next((row for row in table.operations if row.name == one["operation"] and row.wire), None)
        usage = None
        whole = one["response"]["status"] == 200 and not {"shortened", "body_truncated"} & set(one.get("flags", []))
        if row is not None and row.wire is not None and whole:
            meter = row.wire.meter(SSE if one["stream"] else None, ())
            meter.feed(answer(one))
            usage = meter.reading().usage
        if row is None or row.wire is None or usage is None or not usage.input:
            continue
        document = asked(one)
        hidden = unseen(document) > 0
        seen[hidden] += 1
        texts = (at.text for at in row.wire.walk(document))
        enough[hidden] += input_bound(provider, document, texts, row.wire.model(document)) >= usage.input
    assert seen[0] > some
    assert seen[1] > 10
    assert enough[0] / seen[0] >= 0.99, f"{enough} of {seen}"
    assert enough[1] / seen[1] >= 0.85, f"{enough} of {seen}"
