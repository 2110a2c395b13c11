"""What a start, or a thread, asks of Redis, and waits for: who died, what they held, what stands in the accounts.

Law: each request opens a connection of its own and closes it. Whatever fails is an EnvironmentFailedError of one line, in which
no password stands.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis.exceptions import NoPermissionError, RedisError

from douane.errors import EnvironmentFailedError
from douane.ledger.base import Account, Balance, Spent
from douane.ledger.redis_keys import (
    LEASE_MS,
    ORGS,
    RESOLVE,
    Command,
    Script,
    account_of,
    lease,
    name_of,
    org_key,
    quoted,
    resolve,
    suffix_of,
)
from douane.ledger.redis_link import CONNECT_SECONDS
from douane.ledger.redis_where import PATIENT_SECONDS, Place

__all__ = ["Blocking"]

_MANY = 500
"""Requests sent at once."""


class Blocking:
    """Every method raises EnvironmentFailedError."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.cluster = False

    def inspect(self) -> None:
        """Whether this is a server that a ledger can rest on."""
        with self._open(cluster=False) as redis:
            told = [redis.info()]
            self.cluster = bool(told[0].get("cluster_enabled"))
        if self.cluster:
            with self._open() as redis:
                told = [redis.info(target_nodes=node) for node in redis.get_primaries()]
        for one in told:
            version = str(one.get("redis_version", "0"))
            if int(version.split(".")[0]) < 7:
                raise EnvironmentFailedError(f"{self.place}: is Redis {version}; the ledger needs 7 or newer, or Valkey")
            if one.get("role") == "slave" and not self.cluster:
                raise EnvironmentFailedError(f"{self.place}: is a replica; name the primary, or its Sentinels")
            policy = one.get("maxmemory_policy", "unknown")
            if policy != "noeviction":
                raise EnvironmentFailedError(f"{self.place}: evicts keys when its memory is full (maxmemory-policy {policy}), "
                                             "and budgets would vanish; set it to noeviction")

    def begin(self, owner: str) -> None:
        """*owner* lives, and holds no slot that one of this name held before."""
        with self._open() as redis:
            redis.set(lease(owner), "", px=LEASE_MS)
            for org in self._orgs(redis):
                key = org_key(org, "lives")
                dead = [one for one in redis.hkeys(key) if one.split(b" ")[0].decode() == quoted(owner)]
                if dead:
                    redis.hdel(key, *dead)

    def owners(self) -> Sequence[str]:
        with self._open() as redis:
            return sorted({owner for org in self._orgs(redis) for _, _, owner in _open_calls(redis, org)})

    def is_alive(self, owner: str) -> bool:
        with self._open() as redis:
            return bool(redis.exists(lease(owner)))

    def held(self, owner: str) -> Mapping[str, int]:
        with self._open() as redis:
            calls = [one for org in self._orgs(redis) for one in _open_calls(redis, org)]
            return {call: since for call, since, whose in calls if whose == owner}

    def recover(self, spent: Mapping[str, Spent], now: int, token: str) -> int:
        found = 0
        with self._open() as redis:
            for org in self._orgs(redis):
                mine = [call for call, _, _ in _open_calls(redis, org) if call in spent]
                holds = _many(redis, [("GET", org_key(org, f"hold:{call}")) for call in mine])
                done = _many(redis, [
                    ("EVAL", RESOLVE.source, *resolve(call, org, now, spent[call], f"{token}.{call}", _suffixes(hold)))
                    for call, hold in zip(mine, holds, strict=True)])
                found += sum(answer == 1 for answer in done)
        return found

    def run(self, scripts: Sequence[tuple[Script, Command]]) -> Sequence[Any]:
        """Their answers, within a second or so."""
        with self._open(seconds=CONNECT_SECONDS) as redis:
            return _many(redis, [("EVAL", script.source, *command) for script, command in scripts])

    def balances(self, at: float) -> Sequence[Balance]:
        with self._open() as redis:
            found = [one for org in self._orgs(redis) for one in _balances(redis, org, at)]
            return sorted(found, key=lambda one: _order(one.account))

    # -- the connection ----------------------------------------------------------------------------------------------

    @contextmanager
    def _open(self, *, cluster: bool | None = None, seconds: float = PATIENT_SECONDS) -> Iterator[Any]:
        try:
            redis = self.place.client(seconds, cluster=self.cluster if cluster is None else cluster)
            try:
                yield redis
            finally:
                redis.close()
        except NoPermissionError as error:
            raise EnvironmentFailedError(f"{self.place}: forbids what a ledger does: {error}") from None
        except (RedisError, OSError, ValueError) as error:
            raise EnvironmentFailedError(f"{self.place}: Redis cannot be reached, or fails: {error}") from None

    def _orgs(self, redis: Any) -> list[str]:
        return sorted(name_of(one.decode()) for one in redis.smembers(ORGS))


def _many(redis: Any, commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
    """Their answers, in few round trips."""
    found: list[Any] = []
    for begin in range(0, len(commands), _MANY):
        pipe = redis.pipeline(transaction=False)
        for one in commands[begin:begin + _MANY]:
            pipe.execute_command(*one)
        found += pipe.execute()
    return found


def _open_calls(redis: Any, org: str) -> Iterator[tuple[str, int, str]]:
    """(call, since, owner)."""
    for call, told in redis.hscan_iter(org_key(org, "open"), count=_MANY):
        since, _, owner = told.decode().partition(" ")
        yield call.decode(), int(since), owner


def _suffixes(hold: bytes | None) -> list[str]:
    return [] if hold is None or hold.startswith(b"=") else hold.decode().split(" ")[::2]


def _balances(redis: Any, org: str, at: float) -> Iterator[Balance]:
    now = {one.decode() for one in redis.zrangebyscore(org_key(org, "accounts"), f"({at}", "+inf")}
    holds = _many(redis, [("GET", org_key(org, f"hold:{call}")) for call, _, _ in _open_calls(redis, org)])
    suffixes = sorted(now.union(*map(_suffixes, holds)))
    found = _many(redis, [("HMGET", org_key(org, f"account:{one}"), "c", "r", "l", "e") for one in suffixes])
    for suffix, (captured, reserved, limit, end) in zip(suffixes, found, strict=True):
        if captured is None:
            continue
        account = account_of(org, suffix, end.decode())
        if int(reserved) > 0 or (account.start <= at and (account.end is None or account.end > at)):
            yield Balance(account, int(captured), int(reserved), int(limit))


def _order(account: Account) -> tuple[Any, ...]:
    """As the SQLite ledger lists them."""
    of = account
    return (of.org, of.scope, of.name, of.book, of.unit, of.end is None, (of.end or 0) - of.start, of.start, suffix_of(of))
