"""The way of an answer's bytes: the same bytes where nothing changed, the same text however it is cut."""

import gzip
import os
import zlib
from collections.abc import Callable, Sequence

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.answer import AnswerPipe
from douane.call import Headers
from douane.echo import EchoMask
from douane.errors import UpstreamError
from douane.policy import BodyFilter
from douane.providers.base import Reading
from douane.providers.framing import SSE, Framing

TEXT = b'data: {"choices":[{"delta":{"content":"the quick brown fox"}}]}\n\n' * 6 + b"data: [DONE]\n\n"
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda text: gzip.compress(text, mtime=0), "br": brotli.compress, "zstd": zstandard.compress,
    "deflate": zlib.compress}
LIMIT = 1 << 20


def decoded(coding: str, start: bytes) -> bytes:
    """What can be read of the *start* of a coded body."""
    readers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": zlib.decompressobj(31).decompress, "deflate": zlib.decompressobj().decompress,
        "br": brotli.Decompressor().process, "zstd": zstandard.ZstdDecompressor().decompressobj().decompress}
    return readers[coding](start)


class Kept:
    """A meter that keeps what it is fed."""

    ended = False

    def __init__(self) -> None:
        self.text = b""

    def feed(self, chunk: bytes) -> None:
        self.text += chunk

    def reading(self) -> Reading:
        return Reading()


class Replace:
    """Replaces *old*, holding back what may yet become one; *new* may have another length. Names itself in a header."""

    def __init__(self, old: bytes, new: bytes, *, rewrites: bool = True) -> None:
        self.old, self.new, self.rewrites = old, new, rewrites
        self.tail = b""

    def headers(self, headers: Headers) -> Headers:
        return (*headers, (b"x-replaced", self.old))

    def feed(self, chunk: bytes) -> bytes:
        text = (self.tail + chunk).replace(self.old, self.new)
        keep = next((n for n in range(len(self.old) - 1, 0, -1) if text.endswith(self.old[:n])), 0)
        self.tail = text[len(text) - keep:]
        return text[:len(text) - keep]

    def close(self) -> bytes:
        tail, self.tail = self.tail, b""
        return tail


class HoldAll:
    """Lets nothing go before the end."""

    rewrites = False

    def __init__(self) -> None:
        self.held = b""

    def headers(self, headers: Headers) -> Headers:
        return headers

    def feed(self, chunk: bytes) -> bytes:
        self.held += chunk
        return b""

    def close(self) -> bytes:
        return self.held


def through(pieces: Sequence[bytes], coding: str = "", filters: Sequence[BodyFilter] = (), *, meter: Kept | None = None,
            limit: int = LIMIT, framing: Framing | None = None) -> list[bytes]:
    """What leaves after each piece, and at the end."""
    pipe = AnswerPipe(meter, filters, limit)
    pipe.start((), coding.encode(), framing=framing)
    return [*map(pipe.feed, pieces), pipe.close()]


def cuts(body: bytes) -> list[list[bytes]]:
    return [[body[:at], body[at:]] for at in range(len(body) + 1)]


@pytest.mark.parametrize("coding", ["", *CODERS])
def test_unchanged_answers_leave_byte_for_byte_and_the_meter_reads_them_decoded(coding: str) -> None:
    body = CODERS[coding](TEXT) if coding else TEXT
    for pieces in [*cuts(body), [body[i:i + 1] for i in range(len(body))]]:
        meter = Kept()
        assert b"".join(through(pieces, coding, [EchoMask("sk-none")], meter=meter)) == body
        assert meter.text == TEXT


@pytest.mark.parametrize("coding", ["", *CODERS])
def test_without_a_filter_each_piece_leaves_at_once(coding: str) -> None:
    body = CODERS[coding](TEXT) if coding else TEXT
    pieces = [body[:7], body[7:30], body[30:]]
    assert through(pieces, coding, meter=Kept()) == [*pieces, b""]


def test_a_filter_that_holds_nothing_back_delays_nothing() -> None:
    pieces = [TEXT[:9], TEXT[9:]]
    assert through(pieces, filters=[EchoMask("sk-none")]) == [*pieces, b""]


def test_without_meter_and_filters_a_coding_is_not_looked_at() -> None:
    assert through([b"\x00\xff"], "compress") == [b"\x00\xff", b""]


@pytest.mark.parametrize("coding", ["compress", "gzip, gzip", "gzip,br", "x"])
def test_a_coding_that_is_not_read_is_refused_at_the_head(coding: str) -> None:
    for filters, meter in (([EchoMask("k" * 8)], None), ([], Kept())):
        with pytest.raises(UpstreamError, match="in a coding that we do not read") as caught:
            AnswerPipe(meter, filters, LIMIT).start((), coding.encode(), framing=None)
        assert caught.value.code == "upstream_error"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([b"ab", b"aba", b"a", b"b", b"xyz", b"\n"]), max_size=12), st.integers(1, 5))
def test_changing_filters_give_the_same_text_however_it_is_cut(parts: list[bytes], size: int) -> None:
    def filters() -> list[BodyFilter]:
        return [Replace(b"abab", b"<first>"), Replace(b"rst>x", b"-"), HoldAll()]

    text = b"".join(parts)
    whole = b"".join(through([text], filters=filters()))
    assert whole == text.replace(b"abab", b"<first>").replace(b"rst>x", b"-")
    assert b"".join(through(parts, filters=filters())) == whole
    assert b"".join(through([text[i:i + size] for i in range(0, len(text), size)], filters=filters())) == whole
    for pieces in cuts(text):
        assert b"".join(through(pieces, filters=filters())) == whole


def test_what_one_filter_held_to_the_end_goes_through_those_after_it() -> None:
    assert through([b"one two"], filters=[HoldAll(), Replace(b"two", b"2")]) == [b"", b"one 2"]
    assert through([b"a tw"], filters=[Replace(b"two", b"2"), Replace(b"tw", b"!")]) == [b"a ", b"!"]


@pytest.mark.parametrize("coding", CODERS)
def test_a_filter_that_holds_everything_sees_a_coded_answer_leave_whole(coding: str) -> None:
    body = CODERS[coding](TEXT)
    head, rest, tail = through([body[:20], body[20:]], coding, [HoldAll()])
    assert head + rest + tail == body
    assert rest == b""
    assert decoded(coding, head) == b"", "a piece may leave before the text it is of, if nothing can be read of it"


@pytest.mark.parametrize("coding", CODERS)
def test_a_change_in_a_coded_answer_is_refused_and_nothing_of_it_leaves(coding: str) -> None:
    key = "sk-" + "k" * 20
    body = CODERS[coding](b"your key is " + key.encode() + b", is it not?")
    for pieces in cuts(body):
        pipe = AnswerPipe(None, [EchoMask(key)], LIMIT)
        pipe.start((), coding.encode(), framing=None)
        out: list[bytes] = []
        with pytest.raises(UpstreamError, match="something that must not pass"):
            out.extend(pipe.feed(piece) for piece in pieces)
        assert b"sk-" not in decoded(coding, b"".join(out))


def test_a_key_cut_in_two_by_coded_pieces_is_held_with_its_first_half() -> None:
    """The pieces are flushed, so that the first decodes to half a key: it must not leave before the second is known."""
    coder = zlib.compressobj(wbits=31)
    first = coder.compress(b"key sk-kk") + coder.flush(zlib.Z_SYNC_FLUSH)
    fine = coder.copy()
    pipe = AnswerPipe(None, [EchoMask("sk-kkkkkk")], LIMIT)
    pipe.start((), b"gzip", framing=None)
    assert pipe.feed(first) == b""
    with pytest.raises(UpstreamError):
        pipe.feed(coder.compress(b"kkkk") + coder.flush())
    harmless = fine.compress(b"!") + fine.flush()
    assert through([first, harmless], "gzip", [EchoMask("sk-kkkkkk")]) == [b"", first + harmless, b""]


def test_a_coded_answer_that_must_be_seen_is_bounded() -> None:
    body = gzip.compress(b"a" * 5000)
    assert b"".join(through([body[:20], body[20:]], "gzip", [HoldAll()], limit=5000)) == body
    for one in (HoldAll(), EchoMask("k" * 8)):
        with pytest.raises(UpstreamError, match="cannot be read: the body decodes to more than 4999 bytes"):
            through([body], "gzip", [one], limit=4999)


@pytest.mark.parametrize("coding", CODERS)
def test_a_broken_coded_answer_is_refused_where_a_filter_must_see_it_whole(coding: str) -> None:
    body = CODERS[coding](os.urandom(500))
    for length in (1, len(body) // 2, len(body) - 1):
        with pytest.raises(UpstreamError, match="cannot be read") as caught:
            through([body[:length]], coding, [EchoMask("k" * 8)], meter=Kept())
        assert caught.value.code == "upstream_error"
    for broken in (b"\xff\xfe\xfd no such coding, whatever its head says" * 3, body + b"garbage after its end"):
        with pytest.raises(UpstreamError, match="cannot be read"):
            through([broken], coding, [EchoMask("k" * 8)])
    assert through([], coding, [EchoMask("k" * 8)]) == [b""], "no body at all (204, HEAD) is whole"


@pytest.mark.parametrize("coding", CODERS)
def test_a_broken_coded_answer_that_only_the_meter_would_read_passes_as_it_came(coding: str) -> None:
    body = CODERS[coding](TEXT)
    for pieces in ([body[:-1]], [b"\xff\xfe\xfd nothing", b"of the sort"], [body[:9], b"\xff" * 50, body[9:]]):
        assert through(pieces, coding, meter=Kept()) == [*pieces, b""]
    meter = Kept()
    assert through([body, body], coding, meter=meter, limit=10) == [body, body, b""]
    assert len(meter.text) <= 10, "beyond the limit the meter reads no more"


# -- streams of events -------------------------------------------------------------------------------------------------

MIXED = b"data: 1\n\n: note\r\n\r\nevent: x\ndata: sk-none\ndata: 2\n\r\ndata: 3\r\n\ndata: [DONE]\n\nrest"
ENDS = (b"\n\n", b"\n\r\n")


@pytest.mark.parametrize("filters", [0, 1])
def test_only_whole_events_leave_and_none_waits(filters: int) -> None:
    """However it is cut: what has left always ends an event, and holds every event whose end has come."""
    held = [EchoMask("sk-never") for _ in range(filters)]
    for pieces in [*cuts(MIXED), *([MIXED[i:i + size] for i in range(0, len(MIXED), size)] for size in (1, 2, 7))]:
        *out, tail = through(pieces, filters=held, framing=SSE, meter=Kept())
        assert b"".join(out) + tail == MIXED
        for number in range(1, len(out) + 1):
            come, left = b"".join(pieces[:number]), b"".join(out[:number])
            assert left.endswith(ENDS) or not left
            assert len(left) == max((come.rfind(end) + len(end) for end in ENDS if end in come), default=0)


def test_a_piece_that_is_an_event_is_not_touched() -> None:
    event = b"data: 1\n\n"
    assert through([event, event], framing=SSE) == [event, event, b""]
    assert through([event], framing=SSE)[0] is event


def test_an_event_longer_than_any_is_passed_on_in_pieces() -> None:
    piece = b"x" * 400_000
    *out, tail = through([piece] * 4 + [b"\n\n"], framing=SSE)
    assert b"".join(out) + tail == piece * 4 + b"\n\n"
    assert out[:2] == [b"", b""]
    assert out[2] == piece * 3


def test_a_filter_that_changes_events_changes_them_however_they_are_cut() -> None:
    whole = b"".join(through([MIXED], filters=[Replace(b"note", b"n\n\n"), EchoMask("sk-none")], framing=SSE))
    assert whole == MIXED.replace(b"note", b"n\n\n").replace(b"sk-none", b"*******")
    for pieces in cuts(MIXED):
        assert b"".join(through(pieces, filters=[Replace(b"note", b"n\n\n"), EchoMask("sk-none")], framing=SSE)) == whole


def test_a_rewriting_filter_takes_the_length_away() -> None:
    head = ((b"content-length", b"10"), (b"a", b"b"))
    mild = AnswerPipe(None, [Replace(b"x", b"y", rewrites=False)], LIMIT)
    assert mild.start(head, b"", framing=None) == (*head, (b"x-replaced", b"x"))
    changing = AnswerPipe(None, [Replace(b"x", b"y", rewrites=False), Replace(b"z", b"")], LIMIT)
    assert changing.start(head, b"", framing=None) == ((b"a", b"b"), (b"x-replaced", b"x"), (b"x-replaced", b"z"))
