"""What a client says before there is HTTP: the CONNECT head, the proxy credentials, the name in its ClientHello. Pure."""

import base64
import binascii
from dataclasses import dataclass

from douane.call import Caller
from douane.edge import split_authority
from douane.hosts.internals import parse_client_hello, starts_like_tls_record
from douane.secrets import Secret

__all__ = ["MAX_CLIENT_HELLO", "MAX_CONNECT_HEAD", "ConnectPoint", "parse_connect", "proxy_caller", "server_name"]

MAX_CONNECT_HEAD = 16 * 1024
MAX_CLIENT_HELLO = 32 * 1024
"""Bytes."""


@dataclass(frozen=True, slots=True)
class ConnectPoint:
    """What is known of the connection a request came on: ``scope["state"]["door"]``."""

    caller: Caller
    host: str = ""
    """The CONNECT host as a provider's table names it; empty on the proxy's plain port."""
    sni: str = ""
    encrypted: bool = False


def parse_connect(head: bytes, peer: str) -> tuple[str, int, Caller]:
    """(host, port, caller) of a CONNECT head without its empty line. Raises ValueError with what is wrong."""
    lines = head.split(b"\r\n")
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise ValueError("a bare CR, LF or NUL")
    words = lines[0].split(b" ")
    if len(words) != 3 or words[0] != b"CONNECT" or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise ValueError("the request line")
    authority = words[1].decode("ascii", "strict")
    if not authority.rpartition(":")[2].isdigit():
        raise ValueError("the port is missing")
    host, port = split_authority(authority, 0)
    credentials: list[bytes] = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise ValueError("a header field")
        if name.lower() == b"proxy-authorization":
            credentials.append(value.strip())
    if len(credentials) > 1:
        raise ValueError("several Proxy-Authorization fields")
    return host, port, proxy_caller(credentials[0] if credentials else None, peer)


def proxy_caller(authorization: bytes | None, peer: str) -> Caller:
    """The caller with what ``Proxy-Authorization`` presents. Raises ValueError where it is not Basic."""
    if authorization is None:
        return Caller(peer)
    scheme, _, coded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        raise ValueError("Proxy-Authorization must be Basic")
    try:
        user, colon, password = base64.b64decode(coded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("Proxy-Authorization cannot be read") from None
    if not colon:
        raise ValueError("Proxy-Authorization has no password")
    return Caller(peer, user, Secret(password))


def server_name(data: bytes) -> str | None:
    """The name that the first bytes of a connection ask for by TLS: lower case, no trailing dot; empty where they are not
    TLS or name nobody; None where more bytes are needed. Raises ValueError for a ClientHello that cannot be read."""
    if len(data) < 3:
        return None if data[:1] in (b"", b"\x16") else ""
    if not starts_like_tls_record(data):
        return ""
    hello = parse_client_hello(data)
    if hello is not None:
        return (hello.sni or "").lower().removesuffix(".")
    if len(data) >= MAX_CLIENT_HELLO:
        raise ValueError("a ClientHello without end")
    return None
