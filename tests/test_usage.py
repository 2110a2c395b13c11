"""Usage that a provider tells only when it is asked: asked for, and the app none the wiser; usage that it does not tell:
counted."""

import json
import random
import re
from typing import Any

import pytest

from douane.providers.ask_usage import UsageFilter, asking
from douane.providers.base import Provider
from douane.providers.edit import put
from douane.providers.table import builtin
from tests import wire

SSE = ((b"content-type", b"text/event-stream; charset=utf-8"),)
CHUNK = '{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%s}}]%s}'
TOLD = '{"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}'


def event(data: str, end: str = "\n") -> bytes:
    return f"data: {data}{end}{end}".encode()


def stream(told: bool, end: str = "\n", gap: str = "") -> bytes:
    null = f',{gap}"usage":{gap}null' if told else ""
    texts = ['""', '"a \\",\\"usage\\":null b"', '"\\u00e9 é"', '"\\"usage\\""']
    chunks = [f": comment{end}{end}".encode(), *(event(CHUNK % (text, null), end) for text in texts)]
    return b"".join([*chunks, event(TOLD, end) if told else b"", event("[DONE]", end)])


def stripped(pieces: list[bytes], headers: Any = SSE) -> bytes:
    one = UsageFilter()
    one.headers(headers)
    return b"".join(map(one.feed, pieces)) + one.close()


def cuts(data: bytes, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    at = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(1, 40)))})
    return [data[a:b] for a, b in zip(at, at[1:], strict=False)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("gap", ["", " "])
def test_the_app_sees_the_stream_that_would_have_come(end: str, gap: str) -> None:
    came, would = stream(True, end, gap), stream(False, end, gap)
    for pieces in ([came], [came[at:at + 1] for at in range(len(came))], *(cuts(came, seed) for seed in range(200))):
        assert stripped(pieces) == would


def test_a_stream_without_what_we_asked_for_is_the_same_bytes() -> None:
    for data in (stream(False), b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n',
                 b'data: {"choices":[],"prompt_filter_results":[]}\n\n', b"data: no JSON \"usage\" \"choices\"\n\n", b"data: {"):
        assert stripped([data[at:at + 3] for at in range(0, len(data), 3)]) == data


def test_what_is_no_stream_passes_as_it_is() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":1},"usage2":1,"x":{"usage":null}, "usage":null}'
    assert stripped([body[:9], body[9:]], ((b"content-type", b"application/json"),)) == body


def test_recorded_streams_that_tell_it_only_because_they_were_asked() -> None:
    seen = 0
    for record in wire.records("openai", "azure", "groq", "deepseek", "xai", "openrouter"):
        asked, came = wire.asked(record), wire.answer(record)
        if not isinstance(asked, dict) or not (asked.get("stream_options") or {}).get("include_usage") or b'"choices":[]' not in came:
            continue
        blocks = [block + b"\n\n" for block in came.split(b"\n\n") if block]
        would = b"".join(re.sub(rb',"usage":null', b"", block) for block in blocks
                         if not ('"choices":[]' in block.decode() and '"usage":{' in block.decode()))
        if not came.endswith(b"\n\n") or b"\r" in came or b": null" in came:
            continue
        seen += 1
        for pieces in ([came], *(cuts(came, seed) for seed in range(200 if seen <= 3 else 5))):
            assert stripped(pieces) == would
    assert seen


ASKED = [
    ('{"stream":true}', '{"stream_options":{"include_usage":true},"stream":true}'),
    ('{ "n":1.0, "stream": true , "stream_options" : null}', '{ "n":1.0, "stream": true , "stream_options" : {"include_usage":true}}'),
    ('{"stream":true,"stream_options":{}}', '{"stream":true,"stream_options":{"include_usage":true}}'),
    ('{"stream":true,"stream_options":{"include_obfuscation": false}}',
     '{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation": false}}'),
    ('{"stream":true,"stream_options":{"a":[{"include_usage":7}],"include_usage" : false }}',
     '{"stream":true,"stream_options":{"a":[{"include_usage":7}],"include_usage" : true }}'),
]


@pytest.mark.parametrize(("body", "wanted"), ASKED)
def test_it_is_asked_for_and_no_other_byte_moves(body: str, wanted: str) -> None:
    done = asking(body.encode(), json.loads(body))
    assert done is not None
    assert done[0].decode() == wanted
    assert done[1] == json.loads(wanted)


@pytest.mark.parametrize("body", ['{"stream":true,"stream_options":{"include_usage":true}}', '{"stream":false}', '{}', '[]',
                                  '{"stream":1}', '{"stream":true,"stream_options":7}',
                                  '{"stream":true,"stream_options":{"include_usage":"yes"}}'])
def test_it_is_not_asked_for(body: str) -> None:
    assert asking(body.encode(), json.loads(body)) is None


@pytest.mark.parametrize("bad", [b"[]", b"", b'{"a":7}', b'{"a":"{"}'])
def test_nothing_is_put_where_no_object_is(bad: bytes) -> None:
    with pytest.raises(ValueError, match="object"):
        put(bad, ("a", "b"), b"1")
