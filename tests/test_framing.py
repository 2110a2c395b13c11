"""Framings: the same frames however a stream is cut, every byte in one of them, and a frame with other data is one again."""

import base64
import json
import random
import struct
import zlib
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from douane.errors import RefusedError
from douane.providers.framing import ARRAY, AWS, FRAME_LIMIT, NDJSON, SSE, Framing, aws_message, framing_of
from tests import wire as recorded

documents = st.lists(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.just('a"]},\\'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8).map(
        lambda value: {"v": value}), max_size=5)
KIND = bytes([11]) + b":event-type" + bytes([7]) + struct.pack("!H", 5) + b"chunk"


def sse(found: list[Any]) -> bytes:
    return b": hello\n\n" + b"".join(b"event: x\r\ndata: %b\r\n\r\n" % json.dumps(one).encode() for one in found)


def ndjson(found: list[Any]) -> bytes:
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\r\n" for one in found)


def array(found: list[Any]) -> bytes:
    return b"[" + b",\r\n".join(json.dumps(one, indent=1).encode() for one in found) + b"\n]\n"


def aws(found: list[Any]) -> bytes:
    return b"".join(aws_message(KIND, json.dumps(one).encode()) for one in found)


WRITERS = [(SSE, sse), (NDJSON, ndjson), (ARRAY, array), (AWS, aws)]


def frames(framing: Framing, pieces: list[bytes]) -> list[Any]:
    splitter = framing.splitter()
    found = [frame for piece in pieces for frame in splitter.feed(piece)]
    return [*found, *splitter.close()]


def cut(stream: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    places = sorted(chance.sample(range(len(stream) + 1), min(len(stream), chance.randrange(8))))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


@pytest.mark.parametrize(("framing", "write"), WRITERS, ids=lambda one: getattr(one, "name", ""))
@given(found=documents, seed=st.integers(0, 1 << 30))
def test_however_it_is_cut(framing: Framing, write: Any, found: list[Any], seed: int) -> None:
    stream = write(found)
    whole = frames(framing, [stream])
    assert b"".join(one.raw for one in whole) == stream
    assert [json.loads(one.data) for one in whole if one.data] == found
    for pieces in (cut(stream, seed), [stream[at:at + 1] for at in range(len(stream))]):
        assert [(one.raw, one.data) for one in frames(framing, pieces)] == [(one.raw, one.data) for one in whole]


@pytest.mark.parametrize(("framing", "write"), WRITERS, ids=lambda one: getattr(one, "name", ""))
@given(found=documents)
def test_other_data(framing: Framing, write: Any, found: list[Any]) -> None:
    """The same data gives the same bytes; other data stands in their place; one more frame is one more."""
    whole = frames(framing, [write(found)])
    assert b"".join(one.with_data(one.data) for one in whole if one.data) == b"".join(one.raw for one in whole if one.data)
    changed = b"".join(one.with_data(b'{"other":1}') + one.again(b'{"more":2}') if one.data else one.raw for one in whole)
    said = [json.loads(one.data) for one in frames(framing, [changed]) if one.data]
    assert said == [{"other": 1}, {"more": 2}] * len(found)
    if framing is ARRAY and found:
        assert json.loads(changed) == said


@given(found=documents)
def test_amazons_own_reader_reads_what_we_write(found: list[Any]) -> None:
    changed = b"".join(one.with_data(json.dumps({"n": at}).encode()) for at, one in enumerate(frames(AWS, [aws(found)])))
    reader = EventStreamBuffer()
    reader.add_data(changed)
    assert [json.loads(one.payload) for one in reader] == [{"n": at} for at in range(len(found))]


def test_a_document_within_a_document() -> None:
    inner = b'{"type":"content_block_delta"}'
    raw = aws_message(KIND, json.dumps({"bytes": base64.b64encode(inner).decode(), "p": "abc"}).encode())
    (frame,) = frames(AWS, [raw])
    assert frame.data == inner
    (other,) = frames(AWS, [frame.with_data(b'{"type":"x"}')])
    assert other.data == b'{"type":"x"}'
    assert json.loads(other.payload)["p"] == "abc"


@pytest.mark.parametrize("at", [0, 5, 9, 20, -1])
def test_a_broken_checksum_is_refused(at: int) -> None:
    raw = bytearray(aws([{"a": "b" * 20}]))
    raw[at] ^= 1
    with pytest.raises(RefusedError, match="broken"):
        frames(AWS, [bytes(raw)])


def test_a_frame_has_a_limit() -> None:
    head = struct.pack("!II", FRAME_LIMIT + 1, 0)
    for framing, begun in ((NDJSON, b"x" * (FRAME_LIMIT + 1)), (ARRAY, b'[{"a":"' + b"x" * FRAME_LIMIT),
                           (AWS, head + struct.pack("!I", zlib.crc32(head)))):
        with pytest.raises(RefusedError, match="larger"):
            framing.splitter().feed(begun)


@pytest.mark.parametrize(("said", "framing"), [
    (b"text/event-stream; charset=utf-8", SSE), (b"Application/X-NDJSON", NDJSON),
    (b"application/vnd.amazon.eventstream", AWS), (b"application/json", None), (b"text/event-streams", None)])
def test_what_an_answer_says_it_is(said: bytes, framing: Framing | None) -> None:
    assert framing_of(said) is framing
    assert framing_of(b"application/json; charset=UTF-8", array=True) is ARRAY


@pytest.mark.parametrize(("framing", "write"), [WRITERS[0], WRITERS[1], WRITERS[3]], ids=["sse", "ndjson", "aws"])
def test_how_much_of_it_is_whole_frames(framing: Framing, write: Any) -> None:
    one, two = write([{"a": 1}]), write([{"b": 2}])
    for end in range(len(two)):
        assert framing.whole(one + two[:end]) >= len(one)
        assert framing.whole(two[:end]) <= end
    assert framing.whole(one + two) == len(one + two)


def test_recorded_streams_are_framed() -> None:
    """Every recorded stream with a media type of ours, byte for byte, each frame JSON."""
    seen: dict[str, int] = {}
    for record in recorded.records():
        headers = {name.lower(): value for name, value in (record["response"].get("headers") or {}).items()}
        framing = framing_of(str(headers.get("content-type", "")).encode())
        if not record.get("stream") or framing is None or record["operation"] == "bedrock_agent":  # whose frames are text
            continue
        encoded = record["response"].get("body_base64")
        body = base64.b64decode(encoded) if encoded else recorded.answer(record)
        found = frames(framing, [body])
        assert b"".join(one.raw for one in found) == body
        for one in found:
            if one.data and one.data != b"[DONE]":
                json.loads(one.data)
        seen[framing.name] = seen.get(framing.name, 0) + 1
    assert seen["sse"] > 200
    assert seen["aws"] > 20
    assert seen["ndjson"] >= 1
