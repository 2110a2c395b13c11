"""The HTTP port, through a real process: what is a call, and what a browser was led to send."""

import json
import signal
from pathlib import Path

import anthropic
import openai
import pytest

from douane.demo.provider import LocalProvider
from douane.hosts.reverse import browser_refusal
from tests.gateway import (
    BOT_KEY,
    REAL_KEY,
    Gateway,
    Got,
    Wire,
    chat,
    command,
    environ,
    policy,
    ran,
    request,
    running_gateway,
    untouched,
)

JSON = ("content-type", "application/json")
PATH = "/openai/v1/chat/completions"


def ask(gateway: Gateway, target: str = PATH, body: bytes | None = None, *, method: str = "POST", host: str = "localhost:8081",
        headers: tuple[tuple[str, str], ...] = (JSON,)) -> Got:
    with Wire.to(gateway.http) as wire:
        wire.send(request(body, method=method, target=target, host=host, headers=headers))
        return wire.answer(method)


def test_the_sdks_need_a_base_url_alone(gateway: Gateway, provider: LocalProvider) -> None:
    base = "http://{}:{}".format(*gateway.http)
    with openai.OpenAI(api_key="app-key", base_url=f"{base}/openai/v1", max_retries=0) as client:
        said = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
        assert said.choices[0].message.content == "You said: hi"
        stream = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "a b"}], stream=True)
        assert "".join(one.choices[0].delta.content or "" for one in stream if one.choices) == "You said: a b"
        assert provider.seen[-1].header("authorization") == f"Bearer {REAL_KEY}"
        with pytest.raises(openai.PermissionDeniedError) as denied:
            client.chat.completions.create(model="o1", messages=[{"role": "user", "content": "hi"}])
        assert denied.value.code == "model_not_allowed"
    with anthropic.Anthropic(api_key="app-key", base_url=f"{base}/anthropic", max_retries=0) as messages:
        answer = messages.messages.create(model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
        assert answer.content[0].text == "You said: hi"  # type: ignore[union-attr]
    assert gateway.last_outcome()["host"] == "api.anthropic.com"


def test_a_key_names_the_principal_and_stays_here(gateway: Gateway, provider: LocalProvider) -> None:
    got = ask(gateway, body=chat(), headers=(JSON, ("authorization", f"Bearer {BOT_KEY}")))
    assert got.status == 200
    assert gateway.outcome(got.id)["principal"]["name"] == "bot"
    assert BOT_KEY.encode() not in provider.seen[-1].head


@pytest.mark.parametrize(("headers", "host", "status", "code"), [
    ((JSON,), "evil.example:8081", 403, "host_not_allowed"),
    ((JSON,), "localhost.evil.example", 403, "host_not_allowed"),
    ((JSON, ("origin", "https://evil.example")), "localhost:8081", 403, "host_not_allowed"),
    ((JSON, ("origin", "null")), "localhost:8081", 403, "host_not_allowed"),
    ((JSON, ("origin", "http://localhost:3000")), "localhost:8081", 403, "host_not_allowed"),
    ((JSON, ("sec-fetch-site", "cross-site")), "localhost:8081", 403, "host_not_allowed"),
    ((("content-type", "text/plain"),), "localhost:8081", 400, "bad_request"),
    ((), "localhost:8081", 400, "bad_request"),
])
def test_browsers_are_refused(gateway: Gateway, provider: LocalProvider, headers: tuple[tuple[str, str], ...], host: str,
                              status: int, code: str) -> None:
    with untouched(provider):
        got = ask(gateway, body=chat(), headers=headers, host=host)
    assert (got.status, got.code) == (status, code)
    assert gateway.outcome(got.id)["verdict"]["code"] == code


@pytest.mark.parametrize("headers", [(JSON, ("origin", "http://localhost:8081")),
                                     (("content-type", "application/json; charset=utf-8"),)])
def test_what_is_no_attack_passes(gateway: Gateway, headers: tuple[tuple[str, str], ...]) -> None:
    assert ask(gateway, body=chat(), headers=headers).status == 200


def test_a_repeated_header_hides_nothing() -> None:
    """The last one would stand in a dict: an attacker's page cannot send two, but what is judged must be all."""
    twice = ((b"host", b"localhost"), (b"origin", b"http://evil.example"), (b"origin", b"http://localhost"))
    assert browser_refusal(twice, "127.0.0.1") is not None
    assert browser_refusal(twice[::2], "127.0.0.1") is None


@pytest.mark.parametrize("host", ["127.0.0.1:8081", "[::1]:8081", "localhost", "LOCALHOST:1", "10.0.0.1:8081",
                                  "gate.internal:8081"])
def test_names_of_this_port(host: str) -> None:
    assert browser_refusal(((b"host", host.encode()),), "gate.internal") is None


@pytest.mark.parametrize("host", ["", "gate.internal.evil.example", "a b", "1.2.3.4.evil.example"])
def test_names_of_others(host: str) -> None:
    assert browser_refusal(((b"host", host.encode()),), "gate.internal") is not None


def test_what_is_no_operation_is_refused_and_recorded(gateway: Gateway, provider: LocalProvider) -> None:
    with untouched(provider):
        for target in ("/openai/v1/organization/users", "/openai", "/openai/", "/openai/../anthropic/v1/messages"):
            got = ask(gateway, target, b"{}")
            assert (got.status, got.code) == (403, "operation_not_allowed"), target


def test_there_is_nothing_else(gateway: Gateway, provider: LocalProvider) -> None:
    with untouched(provider):
        for target in ("/", "/nobody/v1/chat/completions", "/metrics", "/%6fpenai/v1/chat/completions", "//openai/v1/models"):
            assert ask(gateway, target, b"{}").status == 404, target
    assert ask(gateway, "/healthz", method="GET").body == b"ok\n"
    assert json.loads(ask(gateway, "/readyz", method="GET").body) == {"ready": True, "problems": []}
    assert ask(gateway, "/healthz", method="GET", host="evil.example").status == 403


def test_beyond_loopback_nobody_known_is_exit_2(tmp_path: Path, provider: LocalProvider) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(
        policy(provider).replace("  - {name: bot, team: bots, key: env:BOT_KEY}\n", ""))
    done = ran([*command(tmp_path, "serve"), "--proxy=127.0.0.1:0", "--admin=127.0.0.1:0", "--http=0.0.0.0:0"], environ())
    assert done.returncode == 2
    assert "--http 0.0.0.0:0: beyond loopback" in done.stderr


def test_beyond_loopback_strangers_get_401(tmp_path: Path, provider: LocalProvider) -> None:
    text = policy(provider, chain="  - authenticate: {unknown: {allow-as: local}}\n  - swap_key: {}").replace(
        '[127.0.0.0/8, "::1/128"]', "[10.0.0.0/8]")
    with running_gateway(tmp_path, text, http="0.0.0.0:0") as gateway:
        gateway.http = ("127.0.0.1", gateway.http[1])
        with untouched(provider):
            assert ask(gateway, body=chat()).code == "unauthenticated"
        assert ask(gateway, body=chat(), headers=(JSON, ("x-api-key", BOT_KEY))).status == 401, "not openai's header"
        assert ask(gateway, body=chat(), headers=(JSON, ("authorization", f"Bearer {BOT_KEY}"))).code != "unauthenticated"
        assert gateway.stop(signal.SIGTERM) == 0
