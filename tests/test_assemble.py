"""A stream becomes the document that its provider would have answered with; and every text of an answer is reported."""

import functools
import json
from collections.abc import Callable, Iterable
from typing import Any

import anthropic
import httpx2 as httpx  # the one that the SDKs speak
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.providers.anthropic import COUNT_TOKENS, MESSAGES
from douane.providers.assemble import events_of
from douane.providers.base import Position
from douane.providers.deltas import Channel, pieces
from douane.providers.openai import CHAT, RESPONSES
from douane.providers.walk import ANSWER_TOKENS, BLOBS
from douane.providers.wires import JsonWire
from tests import wire

WIRES = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}
COMPATIBLE = ("azure", "deepseek", "groq", "mistral", "openrouter")
"""Chat streams of others who speak the language, with members of their own."""

type Path = tuple[str | int, ...]


@functools.cache
def answers(*providers: str, stream: bool) -> list[tuple[str, bytes]]:
    """(operation, body) of the recorded answers."""
    return [(record["operation"], wire.answer(record)) for record in wire.records(*providers)
            if record["operation"] in WIRES and bool(record.get("stream")) is stream and record["response"]["status"] == 200]


def streams(operation: str = "") -> list[tuple[str, bytes]]:
    found = [one for one in answers("openai", "anthropic", stream=True) if operation in ("", one[0])]
    assert len(found) > 40
    return found


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def texts_of(events: Iterable[Any]) -> dict[Channel, str]:
    """What :func:`pieces` yields, joined by channel."""
    found: dict[Channel, str] = {}
    for event in events:
        for delta in filter(lambda one: one.text, pieces(event)):
            found[delta.channel] = found.get(delta.channel, "") + delta.text
    return found


OF_ITEMS = {"output_text": ("content", "text"), "refusal": ("content", "refusal"), "reasoning_text": ("content", "text"),
            "reasoning_summary_text": ("summary", "text"), "function_call_arguments": ("", "arguments"),
            "mcp_call_arguments": ("", "arguments"), "code_interpreter_call_code": ("", "code")}


def at(document: Any, path: Path) -> Any:
    return functools.reduce(lambda value, step: value[step], path, document)


def place(document: Any, channel: Channel) -> Any:
    """What stands in *document* where the format has the text of *channel*."""
    if channel[0] == "choice":
        choice = next(one for one in document["choices"] if one["index"] == channel[1])
        return at(choice, ("message", *channel[3:]) if channel[2] == "delta" else channel[2:])
    if channel[0] == "block":
        block = document["content"][channel[1]]
        return block["input"] if "input" in block else block["text"]
    _, output, content, summary, kind = channel
    members, text = OF_ITEMS[str(kind).split(".")[1]]
    item = document["output"][output]
    return at(item, (members, content if members == "content" else summary, text) if members else (text,))


def test_every_piece_stands_where_the_format_has_its_text() -> None:
    told = [*streams(), *(one for one in answers(*COMPATIBLE, stream=True) if one[0] == "chat")]
    seen = 0
    for operation, body in told:
        document = WIRES[operation].assembled(body)
        for channel, text in texts_of(events_of(body)).items():
            if channel[-1] in ("channel", "provider") or "annotations" in channel:
                continue  # the same again in each piece; whole in each piece
            held = place(document, channel)
            assert held == (text if isinstance(held, str) else orjson.loads(text))
            seen += 1
    assert seen > 200


def test_every_piece_is_reported() -> None:
    for operation, body in streams():
        spoken = WIRES[operation]
        document = spoken.assembled(body)
        said = [one for one in spoken.answered(document) if one.role in ("assistant", "tool_call")]
        joined = " ".join(one.text for one in said)
        whole = {one.text for one in said}
        for text in texts_of(events_of(body)).values():
            try:
                inside = [value for _, value in strings(orjson.loads(text))]
            except orjson.JSONDecodeError:
                inside = []
            assert text in whole or all(value in joined for value in inside)


def strings(value: Any, path: Path = ()) -> list[tuple[Path, str]]:
    """Every string value, found by a recursion that shares nothing with the walk."""
    if isinstance(value, str):
        return [(path, value)]
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inside for found in strings(item, (*path, key))]


SPOKEN = frozenset({"content", "text", "arguments", "output", "thinking", "refusal", "name", "reasoning", "message",
                    "cited_text", "title", "stdout", "code", "query", "reasoning_content", "instructions", "description",
                    "transcript"})


@pytest.mark.parametrize("stream", [False, True])
def test_every_recorded_text_of_an_answer_is_reported(stream: bool) -> None:
    left_out, count = set(), 0
    for operation, body in [*answers("openai", "anthropic", stream=stream), *answers(*COMPATIBLE, stream=stream)]:
        spoken = WIRES[operation]
        document = spoken.assembled(body) if stream else orjson.loads(body)
        positions = [one for one in spoken.answered(document) if not one.key]
        found = {one.path: one.text for one in positions}
        assert len(found) == len(positions)
        there = dict(strings(document))
        assert found.items() <= there.items()
        for path, text in there.items():
            if text and path not in found:
                member = next(step for step in reversed(path) if isinstance(step, str))
                assert member not in SPOKEN
                assert member in ANSWER_TOKENS | BLOBS | {"result"}
                assert " " not in text
                left_out.add(member)
        count += 1
    assert count > 150
    assert {"id", "model", "finish_reason", "system_fingerprint", "stop_reason", "encrypted_content"} <= left_out


def shapes(documents: list[Any], path: Path) -> list[set[str]]:
    """The keys of each object under *path*, in which 0 stands for the first of a list."""
    found = []
    for document in documents:
        try:
            found.append(set(at(document, path)))
        except (LookupError, TypeError):
            continue
    return found


@pytest.mark.parametrize(("operation", "path", "optional"), [
    ("chat", (), {"usage"}), ("chat", ("choices", 0), {"logprobs"}), ("chat", ("choices", 0, "message"), {"content"}),
    ("messages", (), set()), ("messages", ("content", 0), set()), ("messages", ("usage",), set()),
    ("responses", (), set()), ("responses", ("output", 0), set())])
def test_an_assembled_answer_has_the_members_of_one_that_was_not_streamed(
        operation: str, path: Path, optional: set[str]) -> None:
    plain = [orjson.loads(body) for one, body in answers("openai", "anthropic", stream=False) if one == operation]
    known = shapes(plain if operation != "responses" else [one for one in plain if one.get("object") == "response"], path)
    assembled = shapes([WIRES[operation].assembled(body) for _, body in streams(operation)], path)
    always, ever = set.intersection(*known), set.union(*known)
    others = {"native_finish_reason", "provider", "execution"}  # of OpenRouter, recorded as OpenAI; of a search for tools
    for keys in assembled:
        assert always - optional <= keys
        assert keys - others <= ever | {"reasoning_content", "reasoning"}


def test_kinds_are_those_of_whole_answers() -> None:
    for operation, kind in (("chat", ("object", "chat.completion")), ("responses", ("object", "response")),
                            ("messages", ("type", "message"))):
        for _, body in streams(operation):
            document = WIRES[operation].assembled(body)
            assert document is not None
            assert document[kind[0]] == kind[1]
            assert not {"events", "error", "obfuscation"} & {name for name, value in document.items() if value}


def without(body: bytes, *ends: str) -> list[Any]:
    return [event for event in events_of(body) if not event["type"].endswith(ends)]


def test_a_response_is_built_as_its_provider_built_it() -> None:
    """Without the event that has the whole; then without any event that has a whole part of it."""
    for _, body in streams("responses"):
        whole = RESPONSES.assembled(body)
        assert whole is not None
        built = RESPONSES.assembled(sse(*without(body, ".completed")))
        assert built is not None
        for document in (whole, built):
            for item in document["output"]:
                item.pop("encrypted_content", None)  # another cipher text of the same
        assert built["output"] == whole["output"]
        assert built["id"] == whole["id"]
        bare = RESPONSES.assembled(sse(*without(body, ".completed", ".done")))
        for channel, text in texts_of(events_of(body)).items():
            assert place(bare, channel) == place(whole, channel) == text


def test_a_stream_cut_after_any_event_gives_the_beginning() -> None:
    for operation, body in streams():
        spoken = WIRES[operation]
        edges = [len(event) for event in body.split(b"\n\n")]
        whole = spoken.assembled(body)
        step = max(1, len(edges) // 12)
        for count in range(1, len(edges), step):
            kept = b"\n\n".join(body.split(b"\n\n")[:count]) + b"\n\n"
            torn = kept + body[len(kept):len(kept) + 40]
            begun = spoken.assembled(kept)
            if begun is None:
                assert not list(events_of(kept))
                continue
            if body[len(kept):len(kept) + 40].count(b"\n\n") == 0:
                assert spoken.assembled(torn) == begun
            for channel, text in texts_of(events_of(kept)).items():
                held, full = place(begun, channel), place(whole, channel)
                if isinstance(held, str) and isinstance(full, str):
                    assert full.startswith(held)
                assert held == text or held == full == orjson.loads(text)


# The SDKs' own accumulators, which share nothing with ours.


def answering(body: bytes) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)))


def pruned(value: Any) -> Any:
    """Without members that are null, and without what the SDKs add."""
    if isinstance(value, dict):
        return {name: pruned(item) for name, item in value.items()
                if item is not None and name not in ("parsed", "parsed_arguments", "parsed_output", "index", "obfuscation")}
    return [pruned(item) for item in value] if isinstance(value, list) else value


def test_messages_are_those_of_the_anthropic_sdk() -> None:
    for _, body in streams("messages"):
        with (answering(body) as http, anthropic.Anthropic(api_key="none", http_client=http) as client,
              client.messages.stream(model="m", max_tokens=1, messages=[]) as stream):
            final = stream.get_final_message()
        assert pruned(MESSAGES.assembled(body)) == pruned(final.to_dict(mode="json"))


def test_completions_are_those_of_the_openai_sdk() -> None:
    seen = 0
    for _, body in streams("chat"):
        if b'"gen-' in body:
            continue  # OpenRouter repeats the role in each piece, and the SDK joins it
        with answering(body) as http, openai.OpenAI(api_key="none", http_client=http) as client:
            try:
                with client.chat.completions.stream(model="m", messages=[]) as stream:
                    final = stream.get_final_completion()
            except (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError):
                continue
        theirs = pruned(final.to_dict(mode="json"))
        ours = pruned(CHAT.assembled(body))
        assert {name: value for name, value in ours.items() if name in theirs or name not in ("usage", "moderation")} == theirs
        assert ours["choices"]
        seen += 1
    assert seen > 20


# What the recordings do not have.


def chunk(delta: Any, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": index, "delta": delta, "finish_reason": None} | more]}


def message_of(*chunks: Any) -> Any:
    document = CHAT.assembled(sse(*chunks))
    assert document is not None
    (choice,) = document["choices"]
    return choice["message"]


def test_choices_tool_calls_and_members_nobody_heard_of() -> None:
    document = CHAT.assembled(sse(
        chunk({"role": "assistant", "content": "a"}, 1), chunk({"role": "assistant", "content": None, "tool_calls": [
            {"index": 1, "id": "call_b", "type": "function", "function": {"name": "g", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "id": "call_a", "function": {"name": "f", "arguments": "{"}},
                              {"index": 1, "function": {"arguments": "[]"}}]}),
        chunk({"role": "assistant", "content": "b", "novelty": {"x": ["p"]}}, 1, logprobs={"content": [{"token": "b"}]}),
        chunk({"novelty": {"x": ["q"], "y": 2}}, 1, logprobs={"content": [{"token": "c"}], "refusal": None}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}, finish_reason="tool_calls"),
        {"object": "chat.completion.chunk", "choices": [], "usage": {"prompt_tokens": 3}}))
    assert document == {
        "object": "chat.completion", "usage": {"prompt_tokens": 3}, "choices": [
            {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": None, "tool_calls": [
                {"id": "call_a", "function": {"name": "f", "arguments": "{}"}},
                {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "[]"}}]}},
            {"index": 1, "finish_reason": None, "logprobs": {"content": [{"token": "b"}, {"token": "c"}], "refusal": None},
             "message": {"role": "assistant", "content": "ab", "novelty": {"x": ["p", "q"], "y": 2}}}]}


def test_pieces_without_an_index() -> None:
    """As Mistral (whole calls, typed parts) and Perplexity or OpenRouter (whole annotations) send them."""
    call = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
    other = {"id": "c2", "function": {"name": "f", "arguments": "[]"}}
    assert message_of(chunk({"tool_calls": [call]}), chunk({"tool_calls": [other]})) == {"tool_calls": [call, other]}
    begun = {"id": "c1", "function": {"name": "f", "arguments": "{"}}
    assert message_of(chunk({"tool_calls": [begun]}), chunk({"tool_calls": [{"function": {"arguments": "}"}}]}),
                      chunk({"tool_calls": [{"id": "c2", "function": {"name": "f", "arguments": "[]"}}]})) == {
                          "tool_calls": [call, other]}
    assert message_of(*(chunk({"content": [{"type": kind, "text": text}]}) for kind, text in (
        ("text", "Ann"), ("text", " Smith"), ("image", "x")))) == {
            "content": [{"type": "text", "text": "Ann Smith"}, {"type": "image", "text": "x"}]}
    noted = [{"type": "url_citation", "url": "https://a.example"}, {"type": "url_citation", "url": "https://b.example"}]
    assert message_of(*(chunk({"annotations": [one]}) for one in noted)) == {"annotations": noted}


def test_an_event_that_is_no_json_is_kept_but_for_a_torn_one() -> None:
    odd = ['{"choices":[{"delta":{"content":"Ann \\ud83d"}}]}', '{"choices":[{"logprobs":NaN}]}', "overloaded"]
    body = sse(chunk({"content": "a"})) + "".join(f"event: x\ndata: {one}\n\n" for one in odd).encode()
    document = CHAT.assembled(body + b"data: [DONE]\n\ndata: " + odd[0].encode()[:30])
    assert document is not None
    assert document["events"] == odd
    assert {one.text for one in CHAT.answered(document)} == {"a", *odd}
    assert document["choices"][0]["message"] == {"content": "a"}


def test_kinds_of_value_that_change_are_all_kept() -> None:
    assert message_of(chunk({"content": "a"}), chunk({"content": {"b": "c"}}), chunk({"content": ["d"]}), chunk({"content": 5}),
                      chunk({"content": "e"})) == {"content": ["a", {"b": "c"}, "d", "e"]}
    assert message_of(chunk({"content": 1}), chunk({"content": "e"})) == {"content": "e"}
    assert message_of(chunk("a"), chunk("b")) == "ab"


def test_a_text_without_a_message_and_a_message_given_whole() -> None:
    legacy = [{"object": "text_completion", "choices": [{"text": text, "index": 0, "finish_reason": None}]} for text in "ab"]
    assert CHAT.assembled(sse(*legacy)) == {"object": "text_completion", "choices": [
        {"index": 0, "text": "ab", "finish_reason": None}]}
    whole = {"role": "assistant", "content": "whole"}
    assert message_of(chunk({"content": "wh"}), {"choices": [{"index": 0, "message": whole}]}) == whole
    begun = [{"type": "message_start", "message": {"id": name, "content": ["x"]}} for name in ("one", "other")]
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "y"}}
    assert MESSAGES.assembled(sse(*begun, piece)) == {"id": "one", "content": ["x", {"text": "y"}], "events": begun[1:]}


@pytest.mark.parametrize(("spoken", "event", "error"), [
    (CHAT, {"error": {"message": "no Ann"}}, {"message": "no Ann"}),
    (CHAT, chunk({"content": "b"}) | {"error": {"code": 502}}, {"code": 502}),
    (MESSAGES, {"type": "error", "error": {"type": "overloaded_error"}, "request_id": "r"}, {"type": "overloaded_error"}),
    (RESPONSES, {"type": "error", "code": "c", "message": "m", "sequence_number": 3}, {"code": "c", "message": "m"}),
    (RESPONSES, {"error": {"message": "ours"}}, {"message": "ours"})])
def test_an_error_stands_beside_what_came_before_it(spoken: JsonWire, event: Any, error: Any) -> None:
    document = spoken.assembled(sse(chunk({"content": "a"}), {"type": "message_start", "message": {"id": "m"}},
                                    {"type": "response.created", "response": {"id": "r", "error": None}}, event, event))
    assert document is not None
    assert document["error"] == error
    assert {"error": error} in document["events"]
    assert (event in document["events"]) is (spoken is MESSAGES or event == {"error": error})  # for its request_id
    if spoken is CHAT:
        assert document["choices"][0]["message"]["content"].startswith("a")
    texts = {one.text for one in spoken.answered(document)}
    assert {value for value in error.values() if isinstance(value, str) and " " in value} <= texts


def test_a_message_in_all_its_parts() -> None:
    start: dict[str, Any] = {"type": "message_start", "message": {
        "id": "msg_1", "role": "assistant", "content": [], "stop_reason": None,
        "usage": {"input_tokens": 5, "output_tokens": 1}}}
    use = {"type": "tool_use", "name": "f", "input": {}}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({"type": "thinking", "thinking": "", "signature": ""}, [{"thinking": "h"}, {"thinking": "m"}, {"signature": "c2ln"}]),
        ({"type": "text", "text": ""}, [{"text": "a"}, {"citation": {"cited_text": "x"}}, {"citation": {"cited_text": "y"}}]),
        (dict(use), [{"partial_json": ""}, {"partial_json": '{"a"'}, {"partial_json": ":1}"}]),
        (dict(use), [{"partial_json": ""}]),
        ({"type": "novel", "parts": ["p1"]}, [{"novelty": "n1"}, {"novelty": "n2", "parts": ["p2"]}]),
        (dict(use), [{"partial_json": '{"cut'}])]
    events = [event for index, (block, deltas) in enumerate(blocks) for event in (
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": {"type": "some_delta"} | delta} for delta in deltas),
        {"type": "content_block_stop", "index": index})]
    document = MESSAGES.assembled(sse(start, *events, {"type": "ping"}, {
        "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "context_management": {"a": 1},
        "usage": {"input_tokens": None, "output_tokens": 9}}, {"type": "message_stop"}, {"type": "novelty", "text": "Ann S"}))
    assert document == {
        "id": "msg_1", "role": "assistant", "stop_reason": "end_turn", "stop_sequence": None, "context_management": {"a": 1},
        "usage": {"input_tokens": 5, "output_tokens": 9}, "events": [{"type": "novelty", "text": "Ann S"}], "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "text", "text": "a", "citations": [{"cited_text": "x"}, {"cited_text": "y"}]},
            {"type": "tool_use", "name": "f", "input": {"a": 1}}, {"type": "tool_use", "name": "f", "input": {}},
            {"type": "novel", "novelty": "n1n2", "parts": ["p1", "p2"]}, {"type": "tool_use", "name": "f", "input": '{"cut'}]}
    roles = {one.text: (one.role, one.sealed) for one in MESSAGES.answered(document) if not one.key}
    assert roles["hm"] == ("assistant", True)
    assert roles["a"] == ("assistant", False)
    assert roles["f"] == roles['{"cut'] == ("tool_call", False)
    assert roles["Ann S"] == ("unknown", False)


def test_a_response_in_pieces() -> None:
    def event(kind: str, **more: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "sequence_number": 1, **more}

    document = RESPONSES.assembled(sse(
        event("created", response={"id": "resp_1", "output": [], "status": "queued"}),
        event("in_progress", response={"id": "resp_1", "output": [], "status": "in_progress"}),
        event("output_item.added", output_index=1, item={"type": "message", "role": "assistant", "content": []}),
        event("output_text.delta", output_index=1, content_index=0, delta="A", logprobs=[{"token": "A"}]),
        event("output_text.delta", output_index=1, content_index=0, delta="nn", logprobs=[{"token": "nn"}]),
        event("refusal.delta", output_index=1, content_index=1, delta="no"),
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="why"),
        event("mcp_call.in_progress", output_index=2, item_id="x"),
        event("mcp_call_arguments.delta", output_index=2, delta="{"),
        event("mcp_call_arguments.done", output_index=2, arguments="{}"),
        event("novel_thing.delta", output_index=2, delta="n"), event("novel_thing.delta", output_index=2, delta="ew"),
        event("image_generation_call.partial_image", output_index=3, partial_image_b64="AAAA", partial_image_index=0),
        event("output_item.added", output_index=4, item={
            "content": [{"type": "output_text", "text": "B"}], "summary": "loose"}),
        event("output_text.delta", output_index=4, content_index=0, delta="ob"),
        event("reasoning_summary_text.delta", output_index=4, summary_index=1, delta="why"),
        event("output_text.annotation.added", output_index=4, content_index=0, annotation_index=0, annotation={"title": "T"}),
        event("output_item.added", output_index=4, item={"id": "again"}),
        event("novel_thing.done", output_index=2, whole="new")))
    assert document == {
        "id": "resp_1", "status": "in_progress", "output": [
            {"summary": [{"type": "summary_text", "text": "why"}]},
            {"type": "message", "role": "assistant", "content": [
                {"type": "output_text", "text": "Ann", "logprobs": [{"token": "A"}, {"token": "nn"}]},
                {"type": "refusal", "refusal": "no"}]},
            {"arguments": "{}", "novel_thing": "new"}, {"result": "AAAA"},
            {"content": [{"type": "output_text", "text": "Bob", "annotations": [{"title": "T"}]}], "summary": [
                "loose", {"type": "summary_text", "text": "why"}]}, {"id": "again"}],
        "events": [event("novel_thing.done", output_index=2, whole="new")]}
    whole = {"id": "resp_1", "status": "completed", "output": [{"type": "message", "content": [{"text": "whole"}]}]}
    assert RESPONSES.assembled(sse(event("output_text.delta", output_index=0, content_index=0, delta="w"),
                                   event("completed", response=whole))) == whole
    failed = {"id": "resp_1", "status": "failed", "output": [], "error": {"message": "m"}}
    document = RESPONSES.assembled(sse(event("output_text.delta", output_index=0, content_index=0, delta="x"),
                                       event("failed", response=failed)))
    assert document == failed | {"output": [{"content": [{"type": "output_text", "text": "x"}]}]}


def test_what_is_no_stream_of_events() -> None:
    for spoken in WIRES.values():
        nothing = (b"", b"data: hello\n\n", b"data: [DONE]\n\n", b": hello\n\n", b"<html>", b'data: {"a":')
        assert [spoken.assembled(body) for body in nothing] == [None] * 6
        assert spoken.assembled(b'data: "Ann Smith"\n\n')["events"] == ["Ann Smith"]  # type: ignore[index]
    assert COUNT_TOKENS.assembled(sse({"a": 1})) is None
    assert [one.role for one in COUNT_TOKENS.answered({"input_tokens": 3, "note": "x y", "error": {"message": "z"}})] == [
        "unknown", "unknown"]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_and_a_mark_at_the_start(ending: bytes) -> None:
    body = b"\xef\xbb\xbf" + sse(chunk({"content": "a"}), chunk({"content": "b"})) + b"event: x\nid: 1\ndata: " + json.dumps(
        chunk({"content": "c"})).encode()
    document = CHAT.assembled(body.replace(b"\n", ending))
    assert document is not None
    assert document["choices"][0]["message"] == {"content": "abc"}


def test_numbers_and_depths_that_are_too_large() -> None:
    document = CHAT.assembled(sse(chunk({"content": "a", "tool_calls": [{"index": 10**9, "id": "x"}]}, 10**9), chunk({}, -5)))
    assert document is not None
    assert [one["index"] for one in document["choices"]] == [-5, 10**9]
    assert document["choices"][1]["message"]["tool_calls"] == [{"id": "x"}]
    index = {"output_index": 10**9, "content_index": 10**9}
    document = RESPONSES.assembled(sse({"type": "response.output_text.delta", "delta": "a", **index}))
    assert document == {"output": [{"content": [{"type": "output_text", "text": "a"}]}]}
    for depth, kept in ((40, False), (200, True), (900, True)):
        deep = '{"choices":[{"delta":' + '{"a":' * depth + '"Ann Smith"' + "}" * depth + "}]}"
        document = CHAT.assembled(f"data: {deep}\n\n".encode())
        assert document is not None
        assert orjson.loads(orjson.dumps(document)) == document
        assert (document.get("events") == [deep]) is kept
        assert any("Ann Smith" in one.text for one in CHAT.answered(document))
    partial = '{"a":' * 900 + "1" + "}" * 900
    document = MESSAGES.assembled(sse({"type": "content_block_delta", "delta": {"partial_json": partial}}))
    assert document == {"content": [{"input": partial}]}
    many = b'{"choices":[' + b"{}," * 250_000 + b"{}]}"
    assert CHAT.assembled(b"data: " + many + b"\n\n") == {"choices": [], "events": [many.decode()]}


NAMES = ("type", "index", "delta", "choices", "content", "text", "tool_calls", "function", "arguments", "role", "id",
         "logprobs", "usage", "error", "message", "content_block", "partial_json", "citation", "input", "citations", "response",
         "output", "item", "output_index", "content_index", "part", "annotation", "annotations", "summary", "object", "x")
TYPES = ("message_start", "content_block_start", "content_block_delta", "message_delta", "error", "response.created",
         "response.completed", "response.output_item.added", "response.output_item.done", "response.output_text.delta",
         "response.output_text.done", "response.content_part.added", "response.output_text.annotation.added", "response.",
         "text")
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.just(10**9), st.just(10**30), st.just(0.5),
                   st.text(max_size=3), st.sampled_from(TYPES))


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)


VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=8)
EVENTS = st.one_of(
    VALUES, st.builds(lambda kind, more: {**more, "type": kind}, st.sampled_from(TYPES), objects(VALUES)),
    st.builds(lambda choices: {"choices": choices}, st.lists(objects(VALUES), max_size=3)))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(WIRES)), st.lists(EVENTS, max_size=6))
def test_no_event_raises(operation: str, events: list[Any]) -> None:
    spoken = WIRES[operation]
    document = spoken.assembled(sse(*events))
    assert (document is None) is (not events)
    assert orjson.loads(orjson.dumps(document)) == document
    assert all(isinstance(one, Position) and one.text for one in spoken.answered(document))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(WIRES)))
def test_no_bytes_raise(stream: bytes, operation: str) -> None:
    WIRES[operation].assembled(stream)
    WIRES[operation].assembled(b"data: {" + stream + b"\n\ndata: 1")


CALLS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.text(min_size=1, max_size=4)), max_size=30)


@settings(max_examples=150, deadline=None)
@given(CALLS)
def test_pieces_of_many_texts_interleaved(said: list[tuple[int, int, str]]) -> None:
    """Choice and tool call by number, in any order: each text is the sum of its own pieces, in every format."""
    expected: dict[tuple[int, int], str] = {}
    for choice, call, text in said:
        expected[choice, call] = expected.get((choice, call), "") + text
    makers: list[tuple[JsonWire, Callable[[int, int, str], Any]]] = [
        (CHAT, lambda a, b, text: chunk({"tool_calls": [{"index": b, "id": f"{b}", "function": {"arguments": text}}]}, a)),
        (MESSAGES, lambda a, b, text: {"type": "content_block_delta", "index": a * 3 + b, "delta": {"text": text}}),
        (RESPONSES, lambda a, b, text: {"type": "response.output_text.delta", "output_index": a, "content_index": b,
                                        "delta": text})]
    for spoken, maker in makers:
        document = spoken.assembled(sse(*(maker(*one) for one in said)))
        found = [one.text for one in spoken.answered(document) if one.role == ("tool_call" if spoken is CHAT else "assistant")
                 and one.path[-1] in ("arguments", "text")]
        assert found == [text for _, text in sorted(expected.items())]
