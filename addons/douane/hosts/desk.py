"""What a running gateway's control socket is asked of its ledger (``ledger.py`` asks it)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from douane.gate import Gate
from douane.hosts.duties import Duties
from douane.hosts.ledger import checked
from douane.ledger.base import Stop, Store

__all__ = ["LedgerDesk"]


class LedgerDesk:
    """What a running gateway's control socket is asked of its ledger."""

    def __init__(self, store: Store, gate: Gate, duties: Duties) -> None:
        self._store, self._gate, self._duties = store, gate, duties

    @property
    def operations(self) -> dict[str, Callable[..., Awaitable[dict[str, Any]]]]:
        return {"stops": self._stops, "stop_calls": self._stop, "resume_calls": self._resume, "balances": self._balances}

    async def _stops(self, request: Mapping[str, Any], undo: object) -> dict[str, Any]:
        return {"stops": [asdict(one) for one in await self._store.stops()]}

    async def _stop(self, request: Mapping[str, Any], undo: object) -> dict[str, Any]:
        await self._store.stop(checked(Stop(str(request["scope"]), str(request["name"]), self._gate.clock(),
                                             bool(request["running"]))))
        await self._duties.hear_stops()
        return {}

    async def _resume(self, request: Mapping[str, Any], undo: object) -> dict[str, Any]:
        found = await self._store.resume(str(request["scope"]), str(request["name"]))
        await self._duties.hear_stops()
        return {"found": found}

    async def _balances(self, request: Mapping[str, Any], undo: object) -> dict[str, Any]:
        found = await asyncio.to_thread(self._store.balances, self._gate.clock())
        return {"balances": [asdict(one) for one in found]}
