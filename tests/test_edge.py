"""The door's decisions: pure, so every spelling can be tried."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.call import Target
from douane.edge import (
    Decision,
    EdgeRules,
    Govern,
    Refuse,
    Tunnel,
    canonical_host,
    decide,
    is_loopback,
    refused_address,
    split_authority,
)
from douane.hosts.connect import parse_connect, server_name
from douane.intake import target_of
from douane.providers.by_host import ByHost
from douane.providers.hosts import unparsed
from douane.providers.table import builtin
from tests.gateway import hello

RULES = EdgeRules()
OWN = replace(builtin()["openai"], name="vllm", hosts=("llm.internal", "llm.internal:8000", "[::2]:9"),
              target=Target("http", "10.0.0.1", 8000))
PROVIDERS = ByHost((*builtin().values(), OWN))
LISTENERS = [("127.0.0.1", 8080), ("127.0.0.1", 8082)]


def decided(host: str, port: int, scheme: str = "https", rules: EdgeRules = RULES) -> Decision:
    return decide(host, port, "https" if scheme == "https" else "http", PROVIDERS, rules, unparsed)


@pytest.mark.parametrize(("written", "host", "port"), [
    ("api.openai.com:443", "api.openai.com", 443), ("API.OpenAI.com.:443", "api.openai.com", 443), ("x", "x", 1),
    ("x:", "x", 1), ("[::1]:80", "::1", 80), ("[::1]", "::1", 1), ("[2001:DB8::0:1]:9", "2001:db8::1", 9),
    ("127.0.0.1:65535", "127.0.0.1", 65535), ("a_b-c.d:1", "a_b-c.d", 1), ("x:0443", "x", 443)])
def test_authorities(written: str, host: str, port: int) -> None:
    assert split_authority(written, 1) == (host, port)


@pytest.mark.parametrize("written", [
    "", ":443", ".", "..", "a..b", ".a", "a..", "a b", "a/b", "a\\b", "a@b", "a%62", "a,b", "a;b", "a#b", "a?b", "*", "ü.de",
    "а.de", "a\0", "a\nb", "a:b", "a:-1", "a:+1", "a:0", "a:65536", "a:1:2", "a: 1", "a:1 ", "a:\u0661", "::1", "[::1", "::1]",
    "[]", "[::1]x", "[::1]1", "[1.2.3.4]", "[::g]", "a" * 64, "a." * 130])
def test_what_is_no_authority(written: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - that it is none is all there is to say
        split_authority(written, 443)


def test_a_providers_host_that_is_to_be_tunnelled_is() -> None:
    rules = replace(RULES, tunnel=("api.x.ai",))
    assert decided("api.x.ai", 443, rules=rules) == Tunnel("api.x.ai", 443)
    assert isinstance(decided("api.openai.com", 443, rules=rules), Govern)
    assert isinstance(decided("api.x.ai", 443), Govern)
    assert isinstance(decided("api.x.ai", 22, rules=rules), Refuse)
    assert isinstance(decided("api.x.ai", 80, "http", rules=rules), Refuse)


@given(st.text(max_size=40))
def test_a_canonical_name_is_its_own(text: str) -> None:
    """What is compared is what is dialled: reading it again changes nothing, and no empty label hides a trailing dot."""
    try:
        host = canonical_host(text)
    except ValueError:
        return
    assert canonical_host(f"[{host}]" if ":" in host else host) == host
    assert host == host.lower()
    assert "" not in host.split(".")
    assert host.isascii()


@pytest.mark.parametrize(("host", "port"), [("api.openai.com", 443), ("eu.api.openai.com", 443), ("api.anthropic.com", 443),
                                            ("llm.internal", 443), ("llm.internal", 8000)])
def test_governed(host: str, port: int) -> None:
    assert isinstance(decided(host, port), Govern)


@pytest.mark.parametrize("port", [80, 8443, 1, 65535])
@pytest.mark.parametrize("rules", [RULES, EdgeRules(unknown_hosts="tunnel", unparsed_ai_hosts="tunnel")])
def test_a_governed_name_is_tunnelled_on_no_port(port: int, rules: EdgeRules) -> None:
    assert isinstance(decided("api.openai.com", port, rules=rules), Refuse)


def test_plain_http_is_for_providers_that_were_configured_so() -> None:
    assert isinstance(decided("api.openai.com", 80, "http"), Refuse)
    assert isinstance(decided("api.anthropic.com", 443, "http"), Refuse)
    assert isinstance(decided("llm.internal", 80, "http"), Govern)
    assert isinstance(decided("llm.internal", 8000, "http"), Govern)
    for host, provider in PROVIDERS.items():
        own = provider.name in (OWN.name, "ollama")
        assert target_of(provider, host.replace("*", "x"), "/ca.pem").scheme == ("http" if own else "https")
    assert target_of(builtin()["openai"], "eu.api.openai.com", "/x") == Target("https", "eu.api.openai.com", 443, ca="/x")
    assert target_of(OWN, "llm.internal:8000", "/ca.pem") is OWN.target


@pytest.mark.parametrize("host", ["chatgpt.com", "api.githubcopilot.com", "a.b.openai.azure.com", "xx.api.openai.com",
                                  "api.stability.ai"])
def test_known_hosts_that_are_not_read(host: str) -> None:
    refused = decided(host, 443)
    assert isinstance(refused, Refuse)
    assert refused.code == "host_not_allowed"
    assert "unparsed_ai_hosts" in refused.reason
    assert decided(host, 443, rules=EdgeRules(unparsed_ai_hosts="tunnel")) == Tunnel(host, 443)
    assert isinstance(decided(host, 80, "http"), Refuse)


def test_unknown_hosts() -> None:
    assert decided("example.com", 443) == Tunnel("example.com", 443)
    assert decided("evilapi.openai.com.example.com", 443) == Tunnel("evilapi.openai.com.example.com", 443)
    assert isinstance(decided("example.com", 443, rules=EdgeRules(unknown_hosts="deny")), Refuse)


METADATA = [
    "169.254.169.254", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe",
    "fd00:ec2::254", "FD00:EC2:0::254", "fd20:ce::254", "100.100.100.200", "169.254.170.2", "169.254.170.23", "192.0.0.192",
    "168.63.129.16"]


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_for_nobody(address: str, local: bool) -> None:
    assert refused_address(address, 80, local_client=local, listeners=[]) == "it is a cloud metadata address"


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "::ffff:0.0.0.0", "::1%lo"])
def test_our_own_listeners_are_for_nobody(address: str) -> None:
    for port in (8080, 8082):
        for local in (True, False):
            assert refused_address(address, port, local_client=local, listeners=LISTENERS)
    assert refused_address(address, 8081, local_client=True, listeners=LISTENERS) is None
    assert refused_address(address, 8081, local_client=False, listeners=LISTENERS)


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.0.7", "::1", "fe80::1%eth0", "fd12::1"])
def test_listeners_on_all_addresses(bound: str, address: str) -> None:
    assert refused_address(address, 8080, local_client=True, listeners=[(bound, 8080)]) == "it is this gateway itself"


def test_private_addresses_are_for_this_machine() -> None:
    for address in ("10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.1", "198.18.0.1",
                    "240.0.0.1"):
        assert refused_address(address, 443, local_client=True, listeners=LISTENERS) is None
        assert refused_address(address, 443, local_client=False, listeners=LISTENERS)
    for address in ("224.0.0.1", "ff02::1"):
        assert refused_address(address, 443, local_client=True, listeners=LISTENERS)
    for address in ("169.254.1.1", "fe80::1", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "2002:a00:1::"):
        assert refused_address(address, 443, local_client=False, listeners=LISTENERS)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_what_a_stranger_may_reach_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    if refused_address(str(address), port, local_client=False, listeners=LISTENERS) is None:
        assert address.is_global
        assert not is_loopback(str(address))


@given(st.binary(max_size=200))
def test_any_connect_head_is_read_or_refused(head: bytes) -> None:
    for data in (head, b"CONNECT " + head, b"CONNECT a:1 HTTP/1.1\r\n" + head):
        try:
            host, port, caller = parse_connect(data, "127.0.0.1")
        except ValueError:
            continue
        assert canonical_host(f"[{host}]" if ":" in host else host) == host
        assert 0 < port < 65536
        assert caller.address == "127.0.0.1"


def test_a_server_name_is_read_however_the_hello_is_cut() -> None:
    whole = hello("API.OpenAI.com")
    assert server_name(whole) == "api.openai.com"
    assert [server_name(whole[:cut]) for cut in range(len(whole))] == [None] * len(whole)
    assert server_name(hello("127.0.0.1")) == "", "an address is no server name"


@pytest.mark.parametrize("data", [b"SSH-2.0-x", b"GET / HTTP/1.1\r\n", b"\x15\x03\x01", b"\x17\x03\x03"], ids=repr)
def test_what_is_no_tls_asks_for_nobody(data: bytes) -> None:
    assert server_name(data) == ""


def test_a_hello_that_cannot_be_read_is_an_error() -> None:
    whole = bytearray(hello("api.openai.com"))
    whole[0x2C:] = b"\xff" * (len(whole) - 0x2C)
    with pytest.raises(ValueError, match="ClientHello"):
        server_name(bytes(whole))
    record = b"\x16\x03\x01\x40\x00"
    with pytest.raises(ValueError, match="without end"):
        server_name(record + b"\x01\xff\xff\xff" + b"a" * 0x3FFC + record + b"a" * 0x4000 + record)
