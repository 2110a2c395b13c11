"""Side doors: everything a client can send that is not a clean request to the host it asked for.

Raw sockets against a real gateway process. What is refused must not have reached the provider by a single request or
connection (:func:`tests.gateway.untouched`), and the gateway must still answer a clean call afterwards.
"""

import base64
import contextlib
import gzip
import json
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from douane.demo.provider import LocalProvider, Raw, Reply, Seen, Step, running_provider
from douane.edge import canonical_host
from tests.gateway import (
    BOT_KEY,
    CHAT,
    REAL_KEY,
    Gateway,
    Got,
    Wire,
    answering,
    chat,
    hello,
    policy,
    request,
    running_gateway,
    untouched,
    wait_for,
)

LIMIT = 256 * 1024
MB = 1024 * 1024
DEAD = "dead-" + "0123456789"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one
        torn = [seen.head for seen in one.seen if seen.ended == "malformed" or not seen.method]
        assert not torn, "pieces of requests reached the provider"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    text = policy(provider, more="edge: {max_body: 256KB}")
    with running_gateway(tmp_path_factory.mktemp("gateway"), text) as one:
        yield one


def call(gateway: Gateway, data: bytes, *, host: str = "api.openai.com", sni: str | None = "", method: str = "POST",
         head: bytes = b"") -> Got:
    """One request in a tunnel of its own."""
    with Wire.tls(gateway, host, sni=sni, head=head) as wire:
        wire.send(data)
        return wire.answer(method)


def plain(gateway: Gateway, data: bytes) -> Got:
    """One request to the proxy port itself."""
    with Wire.to(gateway.proxy) as wire:
        wire.send(data)
        return wire.answer()


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def basic(user: str, password: str) -> bytes:
    return b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(f"{user}:{password}".encode())


def event(gateway: Gateway, host: str) -> dict[str, str]:
    """The event ``refused`` for *host*."""
    return wait_for(lambda: next((one for one in gateway.records() if one.get("event") == "refused"
                                  and one["host"] == host), {}))


# -- names that do not agree ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sni", "host"), [
    ("api.anthropic.com", "api.openai.com"), ("example.com", "api.openai.com"),
    ("", "api.anthropic.com"), ("", "api.openai.com:8443"), ("", "api.openai.com.evil.example"), ("", "api.openai.com, x"),
    ("", "[::1]"), ("", "api.openai.com@evil.example"), (None, "us.api.openai.com")])
def test_names_must_agree(gateway: Gateway, provider: LocalProvider, sni: str | None, host: str) -> None:
    with untouched(provider):
        got = call(gateway, request(chat(), host=host), sni=sni)
    assert (got.status, got.code) == (421, "host_mismatch")
    assert got.json["error"]["code"] == "host_mismatch"
    assert got.header("x-should-retry") == "false"
    assert gateway.outcome(got.id)["verdict"]["code"] == "host_mismatch"


@pytest.mark.parametrize("host", ["api.openai.com", "API.OpenAI.com", "api.openai.com:443", "api.openai.com."])
@pytest.mark.parametrize("sni", ["", None])
def test_spellings_of_one_name_agree(gateway: Gateway, sni: str | None, host: str) -> None:
    assert call(gateway, request(chat(), host=host), sni=sni).status == 200


def test_anthropic_refuses_in_its_own_shape(gateway: Gateway, provider: LocalProvider) -> None:
    with untouched(provider):
        got = call(gateway, request(chat(), target="/v1/messages"), host="api.anthropic.com")
    assert got.status == 421
    assert got.json["type"] == "error"


# -- tunnels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["api.openai.com", "API.openai.com", "api.anthropic.com"])
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_tunnel_to_elsewhere_carries_no_governed_name(gateway: Gateway, provider: LocalProvider, name: str,
                                                        size: int) -> None:
    where = f"127.0.0.1:{provider.port}"
    before = len(provider.seen), provider.connections
    wire, got = Wire.tunnel(gateway, where)
    with wire:
        assert got.status == 200
        data = hello(name)
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), size):
            wire.send(data[at:at + size])
        assert wire.ended()
    assert event(gateway, where)["code"] == "host_mismatch"
    assert (len(provider.seen), provider.connections) == before  # no handshake was done there


def test_a_broken_client_hello_ends_the_tunnel(gateway: Gateway, provider: LocalProvider) -> None:
    wire, got = Wire.tunnel(gateway, f"127.0.0.1:{provider.port}")
    with wire, untouched(provider):
        assert got.status == 200
        wire.send(b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff")
        wire.send(b"\x16\x03\x01\xff\xff" + b"x" * 65535)
        assert wire.ended()


def test_a_tunnel_shows_the_origins_own_certificate(gateway: Gateway, provider: LocalProvider) -> None:
    wire, got = Wire.tunnel(gateway, f"localhost:{provider.port}")
    with wire:
        assert got.status == 200
        context = ssl.create_default_context(cafile=str(provider.ca))
        wire.sock = context.wrap_socket(wire.sock, server_hostname="localhost")
        wire.send(request(chat(), host="localhost", headers=[("Authorization", "Bearer own"), ("x-douane-user", "u")]))
        assert wire.answer().status == 200
    assert provider.seen[-1].header("authorization") == "Bearer own"
    assert provider.seen[-1].header("x-douane-user") == "u"  # nobody has looked inside


def test_raw_bytes_after_connect_to_a_governed_host(gateway: Gateway, provider: LocalProvider) -> None:
    for data in (request(chat()), b"\x00\x01\x02\x03", b"\r\n\r\n" + request(chat()), b"SSH-2.0-x\r\n"):
        wire, got = Wire.tunnel(gateway, "api.openai.com:443")
        with wire, untouched(provider):
            assert got.status == 200
            wire.send(data)
            assert wire.ended()


@pytest.mark.parametrize("where", ["169.254.169.254:80", "[fd00:ec2::254]:80", "[::ffff:169.254.169.254]:80",
                                   "[fd20:ce::254]:80", "100.100.100.200:80", "169.254.170.2:80", "2852039166:80",
                                   "0xa9.0xfe.0xa9.0xfe:80"])
def test_metadata_services_are_out_of_reach(gateway: Gateway, where: str) -> None:
    wire, got = Wire.tunnel(gateway, where)
    wire.close()
    assert got.status == 403
    assert b"metadata" in got.body
    got = plain(gateway, request(None, method="GET", target=f"http://{where}/latest/meta-data/", host=where))
    assert got.status == 403
    assert b"metadata" in got.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "127.0.0.2", "2130706433", "127.1",
                                  "localhost."])
def test_the_gateway_is_no_way_to_itself(gateway: Gateway, host: str) -> None:
    for port in (gateway.proxy[1], gateway.admin[1]):
        wire, got = Wire.tunnel(gateway, f"{host}:{port}")
        wire.close()
        assert got.status == 403
        assert b"this gateway itself" in got.body
        got = plain(gateway, request(None, method="GET", target=f"http://{host}:{port}/metrics", host=host))
        assert got.status == 403
    assert event(gateway, f"{canonical_host(host)}:{gateway.admin[1]}")["code"] == "host_not_allowed"


@pytest.mark.parametrize(("where", "reason"), [
    ("api.openai.com:80", b"governed, but not on port 80"), ("api.openai.com:8443", b"not on port 8443"),
    ("API.OPENAI.COM.:444", b"not on port 444"), ("chatgpt.com:443", b"format is not read"),
    ("api.githubcopilot.com:443", b"format is not read"), ("a.b.openai.azure.com:443", b"format is not read"),
    ("xx.api.openai.com:443", b"not in the table")])
def test_hosts_that_are_refused_with_the_reason(gateway: Gateway, provider: LocalProvider, where: str, reason: bytes) -> None:
    with untouched(provider):
        wire, got = Wire.tunnel(gateway, where)
        wire.close()
    assert got.status == 403
    assert reason in got.body
    assert event(gateway, where.lower().replace(".:", ":"))["code"] == "host_not_allowed"


@pytest.mark.parametrize("line", [
    b"CONNECT api.openai.com..:443 HTTP/1.1", b"CONNECT .api.openai.com:443 HTTP/1.1", b"CONNECT api..openai.com:443 HTTP/1.1",
    b"CONNECT api.openai.com HTTP/1.1", b"CONNECT api.openai.com: HTTP/1.1", b"CONNECT api.openai.com:0 HTTP/1.1",
    b"CONNECT api.openai.com:65979 HTTP/1.1", b"CONNECT api.openai.com:+443 HTTP/1.1", b"CONNECT  api.openai.com:443 HTTP/1.1",
    b"CONNECT api.openai.com:443 HTTP/2.0", b"CONNECT api.openai.com:443", b"CONNECT https://api.openai.com:443 HTTP/1.1",
    b"CONNECT u@api.openai.com:443 HTTP/1.1", b"CONNECT api.openai.com%00:443 HTTP/1.1", b"CONNECT [::1:443 HTTP/1.1",
    b"CONNECT \xd0\xb0pi.openai.com:443 HTTP/1.1", b"CONNECT api.openai.com:443 HTTP/1.1\r\n folded: x",
    b"CONNECT api.openai.com:443 HTTP/1.1\r\nA: x\ny", b"CONNECT api.openai.com:443 HTTP/1.1\r\nno colon",
    b"CONNECT api.openai.com:443 HTTP/1.1\r\nProxy-Authorization: Bearer x", b"\r\nCONNECT api.openai.com:443 HTTP/1.1",
    b"connect api.openai.com:443 HTTP/1.1", b"CONNECT api.openai.com:443 HTTP/1.1\r\nA: " + b"x" * 70_000])
def test_what_is_no_connect(gateway: Gateway, provider: LocalProvider, line: bytes) -> None:
    with untouched(provider):
        got = plain(gateway, line + b"\r\n\r\n")
    assert got.status == 400


def test_unknown_proxy_credentials(gateway: Gateway, provider: LocalProvider) -> None:
    with untouched(provider):
        for head in (basic("bot", DEAD), basic("x", DEAD), basic("local", BOT_KEY)):
            wire, got = Wire.tunnel(gateway, "api.openai.com:443", head)
            wire.close()
            assert got.status == 407
            assert got.header("proxy-authenticate").startswith("Basic")
            line = b"GET http://api.openai.com/v1/models HTTP/1.1\r\n"
            got = plain(gateway, line + b"Host: api.openai.com\r\n" + head + b"\r\n")
            assert got.status == 407
    assert DEAD not in gateway.log() + json.dumps(gateway.records())


def test_proxy_credentials_name_the_caller_and_stay_here(gateway: Gateway, provider: LocalProvider) -> None:
    with Wire.tls(gateway, head=basic("bot", BOT_KEY)) as wire:
        wire.send(request(chat(), headers=[("Proxy-Authorization", "Basic Zm9vOmJhcg=="), ("Proxy-Connection", "x")]))
        got = wire.answer()
    assert got.status == 200
    assert gateway.outcome(got.id)["principal"]["name"] == "bot"
    assert b"proxy-" not in provider.seen[-1].head.lower()
    assert BOT_KEY not in gateway.log() + json.dumps(gateway.records())


def test_a_principals_key_as_the_sdks_key_never_goes_on(gateway: Gateway, provider: LocalProvider) -> None:
    got = call(gateway, request(b'{"model":"claude-x","messages":[]}', target="/v1/messages", host="api.anthropic.com",
                                headers=[("x-api-key", BOT_KEY)]), host="api.anthropic.com")
    assert gateway.outcome(got.id)["principal"]["name"] == "bot"
    assert BOT_KEY.encode() not in provider.seen[-1].head + provider.seen[-1].body


# -- the proxy's plain port ----------------------------------------------------------------------------------------


def test_absolute_form_is_governed_too(gateway: Gateway, provider: LocalProvider) -> None:
    for scheme in ("http", "https", "HTTP"):
        got = plain(gateway, request(chat(), target=f"{scheme}://api.openai.com{CHAT}",
                                     headers=[("Authorization", "Bearer app")]))
        assert got.status == 200
        assert gateway.outcome(got.id)["verdict"]["action"] == "allow"
        assert provider.seen[-1].header("authorization") == f"Bearer {REAL_KEY}"
        assert provider.seen[-1].target == CHAT
    with untouched(provider):
        got = plain(gateway, request(chat(model="o1"), target=f"http://api.openai.com{CHAT}"))
        assert got.code == "model_not_allowed"
        got = plain(gateway, request(chat(), target=f"http://api.openai.com{CHAT}", host="example.com"))
        assert got.code == "host_mismatch"
        got = plain(gateway, request(chat(), target=f"http://api.openai.com:8080{CHAT}", host="api.openai.com:8080"))
        assert got.status == 403
        got = plain(gateway, request(None, method="GET", target="http://chatgpt.com/", host="chatgpt.com"))
        assert got.status == 403


def test_a_governed_host_without_a_place_of_its_own_is_not_called_in_plain_http(tmp_path: Path) -> None:
    """Else the real key would travel unencrypted to port 80. (The provider's own name is not reachable from here.)"""
    text = "  other: {like: openai, hosts: [llm.internal], upstream"
    with running_provider(tmp_path / "p") as provider, running_gateway(
            tmp_path, policy(provider).replace("  openai: {upstream", text)) as one:
        got = plain(one, request(chat(), target=f"http://api.openai.com{CHAT}"))
        assert got.status == 403
        assert b"https only" in got.body
        assert plain(one, request(chat(), target=f"http://llm.internal{CHAT}", host="llm.internal")).status in (200, 401)


def test_other_hosts_are_forwarded_unchanged(gateway: Gateway, tmp_path: Path) -> None:
    def script(seen: Seen) -> Reply:
        return Reply(headers=[("x-which", seen.header("host")), ("set-cookie", "a=1"), ("set-cookie", "b=2")], body=seen.body)

    with (running_provider(tmp_path / "a", tls=False, script=script) as one,
          running_provider(tmp_path / "b", tls=False, script=script) as two, Wire.to(gateway.proxy) as wire):
        for other in (one, two, one):
            name = f"127.0.0.1:{other.port}"
            wire.send(request(b"\x00body\xff", target=f"http://{name}/a/../b?x=%2F&y", host=name,
                              headers=[("X-Douane-User", "u"), ("Cookie", "c"), ("Proxy-Connection", "keep-alive")]))
            got = wire.answer()
            assert (got.status, got.body, got.header("x-which")) == (200, b"\x00body\xff", name)
            assert [value for key, value in got.headers if key == "set-cookie"] == ["a=1", "b=2"]
            assert got.id == ""
            assert other.seen[-1].target == "/a/../b?x=%2F&y"
            assert other.seen[-1].header("x-douane-user") == "u"
            assert b"proxy-" not in other.seen[-1].head.lower()
        wire.send(request(None, target=f"http://{name}/up", host=name, headers=[("Transfer-Encoding", "chunked")])
                  + chunked(b"a" * 100_000, b"b" * 100_000))
        assert wire.answer().body == b"a" * 100_000 + b"b" * 100_000
        wire.send(request(None, target=f"http://{name}/", host=name, method="CONNECT"))
        assert wire.answer().status == 400


def test_a_stranger_who_takes_the_proxy_for_a_web_server(gateway: Gateway, provider: LocalProvider) -> None:
    with untouched(provider):
        for data in (request(chat()), request(chat(), target="ftp://api.openai.com/"), request(chat(), target="http:///v1"),
                     request(chat(), target="http://u:p@api.openai.com/"), request(chat(), target="*", method="OPTIONS")):
            assert plain(gateway, data).status == 400
        with Wire.to(gateway.proxy) as wire:
            wire.send(hello("api.openai.com"))
            assert wire.ended()


# -- heads ---------------------------------------------------------------------------------------------------------

BODY = chat()
SMUGGLED: dict[str, bytes] = {
    "absolute-form inside the tunnel": request(BODY, target="https://api.openai.com" + CHAT),
    "absolute-form to another host": request(BODY, target="http://127.0.0.1/"),
    "content-length and chunked": request(BODY, headers=[("Transfer-Encoding", "chunked")]),
    "duplicate content-length": request(BODY, headers=[("Content-Length", str(len(BODY)))]),
    "different content-lengths": request(BODY, headers=[("Content-Length", "5")]),
    "content-length list": request(BODY, framing=False, headers=[("Content-Length", f"{len(BODY)}, {len(BODY)}")]),
    "content-length sign": request(BODY, framing=False, headers=[("Content-Length", f"+{len(BODY)}")]),
    "content-length negative": request(BODY, framing=False, headers=[("Content-Length", "-1")]),
    "content-length hex": request(BODY, framing=False, headers=[("Content-Length", "0x4c")]),
    "content-length huge": request(BODY, framing=False, headers=[("Content-Length", "9" * 40)]),
    "duplicate host": request(BODY, headers=[("Host", "api.openai.com")]),
    "two hosts": request(BODY, headers=[("Host", "evil.example")]),
    "no host": request(BODY, host=None),
    "bare CR": request(BODY, headers=[("X-A", "a\rb")]),
    "bare CR as line end": request(BODY, headers=[("X-A", "a\rTransfer-Encoding: chunked")]),
    "NUL": request(BODY, headers=[("X-A", "a\0b")]),
    "NUL in the target": request(BODY, target="/v1/chat\0/completions"),
    "obs-fold": request(BODY, headers=[("X-A", "a\r\n b")]),
    "obs-fold of transfer-encoding": request(BODY, headers=[("Transfer-Encoding", "\r\n chunked")]),
    "gzip, chunked": request(None, headers=[("Transfer-Encoding", "gzip, chunked")]) + chunked(BODY),
    "chunked, gzip": request(None, headers=[("Transfer-Encoding", "chunked, gzip")]) + chunked(BODY),
    "chunked twice": request(None, headers=[("Transfer-Encoding", "chunked")] * 2) + chunked(BODY),
    "xchunked": request(None, headers=[("Transfer-Encoding", "xchunked")]) + chunked(BODY),
    "identity": request(BODY, headers=[("Transfer-Encoding", "identity")]),
    "space before the colon": request(BODY, headers=[("Transfer-Encoding ", "chunked")]),
    "header without a name": request(BODY, headers=[("", "x")]),
    "header without a colon": request(BODY).replace(b"\r\n\r\n", b"\r\nnocolon\r\n\r\n", 1),
    "bad chunk size": request(None, headers=[("Transfer-Encoding", "chunked")]) + b"zz\r\n" + BODY,
    "chunk size beyond 64 bits": request(None, headers=[("Transfer-Encoding", "chunked")]) + b"f" * 17 + b"\r\n" + BODY,
    "chunk without its CRLF": request(None, headers=[("Transfer-Encoding", "chunked")]) + b"2\r\n{}0\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9,
    "http/0.9": b"GET /v1/models\r\n\r\n",
    "http/3.7": request(BODY).replace(b"HTTP/1.1", b"HTTP/3.7"),
    "CONNECT inside the tunnel": request(None, method="CONNECT", target="evil.example:443"),
    "OPTIONS *": request(None, method="OPTIONS", target="*"),
    "no method": b" /v1/models HTTP/1.1\r\nHost: api.openai.com\r\n\r\n",
    "8 bit target": request(BODY, target=CHAT + "\xff"),
    "space in the target": request(BODY, target=CHAT + " x"),
    "201 header fields": request(BODY, headers=[("X-A", "a")] * 201),
    "70 KB of header": request(BODY, headers=[("X-A", "a" * 70_000)]),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_is_no_clean_request(gateway: Gateway, provider: LocalProvider, name: str) -> None:
    with Wire.tls(gateway) as wire, untouched(provider):
        wire.send(SMUGGLED[name])
        wire.send(request(chat("smuggled")))
        got = wire.answer()
        assert got.status in (0, 400)
        assert wire.ended()


def test_leading_line_breaks_are_skipped(gateway: Gateway, provider: LocalProvider) -> None:
    """RFC 9112 §2.2; what goes on is one clean request all the same."""
    before = len(provider.seen)
    assert call(gateway, b"\r\n\r\n" + request(chat())).status == 200
    assert [seen.method for seen in provider.seen[before:]] == ["POST"]


@pytest.mark.parametrize("name", ["X-A", "x-douane-user"])
def test_a_header_of_60_mb_ends_the_connection(gateway: Gateway, provider: LocalProvider, name: str) -> None:
    before = gateway.peak(reset=True)
    with Wire.tls(gateway) as wire, untouched(provider):
        wire.send(request(None, headers=[(name, "a")])[:-4])
        for _ in range(60):
            wire.send(b"a" * MB)
        assert wire.answer().status in (0, 400)
    with Wire.to(gateway.proxy) as wire:
        wire.send(b"CONNECT api.openai.com:443 HTTP/1.1\r\nX-A: ")
        for _ in range(60):
            wire.send(b"a" * MB)
        assert wire.answer().status in (0, 400)
    assert gateway.peak() - before < 20 * MB


@pytest.mark.parametrize("target", [
    "//v1/chat/completions", "/v1/../v1/chat/completions", "/v1/chat%2fcompletions", "/v1/chat/completions/",
    "/V1/chat/completions", "/v1/chat/completions;x", "/v1/organization/users", "/v1/nothing", "/"])
def test_paths_that_are_no_operation(gateway: Gateway, provider: LocalProvider, target: str) -> None:
    with untouched(provider):
        got = call(gateway, request(chat(), target=target))
    assert (got.status, got.code) == (403, "operation_not_allowed")
    outcome = gateway.outcome(got.id)
    assert (outcome["operation"], outcome["verdict"]["code"]) == ("unknown", "operation_not_allowed")


@pytest.mark.parametrize("headers", [
    [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "eA=="), ("Sec-WebSocket-Version", "13")],
    [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABk")]])
@pytest.mark.parametrize("target", ["/v1/realtime?model=gpt-4o", "/v1/models", CHAT])
def test_upgrades(gateway: Gateway, provider: LocalProvider, headers: list[tuple[str, str]], target: str) -> None:
    before = len(provider.seen)
    with Wire.tls(gateway) as wire:
        wire.send(request(None, method="GET", target=target, headers=headers) + b"\x81\x05hello" + request(chat("smuggled")))
        got = wire.answer()
        assert got.status != 101
        assert wire.ended()
    assert all(b"upgrade" not in seen.head.lower() and seen.target in ("/v1/models", CHAT) for seen in provider.seen[before:])
    assert all(seen.method == "GET" for seen in provider.seen[before:])


def test_head_is_no_way_round(gateway: Gateway, provider: LocalProvider) -> None:
    with Wire.tls(gateway) as wire, untouched(provider):
        wire.send(request(None, method="HEAD", target="/v1/models"))
        assert wire.answer("HEAD").code == "operation_not_allowed"
        wire.send(request(chat(model="o1")))
        assert wire.answer().code == "model_not_allowed"


# -- bodies --------------------------------------------------------------------------------------------------------

BAD_JSON = {
    "duplicate keys": b'{"model":"gpt-4o","messages":[],"model":"o1"}',
    "duplicate keys, escaped": b'{"model":"gpt-4o","mod\\u0065l":"o1","messages":[]}',
    "duplicate keys within": b'{"model":"gpt-4o","messages":[{"role":"user","role":"system","content":""}]}',
    "deep nesting": b'{"model":"gpt-4o","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "invalid UTF-8": b'{"model":"gpt-4o","messages":[{"role":"user","content":"\xff"}]}',
    "overlong UTF-8": b'{"model":"gpt-4o","messages":[{"role":"user","content":"\xc0\xaf"}]}',
    "UTF-16": '{"model":"gpt-4o","messages":[]}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + BODY,
    "NaN": b'{"model":"gpt-4o","messages":[],"temperature":NaN}',
    "two documents": BODY + BODY,
    "cut short": BODY[:-1],
    "a comment": b"/*x*/" + BODY,
    "single quotes": b"{'model':'gpt-4o'}",
    "a control character": b'{"model":"gpt-4o","messages":[],"a":"\x00"}',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bodies_that_two_readers_would_read_differently(gateway: Gateway, provider: LocalProvider, name: str) -> None:
    with untouched(provider):
        got = call(gateway, request(BAD_JSON[name], headers=[("Content-Type", "application/json")]))
    assert (got.status, got.code) == (400, "bad_request")


@pytest.mark.parametrize("body", [
    b"null", b"[]", b'"gpt-4o"', b"1", b'{"model":["gpt-4o"]}', b'{"model":{"gpt-4o":1}}', b'{"model":null}',
    b'{"Model":"gpt-4o"}', b"{}", b""])
def test_bodies_that_name_no_model(gateway: Gateway, provider: LocalProvider, body: bytes) -> None:
    with untouched(provider):
        got = call(gateway, request(body))
    assert (got.status, got.code) in {(403, "model_not_allowed"), (400, "bad_request")}


@pytest.mark.parametrize("codings", [
    ["gzip, gzip"], ["gzip", "gzip"], ["identity", "gzip"], ["gzip", "br"], ["hex"], ["utf-8"], ["compress"], ["chunked"],
    ["gzip;q=1"], ["aws-chunked"]])
def test_codings_that_are_not_read(gateway: Gateway, provider: LocalProvider, codings: list[str]) -> None:
    body = gzip.compress(chat())
    body = gzip.compress(body) if codings == ["gzip, gzip"] else body
    with untouched(provider):
        got = call(gateway, request(body, headers=[("Content-Encoding", one) for one in codings]))
    assert (got.status, got.code) == (415, "unsupported_coding")


@pytest.mark.parametrize(("coding", "body"), [
    ("gzip", gzip.compress(BODY, mtime=0)), ("x-gzip", gzip.compress(BODY, mtime=0)), ("GZIP", gzip.compress(BODY, mtime=0)),
    ("br", brotli.compress(BODY)), ("zstd", zstandard.compress(BODY)), ("deflate", zlib.compress(BODY)), ("identity", BODY)])
def test_codings_that_are_read_pass_as_they_came(gateway: Gateway, provider: LocalProvider, coding: str, body: bytes) -> None:
    with answering(provider, lambda seen: Reply(body=b"{}")):
        got = call(gateway, request(body, headers=[("Content-Encoding", coding)]))
    assert got.status == 200
    assert (provider.seen[-1].body, provider.seen[-1].header("content-encoding")) == (body, coding)
    assert gateway.outcome(got.id)["model"] == "gpt-4o-mini"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate"])
def test_compressed_bodies_are_judged(gateway: Gateway, provider: LocalProvider, coding: str) -> None:
    make = {"gzip": gzip.compress, "br": brotli.compress, "zstd": zstandard.compress, "deflate": zlib.compress}[coding]
    with untouched(provider):
        body = make(chat(model="o1"))
        assert call(gateway, request(body, headers=[("Content-Encoding", coding)])).code == "model_not_allowed"
        for broken in (body[:-4], body + b"x", b"", b"x"):
            got = call(gateway, request(broken, headers=[("Content-Encoding", coding)]))
            assert got.status in (400, 403)


def bomb(coding: str, size: int) -> bytes:
    """*size* bytes of zeros, compressed."""
    zeros = bytes(MB)
    if coding == "br":
        work = brotli.Compressor(quality=5)
        return b"".join(work.process(zeros) for _ in range(size // MB)) + bytes(work.finish())
    if coding == "zstd":
        out = zstandard.ZstdCompressor().compressobj()
        return b"".join(out.compress(zeros) for _ in range(size // MB)) + out.flush()
    gz = zlib.compressobj(9, wbits=31)
    return b"".join(gz.compress(zeros) for _ in range(size // MB)) + gz.flush()


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_decompression_bomb(gateway: Gateway, provider: LocalProvider, coding: str) -> None:
    body = bomb(coding, 200 * MB)
    assert len(body) < LIMIT
    before = gateway.peak(reset=True)
    with untouched(provider):
        got = call(gateway, request(body, headers=[("Content-Encoding", coding)]))
    assert (got.status, got.code) == (413, "too_large")
    assert gateway.peak() - before < 16 * MB


def test_a_body_over_the_limit(gateway: Gateway, provider: LocalProvider) -> None:
    before = gateway.peak(reset=True)
    with untouched(provider):
        got = call(gateway, request(None, headers=[("Content-Length", str(LIMIT + 1))]))
        assert (got.status, got.code) == (413, "too_large")
        for pieces in ([chat("x" * LIMIT)], [b"x" * 50_000] * 8, [b"x"] * 10 + [b"x" * LIMIT]):
            got = call(gateway, request(None, headers=[("Transfer-Encoding", "chunked")]) + chunked(*pieces))
            assert (got.status, got.code) == (413, "too_large")
    assert gateway.outcome(got.id)["ended"] == "denied"
    with Wire.tls(gateway) as wire, untouched(provider):
        wire.send(request(None, headers=[("Transfer-Encoding", "chunked")]))
        for _ in range(60):
            wire.send(b"%x\r\n%b\r\n" % (MB, b"x" * MB))
        assert wire.answer().code == "too_large"
    assert gateway.peak() - before < 20 * MB


def test_a_body_at_the_limit_passes(gateway: Gateway) -> None:
    body = chat("x")
    body = chat("x" * (LIMIT - len(body) + 1))
    assert len(body) == LIMIT
    assert call(gateway, request(body)).status == 200
    assert call(gateway, request(None, headers=[("Transfer-Encoding", "chunked")]) + chunked(body[:9], body[9:])).status == 200


def test_trailers_stay_here(gateway: Gateway, provider: LocalProvider) -> None:
    trailers = b"Authorization: Bearer smuggled\r\nX-Api-Key: smuggled\r\nx-douane-user: smuggled\r\nHost: smuggled\r\n"
    with Wire.tls(gateway) as wire:
        wire.send(request(None, headers=[("Transfer-Encoding", "chunked"), ("Trailer", "Authorization"), ("TE", "trailers")])
                  + chunked(chat())[:-2] + trailers + b"\r\n")
        got = wire.answer()
        assert got.status == 200
        wire.send(request(chat()))
        assert wire.answer().status == 200
    for seen in provider.seen[-2:]:
        assert b"smuggled" not in seen.head
        assert not seen.trailers
        assert b"trailer" not in seen.head.lower()
        assert seen.header("authorization") == f"Bearer {REAL_KEY}"
    assert gateway.outcome(got.id)["principal"]["user"] is None


def test_trailers_without_end(gateway: Gateway, provider: LocalProvider) -> None:
    before = gateway.peak(reset=True)
    with Wire.tls(gateway) as wire, untouched(provider):
        wire.send(request(None, headers=[("Transfer-Encoding", "chunked")]) + chunked(chat())[:-2] + b"X-A: ")
        for _ in range(60):
            wire.send(b"a" * MB)
        wire.answer()
    assert gateway.peak() - before < 20 * MB


def test_chunk_extensions_without_end(gateway: Gateway, provider: LocalProvider) -> None:
    before = gateway.peak(reset=True)
    with Wire.tls(gateway) as wire, untouched(provider):
        wire.send(request(None, headers=[("Transfer-Encoding", "chunked")]) + b"5;a=")
        for _ in range(60):
            wire.send(b"a" * MB)
        wire.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):  # where it reads on, but keeps nothing
            assert wire.answer().status in (0, 400, 413)
    assert gateway.peak() - before < 20 * MB


# -- 100-continue, pipelines, keep-alive ---------------------------------------------------------------------------


def test_expect_with_a_denial_needs_no_body(gateway: Gateway, provider: LocalProvider) -> None:
    for target, size, status in ((CHAT, LIMIT * 9, 413), ("/v1/nothing", 9, 403)):
        with Wire.tls(gateway) as wire, untouched(provider):
            wire.send(request(None, target=target, headers=[("Expect", "100-continue"), ("Content-Length", str(size))]))
            got = wire.answer()
        assert (got.status, got.interim) == (status, ())


def test_expect_with_success(gateway: Gateway, provider: LocalProvider) -> None:
    with Wire.tls(gateway) as wire:
        wire.send(request(None, headers=[("Expect", "100-continue"), ("Content-Length", str(len(BODY)))]))
        wire.sock.settimeout(3)
        while b"\r\n\r\n" not in wire._read:
            assert wire.more()
        assert wire._read == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(BODY)
        got = wire.answer()
    assert (got.status, got.interim) == (200, (100,))
    assert provider.seen[-1].header("expect") == ""


def test_pipelined_requests_are_answered_in_order(gateway: Gateway, provider: LocalProvider) -> None:
    def script(seen: Seen) -> Reply:
        text = json.loads(seen.body)["messages"][0]["content"]
        return Reply(body=json.dumps({"said": text}).encode(), delay=0.1 if text == "0" else 0)

    with answering(provider, script), Wire.tls(gateway) as wire:
        bodies = [chat(str(n), model="o1" if n == 2 else "gpt-4o") for n in range(5)]
        wire.send(b"".join(map(request, bodies)))
        got = [wire.answer() for _ in bodies]
    assert [one.status for one in got] == [200, 200, 403, 200, 200]
    assert [one.json.get("said") for one in got] == ["0", "1", None, "3", "4"]
    assert len({one.id for one in got}) == 5


def test_keep_alive_and_close(gateway: Gateway, provider: LocalProvider) -> None:
    with Wire.tls(gateway) as wire:
        for _ in range(3):
            wire.send(request(chat(model="o1")))
            assert wire.answer().status == 403
            wire.send(request(chat()))
            assert wire.answer().status == 200
        wire.send(request(chat(), headers=[("Connection", "close")]))
        assert wire.answer().status == 200
        assert wire.ended()
    assert b"connection" not in provider.seen[-1].head.lower()


def test_headers_for_us_are_recorded_and_stay_here(gateway: Gateway, provider: LocalProvider) -> None:
    got = call(gateway, request(chat(), headers=[
        ("X-Douane-User", "ann"), ("x-douane-agent", "planner"), ("x-douane-tag-Job", "7"), ("x-douane-other", "x"),
        ("Connection", "x-hop"), ("X-Hop", "secret")]))
    who = gateway.outcome(got.id)["principal"]
    assert (who["name"], who["user"], who["agent"], who["tags"]) == ("local", "ann", "planner", {"job": "7"})
    assert b"douane" not in provider.seen[-1].head.lower()
    assert b"x-hop" not in provider.seen[-1].head.lower()


# -- what providers send -------------------------------------------------------------------------------------------


def test_early_hints_and_trailers_of_a_provider(gateway: Gateway, provider: LocalProvider) -> None:
    raw = Raw([b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", 0.02, b"HTTP/1.1 102 Processing\r\n\r\n",
               b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n",
               b"2\r\n{}\r\n0\r\nx-t: 1\r\nset-cookie: a=1\r\n\r\n"], keep=True)
    with answering(provider, lambda seen: raw), Wire.tls(gateway) as wire:
        for _ in range(2):
            wire.send(request(chat()))
            got = wire.answer()
            assert (got.status, got.body, got.interim, got.whole) == (200, b"{}", (), True)
            assert got.header("set-cookie") == got.header("x-t") == ""


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"nonsense\r\n\r\n", b"",
    b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n", b"HTTP/2 200\r\n\r\n"])
def test_answers_that_are_none(gateway: Gateway, provider: LocalProvider, raw: bytes) -> None:
    with answering(provider, lambda seen: Raw([raw])):
        got = call(gateway, request(chat()))
    assert (got.status, got.code) == (502, "upstream_error")
    assert gateway.outcome(got.id)["ended"] == "upstream_error"


def test_a_provider_that_cuts_its_json(gateway: Gateway, provider: LocalProvider) -> None:
    body = json.dumps({"choices": [], "pad": "x" * 3000}).encode()
    forms: list[tuple[list[tuple[str, str]], bytes | Sequence[Step]]] = [
        ([("content-length", str(len(body)))], body), ([], [body[:1000], 0.01, body[1000:]])]
    for headers, steps in forms:
        reply = Reply(headers=[("content-type", "application/json"), *headers], body=steps, cut_after=1500)
        with answering(provider, lambda seen, reply=reply: reply):  # type: ignore[misc]
            got = call(gateway, request(chat()))
        assert not got.whole
        assert gateway.outcome(got.id)["ended"] == "upstream_error"
        assert gateway.outcome(got.id)["verdict"]["code"] == "upstream_error"


def test_a_provider_that_cuts_its_stream(gateway: Gateway, provider: LocalProvider) -> None:
    event_bytes = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    reply = Reply(headers=[("content-type", "text/event-stream")], body=[event_bytes, 0.02, event_bytes, 0.02, event_bytes],
                  cut_after=2 * len(event_bytes) + 120)
    with answering(provider, lambda seen: reply):
        got = call(gateway, request(chat(stream=True)))
    assert b"upstream_error" in got.body or not got.whole
    assert b"[DONE]" not in got.body
    assert gateway.outcome(got.id)["ended"] == "upstream_error"


@pytest.mark.parametrize("headers", [[], [("content-length", "70")]], ids=["chunked", "content-length"])
def test_bytes_after_a_streams_own_end(gateway: Gateway, provider: LocalProvider, headers: list[tuple[str, str]]) -> None:
    """The app's answer is whole: its outcome was written before the end marker went out."""
    first, last, more = b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n", b": a comment that comes late\n\n"
    reply = Reply(headers=[("content-type", "text/event-stream"), *headers], body=[first, last, 0.05, more + b"\n" * 5])
    assert sum(map(len, (first, last, more))) + 5 == 70
    with answering(provider, lambda seen: reply), Wire.tls(gateway) as wire:
        for _ in range(2):
            wire.send(request(chat(stream=True)))
            got = wire.answer()
            assert got.whole
            assert got.body.startswith(first + last)
            assert gateway.outcome(got.id)["ended"] == "complete"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_bomb_in_an_answer(gateway: Gateway, provider: LocalProvider, coding: str) -> None:
    body = bomb(coding, 400 * MB)
    before = gateway.peak(reset=True)
    reply = Reply(headers=[("content-type", "application/json"), ("content-encoding", coding)], body=body)
    with answering(provider, lambda seen: reply):
        call(gateway, request(chat()))
    assert gateway.peak() - before < 64 * MB


def echo_forms(key: str) -> dict[str, str]:
    return {"as it is": key, "JSON": key.replace("/", "\\/"), "URL": key.replace("/", "%2F").replace("+", "%2B")}


@pytest.mark.parametrize("form", echo_forms(REAL_KEY))
def test_a_key_that_the_provider_echoes_is_masked(gateway: Gateway, provider: LocalProvider, form: str) -> None:
    echoed = echo_forms(REAL_KEY)[form].encode()
    body = b'{"error":"bad key ' + echoed + b'","again":"' + echoed + b'"}'

    def everywhere(steps: bytes | Sequence[Step], kind: str) -> Reply:
        return Reply(status=200, headers=[("content-type", kind), ("x-echo", f"Bearer {echoed.decode()}"),
                                          ("x-request-id", echoed.decode())], body=steps)

    stream = b'data: {"choices":[{"index":0,"delta":{"content":"' + echoed + b'"}}]}\n\ndata: [DONE]\n\n'
    forms: list[tuple[bytes | Sequence[Step], str]] = [
        (body, "application/json"), ([body[n:n + 1] for n in range(len(body))], "application/json"),
        ([stream[n:n + 3] for n in range(0, len(stream), 3)], "text/event-stream"),
        ([stream[:60], 0.01, stream[60:]], "text/event-stream")]
    for steps, kind in forms:
        reply = everywhere(steps, kind)
        with answering(provider, lambda seen, reply=reply: reply), Wire.tls(gateway) as wire:  # type: ignore[misc]
            wire.send(request(chat(stream=kind.endswith("stream"))))
            got = wire.answer()
        assert got.status == 200
        assert got.whole
        whole = b"".join(steps_bytes(steps))
        assert len(got.body) == len(whole)
        assert got.body.count(b"*" * len(echoed)) == whole.count(echoed)
        assert echoed not in got.body
        assert echoed.decode() not in repr(got.headers)
        assert gateway.outcome(got.id)["kind"] == "outcome"
    assert not [key for key in echo_forms(REAL_KEY).values() if key in gateway.log() + json.dumps(gateway.records())]


def steps_bytes(steps: bytes | Sequence[Step]) -> list[bytes]:
    return [steps] if isinstance(steps, bytes) else [one for one in steps if isinstance(one, bytes)]


def test_an_echo_in_a_compressed_answer_does_not_pass(gateway: Gateway, provider: LocalProvider) -> None:
    body = gzip.compress(b'{"error":"bad key ' + REAL_KEY.encode() + b'"}')
    reply = Reply(headers=[("content-type", "application/json"), ("content-encoding", "gzip")], body=body)
    with answering(provider, lambda seen: reply):
        got = call(gateway, request(chat()))
    assert got.status == 502 or not got.whole
    assert body not in got.body


# -- clients that leave --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_told_to_the_provider(gateway: Gateway, provider: LocalProvider, stream: bool) -> None:
    event_bytes = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    steps: list[Step] = [event_bytes]
    for _ in range(200):
        steps += [0.05, event_bytes]
    reply = Reply(headers=[("content-type", "text/event-stream")], body=steps) if stream else Reply(body=b"{}", delay=10)
    with answering(provider, lambda seen: reply):
        before, known = len(provider.seen), {one.get("id") for one in gateway.records()}
        with Wire.tls(gateway) as wire:
            wire.send(request(chat(stream=stream)))
            assert wait_for(lambda: len(provider.seen) > before)
            if stream:
                while event_bytes not in wire._read:
                    assert wire.more()
        began = time.monotonic()
        assert wait_for(lambda: provider.seen[before].ended != "open")
        assert time.monotonic() - began < 1
    assert provider.seen[before].ended == "client_gone"
    mine = wait_for(lambda: [one for one in gateway.records() if one["kind"] == "outcome" and one["id"] not in known])
    assert mine[0]["ended"] == "client_disconnected"


PONDERING = """
import asyncio
from douane.policies import allow_models
judge = allow_models._AllowModels.admit
async def admit(self, call):
    await asyncio.sleep(0.3)
    return await judge(self, call)
allow_models._AllowModels.admit = admit
"""


def test_a_client_that_leaves_while_it_is_judged(tmp_path: Path, provider: LocalProvider) -> None:
    """The provider is not asked for what nobody waits for, or not for longer than it takes to notice."""
    with (answering(provider, lambda seen: Reply(body=b"{}", delay=5)),
          running_gateway(tmp_path, policy(provider), patch=PONDERING) as one):
        before = len(provider.seen)
        with Wire.tls(one) as wire:
            wire.send(request(chat()))
            time.sleep(0.1)
        said = wait_for(lambda: [record for record in one.records() if record["kind"] == "outcome"])
        assert said
        assert said[0]["ended"] == "client_disconnected"
        assert wait_for(lambda: all(seen.ended != "open" for seen in provider.seen[before:]))


def test_a_client_whose_tls_is_broken_amid_an_answer_has_left(gateway: Gateway, provider: LocalProvider) -> None:
    """A record that is none, and a flood behind it: the provider is not read on for nobody, and nothing is held."""
    steps: list[Step] = [step for _ in range(200) for step in (b"data: {}\n\n", 0.05)]
    before = gateway.peak()
    with (answering(provider, lambda seen: Reply(headers=[("content-type", "text/event-stream")], body=steps)),
          Wire.tls(gateway) as wire):
        wire.send(request(chat(stream=True)))
        assert wire.more()
        began = time.monotonic()
        with socket.socket(fileno=os.dup(wire.sock.fileno())) as bare, contextlib.suppress(OSError):
            bare.settimeout(5)
            bare.sendall(b"\x17\x03\x03\x00\x30" + b"x" * 48)
            for _ in range(200):
                bare.sendall(b"x" * 65536)
        assert wait_for(lambda: provider.seen[-1].ended == "client_gone")
        assert time.monotonic() - began < 5
    outcome = wait_for(lambda: [one for one in gateway.records() if one["kind"] == "outcome"])[-1]
    assert outcome["ended"] == "client_disconnected"
    assert gateway.peak() - before < 8 * MB


def test_a_client_that_leaves_what_is_forwarded(gateway: Gateway, tmp_path: Path) -> None:
    steps: list[Step] = []
    for _ in range(100):
        steps += [b"x", 0.05]
    with running_provider(tmp_path, tls=False, script=lambda seen: Reply(body=steps)) as other:
        name = f"127.0.0.1:{other.port}"
        with Wire.to(gateway.proxy) as wire:
            wire.send(request(None, method="GET", target=f"http://{name}/", host=name))
            assert wire.more()
        began = time.monotonic()
        assert wait_for(lambda: other.seen[0].ended == "client_gone")
        assert time.monotonic() - began < 1


def test_what_is_forwarded_may_be_cut(gateway: Gateway, tmp_path: Path) -> None:
    with running_provider(tmp_path, tls=False, script=lambda seen: Reply(body=[b"a", 0.02, b"b" * 99], cut_after=60)) as other:
        name = f"127.0.0.1:{other.port}"
        got = plain(gateway, request(None, method="GET", target=f"http://{name}/", host=name))
        assert (got.status, got.whole) == (200, False)
    got = plain(gateway, request(None, method="GET", target=f"http://{name}/", host=name))
    assert got.status == 502
    assert name.encode() in got.body


def test_a_client_that_leaves_in_its_request(gateway: Gateway, provider: LocalProvider) -> None:
    known = {one.get("id") for one in gateway.records()}
    with untouched(provider):
        with Wire.tls(gateway) as wire:
            wire.send(request(None, headers=[("Content-Length", "1000")]) + b'{"model":')
            time.sleep(0.05)
        mine = wait_for(lambda: [one for one in gateway.records() if one["kind"] == "outcome" and one["id"] not in known])
    assert mine[0]["ended"] == "client_disconnected"


def test_a_client_that_does_not_read_does_not_fill_our_memory(gateway: Gateway, provider: LocalProvider) -> None:
    before = gateway.peak(reset=True)
    sent = 0

    def script(seen: Seen) -> Reply:
        return Reply(headers=[("content-type", "text/event-stream")], body=[b"data: " + b"x" * (64 * 1024) + b"\n\n"] * 1000)

    with answering(provider, script), Wire.tls(gateway) as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(request(chat(stream=True)))
        assert wire.more()
        time.sleep(0.5)
        sent = provider.seen[-1].sent
        assert gateway.peak() - before < 16 * MB
    assert sent < 32 * MB


IMPATIENT = "\n".join(("import douane.hosts.layers as m, douane.hosts.http as t", "m.HEAD_SECONDS = 0.3",
                       "t.STALLED_SECONDS = 0.3"))


def test_slow_clients_are_not_waited_for(tmp_path: Path, provider: LocalProvider) -> None:
    """A head, a handshake, a body that do not come; a slow provider is another matter."""
    with running_gateway(tmp_path, policy(provider), patch=IMPATIENT) as one, untouched(provider):
        absolute = request(chat(), target=f"http://api.openai.com{CHAT}")
        heads = (b"", b"CONN", b"CONNECT api.openai.com:443 HTTP/1.1\r\n", absolute[:20], absolute[:-5])
        waiting = [*(("plain", data, Wire.to(one.proxy)) for data in heads),
                   *(("tunnel", data, Wire.tunnel(one, "api.openai.com:443")[0]) for data in (
                       b"", b"\x16", b"\x16\x03\x01", hello("api.openai.com")[:50])),
                   *(("tls", data, Wire.tls(one)) for data in (b"", request(chat())[:20], request(chat())[:-5]))]
        for _, data, wire in waiting:
            wire.send(data)
        for how, data, wire in waiting:
            with wire:
                assert wire.ended(2), (how, data)
    with (running_gateway(tmp_path, policy(provider), patch=IMPATIENT) as one, Wire.tls(one) as wire,
          answering(provider, lambda seen: Reply(body=[b"{", 0.8, b"}"], delay=0.8))):
        wire.send(request(chat()))
        assert wire.answer().body == b"{}"


# -- the admin port ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("headers", "status"), [
    ([("Host", "localhost")], 200), ([("Host", "127.0.0.1:9")], 200), ([("Host", "douane:8082")], 200),
    ([("Host", "[::1]:8082")], 200),
    ([("Host", "evil.example")], 403), ([("Host", "127.0.0.1.nip.io:80")], 403),
    ([("Host", "localhost"), ("Origin", "http://evil.example")], 403), ([("Host", "localhost"), ("Origin", "null")], 403),
    ([("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")], 403),
    ([("Host", "localhost"), ("Host", "evil.example")], 400), ([], 400)])
def test_the_admin_port_is_deaf_to_other_sites(gateway: Gateway, headers: list[tuple[str, str]], status: int) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        with Wire.to(gateway.admin) as wire:
            wire.send(request(None, method="GET", target=path, host=None, headers=headers))
            assert wire.answer().status == status


def test_the_admin_port_answers_reading_alone(gateway: Gateway) -> None:
    for data in (request(b"{}", target="/metrics", host="localhost"), request(None, method="GET", target="/", host="localhost"),
                 request(None, method="GET", target="/../metrics", host="localhost")):
        with Wire.to(gateway.admin) as wire:
            wire.send(data)
            assert wire.answer().status in (404, 405)


# -- after all that ------------------------------------------------------------------------------------------------


def test_many_at_once_then_a_clean_call(gateway: Gateway) -> None:
    """Half the attacks again, from several threads; then the gateway answers as if nothing had been."""
    def attack(name: str) -> None:
        with Wire.tls(gateway) as wire:
            wire.send(SMUGGLED[name])
            wire.answer()

    threads = [threading.Thread(target=attack, args=(name,)) for name in list(SMUGGLED)[::2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert call(gateway, request(chat())).status == 200
    assert gateway.process.poll() is None
    assert "Traceback" not in gateway.log()
