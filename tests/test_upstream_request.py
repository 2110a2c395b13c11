"""What goes out is exactly one request."""

from collections.abc import AsyncIterator

import pytest

from douane.call import Target
from douane.upstream.request import encode, repeatable

TARGET = Target("https", "api.example.com", 443)
SECRET = b"sk-" + b"a" * 20


def head(headers: list[tuple[bytes, bytes]], body: bytes = b"{}", method: bytes = b"POST",
         path: bytes = b"/v1/x?y=1") -> bytes:
    return encode(TARGET, method, path, headers, body)


def test_a_head_is_written_in_order_with_the_target_as_host() -> None:
    assert head([(b"b", b"2"), (b"a", b"1"), (b"b", b" 3\t")]) == (
        b"POST /v1/x?y=1 HTTP/1.1\r\nhost: api.example.com\r\nb: 2\r\na: 1\r\nb:  3\t\r\ncontent-length: 2\r\n\r\n")


@pytest.mark.parametrize(("target", "authority"), [
    (Target("http", "llm.internal", 8000), b"llm.internal:8000"),
    (Target("http", "llm.internal", 80), b"llm.internal"),
    (Target("https", "::1", 8443, address="::1"), b"[::1]:8443"),
])
def test_host_is_the_targets_authority(target: Target, authority: bytes) -> None:
    assert b"\r\nhost: " + authority + b"\r\n" in encode(target, b"GET", b"/", [(b"Host", b"evil.example")], b"")
    assert b"evil" not in encode(target, b"GET", b"/", [(b"Host", b"evil.example")], b"")


@pytest.mark.parametrize("name", [
    b"Host", b"content-length", b"Content-Length", b"TRANSFER-ENCODING", b"connection", b"Keep-Alive", b"te",
    b"Trailer", b"upgrade", b"Proxy-Authorization", b"proxy-connection", b"Proxy-Foo", b"expect"])
def test_framing_and_hop_by_hop_fields_are_dropped(name: bytes) -> None:
    assert head([(name, b"77"), (b"x-kept", b"1")]) == head([(b"x-kept", b"1")])


def test_fields_that_connection_names_are_dropped() -> None:
    given = [(b"x-hop", b"1"), (b"connection", b"close, X-Hop"), (b"x-end", b"2"), (b"connection", b"x-other"),
             (b"X-Other", b"3")]
    assert head(given) == head([(b"x-end", b"2")])
    assert b"host: api.example.com" in head([(b"connection", b"host")])


@pytest.mark.parametrize(("method", "body", "length"), [
    (b"POST", b"", b"content-length: 0"), (b"PUT", b"", b"content-length: 0"), (b"GET", b"", b""),
    (b"DELETE", b"", b""), (b"DELETE", b"abc", b"content-length: 3")])
def test_length_is_written_where_it_means_something(method: bytes, body: bytes, length: bytes) -> None:
    expected = b"\r\n".join(filter(None, [method + b" / HTTP/1.1", b"host: api.example.com", length])) + b"\r\n\r\n"
    assert head([], body, method, b"/") == expected


def test_an_iterable_goes_out_in_chunks() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b""

    assert encode(TARGET, b"POST", b"/", [(b"content-length", b"9")], body()).endswith(
        b"\r\nhost: api.example.com\r\ntransfer-encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("evil", [b"\r", b"\n", b"\r\n", b"\0", b"\r\nx: y", b"\n\nGET / HTTP/1.1"])
@pytest.mark.parametrize("place", ["method", "path", "name", "value"])
def test_line_breaks_and_nul_are_refused_everywhere(evil: bytes, place: str) -> None:
    for mixed in (evil, b"a" + evil, evil + b"a", b"a" + evil + b"a"):
        with pytest.raises(ValueError, match=r"^(the request's|a header's name|the header)") as caught:
            head([(b"x" + mixed if place == "name" else b"x", SECRET + (mixed if place == "value" else b""))],
                 method=b"POST" + (mixed if place == "method" else b""),
                 path=b"/" + (mixed if place == "path" else b""))
        assert SECRET.decode() not in str(caught.value)


@pytest.mark.parametrize("path", [b"", b"x", b"*", b"/a b", b"/ HTTP/1.1", b"http://x/", b"/\t", b"/\x7f"])
def test_paths_that_are_no_path_are_refused(path: bytes) -> None:
    with pytest.raises(ValueError, match="path"):
        head([], path=path)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b" a", "ä".encode(), b"a\t"])
def test_names_that_are_no_token_are_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="name"):
        head([(name, b"1")])


@pytest.mark.parametrize("method", [b"", b"GET /", b"G(T"])
def test_methods_that_are_no_token_are_refused(method: bytes) -> None:
    with pytest.raises(ValueError, match="method"):
        head([], method=method)


@pytest.mark.parametrize(("method", "headers", "may"), [
    (b"GET", [], True), (b"PUT", [], True), (b"DELETE", [], True), (b"POST", [], False), (b"PATCH", [], False),
    (b"POST", [(b"Idempotency-Key", b"1")], True), (b"POST", [(b"x-idempotency-key", b"1")], True),
    (b"POST", [(b"x-not-idempotency-key", b"1")], False), (b"POST", [(b"x", b"idempotency-key: 1")], False)])
def test_only_what_may_be_processed_twice_is_repeatable(method: bytes, headers: list[tuple[bytes, bytes]],
                                                        may: bool) -> None:
    assert repeatable(method, head(headers, method=method)) is may
