"""A small app as anybody writes it: the real SDKs, a question here and there, and not a word of Douane.

Law: it knows no proxy, no CA and no real key; all it has is its environment. What it prints is for
:mod:`douane.demo.show`, which reads it through a pipe: a line of JSON for each call, with the request as the SDK sent
it and the answer as the SDK gave it.
"""

import json
from typing import Any

import anthropic
import openai

from douane.demo.questions import DEAR, FORBIDDEN, FORM, LETTER, PAGES, REFUND


def main() -> None:
    gpt, claude = openai.OpenAI(), anthropic.Anthropic()
    refund(gpt, "gpt-4o-mini", FORM)
    draft(claude, "claude-haiku-4-5", LETTER)
    for page in PAGES:
        if not ask(gpt, "gpt-4", page):
            break
    poem(claude, "claude-opus-4-1", DEAR)
    ask(gpt, "gpt-5", FORBIDDEN)


def refund(client: openai.OpenAI, model: str, form: str) -> None:
    """Have the model call a tool, in a stream: what comes is the tool's arguments, piece by piece."""
    raw = client.chat.completions.with_raw_response.create(
        model=model, max_tokens=200, messages=[{"role": "user", "content": form}], tools=[REFUND], stream=True,
        stream_options={"include_usage": True})
    calls = [call.function for chunk in raw.parse() if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()
             if call.function]
    tell("openai", model, form, raw.http_response, [one.arguments or "" for one in calls], stream=True,
         tool="".join(one.name or "" for one in calls))


def draft(client: anthropic.Anthropic, model: str, letter: str) -> None:
    raw = client.messages.with_raw_response.create(model=model, max_tokens=200, stream=True,
                                                   messages=[{"role": "user", "content": letter}])
    pieces = [event.delta.text for event in raw.parse()
              if event.type == "content_block_delta" and event.delta.type == "text_delta"]
    tell("anthropic", model, letter, raw.http_response, pieces, stream=True)


def ask(client: openai.OpenAI, model: str, question: str) -> bool:
    """Whether there was an answer."""
    try:
        raw = client.chat.completions.with_raw_response.create(
            model=model, max_tokens=400, messages=[{"role": "user", "content": question}])
    except openai.APIStatusError as error:
        tell("openai", model, question, error.response, [], refused=error)
        return False
    tell("openai", model, question, raw.http_response, [raw.parse().choices[0].message.content or ""])
    return True


def poem(client: anthropic.Anthropic, model: str, question: str) -> None:
    try:
        raw = client.messages.with_raw_response.create(model=model, max_tokens=2000,
                                                       messages=[{"role": "user", "content": question}])
    except anthropic.APIStatusError as error:
        tell("anthropic", model, question, error.response, [], refused=error)
    else:
        text = [block.text for block in raw.parse().content if block.type == "text"]
        tell("anthropic", model, question, raw.http_response, text)


def tell(sdk: str, model: str, question: str, response: Any, pieces: list[str], *, stream: bool = False, tool: str = "",
         refused: openai.APIStatusError | anthropic.APIStatusError | None = None) -> None:
    """Print one call. *response*: the SDK's own HTTP response, which knows the request that was sent."""
    request, headers = response.request, response.headers
    print(json.dumps({
        "sdk": sdk, "model": model, "question": question, "stream": stream, "tool": tool,
        "url": str(request.url), "body": request.content.decode(),
        "key": request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", ""),
        "status": response.status_code, "pieces": [piece for piece in pieces if piece],
        "refused": type(refused).__name__ if refused else "", "error": said_of(refused),
        "code": headers.get("x-douane-code", ""), "id": headers.get("x-douane-id", ""),
        "request": headers.get("x-request-id") or headers.get("request-id", ""),
    }), flush=True)


def said_of(error: openai.APIStatusError | anthropic.APIStatusError | None) -> dict[str, str]:
    """The error's own words, as the SDK read them: type (or code) and message."""
    body: Any = error.body if error else {}
    inner = body.get("error", body) if isinstance(body, dict) else {}
    return {name: str(inner[name]) for name in ("code", "type", "message") if inner.get(name)}


if __name__ == "__main__":
    main()
