"""A provider as fast as Python makes one: fixed answers over TLS and keep-alive, nothing understood.

    python -m bench.mock PEM PORT

POST with ``"stream":true`` gets 50 server-sent events, anything else a chat completion of about 1 KB. With the header
``x-pace: MS`` the events come MS milliseconds apart, each with the moment it was sent (``@`` + 16 hex digits of
CLOCK_MONOTONIC in ns + ``@``) as its text, so that the other end of this machine can tell how long it was under way.

With the header ``x-echo`` the answer repeats an e-mail address's placeholder of the request (``<EMAIL_ADDRESS_aaaaaaaa>`` where
it has none): once in a chat completion, and cut over two events in each five of a stream.
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
_ECHO = re.compile(rb"(?i)\r\nx-echo:")
_PLACEHOLDER = re.compile(rb"<EMAIL_ADDRESS_[a-z2-7]+>")
_USAGE = {"prompt_tokens": 320, "completion_tokens": 120, "total_tokens": 440,
          "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
          "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                        "rejected_prediction_tokens": 0}}
_BASE = {"id": "chatcmpl-Bb5bsnVnpnbg0BVhaQVeoT7GKJt0F", "created": 1_750_000_000, "model": "gpt-4o-mini-2024-07-18",
         "service_tier": "default", "system_fingerprint": "fp_709714d124"}
_TEXT = "The harbour lies open to the west, and the ships that come in are asked what they carry. " * 5


def _whole(text: str = _TEXT) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
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


STAND_IN = b"<EMAIL_ADDRESS_aaaaaaaa>"
WHOLE = _whole()
ECHO = _whole(f"Write to {STAND_IN.decode()}. {_TEXT}")
HEAD = (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\n"
        b"transfer-encoding: chunked\r\n\r\n")
FLAT = _event(" harbour")
_MARK = b"0123456789abcdef"
BEFORE, AFTER = _event(f"@{_MARK.decode()}@").split(_MARK)
END = _event(None) + _event(None, _USAGE) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _echoed(request: bytes) -> bytes:
    found = _PLACEHOLDER.search(request)
    return found[0] if found else STAND_IN


def _with_length(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    return re.sub(rb"content-length: \d+", b"content-length: %d" % len(body), head) + b"\r\n\r\n" + body


class Provider(asyncio.Protocol):
    """One connection; requests with a Content-Length only, one at a time."""

    def __init__(self) -> None:
        self._buffer = self._echo = b""

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
        self._echo = _echoed(request) if _ECHO.search(request, 0, end + 2) else b""
        if b'"stream":true' not in request[end:end + 100]:
            self._transport.write(_with_length(ECHO.replace(STAND_IN, self._echo)) if self._echo else WHOLE)
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

    def _around(self, sent: int) -> tuple[bytes, bytes]:
        """What stands before and after the stamp of one event."""
        half = len(self._echo) // 2
        if not half or sent % 5 not in (1, 2):
            return BEFORE, AFTER
        begun, ended = (b"", b" write to " + self._echo[:half]) if sent % 5 == 1 else (self._echo[half:] + b" soon ", b"")
        text = b"@%b@" % _MARK
        event = (BEFORE + _MARK + AFTER).partition(b"\r\n")[2].removesuffix(b"\r\n")
        before, after = _chunk(event.replace(text, begun + text + ended)).split(_MARK)
        return before, after

    def _send(self, loop: asyncio.AbstractEventLoop, due: float, pace: float, sent: int) -> None:
        if not self._transport.is_closing():
            before, after = self._around(sent)
            self._transport.write(b"%b%016x%b" % (before, time.monotonic_ns(), after))
            self._next(loop, due + pace, pace, sent + 1)


async def _serve(pem: str, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", port, ssl=context, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
