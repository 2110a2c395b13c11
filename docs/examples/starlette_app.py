"""A service with an endpoint of its own, governed: `uvicorn starlette_app:app` (from this folder).

`POST /v1/chat/completions` is answered here, with no model and no network; `/anthropic/…` is forwarded to Anthropic.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from douane.middleware import Douane, relay

HERE = Path(__file__).parent


async def chat(request: Request) -> JSONResponse:
    """What a model would do: say back what it was told. It reads placeholders, and the caller reads the values."""
    asked = await request.json()
    said = asked["messages"][-1]["content"]
    print(f"the app was told: {said}", flush=True)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"You wrote: {said}"}}
    return JSONResponse({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"],
                         "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}})


async def ready(request: Request) -> JSONResponse:
    problems = request.state.douane.problems()
    return JSONResponse({"problems": problems}, 503 if problems else 200)


async def reload(request: Request) -> JSONResponse:
    """For a port that only you reach."""
    result = await request.state.douane.reload()
    return JSONResponse({"ok": result.ok, "lines": result.lines})


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    print("the app starts: the policies are loaded, the log is open", flush=True)
    yield
    print("the app ends: the log is still open", flush=True)


service = Starlette(lifespan=lifespan, routes=[
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Mount("/anthropic", app=relay),
    Route("/ready", ready),
    Route("/reload", reload, methods=["POST"])])
app = Douane(service, policies=HERE / "policies", routes={"/anthropic": "anthropic"})
