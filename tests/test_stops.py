"""Emergency stops: whose calls are refused, which are ended where they are, and how soon everybody knows."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from douane.call import Caller
from douane.demo.provider import LocalProvider, Reply, running_provider
from douane.exchange import Exchange
from douane.gate import Gate
from douane.governor import Governor
from douane.intake import Arrival
from douane.ledger.base import Stop
from douane.ledger.sqlite import SqliteLedger
from douane.stops import StopBoard, stopped
from douane.verdict import Deny
from tests import house
from tests.gateway import (
    Gateway,
    Wire,
    answering,
    chat,
    command,
    environ,
    policy,
    ran,
    request,
    running_gateway,
    untouched,
    wait_for,
)
from tests.house import AT, run

STREAM = (("content-type", "text/event-stream"),)


@pytest.mark.parametrize(("scope", "name", "held"), [
    ("all", "", True), ("principal", "support-bot", True), ("principal", "other", False), ("team", "support", True),
    ("org", "acme", True), ("org", "", False), ("user", "ada", True), ("agent", "x", False), ("model", "gpt-4o", True),
    ("provider", "openai", True), ("tag:project", "apollo", True), ("tag:project", "gemini", False)])
def test_whose(scope: str, name: str, held: bool) -> None:
    caller = replace(house.BOT, user="ada", tags={"project": "apollo"})
    denial = stopped(frozenset({Stop(scope, name, AT)}), house.call(principal=caller))
    assert (denial is not None) == held
    assert denial is None or denial.code == "stopped"


def test_a_stopped_call_is_not_even_read() -> None:
    gate = house.gate(house.chain(house.entry(house.Policy(lambda call: pytest.fail("was asked")), "authenticate")))
    gate.stops.update(frozenset({Stop("all", "", AT)}))
    one = Exchange(gate, house.OPENAI, house.OPENAI.operations[0], house.call())
    assert isinstance(run(one.screen()), Deny)
    assert one.denial is not None
    assert one.denial[0] == "stop"


def test_only_new_stops_that_say_so_end_what_runs() -> None:
    board, ended = StopBoard(), list[str]()
    board.entered(house.call(principal=house.BOT), lambda _: ended.append("support"))
    board.entered(house.call(), lambda _: ended.append("nobody"))
    soft, hard = Stop("team", "support", AT), Stop("team", "support", AT + 1, running=True)
    assert board.update(frozenset({soft})) == (frozenset({soft}), frozenset())
    assert ended == []
    assert board.update(frozenset({hard})) == (frozenset({hard}), frozenset({soft}))
    assert ended == ["support"]
    board.update(frozenset({hard}))
    assert ended == ["support"]
    assert board.update(frozenset()) == (frozenset(), frozenset({hard}))


def test_a_stop_that_comes_while_the_intent_is_written_holds() -> None:
    """Nothing has left yet, and nobody could end what does not run."""
    reached: list[Any] = []
    gate: Gate

    class Book(house.Book):
        async def append(self, record: dict[str, Any]) -> None:
            gate.stops.update(frozenset({Stop("all", "", AT, running=True)}))
            await super().append(record)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    book = Book()
    gate = house.gate(house.chain(), book)
    arrival = Arrival(house.OPENAI, "api.openai.com", "/v1/chat/completions", Caller("127.0.0.1"), house.TARGET)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"model": "gpt-4o", "messages": []}', "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions",
             "query_string": b"", "headers": [(b"content-type", b"application/json")], "http_version": "1.1"}
    run(Governor(app, gate, lambda chain, scope: arrival)(scope, receive, send))
    assert not reached
    assert sent[0]["status"] == 403
    assert (book.outcome["ended"], book.outcome["verdict"]["code"]) == ("denied", "stopped")


# -- in a gateway --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


@pytest.fixture
def gateway(tmp_path: Path, provider: LocalProvider) -> Iterator[Gateway]:
    with running_gateway(tmp_path, policy(provider)) as one:
        yield one


def said(gateway: Gateway, *words: str) -> tuple[int, str]:
    done = ran(command(gateway.base, *words), environ())
    return done.returncode, done.stdout + done.stderr


def status(gateway: Gateway, body: bytes = b"") -> tuple[int, str]:
    with Wire.tls(gateway) as wire:
        wire.send(request(body or chat()))
        got = wire.answer()
        return got.status, got.code


def test_from_the_next_call_on_and_until_it_is_resumed(gateway: Gateway, provider: LocalProvider) -> None:
    assert status(gateway)[0] == 200
    assert said(gateway, "stop") == (0, "nothing is stopped\n")
    assert said(gateway, "stop", "--now")[0] == 2
    assert said(gateway, "resume", "--team=dev")[0] == 1
    code, text = said(gateway, "stop", "--tag=a b=c")
    assert (code, "`tag:a b` is not allowed" in text) == (1, True)
    code, text = said(gateway, "stop", "--team=dev")
    assert code == 0, text
    assert text.startswith("stopped: team dev  since ")
    with untouched(provider):
        assert status(gateway) == (403, "stopped")
    assert "team dev" in said(gateway, "stop")[1]
    gateway.stop()
    assert said(gateway, "stop", "--model=gpt-4o")[0] == 0, "no gateway need run"
    gateway.start()
    with untouched(provider):
        assert status(gateway) == (403, "stopped"), "it outlasts a restart, from the first call on"
    assert said(gateway, "resume", "--team=dev") == (0, "resumed\n")
    assert status(gateway)[0] == 200
    with untouched(provider):
        assert status(gateway, chat(model="gpt-4o")) == (403, "stopped")
    events = [(one["event"], one["scope"], one["whose"]) for one in gateway.records()
              if one.get("event") in ("stopped", "resumed")]
    assert ("stopped", "team", "dev") in events
    assert events[-1] == ("resumed", "team", "dev")


def test_those_that_run_are_ended_if_that_is_asked(gateway: Gateway, provider: LocalProvider) -> None:
    go = threading.Event()
    event = b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
                                    "choices": [{"index": 0, "delta": {"content": "hi "}}]}).encode() + b"\n\n"
    steps: list[bytes | float] = [event if at % 2 else 0.05 for at in range(1, 400)]
    result: list[Any] = []

    def stream() -> None:
        asked: Any = [{"role": "user", "content": "go on"}]
        url = "http://{}:{}/openai/v1".format(*gateway.http)
        with openai.OpenAI(api_key="k", base_url=url, max_retries=0) as client:
            try:
                for _ in client.chat.completions.create(model="gpt-4o-mini", messages=asked, stream=True):
                    go.set()
            except openai.APIError as error:
                result.append(error)

    with answering(provider, lambda seen: Reply(headers=STREAM, body=steps)):
        reader = threading.Thread(target=stream)
        reader.start()
        assert go.wait(5)
        assert said(gateway, "stop", "--all")[0] == 0
        time.sleep(0.3)
        assert not result, "without --now it runs on"
        assert said(gateway, "stop", "--all", "--now")[0] == 0
        reader.join(2)
    assert result, "it ended at once"
    assert "an administrator has stopped all calls" in str(result[0])
    outcome = gateway.last_outcome()
    assert (outcome["ended"], outcome["verdict"]["policy"], outcome["verdict"]["code"]) == ("cut", "stop", "stopped")


def test_another_gateway_hears_within_a_second(tmp_path: Path, provider: LocalProvider) -> None:
    """Of the store, as nodes do: nothing tells it."""
    with running_gateway(tmp_path, policy(provider)) as one, \
            contextlib.closing(SqliteLedger(one.data, "elsewhere")) as store:
        began = time.monotonic()
        run(store.stop(Stop("provider", "openai", time.time())))
        assert wait_for(lambda: status(one) == (403, "stopped"), 2)
        assert time.monotonic() - began < 1

