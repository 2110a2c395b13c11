"""The contract with mitmproxy and uvicorn: what ``hosts/internals.py`` and ``served.py`` say we lean on, held against what is
installed."""

import asyncio
import inspect
from typing import Any

import pytest
from mitmproxy.proxy import server
from mitmproxy.proxy.layers import tls as tls_layers
from mitmproxy.proxy.tunnel import TunnelLayer
from OpenSSL import SSL
from uvicorn.protocols.http import httptools_impl

from douane.errors import EnvironmentFailedError
from douane.hosts import internals, proxy
from douane.hosts.http import HttpServer
from douane.hosts.internals import (
    MITMPROXY_SERIES,
    MITMPROXY_VERSION,
    ClientTLSLayer,
    Context,
    Options,
    ProxyConnectionHandler,
    Proxyserver,
    commands,
    connection,
    events,
    layer,
)
from douane.hosts.mitm import DouaneInstance, DouaneMode
from douane.hosts.served import HttpToolsProtocol, ServerState, WebSocketsSansIOProtocol
from douane.hosts.sockets import WebSocketProtocol
from douane.hosts.transport import AsgiLayer, DouaneHandler
from douane.places import Listen


def test_the_installed_mitmproxy_is_of_the_series_that_was_read() -> None:
    assert MITMPROXY_VERSION.startswith(MITMPROXY_SERIES)


def test_a_start_on_another_series_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MITMPROXY_VERSION", "13.0.0")

    async def start() -> None:
        await proxy.ProxyListener(Listen("127.0.0.1", 0), None).start()  # type: ignore[arg-type]

    with pytest.raises(EnvironmentFailedError, match=r"mitmproxy 13\.0\.0 is installed, 12\.2\.x is needed"):
        asyncio.run(start())


def test_our_mode_is_registered_and_makes_our_instance() -> None:
    mode = internals.ProxyMode.parse("douane")
    assert isinstance(mode, DouaneMode)
    assert isinstance(internals.AsyncioServerInstance.make(mode, Proxyserver()), DouaneInstance)


class _Recorder(layer.Layer):
    """Keeps what it is told; answers each byte with one of its own."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.told: list[events.Event] = []

    def _handle_event(self, event: events.Event) -> Any:
        self.told.append(event)
        if isinstance(event, events.DataReceived):
            yield commands.SendData(self.context.client, event.data)


class _Writer:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written.append(data)


def _handler() -> tuple[DouaneHandler, _Recorder, _Writer]:
    writer = _Writer()
    options = Options()
    Proxyserver().load(_Loader(options))
    handler = DouaneHandler(None, None, writer, options, DouaneMode.parse("douane"))
    recorder = _Recorder(handler.layer.context)
    handler.layer = recorder
    return handler, recorder, writer


class _Loader:
    def __init__(self, options: Options) -> None:
        self._options = options

    def add_option(self, *given: Any, **named: Any) -> None:
        self._options.add_option(*given, **named)


def test_server_event_runs_without_ever_waiting() -> None:
    async def main() -> None:
        handler, recorder, writer = _handler()
        event = events.DataReceived(handler.client, b"x")
        handler.wake(event)
        assert recorder.told == [event]
        assert writer.written == [b"x"]

    asyncio.run(main())


def test_what_a_client_sends_goes_past_the_layers_once_it_is_http() -> None:
    class Heard(asyncio.Protocol):
        def __init__(self) -> None:
            self.data = b""

        def data_received(self, data: bytes) -> None:
            if data == b"bad":
                raise RuntimeError("what no protocol should do")
            self.data += data

    async def main() -> None:
        handler, recorder, _ = _handler()
        heard = Heard()
        asgi = AsgiLayer(recorder.context, handler, lambda: heard, None)
        list(asgi.handle_event(events.Start()))
        await handler.server_event(events.DataReceived(handler.client, b"GET"))
        await handler.server_event(events.DataReceived(recorder.context.server, b"elsewhere"))
        assert (heard.data, len(recorder.told)) == (b"GET", 1)
        closed: list[object] = []
        handler.close_connection = lambda connection, half_close=False: closed.append(connection)  # type: ignore[method-assign]
        await handler.server_event(events.DataReceived(handler.client, b"bad"))
        assert closed == [handler.client]
        list(asgi.handle_event(events.ConnectionClosed(handler.client)))
        await handler.server_event(events.DataReceived(handler.client, b"late"))
        assert (heard.data, len(recorder.told)) == (b"GET", 2)

    asyncio.run(main())


def test_server_event_called_from_inside_a_layer_is_told_and_not_lost_in_silence() -> None:
    async def main() -> None:
        handler, recorder, _ = _handler()
        seen: list[type[BaseException]] = []

        def again(event: events.Event) -> Any:
            try:
                handler.wake(events.Start())
            except RuntimeError as error:
                seen.append(type(error))
            yield from ()

        recorder._handle_event = again  # type: ignore[method-assign]
        handler.wake(events.Start())
        assert seen == [RuntimeError]

    asyncio.run(main())


def test_the_reader_waits_in_drain_writers_after_each_event() -> None:
    """The order in mitmproxy's own loop: read, event, drain. Where drain waits, nothing is read."""
    source = inspect.getsource(server.ConnectionHandler.handle_connection)
    at = [source.index(step) for step in ("await reader.read(", "await self.server_event(events.DataReceived",
                                          "await self.drain_writers()")]
    assert at == sorted(at)

    async def main() -> None:
        handler, recorder, _ = _handler()
        handler.asgi = AsgiLayer(recorder.context, handler, asyncio.Protocol, None)
        handler.readable.clear()
        waiting = asyncio.ensure_future(handler.drain_writers())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        handler.readable.set()
        await asyncio.wait_for(waiting, 1)

    asyncio.run(main())


def test_a_dial_is_vetoed_before_any_hook_and_the_veto_is_heeded() -> None:
    """A hook that raises is logged and skipped by mitmproxy; the error that stood before it must stop the dial."""
    source = inspect.getsource(server.ConnectionHandler.open_connection)
    at = [source.index(step) for step in ("ServerConnectHook", "command.connection.error", "asyncio.open_connection")]
    assert at == sorted(at)

    async def main() -> None:
        handler, _, _ = _handler()
        dialled = connection.Server(address=("127.0.0.1", 9))
        hook = internals.server_hooks.ServerConnectHook(
            internals.server_hooks.ServerConnectionHookData(server=dialled, client=handler.client))

        class Master:
            class addons:  # noqa: N801
                @staticmethod
                async def handle_lifecycle(hook: Any) -> None:
                    """As mitmproxy's safecall: the addon raised, nothing came of it."""

        handler.master = Master()  # type: ignore[assignment]
        await handler.handle_hook(hook)
        assert dialled.error == "not an approved tunnel"

    asyncio.run(main())


def test_a_tls_layers_child_may_be_set_and_its_openssl_connection_is_reached() -> None:
    """LayerTransport writes to ``ClientTLSLayer.tls`` and reads what OpenSSL made of it, as ``TLSLayer.send_data`` does."""
    assert "self.child_layer = layer.NextLayer" in inspect.getsource(TunnelLayer.__init__)
    assert "tls" in tls_layers.TLSLayer.__annotations__
    source = inspect.getsource(tls_layers.TLSLayer.send_data) + inspect.getsource(tls_layers.TLSLayer.tls_interact)
    for part in ("self.tls.sendall(data)", "self.tls.bio_read(65535)", "SSL.ZeroReturnError, SSL.SysCallError",
                 "commands.SendData(self.conn, data)"):
        assert part in source
    assert issubclass(ClientTLSLayer, tls_layers.TLSLayer)
    assert hasattr(SSL.Connection, "bio_read")


def test_the_watchdog_can_be_disarmed() -> None:
    async def main() -> None:
        handler, _, _ = _handler()
        with handler.timeout_watchdog.disarm():
            assert not handler.timeout_watchdog.can_timeout.is_set()
        assert handler.timeout_watchdog.can_timeout.is_set()

    asyncio.run(main())


def test_uvicorns_protocol_is_made_as_we_make_it() -> None:
    assert list(inspect.signature(HttpToolsProtocol.__init__).parameters) == [
        "self", "config", "server_state", "app_state", "_loop"]
    state = ServerState()
    assert state.connections == set()
    assert state.tasks == set()

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    made = HttpServer(app)
    assert made.config.loaded_app is app, "nothing of uvicorn's may stand before our app (proxy headers, tracing)"
    assert made.config.ws_protocol_class is WebSocketProtocol


def test_uvicorns_websocket_protocol_is_as_we_changed_it() -> None:
    assert list(inspect.signature(WebSocketsSansIOProtocol.__init__).parameters) == [
        "self", "config", "server_state", "app_state", "_loop"]
    upgrade = inspect.getsource(HttpToolsProtocol.handle_websocket_upgrade)
    assert "app_state=self.app_state" in upgrade
    assert "self.transport.set_protocol(protocol)" in upgrade
    made = inspect.getsource(WebSocketsSansIOProtocol)
    for leaned_on in ("self.conn = ServerProtocol(", "self.read_paused", "self.close_sent", "self.frames",
                      "await self.app(self.scope",
                      "def handle_cont(", "def handle_parser_exception(", "max_size=self.config.ws_max_size"):
        assert leaned_on in made, leaned_on


def test_uvicorn_starts_the_app_after_the_head_and_copies_the_state() -> None:
    complete = inspect.getsource(HttpToolsProtocol.on_headers_complete)
    assert "self._start_asgi_task" in complete
    begin = inspect.getsource(HttpToolsProtocol.on_message_begin)
    assert '"headers": self.headers' in begin, "HttpProtocol gives trailers a list of their own after the head"
    assert '"state": self.app_state.copy()' in begin
    lost = inspect.getsource(HttpToolsProtocol.connection_lost)
    assert "self.cycle.disconnected = True" in lost
    assert "disconnected" in inspect.getsource(httptools_impl.RequestResponseCycle.send)


def test_options_are_as_required_and_a_drift_is_an_error() -> None:
    options = Options()
    Proxyserver().load(_Loader(options))
    options.update(**proxy.REQUIRED_OPTIONS)
    proxy.check_options(options)
    for name, other in (("rawtcp", True), ("http2", True), ("connection_strategy", "eager"), ("ssl_insecure", True),
                        ("ignore_hosts", ["x"]), ("stream_large_bodies", "1m"), ("mode", ["regular"])):
        options.update(**{name: other})
        with pytest.raises(EnvironmentFailedError, match=name):
            proxy.check_options(options)
        options.update(**{name: proxy.REQUIRED_OPTIONS[name]})
    proxy.check_options(options)


def test_our_handler_is_a_mitmproxy_handler() -> None:
    assert issubclass(DouaneHandler, ProxyConnectionHandler)
