"""Bodies in the log: everything is there but what must not be."""

import asyncio
import base64
import gzip
import hashlib
import json
import re
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from douane.answer import CAPTURED, Capture
from douane.audit.bodies import MOST, Scribe
from douane.call import Call, Principal
from douane.demo.provider import LocalProvider, Reply
from douane.detect import ScanFailedError, Scanner, Wanted
from douane.detect.own_keys import OwnKeys
from douane.echo import EchoMask
from douane.people import Known, People, Tokens
from douane.placeholders import DataKey, Minter
from douane.providers.framing import SSE, Framing
from douane.secrets import Secret
from tests import house
from tests.gateway import REAL_KEY, Gateway, Wire, answering, chat, policy, request, wait_for

MAIL, CARD = "ann.lee@example.com", "4111 1111 1111 1111"
KEY = DataKey(b"k" * 32)
PERSONAL = Minter(KEY, house.BOT.tenant, {}).placeholder


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def scribe() -> Scribe:
    return Scribe(KEY, Scanner(Wanted()))


def asked(body: bytes | dict[str, Any], **more: Any) -> Call:
    if isinstance(body, bytes):
        return house.call(body=body, principal=house.BOT, **more)
    return house.call(body=json.dumps(body).encode(), document=body, principal=house.BOT, **more)


def captured(*chunks: bytes, framing: Framing | None = None, key: str = "") -> Capture:
    capture = Capture(EchoMask(key) if key else None)
    capture.framing = framing
    for chunk in chunks:
        capture.feed(chunk)
    return capture


def test_what_holds_nothing_is_kept_to_the_byte(run: Any, scribe: Scribe) -> None:
    body = b'{ "model":"gpt-4o",\n "n": 1.0, "messages":[{"role":"user","content":"gr\\u00fc\xc3\x9fe"}] }'
    said = run(scribe.request(asked(body, document=json.loads(body))))
    assert said == {"text": body.decode(), "bytes": len(body)}
    assert run(scribe.request(asked(b""))) is None


@pytest.mark.parametrize("place", [
    {"content": [{"type": "tool_use", "input": {"card": 4111111111111111}}]},
    {"args": {"cards": [1, 4111111111111111]}}, [4111111111111111],
])
def test_whole_numbers_are_searched_too(run: Any, scribe: Scribe, place: Any) -> None:
    said = run(scribe.request(asked(place)))
    assert "4111" not in said["text"]
    assert said["found"] == {"CREDIT_CARD": 1}
    json.loads(said["text"])


def test_a_number_is_searched_wherever_it_stands(run: Any, scribe: Scribe) -> None:
    body = (b'{"n":4111111111111111,"s":"4111111111111111, 5, [4111111111111111]",'
            b'"f":4111111111111111.5,"l":[1,4111111111111111]}')
    said = run(scribe.request(asked(body, document=json.loads(body))))
    card = PERSONAL("CREDIT_CARD", "4111111111111111")
    assert json.loads(said["text"]) == {"n": card, "s": f"{card}, 5, [{card}]", "f": 4111111111111111.5, "l": [1, card]}
    assert said["found"] == {"CREDIT_CARD": 4}


def test_a_string_is_searched_as_it_is_meant(run: Any, scribe: Scribe) -> None:
    """What is known of a string as it is written says nothing of another that is written so within one."""
    inner = '"\\u0061nn.lee@example.com"'
    for _ in range(2):
        said = run(scribe.request(asked(f'{{"a":{inner},"b":"x","c":[{inner}]}}'.encode(), document={})))
        mail = PERSONAL("EMAIL_ADDRESS", MAIL)
        assert json.loads(said["text"]) == {"a": mail, "b": "x", "c": [mail]}


def test_text_that_is_no_json_is_searched_whatever_its_document_is(run: Any, scribe: Scribe) -> None:
    """An uploaded text: its document is the text itself."""
    body = f"write to {MAIL}, {CARD}".encode()
    said = run(scribe.request(asked(body, document=body.decode())))
    assert MAIL not in said["text"]
    assert CARD not in said["text"]


def test_backslashes_at_the_end_of_a_string_end_nothing_else(run: Any, scribe: Scribe) -> None:
    for value in ("C:\\dir\\", "\\", 'a "quoted\\" word', '\\"', "\ud800", 'x\\\\'):
        document = {"a": value, "b": MAIL, "c": [value]}
        said = run(scribe.request(asked(json.dumps(document).encode(), document=document)))
        assert json.loads(said["text"]) == {"a": value, "b": PERSONAL("EMAIL_ADDRESS", MAIL), "c": [value]}


@pytest.mark.parametrize("name", ["account", "account_number", "candidate_card", "adminPhone"])
def test_a_name_that_holds_a_measures_letters_is_none(run: Any, scribe: Scribe, name: str) -> None:
    said = run(scribe.request(asked(f'{{"{name}":4111111111111111}}'.encode(), document={})))
    assert said["found"] == {"CREDIT_CARD": 1}


def test_digits_of_fractions_stay_where_they_are(run: Any, scribe: Scribe) -> None:
    card = PERSONAL("CREDIT_CARD", "4111111111111111")
    body = b'[{"created":1234567},4111111111111111,0.4111111111111111,4111111111111111e5,4111111111111111.0]'
    said = run(scribe.request(asked(body, document=[])))
    assert said["text"] == f'[{{"created":1234567}},"{card}",0.4111111111111111,4111111111111111e5,"{card}"]'


@pytest.mark.parametrize("name", ["Ann Lee", "Sarah", "Emma", "Zoë", "Tom"])
def test_a_short_name_is_no_mere_word(run: Any, scribe: Scribe, name: str) -> None:
    said = run(scribe.request(asked({"a": name, "b": "stop", "c": "GET", "d": "a word"})))
    assert said["found"] == {"PERSON": 1}
    assert name not in said["text"]
    assert '"b":"stop"' in said["text"].replace(" ", "")


def test_an_address_of_few_signs_is_one(run: Any, scribe: Scribe) -> None:
    assert run(scribe.request(asked({"a": "1::2"})))["found"] == {"IP_ADDRESS": 1}


def test_two_names_of_one_secret_tell_it_together(run: Any, scribe: Scribe) -> None:
    secret = "AKIA" + "Q7ZLW3TN5XKD2MVB:hunter2!x"
    said = run(scribe.request(asked({"password": secret, "auth": secret})))
    assert "hunter2" not in said["text"]


@pytest.mark.parametrize("body", [
    b"[" + b",".join(b'"text number %d here"' % n for n in range(30_000)) + b"]",
    b"{" + b",".join(b'"keyabc%d":1' % n for n in range(20_000)) + b"}",
    b'["' + b"1" * 200_000 + b'."]', b"[0." + b"1" * 200_000 + b"e1]", b'["' + b"\\\\" * 200_000 + b'"]',
    b'["' + b"\\\"" * 200_000 + b'"]'])
def test_long_bodies_take_time_in_proportion(run: Any, scribe: Scribe, body: bytes) -> None:
    began = time.process_time()
    run(scribe.request(asked(body, document=[])))
    assert time.process_time() - began < 4


def test_moments_and_measures_stay_numbers(run: Any, scribe: Scribe) -> None:
    place = {"created": 1753242300, "total_duration": 4111111111111111, "usage": {"input_tokens": 4111111111111111}, "n": 4111}
    assert run(scribe.request(asked(place)))["text"] == json.dumps(place)


@pytest.mark.parametrize("place", [
    {"messages": [{"role": "user", "content": f"write to {MAIL}"}]},
    {"metadata": {MAIL: "1"}},
    {"model": MAIL},
    {"messages": [{"role": "tool", "tool_call_id": MAIL, "content": "x"}]},
    {"messages": [{"tool_calls": [{"function": {"arguments": json.dumps({"to": [MAIL]})}}]}]},
    {"a": [[[{"b": {"c": MAIL}}]]]},
    {"thinking": MAIL, "signature": "x"},
    [MAIL], MAIL,
])
def test_every_string_is_searched(run: Any, scribe: Scribe, place: Any) -> None:
    """Whatever a provider's format takes it for."""
    said = run(scribe.request(asked(json.dumps(place).encode(), document=place)))
    assert MAIL not in said["text"]
    assert json.loads(said["text"]) == json.loads(json.dumps(place).replace(MAIL, PERSONAL("EMAIL_ADDRESS", MAIL)))
    assert said["found"] == {"EMAIL_ADDRESS": 1}


def test_a_secret_is_none_of_the_logs_business(run: Any, scribe: Scribe) -> None:
    secret = "AKIA" + "Q7ZLW3TN5XKD2MVB"
    for text in (f"use {secret} there", json.dumps({"key": secret})):
        said = run(scribe.request(asked({"messages": [{"role": "user", "content": text}]})))
        assert secret not in said["text"]
        assert sum(said["found"].values()) == 1


def test_a_member_tells_what_its_value_is(run: Any, scribe: Scribe) -> None:
    for _ in range(2):  # also where its strings have been seen
        said = run(scribe.request(asked({"input": {"password": "hunter2!x", "again": "hunter2!x", "user": "hunter3!x"}})))
        kept = json.loads(said["text"])["input"]
        assert kept["user"] == "hunter3!x", "a word like any other"
        assert "hunter2" not in said["text"], "what is a secret here is none there"
        said = run(scribe.request(asked({"input": {"name": "hunter2!x"}})))
        assert json.loads(said["text"])["input"] == {"name": "hunter2!x"}


def test_what_the_chain_has_redacted_stays_as_it_is(run: Any, scribe: Scribe) -> None:
    text = f"mail {PERSONAL('EMAIL_ADDRESS', MAIL)} now"
    said = run(scribe.request(asked({"messages": [text]})))
    assert json.loads(said["text"]) == {"messages": [text]}
    assert "found" not in said


@pytest.mark.parametrize("blob", ["iVBORw0KGgo" * 40, "data:image/png;base64," + "AAAA" * 100])
def test_binary_is_never_kept(run: Any, scribe: Scribe, blob: str) -> None:
    said = run(scribe.request(asked({"image": {"url": blob}, "text": "look"})))
    assert json.loads(said["text"]) == {"image": {"url": f"({len(blob)} characters left out)"}, "text": "look"}
    raw = b"\xff\xfe\x00RIFF"
    assert run(scribe.request(asked(raw))) == {
        "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), "left_out": "binary"}


def test_what_is_no_json_is_searched_as_text(run: Any, scribe: Scribe) -> None:
    said = run(scribe.request(asked(f'{{"to": "{MAIL}", '.encode())))
    assert said["text"] == f'{{"to": "{PERSONAL("EMAIL_ADDRESS", MAIL)}", '


def test_a_compressed_body_is_read(run: Any, scribe: Scribe) -> None:
    plain = {"messages": [MAIL]}
    body = gzip.compress(json.dumps(plain).encode())
    said = run(scribe.request(asked(body, document=plain, headers=((b"content-encoding", b"gzip"),))))
    assert json.loads(said["text"]) == {"messages": [PERSONAL("EMAIL_ADDRESS", MAIL)]}
    for coding, bad in ((b"gzip", b"no gzip at all"), (b"rot13", b"x")):
        said = run(scribe.request(asked(bad, headers=((b"content-encoding", coding),))))
        assert set(said) == {"bytes", "left_out"}


def test_a_long_body_is_cut_with_its_length_and_its_hash(run: Any, scribe: Scribe) -> None:
    text = "grüße " * 60_000
    body = {"messages": [{"role": "user", "content": text + MAIL}]}
    raw = json.dumps(body, ensure_ascii=False).encode()
    said = run(scribe.request(asked(raw, document=body)))
    kept = said["text"].encode()
    assert MOST - 3 <= len(kept) <= MOST
    assert said["cut"]
    assert said["bytes"] == len(raw)
    whole = raw.replace(MAIL.encode(), PERSONAL("EMAIL_ADDRESS", MAIL).encode())
    assert whole.startswith(kept)
    assert said["sha256"] == hashlib.sha256(whole).hexdigest()


def test_an_answer(run: Any, scribe: Scribe) -> None:
    wire = house.OPENAI.operations[0].wire
    raw = json.dumps({"choices": [{"message": {"content": f"call {CARD}, key {REAL_KEY}"}}]}).encode()
    said = run(scribe.response(asked({}), wire, captured(raw[:30], raw[30:], key=REAL_KEY)))
    content = json.loads(said["text"])["choices"][0]["message"]["content"]
    assert content == f"call {PERSONAL('CREDIT_CARD', CARD)}, key {'*' * len(REAL_KEY)}"
    assert run(scribe.response(asked({}), wire, captured())) is None
    assert run(scribe.response(asked({}), None, captured(b"<html>"))) == {"text": "<html>", "bytes": 6}


def test_a_stream_is_searched_as_the_text_that_it_comes_to(run: Any, scribe: Scribe) -> None:
    """A value in pieces is in no event."""
    wire = house.OPENAI.operations[0].wire
    events = [{"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": piece}}]}
              for piece in re.findall("..?", f"it is {CARD}.")]
    raw = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events) + b"data: [DONE]\n\n"
    said = run(scribe.response(asked({}), wire, captured(raw, framing=SSE)))
    assert said["assembled"]
    assert said["bytes"] == len(raw)
    assert json.loads(said["text"])["choices"][0]["message"]["content"] == f"it is {PERSONAL('CREDIT_CARD', CARD)}."


def test_a_stream_that_is_not_understood_is_left_out(run: Any, scribe: Scribe) -> None:
    """A value may stand in pieces there, in which no search finds it; so too in events without a place."""
    wire = house.OPENAI.operations[0].wire
    raw = b'data: {"odd": "ann.l"}\n\ndata: {"odd": "ee@example.com"}\n\n'
    assert run(scribe.response(asked({}), None, captured(raw, framing=SSE))) == {
        "bytes": len(raw), "left_out": "a stream that is not understood"}
    said = run(scribe.response(asked({}), wire, captured(raw, framing=SSE)))
    assert json.loads(said["text"])["events"] == "(2 left out)"
    torn = b'{"choices": [{"logprobs": {"content": [{"token": "ann.l"}, {"token": "ee@'
    assert run(scribe.response(asked({}), wire, captured(torn))) == {
        "bytes": len(torn), "left_out": "told token by token, and not whole"}


@pytest.mark.parametrize("stream", [False, True])
def test_token_by_token_is_not_kept(run: Any, scribe: Scribe, stream: bool) -> None:
    wire = house.OPENAI.operations[0].wire
    told = {"content": [{"token": piece, "bytes": list(piece.encode()), "logprob": -0.1}
                        for piece in ("ann.lee", "@example", ".com")]}
    choice: dict[str, Any] = {"index": 0, "logprobs": told}
    if stream:
        raw = b"data: %b\n\n" % json.dumps({"choices": [{**choice, "delta": {"content": MAIL}}]}).encode()
    else:
        raw = json.dumps({"choices": [{**choice, "message": {"content": MAIL}}]}).encode()
    said = run(scribe.response(asked({}), wire, captured(raw, framing=SSE if stream else None)))
    (kept,) = json.loads(said["text"])["choices"]
    assert kept["logprobs"] == "(left out)"
    assert kept["message"]["content"] == PERSONAL("EMAIL_ADDRESS", MAIL)
    assert "ann.lee" not in said["text"]


def test_a_longer_answer_than_can_be_held_is_left_out(run: Any, scribe: Scribe) -> None:
    said = run(scribe.response(asked({}), None, captured(b"x" * CAPTURED, b"x")))
    assert said == {"bytes": CAPTURED + 1, "left_out": f"longer than {CAPTURED} bytes"}


def test_what_cannot_be_searched_is_left_out(run: Any) -> None:
    class Broken(Scanner):
        async def scan(self, tenant: str, texts: Any, keys: Any = None) -> Any:
            raise ScanFailedError("a detector ran out of time")

    said = run(Scribe(KEY, Broken(Wanted())).request(asked({"messages": [MAIL]})))
    assert said == {"bytes": len(json.dumps({"messages": [MAIL]})), "left_out": "a detector ran out of time"}


OURS = "abcdefghijklmnopqrstuv", "Us3r:p/w+x-0123456789"
"""Keys of the gateway's: one is no more than small letters, which nothing else is looked for in."""


@pytest.mark.parametrize("form", [
    lambda key: key.encode(), lambda key: key.encode().hex().encode(), lambda key: base64.b64encode(f"x{key}y".encode()),
    lambda key: quote(key, safe="").encode(), lambda key: json.dumps(key)[1:-1].encode(),
    lambda key: key.replace("/", "\\/").encode()])
@pytest.mark.parametrize("key", OURS)
def test_a_key_of_the_gateways_stands_in_no_record_in_any_form(run: Any, form: Callable[[str], bytes], key: str) -> None:
    own = OwnKeys(map(Secret, OURS), None)
    scribe = Scribe(KEY, Scanner(Wanted()), own)
    text = b"it is " + form(key) + b", ok"
    for body in (b'{"a": ["' + text + b'"]}', text):
        for said in (run(scribe.request(asked(body, document=None))), run(scribe.response(asked({}), None, captured(body)))):
            assert not list(own.forms.find(said["text"].encode()))
            assert said["found"] == {"GATEWAY_KEY": 1}
            assert said["bytes"] == len(body)
    assert "key of this gateway" in run(scribe.names("acme", {"model": text.decode()}))["model"]


def test_a_key_that_a_reload_brings_is_looked_for_from_then_on(run: Any) -> None:
    people = People([Known(Principal("local"))], tokens := Tokens())
    scribe, new = Scribe(KEY, Scanner(Wanted()), OwnKeys((), people)), OURS[0]
    body, name = {"a": f"it is {new}"}, {"model": new}
    assert new in run(scribe.request(asked(body)))["text"]
    assert run(scribe.names("acme", name)) == name
    scribe.adopt(OwnKeys((Secret(new),), people))
    assert new not in run(scribe.request(asked(body)))["text"]
    assert run(scribe.names("acme", name)) != name
    token = "a-token-of-one-run-0123"
    assert token in run(scribe.request(asked({"a": token})))["text"]
    tokens.issue("local", Secret(token).digest(), {})
    assert token not in run(scribe.request(asked({"a": token})))["text"]


# -- through a gateway -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    return policy(provider, level="redacted", chain="""
  - authenticate: {unknown: deny}
  - allow_models: {models: [gpt-4*]}
  - redact: {entities: [EMAIL_ADDRESS]}
  - swap_key: {missing: keep}""")


def records(gateway: Gateway, wire_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The intent (empty where there is none) and the outcome of a call."""
    wait_for(lambda: gateway.outcome(wire_id))
    found = {one["kind"]: one for one in gateway.records() if one.get("id") == wire_id}
    return found.get("intent", {}), found["outcome"]


def post(gateway: Gateway, body: bytes) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    with Wire.tls(gateway) as wire:
        wire.sock.settimeout(20)  # the detector of a gateway that has just begun
        wire.send(request(body))
        got = wire.answer()
    return got, *records(gateway, got.id)


@pytest.mark.parametrize("stream", [False, True])
def test_both_stand_there_as_the_provider_saw_them(provider: LocalProvider, gateway: Gateway, stream: bool) -> None:
    """Also what the chain lets by: the card is not for `redact` here."""
    def script(seen: Any) -> Reply:
        said = json.loads(seen.body)["messages"][0]["content"]
        if not stream:
            answer = {"choices": [{"message": {"role": "assistant", "content": said}}]}
            return Reply(headers=[("content-type", "application/json")], body=json.dumps(answer).encode())
        chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in re.findall("(?s).{1,7}", said)]
        return Reply(headers=[("content-type", "text/event-stream")],
                     body=b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in chunks) + b"data: [DONE]\n\n")

    text = f"{MAIL} pays with {CARD}"
    with answering(provider, script):
        got, intent, outcome = post(gateway, chat(text, stream=stream))
    sent = json.loads(provider.seen[-1].body)["messages"][0]["content"]
    assert (MAIL in sent, CARD in sent) == (False, True), "what the chain says is what the provider gets"
    assert (MAIL.encode() in got.body) or stream
    kept = json.loads(intent["request"]["text"])["messages"][0]["content"]
    assert re.fullmatch(r"<EMAIL_ADDRESS_[a-z2-7]{8}> pays with <CREDIT_CARD_[a-z2-7]{8}>", kept)
    assert json.loads(outcome["response"]["text"])["choices"][0]["message"]["content"] == kept
    assert outcome["response"].get("assembled", False) is stream
    assert outcome["request"] is None
    for written in gateway.data.rglob("*"):
        if written.is_file():
            held = written.read_bytes()
            assert MAIL.encode() not in held
            assert CARD.encode() not in held
            assert base64.b64encode(MAIL.encode())[:20] not in held


def test_a_denied_call_is_kept_too(gateway: Gateway) -> None:
    got, intent, outcome = post(gateway, chat(f"for {MAIL}", model="o1"))
    assert (got.status, intent) == (403, {})
    assert "<EMAIL_ADDRESS_" in outcome["request"]["text"]
    assert outcome["response"] is None


def test_a_call_that_could_not_be_read_is_kept_too(gateway: Gateway) -> None:
    got, _, outcome = post(gateway, f'{{"model": "gpt-4o", "x": "{MAIL}"'.encode())
    assert got.status == 400
    assert re.fullmatch(r'\{"model": "gpt-4o", "x": "<EMAIL_ADDRESS_[a-z2-7]{8}>"', outcome["request"]["text"])


def test_an_answer_that_is_cut_is_kept_as_far_as_it_came(provider: LocalProvider, gateway: Gateway) -> None:
    def script(seen: Any) -> Reply:
        events = [b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n' % at for at in range(3)]
        reply = Reply(headers=[("content-type", "text/event-stream")], body=events)
        return replace(reply, cut_after=sum(len(step) for step in reply.steps("POST") if isinstance(step, bytes)) - 5)

    with answering(provider, script):
        _, _, outcome = post(gateway, chat("count", stream=True))
    assert outcome["ended"] == "upstream_error"
    assert json.loads(outcome["response"]["text"])["choices"][0]["message"]["content"] == "0 1 2 "


def test_an_error_is_kept_and_costs_nothing(provider: LocalProvider, gateway: Gateway) -> None:
    """What the provider refused was not answered: no text of it is counted."""
    said = b'{"error": {"message": "slow down, and a long text besides", "code": "rate_limit_exceeded"}}'
    with answering(provider, lambda seen: Reply(status=429, headers=[("content-type", "application/json")], body=said)):
        _, _, outcome = post(gateway, chat("hello"))
    assert outcome["response"]["text"] == said.decode()
    assert (outcome["status"], outcome["usage"], outcome["cost_usd"]) == (429, None, None)
