"""The fault table: whatever a policy or the audit log does wrong, nothing passes that was not judged and recorded.

Governor, Exchange and Chain are real; the relay calls a real socket, which counts the bytes that reach it. Beside them
stands a governor as one would write it without thinking; it must fail the same table, or the table proves nothing.
"""

import asyncio
import contextlib
import errno
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from douane import exchange
from douane.asgi import App, Message, Receive, Scope, Send
from douane.audit.journal import OS_DISK
from douane.audit.log import AuditLog
from douane.call import Call, Caller, Headers, Outcome, Target, Usage
from douane.chain import AuditRules, Chain, Entry
from douane.edge import EdgeRules
from douane.errors import AuditUnavailableError
from douane.gate import AuditSink, Gate
from douane.governor import AnswerCutError, Governor
from douane.intake import Arrival
from douane.policy import BodyFilter, Traits
from douane.providers.base import Provider
from douane.providers.by_host import ByHost
from douane.providers.table import builtin
from douane.relay import Forward, Relay
from douane.upstream.pool import Pool
from douane.verdict import ALLOW, Deny, Verdict
from tests import house

SECONDS = 2.0
"""Within which everything must have ended."""
ANSWER = b'{"id":"x","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}'

type Case = tuple[str, "Fault"]
type Kind = Literal["denied", "cut", "passed"]


# -- what goes wrong -----------------------------------------------------------------------------------------------


class Fault:
    """Raises *error*, hangs where it is None, or answers *nonsense*."""

    def __init__(self, name: str, error: type[BaseException] | None = None, nonsense: bool = False) -> None:
        self.name, self.error, self.nonsense = name, error, nonsense

    def now(self) -> Any:
        if self.error is not None:
            raise self.error("the policy's fault")
        return 7

    async def soon(self) -> Any:
        if self.error is None and not self.nonsense:
            await asyncio.sleep(60)
        await asyncio.sleep(0)
        return self.now()


RAISED = tuple(Fault(error.__name__, error) for error in (
    Exception, ValueError, KeyError, TimeoutError, asyncio.CancelledError, MemoryError, RecursionError, OSError, StopIteration,
    AssertionError, AuditUnavailableError))
HANG = Fault("hang")
NONSENSE = Fault("nonsense", nonsense=True)
BEFORE = ("when", "admit", "make", "filter_when")
"""Stages at which nothing has gone upstream."""
AFTER = ("headers", "feed", "close")
"""Stages at which the answer is on its way."""
CASES: list[Case] = [*((stage, fault) for stage in (*BEFORE, *AFTER, "settle") for fault in RAISED),
                     ("admit", HANG), ("settle", HANG), ("admit", NONSENSE), ("make", NONSENSE),
                     ("feed", NONSENSE), ("close", NONSENSE)]
JUDGED = [(stage, fault) for stage, fault in CASES if stage in BEFORE and fault.error is not asyncio.CancelledError
          and (stage, fault) != ("make", NONSENSE)]
"""Faults of the policy, and not of whoever runs it: ``on_error`` speaks of these."""


class FaultyFilter:
    rewrites = False

    def __init__(self, stage: str, fault: Fault) -> None:
        self.stage, self.fault = stage, fault

    def headers(self, headers: Headers) -> Headers:
        return self.fault.now() if self.stage == "headers" else headers

    def feed(self, chunk: bytes) -> bytes:
        return self.fault.now() if self.stage == "feed" else chunk

    def close(self) -> bytes:
        return self.fault.now() if self.stage == "close" else b""


@dataclass
class Faulty:
    """A policy that fails at one *stage*."""

    stage: str
    fault: Fault
    settled: list[Outcome] = field(default_factory=list)

    async def admit(self, call: Call) -> Verdict:
        return await self.fault.soon() if self.stage == "admit" else ALLOW

    def filter(self, call: Call) -> BodyFilter | None:
        return self.fault.now() if self.stage == "make" else FaultyFilter(self.stage, self.fault)

    async def settle(self, call: Call, outcome: Outcome) -> None:
        self.settled.append(outcome)
        if self.stage == "settle":
            await self.fault.soon()

    def when(self, call: Call) -> bool:
        """``when``: asked before ``admit``, and again before ``filter``."""
        if self.stage == "when":
            self.fault.now()
        if self.stage == "filter_when" and call.document is not None and self._asked():
            self.fault.now()
        return True

    def _asked(self) -> bool:
        asked, self.__dict__["asked"] = self.__dict__.get("asked", False), True
        return bool(asked)


@dataclass
class Guard:
    """A policy that works, behind the faulty one: it counts what it was shown."""

    calls: int = 0
    settled: int = 0

    async def admit(self, call: Call) -> Verdict:
        self.calls += 1
        return Deny("model_not_allowed", "no") if call.model == "o1" else ALLOW

    async def settle(self, call: Call, outcome: Outcome) -> None:
        self.settled += 1


# -- the house round it --------------------------------------------------------------------------------------------


@dataclass
class Log:
    """An audit log in memory. *fails*: kinds of records that cannot be written."""

    fails: tuple[str, ...] = ()
    error: type[BaseException] | None = AuditUnavailableError
    """None: it hangs as long as an audit log may."""
    records: list[dict[str, Any]] = field(default_factory=list)

    async def append(self, record: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if record["kind"] in self.fails:
            if self.error is None:
                await asyncio.sleep(0.4)
            raise (self.error or AuditUnavailableError)("the disk")
        self.records.append(record)

    def kinds(self) -> list[str]:
        return [record["kind"] for record in self.records]


class Observer:
    def __init__(self) -> None:
        self.running = 0
        self.verdicts: list[str] = []
        self.through: list[str] = []
        self.failed: list[str] = []

    def opened(self) -> None:
        self.running += 1

    def closed(self, labels: tuple[str, str, str, str, str], seconds: Mapping[str, float | None], usage: Usage | None,
               cost_usd: float | None) -> None:
        self.running -= 1
        self.verdicts.append(labels[4])

    def policy(self, name: str, seconds: float) -> None:
        pass

    def failed_closed(self, code: str) -> None:
        self.failed.append(code)

    def let_through(self, name: str) -> None:
        self.through.append(name)

    def budgets(self, found: Any) -> None:
        pass

    def overshot(self, usd: float) -> None:
        pass


class Upstream:
    """A provider in plain HTTP that counts what reaches it."""

    def __init__(self, answer: bytes, kind: str) -> None:
        self.bytes = 0
        self._answer, self._kind = answer, kind

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.bytes += len(data)
                half = len(self._answer) // 2
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % self._kind.encode())
                for piece in (self._answer[:half], self._answer[half:]):
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write(b"0\r\n\r\n")
        writer.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


@dataclass
class Result:
    """What came of one call."""

    status: int = 0
    body: bytes = b""
    whole: bool = False
    """The client saw the proper end."""
    raised: BaseException | None = None
    upstream: int = 0
    """Bytes that reached the provider."""
    seconds: float = 0.0
    recorded: list[str] = field(default_factory=list)
    """Kinds of the records there were when the client saw the end."""

    @property
    def kind(self) -> Kind:
        if self.whole and self.status == 200 and b'"error"' not in self.body:
            return "passed"
        return "denied" if self.whole and self.status >= 400 else "cut"


class NaiveGovernor:
    """As one would write it: a policy that fails is logged, and the show goes on."""

    def __init__(self, app: App, gate: Gate, door: Callable[[Chain, Scope], Arrival | None]) -> None:
        self.app, self.gate, self.door = app, gate, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival = self.door(self.gate.chain, scope)
        assert arrival is not None
        message = await receive()
        call = Call("0" * 32, 0.0, "openai", "chat", "POST", arrival.host, arrival.path, "", (), arrival.caller,
                    model="gpt-4o", body=message["body"], document={})
        filters: list[BodyFilter] = []
        for entry in self.gate.chain.entries:
            try:
                if (entry.when is None or entry.when(call)) and isinstance(
                        verdict := await asyncio.wait_for(entry.policy.admit(call), exchange.ADMIT_SECONDS), Deny):
                    await send({"type": "http.response.start", "status": 403, "headers": []})
                    await send({"type": "http.response.body", "body": verdict.reason.encode()})
                    return
                filters.append(entry.policy.filter(call))
            except BaseException:  # noqa: BLE001
                continue

        async def passed_back(message: Message) -> None:
            body = message.get("body", b"")
            for one in filters:
                try:
                    body = one.feed(body)
                except BaseException:  # noqa: BLE001
                    continue
            await send({**message, "body": body} if "body" in message else message)

        async def again() -> Message:
            return message

        await self.app({**scope, "state": {"forward": Forward(arrival.target)}}, again, passed_back)


@dataclass
class Bench:
    """One call through a governor with the given chain."""

    entries: tuple[Entry, ...]
    log: AuditSink = field(default_factory=Log)
    make: Callable[..., App] = Governor
    stream: bool = False
    observer: Observer = field(default_factory=Observer)

    async def call(self) -> Result:
        kind = "text/event-stream" if self.stream else "application/json"
        answer = b"data: " + ANSWER + b"\n\ndata: [DONE]\n\n" if self.stream else ANSWER
        upstream = Upstream(answer, kind)
        async with upstream.listening() as port:
            result = await self._call(Target("http", "127.0.0.1", port))
        result.upstream = upstream.bytes
        return result

    async def _call(self, target: Target) -> Result:
        provider: Provider = replace(builtin()["openai"], target=target)
        chain = Chain("r", self.entries, EdgeRules(), ByHost([provider]), AuditRules())
        gate = Gate(chain, self.log, house.Tariff(), self.observer)
        pool = Pool()
        app = self.make(Relay(pool), gate, lambda chain, scope: Arrival(
            provider, "api.openai.com", "/v1/chat/completions", Caller("127.0.0.1"), target))
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions",
                 "query_string": b"", "headers": [(b"host", b"api.openai.com")], "state": {}}
        result, asked = Result(), False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.sleep(60)
            asked = True
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                result.status = message["status"]
            else:
                result.body += message.get("body", b"")
                result.whole = not message.get("more_body", False)
                if result.whole and isinstance(self.log, Log):
                    result.recorded = self.log.kinds()

        began = time.monotonic()
        task = asyncio.ensure_future(_as_task(app(scope, receive, send)))
        await asyncio.wait({task}, timeout=SECONDS + 1)
        result.seconds = time.monotonic() - began
        assert task.done(), "hangs"
        result.raised = task.result()
        await pool.aclose()
        return result


async def _as_task(work: Awaitable[None]) -> BaseException | None:
    """What it raised: an ASGI server looks at that as well."""
    try:
        await work
    except BaseException as error:  # noqa: BLE001
        return error
    return None


def entries(stage: str, fault: Fault, *, on_error: Literal["deny", "allow"] = "deny") -> tuple[tuple[Entry, ...], Guard]:
    guard = Guard()
    faulty = Faulty(stage, fault)
    when = faulty.when if stage in ("when", "filter_when") else None
    return (Entry("faulty", faulty, Traits(), when=when, on_error=on_error), Entry("guard", guard, Traits())), guard


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ADMIT_SECONDS", 0.1)


def attempt(stage: str, fault: Fault, make: Callable[..., App] = Governor, *,
            stream: bool = False) -> tuple[Result, Bench, Guard]:
    chain, guard = entries(stage, fault)
    bench = Bench(chain, make=make, stream=stream)
    return asyncio.run(bench.call()), bench, guard


def named(one: str | Fault) -> str:
    return one if isinstance(one, str) else one.name


@pytest.mark.parametrize("stream", [False, True], ids=["json", "events"])
@pytest.mark.parametrize(("stage", "fault"), CASES, ids=named)
def test_the_table(stage: str, fault: Fault, stream: bool) -> None:
    result, bench, guard = attempt(stage, fault, stream=stream)
    assert result.seconds < SECONDS
    log = bench.log
    assert isinstance(log, Log)
    if stage in BEFORE:
        assert result.upstream == 0
        assert result.kind != "passed"
        assert "intent" not in log.kinds() or fault is NONSENSE  # what is no filter shows when it is used
        assert stage != "admit" or guard.calls == 0
    elif stage in AFTER:
        assert result.kind != "passed"
        assert ANSWER[len(ANSWER) // 2:] not in result.body or stage == "close"
    else:
        assert result.kind != "passed" or "outcome" in result.recorded
    assert not result.whole or "outcome" in result.recorded, "the client saw the end before the outcome was written"
    assert log.kinds().count("outcome") == 1, "every call has one outcome"
    assert bench.observer.running == 0
    if (stage, fault) in JUDGED:
        assert result.status == 503
        assert b"policy_error" in result.body
        assert log.records[-1]["verdict"]["code"] == "policy_error"
        assert log.records[-1]["verdict"]["policy"] == "faulty"


def test_a_naive_governor_fails_the_table() -> None:
    """Else the table could not tell a guard from a sieve."""
    leaked = {stage for stage, fault in CASES for result, _, _ in [attempt(stage, fault, NaiveGovernor)]
              if result.kind == "passed" and result.upstream}
    assert leaked >= {"when", "admit", "make", "feed"}


def test_without_a_fault_it_passes() -> None:
    for stream in (False, True):
        result, bench, guard = attempt("none", NONSENSE, stream=stream)
        assert result.kind == "passed"
        assert result.upstream > 0
        assert result.recorded == ["intent", "outcome"]
        assert (guard.calls, guard.settled, bench.observer.verdicts) == (1, 1, ["allow"])


@pytest.mark.parametrize(("stage", "fault"), JUDGED, ids=named)
def test_on_error_allow_passes_and_says_so(stage: str, fault: Fault) -> None:
    chain, guard = entries(stage, fault, on_error="allow")
    bench = Bench(chain)
    result = asyncio.run(bench.call())
    assert result.kind == "passed"
    assert guard.calls == 1
    assert set(bench.observer.through) == {"faulty"}
    assert isinstance(bench.log, Log)
    assert {"policy": "faulty", "type": "on_error:allow", "count": 1, "where": ()} in bench.log.records[-1]["findings"]


def test_on_error_allow_is_for_the_policy_alone() -> None:
    """The policies behind it still judge."""
    class Strict(Guard):
        async def admit(self, call: Call) -> Verdict:
            return Deny("model_not_allowed", "no")

    chain = (entries("admit", RAISED[0], on_error="allow")[0][0], Entry("strict", Strict(), Traits()))
    result = asyncio.run(Bench(chain).call())
    assert (result.kind, result.status, result.upstream) == ("denied", 403, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_is_no_pass(error: type[BaseException]) -> None:
    chain, _ = entries("admit", Fault("end", error))
    log = Log()
    result = asyncio.run(Bench(chain, log=log).call())
    assert isinstance(result.raised, error)
    assert (result.whole, result.upstream, log.kinds().count("intent")) == (False, 0, 0)


# -- the audit log -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [AuditUnavailableError, None, OSError, RuntimeError],
                         ids=["says so", "hangs", "OSError", "RuntimeError"])
@pytest.mark.parametrize("fails", [("intent",), ("intent", "outcome")])
def test_no_intent_no_call(fails: tuple[str, ...], error: type[BaseException] | None) -> None:
    bench = Bench(entries("none", NONSENSE)[0], log=Log(fails, error))
    result = asyncio.run(bench.call())
    assert result.upstream == 0
    assert result.kind != "passed"
    assert result.seconds < 1
    if error in (AuditUnavailableError, None):
        assert result.status == 503
        assert b"audit_unavailable" in result.body
    assert bench.observer.running == 0


@pytest.mark.parametrize("stream", [False, True], ids=["json", "events"])
@pytest.mark.parametrize("error", [AuditUnavailableError, None, OSError], ids=["says so", "hangs", "OSError"])
def test_no_outcome_no_end(error: type[BaseException] | None, stream: bool) -> None:
    bench = Bench(entries("none", NONSENSE)[0], log=Log(("outcome",), error), stream=stream)
    result = asyncio.run(bench.call())
    assert not result.whole
    assert isinstance(result.raised, (AnswerCutError, OSError))
    assert b"[DONE]" not in result.body


def test_a_denial_that_cannot_be_recorded_is_no_silent_denial() -> None:
    class Strict(Guard):
        async def admit(self, call: Call) -> Verdict:
            return Deny("model_not_allowed", "no")

    result = asyncio.run(Bench((Entry("strict", Strict(), Traits()),), log=Log(("outcome",))).call())
    assert (result.status, result.upstream) == (503, 0)
    assert b"audit_unavailable" in result.body


class FullDisk:
    """Full, from when it is told so."""

    def __init__(self) -> None:
        self.full = False

    def write(self, fd: int, data: Any) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return OS_DISK.write(fd, data)

    def sync(self, fd: int) -> None:
        OS_DISK.sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        OS_DISK.truncate(fd, size)


class HangingDisk(FullDisk):
    """Hangs, from when it is told so until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def sync(self, fd: int) -> None:
        if self.full:
            self.go.wait(10)
        OS_DISK.sync(fd)

    def write(self, fd: int, data: Any) -> int:
        return OS_DISK.write(fd, data)


@pytest.mark.parametrize("disk", [FullDisk, HangingDisk])
def test_the_real_log_on_a_disk_that_fails(tmp_path: Path, disk: type[FullDisk]) -> None:
    under = disk()
    log = AuditLog.open(tmp_path, "n", disk=under)
    chain = entries("none", NONSENSE)[0]

    async def calls() -> None:
        assert (await Bench(chain, log=log).call()).kind == "passed"
        under.full = True
        result = await Bench(chain, log=log).call()
        assert (result.status, result.upstream) == (503, 0)
        assert b"audit_unavailable" in result.body
        assert result.seconds < 1
        many = await asyncio.gather(*(Bench(chain, log=log).call() for _ in range(20)))
        assert {(one.status, one.upstream) for one in many} == {(503, 0)}
        assert max(one.seconds for one in many) < 1
        under.full = False
        if isinstance(under, HangingDisk):
            under.go.set()
        for _ in range(50):
            if (await Bench(chain, log=log).call()).kind == "passed":
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it does not recover")

    try:
        asyncio.run(calls())
    finally:
        if isinstance(under, HangingDisk):
            under.go.set()
        log.close()
