"""``providers:``: which hosts are governed, and where their calls go."""

from pathlib import Path

import certifi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.call import Target
from douane.errors import ConfigError
from douane.governed import certificates, is_loopback, target
from douane.loader import Loaded, load

BASE = "version: 1\nchain:\n  - authenticate: {}\n"
PEM = Path(certifi.where())


def loaded(folder: Path, text: str, environ: dict[str, str] | None = None) -> Loaded:
    (folder / "a.yaml").write_text(BASE + text)
    return load(folder, environ=environ or {})


def test_without_a_word_the_built_in_hosts_are_governed(tmp_path: Path) -> None:
    chain = loaded(tmp_path, "").chain
    assert chain.providers["api.openai.com"].name == "openai"
    assert chain.providers["api.anthropic.com"].name == "anthropic"


def test_upstream_decides_where_calls_go(tmp_path: Path) -> None:
    providers = loaded(tmp_path, f"""providers:
  openai: {{upstream: "https://Gateway.example:8443/openai/", ca: {PEM}, hosts: [eu.OpenAI.example]}}
  anthropic: {{upstream: "http://127.0.0.1:9000"}}
""").chain.providers
    openai = providers["eu.openai.example"]
    assert openai.target == Target("https", "gateway.example", 8443, ca=str(PEM), base_path="/openai")
    assert providers["api.openai.com"] is openai
    assert providers["api.anthropic.com"].target == Target("http", "127.0.0.1", 9000)


def test_a_provider_of_ones_own_is_like_a_built_in_one(tmp_path: Path) -> None:
    result = loaded(tmp_path, 'providers:\n  vllm: {like: openai, hosts: ["llm.internal:8000"], '
                              'upstream: "http://llm.internal:8000"}\n')
    vllm = result.chain.providers["llm.internal:8000"]
    assert (vllm.name, vllm.target) == ("vllm", Target("http", "llm.internal", 8000))
    assert vllm.operations == result.providers["openai"].operations
    assert vllm.prices == "", "what it costs is not what OpenAI asks"
    assert vllm.hosts == ("llm.internal:8000",)


@pytest.mark.parametrize(("text", "said"), [
    ("openai: {like: anthropic}", "providers.openai.like: openai is built in"),
    ("opnai: {upstream: 'https://x'}", "like: is missing, and `opnai` is not built in; did you mean `openai`?"),
    ("vllm: {like: opena, hosts: [a]}", "there is no built-in provider `opena`; did you mean `openai`?"),
    ("vllm: {like: openai, hosts: [a]}", "providers.vllm.upstream: is missing"),
    ("vllm: {like: openai, upstream: 'https://a'}", "providers.vllm.hosts: is missing"),
    ("V LLM: {like: openai, upstream: 'https://a', hosts: [a]}", "a name is a small letter"),
    ("openai: {upstream: 'http://gateway.example'}", "providers.openai.upstream: openai is reached over https"),
    ("openai: {ca: x.pem}", "providers.openai.ca: needs an `upstream`"),
    ("openai: {upstream: 'http://127.0.0.1', ca: x.pem}", "providers.openai.ca: is of no use with plain http"),
    ("openai: {upstream: 'https://x.example', ca: x.pem}", "there is no file"),
    ("openai: {upstream: 'https://x.example', ca: a.yaml}", "holds no PEM certificates"),
    ("openai: {upstream: 'https://me:pass@x.example'}", "holds no user name or password"),
    ("openai: {hosts: ['*.com']}", "`*.com`: allowed: `*.` and a suffix of two labels at least"),
    ("openai: {hosts: ['https://a']}", "is no host"),
    ("openai: {hosts: ['a:443']}", "leave the default port out"),
    ("openai: {hosts: ['a:70000']}", "there is no such port"),
    ("openai: {hosts: [a, A]}", "A is given twice"),
    ("openai: {hosts: [api.anthropic.com]}", "the host api.anthropic.com is openai's already ("),
    ("vllm: {like: openai, hosts: [api.openai.com], upstream: 'https://a'}",
     "providers.vllm: the host api.openai.com is openai's already (built in)"),
    ("openai: {upstrem: x}", "there is no key `upstrem`; did you mean `upstream`?"),
    ("openai: https://x", "text is not allowed here"),
])
def test_wrong_providers_are_refused_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"providers:\n  {text}\n")
    assert f"{tmp_path}/a.yaml:5: " in str(caught.value)
    assert said in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_two_additions_may_not_share_a_host(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a.yaml:6: providers.b: the host h is a's already \(.*a.yaml:5\)"):
        loaded(tmp_path, "providers:\n  a: {like: openai, hosts: [h], upstream: 'https://h'}\n"
                         "  b: {like: openai, hosts: [h], upstream: 'https://h'}\n")


def test_every_mistake_of_one_provider_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "providers:\n  openai:\n    upstream: ftp://x\n    hosts: ['*', 'b:443']\n")
    assert [line.split(": ")[0][-2:] for line in str(caught.value).splitlines()] == [":6", ":7", ":7"]


@pytest.mark.parametrize(("upstream", "fine"), [
    ("https://llm.internal", True), ("http://127.0.0.1:8000", True), ("http://[::1]:8000", True),
    ("http://localhost:8000", True), ("http://llm.internal:8000", False), ("http://10.0.0.1", False),
])
def test_a_key_goes_over_tls_or_stays_on_this_machine(tmp_path: Path, upstream: str, fine: bool) -> None:
    text = (f'credentials: {{vllm: env:K}}\nproviders:\n'
            f'  vllm: {{like: openai, hosts: ["llm.internal:8000"], upstream: "{upstream}"}}\n')
    environ = {"K": "key-" + "0" * 20}
    if fine:
        assert loaded(tmp_path, text, environ).credential_providers == {"vllm"}
    else:
        with pytest.raises(ConfigError, match=r"a.yaml:4: credentials.vllm: a key is not sent over plain http"):
            loaded(tmp_path, text, environ)


@pytest.mark.parametrize(("url", "expected"), [
    ("https://a.example", Target("https", "a.example", 443)),
    ("HTTPS://A.example:443/", Target("https", "a.example", 443)),
    ("http://a:8080/v1/x", Target("http", "a", 8080, base_path="/v1/x")),
    ("https://[fd00::1]:8443", Target("https", "fd00::1", 8443)),
])
def test_urls(url: str, expected: Target) -> None:
    assert target(url) == expected


@pytest.mark.parametrize("url", [
    "", "a.example", "ftp://a", "https://", "https://a:0", "https://a:x", "https://a:70000", "https://a/?q",
    "https://a?", "https://a/#f", "https://u@a", "https://:p@a", "https://a b", "https://a/../b", "https://a//b",
    "https://ä.example", "https://[zz]",
    "https://[::1", "https://a_.", "https://-a", "https://a\r\nx", "https://a/é", "//a",
    "https://a/b c", "https://a/%", "https://a/%zz",
])
def test_no_urls(url: str) -> None:
    with pytest.raises(ConfigError):
        target(url)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("htps:/.@[]a1-_?#%\\ \t\n\x00é"), max_size=30).map("https://".__add__))
def test_any_text_is_a_clean_target_or_refused(url: str) -> None:
    try:
        found = target(url)
    except ConfigError:
        return
    assert found.host
    assert not set(found.host) & set("/?#@%\\ \t\n\x00é")
    assert not set(found.base_path) & set("?#\\ \t\n\x00é")
    assert not found.base_path.endswith("/")


def test_what_is_this_machine() -> None:
    assert [host for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "10.0.0.1", "localhost.evil", "")
            if is_loopback(host)] == ["localhost", "127.0.0.1", "127.9.9.9", "::1"]


def test_roots(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(PEM.read_bytes())
    assert certificates("roots.pem", tmp_path) == str(tmp_path / "roots.pem")
    with pytest.raises(ConfigError, match="there is no file"):
        certificates("a\x00b", tmp_path)
