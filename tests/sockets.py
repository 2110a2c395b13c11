"""A provider of WebSockets on this machine: TLS, and a script for each session."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from douane.demo.certificate import Authority
from douane.demo.provider import NAMES

__all__ = ["Heard", "SocketProvider", "running_sockets", "talk"]


@dataclass
class Heard:
    """One session, as the provider saw it."""

    path: str
    headers: dict[str, str]
    frames: list[Any] = field(default_factory=list)
    raw: list[str | bytes] = field(default_factory=list)
    closed: tuple[int, str] | None = None

    def types(self) -> list[str]:
        return [one.get("type", "") for one in self.frames]


type Script = Callable[[ServerConnection, Heard], Awaitable[None]]


class SocketProvider:
    """*script* is awaited for each session; ``heard`` has what came."""

    def __init__(self, folder: Path, script: Script) -> None:
        self.script = script
        self.heard: list[Heard] = []
        self.refuse: Response | None = None
        authority = Authority(folder)
        self.ca = authority.certificate
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(authority.issue(NAMES))
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def run(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        def refuse(connection: ServerConnection, request: Request) -> Response | None:
            return self.refuse

        def choose(connection: ServerConnection, offered: Any) -> Subprotocol | None:
            return Subprotocol("realtime") if "realtime" in offered else None

        server: Server = await serve(self._serve, "127.0.0.1", 0, ssl=self._context, process_request=refuse,
                                     select_subprotocol=choose, max_size=64 << 20, ping_interval=None, compression="deflate")
        self.port = next(iter(server.sockets)).getsockname()[1]
        ready()
        await stop.wait()
        server.close(close_connections=True)
        await server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        heard = Heard(request.path, {name.lower(): value for name, value in request.headers.raw_items()})
        self.heard.append(heard)
        try:
            await self.script(connection, heard)
        except ConnectionClosed:
            pass
        finally:
            await connection.close()
            heard.closed = (connection.close_code or 0, connection.close_reason or "")


@contextlib.contextmanager
def running_sockets(folder: Path, script: Script) -> Iterator[SocketProvider]:
    provider = SocketProvider(folder, script)
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(provider.run(ready.set, stop)))
    thread.start()
    assert ready.wait(10)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def hear(connection: ServerConnection, heard: Heard) -> Any:
    """The client's next frame."""
    raw = await connection.recv()
    heard.raw.append(raw)
    heard.frames.append(json.loads(raw))
    return heard.frames[-1]


async def talk(connection: ServerConnection, heard: Heard) -> None:
    """A session as the recordings show them: acknowledges, echoes items, answers with the last text it was told."""
    number = 0
    said = "nothing"
    if "/realtime" in heard.path:
        await tell(connection, {"type": "session.created", "event_id": "event_0", "session": {
            "type": "realtime", "object": "realtime.session", "id": "sess_1", "model": "gpt-4o-realtime",
            "instructions": "Be kind.",
            "audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": True}}}}})
    while True:
        frame = await hear(connection, heard)
        kind = frame["type"]
        if kind == "session.update":
            await tell(connection, {"type": "session.updated", "event_id": "event_u", "session": frame["session"]})
        elif kind == "conversation.item.create":
            item = frame["item"]
            said = item.get("output") or (item.get("content") or [{}])[0].get("text", said)
            await tell(connection, {"type": "conversation.item.added", "event_id": "event_i", "previous_item_id": None,
                                    "item": {"id": "item_1", **item}})
        elif kind == "response.create" and "/realtime" in heard.path:
            number += 1
            for event in answer(number, said):
                await tell(connection, event)
        elif kind == "response.create":
            number += 1
            for event in response(number, str(frame["input"]), frame.get("model", "gpt-4o-mini")):
                await tell(connection, event)


async def tell(connection: ServerConnection, event: dict[str, Any]) -> None:
    await connection.send(json.dumps(event))


USAGE = {"total_tokens": 30, "input_tokens": 20, "output_tokens": 10,
         "input_token_details": {"text_tokens": 14, "audio_tokens": 6, "image_tokens": 0, "cached_tokens": 4,
                                 "cached_tokens_details": {"text_tokens": 4, "audio_tokens": 0, "image_tokens": 0}},
         "output_token_details": {"text_tokens": 8, "audio_tokens": 2}}


def answer(number: int, text: str, usage: Any = USAGE) -> list[dict[str, Any]]:
    """A realtime response: a message in pieces of three characters, and a tool call with the text in its arguments."""
    name = f"resp_{number}"
    about = {"response_id": name, "item_id": f"item_a{number}", "output_index": 0, "content_index": 0}
    call = {"response_id": name, "item_id": f"item_c{number}", "output_index": 1, "call_id": "call_1"}
    arguments = json.dumps({"said": text})
    part = {"type": "text", "text": text}
    output: list[dict[str, Any]] = [
              {"id": f"item_a{number}", "type": "message", "role": "assistant", "status": "completed",
               "content": [{"type": "output_text", "text": text}]},
              {"id": f"item_c{number}", "type": "function_call", "name": "note", "call_id": "call_1", "arguments": arguments}]
    return [
        {"type": "response.created", "event_id": "e", "response": {"object": "realtime.response", "id": name, "output": [],
                                                                   "status": "in_progress", "usage": None}},
        {"type": "response.output_item.added", "response_id": name, "output_index": 0, "item": {**output[0], "content": []}},
        *({"type": "response.output_text.delta", **about, "delta": text[at:at + 3]} for at in range(0, len(text), 3)),
        {"type": "response.output_audio.delta", **about, "delta": "AAAA" * 64},
        {"type": "response.output_text.done", **about, "text": text},
        {"type": "response.content_part.done", **about, "part": part},
        {"type": "response.output_item.done", "response_id": name, "output_index": 0, "item": output[0]},
        *({"type": "response.function_call_arguments.delta", **call, "delta": arguments[at:at + 4]}
          for at in range(0, len(arguments), 4)),
        {"type": "response.function_call_arguments.done", **call, "name": "note", "arguments": arguments},
        {"type": "response.output_item.done", "response_id": name, "output_index": 1, "item": output[1]},
        {"type": "response.done", "event_id": "d", "response": {
            "object": "realtime.response", "id": name, "status": "completed", "output": output, "usage": usage}},
    ]


def response(number: int, text: str, model: str) -> list[dict[str, Any]]:
    """The same of the Responses API."""
    name = f"resp_{number}"
    about = {"item_id": f"msg_{number}", "output_index": 0, "content_index": 0}
    base: dict[str, Any] = {"id": name, "object": "response", "created_at": 1, "model": model, "status": "in_progress",
                            "output": [], "usage": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    message: dict[str, Any] = {"type": "message", "id": f"msg_{number}", "status": "completed", "role": "assistant",
               "content": [{"type": "output_text", "text": text, "annotations": []}]}
    done = {**base, "status": "completed", "output": [message], "usage": {
        "input_tokens": 11, "output_tokens": 7, "total_tokens": 18, "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": 2}}}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": base},
              {"type": "response.output_item.added", "output_index": 0, "item": {**message, "content": []}},
              *({"type": "response.output_text.delta", **about, "delta": text[at:at + 5], "logprobs": []}
                for at in range(0, len(text), 5)),
              {"type": "response.output_text.done", **about, "text": text, "logprobs": []},
              {"type": "response.completed", "response": done}]
    return [{**one, "sequence_number": at} for at, one in enumerate(events)]
