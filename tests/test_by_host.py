"""Hosts by suffix and by root: the look-up, the policy files, and the edge's laws in a real gateway."""

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509

from douane.ca import Authority
from douane.ca.certificates import permitted
from douane.ca.names import Names
from douane.demo.provider import LocalProvider, running_provider
from douane.edge import EdgeRules, Govern, Refuse, Tunnel, decide
from douane.errors import ConfigError
from douane.hosts import contexts
from douane.hosts.contexts import TlsContexts
from douane.intake import home_of
from douane.loader import Loaded, load, tls_names
from douane.providers.by_host import ByHost
from douane.providers.hosts import unparsed
from douane.providers.table import builtin
from tests import wire
from tests.families import operation_of
from tests.gateway import Gateway, Wire, chat, hello, policy, request, running_gateway, untouched

AZURE = builtin()["azure"]
MINE = replace(AZURE, name="mine", hosts=("mine.openai.azure.com",))
TABLE = ByHost((AZURE, MINE, builtin()["openai"]))
BASE = "version: 1\nchain:\n  - authenticate: {}\nproviders:\n"


def loaded(folder: Path, text: str) -> Loaded:
    (folder / "a.yaml").write_text(BASE + text)
    return load(folder, environ={})


# -- the look-up -------------------------------------------------------------------------------------------------------


def test_an_exact_name_goes_first_whatever_the_order() -> None:
    for table in (TABLE, ByHost((MINE, AZURE))):
        assert table["mine.openai.azure.com"] is MINE
        assert table["yours.openai.azure.com"] is AZURE
        assert table.named("mine") is MINE
        assert table.named("*.openai.azure.com") is None


@pytest.mark.parametrize("host", [
    "openai.azure.com", "a.b.openai.azure.com", ".openai.azure.com", "*.openai.azure.com.", "xopenai.azure.com", "azure.com",
    "x.openai.azure.com.evil.example", "x.openai.azure.com:8443", "x.openai.azure.com:443", "", "."])
def test_what_a_suffix_does_not_stand_for(host: str) -> None:
    assert TABLE.get(host) is None
    assert host not in TABLE
    assert TABLE.at(host, "/") is None


def test_the_edge_decides_by_it() -> None:
    def decided(host: str, port: int = 443, scheme: Any = "https") -> Any:
        return decide(host, port, scheme, TABLE, EdgeRules(), unparsed)

    assert decided("x.openai.azure.com") == Govern(AZURE, "x.openai.azure.com")
    assert decided("mine.openai.azure.com") == Govern(MINE, "mine.openai.azure.com")
    assert "not on port 8443" in decided("x.openai.azure.com", 8443).reason
    assert "over https only" in decided("x.openai.azure.com", 80, "http").reason
    assert isinstance(decided("a.b.openai.azure.com"), Refuse)
    assert decided("storage.azure.com") == Tunnel("storage.azure.com", 443)
    assert TABLE.governs("x.openai.azure.com")
    assert TABLE.governs("api.openai.com")
    assert not TABLE.governs("openai.azure.com")


def test_the_longest_root_has_the_path() -> None:
    whole, part = replace(MINE, hosts=("llm.corp",), name="w"), replace(MINE, hosts=("llm.corp",), name="p", root="/a/b")
    deep = replace(part, name="d", root="/a/b/c")
    table = ByHost((part, whole, deep))
    assert table.at("llm.corp", "/a/b/v1/x") == (part, "/v1/x")
    assert table.at("llm.corp", "/a/b/c/v1/x") == (deep, "/v1/x")
    assert table.at("llm.corp", "/a/bc/v1/x") == (whole, "/a/bc/v1/x")
    assert ByHost((part, deep)).at("llm.corp", "/a/b") == (part, None)
    assert table["llm.corp"] is whole


# -- policy files ------------------------------------------------------------------------------------------------------


def test_suffixes_in_policy_files(tmp_path: Path) -> None:
    found = loaded(tmp_path, "  corp: {like: azure, hosts: ['*.LLM.corp.example'], upstream: 'https://10.0.0.1'}\n"
                             "  eu: {like: azure, hosts: [eu.openai.azure.com], upstream: 'https://eu.openai.azure.com'}\n")
    table = found.chain.providers
    assert (table["a.llm.corp.example"].name, table["eu.openai.azure.com"].name) == ("corp", "eu")
    assert table["us.openai.azure.com"].name == "azure"
    assert {"*.llm.corp.example", "*.openai.azure.com", "eu.openai.azure.com"} <= set(tls_names(found))
    assert "a.llm.corp.example" in Names.of(tls_names(found))
    assert "llm.corp.example" not in Names.of(tls_names(found))


@pytest.mark.parametrize("host", [
    "*.com", "*", "*.", "a.*.com", "*x.openai.com", "**.openai.com", "*.*.openai.com", "*.openai.com:8443", "*.openai.com.",
    "*.10.0.0.1", "*. openai.com", "*.-x.com"])
def test_wrong_suffixes_are_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"  x: {{like: openai, hosts: ['{host}'], upstream: 'https://a'}}\n")
    assert f"{tmp_path}/a.yaml:5: providers.x.hosts: " in str(caught.value)


TWICE = """x: {like: openai, hosts: [a], upstream: 'https://a', root: /r}
  y: {like: openai, hosts: [a], upstream: 'https://a', root: /r/}"""


@pytest.mark.parametrize(("entry", "said"), [
    ("x: {like: openai, hosts: ['*.openai.azure.com'], upstream: 'https://a'}", "the host *.openai.azure.com is azure's"),
    ("x: {like: openai, hosts: [a], upstream: 'https://a', root: 'v1'}", "providers.x.root: allowed"),
    ("x: {like: openai, hosts: [a], upstream: 'https://a', root: '/a/../b'}", "providers.x.root: allowed"),
    ("openai: {root: /a}", "providers.openai.root: openai is built in"),
    (TWICE, "the host a/r is x's already")])
def test_wrong_providers_are_refused(tmp_path: Path, entry: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"  {entry}\n")
    assert said in str(caught.value)


def test_a_call_that_names_no_host_needs_one_in_the_policy_files() -> None:
    assert home_of(builtin()["openai"]) == ("api.openai.com", None)
    host, refused = home_of(AZURE)
    assert host == "openai.azure.com"
    assert refused is not None
    assert "upstream: https://NAME.openai.azure.com" in refused.reason
    assert home_of(replace(AZURE, target=builtin()["ollama"].target)) == ("openai.azure.com", None)


LOCAL = """
  vllm: {like: openai, hosts: ["localhost:8000"], upstream: "http://localhost:8000"}
  m-openai: {like: openai, hosts: ["localhost:3000"], root: /router/v2/openai, upstream: "http://localhost:3000/router/v2/openai"}
  m-claude: {like: anthropic, hosts: ["localhost:3000"], root: /router/v2/anthropic, upstream: "http://localhost:3000/x"}
  m-google: {like: google, hosts: ["localhost:3000"], root: /router/v2/google, upstream: "http://localhost:3000/x"}
  p-openai: {like: openai, hosts: ["localhost:8787"], root: /openai, upstream: "http://localhost:8787/openai"}
  p-groq: {like: openai, hosts: ["localhost:8787"], root: /groq/openai, upstream: "http://localhost:8787/groq/openai"}
  p-bedrock: {like: bedrock, hosts: ["localhost:8787"], root: /bedrock, upstream: "http://localhost:8787/bedrock"}
  p-vertex: {like: vertex, hosts: ["localhost:8787"], root: /google-vertex, upstream: "http://localhost:8787/google-vertex"}
"""


def test_every_local_record_has_its_label_by_configuration(tmp_path: Path) -> None:
    table = loaded(tmp_path, LOCAL).chain.providers
    for record in wire.records("local"):
        name, row = operation_of(record, table)
        assert row is not None, record["request"]["url"]
        assert row.name == record["operation"], name


# -- certificates ------------------------------------------------------------------------------------------------------


def test_the_constraint_is_the_suffix_and_a_leaf_is_for_one_host(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, ["*.openai.azure.com"])
    leaf = authority.leaf("x.openai.azure.com")
    names = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["x.openai.azure.com"]
    assert permitted(leaf.intermediate) == {"openai.azure.com"}
    assert leaf.not_after > datetime.now(UTC)


def test_contexts_are_kept_for_so_many_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "KEPT", 3)
    monkeypatch.setattr(contexts, "_context", lambda leaf: object())
    authority: Any = SimpleNamespace(leaf=lambda host: host)
    kept = TlsContexts(authority)
    first = kept.of("a")
    assert kept.of("a") is first
    for host in "bcd":
        kept.of(host)
    assert kept.of("d") is kept.of("d")
    assert kept.of("a") is not first
    assert len(kept._made) == 3


# -- a real gateway ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    text = policy(provider)
    where = f'upstream: "{provider.url}", ca: "{provider.ca}"'
    text = text.replace("providers:\n", f"""providers:
  corp: {{like: openai, hosts: ["*.llm.example"], {where}}}
  claude: {{like: anthropic, hosts: [llm.corp], root: /router/anthropic, {where}}}
  gpt: {{like: openai, hosts: [llm.corp], root: /router/openai, {where}}}
""")
    with running_gateway(tmp_path_factory.mktemp("gateway"), text) as one:
        yield one


KEY = (("Authorization", "Bearer own"),)


def test_a_host_below_the_suffix_is_governed(gateway: Gateway, provider: LocalProvider) -> None:
    with Wire.tls(gateway, "a.llm.example") as wire_:
        assert isinstance(wire_.sock, ssl.SSLSocket)
        found = wire_.sock.getpeercert()
        assert found is not None
        assert found["subjectAltName"] == (("DNS", "a.llm.example"),)
        wire_.send(request(chat(), host="a.llm.example", headers=KEY))
        got = wire_.answer()
    assert got.status == 200
    assert gateway.outcome(got.id)["provider"] == "corp"
    assert provider.seen[-1].target == "/v1/chat/completions"


@pytest.mark.parametrize("other", ["b.llm.example", "llm.example", "a.b.llm.example", "*.llm.example"])
def test_connect_and_host_agree(gateway: Gateway, provider: LocalProvider, other: str) -> None:
    with Wire.tls(gateway, "a.llm.example") as wire_, untouched(provider):
        wire_.send(request(chat(), host=other))
        got = wire_.answer()
        assert (got.status, got.code) == (421, "host_mismatch")


def test_connect_and_server_name_agree(gateway: Gateway, provider: LocalProvider) -> None:
    with Wire.tls(gateway, "a.llm.example", sni="b.llm.example") as wire_, untouched(provider):
        wire_.send(request(chat(), host="a.llm.example"))
        assert wire_.answer().code == "host_mismatch"


def test_a_tunnel_carries_no_such_name(gateway: Gateway, provider: LocalProvider) -> None:
    where = f"127.0.0.1:{provider.port}"
    for name, ends in (("b.llm.example", True), ("x.openai.azure.com", True), ("llm.example", False)):
        wire_, got = Wire.tunnel(gateway, where)
        with wire_:
            assert got.status == 200
            wire_.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire_.send(hello(name))
            assert wire_.ended() is ends


@pytest.mark.parametrize("authority", ["a.llm.example:8443", "a.b.openai.azure.com:443", "x.openai.azure.com:80"])
def test_other_ports_and_deeper_names_are_refused(gateway: Gateway, authority: str) -> None:
    wire_, got = Wire.tunnel(gateway, authority)
    with wire_:
        assert got.status == 403


@pytest.mark.parametrize(("path", "named"), [
    ("/router/anthropic/v1/messages", "claude"), ("/router/openai/v1/chat/completions", "gpt"),
    ("/router/openai/chat/completions", "gpt")])
def test_two_providers_share_a_host(gateway: Gateway, provider: LocalProvider, path: str, named: str) -> None:
    body = json.loads(chat(model="claude-x" if named == "claude" else "gpt-4o-mini")) | {"max_tokens": 9}
    with Wire.tls(gateway, "llm.corp") as wire_:
        wire_.send(request(json.dumps(body).encode(), host="llm.corp", target=path, headers=KEY))
        got = wire_.answer()
    assert not got.code
    assert gateway.outcome(got.id)["provider"] == named
    assert provider.seen[-1].target == path.removeprefix("/router/anthropic").removeprefix("/router/openai")


@pytest.mark.parametrize("path", [
    "/v1/messages", "/router/anthropic", "/router/anthropic2/v1/messages", "/router/../v1/messages"])
def test_below_nobody_s_root_there_is_no_call(gateway: Gateway, provider: LocalProvider, path: str) -> None:
    with Wire.tls(gateway, "llm.corp") as wire_, untouched(provider):
        wire_.send(request(chat(), host="llm.corp", target=path))
        got = wire_.answer()
        assert (got.status, got.code) == (403, "operation_not_allowed")


def test_the_reverse_proxy_says_what_is_missing(gateway: Gateway) -> None:
    with Wire.to(gateway.http) as wire_:
        wire_.send(request(chat(), host="localhost", target="/azure/openai/v1/chat/completions",
                           headers=[("Content-Type", "application/json")]))
        got = wire_.answer()
    assert (got.status, got.code) == (403, "host_not_allowed")
    assert "upstream: https://NAME.openai.azure.com" in got.json["error"]["message"]
