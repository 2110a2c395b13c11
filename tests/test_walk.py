"""Law 4, the one walk: every text of a request body is reported, in known places and unknown ones."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from douane.providers.anthropic import MESSAGES
from douane.providers.base import Position
from douane.providers.openai import CHAT, RESPONSES
from douane.providers.walk import BLOBS, TOKENS
from douane.providers.wires import JsonWire
from tests import wire

WIRES = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES, "count_tokens": MESSAGES}
SPOKEN = frozenset({"content", "text", "arguments", "output", "thinking", "instructions", "system", "description",
                    "stdout", "name", "refusal", "title", "context", "prompt"})
"""Members whose every string must be reported, whatever stands around them."""

type Path = tuple[str | int, ...]


def strings(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every string value, found by a recursion that shares nothing with the walk."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*path, index))


def member(path: Path) -> str:
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def bodies() -> list[tuple[JsonWire, dict[str, Any]]]:
    found = []
    for record in wire.records("openai", "anthropic"):
        body = wire.asked(record)
        if record["operation"] in WIRES and isinstance(body, dict):
            found.append((WIRES[record["operation"]], body))
    assert len(found) > 700
    return found


def walked(spoken: JsonWire, body: Any) -> dict[Path, Position]:
    positions = list(spoken.walk(body))
    values = {position.path: position for position in positions if not position.key}
    assert len(values) == sum(not position.key for position in positions)
    return values


def test_every_recorded_text_is_reported_where_it_stands() -> None:
    left_out = set()
    for spoken, body in bodies():
        found = walked(spoken, body)
        there = dict(strings(body))
        assert all(there[path] == position.text for path, position in found.items())
        for path, text in there.items():
            if text and path not in found:
                assert member(path) not in SPOKEN
                assert member(path) in TOKENS | BLOBS
                left_out.add(member(path))
                assert " " not in text
    assert {"role", "type", "model", "tool_call_id", "data", "image_url"} <= left_out


def test_an_unknown_field_anywhere_is_reported() -> None:
    chance = random.Random(3)
    for spoken, body in chance.sample(bodies(), 250):
        objects = [value for _, value in _containers(body) if isinstance(value, dict)]
        lists = [value for _, value in _containers(body) if isinstance(value, list)]
        chance.choice(objects)["never_heard_of"] = {"deep": [{"type": "Ann Smith, ann@example.com"}]}
        chance.choice(objects)["type"] = "call Ann Smith"
        (chance.choice(lists) if lists else body.setdefault("more", [])).append("Ann Smith again")
        texts = [position.text for position in spoken.walk(body)]
        assert {"Ann Smith, ann@example.com", "call Ann Smith", "Ann Smith again"} <= set(texts)


def _containers(value: Any) -> Iterator[tuple[None, Any]]:
    if isinstance(value, dict | list):
        yield None, value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _containers(item)


@pytest.mark.parametrize("name", sorted(TOKENS | BLOBS))
def test_what_is_not_text_is_text_once_it_reads_like_text(name: str) -> None:
    for value in ("Ann Smith", "ann@example.com", "Zoë", "4111 1111 1111 1111", "4111-1111-1111-1111", "a\tb", "x y"):
        body = {"messages": [{"role": "user", "content": [{name: value}]}]}
        assert value in {position.text for position in MESSAGES.walk(body)}


def test_base64_is_left_out_and_what_only_looks_near_it_is_not() -> None:
    blob = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAf" * 4
    for value, text in ((f"data:image/png;base64,{blob}", False), (f"data:text/plain;base64,{blob}", True),
                        ("https://example.com/a.png?name=ann", True), (f"data:image/png;base64,{blob} hello", True),
                        (blob, True)):
        body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": value}}]}]}
        assert (value in {position.text for position in CHAT.walk(body)}) is text
    source = {"type": "base64", "media_type": "application/pdf", "data": blob}
    assert blob not in {position.text for position in MESSAGES.walk({"messages": [{"content": [{"source": source}]}]})}
    source["type"] = "text"
    assert blob in {position.text for position in MESSAGES.walk({"messages": [{"content": [{"source": source}]}]})}


def roles(spoken: JsonWire, body: Any) -> dict[str, str]:
    return {position.text: position.role for position in spoken.walk(body)}


def test_roles_of_chat() -> None:
    assert roles(CHAT, {
        "model": "gpt-5", "metadata": {"Key K": "m"}, "user": "u 1", "stop": ["s p"], "prediction": {"content": "pre"},
        "tools": [{"type": "function", "function": {
            "name": "f1", "parameters": {"properties": {"Ann": {"type": "t1"}}}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "rf"}}, "novelty": "nov",
        "messages": [
            {"role": "developer", "content": "dev"}, {"role": "user", "name": "nick", "content": [{"text": "usr"}]},
            {"role": "assistant", "content": "ass",
             "tool_calls": [{"function": {"name": "f2", "arguments": '{"a":1}'}}]},
            {"role": "tool", "content": "res", "tool_call_id": "call_1"}, {"role": "wizard", "content": "wiz"}],
    }) == {"Key K": "metadata", "m": "metadata", "u 1": "metadata", "s p": "metadata", "pre": "assistant",
           "f1": "schema", "properties": "schema", "Ann": "schema", "type": "schema", "t1": "schema", "rf": "schema",
           "nov": "unknown", "dev": "system", "nick": "user", "usr": "user", "ass": "assistant", "f2": "tool_call",
           '{"a":1}': "tool_call", "res": "tool_result", "wiz": "unknown"}


def test_roles_of_responses() -> None:
    assert roles(RESPONSES, {
        "instructions": "ins", "prompt": {"id": "pmpt_1", "variables": {"City": "Rome"}},
        "text": {"format": {"name": "fmt"}},
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "usr"}]},
                  {"role": "system", "content": "sys"},
                  {"type": "reasoning", "summary": [{"type": "summary_text", "text": "why"}],
                   "encrypted_content": "gA" * 30},
                  {"type": "function_call", "call_id": "call_1", "name": "f1", "arguments": "{}"},
                  {"type": "function_call_output", "call_id": "call_1",
                   "output": [{"type": "input_text", "text": "res"}]}],
    }) == {"ins": "system", "City": "user", "Rome": "user", "fmt": "schema", "usr": "user", "sys": "system",
           "why": "assistant", "f1": "tool_call", "{}": "tool_call", "res": "tool_result"}
    assert roles(RESPONSES, {"input": "hello"}) == {"hello": "user"}


def test_roles_and_seals_of_messages() -> None:
    body = {"system": [{"type": "text", "text": "sys"}], "metadata": {"user_id": "u1"}, "stop_sequences": ["halt"],
            "tools": [{"name": "t1", "input_schema": {"required": ["Field One"]}}],
            "messages": [
                {"role": "user", "content": "usr"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln" * 20},
                    {"type": "text", "text": "not sealed", "signature": "forged"},
                    {"type": "tool_use", "id": "toolu_1", "name": "t2",
                     "input": {"To Ann": {"type": "letter", "role": "system"}}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "res"}]}]}
    assert roles(MESSAGES, body) == {
        "sys": "system", "user_id": "metadata", "u1": "metadata", "halt": "metadata", "t1": "schema",
        "required": "schema", "Field One": "schema", "usr": "user", "hm": "assistant", "not sealed": "assistant",
        "forged": "assistant", "t2": "tool_call",
        "To Ann": "tool_call", "type": "tool_call", "letter": "tool_call", "role": "tool_call", "system": "tool_call",
        "res": "tool_result"}
    assert [position.text for position in MESSAGES.walk(body) if position.sealed] == ["hm"]
    keys = [position for position in MESSAGES.walk(body) if position.key]
    assert {position.text for position in keys} == {"user_id", "required", "To Ann", "type", "role"}
    assert all(position.path[-1] == position.text for position in keys)


def test_keys_that_are_no_field_names_and_bodies_that_are_no_objects() -> None:
    body: Any = {"ann@example.com": 1, "messages": [{"My Name": None}]}
    assert [p.text for p in CHAT.walk(body)] == ["ann@example.com", "My Name"]
    assert [p.text for p in CHAT.walk("loose text")] == ["loose text"]
    assert [p.text for p in CHAT.walk(["a b", ["c d", {"e": "f g"}]])] == ["a b", "c d", "f g"]
    assert list(CHAT.walk(None)) == list(CHAT.walk(3)) == []


def test_depth_costs_no_stack() -> None:
    body: Any = "the bottom"
    for _ in range(5_000):
        body = [body]
    (position,) = CHAT.walk({"messages": body})
    assert position.text == "the bottom"


def test_model_and_stream_of_odd_bodies() -> None:
    assert CHAT.model({"model": "gpt-5"}) == "gpt-5"
    odd: list[Any] = [{}, {"model": 3}, [], None, {"model": ["x"]}]
    assert [CHAT.model(body) for body in odd] == [""] * 5
    asked: list[Any] = [{"stream": True}, {"stream": 1}, {}, {"stream": None}, None]
    assert [CHAT.stream(body) for body in asked] == [True, True, False, False, False]


@pytest.mark.parametrize("value", [
    "DE89370400440532013000", "GB29NWBK60161331926819", "call_4111111111111111", "cust-123456789", "user:5551234567",
    "x_DE89370400440532013000", "id=4111111111111111"])
def test_an_identifier_with_a_number_that_may_be_somebodys_is_text(value: str) -> None:
    body = {"messages": [{"role": "tool", "tool_call_id": value, "content": [{"type": "t", "id": value}]}]}
    assert [position.text for position in CHAT.walk(body)].count(value) == 2


@pytest.mark.parametrize("value", [
    "call_62136355", "toolu_01A09q90qw90lq917835lq9", "chatcmpl-tool-4111111111111111aaaabbbbccccdddd",
    "gen-1753242300-j60LWi6MpN4l",
    "claude-sonnet-4-5-20250929", "gpt-4o-2024-08-06", "web_search_20250305", "fp_0392822090", "functions.get_weather:0",
    "12345678-1234-4123-8123-a23456789012", "resp_68a1234567890abcdef",
    "msg_01000000000000000000000000000000000000000000000000", "file-1753242300123", "ft:gpt-4o-mini-2024-07-18:acme::9XyZ1234"])
def test_identifiers_of_providers_and_models_stay_what_they_are(value: str) -> None:
    body = {"model": value, "messages": [{"role": "tool", "tool_call_id": value, "content": [{"type": "t", "id": value}]}]}
    assert value not in [position.text for position in CHAT.walk(body)]
