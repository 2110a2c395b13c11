"""Alerts: what is sent, to whom, how often; with real receivers, and another's code to check the signature."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email import policy as mail_policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from douane import alerts
from douane.alerts import Courier, Mail, Slack, UndeliveredError, Webhook, payload, sentence, signed
from douane.demo.provider import LocalProvider, running_provider
from douane.errors import ConfigError
from douane.ledger.base import NANO, Account, Alert, Demand, Spent
from douane.ledger.sqlite import SqliteLedger
from douane.loader import load
from douane.secrets import Secret
from tests.gateway import Wire, chat, policy, request, running_gateway, wait_for
from tests.house import AT, run

KEY = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DAY = Account("acme", "", "team", "support", "usd", "day", 1_767_312_000, 1_767_398_400)
ONE = Alert(DAY, 800, AT, 41 * NANO, 50 * NANO)


@dataclass
class Receiver:
    """An HTTP server that keeps what it is sent, and answers *statuses* in turn, then 200."""

    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            one.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(one.statuses.pop(0) if one.statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_is_signed_as_others_check_it(receiver: Receiver) -> None:
    run(Webhook(Secret(receiver.url), Secret(KEY)).send(ONE, time.time()))
    headers, body = receiver.got[0]
    assert Verifier(KEY).verify(body, headers) == json.loads(body)
    assert json.loads(body) == payload(ONE)
    assert headers["webhook-id"] == ONE.id
    with pytest.raises(WebhookVerificationError):
        Verifier(KEY).verify(body + b" ", headers)
    assert signed(Secret("plain text"), "id", 5, b"x")["webhook-signature"].startswith("v1,")


def test_what_is_told() -> None:
    assert payload(ONE)["data"] == {
        "org": "acme", "scope": "team", "name": "support", "book": None, "window": "day", "begins": "2026-01-02T00:00:00Z",
        "ends": "2026-01-03T00:00:00Z", "unit": "usd", "share": 0.8, "spent": 41.0, "limit": 50.0}
    assert sentence(ONE) == ("Douane: team support of acme has reached 80 % of its budget this day: 41.00 USD of 50.00 USD, "
                             "until 2026-01-03T00:00:00Z")


def test_slack(receiver: Receiver) -> None:
    run(Slack(Secret(receiver.url)).send(ONE, AT))
    assert json.loads(receiver.got[0][1]) == {"text": sentence(ONE)}


class Mailbox:
    def __init__(self) -> None:
        self.got: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd looks for it
        self.got.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=mail_policy.default)))
        return "250 OK"


def test_email() -> None:
    box = Mailbox()

    async def work() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(box), "127.0.0.1", 0)
        async with server:
            smtp = Secret(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await Mail(smtp, "douane@acme.example", ("ops@acme.example", "b@acme.example")).send(ONE, AT)

    run(work())
    ((to, message),) = box.got
    assert to == ["ops@acme.example", "b@acme.example"]
    assert message["subject"] == sentence(ONE).removeprefix("Douane: ")
    assert json.loads("{" + message.get_content().partition("{")[2]) == payload(ONE)


@pytest.mark.parametrize("channel", [
    Webhook(Secret("http://127.0.0.1:1/hidden-path")), Slack(Secret("http://127.0.0.1:1/hidden-path")),
    Mail(Secret("smtp://u:hidden-word@127.0.0.1:1"), "a@b", ("c@d",))])
def test_a_receiver_that_is_away_is_said_without_its_address(channel: Any) -> None:
    with pytest.raises(UndeliveredError) as caught:
        run(channel.send(ONE, AT))
    assert "hidden" not in str(caught.value) + repr(channel)


def test_a_mail_server_beyond_this_machine_must_speak_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    async def send(message: Any, **given: Any) -> None:
        seen.append(given["start_tls"])

    monkeypatch.setattr("aiosmtplib.send", send)
    for where in ("smtp://mail.example", "smtp://127.0.0.1", "smtps://mail.example"):
        run(Mail(Secret(where), "a@b", ("c@d",)).send(ONE, AT))
    assert seen == [True, None, None]


# -- at least once -------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with contextlib.closing(SqliteLedger(tmp_path)) as opened:
        yield opened


async def spend(ledger: SqliteLedger, call: str, amount: int) -> None:
    await ledger.reserve(call, "acme", AT, [Demand(DAY, amount, 50 * NANO, alerts=(500, 800))])
    await ledger.capture(call, "acme", Spent(amount, 0, 1))


def test_until_every_channel_has_taken_it(ledger: SqliteLedger, receiver: Receiver) -> None:
    hook, chat_room = Webhook(Secret(receiver.url)), Slack(Secret(receiver.url))
    courier = Courier(ledger, (hook, chat_room))

    async def work() -> None:
        await spend(ledger, "a", 26 * NANO)
        receiver.statuses = [500, 200]
        wrong = await courier.round(AT)
        assert wrong == ["an alert was not taken by webhook, and is sent again: status 500"]
        assert await courier.round(AT + 1) == [], "it is somebody's, for a minute"
        assert len(receiver.got) == 2
        assert await courier.round(AT + alerts.AGAIN_SECONDS + 1) == []
        assert len(receiver.got) == 3, "who has taken it is not told again"
        await spend(ledger, "b", 20 * NANO)
        await courier.round(AT + 200)
        ids = [json.loads(body)["id"] for headers, body in receiver.got if b'"id"' in body]
        assert ids[0] == ids[1] != ids[2]
        assert await courier.round(AT + 9999) == []
        assert len(receiver.got) == 5

    run(work(), 20)


def test_who_dies_with_it_leaves_it_to_others(ledger: SqliteLedger, receiver: Receiver) -> None:
    class Hangs:
        name = "hangs"
        secrets = ()

        async def send(self, one: Alert, now: float) -> None:
            await asyncio.sleep(60)

    async def work() -> None:
        await spend(ledger, "a", 45 * NANO)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(Courier(ledger, (Hangs(),)).round(AT), 0.05)
        other = Courier(ledger, (Webhook(Secret(receiver.url)),))
        await other.round(AT + 1)
        assert not receiver.got
        await other.round(AT + alerts.AGAIN_SECONDS + 1)
        assert {json.loads(body)["data"]["share"] for _, body in receiver.got} == {0.5, 0.8}

    run(work(), 20)


def test_with_nobody_to_tell_nothing_waits(ledger: SqliteLedger, receiver: Receiver) -> None:
    async def work() -> None:
        await spend(ledger, "a", 45 * NANO)
        assert await Courier(ledger, ()).round(AT) == []
        await Courier(ledger, (Webhook(Secret(receiver.url)),)).round(AT + 9999)

    run(work())
    assert not receiver.got


# -- in a gateway, in YAML -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider")) as one:
        yield one


def test_a_gateway_tells_once(tmp_path: Path, provider: LocalProvider, receiver: Receiver) -> None:
    chain = ("  - authenticate: {unknown: deny}\n"
             "  - budget: {per: team, limit: 3 calls/day, alert_at: [0.5, 1]}\n  - swap_key: {missing: keep}")
    more = f"alerts:\n  - {{webhook: '{receiver.url}', secret: env:HOOK_KEY}}"
    with running_gateway(tmp_path, policy(provider, chain=chain, more=more), env={"HOOK_KEY": KEY}) as one:
        for number in range(5):
            with Wire.tls(one) as wire:
                wire.send(request(chat()))
                assert wire.answer().status == (200 if number < 3 else 429)
        assert wait_for(lambda: len(receiver.got) == 2, 6)
        time.sleep(0.2)
        said = [json.loads(body)["data"] for _, body in receiver.got]
        assert sorted((one["share"], one["limit"], one["name"]) for one in said) == [(0.5, 3, "dev"), (1.0, 3, "dev")]
        assert all(Verifier(KEY).verify(body, headers) for headers, body in receiver.got)


@pytest.mark.parametrize(("text", "said"), [
    ("[{}]", "alerts[0]: one of webhook, slack, email"), ("[{webhook: 'http://example.com/x'}]", "alerts[0].webhook: allowed: https://"),
    ("[{slack: 'https://[no-address/x'}]", "alerts[0].slack: allowed: https://"),
    ("[{webhook: 'env:ABSENT'}]", "the environment variable ABSENT is not set"), ("{webhook: x}", "alerts"),
    ("[{email: nobody, smtp: 'smtp://h', sender: a@b}]", "`nobody` is no e-mail address"),
    ("[{email: a@b, smtp: 'https://h', sender: a@b}]", "alerts[0].smtp"),
    ("[{slack: 'https://hooks.example/x', webhook: 'https://hooks.example/x'}]", "one of webhook, slack, email")])
def test_mistakes_are_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\nchain:\n  - authenticate: {{}}\nalerts: {text}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:4") as caught:
        load(tmp_path, environ={})
    assert said in str(caught.value)


@pytest.mark.parametrize(("section", "secrets"), [
    ("alerts: [{slack: env:SLACK}]", ("T0/B0/a-made-up-path",)),
    ("alerts: [{webhook: 'https://ops:a%20made-up-word@example.com/x', secret: env:SIGNS}]",
     ("a%20made-up-word", "a made-up-word", "whsec_a-made-up-key")),
    ("alerts: [{email: a@b, smtp: env:SMTP, sender: a@b}]", ("a-made-up-mail-word",)),
    ("ledger: {redis: env:REDIS}", ("a-made-up-redis-word",))])
def test_what_opens_a_channel_or_the_ledger_counts_as_a_key_of_the_gateways(tmp_path: Path, section: str,
                                                                          secrets: tuple[str, ...]) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\nchain:\n  - authenticate: {{}}\n{section}\n")
    loaded = load(tmp_path, environ={
        "SLACK": "https://hooks.slack.example/services/T0/B0/a-made-up-path", "SIGNS": "whsec_a-made-up-key",
        "SMTP": "smtps://u:a-made-up-mail-word@h", "REDIS": "redis://u:a-made-up-redis-word@h"})
    for one in secrets:
        assert loaded.own_keys.find(f"it is {one}!".encode())
    assert not loaded.own_keys.find(b"https://example.com/x and hooks.slack.example")
