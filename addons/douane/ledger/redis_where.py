"""Where Redis is: one server, a primary that Sentinel knows, or a cluster.

Law 7: the URL holds a password: nothing here shows it, nor lets it stand in an error. TLS is verified.

Who is the primary, and which node has which slot, is asked through redis-py, which also serves what blocks.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
from redis import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.cluster import RedisCluster as AsyncCluster
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from douane.errors import ConfigError
from douane.ledger.redis_keys import SCRIPTS, Command
from douane.ledger.redis_line import Line, code_of
from douane.ledger.redis_link import CONNECT_SECONDS, UnreachableError
from douane.secrets import Secret

__all__ = ["PATIENT_SECONDS", "Place", "read_url", "slot_of"]

PATIENT_SECONDS = 5.0
"""What a request that blocks may take."""
_PORT, _SENTINEL_PORT = 6379, 26379
_FORMS = ("redis[s]://[user:password@]HOST[:PORT][/DB], unix://[user:password@]/PATH[?db=DB] or "
          "redis[s]+sentinel://[user:password@]HOST[:PORT],…/MASTER[/DB]")
_FILES = {"ca": "ssl_ca_certs", "cert": "ssl_certfile", "key": "ssl_keyfile"}
"""Query option of a ``rediss`` URL → redis-py's name of it."""

type Node = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """What a URL says."""

    nodes: tuple[Node, ...]
    """The server; or the Sentinels, where there is a *master*."""
    path: str = ""
    """Of a Unix socket."""
    master: str = ""
    db: int = 0
    user: str = ""
    password: Secret | None = None
    sentinel_password: Secret | None = None
    tls: bool = False
    files: tuple[tuple[str, str], ...] = ()
    """``ca``, ``cert``, ``key`` → path."""

    def __str__(self) -> str:
        nodes = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        return f"{self.master} of {nodes}" if self.master else self.path or nodes

    @property
    def login(self) -> Mapping[str, str]:
        if self.password is None:
            return {}
        return {"username": self.user or "default", "password": self.password.reveal()}

    def _options(self, seconds: float) -> dict[str, Any]:
        given: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds, **self.login}
        if self.tls:
            given |= {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True,
                      **{_FILES[name]: path for name, path in self.files}}
        return given

    def _guides(self, seconds: float) -> dict[str, Any]:
        """How the Sentinels are asked."""
        given = {name: value for name, value in self._options(seconds).items() if name not in ("username", "password")}
        return given | ({} if self.sentinel_password is None else {"password": self.sentinel_password.reveal()})

    def client(self, seconds: float, *, cluster: bool) -> "Redis | RedisCluster":
        """For requests that block; raises redis-py's errors. Close it."""
        options = self._options(seconds)
        if cluster:
            host, port = self.nodes[0]
            return RedisCluster(host=host, port=port, **options)
        options |= {"db": self.db, "retry": Retry(NoBackoff(), 0)}
        if self.master:
            guides: Any = Sentinel(self.nodes, sentinel_kwargs=self._guides(CONNECT_SECONDS), **options)  # type: ignore[no-untyped-call]
            try:
                host, port = guides.discover_master(self.master)
            finally:
                for one in guides.sentinels:
                    one.close()
            return Redis(host=host, port=port, **options)
        if self.path:
            return Redis(unix_socket_path=self.path, **options)
        return Redis(host=self.nodes[0][0], port=self.nodes[0][1], **options)

    async def primary(self) -> Node:
        """Where the server is now. Raises UnreachableError."""
        if not self.master:
            return self.nodes[0]
        guides: Any = AsyncSentinel(  # type: ignore[no-untyped-call]
            self.nodes, sentinel_kwargs={**self._guides(CONNECT_SECONDS / 2), "retry": Retry(NoBackoff(), 0)})
        try:
            host, port = await guides.discover_master(self.master)
        except RedisError:
            raise UnreachableError("no Sentinel knows a primary that lives") from None
        finally:
            await guides.aclose()
        return str(host), int(port)

    async def slots(self, known: Sequence[Node]) -> Mapping[int, Node]:
        """Slot of the cluster → its primary; any of *known* tells. Raises UnreachableError."""
        options = self._options(CONNECT_SECONDS / 2)
        cluster = AsyncCluster(startup_nodes=[ClusterNode(host, port) for host, port in (*known, *self.nodes)],
                               require_full_coverage=False, **options)
        try:
            await cluster.initialize()
            return {slot: (nodes[0].host, int(nodes[0].port)) for slot, nodes in cluster.nodes_manager.slots_cache.items()}
        except RedisError:
            raise UnreachableError("no node of the cluster tells where the slots are") from None
        finally:
            await cluster.aclose()

    async def dial(self, node: Node | None, probe: Command) -> Line:
        """A line to *node* (None: to the primary). *probe* is a write that must succeed. Raises OSError, UnreachableError."""
        loop = asyncio.get_running_loop()
        line = Line(loop)
        try:
            if self.path:
                await loop.create_unix_connection(lambda: line, self.path)
            else:
                host, port = node or await self.primary()
                await loop.create_connection(lambda: line, host, port, ssl=self._context() if self.tls else None)
            must: list[Command] = []
            if self.password is not None:
                must.append(("AUTH", *self.login.values()))
            if self.db:
                must.append(("SELECT", self.db))
            must.append(probe)
            answers = await line.greet([*must, *(("SCRIPT", "LOAD", one.source) for one in SCRIPTS)])
        except BaseException:
            line.abort()
            raise
        for answer in answers[:len(must)]:  # who may not load a script may run it all the same
            if isinstance(answer, hiredis.ReplyError) and code_of(answer) not in ("MOVED", "ASK"):
                line.abort()
                raise UnreachableError(str(answer))
        return line

    def _context(self) -> ssl.SSLContext:
        files = dict(self.files)
        context = ssl.create_default_context(cafile=files.get("ca"))
        if "cert" in files:
            context.load_cert_chain(files["cert"], files.get("key"))
        return context


@lru_cache(maxsize=10_000)
def slot_of(key: str) -> int:
    head, brace, _ = key.partition("}")
    return _slot(head + brace if brace else key)


@lru_cache(maxsize=10_000)
def _slot(tag: str) -> int:
    return key_slot(tag.encode())


def read_url(url: Secret) -> Place:
    """Raises ConfigError, which does not quote it."""
    try:
        return _read(url.reveal())
    except ValueError:
        raise ConfigError(f"ledger: this is no URL of Redis'; allowed: {_FORMS}") from None


def _read(url: str) -> Place:
    """Raises ValueError."""
    given = urlsplit(url)
    scheme, _, kind = given.scheme.partition("+")
    if (scheme, kind) not in (("redis", ""), ("rediss", ""), ("unix", ""), ("redis", "sentinel"), ("rediss", "sentinel")):
        raise ValueError
    options = {name: values[-1] for name, values in parse_qs(given.query, strict_parsing=bool(given.query)).items()}
    login, _, hosts = given.netloc.rpartition("@")
    user, _, password = login.partition(":")
    parts = [] if scheme == "unix" else [unquote(part) for part in given.path.split("/") if part]
    master = parts.pop(0) if kind else ""
    db = options.pop("db", parts.pop(0) if parts else "0")
    guides = options.pop("sentinel_password", "") if kind else ""
    files = tuple((name, options.pop(name)) for name in _FILES if name in options and scheme == "rediss")
    if options or parts or given.fragment or bool(kind) != bool(master) or (scheme == "unix") != (not hosts):
        raise ValueError
    port = _SENTINEL_PORT if kind else _PORT
    return Place(tuple(_node(one, port) for one in hosts.split(",")) if hosts else (),
                 unquote(given.path) if scheme == "unix" else "", master, int(db), unquote(user),
                 Secret(unquote(password)) if password else None, Secret(guides) if guides else None, scheme == "rediss", files)


def _node(text: str, port: int) -> Node:
    given = urlsplit(f"//{text}")
    if not given.hostname or given.path:
        raise ValueError
    return given.hostname, given.port or port
