"""A small app as anybody writes it: the real SDKs, a question here and there, and not a word of Douane.

Law: it knows no proxy, no CA and no real key; all it has is its environment. What it prints is for
:mod:`douane.demo.show`, which reads it through a pipe: a line of JSON for each call, with the request as the SDK sent
it.
"""

import json
from typing import Any

import anthropic
import openai

from douane.demo.questions import FORBIDDEN, QUESTIONS


def main() -> None:
    gpt, claude = openai.OpenAI(), anthropic.Anthropic()
    ask_gpt(gpt, "gpt-4o-mini", QUESTIONS[0])
    stream_gpt(gpt, "gpt-4o", QUESTIONS[1])
    try:
        ask_gpt(gpt, FORBIDDEN, QUESTIONS[2])
    except openai.APIStatusError as error:
        tell("openai", FORBIDDEN, QUESTIONS[2], error.response, [], refused=f"{type(error).__name__}: {error.message}")
    ask_claude(claude, "claude-haiku-4-5", QUESTIONS[3])
    stream_claude(claude, "claude-haiku-4-5", QUESTIONS[4])


def ask_gpt(client: openai.OpenAI, model: str, question: str) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": question}])
    tell("openai", model, question, raw.http_response, [raw.parse().choices[0].message.content or ""])


def stream_gpt(client: openai.OpenAI, model: str, question: str) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": question}], stream=True,
        stream_options={"include_usage": True})
    pieces = [chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices]
    tell("openai", model, question, raw.http_response, pieces, stream=True)


def ask_claude(client: anthropic.Anthropic, model: str, question: str) -> None:
    raw = client.messages.with_raw_response.create(model=model, max_tokens=100,
                                                   messages=[{"role": "user", "content": question}])
    pieces = [block.text for block in raw.parse().content if block.type == "text"]
    tell("anthropic", model, question, raw.http_response, pieces)


def stream_claude(client: anthropic.Anthropic, model: str, question: str) -> None:
    raw = client.messages.with_raw_response.create(model=model, max_tokens=100, stream=True,
                                                   messages=[{"role": "user", "content": question}])
    pieces = [event.delta.text for event in raw.parse()
              if event.type == "content_block_delta" and event.delta.type == "text_delta"]
    tell("anthropic", model, question, raw.http_response, pieces, stream=True)


def tell(sdk: str, model: str, question: str, response: Any, pieces: list[str], *, stream: bool = False,
         refused: str = "") -> None:
    """Print one call. *response*: the SDK's own HTTP response, which knows the request that was sent."""
    request = response.request
    print(json.dumps({
        "sdk": sdk, "model": model, "question": question, "stream": stream,
        "url": str(request.url), "body": request.content.decode(),
        "key": request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", ""),
        "status": response.status_code, "pieces": [piece for piece in pieces if piece], "refused": refused,
        "code": response.headers.get("x-douane-code", ""), "id": response.headers.get("x-douane-id", ""),
    }), flush=True)


if __name__ == "__main__":
    main()
