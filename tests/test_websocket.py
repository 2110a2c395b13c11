"""WebSockets through the gateway, by proxy and by reverse proxy: OpenAI's SDK and a client of the test's own in front, a
provider of the test's own behind, which says what the recordings say."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.templates import built
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from douane.audit import show
from douane.audit.verify import main as verify
from douane.turns import Turns
from tests import house
from tests.gateway import BOT_KEY, REAL_KEY, Gateway, forms, running_gateway, wait_for
from tests.sockets import Heard, Script, SocketProvider, answer, hear, running_sockets, talk, tell

EMAIL = "mia.wagner@example.org"
PHONE = "+49 30 23459876"
REALTIME = "/v1/realtime?model=gpt-4o-realtime"
CHAIN = """  - authenticate: {unknown: deny}
  - allow_models: {models: [gpt-4o*]}
  - detect_secrets: {rules: {STRIPE_KEY: deny}}
  - redact: {entities: [EMAIL_ADDRESS, PHONE_NUMBER]}
  - budget: {per: principal, limit: LIMIT USD/day, unbounded: assume 100}
  - swap_key: {missing: keep}"""


def rules(provider: SocketProvider, limit: str = "1000", more: str = "") -> str:
    return f"""version: 1
principals:
  - {{name: local, team: dev, cidr: [127.0.0.0/8]}}
  - {{name: bot, team: bots, key: env:BOT_KEY}}
providers:
  openai: {{upstream: "{provider.url}", ca: "{provider.ca}"}}
credentials:
  openai: env:REAL_KEY
prices:
  gpt-4o-realtime: {{input: 1000, output: 1000}}
{more}
chain:
{CHAIN.replace("LIMIT", limit)}
"""


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SocketProvider]:
    with running_sockets(tmp_path_factory.mktemp("sockets"), talk) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, sockets: SocketProvider) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), rules(sockets)) as one:
        yield one


@contextlib.contextmanager
def saying(provider: SocketProvider, script: Script) -> Iterator[None]:
    before, provider.script = provider.script, script
    try:
        yield
    finally:
        provider.script = before


def through(gateway: Gateway, path: str = REALTIME, door: str = "proxy", key: str = "app-key", who: str = "",
            subprotocols: list[str] | None = None, **more: Any) -> connect:
    """A session by the *door*. *who*: credentials for the proxy."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    names = [Subprotocol(one) for one in subprotocols] if subprotocols else None
    if door == "reverse":
        return connect("ws://{}:{}/openai".format(*gateway.http) + path, additional_headers=headers, proxy=None,
                       subprotocols=names, **more)
    proxy = "http://{}{}:{}".format(who and f"{who}@", *gateway.proxy)
    return connect(f"wss://api.openai.com{path}", additional_headers=headers, proxy=proxy, subprotocols=names,
                   ssl=ssl.create_default_context(cafile=str(gateway.ca)), **more)


async def say(client: ClientConnection, *frames: dict[str, Any]) -> None:
    for frame in frames:
        await client.send(json.dumps(frame))


async def until(client: ClientConnection, *kinds: str) -> list[dict[str, Any]]:
    """Every event up to the first of one of these types."""
    got: list[dict[str, Any]] = []
    async with asyncio.timeout(8):
        while not got or got[-1]["type"] not in kinds:
            got.append(json.loads(await client.recv()))
    return got


async def ended(client: ClientConnection) -> None:
    """Once the other side has closed."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(8):
            while True:
                await client.recv()


def item(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}, **more}


ASK = {"type": "response.create"}


def outcomes(gateway: Gateway, session: str) -> list[dict[str, Any]]:
    return [one for one in gateway.records() if one["kind"] == "outcome" and one.get("session") == session]


def text_of(events: list[dict[str, Any]], kind: str = "response.output_text.delta") -> str:
    return "".join(one["delta"] for one in events if one["type"] == kind)


@pytest.mark.parametrize("door", ["proxy", "reverse"])
def test_a_session_is_redacted_answered_restored_and_recorded(gateway: Gateway, sockets: SocketProvider, door: str) -> None:
    async def go() -> tuple[str, list[dict[str, Any]]]:
        async with through(gateway, door=door) as client:
            assert client.response is not None
            await say(client, {"type": "session.update", "session": {"instructions": f"You serve {EMAIL}."}})
            events = await until(client, "session.updated")
            assert EMAIL in events[-1]["session"]["instructions"]
            await say(client, item(f"Write to {EMAIL}, or call {PHONE}"), ASK)
            events = await until(client, "response.done")
            return client.response.headers["x-douane-id"], events

    session, events = asyncio.run(go())
    heard = sockets.heard[-1]
    sent = json.dumps(heard.raw)
    assert EMAIL not in sent
    assert PHONE not in sent
    assert "<EMAIL_ADDRESS_" in sent
    assert heard.headers["authorization"] == f"Bearer {REAL_KEY}"
    whole = f"Write to {EMAIL}, or call {PHONE}"
    assert text_of(events) == whole
    assert json.loads(text_of(events, "response.function_call_arguments.delta")) == {"said": whole}
    done = events[-1]["response"]
    assert done["output"][0]["content"][0]["text"] == whole
    assert json.loads(done["output"][1]["arguments"]) == {"said": whole}
    assert next(one for one in events if one["type"] == "conversation.item.added")["item"]["content"][0]["text"] == whole

    (turn,) = wait_for(lambda: outcomes(gateway, session))
    assert turn["verdict"] == {"action": "allow"}
    assert (turn["provider"], turn["operation"], turn["model"], turn["method"]) == (
        "openai", "realtime", "gpt-4o-realtime", "WEBSOCKET")
    assert turn["usage"] == {"input": 20, "output": 10, "cached_input": 4, "cache_write": 0, "reasoning": 0, "input_audio": 6,
                             "output_audio": 2}
    assert turn["cost_usd"] == pytest.approx(0.03)
    assert turn["reserved_usd"] > 0.1
    assert turn["principal"]["name"] == "local"
    response = json.loads(turn["response"]["text"])
    assert response["output"][0]["content"][0]["text"].startswith("Write to <EMAIL_ADDRESS_")
    assert turn["response"]["assembled"]
    (intent,) = [one for one in gateway.records() if one.get("id") == turn["id"] and one["kind"] == "intent"]
    assert [one["type"] for one in json.loads(intent["request"]["text"])] == heard.types()
    head = gateway.outcome(session)
    assert (head["method"], head["status"], head["ended"]) == ("GET", 101, "complete")
    assert EMAIL not in json.dumps(gateway.records())
    assert "app-key" not in gateway.log() + json.dumps(gateway.records())
    assert REAL_KEY not in gateway.log() + json.dumps(gateway.records())


def test_a_secret_in_a_session_leaves_as_a_placeholder_or_not_at_all(gateway: Gateway, sockets: SocketProvider) -> None:
    token, refused = built("ghp_{A36}"), built("sk_live_{A24}")

    async def go() -> list[dict[str, Any]]:
        async with through(gateway) as client:
            for text in (refused, REAL_KEY, REAL_KEY.encode().hex()):
                await say(client, item(f"use {text}", event_id="e1"))
                error = (await until(client, "error"))[-1]
                assert error["error"]["code"] == "secret_found"
                assert error["error"]["event_id"] == "e1"
                assert text not in json.dumps(error)
            await say(client, item(f"use {token} for {EMAIL}"), ASK)
            return await until(client, "response.done")

    events = asyncio.run(go())
    sent = json.dumps(sockets.heard[-1].raw)
    assert "use <GITHUB_TOKEN_" in sent
    assert not [one for one in (token, refused, REAL_KEY, REAL_KEY.encode().hex(), EMAIL) if one in sent]
    whole = f"use {token} for {EMAIL}"
    assert text_of(events) == whole
    assert json.loads(text_of(events, "response.function_call_arguments.delta")) == {"said": whole}
    records = json.dumps(gateway.records()) + gateway.log()
    assert not [one for one in (token, refused, REAL_KEY) if one in records]


def test_what_asks_for_nothing_is_in_the_log_before_the_provider_hears_it(gateway: Gateway, sockets: SocketProvider) -> None:
    then: list[list[dict[str, Any]]] = []

    async def listen(connection: ServerConnection, heard: Heard) -> None:
        for _ in range(4):
            heard.raw.append(await connection.recv())
            then.append([one for one in gateway.records() if one.get("event") == "said"])
        await connection.send(json.dumps({"type": "session.updated", "session": {"turn_detection": None}}))

    sound = {"type": "input_audio_buffer.append", "audio": "AAAA"}

    async def go() -> str:
        async with through(gateway) as client:
            assert client.response is not None
            await say(client, {"type": "session.update", "session": {"instructions": f"You serve {EMAIL}."}}, item("hello"),
                      sound, sound)
            await until(client, "session.updated")
            return client.response.headers["x-douane-id"]

    with saying(sockets, listen):
        session = asyncio.run(go())
    mine = [[one for one in told if one["session"] == session] for told in then]
    assert all(len(told) >= least for told, least in zip(mine, (1, 2, 3, 3), strict=True)), "the next may be told by then"
    assert len(mine[-1]) == 3, "sound is told once"
    first, second, third = mine[-1]
    assert json.loads(first["request"]["text"])["session"]["instructions"].startswith("You serve <EMAIL_ADDRESS_")
    assert "hello" in second["request"]["text"]
    assert third["sound"] is True
    assert len({one["turn"] for one in mine[-1]}) == 1
    assert "hello" not in show.one_line(second)


def test_without_the_log_no_message_leaves() -> None:
    book, told = house.Book(), list[str]()
    row = next(one for one in house.OPENAI.operations if one.dialogue is not None)

    async def hear(text: str) -> None:
        told.append(text)

    async def work() -> None:
        turns = Turns(house.gate(house.chain(), book), house.OPENAI, row, house.call(method="GET"), hear)
        assert await turns.judged(b'{"type":"conversation.item.create"}') is not None
        book.broken = ("event",)
        assert await turns.judged(b'{"type":"conversation.item.create"}') is None
        assert await turns.judged(b'{"type":"input_audio_buffer.append","audio":"AAAA"}') is None
        book.broken = ()
        assert await turns.judged(b'{"type":"conversation.item.create"}') is not None

    house.run(work())
    assert [json.loads(one)["error"]["code"] for one in told][:1] == ["audit_unavailable"]


def test_frames_in_which_nothing_changes_pass_byte_by_byte(gateway: Gateway, sockets: SocketProvider) -> None:
    odd = ['{ "type" :"conversation.item.create","item":{"n":1.0,"big":12345678901234567890,"t":"caf\\u00e9 \\/"}}\n',
           '{"type":"something.new","x":[1e5, null]}']

    async def echo(connection: ServerConnection, heard: Heard) -> None:
        while True:
            raw = await connection.recv()
            heard.raw.append(raw)
            await connection.send(raw)

    async def go() -> list[str | bytes]:
        async with through(gateway) as client:
            for one in odd:
                await client.send(one)
            return [await client.recv() for _ in odd]

    with saying(sockets, echo):
        assert asyncio.run(go()) == odd
    assert sockets.heard[-1].raw == odd


def sdk(gateway: Gateway, key: str = "app-key") -> AsyncOpenAI:
    return AsyncOpenAI(api_key=key, base_url="http://{}:{}/openai/v1".format(*gateway.http), max_retries=0)


def test_the_sdk_speaks_realtime_through_the_gateway(gateway: Gateway, sockets: SocketProvider) -> None:
    async def go() -> tuple[str, set[Any]]:
        async with sdk(gateway) as client, client.realtime.connect(model="gpt-4o-realtime") as connection:
            await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
            await connection.conversation.item.create(item={
                "type": "message", "role": "user", "content": [{"type": "input_text", "text": f"I am {EMAIL}"}]})
            await connection.response.create()
            text, kinds = "", set()
            async for event in connection:
                kinds.add(event.type)
                if event.type == "response.output_text.delta":
                    text += event.delta
                elif event.type == "response.done":
                    return text, kinds
        raise AssertionError("no end")

    text, kinds = asyncio.run(go())
    assert text == f"I am {EMAIL}"
    assert "session.updated" in kinds
    assert EMAIL not in json.dumps(sockets.heard[-1].raw)


def test_the_sdk_speaks_responses_through_the_gateway(gateway: Gateway, sockets: SocketProvider) -> None:
    async def go() -> tuple[str, list[Any]]:
        async with sdk(gateway) as client, client.responses.connect() as connection:
            text = ""
            ends = []
            for _ in range(2):
                await connection.response.create(model="gpt-4o-mini", input=f"I am {EMAIL}")
                async for event in connection:
                    if event.type == "response.output_text.delta":
                        text += event.delta
                    elif event.type == "response.completed":
                        ends.append(event.response)
                        break
            return text, ends

    text, ends = asyncio.run(go())
    assert text == f"I am {EMAIL}" * 2
    assert [one.output_text for one in ends] == [f"I am {EMAIL}"] * 2
    assert EMAIL not in json.dumps(sockets.heard[-1].raw)
    turns = wait_for(lambda: [one for one in gateway.records() if one["kind"] == "outcome" and one["operation"] == "responses"
                              and one.get("session")])
    assert [one["usage"] for one in turns] == [
        {"input": 11, "output": 7, "cached_input": 3, "cache_write": 0, "reasoning": 2}] * 2
    assert all(one["cost_usd"] > 0 for one in turns)


@pytest.mark.parametrize(("path", "status", "code"), [
    ("/v1/realtime?model=o1", 403, "model_not_allowed"), ("/v1/live/sessions", 403, "operation_not_allowed"),
    ("/v1/chat/completions", 403, "operation_not_allowed")])
@pytest.mark.parametrize("door", ["proxy", "reverse"])
def test_a_handshake_that_may_not_be_is_refused_before_the_upgrade(gateway: Gateway, sockets: SocketProvider, door: str,
                                                                   path: str, status: int, code: str) -> None:
    async def go() -> Response:
        with pytest.raises(InvalidStatus) as caught:
            await through(gateway, path, door)
        return caught.value.response

    before = len(sockets.heard)
    got = asyncio.run(go())
    assert (got.status_code, got.headers["x-douane-code"]) == (status, code)
    assert json.loads(got.body or b"")["error"]["code"] == code
    assert gateway.outcome(got.headers["x-douane-id"])["verdict"]["code"] == code
    assert len(sockets.heard) == before


def test_the_providers_own_refusal_of_a_handshake_is_passed_on(gateway: Gateway, sockets: SocketProvider) -> None:
    async def go() -> Response:
        with pytest.raises(InvalidStatus) as caught:
            await through(gateway)
        return caught.value.response

    body = b'{"error": {"message": "no", "code": "invalid_api_key"}}'
    sockets.refuse = Response(401, "Unauthorized", Headers({"Content-Length": str(len(body)), "X-Reason": "key"}), body)
    try:
        got = asyncio.run(go())
    finally:
        sockets.refuse = None
    assert (got.status_code, got.body, got.headers["x-reason"]) == (401, body, "key")
    assert gateway.outcome(got.headers["x-douane-id"])["status"] == 401


def test_a_key_among_subprotocols_names_the_principal_and_goes_no_further(gateway: Gateway, sockets: SocketProvider) -> None:
    async def go() -> tuple[str | None, str]:
        names = ["realtime", f"openai-insecure-api-key.{BOT_KEY}", "openai-beta.realtime-v1"]
        async with through(gateway, key="", subprotocols=names) as client:
            await say(client, item("hello"), ASK)
            await until(client, "response.done")
            assert client.response is not None
            return client.subprotocol, client.response.headers["x-douane-id"]

    subprotocol, session = asyncio.run(go())
    assert subprotocol == "realtime"
    heard = sockets.heard[-1]
    assert BOT_KEY not in json.dumps(heard.headers)
    assert heard.headers["sec-websocket-protocol"] == "realtime, openai-beta.realtime-v1"
    assert heard.headers["authorization"] == f"Bearer {REAL_KEY}"
    assert gateway.outcome(session)["principal"]["name"] == "bot"
    assert wait_for(lambda: outcomes(gateway, session))[0]["principal"]["name"] == "bot"
    assert not any(form in json.dumps(gateway.records()).encode() + gateway.log().encode() for form in forms(BOT_KEY))


@pytest.mark.parametrize("frame", ['{"type": "a", "type": "b"}', "no json", '{"type":', "[1, NaN]"])
def test_what_cannot_be_read_is_not_sent_on_and_the_session_goes_on(gateway: Gateway, sockets: SocketProvider,
                                                                    frame: str) -> None:
    async def go() -> dict[str, Any]:
        async with through(gateway) as client:
            await client.send(frame)
            error = (await until(client, "error"))[-1]
            await say(client, item("hello"), ASK)
            assert text_of(await until(client, "response.done")) == "hello"
            return error

    error = asyncio.run(go())
    assert error["error"]["code"] == "bad_request"
    assert sockets.heard[-1].types() == ["conversation.item.create", "response.create"]
    assert gateway.outcome(error["error"]["request_id"])["verdict"]["code"] == "bad_request"


def test_a_model_named_in_a_frame_is_judged(gateway: Gateway, sockets: SocketProvider) -> None:
    async def go() -> dict[str, Any]:
        async with through(gateway) as client:
            await say(client, {"type": "session.update", "event_id": "evt_7", "session": {"model": "o1"}})
            return (await until(client, "error"))[-1]

    error = asyncio.run(go())["error"]
    assert (error["code"], error["event_id"]) == ("model_not_allowed", "evt_7")
    assert sockets.heard[-1].types() == []


def test_binary_messages_end_the_session(gateway: Gateway, sockets: SocketProvider) -> None:
    async def go() -> int | None:
        async with through(gateway) as client:
            await until(client, "session.created")
            await client.send(b"\x00\x01")
            await ended(client)
            return client.close_code

    assert asyncio.run(go()) == 1003
    assert sockets.heard[-1].types() == []


@pytest.mark.parametrize(("code", "passed"), [(1000, 1000), (1001, 1001), (3000, 3000), (4008, 4008)])
def test_close_codes_pass_both_ways(gateway: Gateway, sockets: SocketProvider, code: int, passed: int) -> None:
    async def bye(connection: ServerConnection, heard: Heard) -> None:
        await hear(connection, heard)
        await connection.close(code, "because")

    async def theirs() -> tuple[int | None, str | None]:
        async with through(gateway) as client:
            await say(client, {"type": "bye"})
            with pytest.raises(ConnectionClosed):
                await client.recv()
            return client.close_code, client.close_reason

    with saying(sockets, bye):
        assert asyncio.run(theirs()) == (passed, "because")

    async def ours() -> None:
        async with through(gateway) as client:
            await until(client, "session.created")
            await client.close(code, "enough")

    asyncio.run(ours())
    assert wait_for(lambda: sockets.heard[-1].closed) == (passed, "enough")


def test_a_provider_that_breaks_off_amid_an_answer(gateway: Gateway, sockets: SocketProvider) -> None:
    async def broken(connection: ServerConnection, heard: Heard) -> None:
        await hear(connection, heard)
        for event in answer(1, "half of it")[:4]:
            await tell(connection, event)
        connection.transport.abort()

    async def go() -> tuple[int | None, str]:
        async with through(gateway) as client:
            await say(client, ASK)
            await ended(client)
            assert client.response is not None
            return client.close_code, client.response.headers["x-douane-id"]

    with saying(sockets, broken):
        code, session = asyncio.run(go())
    assert code == 1011
    (turn,) = wait_for(lambda: outcomes(gateway, session))
    assert (turn["ended"], turn["usage"], turn["cost_usd"]) == ("upstream_error", None, None)
    assert "hal" in turn["response"]["text"]


def test_a_client_that_leaves_amid_an_answer(gateway: Gateway, sockets: SocketProvider) -> None:
    async def slow(connection: ServerConnection, heard: Heard) -> None:
        await hear(connection, heard)
        await tell(connection, answer(1, "x")[0])
        await connection.wait_closed()

    async def go() -> str:
        async with through(gateway) as client:
            await say(client, ASK)
            await until(client, "response.created")
            client.transport.abort()
            assert client.response is not None
            return str(client.response.headers["x-douane-id"])

    with saying(sockets, slow):
        session = asyncio.run(go())
        (turn,) = wait_for(lambda: outcomes(gateway, session))
    assert turn["ended"] == "client_disconnected"
    assert wait_for(lambda: sockets.heard[-1].closed) is not None


def test_an_error_in_answer_to_what_was_asked_costs_nothing(gateway: Gateway, sockets: SocketProvider) -> None:
    async def refuses(connection: ServerConnection, heard: Heard) -> None:
        frame = await hear(connection, heard)
        await tell(connection, {"type": "error", "error": {"type": "invalid_request_error", "code": "busy", "message": "one at "
                                                           "a time", "event_id": frame.get("event_id")}})
        await connection.wait_closed()

    async def go() -> str:
        async with through(gateway) as client:
            await say(client, {**ASK, "event_id": "mine"})
            await until(client, "error")
            assert client.response is not None
            return str(client.response.headers["x-douane-id"])

    with saying(sockets, refuses):
        session = asyncio.run(go())
    (turn,) = wait_for(lambda: outcomes(gateway, session))
    assert (turn["status"], turn["ended"], turn["cost_usd"]) == (400, "complete", None)


def voice(number: int) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", "audio": "UklGRg" * 200 + f"{number:08d}"}


@pytest.mark.parametrize("answered", [True, False])
def test_sound_that_the_provider_answers_by_itself(gateway: Gateway, sockets: SocketProvider, answered: bool) -> None:
    async def listens(connection: ServerConnection, heard: Heard) -> None:
        await tell(connection, {"type": "session.created", "session": {"turn_detection": {"type": "server_vad"}}})
        for _ in range(20):
            await hear(connection, heard)
        if answered:
            await tell(connection, {"type": "input_audio_buffer.committed", "item_id": "item_1"})
            for event in answer(1, "I heard you"):
                await tell(connection, event)
        await tell(connection, {"type": "ping"})
        await connection.wait_closed()

    async def go() -> str:
        async with through(gateway) as client:
            await say(client, *map(voice, range(20)))
            await until(client, "ping")
            assert client.response is not None
            return str(client.response.headers["x-douane-id"])

    with saying(sockets, listens):
        session = asyncio.run(go())
    wait_for(lambda: gateway.outcome(session))
    turns = outcomes(gateway, session)
    assert len(turns) >= 1
    assert turns[0]["cost_usd"] == (pytest.approx(0.03) if answered else 0.0)
    assert turns[0]["reserved_usd"] > 0
    assert "UklGRgUklGRg" not in json.dumps(gateway.records())
    assert len(sockets.heard[-1].frames) == 20


def test_ten_sessions_at_once_keep_their_values_apart(gateway: Gateway, sockets: SocketProvider) -> None:
    async def one(number: int) -> None:
        own = f"person{number}@example.org"
        async with through(gateway, door="reverse" if number % 2 else "proxy") as client:
            for turn in range(3):
                await say(client, item(f"turn {turn}: {own}"), ASK)
                events = await until(client, "response.done")
                assert text_of(events) == f"turn {turn}: {own}"

    async def go() -> None:
        await asyncio.gather(*map(one, range(10)))

    before = len(sockets.heard)
    asyncio.run(go())
    assert "@example.org" not in json.dumps([one.raw for one in sockets.heard[before:]])


@contextlib.asynccontextmanager
async def stalled(gateway: Gateway) -> AsyncIterator[ClientConnection]:
    async with through(gateway, max_queue=1, ping_interval=None) as client:
        yield client


def test_a_client_that_reads_nothing_makes_the_gateway_hold_no_more(gateway: Gateway, sockets: SocketProvider) -> None:
    sent = 0

    async def floods(connection: ServerConnection, heard: Heard) -> None:
        nonlocal sent
        await hear(connection, heard)
        while True:
            await connection.send(json.dumps({"type": "flood", "x": "y" * 100_000}))
            sent += 100_000

    async def go() -> int:
        async with stalled(gateway) as client:
            await say(client, {"type": "go"})
            gateway.peak(reset=True)
            before = gateway.peak()
            deadline, seen = time.monotonic() + 5, -1
            while time.monotonic() < deadline and sent != seen:
                seen = sent
                await asyncio.sleep(0.3)
            grown = gateway.peak() - before
            client.transport.abort()
            return grown

    with saying(sockets, floods):
        grown = asyncio.run(go())
    assert sent < 40_000_000, "the provider was read although the client did not read"
    assert grown < 24_000_000


def test_a_flood_of_frames_and_fragments_is_bounded(gateway: Gateway, sockets: SocketProvider) -> None:
    async def endless() -> int | None:
        async def pieces() -> AsyncIterator[str]:
            yield '{"type": "conversation.item.create", "x": "'
            for _ in range(20_000):
                yield ""
            yield '"}'

        async with through(gateway) as client:
            with contextlib.suppress(ConnectionClosed):
                await client.send(pieces())
            await ended(client)
            return client.close_code

    assert asyncio.run(endless()) in (1009, 1006)  # what is still on its way when we close may cost the close frame
    assert sockets.heard[-1].types() == []


def test_a_budget_that_runs_out_amid_a_session(tmp_path: Path, sockets: SocketProvider) -> None:
    """A turn holds about 0.1 USD (100 tokens at 1,000 USD a million) and costs 0.03."""
    async def go(gateway: Gateway) -> tuple[int, dict[str, Any], list[str]]:
        async with through(gateway) as client:
            for turn in range(40):
                await say(client, item("hello"), {**ASK, "event_id": f"turn_{turn}"})
                events = await until(client, "response.done", "error")
                if events[-1]["type"] == "error":
                    return turn, events[-1]["error"], sockets.heard[-1].types()
        raise AssertionError("never")

    with running_gateway(tmp_path, rules(sockets, "1")) as gateway:
        turns, error, types = asyncio.run(go(gateway))
        assert 2 <= turns <= 30
        assert (error["code"], error["event_id"]) == ("insufficient_quota", f"turn_{turns}")
        assert types.count("response.create") == turns
        records = [one for one in wait_for(gateway.records) if one["kind"] == "outcome" and one.get("session")]
        assert [one["verdict"]["action"] for one in records] == ["allow"] * turns + ["deny"]
        assert sum(one["cost_usd"] for one in records) == pytest.approx(0.03 * turns)
        assert gateway.stop() == 0
        assert verify([str(gateway.data / "audit")]) == 0


def test_a_gateway_that_stops_ends_sessions_with_1012(tmp_path: Path, sockets: SocketProvider) -> None:
    async def go(gateway: Gateway) -> int | None:
        async with through(gateway) as client:
            await say(client, item("hello"), ASK)
            await until(client, "response.done")
            stopping = asyncio.create_task(asyncio.to_thread(gateway.stop))
            await ended(client)
            assert await stopping == 0
            return client.close_code

    with running_gateway(tmp_path, rules(sockets)) as gateway:
        assert asyncio.run(go(gateway)) == 1012
        ends = [one for one in gateway.records() if one["kind"] == "outcome"]
        assert [one["ended"] for one in ends] == ["complete", "stopped"]


def test_what_others_made_is_not_gone_on_from_and_what_was_made_here_is(gateway: Gateway, sockets: SocketProvider) -> None:
    """With the gateway's key the provider would give anybody's."""
    async def go() -> tuple[str, str]:
        async with through(gateway, "/v1/responses") as client:
            ask = {"type": "response.create", "model": "gpt-4o-mini", "input": "go on"}
            await say(client, {**ask, "previous_response_id": "resp_of_others"})
            error = (await until(client, "error"))[-1]
            await say(client, ask)
            made = (await until(client, "response.completed"))[-1]["response"]["id"]
            await say(client, {**ask, "previous_response_id": made})
            return error["error"]["code"], (await until(client, "response.completed", "error"))[-1]["type"]

    assert asyncio.run(go()) == ("operation_not_allowed", "response.completed")
    assert len(sockets.heard[-1].frames) == 2
