"""The local provider: the real SDKs believe it, and scripts rule every byte of it."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from douane.demo.answers import CODINGS, replay
from douane.demo.provider import LocalProvider, Raw, Reply, Seen, running_provider

TOOL = {"type": "object", "properties": {"to": {"type": "string"}, "copies": {"type": "integer"}}}
WORDS = "Grüße  an\tKäthe, 1 2 3!\n"
HI = (b"POST /v1/x?a=%20b HTTP/1.1\r\nHoST: here\r\nX-Two: 1\r\nx-two:  2\r\nContent-Length: 5\r\n\r\nhello")


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def gpt(provider: LocalProvider) -> Iterator[openai.OpenAI]:
    client = openai.DefaultHttpx2Client(verify=trusting(provider), trust_env=False)
    with openai.OpenAI(api_key="not-a-key", base_url=f"{provider.url}/v1", http_client=client, max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def claude(provider: LocalProvider) -> Iterator[anthropic.Anthropic]:
    client = anthropic.DefaultHttpxClient(verify=trusting(provider), trust_env=False)
    with anthropic.Anthropic(api_key="not-a-key", base_url=provider.url, http_client=client, max_retries=0) as sdk:
        yield sdk


def trusting(provider: LocalProvider) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(provider.ca))


def talk(provider: LocalProvider, sent: bytes, *, name: str = "127.0.0.1") -> bytes:
    """Send bytes over TLS and read to the end."""
    with (socket.create_connection(("127.0.0.1", provider.port), timeout=5) as plain,
          trusting(provider).wrap_socket(plain, server_hostname=name) as connection):
        connection.sendall(sent)
        got = b""
        while piece := connection.recv(65536):
            got += piece
        return got


def ended(seen: Seen) -> str:
    """How it ended, awaited for at most two seconds."""
    for _ in range(200):
        if seen.ended != "open":
            break
        time.sleep(0.01)
    return seen.ended


# The SDKs ------------------------------------------------------------------------------------------------------------


def test_chat_echoes_with_usage_and_request_id(gpt: openai.OpenAI) -> None:
    raw = gpt.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": WORDS}])
    answer = raw.parse()
    assert answer.choices[0].message.content == f"You said: {WORDS}"
    assert (answer.model, answer.choices[0].finish_reason) == ("gpt-4o-mini", "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens == 3 + 7 + 2 + 1 + 6  # bytes/4 of text and roles, 3 a message
    assert raw.headers["x-request-id"].startswith("req_")


def test_chat_stream_gives_usage_only_when_asked(gpt: openai.OpenAI) -> None:
    for wanted in (True, False):
        stream = gpt.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": WORDS}], stream=True,
                                             stream_options={"include_usage": wanted})
        chunks = list(stream)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == f"You said: {WORDS}"
        assert len(chunks) > 6
        assert (chunks[-1].usage is not None) == wanted
        assert [bool(chunk.choices) for chunk in chunks].count(False) == wanted


def test_chat_calls_a_tool_and_reports_its_result(gpt: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "post", "parameters": TOOL}}]
    plain = gpt.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": WORDS}], tools=tools)
    call: Any = (plain.choices[0].message.tool_calls or [])[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("post", {"to": WORDS, "copies": 1})
    with gpt.chat.completions.stream(model="gpt-4o", messages=[{"role": "user", "content": WORDS}],
                                     tools=tools) as stream:
        streamed: Any = (stream.get_final_completion().choices[0].message.tool_calls or [])[0]
    assert streamed.function.arguments == call.function.arguments
    told = gpt.chat.completions.create(model="gpt-4o", tools=tools, messages=[
        {"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "sent"}])
    assert told.choices[0].message.content == "The tool said: sent"


def test_responses_plain_and_streamed_are_the_same(gpt: openai.OpenAI) -> None:
    plain = gpt.responses.create(model="gpt-4o", input=WORDS, instructions="Be brief.")
    assert plain.output_text == f"You said: {WORDS}"
    assert plain.usage is not None
    with gpt.responses.stream(model="gpt-4o", input=WORDS, instructions="Be brief.") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == plain.output_text
    assert final.usage == plain.usage
    assert list(dict.fromkeys(kinds)) == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed"]


def test_responses_calls_a_tool(gpt: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "post", "parameters": TOOL, "strict": False}]
    with gpt.responses.stream(model="gpt-4o", input=[{"role": "user", "content": WORDS}], tools=tools) as stream:
        item: Any = stream.get_final_response().output[0]
    assert (item.type, item.name, json.loads(item.arguments)) == ("function_call", "post", {"to": WORDS, "copies": 1})
    told = gpt.responses.create(model="gpt-4o", tools=tools, input=[
        {"type": "function_call_output", "call_id": item.call_id, "output": "sent"}])
    assert told.output_text == "The tool said: sent"


def test_openai_models_and_errors(gpt: openai.OpenAI, provider: LocalProvider) -> None:
    assert "gpt-4o" in [model.id for model in gpt.models.list()]
    assert gpt.models.retrieve("gpt-4o").owned_by == "system"
    with pytest.raises(openai.NotFoundError) as missing:
        gpt.models.retrieve("gpt-99")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        gpt.embeddings.create(model="m", input="x")
    with pytest.raises(openai.BadRequestError):
        gpt.chat.completions.create(model="gpt-4o", messages=[])
    with httpx.Client(verify=trusting(provider), trust_env=False) as bare:
        refused = bare.post(f"{provider.url}/v1/responses", json={})
        broken = bare.post(f"{provider.url}/v1/responses", content=b"{", headers={"authorization": "Bearer x"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "invalid_request_error")
    assert broken.status_code == 400


def test_messages_plain_and_streamed_are_the_same(claude: anthropic.Anthropic) -> None:
    asked: Any = {"model": "claude-sonnet-5", "max_tokens": 99, "system": "Be brief.",
                  "messages": [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]}
    plain = claude.messages.create(**asked)
    assert plain.content[0].type == "text"
    assert plain.content[0].text == f"You said: {WORDS}"
    assert plain.stop_reason == "end_turn"
    assert (plain._request_id or "").startswith("req_")
    with claude.messages.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert [block.text for block in final.content if block.type == "text"] == [plain.content[0].text]
    assert final.usage.input_tokens == plain.usage.input_tokens
    assert final.usage.output_tokens == plain.usage.output_tokens
    assert [kinds[0], kinds[-1]] == ["message_start", "message_stop"]
    counted = claude.messages.count_tokens(**{name: asked[name] for name in ("model", "system", "messages")})
    assert counted.input_tokens == plain.usage.input_tokens


def test_messages_call_a_tool_and_report_its_result(claude: anthropic.Anthropic) -> None:
    asked: Any = {"model": "claude-sonnet-5", "max_tokens": 99, "tools": [{"name": "post", "input_schema": TOOL}]}
    first: Any = [{"role": "user", "content": WORDS}]
    plain = claude.messages.create(messages=first, **asked)
    block: Any = plain.content[0]
    assert (plain.stop_reason, block.name, block.input) == ("tool_use", "post", {"to": WORDS, "copies": 1})
    with claude.messages.stream(messages=first, **asked) as stream:
        streamed: Any = stream.get_final_message().content[0]
    assert streamed.input == block.input
    result: Any = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "sent"}]}
    told: Any = claude.messages.create(messages=[*first, {"role": "user", "content": [result]}], **asked)
    assert told.content[0].text == "The tool said: sent"


def test_anthropic_models_and_errors(claude: anthropic.Anthropic, provider: LocalProvider) -> None:
    assert "claude-sonnet-5" in [model.id for model in claude.models.list()]
    assert claude.models.retrieve("claude-sonnet-5").type == "model"
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("claude-99")
    with pytest.raises(anthropic.BadRequestError, match="messages: Field required"):
        claude.messages.create(model="claude-sonnet-5", max_tokens=1, messages=[])
    with httpx.Client(verify=trusting(provider), trust_env=False) as bare:
        refused = bare.post(f"{provider.url}/v1/messages", json={})
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")


# The wire ------------------------------------------------------------------------------------------------------------


def test_a_request_is_seen_as_it_came(tmp_path: Path) -> None:
    with running_provider(tmp_path, script=lambda seen: Reply(body=b"ok", headers=[("connection", "close")])) as local:
        assert talk(local, HI, name="api.openai.com").endswith(b"content-length: 2\r\n\r\nok")
        talk(local, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n")
    first, second = local.seen
    assert (first.method, first.target, first.path, first.sni) == ("POST", "/v1/x?a=%20b", "/v1/x", "api.openai.com")
    assert first.headers == ((b"HoST", b"here"), (b"X-Two", b"1"), (b"x-two", b"2"), (b"Content-Length", b"5"))
    assert (first.head + first.body, first.header("x-TWO"), first.ended) == (HI, "1", "answered")
    assert (second.body, second.trailers, second.sni) == (b"abcde", ((b"T", b"1"),), "")
    assert [(seen.number, seen.connection) for seen in local.seen] == [(1, 1), (2, 2)]


def test_a_connection_is_kept_and_pipelined(tmp_path: Path) -> None:
    last = HI.replace(b"HoST: here", b"Connection: close")
    with running_provider(tmp_path, script=lambda seen: Reply(body=b"%d" % seen.number)) as local:
        got = talk(local, HI + HI + last)
        assert [part[:1] for part in got.split(b"content-length: 1\r\n\r\n")[1:]] == [b"1", b"2", b"3"]
    assert (local.connections, [seen.connection for seen in local.seen]) == (1, [1, 1, 1])


def test_steps_go_chunked_with_their_pauses(tmp_path: Path) -> None:
    reply = Reply(status=201, reason="Made", body=[b"one", 0.1, b"two"], delay=0.1)
    with running_provider(tmp_path, script=lambda seen: reply) as local:
        begun = time.monotonic()
        got = talk(local, HI.replace(b"HoST: here", b"Connection: close"))
    assert time.monotonic() - begun >= 0.2
    assert got == b"HTTP/1.1 201 Made\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize(("reply", "method", "end"), [
    (Reply(status=204), "POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
    (Reply(body=b"abc"), "HEAD", b"content-length: 3\r\n\r\n"),
    (Reply(body=b"abc", headers=[("content-length", "9")]), "GET", b"content-length: 9\r\n\r\nabc"),
    (Reply(body=[b"a", b"c"], headers=[("content-length", "2")]), "GET", b"content-length: 2\r\n\r\nac"),
    (Reply(status=777, body=b"x"), "GET", b"HTTP/1.1 777 Unknown\r\ncontent-length: 1\r\n\r\nx"),
])
def test_framing_is_the_replys_unless_named(reply: Reply, method: str, end: bytes) -> None:
    steps = reply.steps(method)
    assert b"".join(step for step in steps if isinstance(step, bytes)).endswith(end)


@pytest.mark.parametrize("ragged", [False, True])
def test_an_answer_is_cut_after_so_many_bytes(tmp_path: Path, ragged: bool) -> None:
    reply = Reply(body=b"x" * 1000, cut_after=50, ragged=ragged)
    with running_provider(tmp_path, script=lambda seen: reply) as local:
        got = b""
        with (socket.create_connection(("127.0.0.1", local.port), timeout=5) as plain,
              trusting(local).wrap_socket(plain, server_hostname="localhost",
                                          suppress_ragged_eofs=False) as connection):
            connection.sendall(HI)
            try:
                while piece := connection.recv(9999):
                    got += piece
                clean = True
            except ssl.SSLEOFError:
                clean = False
        assert (len(got), clean) == (50, not ragged)
        assert (ended(local.seen[0]), local.seen[0].sent) == ("cut", 50)


def test_raw_bytes_go_as_they_are_and_the_connection_may_be_kept(tmp_path: Path) -> None:
    odd = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n"
    with running_provider(tmp_path, script=lambda seen: Raw([odd[:7], 0.01, odd[7:]], keep=seen.number == 1)) as local:
        assert talk(local, HI + HI) == odd + odd
    assert [seen.connection for seen in local.seen] == [1, 1]


def test_a_script_may_take_the_connection(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(4))[::-1])

    with running_provider(tmp_path, script=lambda seen: echo) as local:
        assert talk(local, HI + b"abcd") == b"dcba"


def test_an_early_answer_comes_before_the_body(tmp_path: Path) -> None:
    with running_provider(tmp_path, early=lambda seen: Reply(status=413) if seen.method == "POST" else None) as local:
        assert talk(local, HI[:-5]).startswith(b"HTTP/1.1 413 ")
    assert local.seen[0].body == b""


def test_expect_continue_is_answered(tmp_path: Path) -> None:
    asked = HI.replace(b"HoST: here", b"Expect: 100-continue\r\nConnection: close")
    with running_provider(tmp_path, script=lambda seen: Reply(status=204)) as local:
        assert talk(local, asked) == b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"


def test_what_is_no_request_is_seen_too(tmp_path: Path) -> None:
    with running_provider(tmp_path) as local:
        for bad in (b"HELLO\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"GET / HTTP/1.1\r\nnocolon\r\n\r\n",
                    b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
            assert talk(local, bad).startswith(b"HTTP/1.1 400 ")
            assert (local.seen[-1].head, local.seen[-1].ended) == (bad, "malformed")
        for broken, body in ((HI[:30], b""), (HI[:-2], b"hel")):
            with (socket.create_connection(("127.0.0.1", local.port), timeout=5) as plain,
                  trusting(local).wrap_socket(plain, server_hostname="localhost") as connection):
                connection.sendall(broken)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):  # closed with bytes unread, the socket would reset and take ours along
                    pass
            for _ in range(200):
                if local.seen[-1].ended == "client_gone" and local.seen[-1].body == body:
                    break
                time.sleep(0.01)
            assert (local.seen[-1].body, local.seen[-1].ended) == (body, "client_gone")
    assert len(local.seen) == 6


def test_a_client_that_goes_is_noticed_in_a_pause(tmp_path: Path) -> None:
    with running_provider(tmp_path, script=lambda seen: Reply(body=[b"x", 30.0, b"y"])) as local:
        with (socket.create_connection(("127.0.0.1", local.port), timeout=5) as plain,
              trusting(local).wrap_socket(plain, server_hostname="localhost") as connection):
            connection.sendall(HI)
            assert connection.recv(9)
        assert ended(local.seen[0]) == "client_gone"


def test_leaving_raises_what_a_script_raised(tmp_path: Path) -> None:
    def broken(seen: Seen) -> Reply:
        raise LookupError(seen.method)

    with pytest.raises(BaseExceptionGroup, match="script failed") as group, running_provider(tmp_path,
                                                                                             script=broken) as local:
        talk(local, HI)
    assert isinstance(group.value.exceptions[0], LookupError)


def test_leaving_does_not_wait_for_clients(tmp_path: Path) -> None:
    async def run() -> float:
        async with LocalProvider(tmp_path, script=lambda seen: Reply(body=[30.0, b"x"])) as local:
            context = trusting(local)
            reader, writer = await asyncio.open_connection("127.0.0.1", local.port, ssl=context)
            writer.write(HI)
            assert await reader.readline()
            begun = time.monotonic()
        writer.close()
        return time.monotonic() - begun

    assert asyncio.run(run()) < 1


def test_certificates_say_what_they_are_told(tmp_path: Path) -> None:
    with running_provider(tmp_path / "a", names=["wrong.example"]) as local:
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            talk(local, HI)
        assert talk(local, HI.replace(b"HoST: here", b"Connection: close"), name="wrong.example")
        assert local.ca.parent.stat().st_mode & 0o777 == 0o700
        assert (local.ca.parent / "provider.pem").stat().st_mode & 0o777 == 0o600
    with (running_provider(tmp_path / "b", lifetime=timedelta(seconds=-1)) as local,
          pytest.raises(ssl.SSLCertVerificationError, match="expired")):
        talk(local, HI)


def test_plain_http(tmp_path: Path) -> None:
    with running_provider(tmp_path, tls=False, script=lambda seen: Reply(body=b"ok")) as local:
        assert httpx.get(local.url, trust_env=False).text == "ok"


def test_a_taken_port_is_an_error(tmp_path: Path, provider: LocalProvider) -> None:
    with pytest.raises(OSError, match="in use"), running_provider(tmp_path, port=provider.port):
        pass


def test_as_a_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "douane.demo.provider", "--folder", str(tmp_path), "--log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "addons"}) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        context = ssl.create_default_context(cafile=told["ca"])
        with httpx.Client(verify=context, trust_env=False, headers={"authorization": "Bearer x"}) as client:
            assert client.get(f"https://127.0.0.1:{told['port']}/v1/models").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert json.loads(log.read_text())["target"] == "/v1/models"


# Recordings ----------------------------------------------------------------------------------------------------------


def record(body: str, answer: str, *headers: tuple[str, str], stream: bool = False) -> dict[str, Any]:
    return {"request": {"method": "POST", "url": "https://api.openai.com/v1/chat/completions?x=1", "headers": {},
                        "body": body},
            "response": {"status": 200, "headers": dict(headers), "body": answer}, "stream": stream}


@pytest.mark.parametrize("coding", ["", *CODINGS])
def test_replay_answers_in_order_in_any_coding(tmp_path: Path, coding: str) -> None:
    records = [record("a", "1" * 50, ("x-request-id", "r1")), record("b", "zwei ü", stream=True), record("a", "3")]
    with (running_provider(tmp_path, script=replay(records, coding=coding, chunk=5)) as local,
          httpx.Client(verify=trusting(local), trust_env=False) as client):
        got = [client.post(f"{local.url}/v1/chat/completions?x=1", content=body) for body in "aaba"]
        assert [answer.text for answer in got[:3]] == ["1" * 50, "3", "zwei ü"]
        assert [answer.status_code for answer in got] == [200, 200, 200, 599]
        assert got[0].headers["x-request-id"] == "r1"
        assert {answer.headers.get("content-encoding", "") for answer in got[:3]} == {coding}
        assert got[2].headers["transfer-encoding"] == "chunked"
        assert got[0].headers["content-length"] == str(got[0].num_bytes_downloaded)
