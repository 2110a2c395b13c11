"""Usage that a provider tells only when it is asked: asked for, and the app none the wiser; usage that it does not tell:
counted."""

import itertools
import json
import random
import re
from dataclasses import replace
from typing import Any

import pytest

from douane.call import Call, Outcome, Usage
from douane.exchange import Exchange
from douane.ledger.charge import charge
from douane.policies.budget import Budget, parse_unbounded
from douane.policy import Setting
from douane.pricerules import Rules
from douane.prices import Prices
from douane.providers.ask_usage import UsageFilter, asking
from douane.providers.base import Operation, Provider
from douane.providers.edit import put
from douane.providers.framing import SSE as SSE_FRAMING
from douane.providers.table import builtin
from douane.rates import Rates
from douane.scopes import parse_scope
from douane.units import parse_limit
from tests import house, wire
from tests.house import ANTHROPIC, OPENAI, run
from tests.test_budget import Counter, Teller, asked, counter

__all__ = ["counter"]

SSE = ((b"content-type", b"text/event-stream; charset=utf-8"),)
CHUNK = '{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%s}}]%s}'
TOLD = '{"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}'


def event(data: str, end: str = "\n") -> bytes:
    return f"data: {data}{end}{end}".encode()


def stream(told: bool, end: str = "\n", gap: str = "") -> bytes:
    null = f',{gap}"usage":{gap}null' if told else ""
    texts = ['""', '"a \\",\\"usage\\":null b"', '"\\u00e9 é"', '"\\"usage\\""']
    chunks = [f": comment{end}{end}".encode(), *(event(CHUNK % (text, null), end) for text in texts)]
    return b"".join([*chunks, event(TOLD, end) if told else b"", event("[DONE]", end)])


def stripped(pieces: list[bytes], headers: Any = SSE) -> bytes:
    one = UsageFilter()
    one.headers(headers)
    return b"".join(map(one.feed, pieces)) + one.close()


def cuts(data: bytes, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    at = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(1, 40)))})
    return [data[a:b] for a, b in itertools.pairwise(at)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("gap", ["", " "])
def test_the_app_sees_the_stream_that_would_have_come(end: str, gap: str) -> None:
    came, would = stream(True, end, gap), stream(False, end, gap)
    for pieces in ([came], [came[at:at + 1] for at in range(len(came))], *(cuts(came, seed) for seed in range(200))):
        assert stripped(pieces) == would


def test_a_stream_without_what_we_asked_for_is_the_same_bytes() -> None:
    for data in (stream(False), b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n',
                 b'data: {"choices":[],"prompt_filter_results":[]}\n\n', b"data: no JSON \"usage\" \"choices\"\n\n",
                 b"data: {"):
        assert stripped([data[at:at + 3] for at in range(0, len(data), 3)]) == data


def test_what_is_no_stream_passes_as_it_is() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":1},"usage2":1,"x":{"usage":null}, "usage":null}'
    assert stripped([body[:9], body[9:]], ((b"content-type", b"application/json"),)) == body


def test_recorded_streams_that_tell_it_only_because_they_were_asked() -> None:
    seen = 0
    for record in wire.records("openai", "azure", "groq", "deepseek", "xai", "openrouter"):
        asked, came = wire.asked(record), wire.answer(record)
        options = asked.get("stream_options") if isinstance(asked, dict) else None
        if not (options or {}).get("include_usage") or b'"choices":[]' not in came:
            continue
        blocks = [block + b"\n\n" for block in came.split(b"\n\n") if block]
        would = b"".join(re.sub(rb',"usage":null', b"", block) for block in blocks
                         if not ('"choices":[]' in block.decode() and '"usage":{' in block.decode()))
        if not came.endswith(b"\n\n") or b"\r" in came or b": null" in came:
            continue
        seen += 1
        for pieces in ([came], *(cuts(came, seed) for seed in range(200 if seen <= 3 else 5))):
            assert stripped(pieces) == would
    assert seen


ASKED = [
    ('{"stream":true}', '{"stream_options":{"include_usage":true},"stream":true}'),
    ('{ "n":1.0, "stream": true , "stream_options" : null}',
     '{ "n":1.0, "stream": true , "stream_options" : {"include_usage":true}}'),
    ('{"stream":true,"stream_options":{}}', '{"stream":true,"stream_options":{"include_usage":true}}'),
    ('{"stream":true,"stream_options":{"include_obfuscation": false}}',
     '{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation": false}}'),
    ('{"stream":true,"stream_options":{"a":[{"include_usage":7}],"include_usage" : false }}',
     '{"stream":true,"stream_options":{"a":[{"include_usage":7}],"include_usage" : true }}'),
]


@pytest.mark.parametrize(("body", "wanted"), ASKED)
def test_it_is_asked_for_and_no_other_byte_moves(body: str, wanted: str) -> None:
    done = asking(body.encode(), json.loads(body))
    assert done is not None
    assert done[0].decode() == wanted
    assert done[1] == json.loads(wanted)


@pytest.mark.parametrize("body", ['{"stream":true,"stream_options":{"include_usage":true}}', '{"stream":false}', '{}', '[]',
                                  '{"stream":1}', '{"stream":true,"stream_options":7}',
                                  '{"stream":true,"stream_options":{"include_usage":"yes"}}'])
def test_it_is_not_asked_for(body: str) -> None:
    assert asking(body.encode(), json.loads(body)) is None


@pytest.mark.parametrize("bad", [b"[]", b"", b'{"a":7}', b'{"a":"{"}'])
def test_nothing_is_put_where_no_object_is(bad: bytes) -> None:
    with pytest.raises(ValueError, match="object"):
        put(bad, ("a", "b"), b"1")


# -- bounds --------------------------------------------------------------------------------------------------------

PROVIDERS = builtin()
ROWS = [(provider, row) for provider in PROVIDERS.values() for row in provider.operations]


def rule_of(counter: Counter, row: Operation, **more: Any) -> Any:
    nobody: Any = None
    rule = Budget(parse_scope("team"), parse_limit("1000000 USD total"), **more).bind(
        Setting(nobody, nobody, {}, lambda call: row.wire))
    return Teller(counter, rule, row)


FREE_METHODS = {"GET", "HEAD", "OPTIONS", "DELETE"}


def test_every_operation_is_declared_free_or_reserves(counter: Counter) -> None:
    left = []
    for number, (provider, row) in enumerate(ROWS):
        rule = rule_of(counter, row)
        call = asked(number=number, provider=provider.name, operation=row.name, method=row.method, document=None, body=b"{}",
                     model="unheard-of")
        run(rule.admit(call))
        if not rule.purses[call.id].reserved_usd:
            left.append((row.name, row.method))
            assert row.method in FREE_METHODS or row.name in ("models", "count_tokens"), (provider.name, row.name)
    assert left


def members(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


BOUNDED = [(provider, row) for provider, row in ROWS if row.wire is not None and row.wire.bound.stated and row.method == "POST"]


STATED = {path for _, row in BOUNDED if row.wire for path in row.wire.bound.stated}
INSERTED = {row.wire.bound.insert for _, row in BOUNDED if row.wire and row.wire.bound.insert}


@pytest.mark.parametrize("path", sorted(STATED, key=str))
def test_every_format_s_bound_is_held(counter: Counter, path: tuple[Any, ...]) -> None:
    provider, row = next((one, row) for one, row in BOUNDED if row.wire and path in row.wire.bound.stated)
    rule = rule_of(counter, row)
    few, many = (run(rule.held(asked(json.dumps(members(path, tokens)).encode(), number, provider=provider.name,
                                     operation=row.name, model="gpt-4o"))) for number, tokens in enumerate((0, 50_000)))
    assert many - few == 50_000 * 10_000


@pytest.mark.parametrize("path", sorted(INSERTED, key=str))
def test_every_format_s_bound_is_put_in(counter: Counter, path: tuple[Any, ...]) -> None:
    provider, row = next((one, row) for one, row in BOUNDED if row.wire and path == row.wire.bound.insert)
    rule = rule_of(counter, row, unbounded=parse_unbounded("insert 77"))
    for number, body in enumerate((b'{ "x":1.0}', b"{}", *([b'{"a":[{}], "%b" : {"k":"\\u00e9"} }' % path[0].encode()]
                                                            if len(path) > 1 else []))):
        verdict = run(rule.admit(asked(body, number, provider=provider.name, operation=row.name)))
        assert isinstance(verdict, Call)
        before, after = json.loads(body), verdict.document
        assert json.loads(verdict.body) == after
        for name in path:
            after = after[name]
        assert after == 77
        at = next(i for i, (a, b) in enumerate(zip(body, verdict.body, strict=False)) if a != b)
        rest = body[at:].lstrip()
        assert verdict.body.endswith(rest)
        assert before.keys() <= verdict.document.keys()


def test_choices_of_every_spelling_count(counter: Counter) -> None:
    cases = [("openai", "completions", {"max_tokens": 100, "best_of": 4, "n": 2, "prompt": ["a", "b", "c"]}, 1200),
             ("openai", "completions", {"max_tokens": 100, "prompt": [1, 2, 3]}, 100),
             ("google", "generate_content", {"generation_config": {"max_output_tokens": 100, "candidate_count": 3}}, 300),
             ("ollama", "ollama_chat", {"options": {"num_predict": -1}}, 4096)]
    for number, (name, operation, document, tokens) in enumerate(cases):
        row = next(row for row in PROVIDERS[name].operations if row.name == operation and row.method == "POST")
        call = asked(json.dumps(document).encode(), number, provider=name, operation=operation)
        amount = run(rule_of(counter, row).held(call))
        assert tokens * 10_000 <= amount < tokens * 10_000 + 3_000_000, document


def test_what_answers_no_text_is_held_for_its_input_alone(counter: Counter) -> None:
    row = next(row for row in PROVIDERS["openai"].operations if row.name == "embeddings")
    rule = rule_of(counter, row, unbounded=parse_unbounded("deny"))
    few = run(rule.held(asked(b'{"input":"x"}', 1, operation="embeddings")))
    many = run(rule.held(asked(json.dumps({"input": [[7] * 900, [7] * 100]}).encode(), 2, operation="embeddings")))
    assert few < 100_000
    assert many - few >= 990 * 1000


# -- counted -------------------------------------------------------------------------------------------------------


def broken_off(model: str, first: bytes, *, provider: Provider = OPENAI, operation: str = "chat",
               **members: Any) -> dict[str, Any]:
    """The outcome's record of a stream that the client left after *first*."""
    book = house.Book()
    row = next(row for row in provider.operations if row.name == operation)
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}], **members})
    call = asked(body.encode(), provider=provider.name, operation=operation, model=model, stream=True)

    async def live() -> None:
        gate = house.gate(house.chain(), book)
        gate.prices = Prices(Rules.of({model: Rates(1.0, 10.0)}))
        one = Exchange(gate, provider, row, call)
        assert await one.admit(call) is None
        one.forward()
        one.start(200, SSE)
        one.feed(first)
        await one.finish("client_disconnected")

    run(live())
    return book.outcome


def test_a_stream_that_is_left_is_counted() -> None:
    short = broken_off("gpt-4o", event(CHUNK % ('"hello"', "")))
    long = broken_off("gpt-4o", event(CHUNK % (json.dumps("some words " * 500), "")))
    assert all(one["estimated"] and one["counted"] for one in (short, long))
    assert short["usage"]["input"] > 0
    assert short["usage"]["output"] < 256 + 100
    assert 1000 < long["usage"]["output"] - short["usage"]["output"] < 3000
    assert long["cost_usd"] is not None


@pytest.mark.parametrize(("model", "more"), [
    ("o3-mini", {}), ("gpt-5", {}), ("unheard-of", {}), ("gpt-4o-search-preview", {}), ("gpt-4o", {"reasoning_effort": "low"}),
    ("gpt-4o", {"tools": [{"type": "web_search"}]})])
def test_what_may_think_unseen_keeps_its_reservation(model: str, more: dict[str, Any]) -> None:
    said = broken_off(model, event(CHUNK % ('"hello"', "")), **more)
    assert said["estimated"]
    assert said["usage"]["output"] > 0
    assert "counted" not in said


def test_who_hangs_up_after_anthropic_s_first_event_pays_what_may_have_been_made() -> None:
    start = {"type": "message_start", "message": {
        "id": "m", "type": "message", "role": "assistant", "model": "claude-3-5-haiku-20241022", "content": [],
        "usage": {"input_tokens": 1000, "cache_read_input_tokens": 500, "output_tokens": 1}}}
    first = f"event: message_start\ndata: {json.dumps(start)}\n\n".encode()
    plain = broken_off("claude-3-5-haiku-20241022", first, provider=ANTHROPIC, operation="messages", max_tokens=9000)
    assert plain["counted"], plain
    assert (plain["usage"]["input"], plain["usage"]["cached_input"]) == (1500, 500)
    assert plain["usage"]["output"] > 256
    thinking = broken_off("claude-3-7-sonnet-20250219", first, provider=ANTHROPIC, operation="messages", max_tokens=9000,
                          thinking={"type": "enabled", "budget_tokens": 2000})
    assert "counted" not in thinking
    assert thinking["estimated"]


def test_a_counted_cost_is_charged_and_any_other_estimate_is_not() -> None:
    outcome = Outcome("client_disconnected", 200, Usage(1, 1), estimated=True, cost_usd=3e-7)
    assert charge(outcome).of("usd", 1000) == 1000
    assert charge(replace(outcome, counted=True)).of("usd", 1000) == 300


def test_cumulative_counts_overwrite() -> None:
    """Usage told twice over, as streams that count as they go do, is the last of it and no sum."""
    seen = 0
    for record in wire.records("anthropic", "google", "openai"):
        row = PROVIDERS["anthropic" if "anthropic.com" in wire.url(record).netloc else "openai"].operation(
            record["request"]["method"], wire.url(record).path)
        came = wire.answer(record)
        if row is None or row.wire is None or b"data:" not in came[:400] or b"\r" in came or not came.endswith(b"\n\n"):
            continue
        once, twice = row.wire.meter(SSE_FRAMING, ()), row.wire.meter(SSE_FRAMING, ())
        once.feed(came)
        for block in came.split(b"\n\n")[:-1]:
            twice.feed(block + b"\n\n")
            twice.feed(block + b"\n\n")
        if once.reading().usage is not None:
            seen += 1
            assert twice.reading().usage == once.reading().usage
    assert seen
