"""Law 5 at its root: however a stream is cut, the same events, and every byte again."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.errors import RefusedError
from douane.providers.sse import Event, Splitter, parse
from tests import wire

STREAM = ("\ufeff: hello\n\nevent: a\ndata: {\"t\":\"é🙂\"}\n\ndata: one\r\ndata:two\r\nid: 7\r\n\r\n"
          "data: x\rdata: y\r\r\n\n\ndata: [DONE]\n\ndata: cut").encode()


def cut(stream: bytes, *places: int) -> list[Event]:
    splitter = Splitter()
    edges = pairwise([0, *sorted(places), len(stream)])
    events = [event for start, end in edges for event in splitter.feed(stream[start:end])]
    return events + splitter.close()


def reference(stream: bytes) -> list[tuple[str, bytes]]:
    """The standard's own algorithm, line by line, over the whole; a last event without its empty line counts too."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found, name, data = [], "", list[bytes]()
    for line in [*text.split(b"\n"), b""]:
        if not line:
            if data:
                found.append((name, b"\n".join(data)))
            name, data = "", []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"event:"):
            name = line[6:].removeprefix(b" ").decode("utf-8", "replace")
    return [pair for pair in found if pair[1]]


def told(events: list[Event]) -> list[tuple[str, bytes]]:
    return [(event.name, event.data) for event in events if event.data]


def test_events_of_every_line_end() -> None:
    assert told(cut(STREAM)) == [
        ("a", '{"t":"é🙂"}'.encode()), ("", b"one\ntwo"), ("", b"x\ny"), ("", b"[DONE]"), ("", b"cut")]


def test_cut_at_every_byte_and_every_pair_of_bytes() -> None:
    whole = cut(STREAM)
    assert b"".join(event.raw for event in whole) == STREAM
    for first in range(len(STREAM)):
        assert cut(STREAM, first) == whole
        for second in range(first, len(STREAM), 7):
            assert cut(STREAM, first, second) == whole
    assert cut(STREAM, *range(1, len(STREAM))) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: a", b"data:", b"event: e", b":c", b"x", b"\xc3\xa9"])),
       st.randoms(use_true_random=False))
def test_any_stream_any_cut(parts: list[bytes], chance: random.Random) -> None:
    stream = b"".join(parts)
    whole = cut(stream)
    assert told(whole) == reference(stream)
    assert b"".join(event.raw for event in whole) == stream
    assert cut(stream, *(chance.randrange(len(stream) + 1) for _ in range(4))) == whole


def test_recorded_streams() -> None:
    chance = random.Random(5)
    seen = 0
    for record in wire.records("openai", "anthropic"):
        if record.get("stream"):
            body = wire.answer(record)
            whole = cut(body)
            assert told(whole) == reference(body)
            assert cut(body, *(chance.randrange(len(body) + 1) for _ in range(20))) == whole
            seen += 1
    assert seen > 100


def test_comment_and_stray_lines_have_no_data() -> None:
    assert parse(b": OPENROUTER PROCESSING\n\n") == Event(b": OPENROUTER PROCESSING\n\n", "", b"")
    assert parse(b"\n\n").data == b""
    assert parse(b"data\n\n").data == b""


@pytest.mark.parametrize("size", [1, 3, 40, 1000])
def test_an_event_has_a_limit_however_it_comes(size: int) -> None:
    def feed(length: int) -> None:
        splitter = Splitter(limit=100)
        stream = b"data: 1\n\ndata: " + b"x" * (length - 8) + b"\n\n"
        for start in range(0, len(stream), size):
            splitter.feed(stream[start:start + size])

    feed(100)
    with pytest.raises(RefusedError) as refused:
        feed(101)
    assert refused.value.code == "too_large"
