"""What a gateway, and a service that governs its own endpoint, is made of: opened and checked before anything listens."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from douane.alerts import Courier
from douane.audit import record
from douane.audit.bodies import Scribe
from douane.audit.log import AuditLog
from douane.audit.read import ended_well
from douane.ca import Authority
from douane.chain import Chain
from douane.datakey import open_data_key
from douane.detect import Scanner, Wanted
from douane.errors import AuditUnavailableError, ConfigError, DouaneError, EnvironmentFailedError
from douane.gate import Gate, other_ids
from douane.histories.base import Shelf
from douane.histories.sqlite import SqliteHistories
from douane.hosts.duties import Duties, recover
from douane.hosts.stores import open_store
from douane.ledger.base import Store
from douane.loader import Loaded, load, tls_names
from douane.objects.base import Register
from douane.objects.store import SqliteObjects
from douane.people import Tokens
from douane.placeholders import DataKey
from douane.places import Places, chain_names, node_name, one_at_a_time, private_folder
from douane.pricerules import Rules
from douane.prices import Prices
from douane.reload import Reloader, Result

__all__ = ["Fittings", "House", "Office", "close_abandoned", "furnish", "open_house", "open_office", "overrides"]

log = logging.getLogger("douane.gateway")

_OPENING = "opening.lock"

if hasattr(os, "register_at_fork"):  # a server may fork the processes that serve once it has loaded the app
    os.register_at_fork(after_in_child=other_ids)


@dataclass(frozen=True, slots=True)
class Fittings:
    """What policies are bound to before the files behind it are open, and what outlasts a reload."""

    tokens: Tokens = field(default_factory=Tokens)
    data_key: DataKey = field(default_factory=DataKey)
    shelf: Shelf = field(default_factory=Shelf)
    register: Register = field(default_factory=Register)

    def load(self, policies: Path, files: Mapping[str, bytes] | None = None) -> Loaded:
        """The policies of a folder, or of the snapshot *files* of it. Raises ConfigError."""
        return load(policies, tokens=self.tokens, data_key=self.data_key, shelf=self.shelf, register=self.register,
                    files=files)


@dataclass(frozen=True, slots=True)
class Office:
    """What every door needs, opened and checked. *audit* None: nothing is recorded (benchmarks only)."""

    loaded: Loaded
    tokens: Tokens
    prices: Prices
    audit: AuditLog | None
    ledger: Store | None = None
    """None: nothing can be reserved (benchmarks without budgets only)."""
    data_key: DataKey = field(default_factory=DataKey)
    scribe: Scribe | None = None
    """Writes bodies into the audit log; None: it holds none, whatever its level."""
    shelf: Shelf = field(default_factory=Shelf)
    register: Register = field(default_factory=Register)
    """Where it is found who made which stored object."""
    courier: Courier | None = None
    """Sends what budgets have to tell."""
    histories: SqliteHistories | None = None
    """On the shelf; None: nothing can be kept of a history."""

    def load(self, policies: Path, files: Mapping[str, bytes] | None = None) -> Loaded:
        """The folder (or its snapshot *files*) read anew, for the same people, ledger and keys. Raises ConfigError."""
        return Fittings(self.tokens, self.data_key, self.shelf, self.register).load(policies, files)

    def check(self, loaded: Loaded) -> None:
        """Raises ConfigError where *loaded* cannot be adopted."""
        if loaded.ledger != self.loaded.ledger:
            raise ConfigError("ledger: another store is taken at a restart only")

    def adopt(self, gate: Gate, loaded: Loaded) -> None:
        """Swap: exchanges that open from now on have the new chain and prices. Raises ConfigError before anything is."""
        self.check(loaded)
        if self.courier is not None:
            self.courier.channels = loaded.alerts
        if self.scribe is not None:
            self.scribe.adopt(loaded.own_keys)
        gate.prices = self.prices.with_overrides(overrides(loaded))
        gate.adopt(loaded.chain)
        self.warm(loaded.chain)

    def warm(self, chain: Chain) -> None:
        """Start what takes long to start, before the first call needs it."""
        for entry in chain.entries:
            if hasattr(entry.policy, "warm"):
                entry.policy.warm()
        if self.scribe is not None and chain.audit.level == "redacted":
            self.scribe.warm()

    def duties(self, gate: Gate) -> Duties | None:
        """What is to be done beside the calls; None where nothing is kept (benchmarks only)."""
        if self.ledger is None or self.audit is None or self.courier is None:
            return None
        return Duties(gate, self.ledger, self.audit.folder, self.courier, self.note)

    async def note(self, said: dict[str, Any]) -> None:
        """An event into the log; where that cannot take it, into the process's own log."""
        if self.audit is None:
            return
        try:
            await self.audit.append(said)
        except AuditUnavailableError as error:
            log.error("an event could not be recorded: %s", error.reason)

    async def reload(self, gate: Gate, reloader: Reloader) -> Result:
        """Build the new chain whole, off the loop, then swap; where it is wrong the last good one stays. Recorded."""
        before = gate.chain.revision
        result = await reloader.reload()
        if result.ok:
            log.info("policies reloaded", extra={"revision": result.revision[:12]})
            await self.note(record.event("reload", gate.clock(), revision=result.revision, before=before))
        else:
            for line in result.lines:
                log.error("reload refused, the last good policies stay: %s", line)
            await self.note(record.event("reload_refused", gate.clock(), revision=before, errors=list(result.lines)))
        return result

    def close(self) -> None:
        """Let go of the files, once every outcome is written."""
        if self.audit is not None:
            self.audit.close()
        for store in (self.ledger, self.histories):
            if store is not None:
                store.close()

    def problems(self) -> list[str]:
        """Which of the files fails, and why; empty where none does. On the loop: what failed is tried again."""
        found = []
        if self.audit is not None and self.audit.failure:
            found.append(f"audit log: {self.audit.failure}")
        if self.ledger is not None and self.ledger.failure:
            found.append(f"ledger: {self.ledger.failure}")
            self.ledger.look_again()
        if self.histories is not None and self.histories.failure:
            found.append(f"histories: {self.histories.failure}")
            self.histories.sweep()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class House(Office):
    """The gateway's: with the CA by which its proxy terminates TLS."""

    authority: Authority


def open_house(places: Places) -> House:
    """Load, open and make what a gateway needs. Raises ConfigError, EnvironmentFailedError."""
    house = with_authority(open_office(places.policies, places.data), places.certs)
    try:
        close_abandoned(places.data, node_name(os.environ), house.ledger)
    except DouaneError:
        house.close()
        raise
    return house


def with_authority(office: Office, certs: Path, *, keeps: bool = True) -> House:
    """*keeps* False: the CA is another process's to renew. Closes the office where it fails. Raises ConfigError,
    EnvironmentFailedError."""
    try:
        private_folder(certs)
        authority = Authority.open(certs, tls_names(office.loaded), keeps=keeps)
    except DouaneError:
        office.close()
        raise
    return House(**{one.name: getattr(office, one.name) for one in fields(Office)}, authority=authority)


def open_office(policies: Path, data: Path, *, workers: int = 1) -> Office:
    """The policies of one folder over the files of another. *workers*: how many processes may share the data folder, each
    with a chain of records of its own. Nothing stays open where it fails. Raises ConfigError, EnvironmentFailedError."""
    fittings = Fittings()
    node = node_name(os.environ)
    return furnish(fittings, fittings.load(policies), data, [chain_names(node, one + 1)[0] for one in range(workers)])


def furnish(fittings: Fittings, loaded: Loaded, data: Path, chains: Sequence[str]) -> Office:
    """Open the files behind the *fittings* that *loaded* is bound to. *chains*: names for the log; the first that no process
    holds is taken, and what a dead process left open in it is closed. Nothing stays open where it fails. Of the processes that
    share a data folder one opens at a time: none finds a file half made, or books what another is about to. Raises
    ConfigError, EnvironmentFailedError."""
    data_key, shelf = fittings.data_key, fittings.shelf
    private_folder(data)
    data_key.give(open_data_key(data / "secret.key"))
    prices = Prices.open(data, price_lists(loaded), overrides(loaded))
    with one_at_a_time(data / _OPENING), ExitStack() as undo:
        audit = open_free(data / "audit", chains)
        undo.callback(audit.close)
        ledger = open_store(loaded.ledger, data, audit.node)
        undo.callback(ledger.close)
        histories = SqliteHistories.open(data, data_key)
        undo.callback(histories.close)
        recover(ledger, data / "audit", starting=True)
        closed = close_orphans(audit, time.time)
        if closed:
            log.warning("calls of a gateway that died were closed as unknown", extra={"calls": closed})
        shelf.histories = histories
        fittings.register.give(SqliteObjects(histories, data_key))
        undo.pop_all()
    scribe = Scribe(data_key, Scanner(Wanted()), loaded.own_keys)
    return Office(loaded, fittings.tokens, prices, audit, ledger, data_key, scribe, shelf, fittings.register,
                  Courier(ledger, loaded.alerts), histories)


def open_log(folder: Path, node: str, workers: int) -> AuditLog:
    """The log of *node*; of ``NODE.worker-2`` where another process holds that, and so on up to *workers*.

    A number and not the process's id: who starts after a crash takes the dead one's place, and closes what it left open."""
    return open_free(folder, [chain_names(node, number + 1)[0] for number in range(workers)])


def open_free(folder: Path, names: Sequence[str]) -> AuditLog:
    """The first log of *names* that no other process holds. Raises EnvironmentFailedError."""
    for name in names[:-1]:
        try:
            return AuditLog.open(folder, name)
        except EnvironmentFailedError as error:
            if not isinstance(error.__cause__, BlockingIOError):  # else it is in use
                raise
    return AuditLog.open(folder, names[-1])


def close_abandoned(data: Path, node: str, ledger: Store | None) -> int:
    """Close what processes that are no more left open in logs of *node* that nobody holds: of a gateway that had more workers,
    or of a worker that died when its successor had begun. Returns how many calls. Reads files and writes: in a thread where a
    loop runs. Raises EnvironmentFailedError."""
    folder, closed = data / "audit", 0
    for name in (node, *sorted(path.name for path in folder.glob(f"{node[:50]}.worker-*"))):
        if not (folder / name).is_dir() or ended_well(folder / name):
            continue
        with one_at_a_time(data / _OPENING), ExitStack() as undo:
            try:
                audit = AuditLog.open(folder, name)
            except EnvironmentFailedError as error:
                if isinstance(error.__cause__, BlockingIOError):  # somebody is at work in it
                    continue
                raise
            undo.callback(audit.close)
            if audit.orphans and ledger is not None:
                recover(ledger, folder)
            if orphans := close_orphans(audit, time.time):
                log.warning("calls of a gateway that died were closed as unknown", extra={"calls": orphans})
                closed += orphans
            audit.append_blocking(record.event("stop", time.time(), cut=0))
    return closed


def close_orphans(audit: AuditLog, clock: Callable[[], float]) -> int:
    """Write the outcome of every intent that an earlier process left open: ``ended: unknown``. Returns how many."""
    for orphan in audit.orphans:
        audit.append_blocking(record.unknown(orphan, clock()))
    return len(audit.orphans)


def price_lists(loaded: Loaded) -> dict[str, str]:
    """Provider → id of its price list; providers without one are left out."""
    return {name: provider.prices for name, provider in loaded.providers.items() if provider.prices}


def overrides(loaded: Loaded) -> Rules:
    """``prices:`` of the policy files."""
    return loaded.prices
