"""What the audit log is told of one exchange: its intent, and its outcome.

Law 2: each returns when its record is durable. A body is told once, as the log's scribe writes it down; the names that apps and
providers make up go the same way. Where the server stops while something is written down, the record goes without it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from douane.answer import Capture
from douane.audit import record
from douane.call import Call, Finding, Outcome
from douane.gate import AuditSink, Gate
from douane.providers.base import Wire
from douane.verdict import Deny

__all__ = ["Telling"]


class Telling:
    """One exchange's. Methods raise AuditUnavailableError."""

    __slots__ = ("_about", "_asked", "_gate", "_log", "_revision", "_scribe")

    def __init__(self, gate: Gate) -> None:
        self._gate, self._revision = gate, gate.chain.revision
        self._log: AuditSink | None = gate.log
        self._scribe = gate.scribe if gate.log is not None and gate.chain.audit.level == "redacted" else None
        self._about: tuple[Call, Mapping[str, Any]] | None = None
        """What the records say of the call, as of the last that was written."""
        self._asked = False
        """Whether the request's body stands in the log."""

    @property
    def keeps_bodies(self) -> bool:
        return self._scribe is not None

    async def intend(self, call: Call, findings: Iterable[Finding], reserved_usd: float | None) -> None:
        if self._log is not None:
            request = await self._request(call)
            await self._append(self._log, call, record.intent(self._of(call), findings, reserved_usd=reserved_usd,
                                                              request=request))

    async def said(self, call: Call, frame: bytes) -> None:
        """What a session's client says and asks nothing with, or (empty) that sound goes out."""
        if self._log is not None:
            said = replace(call, body=frame, document=None)
            request = await self._scribe.request(said) if self._scribe is not None else None
            await self._log.append(record.event("said", self._gate.clock(), session=call.session, turn=call.id,
                                                **({"request": request} if frame else {"sound": True})))

    async def came_to(self, call: Call, findings: Iterable[Finding], result: Outcome, *, denial: tuple[str, Deny] | None,
                      seconds: Mapping[str, float | None], reserved_usd: float | None, overshot_usd: float,
                      answer: tuple[Wire | None, Capture] | None, json: bool) -> None:
        """*seconds*: the latencies. *answer*: how it is read, and what it was. *json*: it has been read as one document."""
        if self._log is None:
            return
        millis = {name: None if value is None else round(value * 1000, 3) for name, value in seconds.items()}
        request = response = None
        try:
            request = await self._request(call)
            if self._scribe is not None and answer is not None:
                response = await self._scribe.response(call, *answer, json=json)
        finally:
            await self._append(self._log, call, record.outcome(
                self._of(call), findings, result, denial=denial, latency_ms=millis, reserved_usd=reserved_usd,
                overshot_usd=overshot_usd, request=request, response=response))

    def _of(self, call: Call) -> Mapping[str, Any]:
        """What both records say of it."""
        if self._about is None or self._about[0] is not call:
            self._about = call, record.about(call, self._revision)
        return self._about[1]

    async def _request(self, call: Call) -> dict[str, Any] | None:
        if self._scribe is None or self._asked:
            return None
        self._asked = True
        return await self._scribe.request(call)

    async def _append(self, log: AuditSink, call: Call, told: dict[str, Any]) -> None:
        """*told*, the names in it without what must not be kept."""
        if self._scribe is None:
            await log.append(told)
            return
        given = record.names(told)
        names: Mapping[str, str] = dict.fromkeys(given, "")
        try:
            names = await self._scribe.names(call.principal.tenant, given)
        finally:
            await log.append(told if names is given else record.renamed(told, names))
