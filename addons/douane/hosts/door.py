"""Which requests on the proxy port are governed, and what becomes of the rest.

Law 3: CONNECT host, SNI (absent is no mismatch) and Host agree, or the call is refused with ``host_mismatch``.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Literal

from douane.asgi import DISCONNECT, App, Departure, Message, Receive, Scope, Send, plain_answer
from douane.call import Target
from douane.chain import Chain
from douane.edge import Govern, Refuse, Tunnel, host_key, is_loopback, split_authority
from douane.errors import RefusedError, UpstreamError
from douane.governor import AnswerCutError
from douane.hosts.connect import ConnectPoint, proxy_caller
from douane.hosts.layers import Doorkeeper
from douane.hosts.reach import AddressRefusedError, resolve
from douane.intake import Arrival, target_of
from douane.relay import Forward

__all__ = ["OnlyForwarded", "PlainProxy", "proxy_door"]

type Scheme = Literal["http", "https"]

_IN_PLAIN = "an https:// URL in plain text is taken from this machine only: use CONNECT"


def proxy_door(chain: Chain, scope: Scope) -> Arrival | None:
    """The proxy's :data:`~douane.governor.Door`: inside a tunnel the CONNECT host decides, outside it the URL's."""
    point: ConnectPoint = scope["state"]["door"]
    path = scope["raw_path"].decode("ascii")
    if point.encrypted:
        found = chain.providers.at(point.host, path)
        if found is None:
            return None  # no longer governed since a reload: PlainProxy refuses it
        provider, own = found
        return Arrival(provider, point.host, own or path, point.caller, target_of(provider, point.host, chain.ca),
                       _mismatch(point.host, point.sni, _host(scope), 443) or _rootless(own))
    scheme, host, port = scope["state"]["url"]
    key = host_key(host, port, 443 if scheme == "https" else 80)
    found = chain.providers.at(key, path)
    if found is None:
        return None
    provider, own = found
    refused = _mismatch(key, "", _host(scope), 443 if scheme == "https" else 80) or _rootless(own)
    caller = point.caller
    if scheme == "https" and not is_loopback(caller.address):
        refused = RefusedError("host_not_allowed", _IN_PLAIN)
    with contextlib.suppress(ValueError):  # PlainProxy has answered 407 where it cannot be read
        caller = proxy_caller(_proxy_authorization(scope), caller.address)
    return Arrival(provider, key, own or path, caller, target_of(provider, key, chain.ca), refused)


def _rootless(own: str | None) -> RefusedError | None:
    if own is not None:
        return None
    return RefusedError("operation_not_allowed", "the path is below none of the roots that providers have on this host")


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            return str(value.decode("latin-1"))
    return ""


def _proxy_authorization(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"proxy-authorization":
            return bytes(value)
    return None


def _mismatch(expected: str, sni: str, host_header: str, default_port: int) -> RefusedError | None:
    name = expected.partition(":")[0]
    if sni and sni != name:
        return RefusedError("host_mismatch", "the TLS server name is not the host that was asked for")
    if host_header == expected:
        return None
    try:
        host, port = split_authority(host_header, default_port)
    except ValueError:
        return RefusedError("host_mismatch", "the Host header is no host name")
    if host_key(host, port, default_port) != expected:
        return RefusedError("host_mismatch", "the Host header is not the host that was asked for")
    return None


class PlainProxy:
    """The app on the proxy port. Governed requests go to *governor*; others in absolute form are forwarded unchanged by
    *relay*, under the same rules as a tunnel."""

    def __init__(self, governor: App, relay: App, keeper: Callable[[], Doorkeeper]) -> None:
        self._governor = governor
        self._relay = relay
        self._keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        point: ConnectPoint = scope["state"]["door"]
        if point.encrypted:
            await self._governor(scope, receive, send)
            return
        url = scope["state"].get("url")
        keeper = self._keeper()
        try:
            caller = proxy_caller(_proxy_authorization(scope), point.caller.address)
        except ValueError as error:
            await plain_answer(send, 407, f"Douane: {error}.\n")
            return
        stranger = keeper.may_pass(caller)
        if stranger is not None:
            await plain_answer(send, 407, f"Douane: {stranger.reason}.\n")
            return
        if scope["method"] == "CONNECT":  # a tunnel is asked for on a connection of its own
            await plain_answer(send, 400, "Douane: CONNECT must be the first request of its connection.\n")
            return
        scheme, host, port = url
        decision = keeper.decide(host, port, scheme)
        if isinstance(decision, Govern):
            await self._governor(scope, receive, send)
        elif isinstance(decision, Refuse):
            keeper.refused(caller, f"{host}:{port}", decision)
            await plain_answer(send, 403, f"Douane: {decision.reason}.\n")
        elif scheme == "https" and not is_loopback(caller.address):
            await plain_answer(send, 403, f"Douane: {_IN_PLAIN}.\n")
        else:
            await self._forward(scope, receive, send, decision, scheme, keeper)

    async def _forward(self, scope: Scope, receive: Receive, send: Send, to: Tunnel, scheme: Scheme,
                       keeper: Doorkeeper) -> None:
        local = is_loopback(scope["state"]["door"].caller.address)
        try:
            address = await resolve(to.host, to.port, local_client=local, listeners=keeper.listeners())
        except AddressRefusedError as error:
            caller = scope["state"]["door"].caller
            keeper.refused(caller, f"{to.host}:{to.port}", Refuse("host_not_allowed", str(error)))
            await plain_answer(send, 403, f"Douane: {error}.\n")
            return
        except OSError as error:
            await plain_answer(send, 502, f"Douane: {error}.\n")
            return
        keeper.tunnelled()
        headers = [h for h in scope["headers"] if h[0] not in (b"proxy-authorization", b"proxy-connection")]
        target = Target(scheme, to.host, to.port, address=address)
        passed = {**scope, "headers": headers, "state": {"forward": Forward(target)}}
        await _until_the_client_leaves(scope, _relayed(self._relay, passed, receive, send))


async def _relayed(relay: App, scope: Scope, receive: Receive, send: Send) -> None:
    started = False

    async def watched(message: Message) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        await relay(scope, receive, watched)
    except UpstreamError as error:
        if started:
            raise AnswerCutError from error
        await plain_answer(send, 504 if error.code == "upstream_timeout" else 502, f"Douane: {error.reason}.\n")


async def _until_the_client_leaves(scope: Scope, work: Coroutine[None, None, None]) -> None:
    """Await *work*, cancelled when the connection is lost: else a stream that nobody reads would be fetched to its end."""
    task = asyncio.ensure_future(work)
    departure: Departure = scope["extensions"][DISCONNECT]

    def left() -> None:
        task.cancel()

    departure.tell = left
    if departure.gone:
        left()
    try:
        await asyncio.wait({task})
    finally:
        departure.tell = None
        task.cancel()
    if not task.cancelled():
        task.result()


class OnlyForwarded:
    """The governor's inner app: the relay for calls that were admitted; nothing else may reach it."""

    def __init__(self, relay: App) -> None:
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "forward" in scope["state"]:
            await self._relay(scope, receive, send)
        else:  # a host that ceased to be governed while its tunnel was open
            await plain_answer(send, 421, "Douane: this host is no longer governed; connect again.\n")
