"""Law 7, tried: a made-up value for each class of personal data and each kind of key, in every position of calls that pass,
are refused, break, or are cut. Afterwards none of them stands anywhere: audit log with its bodies, gateway log, metrics,
command lines, ledger, whatever else is in the data folder; in no form in which it could be written.
"""

import base64
import contextlib
import gzip
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from douane.control import Client
from douane.demo.answers import default_script
from douane.demo.provider import LocalProvider, Reply, Seen
from douane.detect import DEFAULT_ENTITIES
from tests.gateway import BOT_KEY, CHAT, REAL_KEY, Gateway, Got, Wire, answering, forms, policy, request, running_gateway

PERSONAL = {
    "EMAIL_ADDRESS": "canary.bird@example.com", "PHONE_NUMBER": "+49 30 23459876", "CREDIT_CARD": "4111 1111 1111 1111",
    "IBAN_CODE": "DE89370400440532013000", "CRYPTO": "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "IP_ADDRESS": "81.2.69.77",
    "PERSON": "Canary O'Bird", "US_SSN": "536-22-8714", "IT_FISCAL_CODE": "RSSMRA85T10A562S",
    "FI_PERSONAL_IDENTITY_CODE": "131052-308T", "ES_NIE": "X1234567L", "ES_NIF": "12345678Z", "KR_RRN": "900101-1234567",
    "PL_PESEL": "44051401359", "TH_TNIN": "1101700230708", "IN_AADHAAR": "2341 2341 2346", "UK_NHS": "943 476 5919"}
"""One of each class that is looked for unless others are named."""
APP_KEY = "sk-" + "canaryApp0123456789canaryApp0123456789"
WRONG = "dead-" + "0123456789canary"
"""A proxy password that is nobody's."""

CHAIN = """  - authenticate: {unknown: deny}
  - allow_models: {models: [gpt-4*, claude-*]}
  - redact: {names: ["Canary O'Bird"]}
  - budget: {per: team, limit: 1000 USD/day, unbounded: assume 1000, unpriced: 0.01 USD}
  - swap_key: {missing: keep}"""
LOUD = """
import logging, douane.logs
def setup(*, as_json=None, was=douane.logs.setup):
    was(as_json=as_json)
    for name in ("", "douane", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)
douane.logs.setup = setup
"""


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    return policy(provider, chain=CHAIN, level="redacted")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, policy_text: str) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), policy_text, patch=LOUD) as one:
        yield one


@pytest.fixture(scope="module")
def token(gateway: Gateway) -> Iterator[str]:
    """Of one run."""
    with Client(gateway.data / "control.sock") as client:
        yield str(client.ask("issue", principal="bot", tags={})["token"])


# -- where a value may stand ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A call before it is one."""

    body: bytes
    target: str = CHAT
    host: str = "api.openai.com"
    headers: tuple[tuple[str, str], ...] = (("Authorization", f"Bearer {APP_KEY}"),)


def document(text: str) -> dict[str, Any]:
    """A chat with *text* wherever text may stand."""
    arguments = json.dumps({"to": text, text: [f"a {text} b"]})
    return {
        "model": "gpt-4o-mini", "user": text, "metadata": {text: "k", "of": text}, "stop": [text], "made_up": {text: [text]},
        "messages": [
            {"role": "system", "content": f"I serve {text}.", "name": text},
            {"role": "user", "content": [{"type": "text", "text": f"I am {text}"}]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": "c", "content": json.dumps({"found": [text]})}],
        "tools": [{"type": "function", "function": {"name": "f", "description": text, "parameters": {
            "type": "object", "properties": {text: {"enum": [text]}, "note": {"type": "string"}}}}}]}


def messages(text: str) -> dict[str, Any]:
    return {"model": "claude-test", "max_tokens": 9, "system": [{"type": "text", "text": text}], "metadata": {"user_id": text},
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": [
                {"type": "tool_use", "id": "t", "name": "f", "input": {text: text}}]}, {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": f"got {text}"}]}]}]}


def calls(text: str) -> Iterator[Sent]:
    """*text* in every position of calls that pass and of calls that do not."""
    chat = json.dumps(document(text)).encode()
    yield Sent(chat)
    yield Sent(json.dumps({**document(text), "stream": True}, ensure_ascii=False).encode())
    yield Sent(json.dumps({"model": "gpt-4o-mini", "instructions": text, "input": [
        {"role": "user", "content": text}, {"type": "function_call_output", "call_id": "c", "output": text}]}).encode(),
        target="/v1/responses")
    for stream in (False, True):
        yield Sent(json.dumps({**messages(text), "stream": stream}).encode(), target="/v1/messages", host="api.anthropic.com",
                   headers=(("x-api-key", APP_KEY), ("anthropic-version", "2023-06-01")))
    plain = json.dumps({"model": "gpt-4o-mini", "messages": []}).encode()
    header = text.encode().decode("latin-1")
    yield Sent(plain, headers=(("x-anything", header), ("cookie", f"a={header}"), ("Authorization", f"Bearer {header}")))
    yield Sent(plain, target=f"{CHAT}?q={quoted(text)}&key={quoted(text)}")
    yield Sent(json.dumps({**document(text), "model": "other"}).encode())  # refused by a policy
    yield Sent(chat[:-9])  # is no JSON
    yield Sent(chat[:-1] + b', "model": "gpt-4o"}')  # names a key twice
    yield Sent(chat, headers=(("content-encoding", "snappy"),))
    yield Sent(gzip.compress(chat)[:-9], headers=(("content-encoding", "gzip"),))
    yield Sent(gzip.compress(chat), headers=(("content-encoding", "gzip"),))
    yield Sent(text.encode(), target="/v1/nothing", headers=(("content-type", "text/plain"),))
    yield from named(text)


def named(text: str) -> Iterator[Sent]:
    """*text* as a name: of a model, a path, a request."""
    header = text.encode().decode("latin-1")
    for model in (text, f"gpt-4o {text}"):
        yield Sent(json.dumps({**document("nobody"), "model": model}).encode())
    yield Sent(b"", target=f"/v1/{quoted(text)}")
    yield Sent(json.dumps(document("nobody")).encode(), headers=(("x-request-id", header), ("x-client-request-id", header)))


def quoted(text: str) -> str:
    return "".join(f"%{one:02X}" for one in text.encode())


def scripts() -> Iterator[Any]:
    """Providers that answer, refuse and repeat what they got, break off, and answer what is no answer."""
    echo = default_script()

    def refuse(seen: Seen) -> Reply:
        told = json.dumps({"error": {"message": f"no: {seen.body.decode(errors='replace')} {seen.header('authorization')}",
                                     "type": "server_error", "code": None, "param": None}}).encode()
        return Reply(status=500, headers=[("content-type", "application/json")], body=told)

    def cut(seen: Seen) -> Reply:
        reply = echo(seen)
        assert isinstance(reply, Reply)
        return replace(reply, cut_after=sum(len(one) for one in reply.steps("POST") if isinstance(one, bytes)) - 40)

    def nothing(seen: Seen) -> Reply:
        return Reply(headers=[("content-type", "application/json")], body=seen.body + seen.head)

    yield from (echo, refuse, cut, nothing)


def send(gateway: Gateway, one: Sent, head: bytes = b"") -> Got:
    with Wire.tls(gateway, one.host, head=head) as wire:
        wire.send(request(one.body, target=one.target, host=one.host, headers=one.headers))
        return wire.answer()


def basic(password: str) -> bytes:
    return b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(f"bot:{password}".encode())


# -- where it must not ---------------------------------------------------------------------------------------------


def places(gateway: Gateway) -> Iterator[tuple[str, bytes]]:
    """Everything that the gateway leaves behind or shows."""
    for path in sorted(gateway.base.rglob("*")):
        if path.is_file() and path != gateway.policy_file:
            yield str(path.relative_to(gateway.base)), path.read_bytes()
    for target in ("/metrics", "/readyz", "/healthz"):
        with Wire.to(gateway.admin) as wire:
            wire.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            yield target, wire.answer().body
    family = subprocess.run(["ps", "-o", "pid=", "--ppid", str(gateway.process.pid)], capture_output=True, text=True)
    for pid in (str(gateway.process.pid), *family.stdout.split()):
        with contextlib.suppress(FileNotFoundError):
            yield f"/proc/{pid}/cmdline", Path(f"/proc/{pid}/cmdline").read_bytes()


def hits(where_to_look: Iterable[tuple[str, bytes]], values: Mapping[str, str]) -> list[str]:
    """Which value stands where, with what is around it."""
    found = []
    for where, content in where_to_look:
        for name, value in values.items():
            for form in forms(value):
                at = content.find(form)
                if at >= 0:
                    found.append(f"{name} in {where}: …{content[max(0, at - 80):at + len(form) + 20]!r}…")
                    break
    return found


def test_there_is_a_canary_of_each_class() -> None:
    assert set(PERSONAL) == set(DEFAULT_ENTITIES)


def test_personal_data_stands_nowhere(gateway: Gateway, provider: LocalProvider) -> None:
    text = "; ".join(PERSONAL.values())
    for script in scripts():
        with answering(provider, script):
            for one in calls(text):
                send(gateway, one)
    for value in PERSONAL.values():
        for one in (*named(value), Sent(json.dumps(document(value)).encode())):
            send(gateway, one)
    outcomes = [one for one in gateway.records() if one["kind"] == "outcome"]
    assert {"allow", "deny"} == {one["verdict"]["action"] for one in outcomes}
    assert {"complete", "denied", "upstream_error"} <= {one["ended"] for one in outcomes}
    assert hits([("upstream", b"\n".join(one.body for one in provider.seen))], PERSONAL) == []
    by_pattern = {name: value for name, value in PERSONAL.items() if name != "PERSON"}
    assert hits(places(gateway), by_pattern) == [], "people are found by the list that one policy has"


def test_keys_stand_nowhere(gateway: Gateway, provider: LocalProvider, token: str) -> None:
    """As credentials of every kind; in headers and queries of a confused app; echoed by a provider, in texts and without
    any form."""
    ours, before = {"a principal's key": BOT_KEY, "a one-run token": token, "a wrong proxy password": WRONG}, len(provider.seen)
    for script in scripts():
        with answering(provider, script):
            for key in (BOT_KEY, token):
                twice = (("Authorization", f"Bearer {key}"), ("x-api-key", key), ("x-other", key))
                for one in calls("nobody"):
                    send(gateway, replace(one, headers=twice, target=f"{one.target}?key={key}&b={key}"), basic(key))
            for one in (*calls(REAL_KEY), *calls("nobody")):
                send(gateway, one)
    for line in (b"CONNECT api.openai.com:443 HTTP/1.1", b"GET http://api.openai.com/v1/models HTTP/1.1"):
        with Wire.to(gateway.proxy) as wire:
            wire.send(line + b"\r\nHost: api.openai.com\r\n" + basic(WRONG) + b"\r\n\r\n")
            assert wire.answer().status == 407
    assert any(REAL_KEY in one.header("authorization") for one in provider.seen[before:])
    assert hits([("upstream", b"\n".join(one.head + one.body for one in provider.seen[before:]))], ours) == []
    assert hits(places(gateway), ours | {"the provider's key": REAL_KEY, "the app's key": APP_KEY}) == []
