"""An answer is complete only when its framing says so. Sans-io: every cut, every byte alone, every kind of nonsense."""

import pytest

from douane.upstream.reader import MalformedError, Reader

OK = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
BODY = b"hello, world"
LENGTH = OK + b"X-One: 1\r\nContent-Length: 12\r\n\r\n" + BODY
CHUNKED = OK + b"transfer-encoding: Chunked\r\n\r\n5;ext=1\r\nhello\r\n7\r\n, world\r\n0\r\nx-trailer: 1\r\n\r\n"
CLOSE = OK + b"x-one: 1\r\n\r\n" + BODY


def read(*pieces: bytes, method: bytes = b"POST", max_head: int = 65536) -> tuple[Reader, bytes]:
    reader = Reader(max_head)
    reader.expect(method)
    body = b""
    for piece in pieces:
        reader.feed(piece)
        body += b"".join(reader.pieces)
        reader.pieces = []
    return reader, body


@pytest.mark.parametrize("prefix", [b"", INTERIM], ids=["plain", "interim"])
@pytest.mark.parametrize("raw", [LENGTH, CHUNKED, CLOSE], ids=["length", "chunked", "close"])
def test_every_cut_in_two_and_every_byte_alone_read_the_same(raw: bytes, prefix: bytes) -> None:
    raw = prefix + raw
    cuts = [(raw[:at], raw[at:]) for at in range(1, len(raw))]
    for pieces in [(raw,), tuple(raw[at:at + 1] for at in range(len(raw))), *cuts]:
        reader, body = read(*pieces)
        assert (reader.status, body) == (200, BODY)
        assert reader.complete or reader.eof()
        assert [name for name, _ in reader.headers if name != b"content-length"] in ([b"x-one"], [])
    assert reader.reusable == (raw != prefix + CLOSE)


@pytest.mark.parametrize("raw", [LENGTH, CHUNKED, CLOSE], ids=["length", "chunked", "close"])
def test_a_prefix_is_never_complete(raw: bytes) -> None:
    for at in range(len(raw)):
        reader, body = read(*[raw[:at]] if at else [])
        assert not reader.complete
        assert BODY.startswith(body)
        assert reader.eof() == (raw is CLOSE and at >= raw.index(b"\r\n\r\n") + 4)


@pytest.mark.parametrize(("raw", "flaw"), [
    (OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n", "Content-Length"),
    (OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n", "Content-Length"),
    (OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi", "Content-Length"),
    (OK + b"content-length: 2, 3\r\n\r\nhi", "Content-Length"),
    (OK + b"content-length: -2\r\n\r\nhi", "Content-Length"),
    (OK + b"content-length: 99999999999999999999999\r\n\r\n", "Content-Length"),
    (OK + b"transfer-encoding: gzip, chunked\r\n\r\n", "coding other than chunked"),
    (OK + b"transfer-encoding: identity\r\n\r\n", "coding other than chunked"),
    (OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", "."),
    (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", "chunk size"),
    (OK + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffffff\r\n", "overflow"),
    (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhixx\r\n", "chunk data"),
    (OK + b"a: b\r\n c\r\n\r\n", "whitespace"),
    (OK + b"a: b\rc\r\n\r\n", "."), (OK + b"a: b\nc: d\r\n\r\n", "."), (OK + b"a: b\0\r\n\r\n", "header value"),
    (OK + b"a b: c\r\n\r\n", "token"), (OK + b"a : c\r\n\r\n", "token"), (OK + b": c\r\n\r\n", "token"),
    (b"HTTP/1.1 200 OK\n\n", "."), (b"HTTP/2.0 200 OK\r\n\r\n", "HTTP/2.0"), (b"SSH-2.0-OpenSSH_9\r\n", "."),
    (b"HTTP/1.1 1000 OK\r\n\r\n", "status"), (b"HTTP/1.1 099 OK\r\n\r\n", "status 99"),
    (b"\x15\x03\x01\x00\x02\x02", "."),
    (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "status 101"),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "status 101"),
    (b"HTTP/1.1 103 Early Hints\r\ncontent-length: 2\r\n\r\nhi", "interim"),
    (b"HTTP/1.1 100 Continue\r\ntransfer-encoding: chunked\r\n\r\n", "interim"),
])
def test_nonsense_is_refused_however_it_is_cut(raw: bytes, flaw: str) -> None:
    with pytest.raises(MalformedError, match=flaw):
        read(raw)
    with pytest.raises(MalformedError, match=flaw):
        read(*[raw[at:at + 1] for at in range(len(raw))])


@pytest.mark.parametrize(("method", "raw", "length"), [
    (b"HEAD", OK + b"content-length: 12\r\n\r\n", b"12"),
    (b"HEAD", OK + b"transfer-encoding: chunked\r\n\r\n", None),
    (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\n\r\n", b"12"),
    (b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", None),
    (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    (b"DELETE", b"HTTP/1.1 204 No Content\r\ncontent-length: 12\r\n\r\n", None),
])
def test_answers_without_a_body_end_with_their_head(method: bytes, raw: bytes, length: bytes | None) -> None:
    reader, body = read(raw, method=method)
    assert (reader.complete, reader.reusable, body) == (True, True, b"")
    assert dict(reader.headers).get(b"content-length") == length
    reader.expect(b"GET")  # the next answer on the connection is read from its start
    reader.feed(LENGTH)
    assert (reader.status, b"".join(reader.pieces), reader.complete, reader.reusable) == (200, BODY, True, True)


@pytest.mark.parametrize("raw", [LENGTH, CHUNKED, b"HTTP/1.1 204 No Content\r\n\r\n",
                                 OK + b"content-length: 0\r\nconnection: close\r\n\r\n"])
@pytest.mark.parametrize("extra", [
    b"x", b"\0", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"HTTP/1.1 204 No Content\r\n\r\n"])
def test_bytes_after_an_answer_are_no_part_of_it_and_spend_the_connection(raw: bytes, extra: bytes) -> None:
    plain, expected = read(raw)
    reader, body = read(raw + extra)
    assert (reader.status, reader.headers, body) == (plain.status, plain.headers, expected)
    assert (reader.complete, reader.reusable) == (True, False)


def test_a_body_after_the_answer_to_head_is_no_part_of_it() -> None:
    reader, body = read(LENGTH, method=b"HEAD")
    assert (reader.complete, reader.reusable, body) == (True, False, b"")


@pytest.mark.parametrize(("raw", "reusable"), [
    (OK + b"content-length: 0\r\nconnection: close\r\n\r\n", False),
    (OK + b"content-length: 0\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\n\r\n", True),
    (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
    (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", True),
    (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n0\r\n\r\n", False),
])
def test_the_connection_is_kept_only_as_the_answer_says(raw: bytes, reusable: bool) -> None:
    reader, _ = read(raw)
    assert (reader.complete, reader.reusable) == (True, reusable)
    assert {name for name, _ in reader.headers} <= {b"content-length"}


def test_hop_by_hop_fields_end_here_and_names_are_lower_case() -> None:
    raw = (b"X-Kept: A\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: x\r\nTE: x\r\n"
           b"Connection: X-Hop, close\r\nx-hop: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n")
    reader, _ = read(OK + raw)
    cookies = [(b"set-cookie", b"a"), (b"set-cookie", b"b")]
    assert reader.headers == [(b"x-kept", b"A"), *cookies, (b"content-length", b"0")]


@pytest.mark.parametrize("size", [1, 100, 100_000])
@pytest.mark.parametrize("raw", [
    OK + b"x-long: " + b"a" * 2000 + b"\r\n\r\n", OK + b"x: y\r\n" * 400 + b"\r\n",
    OK + b"x-endless: " + b"a" * 3000, b"HTTP/1.1 200 " + b"a" * 3000,
    b"HTTP/1.1 103 Hint\r\nx: y\r\n\r\n" * 80,
    OK + b"transfer-encoding: chunked\r\n\r\n1;" + b"e" * 3000,
    OK + b"transfer-encoding: chunked\r\n\r\n0\r\nx-trailer: " + b"a" * 3000,
], ids=["field", "fields", "endless field", "endless reason", "interim heads", "extension", "trailer"])
def test_heads_and_framing_are_bounded(raw: bytes, size: int) -> None:
    with pytest.raises(MalformedError, match="more than 1024 bytes"):
        read(*[raw[at:at + size] for at in range(0, len(raw), size)], b"" if size == 1 else b"z" * 1100, max_head=1024)


def test_a_head_within_the_bound_passes_whatever_comes_with_it() -> None:
    raw = OK + b"content-length: 5000\r\nx: " + b"a" * 900 + b"\r\n\r\n" + b"b" * 5000
    assert read(raw, max_head=1024)[1] == b"b" * 5000
