"""The ledger that several machines share: Redis 7 or newer, or Valkey.

Law: a reservation, or its refusal, is one script that runs on the server, for all accounts of the call: whole, in one round
trip, and no other call's comes between. No process counts by itself while the server cannot be reached: it refuses. A request
whose answer was lost may have been done, and may still be: what resolves it leaves a tombstone for an hour, so that a server
which was frozen, and runs what two connections brought in any order, opens nothing anew.

What is durable is what the server says it is: with ``appendonly yes`` and ``appendfsync everysec`` the last second of a server
that loses its power is lost, with ``always`` nothing is and a call waits for its disk. Replicas follow behind: a failover may
lose the last writes (``WAIT`` would only narrow that, at a round trip a call, and is not sent; ``min-replicas-to-write`` bounds
it). A lost reservation was not charged; a lost booking leaves its reservation charged, until the audit log says what to book
(``held``, ``recover``). Budgets must not vanish: a server that evicts keys is refused at the start.

Scripts are sent by EVALSHA and, where the server does not know them (any more), by EVAL: not as FUNCTIONs, which all versions
of Douane would share by name.

Rates go by the clocks of the gateways, which are a moment of the caller's (*at*); leases by the server's.
"""

import asyncio
import itertools
import os
import time
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from douane.errors import EnvironmentFailedError
from douane.ledger import redis_keys as keys
from douane.ledger.base import (
    ANSWER_SECONDS,
    NOTHING_SPENT,
    Alert,
    Balance,
    Demand,
    Held,
    LedgerUnavailableError,
    Limited,
    Refused,
    Slots,
    Spent,
    Stop,
    Take,
)
from douane.ledger.redis_blocking import Blocking
from douane.ledger.redis_cluster import Cluster, Route, single
from douane.ledger.redis_keys import Command, Script
from douane.ledger.redis_line import Wish
from douane.ledger.redis_link import fail
from douane.ledger.redis_where import read_url
from douane.secrets import Secret

__all__ = ["RedisLedger", "read_balances"]

_OWED = 100_000
_CALLS = 100_000


class RedisLedger:
    """A :class:`~douane.ledger.base.Store`. *url*: ``redis[s]://``, ``unix://``, ``redis[s]+sentinel://``; a node of a cluster
    stands for it. *owner*: unique among all that share the server. Raises ConfigError for a wrong URL, EnvironmentFailedError
    where the server cannot be reached, is older than 7 or evicts keys."""

    def __init__(self, url: Secret, owner: str) -> None:
        self.owner = owner
        place = read_url(url)
        self._blocking = Blocking(place)
        self._blocking.inspect()
        self._blocking.begin(owner)
        self._beat: Command = ("SET", keys.lease(owner), "", "PX", keys.LEASE_MS)
        self._route: Route = Cluster(place) if self._blocking.cluster else single(place, self._beat)
        self._life = f"{keys.quoted(owner)} {os.urandom(6).hex()}"
        """Of this process: its slots are not those of one of the same name before."""
        self._tokens = itertools.count()
        self._waiting: deque[tuple[float, Wish]] = deque()
        """By when somebody has waited long enough, in that order."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owed: dict[Wish, Script] = {}
        self._holds: dict[str, tuple[str, ...]] = {}
        """Call → what it may hold, by suffix; None of it is relied on."""
        self._never: dict[str, None] = {}
        """Calls that asked and whose request was never sent."""
        self._orgs: set[str] = set()
        """Known to stand in the index."""
        self._slots: dict[tuple[str, Slots], int] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"RedisLedger({self._blocking.place}, {self.owner!r})"

    @property
    def failure(self) -> str:
        return self._route.failure

    def look_again(self) -> None:
        if self.failure and not self._closed:
            self._put(self._wish(None, self._beat, self._beat))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        owed, self._owed = self._owed, {}
        if owed:
            self._pay(owed)
        for _, wish in self._waiting:
            _answer(wish, None)
        self._waiting.clear()
        self._route.close()
        if self._timer is not None:
            self._timer.cancel()

    # -- what is held ------------------------------------------------------------------------------------------------

    async def reserve(self, call: str, org: str, at: float, demands: Sequence[Demand]) -> Held | Refused:
        if not demands:
            return Held()
        await self._known(org)
        command = keys.reserve(call, org, self.owner, int(time.time()), at, demands)
        wish = self._wish(keys.RESERVE, command, command)
        try:
            answer = await self._ask(wish)
        finally:
            if wish.sent:
                self._may_hold(call, demands)
            elif call not in self._holds:
                _keep(self._never, call, None)
        return keys.held_of(answer, at, demands)

    def capture(self, call: str, org: str, spent: Spent) -> Awaitable[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        suffixes = self._holds.pop(call, ())
        if call in self._never:
            del self._never[call]
            if spent == NOTHING_SPENT:  # it never left: a server that is away is not owed a void for each refusal
                future.set_result(False)
                return future
        now, token = int(time.time()), f"{self._life}.{next(self._tokens)}"

        def command(suffixes: Sequence[str]) -> Command:
            return keys.resolve(call, org, now, spent, token, suffixes)

        def booked(wish: Wish, answer: Any) -> None:
            if isinstance(answer, list):  # it holds more than we know of
                wish.command = wish.repeat = command([one.decode() for one in answer])
                self._route.put(wish)
                return
            self._owed.pop(wish, None)
            if not wish.future.done():
                wish.future.set_result(answer == 1)

        first = command(suffixes)
        self._owe(Wish(first, future, keys.RESOLVE, first, owed=True, then=booked))
        return future

    # -- rates and slots ---------------------------------------------------------------------------------------------

    async def take(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Limited | None:
        if not takes:
            return None
        slots = [one for one in takes if isinstance(one.rule, Slots)]
        if slots:
            await self._known(org)
        wish = self._wish(keys.TAKE, keys.take(call, org, self._life, at, takes), None)
        try:
            answer = await self._ask(wish)
        except (LedgerUnavailableError, asyncio.CancelledError):
            if wish.sent and slots and not self._closed:  # it may be done yet, and nobody would free them
                self._return(keys.give_back(call, org, at, slots, given_up=True), None)
            raise
        limited = keys.limited_of(answer, at, takes)
        if limited is None:
            for one in slots:
                self._count(org, one, 1)
        return limited

    def give_back(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Awaitable[None]:
        slots = [one for one in takes if isinstance(one.rule, Slots)]
        for one in slots:
            self._count(org, one, -1)
        # a rate is given back once at most: to give back twice what was taken once would be to give away
        again = keys.give_back(call, org, at, slots) if slots else None
        return self._return(keys.give_back(call, org, at, takes), again)

    def _return(self, command: Command, repeat: Command | None) -> Awaitable[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(wish: Wish, _: Any) -> None:
            self._owed.pop(wish, None)
            if not wish.future.done():
                wish.future.set_result(None)

        self._owe(Wish(command, future, keys.GIVE_BACK, repeat, owed=True, then=done))
        return future

    def _count(self, org: str, one: Take, by: int) -> None:
        if isinstance(one.rule, Slots):
            held = self._slots.get((org, one.rule), 0) + by
            if held > 0:
                self._slots[org, one.rule] = held
            else:
                self._slots.pop((org, one.rule), None)

    # -- stops, alerts and leases ------------------------------------------------------------------------------------

    async def stops(self) -> frozenset[Stop]:
        found = await self._now("HGETALL", keys.STOPS)
        return frozenset(map(keys.stop_of, found[::2], found[1::2]))

    async def stop(self, one: Stop) -> None:
        await self._now("HSET", keys.STOPS, f"{keys.quoted(one.scope)}:{keys.quoted(one.name)}", f"{one.at!r} {one.running:d}")

    async def resume(self, scope: str, name: str) -> bool:
        return bool(await self._now("HDEL", keys.STOPS, f"{keys.quoted(scope)}:{keys.quoted(name)}"))

    async def due(self, at: float, seconds: float) -> Sequence[Alert]:
        orgs = [keys.name_of(one.decode()) for one in await self._now("SMEMBERS", keys.ORGS)]
        wishes = [self._wish(keys.DUE, keys.due(org, at, seconds), None) for org in orgs]
        found = await asyncio.gather(*map(self._ask, wishes))
        return sorted((keys.alert_of(org, one) for org, members in zip(orgs, found, strict=True) for one in members),
                      key=lambda one: one.at)

    async def sent(self, one: Alert) -> None:
        await self._now("ZREM", keys.org_key(one.account.org, "outbox"), keys.sent(one))

    async def beat(self) -> None:
        of: dict[str, list[Slots]] = {}
        for org, rule in self._slots:
            of.setdefault(org, []).append(rule)
        plain: list[Command] = [self._beat]
        if self._orgs:
            plain.append(("SADD", keys.ORGS, *map(keys.quoted, self._orgs)))  # should somebody have emptied the server
        scripts = [keys.beat(org, self._life, rules) for org, rules in of.items()]
        await asyncio.gather(*(self._ask(self._wish(None, one, one)) for one in plain),
                             *(self._ask(self._wish(keys.BEAT, one, one)) for one in scripts))

    # -- whose process died ------------------------------------------------------------------------------------------

    def owners(self) -> Sequence[str]:
        return self._blocking.owners()

    def is_alive(self, owner: str) -> bool | None:
        return owner == self.owner or self._blocking.is_alive(owner)

    def held(self, owner: str) -> Mapping[str, int]:
        return self._blocking.held(owner)

    def recover(self, owner: str, spent: Mapping[str, Spent]) -> int:
        return self._blocking.recover(spent, int(time.time()), f"{self._life}.{next(self._tokens)}")

    def balances(self, at: float) -> Sequence[Balance]:
        return self._blocking.balances(at)

    # -- asking ------------------------------------------------------------------------------------------------------

    def _wish(self, script: Script | None, command: Command, repeat: Command | None) -> Wish:
        return Wish(command, asyncio.get_running_loop().create_future(), script, repeat)

    async def _now(self, *command: str) -> Any:
        return await self._ask(self._wish(None, command, command))

    async def _ask(self, wish: Wish) -> Any:
        self._put(wish)
        return await wish.future

    def _owe(self, wish: Wish) -> None:
        if self._closed:
            raise LedgerUnavailableError("the ledger is closed")
        if len(self._owed) >= _OWED:
            fail(wish, "is owed too much")  # the audit log tells what to book
            return
        if wish.script is not None:
            self._owed[wish] = wish.script
        self._put(wish)

    def _put(self, wish: Wish) -> None:
        if self._closed:
            raise LedgerUnavailableError("the ledger is closed")
        loop = wish.future.get_loop()
        until = loop.time() + ANSWER_SECONDS
        self._waiting.append((until, wish))
        if self._loop is not loop:  # one that has ended leaves nobody who waits
            self._loop, self._timer = loop, None
            self._waiting = deque(one for one in self._waiting if one[1].future.get_loop() is loop)
        if self._timer is None:
            self._timer = loop.call_at(until, self._too_late)
        self._route.put(wish)

    def _too_late(self) -> None:
        """Refuse those who have waited long enough, and look again when the next have."""
        loop, waiting = asyncio.get_running_loop(), self._waiting
        self._timer = None
        while waiting:
            until, wish = waiting[0]
            if not wish.future.done():
                if until > loop.time():
                    self._timer = loop.call_at(until, self._too_late)
                    return
                fail(wish, f"did not answer within {ANSWER_SECONDS:g} s")
            waiting.popleft()

    async def _known(self, org: str) -> None:
        """*org* stands in the index, before anything of it does: whoever recovers finds it."""
        if org not in self._orgs:
            await self._now("SADD", keys.ORGS, keys.quoted(org))
            self._orgs.add(org)

    def _may_hold(self, call: str, demands: Sequence[Demand]) -> None:
        self._never.pop(call, None)
        suffixes = tuple(keys.suffix_of(one.account) for one in demands)
        before = self._holds.get(call, ())
        _keep(self._holds, call, before + tuple(one for one in suffixes if one not in before) if before else suffixes)

    def _pay(self, owed: Mapping[Wish, Script]) -> None:
        """What is owed, once more and on a connection of its own; else it is booked at the next start."""
        asked = {wish: command for wish in owed if (command := wish.repeat if wish.sent else wish.command) is not None}
        try:
            answers: Sequence[Any] = self._blocking.run([(owed[wish], command) for wish, command in asked.items()])
        except EnvironmentFailedError:
            answers = ()
        for wish, answer in zip(asked, answers, strict=False):
            if not isinstance(answer, list):
                _answer(wish, answer == 1)
        for wish in owed:
            _answer(wish, None)


def read_balances(url: Secret, at: float) -> Sequence[Balance]:
    """Without a ledger of one's own. Raises ConfigError, EnvironmentFailedError."""
    blocking = Blocking(read_url(url))
    blocking.inspect()
    return blocking.balances(at)


def _keep[T](found: dict[str, T], call: str, value: T) -> None:
    """The oldest leave."""
    found[call] = value
    while len(found) > _CALLS:
        del found[next(iter(found))]


def _answer(wish: Wish, found: bool | None) -> None:
    """When the ledger is closed. None: nobody knows. A loop that has ended is told nothing."""
    if wish.future.done() or wish.future.get_loop().is_closed():
        return
    if found is None:
        fail(wish, "is closed")
    else:
        wish.future.set_result(found)
