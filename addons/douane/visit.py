"""One governed request in a service of somebody's own: what stands between the governor and the app behind.

Laws: no extension by which a server would take an answer past the exchange reaches the app. What broke an answer once has
broken it for good, whatever the app or its framework makes of the exception. No header that the app sees holds a key that
the chain took out: :func:`relay` has it written at the last moment.
"""

from douane.asgi import App, Message, Receive, Scope, Send, plain_answer
from douane.errors import UpstreamError
from douane.gate import Gate
from douane.governor import AnswerCutError, Door, Governor

__all__ = ["Visit", "Whole", "relay"]

_HARMLESS = frozenset({"tls"})
"""Extensions that only tell something."""
_KEY = "douane_visit"
"""In ``scope["state"]``."""


class Visit:
    """One governed request: between the governor and the app, which sees what it would see without us."""

    __slots__ = ("_app", "_begun", "_broken", "_failure", "_path", "_relay", "_scope", "_whole")

    def __init__(self, app: App, relay: App, scope: Scope) -> None:
        self._app = app
        self._relay = relay
        self._scope = scope
        self._path = b""
        """The provider's own."""
        self._begun = self._whole = False
        """Whether the app has answered, and to the end."""
        self._broken: Exception | None = None
        """What ended the answer for good."""
        self._failure: Exception | None = None
        """What the app itself raised."""

    async def run(self, gate: Gate, door: Door, receive: Receive, send: Send) -> None:
        """Raises what the app raised, once the client has its answer: that is for the server's log."""
        if self._scope["type"] == "websocket":  # frames are read at the other doors only: refused, never passed
            await send({"type": "websocket.close", "code": 1008, "reason": "not inspected here"})
            return
        headers = [(bytes(name).lower(), bytes(value)) for name, value in self._scope["headers"]]
        scope = {**self._scope, "headers": headers, "query_string": self._scope.get("query_string", b"")}
        try:
            await Governor(self._inner, gate, door)(scope, receive, send)
        except AnswerCutError:
            if self._failure is None:
                raise
        if self._failure is not None:
            raise self._failure

    async def _inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._path = scope["raw_path"]
        first = await receive()
        own = {**scope, "headers": _measured(scope["headers"], len(first.get("body", b""))),
               "extensions": {name: one for name, one in (scope.get("extensions") or {}).items() if name in _HARMLESS},
               "state": {**scope["state"], _KEY: self}, "raw_path": self._scope.get("raw_path")}
        if own["raw_path"] is None:
            del own["raw_path"]

        async def passed(message: Message) -> None:
            await self._pass(message, send)

        try:
            await self._app(own, Whole(first, receive), passed)
        except Exception as error:  # noqa: BLE001 - the guard of a host: what the app raises is told to both ends
            if self._broken is None:
                self._failure = error
        if self._broken is not None:
            raise self._broken
        if self._failure is not None and not self._whole:
            raise UpstreamError("upstream_error", f"the app behind failed ({type(self._failure).__name__})")

    async def _pass(self, message: Message, send: Send) -> None:
        """``send`` of the app, as strict as the exchange needs it."""
        if self._broken is not None:
            raise self._broken
        kind = message["type"]
        try:
            if kind == "http.response.start":
                if self._begun:
                    raise RuntimeError("the app behind began its answer twice")
                self._begun = True
                headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
                await send({"type": kind, "status": message["status"], "headers": headers})
            elif kind == "http.response.body":
                more = bool(message.get("more_body", False))
                self._whole = self._whole or not more
                await send({"type": kind, "body": bytes(message.get("body", b"")), "more_body": more})
        except Exception as error:
            self._broken = error
            raise

    async def relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The provider's answer in place of the app's. What fails is told to the governor alone: a framework between would
        make a page of it."""
        try:
            await self._relay({**scope, "raw_path": self._path}, receive, send)
        except Exception as error:  # noqa: BLE001 - raised again where the app has returned
            self._broken = self._broken or error


async def relay(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI app to mount as the endpoint itself: forwards a governed call to its provider, with the key of ``swap_key``."""
    visit: Visit | None = (scope.get("state") or {}).get(_KEY)
    if visit is not None:
        await visit.relay(scope, receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "not governed here"})
    else:
        await plain_answer(send, 404, "Douane: this path is no provider's: name it in routes.\n")


class Whole:
    """``receive`` with the whole body first."""

    __slots__ = ("_first", "_later")

    def __init__(self, first: Message, later: Receive) -> None:
        self._first: Message | None = first
        self._later = later

    async def __call__(self) -> Message:
        first, self._first = self._first, None
        if first is not None:
            return first
        while (message := await self._later())["type"] == "http.request":  # of a body that was withheld
            pass
        return message


def _measured(headers: list[tuple[bytes, bytes]], size: int) -> list[tuple[bytes, bytes]]:
    """*headers* with the length that the body has since the chain rewrote it."""
    return [(name, b"%d" % size if name == b"content-length" else value) for name, value in headers]
