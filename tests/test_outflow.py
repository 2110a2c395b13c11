"""A hard cap holds inside a stream: what a call without a bound says is counted as it is said, and ends with the money."""

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from douane.demo.provider import LocalProvider, Reply, Seen, running_provider
from douane.ledger.base import NANO
from douane.ledger.estimate import count
from douane.ledger.sqlite import read_balances
from douane.outflow import AHEAD, Outflow
from douane.providers.deltas import COMMON
from douane.providers.framing import SSE
from tests.gateway import Gateway, answering, policy, running_gateway, wait_for

WORDS = "customs houses weigh what passes the border and let the rest go on "
STREAM = (("content-type", "text/event-stream"),)


def openai_event(text: str) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
             "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def anthropic_event(text: str, kind: str = "text") -> bytes:
    told = {"type": "content_block_delta", "index": 0, "delta": {"type": f"{kind}_delta", kind: text}}
    return anthropic_frame(told)


def anthropic_frame(told: dict[str, Any]) -> bytes:
    return f"event: {told['type']}\ndata: {json.dumps(told)}\n\n".encode()


ANTHROPIC_START = anthropic_frame({"type": "message_start", "message": {
    "id": "m", "type": "message", "role": "assistant", "model": "claude-test", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1}}})
ANTHROPIC_START += anthropic_frame({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})


def flow(held: int = 10**6, model: str = "gpt-4o") -> Outflow:
    return Outflow(COMMON, SSE, "openai", model, held)


@pytest.mark.parametrize("event", [openai_event, anthropic_event, lambda text: anthropic_event(text, "thinking")])
def test_it_counts_no_less_than_the_text(event: Any) -> None:
    one = flow()
    for _ in range(200):
        one.feed(event(WORDS))
    exact = count((WORDS * 200,))
    one.held = 0
    assert exact <= one.tokens <= exact * 1.1 + 200


def test_however_it_is_cut() -> None:
    stream = b"".join(openai_event(f"{WORDS}é{at}") for at in range(50))
    dice = random.Random(5)
    found = set()
    for _ in range(50):
        one, at = flow(held=0), 0
        while at < len(stream):
            step = dice.randint(1, 700)
            one.feed(stream[at:at + step])
            at += step
        found.add(one.tokens)
    assert len(found) == 1


@pytest.mark.parametrize("held", [100, 1000, 10_000])
def test_it_is_short_before_all_is_said(held: int) -> None:
    one = flow(held)
    said = 0
    while not one.short:
        one.feed(openai_event(WORDS))
        said += 1
    assert count((WORDS * said,)) + min(AHEAD, held // 4) > held * 0.97, "pieces are rounded up"
    assert count((WORDS * (said - 1),)) + min(AHEAD, held // 4) <= held + 8


def test_an_event_that_is_no_json_counts_as_text() -> None:
    one = flow(held=0)
    one.feed(b"data: " + WORDS.encode() * 20 + b"\n\n")
    assert one.tokens >= count((WORDS * 20,)) - 8


def test_what_is_no_event_counts_too() -> None:
    one = flow(held=0)
    one.feed(b"data: " + b"x" * (3 * 1024 * 1024))
    one.feed(b"x" * (8 * 1024 * 1024))
    assert one.tokens > 1024 * 1024


# -- in a gateway --------------------------------------------------------------------------------------------------

PRICED = "prices: {gpt-4o: {input: 0.0, output: 1000.0}, claude-test: {input: 0.0, output: 1000.0}}"
"""A token of output costs a tenth of a cent."""


class Endless:
    """A provider that talks until nobody listens."""

    def __init__(self) -> None:
        self.events = 0
        self.gone = threading.Event()

    def __call__(self, seen: Seen) -> Reply:
        own = seen.path.startswith("/v1/messages")
        event = anthropic_event if own else openai_event

        def body() -> Iterator[bytes | float]:
            if own:
                yield ANTHROPIC_START
            for _ in range(20_000):
                self.events += 1
                yield event(WORDS)
                yield 0.0005

        return Reply(headers=STREAM, body=Steps(body()))


class Steps(list[Any]):
    """Steps that are made as they are taken."""

    def __init__(self, made: Iterator[bytes | float]) -> None:
        super().__init__()
        self._made = made

    def __iter__(self) -> Iterator[Any]:
        return self._made

    def __len__(self) -> int:
        return 1


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


def gateway(folder: Path, provider: LocalProvider, limit: str, mode: str = "enforce") -> Any:
    chain = ("  - authenticate: {unknown: deny}\n"
             f"  - budget: {{per: team, limit: {limit}, unbounded: assume 1200}}\n    mode: {mode}\n"
             "  - swap_key: {missing: keep}")
    return running_gateway(folder, policy(provider, chain=chain, more=PRICED))


def spent(one: Gateway) -> tuple[int, int]:
    (found,) = read_balances(one.data, time.time())
    return found.captured, found.reserved


def said(sdk: str, root: str, asked: Any) -> tuple[str, Exception | None]:
    """The text that came, and what the SDK raised then."""
    text = ""
    client: Any
    if sdk == "openai":
        with openai.OpenAI(api_key="k", base_url=root + "/openai/v1", max_retries=0) as client:
            try:
                for chunk in client.chat.completions.create(model="gpt-4o", messages=asked, stream=True):
                    text += chunk.choices[0].delta.content or ""
            except openai.APIError as error:
                return text, error
    else:
        with anthropic.Anthropic(api_key="k", base_url=root + "/anthropic", max_retries=0) as client:
            try:
                for event in client.messages.create(model="claude-test", max_tokens=None, messages=asked, stream=True):
                    text += event.delta.text if event.type == "content_block_delta" else ""
            except anthropic.APIError as error:
                return text, error
    return text, None


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_a_stream_ends_where_the_budget_does(tmp_path: Path, provider: LocalProvider, sdk: str) -> None:
    endless, root = Endless(), "http://{}:{}"
    asked: Any = [{"role": "user", "content": "go on"}]
    with gateway(tmp_path, provider, "3 USD/day") as one, answering(provider, endless):
        text, error = said(sdk, root.format(*one.http), asked)
        assert "the budget of team 'dev'" in str(error)
        assert wait_for(lambda: spent(one)[1] == 0)
        outcome = one.last_outcome()
        verdict = outcome["verdict"]
        assert (outcome["ended"], verdict["policy"], verdict["code"]) == ("cut", "budget", "budget_exceeded")
        assert 1200 < count((text,)) < 3000, "most of the money was used, and no more"
        assert spent(one)[0] <= 3 * NANO
        assert spent(one)[0] >= count((text,)) * NANO // 1000
        assert outcome.get("overshot_usd", 0.0) < 0.5, "no more than a busy machine may have left unread for a moment"
        before = endless.events
        time.sleep(0.05)
        assert endless.events - before <= 2, "the provider was told to stop"


def test_nothing_is_ended_where_a_budget_only_observes(tmp_path: Path, provider: LocalProvider) -> None:
    events = [openai_event(WORDS) for _ in range(300)] + [b"data: [DONE]\n\n"]
    with gateway(tmp_path, provider, "2 USD/day", "observe") as one, \
            answering(provider, lambda seen: Reply(headers=STREAM, body=events)), \
            openai.OpenAI(api_key="k", base_url="http://{}:{}/openai/v1".format(*one.http)) as client:
        asked: Any = [{"role": "user", "content": "go on"}]
        got = sum(1 for _ in client.chat.completions.create(model="gpt-4o", messages=asked, stream=True))
        assert got == 300
        assert one.last_outcome()["overshot_usd"] > 2
