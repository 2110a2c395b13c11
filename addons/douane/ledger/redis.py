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
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

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
from douane.ledger.redis_cluster import Cluster, single
from douane.ledger.redis_desk import TOO_LATE, Desk, wish
from douane.ledger.redis_keys import Command
from douane.ledger.redis_line import Wish
from douane.ledger.redis_where import read_url
from douane.secrets import Secret

__all__ = ["RedisLedger", "read_balances"]

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
        self._desk = Desk(Cluster(place) if self._blocking.cluster else single(place, self._beat))
        self._life = f"{keys.quoted(owner)} {os.urandom(6).hex()}"
        """Of this process: its slots are not those of one of the same name before."""
        self._tokens = itertools.count()
        self._holds: dict[str, tuple[str, ...]] = {}
        """Call → the accounts it may hold something in, by suffix. Nothing rests on it: the script asks for what is missing."""
        self._never: dict[str, None] = {}
        """Calls that asked and whose request was never sent."""
        self._orgs: set[str] = set()
        """Known to stand in the index."""
        self._slots: dict[tuple[str, Slots], int] = {}

    def __repr__(self) -> str:
        return f"RedisLedger({self._blocking.place}, {self.owner!r})"

    @property
    def failure(self) -> str:
        return self._desk.failure

    def look_again(self) -> None:
        if self.failure and not self._desk.closed:
            self._desk.put(wish(None, self._beat, self._beat))

    def close(self) -> None:
        self._desk.close(self._blocking.run)

    # -- what is held ------------------------------------------------------------------------------------------------

    async def reserve(self, call: str, org: str, at: float, demands: Sequence[Demand]) -> Held | Refused:
        if not demands:
            return Held()
        command = keys.reserve(call, org, self.owner, int(time.time()), at, demands)
        asked = wish(keys.RESERVE, command, command)
        try:
            answer = await self._ask_of(org, asked)
        finally:
            if asked.sent:
                self._may_hold(call, demands)
            elif call not in self._holds:
                _keep(self._never, call, None)
        return keys.held_of(answer, at, demands)

    def capture(self, call: str, org: str, spent: Spent) -> Awaitable[bool]:
        self._desk.check()
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
                self._desk.route.put(wish)
                return
            self._desk.paid(wish)
            if not wish.future.done():
                wish.future.set_result(answer == 1)

        first = command(suffixes)
        self._desk.owe(Wish(first, future, keys.RESOLVE, first, owed=True, then=booked), keys.RESOLVE)
        return future

    # -- rates and slots ---------------------------------------------------------------------------------------------

    async def take(self, call: str, org: str, at: float, takes: Sequence[Take]) -> Limited | None:
        if not takes:
            return None
        slots = [one for one in takes if isinstance(one.rule, Slots)]
        asked = wish(keys.TAKE, keys.take(call, org, self._life, at, takes), None)
        try:
            answer = await (self._ask_of(org, asked) if slots else self._desk.ask(asked))
        except (LedgerUnavailableError, asyncio.CancelledError):
            if asked.sent and slots and not self._desk.closed:  # it may be done yet, and nobody would free them
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
            self._desk.paid(wish)
            if not wish.future.done():
                wish.future.set_result(None)

        self._desk.owe(Wish(command, future, keys.GIVE_BACK, repeat, owed=True, then=done), keys.GIVE_BACK)
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
        found = await self._desk.now("HGETALL", keys.STOPS)
        return frozenset(map(keys.stop_of, found[::2], found[1::2]))

    async def stop(self, one: Stop) -> None:
        await self._desk.now("HSET", keys.STOPS, keys.stop_field(one.scope, one.name), f"{one.at!r} {one.running:d}")

    async def resume(self, scope: str, name: str) -> bool:
        return bool(await self._desk.now("HDEL", keys.STOPS, keys.stop_field(scope, name)))

    async def due(self, at: float, seconds: float) -> Sequence[Alert]:
        orgs = [keys.name_of(one.decode()) for one in await self._desk.now("SMEMBERS", keys.ORGS)]
        wishes = [wish(keys.DUE, keys.due(org, at, seconds), None) for org in orgs]
        found = await asyncio.gather(*map(self._desk.ask, wishes))
        return sorted((keys.alert_of(org, one) for org, members in zip(orgs, found, strict=True) for one in members),
                      key=lambda one: one.at)

    async def sent(self, one: Alert) -> None:
        await self._desk.now("ZREM", keys.org_key(one.account.org, "outbox"), keys.sent(one))

    async def beat(self) -> None:
        of: dict[str, list[Slots]] = {}
        for org, rule in self._slots:
            of.setdefault(org, []).append(rule)
        plain: list[Command] = [self._beat]
        if self._orgs:
            plain.append(("SADD", keys.ORGS, *map(keys.quoted, self._orgs)))  # should somebody have emptied the server
        scripts = [keys.beat(org, self._life, rules) for org, rules in of.items()]
        await asyncio.gather(*(self._desk.ask(wish(None, one, one)) for one in plain),
                             *(self._desk.ask(wish(keys.BEAT, one, one)) for one in scripts))

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

    async def _ask_of(self, org: str, asked: Wish) -> Any:
        """*org* stands in the index before anything of it does, so that whoever recovers finds it: once, a round trip more."""
        if org in self._orgs:
            return await self._desk.ask(asked)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._desk.now("SADD", keys.ORGS, keys.quoted(org))
                self._orgs.add(org)
                return await self._desk.ask(asked)
        except TimeoutError:
            raise LedgerUnavailableError(TOO_LATE) from None

    def _may_hold(self, call: str, demands: Sequence[Demand]) -> None:
        self._never.pop(call, None)
        suffixes = tuple(keys.suffix_of(one.account) for one in demands)
        before = self._holds.get(call, ())
        _keep(self._holds, call, before + tuple(one for one in suffixes if one not in before) if before else suffixes)


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
