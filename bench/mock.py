"""A provider as fast as Python makes one: fixed answers over TLS and keep-alive, nothing understood.

    python -m bench.mock PEM PORT

POST with ``"stream":true`` gets 50 server-sent events, anything else a chat completion of about 1 KB. With the header
``x-pace: MS`` the events come MS milliseconds apart, each with the moment it was sent (``@`` + 16 hex digits of
CLOCK_MONOTONIC in ns + ``@``) as its text, so that the other end of this machine can tell how long it was under way.
"""

import asyncio
import re
import ssl
import sys
import time
from typing import Any, cast

import orjson
import uvloop

EVENTS = 50
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_PACE = re.compile(rb"(?i)\r\nx-pace: *(\d+)")
_USAGE = {"prompt_tokens": 320, "completion_tokens": 120, "total_tokens": 440,
          "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
          "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                        "rejected_prediction_tokens": 0}}
_BASE = {"id": "chatcmpl-Bb5bsnVnpnbg0BVhaQVeoT7GKJt0F", "created": 1_750_000_000, "model": "gpt-4o-mini-2024-07-18",
         "service_tier": "default", "system_fingerprint": "fp_709714d124"}
_TEXT = "The harbour lies open to the west, and the ships that come in are asked what they carry. " * 5


def _whole() -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = orjson.dumps(_BASE | {"object": "chat.completion", "choices": [choice], "usage": _USAGE})
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _event(content: str | None, usage: object = None) -> bytes:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "logprobs": None,
              "finish_reason": None if content else "stop"}
    value = _BASE | {"object": "chat.completion.chunk", "choices": [] if usage else [choice], "usage": usage}
    return _chunk(b"data: " + orjson.dumps(value) + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WHOLE = _whole()
HEAD = (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\n"
        b"transfer-encoding: chunked\r\n\r\n")
FLAT = _event(" harbour")
BEFORE, AFTER = _event("@0123456789abcdef@").split(b"0123456789abcdef")
END = _event(None) + _event(None, _USAGE) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Provider(asyncio.Protocol):
    """One connection; requests with a Content-Length only, one at a time."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derive from nothing

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 2)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < whole:
            return
        request, self._buffer = self._buffer, self._buffer[whole:]
        if b'"stream":true' not in request[end:end + 100]:
            self._transport.write(WHOLE)
            return
        self._transport.write(HEAD)
        if pace := _PACE.search(request, 0, end + 2):
            self._next(asyncio.get_running_loop(), time.monotonic() + int(pace[1]) / 1000, int(pace[1]) / 1000, 0)
            return
        for _ in range(EVENTS):
            self._transport.write(FLAT)
        self._transport.write(END)

    def _next(self, loop: asyncio.AbstractEventLoop, due: float, pace: float, sent: int) -> None:
        """Wait until *due*, send an event, and so on from there: a late one does not delay those after it."""
        if sent == EVENTS:
            self._transport.write(END)
        else:
            loop.call_later(due - time.monotonic(), self._send, loop, due, pace, sent)

    def _send(self, loop: asyncio.AbstractEventLoop, due: float, pace: float, sent: int) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"%b%016x%b" % (BEFORE, time.monotonic_ns(), AFTER))
            self._next(loop, due + pace, pace, sent + 1)


async def _serve(pem: str, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, ssl=context, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
