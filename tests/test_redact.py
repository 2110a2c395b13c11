"""``redact``: what leaves, what comes back, what is recorded; in front of a plain scanner, and in a real gateway."""

import asyncio
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import anthropic
import jiter
import openai
import pytest

from douane.call import Call, Principal
from douane.demo.provider import LocalProvider
from douane.detect import ScanFailedError, Span
from douane.detect.memory import Keys
from douane.people import People, Tokens, Vaulted
from douane.placeholders import LOOKS_LIKE, DataKey
from douane.policies.redact import Redact, _Redact
from douane.policy import Setting
from douane.providers import base
from douane.providers.table import builtin
from douane.redaction import read_text
from douane.verdict import ALLOW, Allow, Deny, Rewrite
from tests import house
from tests.gateway import Gateway, Wire, forms, policy, request, running_gateway
from tests.test_pauses import turns

KEY = DataKey(b"k" * 32)
WIRES = {(name, row.name): row.wire for name, one in builtin().items() for row in one.operations if row.wire}


def wire_of(call: Call) -> base.Wire | None:
    return WIRES.get((call.provider, call.operation))


MAIL = "ann.lee@example.com"


class Plain:
    """A scanner that finds e-mail addresses, long numbers and ``O"Brien``."""

    kinds = (("EMAIL_ADDRESS", re.compile(r"[\w.+-]+@[\w-]+\.\w+")), ("CARD", re.compile(r"\d{12,}")),
             ("PERSON", re.compile(r'O"Brien\\?')))

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.known: list[str] = []

    def know(self, keys: Keys, texts: Sequence[str]) -> None:
        self.known += texts

    async def scan(self, keys: Keys, texts: Sequence[str], roles: Sequence[str]) -> list[tuple[Span, ...]]:
        assert len(roles) == len(texts)
        self.asked.append((keys.tenant, tuple(texts)))
        if self.fails:
            raise ScanFailedError("late")
        return [tuple(sorted((Span(kind, *match.span(), 1.0) for kind, form in self.kinds for match in form.finditer(text)),
                             key=lambda span: span.start)) for text in texts]


def redact(action: Literal["placeholder", "mask", "hash"] = "placeholder", *, restore: bool = True,
           scanner: Plain | None = None) -> _Redact:
    return _Redact(scanner or Plain(), wire_of, KEY, action, restore)  # type: ignore[arg-type]


def ask(document: Any, provider: str = "openai", operation: str = "chat", **more: Any) -> Call:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return house.call(provider=provider, operation=operation, body=body, document=jiter.from_json(body),
                      principal=Principal("bot", "t", "acme"), **more)


def rewritten(call: Call, one: _Redact | None = None) -> Rewrite:
    verdict = house.run((one or redact()).admit(call))
    assert isinstance(verdict, Rewrite)
    return verdict


def user(text: str) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}


def test_a_body_that_cannot_be_searched_is_refused_and_none_is_not() -> None:
    """An operation that is not read, let through by ``unknown_operations: allow``: what is in its body, nobody knows."""
    unread = house.call(operation="unknown", body=f"to {MAIL}".encode(), document=None)
    verdict = house.run(redact().admit(unread))
    assert isinstance(verdict, Deny)
    assert verdict.code == "uninspectable"
    assert house.run(redact().admit(replace(unread, body=b""))) == ALLOW


def test_nothing_found_changes_nothing() -> None:
    call = ask(user("hello"))
    assert house.run(redact().admit(call)) is ALLOW
    assert redact().filter(call) is None


def test_only_the_string_changes() -> None:
    body = b'{ "model":"gpt-4o", "n":1.0,\n"messages":[{"content": "to ' + MAIL.encode() + b'!", "role":"user"}] }'
    after = rewritten(ask(body)).call
    (placeholder,) = after.originals
    assert after.body == body.replace(MAIL.encode(), placeholder.encode())
    assert after.document == json.loads(after.body)
    assert after.originals[placeholder] == MAIL
    assert MAIL not in repr(after)


def test_a_text_written_in_two_ways_is_replaced_in_both() -> None:
    escaped = MAIL.replace("@", "\\u0040")
    body = f'{{"model": "gpt-4o", "user": "{MAIL}", "messages": [{{"role": "user", "content": "{escaped}"}}]}}'.encode()
    after = rewritten(ask(body)).call
    (placeholder,) = after.originals
    assert after.document["user"] == after.document["messages"][0]["content"] == placeholder
    hidden = f'{{"model": "gpt-4o", "messages": [{{"role": "user", "content": "{escaped}"}}]}}'.encode()
    assert rewritten(ask(hidden)).call.document["messages"][0]["content"] == placeholder


def test_the_same_text_where_it_must_stay_is_not_taken_for_the_one_that_goes() -> None:
    thinking = {"type": "thinking", "thinking": MAIL, "signature": "s" * 64}
    messages = [{"role": "assistant", "content": [thinking]}, {"role": "user", "content": "HERE"}]
    body = json.dumps({"model": "claude", "max_tokens": 9, "messages": messages}).replace("HERE", MAIL.replace("@", "\\u0040"))
    after = rewritten(ask(body.encode(), "anthropic", "messages")).call
    assert after.document["messages"][0]["content"] == [thinking]
    assert after.document["messages"][1]["content"] in after.originals


def test_every_position_is_scanned_and_named_without_users_keys() -> None:
    call = ask({"model": "gpt-4o", "metadata": {MAIL: "x", "k": MAIL}, "messages": [
        {"role": "system", "content": MAIL}, {"role": "user", "content": [{"type": "text", "text": f"{MAIL} {MAIL}"}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {
            "name": "f", "arguments": json.dumps({"to": MAIL})}}]},
        {"role": "tool", "tool_call_id": "c", "content": MAIL}]})
    verdict = rewritten(call)
    assert MAIL.encode() not in verdict.call.body
    (finding,) = verdict.findings
    assert (finding.policy, finding.type, finding.count) == ("redact", "EMAIL_ADDRESS", 7)
    assert set(finding.where) == {
        "$.metadata.*~", "$.metadata.*", "$.messages[0].content", "$.messages[1].content[0].text",
        "$.messages[2].tool_calls[0].function.arguments", "$.messages[3].content"}


def test_the_tenant_is_told() -> None:
    scanner = Plain()
    rewritten(ask(user(MAIL)), redact(scanner=scanner))
    assert {tenant for tenant, _ in scanner.asked} == {"acme"}


@pytest.mark.parametrize("arguments", [
    '{"to": "ann.lee\\u0040example.com"}', '{"n":1.0,  "to":"x ann.lee@example.com\\n"}',
    '{"ann.lee@example.com": [{"a": null}]}',
    '{"card": 4111111111111111, "z": 1}', '["O\\"Brien\\\\"]', '{"to": "{\\"a\\": \\"ann.lee@example.com\\"}"}'])
def test_arguments_stay_json_and_hide_nothing(arguments: str) -> None:
    call = ask({"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]}]})
    after = rewritten(call).call
    new = after.document["messages"][0]["tool_calls"][0]["function"]["arguments"]
    document = json.dumps(json.loads(new))
    assert not any(form.search(document) for _, form in Plain.kinds)
    assert LOOKS_LIKE.search(document)
    for placeholder, value in after.originals.items():
        new = new.replace(placeholder, json.dumps(value)[1:-1])
    if "card" not in arguments:
        assert json.loads(new) == json.loads(arguments)


def test_text_that_only_begins_like_json_is_text() -> None:
    assert rewritten(ask(user("{not json " + MAIL))).call.document["messages"][0]["content"].startswith("{not json <EMAIL")
    assert len(read_text('{"a": 1, "a": 2}').scanned) == 1


def test_signed_thinking_is_found_and_left() -> None:
    block = {"type": "thinking", "thinking": MAIL, "signature": "c2ln"}
    call = ask({"model": "m", "messages": [{"role": "assistant", "content": [block]}]}, "anthropic", "messages")
    verdict = house.run(redact().admit(call))
    assert isinstance(verdict, Allow)
    assert verdict.findings[0].where == ("$.messages[0].content[0].thinking",)


def test_a_scan_that_fails_raises() -> None:
    with pytest.raises(ScanFailedError):
        house.run(redact(scanner=Plain(fails=True)).admit(ask(user(MAIL))))


def test_a_compressed_body_goes_on_uncompressed() -> None:
    body = json.dumps(user(MAIL)).encode()
    call = replace(ask(body), body=gzip.compress(body), headers=((b"content-encoding", b"gzip"), (b"a", b"b")))
    after = rewritten(call).call
    assert after.headers == ((b"a", b"b"),)
    assert json.loads(after.body) == after.document


def test_what_was_redacted_need_not_be_searched_again() -> None:
    """The log looks at the rewritten text next; what stands for a value by another action may look like one."""
    scanner = Plain()
    (placeholder,) = rewritten(ask(user(f"I am {MAIL}, {MAIL}")), redact(scanner=scanner)).call.originals
    assert scanner.known == [f"I am {placeholder}, {placeholder}"]
    other = Plain()
    rewritten(ask(user(f"I am {MAIL}")), redact("hash", scanner=other))
    assert other.known == []


@pytest.mark.parametrize("written", [str, json.dumps])
def test_others_have_their_turn_while_thousands_of_values_are_replaced(written: Callable[[object], str]) -> None:
    values = [f"ann{number}@example.com" for number in range(8000)]
    call = ask(user(written(values)))
    verdict: list[Any] = []

    async def admit() -> None:
        verdict.append(await redact().admit(call))

    assert asyncio.run(turns(admit())) >= 8
    assert len(verdict[0].call.originals) == len(values)


def test_mask_and_hash_do_not_come_back() -> None:
    masked = rewritten(ask(user(MAIL)), redact("mask", restore=False)).call
    assert masked.document["messages"][0]["content"] == "*" * len(MAIL)
    hashed = [rewritten(ask(user(MAIL)), redact("hash", restore=False)).call.document["messages"][0]["content"] for _ in "ab"]
    assert re.fullmatch("[0-9a-f]{64}", hashed[0])
    assert hashed[0] == hashed[1] != hashlib.sha256(MAIL.encode()).hexdigest()
    assert not masked.originals
    assert redact(restore=False).filter(rewritten(ask(user(MAIL)), redact(restore=False)).call) is None


def test_a_later_turn_begins_with_the_bytes_of_the_earlier() -> None:
    """What makes the provider's prompt cache hit."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": f"You are {MAIL}."}]
    before = ""
    for number in range(6):
        turns.append({"role": "user", "content": f"{number}: write to {MAIL} and bob{number}@example.com"})
        text = rewritten(ask({"model": "gpt-4o", "messages": turns})).call.body.decode().removesuffix("]}")
        assert text.startswith(before)
        assert "@example" not in text
        before = text
        turns.append({"role": "assistant", "content": f"Done, {MAIL}, {number}."})


def by_names(call: Call, allow: tuple[str, ...] = ()) -> Call:
    """*call* as a scanner of names leaves it that carries them on."""
    setting = Setting(People([], Tokens()), Vaulted(()), {}, wire_of, KEY)
    verdict = house.run(Redact(entities=("PERSON",), allow=allow).bind(setting).admit(call), 20)
    return verdict.call if isinstance(verdict, Rewrite) else call


@pytest.mark.parametrize("head", [["system", "messages"], ["messages", "system"]])
def test_a_turn_that_is_added_changes_no_instructions_wherever_they_stand(head: list[str]) -> None:
    turns: list[Any] = [{"role": "user", "content": "hi"}]
    system = "Lindqvist's bot. Ask Zorbo Klim. I am called Olga Petrova."

    def asked() -> Call:
        body = {"system": system, "messages": turns}
        return by_names(ask({"model": "claude", **{name: body[name] for name in head}}, "anthropic", "messages"))

    before = asked()
    turns += [{"role": "assistant", "content": "hello"},
              {"role": "user", "content": "My name is Zorbo Klim, this is Sarah Lindqvist; and Petrova?"}]
    after = asked()
    assert before.document["system"] == after.document["system"] != system
    assert "Petrova" not in after.body.decode()
    assert "Lindqvist" in after.document["system"]


def test_who_may_be_named_may_be_by_the_surname() -> None:
    text = "Linus Torvalds wrote git. Ask Torvalds, or Sarah Lindqvist; Lindqvist knows."
    after = by_names(ask(user(text)), ("Linus Torvalds",)).document["messages"][0]["content"]
    assert after.startswith("Linus Torvalds wrote git. Ask Torvalds, or <PERSON_")
    assert "Lindqvist" not in after


def test_a_turn_that_is_added_changes_nothing_that_stood_in_two_parts() -> None:
    first = {"role": "user", "content": [{"type": "text", "text": "we saw Lindq"}, {"type": "text", "text": "vist there"}]}
    turns = [first, {"role": "assistant", "content": "who?"}, {"role": "user", "content": "Sarah Lindqvist"}]
    after = by_names(ask({"model": "gpt-4o", "messages": turns}))
    assert after.document["messages"][0] == first
    turns = [*reversed(turns)]
    after = by_names(ask({"model": "gpt-4o", "messages": turns}))
    assert after.document["messages"][2] != first


def test_what_is_redacted_stays_as_it_is() -> None:
    once = rewritten(ask(user(MAIL))).call
    assert house.run(redact().admit(ask(once.body))) is ALLOW


def test_a_second_policy_keeps_what_the_first_put_in() -> None:
    first = rewritten(ask(user(f"{MAIL} 4111111111111111"))).call
    assert len(first.originals) == 2
    more = replace(first, body=first.body.replace(b"<EMAIL", b"x@example.com <EMAIL"))
    second = rewritten(replace(more, document=json.loads(more.body))).call
    assert set(first.originals) < set(second.originals)


# -- a real gateway ----------------------------------------------------------------------------------------------------

NAME = 'Zoë "Q" O\'Neil\\Smith'
CARD = "4111 1111 1111 1111"
SECRETS = (MAIL, CARD, NAME)
SAID = f"I am {NAME}, {MAIL}, card {CARD}."
CHAIN = """  - authenticate: {unknown: deny}
  - redact: {entities: [EMAIL_ADDRESS, CREDIT_CARD, PERSON], names: ['Zoë "Q" O''Neil\\Smith']}
  - swap_key: {missing: keep}"""
TOOL: dict[str, Any] = {"type": "object", "properties": {"note": {"type": "string"}}}


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    return policy(provider, chain=CHAIN)


@pytest.mark.usefixtures("governed")
def test_openai_gets_its_values_back(gateway: Gateway, provider: LocalProvider) -> None:
    seen = len(provider.seen)
    asked: list[Any] = [{"role": "user", "content": SAID}]
    tools: list[Any] = [{"type": "function", "function": {"name": "save", "parameters": TOOL}}]
    with openai.OpenAI(max_retries=0) as client:
        create: Any = client.chat.completions.create
        assert create(model="gpt-4o-mini", messages=asked).choices[0].message.content == f"You said: {SAID}"
        stream = create(model="gpt-4o-mini", messages=asked, stream=True)
        assert "".join(one.choices[0].delta.content or "" for one in stream if one.choices) == f"You said: {SAID}"
        called = create(model="gpt-4o-mini", messages=asked, tools=tools).choices[0].message.tool_calls
        assert json.loads(called[0].function.arguments) == {"note": SAID}
        stream = create(model="gpt-4o-mini", messages=asked, tools=tools, stream=True)
        pieces = [one.choices[0].delta.tool_calls[0].function.arguments for one in stream
                  if one.choices and one.choices[0].delta.tool_calls]
        assert json.loads("".join(pieces)) == {"note": SAID}
        assert client.responses.create(model="gpt-4o-mini", input=SAID).output_text == f"You said: {SAID}"
        events: list[Any] = list(client.responses.create(model="gpt-4o-mini", input=SAID, stream=True))
        assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == f"You said: {SAID}"
        assert [one.text for one in events if one.type == "response.output_text.done"] == [f"You said: {SAID}"]
        assert events[-1].response.output_text == f"You said: {SAID}"
    left(provider, seen, 6)


@pytest.mark.usefixtures("governed")
def test_anthropic_gets_its_values_back(gateway: Gateway, provider: LocalProvider) -> None:
    seen = len(provider.seen)
    given: dict[str, Any] = {"model": "claude-test", "max_tokens": 100, "messages": [{"role": "user", "content": SAID}]}
    tools = [{"name": "save", "input_schema": TOOL}]
    with anthropic.Anthropic(max_retries=0) as client:
        messages: Any = client.messages
        assert messages.create(**given).content[0].text == f"You said: {SAID}"
        with messages.stream(**given) as stream:
            assert stream.get_final_text() == f"You said: {SAID}"
        assert messages.create(**given, tools=tools).content[-1].input == {"note": SAID}
        with messages.stream(**given, tools=tools) as stream:
            assert stream.get_final_message().content[-1].input == {"note": SAID}
    left(provider, seen, 4)


def left(provider: LocalProvider, since: int, count: int) -> None:
    """Nothing of it reached the provider."""
    requests = provider.seen[since:]
    assert len(requests) == count
    for one in requests:
        assert LOOKS_LIKE.search(json.dumps(json.loads(one.body)))
        assert not [form for value in SECRETS for form in forms(value) if form in one.body]


def test_the_values_stand_nowhere(gateway: Gateway, provider: LocalProvider) -> None:
    body = json.dumps({**user(SAID), "metadata": {MAIL: CARD}}).encode()
    with Wire.tls(gateway) as wire:
        wire.send(request(body))
        got = wire.answer()
    assert got.json["choices"][0]["message"]["content"] == f"You said: {SAID}"
    outcome = gateway.outcome(got.id)
    assert {(one["type"], one["count"]) for one in outcome["findings"]} == {
        ("EMAIL_ADDRESS", 2), ("CREDIT_CARD", 2), ("PERSON", 1)}
    assert gateway.metric("douane_policy_seconds_count") >= 0
    with Wire.to(gateway.admin) as admin:
        admin.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        metrics = admin.answer().body
    files = [path for path in gateway.base.rglob("*") if path.is_file() and path != gateway.policy_file]
    assert any(path.suffix == ".jsonl" for path in files)
    for text in (metrics, *(path.read_bytes() for path in files)):
        assert not [form for value in SECRETS for form in forms(value) if form in text]


def test_the_key_is_there_for_its_owner_alone(gateway: Gateway) -> None:
    file: Path = gateway.data / "secret.key"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("governed")
def test_forged_placeholders_stay_as_they_are(provider: LocalProvider) -> None:
    """By a user, in a tool's result, in what the model says: it echoes them all."""
    forged = "<EMAIL_ADDRESS_aaaaaaaa> <PERSON_22222222>"
    with openai.OpenAI(max_retries=0) as client:
        asked: list[Any] = [{"role": "user", "content": f"{forged} {MAIL}"}]
        said = client.chat.completions.create(model="gpt-4o-mini", messages=asked).choices[0].message.content
        assert said == f"You said: {forged} {MAIL}"
        asked.append({"role": "tool", "tool_call_id": "c", "content": forged})
        said = client.chat.completions.create(model="gpt-4o-mini", messages=asked).choices[0].message.content
        assert said == f"The tool said: {forged}"
    assert forged.encode() in provider.seen[-1].body


def test_in_observe_mode_it_only_says_what_it_found(tmp_path: Path, provider: LocalProvider) -> None:
    with running_gateway(tmp_path, policy(provider, chain=CHAIN, more="mode: observe")) as gateway, Wire.tls(gateway) as wire:
        body = json.dumps(user(SAID)).encode()
        wire.send(request(body))
        got = wire.answer()
        assert provider.seen[-1].body == body
        assert {one["type"] for one in gateway.outcome(got.id)["findings"]} == {"EMAIL_ADDRESS", "CREDIT_CARD", "PERSON"}


SIGNED: list[tuple[str, str, Any]] = [
    ("anthropic", "messages", {"messages": [{"role": "assistant", "content": [
        {"type": "thinking", "thinking": f"they are {MAIL}", "signature": "EqMB" * 40},
        {"type": "redacted_thinking", "data": "EqMC" * 40}]}, {"role": "user", "content": f"I am {MAIL}"}]}),
    ("google", "generate_content", {"contents": [{"role": "model", "parts": [
        {"thought": True, "text": f"they are {MAIL}", "thoughtSignature": "EqMB" * 40},
        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "EqMC" * 40}]},
        {"role": "user", "parts": [{"text": f"I am {MAIL}"}]}]}),
    ("bedrock", "converse", {"messages": [{"role": "assistant", "content": [
        {"reasoningContent": {"reasoningText": {"text": f"they are {MAIL}", "signature": "EqMB" * 40}}},
        {"reasoningContent": {"redactedContent": "EqMC" * 40}}]}, {"role": "user", "content": [{"text": f"I am {MAIL}"}]}]}),
]


@pytest.mark.parametrize(("provider", "operation", "document"), SIGNED)
def test_what_the_provider_signed_goes_back_byte_by_byte(provider: str, operation: str, document: Any) -> None:
    """What was found there is recorded all the same."""
    call = ask(document, provider, operation)
    verdict = rewritten(call)
    (placeholder,) = verdict.call.originals
    before, after = call.body.rsplit(MAIL.encode(), 1)
    assert verdict.call.body == before + placeholder.encode() + after
    assert f"they are {MAIL}".encode() in verdict.call.body
    assert [(one.type, one.count) for one in verdict.findings] == [("EMAIL_ADDRESS", 2)]


def test_both_ends_of_a_pair_of_identifiers_get_one_placeholder() -> None:
    card = "call_4111111111111111"
    call = ask({"messages": [
        {"role": "assistant", "tool_calls": [{"id": card, "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": card, "content": "done"}]})
    messages = rewritten(call).call.document["messages"]
    assert messages[0]["tool_calls"][0]["id"] == messages[1]["tool_call_id"]
    assert "4111" not in messages[1]["tool_call_id"]
