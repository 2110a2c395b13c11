"""The life of a call: NEW → ADMITTED → ANSWERING → DONE.

Law 1: what a policy raises, or does not answer in time, is a denial (``policy_error``) unless the entry says ``on_error:
allow``, which is counted and recorded. Law 2: the intent is durable before ``admit`` says yes, the outcome before
``finish`` returns. Law 8: the chain is the one that was current when the exchange opened.

No sockets, no ASGI: the governor feeds it and does what it says.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from douane.answer import AnswerPipe, Capture
from douane.call import Call, Ended, Finding, Headers, Outcome, Usage
from douane.chain import Chain, Entry
from douane.echo import EchoMask
from douane.errors import DENIALS, AuditUnavailableError, RefusedError
from douane.gate import Gate
from douane.ledger.base import LedgerUnavailableError, Rate, Slots
from douane.logs import where
from douane.outflow import AHEAD, STEP, Outflow
from douane.policy import BodyFilter
from douane.providers.ask_usage import UsageFilter, asking
from douane.providers.base import Meter, Operation, Provider, Reading, query_keys
from douane.providers.framing import Framing, framing_of
from douane.purse import Purse
from douane.result import Seen, result_of
from douane.size import OF_THE_BYTES
from douane.telling import Telling
from douane.unsearched import declare
from douane.verdict import ALLOW, Allow, Deny, Rewrite, Verdict
from douane.waiting import at_once_or_within, is_cancelled

__all__ = ["ADMIT_SECONDS", "Exchange"]

log = logging.getLogger("douane.exchange")

ADMIT_SECONDS = 10.0
"""What one policy may take to judge one call, and to settle it."""
MOST_FINDINGS = 1000
"""Of one turn of a session, whose frames nobody counts."""
_REQUEST_IDS = (b"x-request-id", b"request-id", b"x-amzn-requestid")
_NO_READING = Reading()


@dataclass(slots=True)
class _Clock:
    """Moments of one exchange, by ``time.perf_counter``; 0.0 where it has not come."""

    opened: float
    forwarded: float = 0.0
    first_body: float = 0.0
    last_body: float = 0.0
    unread: float = 0.0
    """Seconds, summed, in which the client took nothing, so that nothing was read."""
    upstream_done: float = 0.0

    def since_read(self) -> float:
        """Seconds in which the provider may have made something that nobody read."""
        return self.unread + time.perf_counter() - self.last_body

    def latencies(self) -> dict[str, float | None]:
        """Seconds. ``upstream`` is from the first byte sent to the provider to its last; ``gateway`` is the rest."""
        total = time.perf_counter() - self.opened
        upstream = (self.upstream_done or time.perf_counter()) - self.forwarded if self.forwarded else None
        return {
            "total": total,
            "gateway": total - (upstream or 0.0),
            "upstream": upstream,
            "first_token": self.first_body - self.opened if self.first_body else None,
        }


class Exchange:
    """Opened by the governor for every request to a governed host. ``call`` is what the policies have made of it."""

    def __init__(self, gate: Gate, provider: Provider, operation: Operation | None, call: Call) -> None:
        self.gate = gate
        self.chain: Chain = gate.chain
        self._entries = (*self.chain.entries, *self.chain.laws)
        self.provider = provider
        self.operation = operation
        self.call = call
        self.denial: tuple[str, Deny] | None = None
        self.done = False
        self.promised: int | None = None
        """The answer's Content-Length; None where there is none."""
        self.takes: Framing | None = None
        """The framing of an answer in which a frame of ours can follow: uncompressed, and not a JSON array."""
        self._findings: list[Finding] = []
        self._judged = 0
        """How many entries have judged."""
        self._purse = Purse(gate.ledger, gate.prices)
        self._overshot = 0.0
        """USD that it came to beyond what was held."""
        self._filters: tuple[BodyFilter, ...] = ()
        self._meter: Meter | None = None
        self._pipe: AnswerPipe | None = None
        self._telling = Telling(gate)
        self._capture: Capture | None = None
        self._status = 0
        self._upstream_request_id = ""
        self._clock = _Clock(time.perf_counter())
        gate.observer.opened()

    # -- judging -------------------------------------------------------------------------------------------------

    async def screen(self) -> Deny | None:
        """Judge by the head alone: the entries before the first that needs the body."""
        return await self._judge(head_only=True) or self.stopped()

    async def admit(self, call: Call) -> Deny | None:
        """Judge the whole *call* by the remaining entries, make the filters for its answer, then make the intent
        durable. Raises AuditUnavailableError."""
        self.call = call
        denial = (self.stopped() or self._declare() or await self._judge(head_only=False) or await self._hold()
                  or self._unsigned(call.body) or self._prepare())
        if denial is None:
            self._ask_usage()
            await self.intend()
        return denial

    async def judge_frame(self, call: Call, *, asks: bool) -> Deny | None:
        """Judge one frame of a WebSocket session by the whole chain; the entries that hold what an answer costs only where
        the frame *asks* for one. :meth:`intend` follows, once all is there that is asked with."""
        self.call = call
        self._judged = 0
        self._purse.forget()
        before = len(self._findings)
        denial = (self.stopped() or self._declare() or await self._judge(head_only=False, asks=asks)
                  or await self._hold())
        new = [one for one in self._findings[before:] if one not in self._findings[:before]]
        self._findings[before:] = new[:max(0, MOST_FINDINGS - before)]
        return denial

    async def intend(self) -> None:
        """Make the intent durable. Raises AuditUnavailableError."""
        await self._telling.intend(self.call, self._findings, self._purse.reserved_usd)

    async def note_said(self, frame: bytes) -> None:
        """What a session's client says and asks nothing with, or (empty) that sound goes out: durable before it leaves. Raises
        AuditUnavailableError."""
        await self._telling.said(self.call, frame)

    def session_filters(self) -> tuple[BodyFilter, ...] | Deny:
        """Filters for what the provider says in a session from now on, made for ``call``: the caller's, not this
        exchange's."""
        denial = self._prepare()
        filters, self._filters = self._filters, ()
        return denial or filters

    def _ask_usage(self) -> None:
        """Have a stream tell its usage that would not, and keep from the app that we asked."""
        call = self.call
        if not (self.provider.includes_usage and call.stream and call.operation in ("chat", "completions")):
            return
        if not OF_THE_BYTES.isdisjoint(name for name, _ in call.headers):
            return
        asked = asking(call.body, call.document)
        if asked is not None:
            self.call = replace(call, body=asked[0], document=asked[1])
            self._filters = (UsageFilter(), *self._filters)

    def _declare(self) -> Deny | None:
        """What of the body cannot be searched, before a policy takes anything from it."""
        wire = self.operation.wire if self.operation is not None else None
        if wire is None or self.call.document is None:
            return None
        if self.gate.log is None and self.chain.edge.uninspectable == "allow":
            return None  # nobody would read it
        findings, denial = declare(wire.unseen(self.call.document), self.chain.edge.uninspectable)
        self._findings.extend(findings)
        if denial is not None:
            self.refuse("edge", denial)
        return denial

    def _unsigned(self, body: bytes) -> Deny | None:
        """A signature of the app's covers the *body* that it sent, and no other: with keys of ours it is signed again."""
        call = self.call
        if call.body == body or call.credential is not None or not (call.header(b"authorization") or b"").startswith(b"AWS4-"):
            return None
        denial = Deny("credential_missing", "the app signed the request with its own AWS keys, and a policy changed it since: "
                                            f"configure AWS keys for {call.provider}, so that it can be signed again")
        self.refuse("signature", denial)
        return denial

    def stopped(self) -> Deny | None:
        """Whether an administrator has stopped such calls."""
        denial = self.gate.stops.deny(self.call)
        if denial is not None:
            self.refuse("stop", denial)
        return denial

    def refuse(self, by: str, denial: Deny) -> None:
        """A refusal from outside the chain: the door, the body reader, the relay."""
        self.denial = (by, denial)

    async def _judge(self, *, head_only: bool, asks: bool = True) -> Deny | None:
        entries = self._entries
        while self._judged < len(entries):
            entry = entries[self._judged]
            if head_only and (entry.traits.needs_body or entry.when is not None):
                return None
            self._judged += 1
            if entry.admit is None or (entry.traits.per_answer and not asks):
                continue
            denial = await self._ask(entry, entry.admit)
            if denial is not None:
                self.refuse(entry.name, denial)
                return denial
        return None

    async def _ask(self, entry: Entry, admit: Callable[[Call], Coroutine[Any, Any, Verdict]]) -> Deny | None:
        began = time.perf_counter()
        try:
            if entry.when is not None and not entry.when(self.call):
                return None
            verdict = await at_once_or_within(ADMIT_SECONDS, admit(self.call))
            if verdict is ALLOW:
                return None
            denial = self._apply(entry, verdict)
            if denial is None and not isinstance(verdict, Deny) and verdict.rates:
                return await self._take(entry, verdict.rates)
            return denial
        except TimeoutError:
            return self._broken(entry, "did not answer in time")
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return self._broken(entry, "was cancelled")
        except Exception as error:  # noqa: BLE001 - law 1: whatever a policy raises is a denial
            log.error("a policy failed: %s", where(error), extra={"policy": entry.name, "douane_id": self.call.id})
            return self._broken(entry, f"failed ({type(error).__name__})")
        finally:
            self.gate.observer.policy(entry.name, time.perf_counter() - began)

    def _apply(self, entry: Entry, verdict: Verdict) -> Deny | None:
        if not isinstance(verdict, (Allow, Rewrite, Deny)):
            raise TypeError("a policy must answer Allow, Rewrite or Deny")
        if verdict.findings:
            self._findings.extend(verdict.findings)
        suspended = entry.observe and not entry.traits.always
        if not isinstance(verdict, Deny):
            if isinstance(verdict, Rewrite) and not suspended:
                self.call = verdict.call
            if verdict.claims:
                self._purse.claim(entry.name, verdict.claims, hard=not suspended)
        else:
            if verdict.code not in DENIALS:
                raise ValueError(f"unknown denial code {verdict.code!r}")
            if not suspended:
                return verdict
            self._findings.append(Finding(entry.name, f"would_deny:{verdict.code}"))
        return None

    async def _take(self, entry: Entry, rates: Sequence[Rate | Slots]) -> Deny | None:
        """Take of the *rates* of one entry what the call needs of them: of all or of none."""
        try:
            denial = await self._purse.take(self.call, self.operation, rates)
        except LedgerUnavailableError as error:
            return self._broken(entry, "has no ledger") if entry.on_error == "allow" else Deny(error.code, error.reason)
        if denial is not None and entry.observe:
            self._findings.append(Finding(entry.name, f"would_deny:{denial.code}"))
            return None
        return denial

    async def _hold(self) -> Deny | None:
        """Hold what the call may come to, in all the budgets that claimed it."""
        purse = self._purse
        held = await purse.hold(self.call, self.operation)
        self._findings += purse.findings
        purse.findings.clear()
        if isinstance(held, Deny):
            self.refuse(purse.policy, held)
            return held
        self.call = held
        return None

    def _broken(self, entry: Entry, what: str) -> Deny | None:
        if entry.on_error == "allow":
            self.gate.observer.let_through(entry.name)
            self._findings.append(Finding(entry.name, "on_error:allow"))
            return None
        return Deny("policy_error", f"the policy {entry.name} {what}")

    def _prepare(self) -> Deny | None:
        """Make the answer's filters, in the reverse of the chain's order, as the answer travels back."""
        filters = []
        for entry in reversed(self._entries):
            if entry.filter is None:
                continue
            try:
                if entry.when is None or entry.when(self.call):
                    one = entry.filter(self.call)
                    if one is not None:
                        filters.append(one)
            except Exception as error:  # noqa: BLE001 - law 1
                log.error("a policy failed: %s", where(error), extra={"policy": entry.name, "douane_id": self.call.id})
                denial = self._broken(entry, f"failed ({type(error).__name__})")
                if denial is not None:
                    self.refuse(entry.name, denial)
                    return denial
        self._filters = tuple(filters)
        return None

    # -- the answer ----------------------------------------------------------------------------------------------

    @property
    def wants_identity(self) -> bool:
        """Whether the answer must be asked for uncompressed, because a filter means to rewrite it."""
        return bool(self._filters) and any(one.rewrites for one in self._filters)

    @property
    def ended_by_itself(self) -> bool:
        """Whether the stream's own end marker has been fed: the app will read no further."""
        return self._meter is not None and self._meter.ended and not (self._pipe is not None and self._pipe.compressed)

    @property
    def ending(self) -> bool:
        """Whether that marker has been fed, and the end of the stream's coding is yet to come: nothing leaves before it."""
        return self._meter is not None and self._meter.ended and not self.ended_by_itself

    @property
    def usage(self) -> Usage | None:
        """What the answer has told of it so far."""
        return None if self._meter is None else self._meter.reading().usage

    @property
    def forwarded(self) -> bool:
        return self._clock.forwarded > 0

    def forward(self) -> None:
        """The call goes upstream now."""
        self._clock.forwarded = time.perf_counter()

    def start(self, status: int, headers: Headers) -> Headers:
        """The provider's head has come; returns the head to pass on. Raises RefusedError."""
        self._status = status
        coding = kind = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value
            elif name == b"content-encoding":
                coding = coding + b"," + value if coding else value
            elif name == b"content-length":
                self.promised = int(value)
        wire = self.operation.wire if self.operation is not None else None
        framing = framing_of(kind, array=wire is not None and wire.array and status < 300)
        if framing is not None:  # it may end before its length, at its own end marker
            headers = tuple(h for h in headers if h[0] != b"content-length")
            self.promised = None
        open_framing = framing if coding in (b"", b"identity") else None
        self.takes = open_framing if open_framing is not None and open_framing.extendable else None
        if wire is not None and status < 300:
            self._meter = wire.meter(framing, headers)
        if self._telling.keeps_bodies or (framing is not None and self._meter is not None):
            key = self._key() if self._telling.keeps_bodies else ""
            self._capture = Capture(EchoMask(key) if key else None)
            self._capture.framing = framing
        self._pipe = AnswerPipe(self._meter, self._filters, self.chain.edge.max_body, self._capture)
        assumed = self._purse.assumed
        if wire is not None and framing is not None and assumed is not None and status < 300:
            self._pipe.outflow = Outflow(wire.deltas, framing, self.call.provider, self.call.model, assumed)
        passed = self._guarded(self._pipe.start, headers, coding, framing=open_framing)
        for name, value in passed:  # as the filters left it: a provider may echo a key here too
            if name in _REQUEST_IDS:
                self._upstream_request_id = value[:200].decode("latin-1")
                break
        return (*passed, (b"x-douane-id", self.call.id.encode()))

    def _key(self) -> str:
        """With which the call went upstream: ours, or the app's own; empty where it has none."""
        if self.call.credential is not None:
            return self.call.credential.secret.reveal()
        keys = [value.rpartition(b" ")[2] for wanted in self.provider.key_headers for name, value in self.call.headers
                if name == wanted]
        return next(iter((*keys, *query_keys(self.call.query))), b"").decode("latin-1")

    def feed(self, chunk: bytes) -> bytes:
        """A piece of the provider's body; returns what may leave now. Raises RefusedError."""
        clock = self._clock
        clock.last_body = time.perf_counter()
        if not clock.first_body:
            clock.first_body = clock.last_body
        return self._guarded(self._begun().feed, chunk)

    @property
    def short(self) -> bool:
        """Whether what the stream has said comes near what is held for it: :meth:`hold_more` before it says more."""
        outflow = None if self._pipe is None else self._pipe.outflow
        return outflow is not None and outflow.short

    async def hold_more(self) -> Deny | None:
        """Hold what the stream may say next. The denial: there is no room for it, and it ends here."""
        outflow = None if self._pipe is None else self._pipe.outflow
        if outflow is None:
            return None
        denial = None
        for step in (STEP + AHEAD, (STEP + AHEAD) // 4):
            wanted = outflow.tokens + step
            denial = await self._purse.extend(wanted)
            if denial is None:
                outflow.held = wanted
                return None
            if denial.code != "budget_exceeded":
                break
        if denial is not None:
            self.refuse(self._purse.policy, denial)
        return denial

    async def leaving(self, sent: Awaitable[None]) -> None:
        """Wait until the client takes what was *sent*; meanwhile nothing of the provider's is read."""
        began = time.perf_counter()
        try:
            await sent
        finally:
            self._clock.unread += time.perf_counter() - began

    def close(self) -> bytes:
        """The provider's body is whole; returns the rest. Raises RefusedError."""
        self._clock.upstream_done = time.perf_counter()
        return self._guarded(self._begun().close)

    def _begun(self) -> AnswerPipe:
        if self._pipe is None:
            raise RuntimeError("an answer before its head")
        return self._pipe

    def _guarded[**P, T](self, step: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        try:
            return step(*given, **named)
        except RefusedError:
            raise
        except Exception as error:
            log.error("the answer could not be processed: %s", where(error), extra={"douane_id": self.call.id})
            raise RefusedError("policy_error", f"a policy failed on the answer ({type(error).__name__})") from error

    # -- the end -------------------------------------------------------------------------------------------------

    async def finish(self, ended: Ended) -> None:
        """Settle and make the outcome durable. Only the first call counts. Raises AuditUnavailableError."""
        if self.done:
            return
        self.done = True
        reading = self._meter.reading() if self._meter is not None else _NO_READING
        wire = self.operation.wire if self.operation is not None else None
        result = result_of(self.call, Seen(
            ended, self._status, reading, wire, self._capture, self._meter is not None and self._meter.ended,
            self._clock.since_read, self._upstream_request_id), self.gate.prices, forwarded=self.forwarded)
        try:
            await self._settle(result)
        finally:  # also where the server stops meanwhile: what has been done must be told
            latencies = self._clock.latencies()
            self._observe(result, latencies)
            kept = True
            try:
                await self._telling.came_to(
                    self.call, self._findings, result, denial=self.denial, seconds=latencies,
                    reserved_usd=self._purse.reserved_usd, overshot_usd=self._overshot, json=reading.json,
                    answer=None if self._capture is None else (wire, self._capture))
            except AuditUnavailableError:
                kept = False  # what was held stays charged (law 2)
                raise
            finally:  # whatever else came in between, the record is written
                if kept:
                    self._book()

    async def _settle(self, result: Outcome) -> None:
        """Every policy that began, in reverse; one that fails is recorded and does not keep the others from theirs."""
        for entry in reversed(self._entries[: self._judged]):
            if entry.settle is None:
                continue
            try:
                await at_once_or_within(ADMIT_SECONDS, entry.settle(self.call, result))
            except (Exception, asyncio.CancelledError) as error:  # the outcome must be written all the same
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                self._unsettled(entry.name, error)
        try:
            self._overshot = self._purse.settle(result, self.gate.clock())
        except LedgerUnavailableError as error:
            self._unsettled("budget", error)
        if self._overshot:
            self.gate.observer.overshot(self._overshot)

    def _book(self) -> None:
        """What is reckoned, now that the log has it."""
        try:
            self._purse.book()
        except LedgerUnavailableError as error:
            log.error("what a call came to is not booked: %s", error)
            self.gate.observer.failed_closed("policy_error")

    def _unsettled(self, name: str, error: BaseException) -> None:
        log.error("a policy could not settle: %s", where(error), extra={"policy": name})
        self.gate.observer.failed_closed("policy_error")
        self._findings.append(Finding(name, f"settle_failed:{type(error).__name__}"))

    def _observe(self, result: Outcome, latencies: dict[str, float | None]) -> None:
        call, verdict = self.call, "allow"
        if self.denial is not None:
            verdict = self.denial[1].code
            if DENIALS[verdict] >= 500:
                self.gate.observer.failed_closed(verdict)
        model = (call.model and self.gate.prices.known(call.provider, call.model)) or "other"
        self.gate.observer.closed((call.provider, call.operation, model, call.principal.team, verdict),
                                  latencies, result.usage, result.cost_usd)
