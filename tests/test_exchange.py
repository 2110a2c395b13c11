"""The state machine of a call, without ASGI: judging in time, findings, cost, settling, the records."""

import asyncio
import contextlib
import json
import logging
from typing import Any

import pytest

from douane import exchange
from douane.call import Finding, Outcome, Usage
from douane.echo import EchoMask
from douane.errors import AuditUnavailableError, RefusedError
from douane.exchange import Exchange
from douane.policy import Traits
from douane.providers.base import Provider
from douane.purse import Purse
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict
from douane.waiting import at_once_or_within
from tests import house
from tests.house import Book, Counts, Policy, entry

JSON = ((b"content-type", b"application/json"),)
STREAM = ((b"content-type", b"text/event-stream; charset=utf-8"),)
USAGE = b'"usage": {"prompt_tokens": 12, "completion_tokens": 5}'


def opened(*entries: Any, book: Book | None = None, counts: Counts | None = None, provider: Provider = house.OPENAI,
           **said: Any) -> Exchange:
    gate = house.gate(house.chain(*entries, provider=provider), book, counts)
    call = house.call(**said)
    return Exchange(gate, provider, provider.operation("POST", "/v1/chat/completions"), call)


def through(held: Exchange, headers: Any = JSON, *pieces: bytes, status: int = 200, ended: Any = "complete") -> dict[str, Any]:
    """Admitted, answered and finished; the outcome's record."""
    book = held.gate.log
    assert isinstance(book, Book)

    async def work() -> None:
        assert await held.admit(held.call) is None
        held.forward()
        held.start(status, headers)
        for piece in pieces:
            held.feed(piece)
        held.close()
        await held.finish(ended)

    house.run(work())
    return book.outcome


# -- at once, or within ------------------------------------------------------------------------------------------------


def test_at_once() -> None:
    async def value() -> int:
        return 7

    async def error() -> int:
        raise KeyError("x")

    assert house.run(at_once_or_within(0, value())) == 7, "what does not wait needs no time"
    with pytest.raises(KeyError):
        house.run(at_once_or_within(1, error()))


def test_within() -> None:
    async def late() -> list[str]:
        seen = []
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[str] = loop.create_future()
        loop.call_later(0.001, ready.set_result, "result")
        seen.append(await ready)
        failed: asyncio.Future[str] = loop.create_future()
        loop.call_soon(failed.set_exception, ValueError("thrown in"))
        try:
            await failed
        except ValueError as error:
            seen.append(str(error))
        async with asyncio.timeout(5):
            await asyncio.sleep(0.001)
        return seen

    assert house.run(at_once_or_within(2, late())) == ["result", "thrown in"]


def test_too_late() -> None:
    cleaned = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    async def work() -> None:
        with pytest.raises(TimeoutError):
            await at_once_or_within(0.01, hang())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "the time-out leaves no cancellation behind"

    house.run(work())
    assert cleaned == [True]


@pytest.mark.parametrize("waits_first", [False, True], ids=["at its first wait", "later"])
def test_a_cancellation_from_outside_reaches_the_work_and_the_caller(waits_first: bool) -> None:
    seen = []

    async def hang() -> None:
        if waits_first:
            await asyncio.sleep(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("work")
            raise

    async def work() -> None:
        task = asyncio.ensure_future(at_once_or_within(5, hang()))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            seen.append("caller")

    house.run(work())
    assert seen == ["work", "caller"]


def test_a_time_out_of_the_works_own_is_told_apart() -> None:
    async def own() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            return "its own"
        return ""

    assert house.run(at_once_or_within(5, own())) == "its own"


# -- judging -----------------------------------------------------------------------------------------------------------


async def allow(call: Any) -> Verdict:
    return Allow((Finding("p", "seen", 2, ("messages[0].content",)),))


async def deny(call: Any) -> Verdict:
    return Deny("pii_found", "a name", findings=(Finding("p", "PERSON"),))


async def hang(call: Any) -> Verdict:
    await asyncio.Event().wait()
    return ALLOW


def test_a_policy_that_hangs_is_a_denial_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ADMIT_SECONDS", 0.01)
    for on_error in ("deny", "allow"):
        held = opened(entry(Policy(hang), "slow", on_error=on_error))
        verdict = house.run(held.admit(held.call))
        if on_error == "deny":
            assert verdict == Deny("policy_error", "the policy slow did not answer in time")
            assert held.denial == ("slow", verdict)
        else:
            assert verdict is None


def test_the_head_is_judged_up_to_the_first_that_needs_more() -> None:
    asked: list[str] = []

    def told(name: str) -> Policy:
        async def admit(call: Any) -> Verdict:
            asked.append(name)
            return ALLOW

        return Policy(admit)

    head = Traits(needs_body=False)
    held = opened(entry(told("a"), traits=head), entry(Policy(), traits=head), entry(told("b")), entry(told("c"), traits=head))
    house.run(held.screen())
    assert asked == ["a"]
    house.run(held.admit(held.call))
    assert asked == ["a", "b", "c"], "nobody is asked twice"
    conditional = opened(entry(told("d"), traits=head, when=lambda call: True))
    house.run(conditional.screen())
    assert "d" not in asked, "a condition may ask for the model, which is in the body"


def test_a_denial_ends_the_judging_and_nothing_is_written_before_the_outcome() -> None:
    book, asked = Book(), []

    async def later(call: Any) -> Verdict:
        asked.append(1)
        return ALLOW

    held = opened(entry(Policy(allow), "first"), entry(Policy(deny), "second"), entry(Policy(later), "third"), book=book)

    async def work() -> None:
        assert await held.admit(held.call) == await deny(None)
        assert book.records == []
        await held.finish("denied")

    house.run(work())
    assert asked == []
    assert book.kinds == ["outcome"]
    assert book.outcome["verdict"] == {"action": "deny", "policy": "second", "code": "pii_found", "reason": "a name"}
    assert [(one["type"], one["count"]) for one in book.outcome["findings"]] == [("seen", 2), ("PERSON", 1)]


def test_observe_records_what_would_have_been_and_takes_no_rewrite() -> None:
    async def rewrite(call: Any) -> Verdict:
        return Rewrite(house.call(model="gpt-4o-mini"), (Finding("p", "EMAIL_ADDRESS"),))

    always = Traits(always=True)
    for one, model in ((entry(Policy(rewrite), observe=True), "gpt-4o"), (entry(Policy(rewrite)), "gpt-4o-mini"),
                       (entry(Policy(rewrite), observe=True, traits=always), "gpt-4o-mini")):
        book = Book()
        held = opened(one, entry(Policy(deny), "guard", observe=True), book=book)
        house.run(held.admit(held.call))
        assert held.call.model == model
        found = [(each["policy"], each["type"]) for each in book.records[0]["findings"]]
        assert found == [("p", "EMAIL_ADDRESS"), ("p", "PERSON"), ("guard", "would_deny:pii_found")]


def test_filters_stand_in_the_reverse_of_the_chain() -> None:
    order: list[str] = []

    class Named(EchoMask):
        def __init__(self, name: str) -> None:
            super().__init__("k" * 20)
            self.name = name

        def feed(self, chunk: bytes) -> bytes:
            order.append(self.name)
            return chunk

    def makes(name: str) -> Policy:
        return Policy(make=lambda call: Named(name))

    held = opened(*[entry(makes(name)) for name in "abc"], entry(Policy(make=lambda call: None)),
                  entry(makes("x"), when=lambda call: False))
    through(held, JSON, b"{}")
    assert order[:3] == ["c", "b", "a"]
    assert "x" not in order


# -- what it cost ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "body", "cost", "usage"), [
    ({}, b'{"model": "gpt-4o-2024", ' + USAGE + b"}", 17.0, True),
    ({}, b'{"model": "gpt-4o", "service_tier": "priority", ' + USAGE + b"}", 170.0, True),
    ({}, b'{"model": "snapshot-7", ' + USAGE + b"}", 17.0, True),  # the answer's name has no price, the asked one has
    ({"model": "unheard-of"}, b'{"model": "snapshot-7", ' + USAGE + b"}", 1700.0, True),  # the ceiling
    ({}, b'{"model": "gpt-4o"}', None, False),  # no usage is not free
    ({}, b"no JSON", None, False),
    ({}, b"", None, False),
])
def test_cost(said: dict[str, Any], body: bytes, cost: float | None, usage: bool) -> None:
    outcome = through(opened(**said), JSON, body)
    assert outcome["cost_usd"] == cost
    assert (outcome["usage"] is not None) == usage
    assert outcome["estimated"] is (cost == 1700.0)


def test_a_stream_cut_before_its_last_usage_is_an_estimate() -> None:
    begun = b'data: {"model": "gpt-4o", "choices": [{"index": 0}], ' + USAGE + b"}\n\n"
    assert through(opened(), STREAM, begun, ended="cut")["estimated"] is True
    whole = through(opened(), STREAM, begun, b"data: [DONE]\n\n")
    assert (whole["estimated"], whole["cost_usd"]) == (False, 17.0)


@pytest.mark.parametrize("status", [400, 429, 500, 302])
def test_an_error_of_the_provider_has_no_usage(status: int) -> None:
    outcome = through(opened(), JSON, b'{"model": "gpt-4o", ' + USAGE + b"}", status=status)
    assert (outcome["status"], outcome["usage"], outcome["cost_usd"], outcome["ended"]) == (status, None, None, "complete")


def test_what_the_answers_head_says_is_recorded_and_ours_is_added() -> None:
    held = opened()

    async def work() -> tuple[Any, ...]:
        await held.admit(held.call)
        passed = held.start(200, ((b"request-id", b"r" * 300), (b"x-request-id", b"second"), (b"content-length", b"2")))
        held.feed(b"{}")
        await held.finish("complete")
        return passed

    passed = house.run(work())
    assert passed[:2] == ((b"request-id", b"r" * 300), (b"x-request-id", b"second"))
    assert passed[-1] == (b"x-douane-id", b"0" * 32)
    assert held.promised == 2
    assert isinstance(held.gate.log, Book)
    assert held.gate.log.outcome["upstream_request_id"] == "r" * 200


def test_an_answer_before_its_head_is_no_answer() -> None:
    with pytest.raises(RuntimeError):
        opened().feed(b"x")


def test_a_filter_that_raises_says_its_type_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(EchoMask):
        def feed(self, chunk: bytes) -> bytes:
            raise ValueError("the canary text")

    with caplog.at_level(logging.ERROR), pytest.raises(RefusedError, match=r"on the answer \(ValueError\)") as caught:
        through(opened(entry(Policy(make=lambda call: Broken("k" * 20)))), JSON, b"x")
    assert caught.value.code == "policy_error"
    assert "canary" not in caplog.text + str(caught.value)
    assert "test_exchange.py" in caplog.text


# -- the end -----------------------------------------------------------------------------------------------------------


def test_settling_goes_backwards_over_those_that_judged_and_comes_before_the_record() -> None:
    steps: list[Any] = []
    outcomes: list[Outcome] = []

    def settles(name: str, admit: Any = allow) -> Any:
        async def settle(call: Any, outcome: Outcome) -> None:
            await asyncio.sleep(0)
            steps.append(name)
            outcomes.append(outcome)

        return entry(Policy(admit, settle=settle), name)

    through(opened(settles("a"), settles("b"), book=Book(steps)), JSON, b'{"model": "gpt-4o", ' + USAGE + b"}")
    assert steps == ["intent", "b", "a", "outcome"]
    assert outcomes[0] == Outcome("complete", 200, Usage(12, 5), False, 17.0, "gpt-4o", "", told=True)
    steps.clear()
    held = opened(settles("a"), settles("b", deny), settles("c"), book=Book(steps))

    async def refused() -> None:
        await held.admit(held.call)
        await held.finish("denied")
        await held.finish("complete")

    house.run(refused())
    assert steps == ["b", "a", "outcome"], "c never began; only the first end counts"
    assert outcomes[-1].cost_usd == 0.0


@pytest.mark.parametrize("way", [ValueError("the canary text"), asyncio.CancelledError(), None],
                         ids=["raises", "cancels", "hangs"])
def test_one_that_cannot_settle_keeps_neither_the_others_nor_the_record(way: BaseException | None,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ADMIT_SECONDS", 0.01)
    settled, counts = [], Counts()

    async def fine(call: Any, outcome: Outcome) -> None:
        settled.append(1)

    async def broken(call: Any, outcome: Outcome) -> None:
        if way is None:
            await asyncio.Event().wait()
        else:
            raise way

    held = opened(entry(Policy(allow, settle=fine), "fine"), entry(Policy(allow, settle=broken), "bad"), counts=counts)
    outcome = through(held, JSON, b"{}")
    assert settled == [1]
    assert counts.failed == ["policy_error"]
    kind = "TimeoutError" if way is None else type(way).__name__
    assert (outcome["findings"][-1]["policy"], outcome["findings"][-1]["type"]) == ("bad", f"settle_failed:{kind}")
    assert "canary" not in json.dumps(outcome)


def test_a_record_that_cannot_be_written_is_said_and_not_tried_twice() -> None:
    held = opened(book=Book(broken=("outcome",)))
    with pytest.raises(AuditUnavailableError):
        through(held, JSON, b"{}")
    assert held.done
    house.run(held.finish("complete"))


@pytest.mark.parametrize(("broken", "order"), [((), ["intent", "outcome", "booked"]), (("outcome",), ["intent"])])
def test_what_it_came_to_is_booked_once_the_log_has_it_and_not_before(broken: tuple[str, ...], order: list[str],
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is killed in between books the next time what the log says; where the log cannot, all stays charged."""
    steps: list[Any] = []
    monkeypatch.setattr(Purse, "book", lambda _: steps.append("booked"))
    held = opened(book=Book(steps, broken=broken))
    with pytest.raises(AuditUnavailableError) if broken else contextlib.nullcontext():
        through(held, JSON, b"{}")
    assert steps == order


def test_what_is_counted() -> None:
    counts = Counts()
    judged = opened(entry(Policy(allow), "look"), counts=counts, principal=house.BOT)
    through(judged, JSON, b'{"model": "gpt-4o", ' + USAGE + b"}")
    held = opened(counts=counts, model="made-up-by-the-caller", operation="unknown")
    held.refuse("governor", Deny("policy_error", "x"))
    house.run(held.finish("denied"))
    (first, seconds, usage, cost), (second, *_) = counts.ended
    assert first == ("openai", "chat", "gpt-4o", "support", "allow")
    assert second == ("openai", "unknown", "other", "", "policy_error")
    assert (usage, cost, counts.asked, counts.failed, counts.running) == (Usage(12, 5), 17.0, ["look"], ["policy_error"], 0)
    assert list(seconds) == ["total", "gateway", "upstream", "first_token"]
    assert all(value is not None and 0 <= value <= (seconds["total"] or 0) for value in seconds.values())


def test_latencies_of_a_call_that_never_left() -> None:
    held = opened()
    held.refuse("door", Deny("host_mismatch", "x"))
    house.run(held.finish("denied"))
    assert isinstance(held.gate.log, Book)
    found = held.gate.log.outcome["latency_ms"]
    assert (found["upstream"], found["first_token"]) == (None, None)
    assert found["total"] == found["gateway"] >= 0
