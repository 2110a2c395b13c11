"""What a request is reserved at, against what providers counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.ledger.estimate import UNSEEN, count, input_bound, unseen
from douane.providers.framing import SSE
from tests import house
from tests.wire import answer, asked, records


@given(st.text(), st.text())
def test_it_grows_with_the_text_and_never_exceeds_its_bytes(a: str, b: str) -> None:
    assert count([a]) <= count([a + b])
    assert count([a]) <= len(a.encode()) + 12
    assert count([a, b]) >= max(count([a]), count([b]))


def test_kinds_of_signs() -> None:
    frame = count([""])
    assert count(["abc def ghi "]) - frame == 4
    assert count(["2024"]) - frame == 2
    assert count(["{}[]"]) - frame == 4
    assert count(["日本"]) - frame == 3
    assert count(["\udcff"]) > frame  # no encoding error


def test_what_no_text_shows_counts() -> None:
    document = {"previous_response_id": "resp_1", "tools": [{"type": "web_search"}, {"type": "function"}],
                "input": [{"content": [{"type": "input_image", "image_url": "data:"}]}]}
    assert unseen(document) == 3
    assert input_bound("openai", document, ()) >= 3 * UNSEEN
    assert unseen({"messages": [{"content": "image"}]}) == unseen([]) == unseen("x") == 0


@pytest.mark.parametrize(("provider", "least"), [("openai", 0.9), ("anthropic", 0.85)])
def test_most_recorded_calls_are_reserved_at_what_they_came_to(provider: str, least: float) -> None:
    table = house.PROVIDERS[provider]
    enough = seen = 0
    for one in records(provider):
        row = next((row for row in table.operations if row.name == one["operation"] and row.wire), None)
        usage = None
        whole = one["response"]["status"] == 200 and "shortened" not in one.get("flags", [])
        if row is not None and row.wire is not None and whole:
            meter = row.wire.meter(SSE if one["stream"] else None, ())
            meter.feed(answer(one))
            usage = meter.reading().usage
        if row is None or row.wire is None or usage is None or not usage.input:
            continue
        document = asked(one)
        seen += 1
        enough += input_bound(provider, document, (at.text for at in row.wire.walk(document))) >= usage.input
    assert seen > 200
    assert enough / seen >= least, f"{enough} of {seen}"
