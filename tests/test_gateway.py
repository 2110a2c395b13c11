"""The gateway from outside: real SDKs and clients through a real process, its signals, its exit codes, its commands."""

import asyncio
import base64
import contextlib
import gzip
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anthropic
import brotli  # type: ignore[import-untyped]
import httpx
import openai
import pytest
import requests
import zstandard

from douane.cli import main
from douane.control import Client
from douane.demo.answers import CODINGS, default_script, replay
from douane.demo.provider import LocalProvider, Reply, Script, Seen, Step, running_provider
from douane.errors import DouaneError
from douane.providers.ask_usage import asking
from douane.providers.objects import named, own_alone, spot
from douane.providers.table import builtin
from tests import wire as recorded
from tests.gateway import (
    CHAT,
    REAL_KEY,
    Gateway,
    Got,
    Wire,
    answering,
    chat,
    command,
    environ,
    lend_prices,
    policy,
    ran,
    request,
    running_gateway,
    untouched,
    wait_for,
)

MODEL = "gpt-4o-mini"
CLAUDE = "claude-test"
"""No real name: the SDK warns of those that are about to end."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, policy_text: str) -> Iterator[Gateway]:
    """As users start it."""
    with running_gateway(tmp_path_factory.mktemp("gateway"), policy_text, fresh=True) as one:
        yield one


def post(gateway: Gateway, body: bytes, target: str = CHAT) -> Got:
    with Wire.tls(gateway) as wire:
        wire.send(request(body, target=target))
        return wire.answer()


def outcomes(gateway: Gateway) -> list[dict[str, Any]]:
    return [one for one in gateway.records() if one["kind"] == "outcome"]


def douane(base: Path, *words: str, env: Mapping[str, str] | None = None,
           fresh: bool = False) -> "subprocess.CompletedProcess[str]":
    return ran(command(base, *words), env or environ(), fresh=fresh)


# -- the SDKs ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("governed")
def test_openai(gateway: Gateway, provider: LocalProvider) -> None:
    with openai.OpenAI(max_retries=0) as client:
        said = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hé"}])
        assert said.choices[0].message.content == "You said: hé"
        stream = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a b c"}], stream=True,
                                                stream_options={"include_usage": True})
        assert "".join(one.choices[0].delta.content or "" for one in stream if one.choices) == "You said: a b c"
        assert client.responses.create(model=MODEL, input="x").output_text == "You said: x"
        events = client.responses.create(model=MODEL, input="x", stream=True)
        assert [one.type for one in events][-1] == "response.completed"
        assert client.models.list().data[0].id == "gpt-4o"
    last = outcomes(gateway)[-5:]
    assert [(one["operation"], one["stream"], one["ended"], one["status"]) for one in last] == [
        ("chat", False, "complete", 200), ("chat", True, "complete", 200), ("responses", False, "complete", 200),
        ("responses", True, "complete", 200), ("models", False, "complete", 200)]
    assert all(one["usage"]["input"] and one["usage"]["output"] and one["cost_usd"] for one in last[:4])
    assert {seen.header("authorization") for seen in provider.seen[-5:]} == {f"Bearer {REAL_KEY}"}
    assert b"app-key" not in b"".join(seen.head for seen in provider.seen)


@pytest.mark.usefixtures("governed")
def test_anthropic(gateway: Gateway, provider: LocalProvider) -> None:
    with anthropic.Anthropic(max_retries=0) as client:
        said = client.messages.create(model=CLAUDE, max_tokens=9, messages=[{"role": "user", "content": "hi"}])
        assert said.content[0].text == "You said: hi"  # type: ignore[union-attr]
        with client.messages.stream(model=CLAUDE, max_tokens=9, messages=[{"role": "user", "content": "a b"}]) as stream:
            assert "".join(stream.text_stream) == "You said: a b"
        assert client.messages.count_tokens(model=CLAUDE, messages=[{"role": "user", "content": "hi"}]).input_tokens
        assert client.models.list().data
    last = outcomes(gateway)[-4:]
    assert [(one["provider"], one["operation"], one["stream"]) for one in last] == [
        ("anthropic", "messages", False), ("anthropic", "messages", True), ("anthropic", "count_tokens", False),
        ("anthropic", "models", False)]
    assert {one["ended"] for one in last} == {"complete"}


@pytest.mark.usefixtures("governed")
def test_fifty_at_a_time(gateway: Gateway, provider: LocalProvider) -> None:
    before = len(provider.seen)

    async def work() -> None:
        async with openai.AsyncOpenAI(max_retries=0) as one, anthropic.AsyncAnthropic(max_retries=0) as two:
            async def ask(number: int) -> None:
                text = f"number {number} of fifty"
                if number % 3 == 0:
                    said = await one.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
                    assert said.choices[0].message.content == f"You said: {text}"
                elif number % 3 == 1:
                    stream = await one.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}],
                                                               stream=True)
                    words = [part.choices[0].delta.content or "" async for part in stream if part.choices]
                    assert "".join(words) == f"You said: {text}"
                else:
                    message = await two.messages.create(model=CLAUDE, max_tokens=99,
                                                        messages=[{"role": "user", "content": text}])
                    assert message.content[0].text == f"You said: {text}"  # type: ignore[union-attr]

            await asyncio.gather(*(ask(number) for number in range(50)))

    with answering(provider, default_script(pause=0.01)):
        asyncio.run(work())
    assert len(provider.seen) - before == 50
    last = outcomes(gateway)[-50:]
    assert {one["ended"] for one in last} == {"complete"}
    assert len({one["id"] for one in last}) == 50


@pytest.mark.usefixtures("governed")
def test_a_denial_raises_the_sdks_own_error_after_one_attempt(gateway: Gateway, provider: LocalProvider) -> None:
    before = len(outcomes(gateway))
    with untouched(provider):
        with openai.OpenAI() as client:
            for stream in (False, True):
                with pytest.raises(openai.PermissionDeniedError) as refused:
                    client.chat.completions.create(model="o1", messages=[{"role": "user", "content": "hi"}], stream=stream)
                assert refused.value.code == "model_not_allowed"
            with pytest.raises(openai.PermissionDeniedError, match="not an operation"):
                client.skills.list()
        with anthropic.Anthropic() as other, pytest.raises(anthropic.PermissionDeniedError, match="not allowed here"):
            other.messages.create(model="other", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    denied = outcomes(gateway)[before:]
    codes = [one["verdict"]["code"] for one in denied]
    assert codes == ["model_not_allowed", "model_not_allowed", "operation_not_allowed", "model_not_allowed"]
    assert {(one["ended"], one["status"], one["cost_usd"]) for one in denied} == {("denied", 0, 0.0)}
    assert not {one["id"] for one in denied} & {one.get("id") for one in gateway.records() if one["kind"] == "intent"}


def cut(where: int) -> Script:
    """The provider's own answer, cut: JSON 60 bytes before its end, a stream after its third event and *where* bytes."""

    def script(seen: Seen) -> Reply:
        reply = default_script()(seen)
        assert isinstance(reply, Reply)
        if isinstance(reply.body, bytes):
            size = sum(len(step) for step in reply.steps("POST") if isinstance(step, bytes))
            return replace(reply, cut_after=size - 60)
        first, second, third, fourth = [one for one in reply.body if isinstance(one, bytes)][:4]
        steps: list[Step] = [first, 0.02, second, 0.02, third, 0.02, fourth[:where] or b"", 0.02, b"x" * 9999]
        head = replace(reply, body=b"").steps("HEAD")[0]
        assert isinstance(head, bytes)
        raw = [one for one in steps if not isinstance(one, bytes) or one]
        size = len(head) - len("content-length: 0") + len("transfer-encoding: chunked")
        size += sum(len(one) + len(f"{len(one):x}") + 4 for one in raw[:-1] if isinstance(one, bytes))
        return replace(reply, body=raw, cut_after=size)

    return script


@pytest.mark.usefixtures("governed")
@pytest.mark.parametrize("where", [0, 1, 30], ids=["between events", "in an event's first byte", "in an event"])
def test_an_answer_that_breaks_off_raises(gateway: Gateway, provider: LocalProvider, where: int) -> None:
    """Never a JSONDecodeError, and never a silent end: what the SDK raises is an error of the API or of the transport."""
    said: list[str] = []
    with answering(provider, cut(where)):
        with openai.OpenAI(max_retries=0) as client:
            with pytest.raises(openai.APIError):
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
            stream = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a b c"}], stream=True)
            with pytest.raises((openai.APIError, httpx.TransportError)):
                said.extend(one.choices[0].delta.content or "" for one in stream)
        with (anthropic.Anthropic(max_retries=0) as other, pytest.raises((anthropic.APIError, httpx.TransportError)),
              other.messages.stream(model=CLAUDE, max_tokens=9, messages=[{"role": "user", "content": "a"}]) as events):
            list(events)
    assert "".join(said) == "You said:"
    assert wait_for(lambda: [one["ended"] for one in outcomes(gateway)[-3:]] == ["upstream_error"] * 3)


# -- other clients -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("governed")
def test_requests_and_urllib(gateway: Gateway, provider: LocalProvider) -> None:
    url = f"https://api.openai.com{CHAT}"
    headers = {"Authorization": "Bearer app-key", "Content-Type": "application/json"}
    with requests.Session() as session:
        for stream in (False, True):
            answer = session.post(url, data=chat("x", stream=stream), headers=headers, timeout=5)
            assert answer.status_code == 200
            assert answer.headers["x-douane-id"]
        answer = session.post(url, data=chat(model="o1"), headers=headers, timeout=5)
        assert answer.headers["x-douane-code"] == "model_not_allowed"
    with urllib.request.urlopen(urllib.request.Request(url, chat(), headers), timeout=5) as got:
        assert b"You said" in got.read()

    assert {seen.header("authorization") for seen in provider.seen[-3:]} == {f"Bearer {REAL_KEY}"}


AIOHTTP = """
import aiohttp, asyncio, json, sys
async def main():
    async with aiohttp.ClientSession(trust_env=True) as client:
        for stream in (False, True):
            asked = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": "aiohttp"}]}
            async with client.post("https://api.openai.com/v1/chat/completions", json=asked) as answer:
                print(answer.status, b"aiohttp" in b"".join([piece async for piece in answer.content]))
asyncio.run(main())
"""


def test_aiohttp(gateway: Gateway, provider: LocalProvider) -> None:
    """In a process of its own: it reads its certificates when it is imported."""
    done = douane(gateway.base, "run", "--", sys.executable, "-c", AIOHTTP, fresh=True)
    assert done.stdout.splitlines() == ["200 True", "200 True"], done.stderr
    assert provider.seen[-1].header("authorization") == f"Bearer {REAL_KEY}"


FETCH = """
const ask = async (model, stream) => {
  const answer = await fetch("https://api.openai.com/v1/chat/completions", {method: "POST", body: JSON.stringify(
    {model, stream, messages: [{role: "user", content: "node"}]}), headers: {"content-type": "application/json",
    "authorization": "Bearer " + process.env.OPENAI_API_KEY}});
  console.log(answer.status, answer.headers.get("x-douane-code"), (await answer.text()).includes("node"));
};
(async () => { await ask("gpt-4o", false); await ask("gpt-4o", true); await ask("o1", false); })();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
def test_node_fetch(gateway: Gateway, provider: LocalProvider) -> None:
    done = douane(gateway.base, "run", "--", "node", "-e", FETCH)
    assert done.stdout.splitlines() == ["200 null true", "200 null true", "403 model_not_allowed false"], done.stderr
    assert provider.seen[-1].header("authorization") == f"Bearer {REAL_KEY}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_curl(gateway: Gateway, provider: LocalProvider) -> None:
    big = gateway.base / "big.json"
    big.write_bytes(chat("x" * 300_000))
    for more in ((), ("--expect100-timeout", "5", "-H", "Expect: 100-continue"), ("-H", "Transfer-Encoding: chunked")):
        done = douane(gateway.base, "run", "--tag", "client=curl", "--", "curl", "-sS", "--fail-with-body", "--max-time", "9",
                     *more, "--data-binary", f"@{big}", f"https://api.openai.com{CHAT}")
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["choices"][0]["message"]["content"]) > 300_000
        assert provider.seen[-1].body == big.read_bytes()
    assert outcomes(gateway)[-1]["principal"]["tags"] == {"client": "curl"}
    done = douane(gateway.base, "run", "--", "curl", "-sS", "-N", "--max-time", "9", "-d", chat("a b", stream=True).decode(),
                 f"https://api.openai.com{CHAT}")
    assert done.stdout.endswith("data: [DONE]\n\n")


# -- recorded traffic ----------------------------------------------------------------------------------------------


def _fetch(gateway: Gateway, name: str, records: list[dict[str, Any]]) -> None:
    """Every record through one connection: body equal to the recorded one, once decoded."""
    host = f"api.{name}.com"
    table = builtin()[name]
    with Wire.tls(gateway, host) as wire:
        for record in records:
            url, asked = recorded.url(record), record["request"]
            target = url.path + (f"?{url.query}" if url.query else "")
            body = (asked.get("body") or "").encode("utf-8", "surrogatepass")
            wire.send(request(body if body or asked["method"] == "POST" else None, method=asked["method"], target=target,
                              host=host, headers=[("Content-Type", "application/json"), ("Accept-Encoding", "gzip, br, zstd")]))
            got = wire.answer(asked["method"])
            if table.operation(asked["method"], url.path) is None:
                assert got.code == "operation_not_allowed", (got, target)
                continue
            where = f"{record['source']} {target} {got.status} {got.body[:200]!r}"
            coding = got.header("content-encoding")
            text = UNCODE[coding](got.body) if got.body and coding else got.body
            assert got.status == record["response"]["status"], where
            assert got.whole, where
            assert text == (record["response"].get("body") or "").encode("utf-8", "surrogatepass"), where


UNCODE = {"gzip": gzip.decompress, "br": brotli.decompress,
          "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)}


def _http(name: str) -> list[dict[str, Any]]:
    """Records with text bodies that the recorder left whole, so that they are JSON still."""
    return [one for one in recorded.records(name) if recorded.url(one).hostname == f"api.{name}.com"
            and "body_base64" not in one["request"] and "body_base64" not in one["response"]
            and "body_truncated" not in one.get("flags", ()) and not _is_form(one)
            and not (name == "openai" and _names_objects(one))]


def _is_form(one: dict[str, Any]) -> bool:
    """Sent as JSON here, a form is none."""
    return one["request"]["method"] == "POST" and recorded.url(one).path in ("/v1/files", "/v1/realtime/calls")


OPENAI = builtin()["openai"]


def _as_it_leaves(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records as the provider gets them: streams of chat tell their usage (``test_usage.py``)."""
    out = []
    for one in records:
        row = OPENAI.operation(one["request"]["method"], recorded.url(one).path)
        told = None
        if row is not None and row.name in ("chat", "completions"):
            told = asking((one["request"].get("body") or "").encode(), recorded.asked(one))
        out.append(one if told is None else {**one, "request": {**one["request"], "body": told[0].decode()}})
    return out


def _names_objects(one: dict[str, Any]) -> bool:
    """Under a shared key these were made elsewhere: refused here (``test_objects.py``)."""
    place = spot(recorded.url(one).path)
    document = recorded.asked(one)
    return (place is not None and (place.name != "" or own_alone(one["request"]["method"], place))) \
        or any(named(document, google=False))


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    """Every model is allowed; the key is swapped for openai (so answers are read), kept for anthropic."""
    chain = "  - authenticate: {unknown: deny}\n  - swap_key: {missing: keep}"
    with running_gateway(tmp_path_factory.mktemp("passing"), policy(provider, chain=chain)) as one:
        yield one


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_recorded_traffic_passes_byte_for_byte(passing: Gateway, provider: LocalProvider, name: str) -> None:
    records = _http(name)
    assert len(records) > 250
    records = records[:: 1 if "DOUANE_EXAMPLES" in os.environ else 4]  # all of them in `./run.sh test --full`
    with answering(provider, replay(_as_it_leaves(records), chunk=211)):
        _fetch(passing, name, records)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_recorded_traffic_in_content_codings(passing: Gateway, provider: LocalProvider, name: str, coding: str) -> None:
    records = _http(name)
    records = [one for one in records if one["stream"]][::6] + [one for one in records if not one["stream"]][::12]
    assert CODINGS[coding](b"x") != b"x"
    with answering(provider, replay(_as_it_leaves(records), coding=coding, chunk=97)):
        _fetch(passing, name, records)


def test_recorded_streams_in_single_bytes(passing: Gateway, provider: LocalProvider) -> None:
    for name in ("openai", "anthropic"):
        records = [one for one in _http(name) if one["stream"] and len(one["response"]["body"] or "") < 6000][:8]
        with answering(provider, replay(_as_it_leaves(records), chunk=1)):
            _fetch(passing, name, records)


# -- what it says of itself ----------------------------------------------------------------------------------------


def admin(gateway: Gateway, path: str) -> Got:
    with Wire.to(gateway.admin) as wire:
        wire.send(request(None, method="GET", target=path, host="localhost"))
        return wire.answer()


def test_health_and_metrics(gateway: Gateway) -> None:
    assert admin(gateway, "/healthz").status == 200
    assert admin(gateway, "/readyz").json == {"ready": True, "problems": []}
    calls, tokens, cost = (gateway.metric(f"douane_{name}_total") for name in ("calls", "tokens", "cost_usd"))
    assert post(gateway, chat()).status == 200
    assert post(gateway, chat(model="o1")).status == 403
    assert gateway.metric("douane_calls_total") == calls + 2
    assert gateway.metric("douane_tokens_total") > tokens
    assert gateway.metric("douane_cost_usd_total") > cost
    assert gateway.metric("douane_exchanges_running") == 0
    text = admin(gateway, "/metrics").body.decode()
    row = next(line for line in text.splitlines() if line.startswith("douane_calls_total{") and "model_not_allowed" in line)
    assert all(part in row for part in ('provider="openai"', 'operation="chat"', 'team="dev"'))
    for name in ("douane_call_seconds_bucket", "douane_gateway_seconds_bucket", "douane_upstream_seconds_bucket",
                 "douane_first_byte_seconds_bucket", "douane_policy_seconds_bucket"):
        assert name in text
    assert REAL_KEY not in text


def test_labels_are_bounded(gateway: Gateway) -> None:
    for number in range(20):
        post(gateway, chat(model=f"gpt-4-made-up-{number}"))
    assert "made-up" not in admin(gateway, "/metrics").body.decode()


def test_the_log_is_structured_and_carries_no_key(gateway: Gateway) -> None:
    lines = gateway.log().splitlines()
    began = next(n for n, line in enumerate(lines) if line.startswith("{")) if any(
        line.startswith("{") for line in lines) else len(lines)
    for line in lines[began:]:
        assert {"at", "level", "message"} <= json.loads(line).keys()
    assert "Traceback" not in gateway.log()
    for text in (gateway.log(), json.dumps(gateway.records()), "".join(
            Path(f"/proc/{gateway.process.pid}/cmdline").read_text())):
        assert REAL_KEY not in text
        assert "app-key" not in text


# -- providers that cannot be reached ------------------------------------------------------------------------------


def test_providers_that_cannot_be_reached(tmp_path: Path, provider: LocalProvider) -> None:
    """Not there, of another name, expired, by a CA that is not trusted, no TLS at all: each says which."""
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        wrong = {name: stack.enter_context(running_provider(tmp_path / name, **how)) for name, how in (
            ("named", {"names": ("other.example",)}), ("expired", {"lifetime": timedelta(days=-1)}), ("stranger", {}))}
        plain = stack.enter_context(_plain_server())
        ways = {"gone": (taken.getsockname()[1], provider.ca), "plain": (plain, provider.ca),
                **{name: (one.port, one.ca if name != "stranger" else provider.ca) for name, one in wrong.items()}}
        more = "".join(f'  {name}: {{like: openai, hosts: ["{name}.internal"], upstream: "https://127.0.0.1:{port}", '
                       f'ca: "{ca}"}}\n' for name, (port, ca) in ways.items())
        text = policy(provider).replace("providers:\n", "providers:\n" + more)
        one = stack.enter_context(running_gateway(tmp_path, text))
        for name, word in (("gone", "127.0.0.1"), ("named", "certificate"), ("expired", "expired"), ("stranger", "certificate"),
                           ("plain", "TLS")):
            host = f"{name}.internal"
            with Wire.tls(one, host) as wire:
                wire.send(request(chat(), host=host))
                got = wire.answer()
            assert (got.status, got.code) == (502, "upstream_error"), name
            assert got.header("x-should-retry") != "false"
            assert word.lower() in got.json["error"]["message"].lower(), got.json
            said = one.outcome(got.id)
            assert (said["ended"], said["status"], said["verdict"]["code"]) == ("upstream_error", 0, "upstream_error")
        assert not [seen for other in wrong.values() for seen in other.seen if seen.method]


@contextlib.contextmanager
def _plain_server() -> Iterator[int]:
    """Answers in plain HTTP to whatever comes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve() -> None:
            with contextlib.suppress(OSError), listening.accept()[0] as peer:
                peer.recv(9999)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


# -- signals -------------------------------------------------------------------------------------------------------


def slow(seconds: float, count: int = 20) -> Reply:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    steps: list[Step] = [event]
    for _ in range(count):
        steps += [seconds / count, event]
    return Reply(headers=[("content-type", "text/event-stream")], body=[*steps, b"data: [DONE]\n\n"])


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_compressed_stream_ends_with_its_coding(passing: Gateway, provider: LocalProvider, coding: str) -> None:
    """What ends a coding may come long after the stream's last word, and is the client's all the same."""
    plain = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\ndata: [DONE]\n\n'
    packed = CODINGS[coding](plain)
    for cut in (len(packed) - 1, len(packed) - 3, len(packed) // 2, 1):
        reply = Reply(headers=[("content-type", "text/event-stream"), ("content-encoding", coding)],
                      body=[packed[:cut], 0.05, packed[cut:]])
        with answering(provider, lambda _, reply=reply: reply), Wire.tls(passing) as wire:  # type: ignore[misc]
            wire.send(request(chat(stream=True), headers=[("Accept-Encoding", coding)]))
            got = wire.answer()
        assert got.whole
        assert UNCODE[coding](got.body) == plain
        assert passing.outcome(got.id)["ended"] == "complete"


def test_reload(tmp_path: Path, provider: LocalProvider) -> None:
    with running_gateway(tmp_path, policy(provider), fresh=True) as one:
        first = wait_for(lambda: [told["revision"] for told in one.records() if told.get("event") == "start"])[-1]

        def status() -> dict[str, Any]:
            with Client(one.data / "control.sock") as client:
                return client.ask("status")

        with answering(provider, lambda seen: slow(0.6)), Wire.tls(one) as wire:
            wire.send(request(chat(stream=True)))
            assert wire.more()
            one.policy_file.write_text(policy(provider).replace("gpt-4*", "gpt-5*"))
            one.process.send_signal(signal.SIGHUP)
            assert wait_for(lambda: status()["revision"] != first)
            running = wire.answer()
        assert running.body.endswith(b"data: [DONE]\n\n")
        assert one.outcome(running.id)["revision"] == first, "an exchange ends under the chain it began with"
        second = status()["revision"]
        assert post(one, chat()).code == "model_not_allowed"
        got = post(one, chat(model="gpt-5"))
        assert got.status == 200
        assert one.outcome(got.id)["revision"] == second

        for broken in ("chain: [", policy(provider).replace("swap_key", "swop_key"),
                       policy(provider).replace("REAL_KEY", "NO_SUCH")):
            one.policy_file.write_text(broken)
            before = len([1 for event in one.records() if event.get("event") == "reload_refused"])
            one.process.send_signal(signal.SIGHUP)
            refused = wait_for(lambda before=before: [  # type: ignore[misc]
                event for event in one.records() if event.get("event") == "reload_refused"][before:])
            assert "p.yaml:" in json.dumps(refused[0])
            assert status()["revision"] == second
            assert post(one, chat(model="gpt-5")).status == 200
            with Client(one.data / "control.sock") as client, pytest.raises(DouaneError, match=r"p\.yaml:"):
                client.ask("reload")
        one.policy_file.write_text(policy(provider))
        told = douane(one.base, "reload")
        assert (told.returncode, told.stdout) == (0, f"revision {first[:12]}\n")
        assert post(one, chat()).status == 200


def test_sigterm_finishes_what_runs(tmp_path: Path, provider: LocalProvider) -> None:
    one = Gateway(tmp_path, policy(provider), fresh=True)
    try:
        idle = Wire.tls(one)
        idle.send(request(chat()))
        assert idle.answer().status == 200
        with answering(provider, lambda seen: slow(0.8)), Wire.tls(one) as wire, idle:
            wire.send(request(chat(stream=True)))
            assert wire.more()
            one.process.send_signal(signal.SIGTERM)
            assert idle.ended(), "an idle connection is closed"
            assert wait_for(lambda: _refused(one.proxy)), "nothing new is taken"
            got = wire.answer()
        assert got.whole
        assert got.body.endswith(b"data: [DONE]\n\n")
        assert one.process.wait(5) == 0
    finally:
        one.stop()
    records = one.records()
    assert [said["ended"] for said in records if said.get("id") == got.id and said["kind"] == "outcome"] == ["complete"]
    assert records[-1]["event"] == "stop"


def _refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_full_disk(tmp_path: Path, provider: LocalProvider) -> None:
    """The kernel's own limit on the size of files stands for the disk's end."""
    with running_gateway(tmp_path, policy(provider), fresh=True) as one:
        assert post(one, chat()).status == 200
        size = max(file.stat().st_size for file in (one.data / "audit").glob("*/*.jsonl"))
        resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        with untouched(provider):
            began = time.monotonic()
            got = post(one, chat())
            assert time.monotonic() - began < 1
            assert (got.status, got.code) == (503, "audit_unavailable")
            assert got.header("x-should-retry") != "false"
            assert post(one, chat(model="o1")).code == "audit_unavailable"
        ready = admin(one, "/readyz")
        assert ready.status == 503
        assert "audit" in ready.json["problems"][0]
        assert admin(one, "/healthz").status == 200
        assert one.metric("douane_failed_closed_total") >= 1
        resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert wait_for(lambda: post(one, chat()).status == 200)
        assert admin(one, "/readyz").status == 200
    assert douane(tmp_path, "audit", "verify").returncode == 0


# -- starts that must not succeed ----------------------------------------------------------------------------------


def start(base: Path, text: str, *more: str, fresh: bool = False) -> "subprocess.CompletedProcess[str]":
    """``serve``, which is expected to end by itself."""
    (base / "policies").mkdir(parents=True, exist_ok=True)
    (base / "policies" / "p.yaml").write_text(text)
    if not (base / "data").is_file():
        lend_prices(base / "data")
    ports = [] if any(word.startswith("--proxy") for word in more) else ["--proxy=127.0.0.1:0"]
    ports += [] if any(word.startswith("--admin") for word in more) else ["--admin=127.0.0.1:0"]
    ports += [] if any(word.startswith("--http") for word in more) else ["--http=127.0.0.1:0"]
    return douane(base, "serve", *ports, *more, fresh=fresh)


def test_a_port_in_use(tmp_path: Path, provider: LocalProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for number, option in enumerate(("--proxy", "--http", "--admin")):
            ended = start(tmp_path / str(number), policy(provider), f"{option}={address}", fresh=option == "--http")
            assert ended.returncode == 3
            assert len(ended.stderr.splitlines()) == 1
            assert address in ended.stderr
            assert f"{option} HOST:PORT" in ended.stderr


BROKEN = {
    "an unknown policy": ("  - swap_key", "  - swop_key", "swap_key"),
    "an unknown section": ("version: 1", "version: 1\nverison: 2", "verison"),
    "a missing secret": ("env:REAL_KEY", "env:NO_SUCH_KEY", "NO_SUCH_KEY"),
    "a wrong condition": ("{unknown: deny}", "{unknown: deny}\n    when: nobody.x", "when"),
    "a level that is not there": ("{level: metadata}", "{level: full}", "audit.level"),
    "a repeated key": ("version: 1", "version: 1\nversion: 1", "version"),
    "no YAML": ("version: 1", "\tversion", "p.yaml"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_policy(tmp_path: Path, provider: LocalProvider, name: str, capsys: pytest.CaptureFixture[str],
                         monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own: those for which the gateway does not start either."""
    before, after, said = BROKEN[name]
    text = policy(provider)
    assert before in text
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(text.replace(before, after, 1))
    if name not in ("a missing secret", "an unknown policy"):
        for key in ("REAL_KEY", "BOT_KEY"):
            monkeypatch.setenv(key, "made-up-0123456789")
        assert main(command(tmp_path, "check")[3:]) == 1
        told = capsys.readouterr().err
        assert re.search(r"p\.yaml:\d+", told)
        assert said in told
        return
    for word, code in (("check", 1), ("serve", 2)):
        ended = douane(tmp_path, word)
        assert ended.returncode == code
        assert re.search(r"p\.yaml:\d+", ended.stderr)
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
    if name == "an unknown policy":
        done = douane(tmp_path, "run", "--", "true")
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_every_mistake_at_once(tmp_path: Path, provider: LocalProvider) -> None:
    text = policy(provider).replace("swap_key", "swop_key").replace("allow_models", "alow_models")
    text = text.replace("env:BOT_KEY", "env:NO")
    (tmp_path / "p.yaml").write_text(text)
    assert len(re.findall(r"p\.yaml:\d+", douane(tmp_path, "check", str(tmp_path)).stderr)) >= 3


def test_folders_that_cannot_be_written(tmp_path: Path, provider: LocalProvider) -> None:
    """A file stands where the folder should be: this stops root too."""
    for name in ("data", "certs"):
        base = tmp_path / name
        base.mkdir()
        (base / name).write_text("in the way")
        ended = start(base, policy(provider))
        assert ended.returncode == 3
        assert str(base / name) in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_beyond_loopback_without_anybody_known(tmp_path: Path, provider: LocalProvider) -> None:
    text = re.sub(r"  - \{name: bot.*\n", "", policy(provider))
    ended = start(tmp_path, text, "--proxy=0.0.0.0:0")
    assert ended.returncode == 2
    assert "--proxy" in ended.stderr


def test_two_gateways_on_one_data_folder(gateway: Gateway, provider: LocalProvider) -> None:
    ended = douane(gateway.base, "serve", "--proxy=127.0.0.1:0", "--http=127.0.0.1:0", "--admin=127.0.0.1:0")
    assert ended.returncode == 3
    assert "in use" in ended.stderr
    assert post(gateway, chat()).status == 200, "the first one lives on"


def test_folders_are_private(gateway: Gateway) -> None:
    for path in (gateway.data, gateway.base / "certs", gateway.data / "audit"):
        assert path.stat().st_mode & 0o077 == 0
    assert (gateway.data / "control.sock").stat().st_mode & 0o177 == 0


# -- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "code"), [
    (["true"], 0), (["false"], 1), ([sys.executable, "-c", "raise SystemExit(77)"], 77), (["/no/such/command"], 127),
    (["sh", "-c", "kill -TERM $$"], 143), (["sh", "-c", "kill -9 $$"], 137), (["/"], 126)])
def test_run_has_the_exit_code_of_its_command(gateway: Gateway, words: list[str], code: int) -> None:
    assert douane(gateway.base, "run", "--", *words).returncode == code


def test_run_sets_what_is_needed_and_unsets_what_would_lead_past(gateway: Gateway) -> None:
    names = ("HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy", "SSL_CERT_DIR", "SSL_CERT_FILE", "OPENAI_API_KEY",
             "ANTHROPIC_API_KEY", "REAL_KEY", "BOT_KEY")
    show = f"import os,json; print(json.dumps({{n: os.environ.get(n) for n in {names!r}}}))"
    inherited = environ(ALL_PROXY="http://evil.example:1", all_proxy="socks5://evil.example:1", SSL_CERT_DIR="/tmp",
                        NO_PROXY="*", HTTPS_PROXY="http://evil.example:1")
    done = douane(gateway.base, "run", "--as", "bot", "--tag", "job=7", "--", sys.executable, "-c", show, env=inherited)
    seen = json.loads(done.stdout)
    assert seen["ALL_PROXY"] is seen["all_proxy"] is seen["SSL_CERT_DIR"] is None
    assert re.fullmatch(r"http://bot:[\w-]{20,}@127\.0\.0\.1:\d+", seen["HTTPS_PROXY"])
    assert "*" not in seen["NO_PROXY"]
    assert Path(seen["SSL_CERT_FILE"]).is_file()
    assert seen["OPENAI_API_KEY"]
    assert seen["OPENAI_API_KEY"] != REAL_KEY
    assert seen["ANTHROPIC_API_KEY"] is None, "no credential: the app must bring its own"
    assert seen["REAL_KEY"] is seen["BOT_KEY"] is None, "the gateway's own secrets are not the app's"


def test_a_token_dies_with_its_command(gateway: Gateway) -> None:
    script = "import os; print(os.environ['HTTPS_PROXY'])"
    done = douane(gateway.base, "run", "--as", "bot", "--", sys.executable, "-c", script)
    user, _, token = done.stdout.strip().removeprefix("http://").partition("@")[0].partition(":")
    head = b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(f"{user}:{token}".encode())
    wire, got = Wire.tunnel(gateway, "api.openai.com:443", head)
    wire.close()
    assert got.status == 407
    with Client(gateway.data / "control.sock") as client:
        alive = client.ask("issue", principal="bot", tags={})
        head = b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(f"bot:{alive['token']}".encode())
        with Wire.tls(gateway, head=head) as tunnel:
            tunnel.send(request(chat()))
            assert tunnel.answer().status == 200
            client.close()
            wait_for(lambda: False, 0.05)
            tunnel.send(request(chat()))
            assert tunnel.answer().status == 401, "checked on each request, not once a tunnel"


def test_run_without_a_gateway_starts_one(tmp_path: Path, provider: LocalProvider) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(policy(provider))
    lend_prices(tmp_path / "data")
    app = ("import openai; print(openai.OpenAI().chat.completions.create(model='gpt-4o', messages="
           "[{'role': 'user', 'content': 'own gateway'}]).choices[0].message.content)")
    done = douane(tmp_path, "run", "--tag", "a=b", "--", sys.executable, "-c", app)
    assert (done.returncode, done.stdout) == (0, "You said: own gateway\n"), done.stderr
    assert not (tmp_path / "data" / "control.sock").exists()
    records = [json.loads(line) for line in next((tmp_path / "data" / "audit").glob("*/*.jsonl")).read_text().splitlines()]
    assert [one["principal"]["tags"] for one in records if one["kind"] == "outcome"] == [{"a": "b"}]
    assert douane(tmp_path, "env").returncode == 3


def test_run_passes_signals_on(gateway: Gateway) -> None:
    script = ("import signal,sys,time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); print('up', flush=True); "
              "time.sleep(20)")
    with subprocess.Popen(command(gateway.base, "run", "--", sys.executable, "-c", script), env=environ(),
                          stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(5) == 9


def test_env_can_be_evaluated(gateway: Gateway) -> None:
    ask = ["curl", "-sS", "--max-time", "9", "-d", chat("env").decode(), f"https://api.openai.com{CHAT}"]
    script = f'eval "$({shlex.join(command(gateway.base, "env"))})"; {shlex.join(ask)}'
    done = subprocess.run(["sh", "-c", script], env=environ(), capture_output=True, text=True, timeout=20)
    assert "You said: env" in done.stdout, done.stderr


def test_audit_commands(gateway: Gateway) -> None:
    got = post(gateway, chat("audit"))
    tail = douane(gateway.base, "audit", "tail", "-n", "2", "--json", fresh=True)
    assert [json.loads(line)["id"] for line in tail.stdout.splitlines()] == [got.id] * 2
    assert got.id in douane(gateway.base, "audit", "tail").stdout
    show = douane(gateway.base, "audit", "show", got.id, "--json")
    assert [json.loads(line)["kind"] for line in show.stdout.splitlines()] == ["intent", "outcome"]
    assert douane(gateway.base, "audit", "show", "0" * 32).returncode == 1
    assert douane(gateway.base, "audit", "verify").returncode == 0


def test_a_changed_log_does_not_verify(tmp_path: Path, gateway: Gateway) -> None:
    shutil.copytree(gateway.data / "audit", tmp_path / "data" / "audit")
    file = next((tmp_path / "data" / "audit").glob("*/*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"model_not_allowed"', b'"model_all_allowed"', 1))
    verify = douane(tmp_path, "audit", "verify")
    assert verify.returncode == 1
    assert ".jsonl:" in verify.stdout + verify.stderr


def test_check_and_ca(gateway: Gateway) -> None:
    check = douane(gateway.base, "check", fresh=True)
    assert check.returncode == 0
    assert "swap_key" in check.stdout
    show = douane(gateway.base, "ca", "show", fresh=True)
    assert show.returncode == 0
    assert "api.openai.com" in show.stdout


@pytest.mark.parametrize(("words", "code"), [([], 2), (["nonsense"], 2), (["run"], 2), (["run", "--tag", "x", "--", "true"], 2),
                                             (["serve", "--proxy=nowhere"], 2), (["check", "/no/such/folder"], 1)])
def test_wrong_use(tmp_path: Path, words: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-m", "douane", *words], cwd=tmp_path, env=environ(), capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_quick() -> None:
    taken = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "douane", "--help"], env=environ(), capture_output=True)
        taken.append(time.monotonic() - began)
        assert done.returncode == 0
    assert min(taken) < 0.4


def test_a_client_that_does_not_trust_us_is_told_in_the_log(gateway: Gateway, provider: LocalProvider) -> None:
    with untouched(provider), pytest.raises(ssl.SSLCertVerificationError):
        Wire.tls(gateway, ca=provider.ca)
    assert wait_for(lambda: "does it trust our CA" in gateway.log())


def test_a_body_behind_an_upgrade_is_not_lost(passing: Gateway, provider: LocalProvider) -> None:
    """What follows an upgrade is no HTTP; so a request that has a body as well is refused, and not sent on without it."""
    with Wire.tls(passing) as wire, untouched(provider):
        wire.send(request(chat(), headers=[("Upgrade", "h2c"), ("Connection", "Upgrade")]))
        assert wire.answer().status in (400, 403)
