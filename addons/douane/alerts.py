"""Alerts to people: a share of a budget has been spent. Signed webhooks, Slack's own shape, e-mail.

Law: at least once. An alert waits in the ledger's outbox until every channel has taken it, whoever dies meanwhile; it has the
same id each time it comes. Nothing here is on a call's path.

Webhooks are signed as Standard Webhooks says (https://www.standardwebhooks.com): HMAC-SHA256 over ``id.timestamp.body``.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from douane.ledger.base import NANO, Alert, LedgerUnavailableError, Outbox
from douane.secrets import Secret, passwords

__all__ = ["Channel", "Courier", "Mail", "Slack", "UndeliveredError", "Webhook", "payload", "sentence", "signed"]

SECONDS = 10.0
"""What a receiver may take."""
AGAIN_SECONDS = 60.0
"""After which an alert that was not taken is tried again."""
_REMEMBERED = 10_000


class UndeliveredError(Exception):
    """A receiver did not take it; said without its address, which may be a secret."""


class Channel(Protocol):
    @property
    def name(self) -> str:
        """For the log: what it is, not where."""
        ...

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What of it must be seen nowhere."""
        ...

    async def send(self, one: Alert, now: float) -> None:
        """Raises UndeliveredError."""
        ...


def payload(one: Alert) -> dict[str, Any]:
    """The JSON of a webhook: amounts in USD where *unit* is ``usd``, times in RFC 3339."""
    of = one.account
    return {"type": "budget.alert", "id": one.id, "timestamp": _time(one.at), "data": {
        "org": of.org or None, "scope": of.scope, "name": of.name or None, "book": of.book or None, "window": of.period,
        "begins": _time(of.start) if of.end is not None else None, "ends": None if of.end is None else _time(of.end),
        "unit": of.unit, "share": one.share / 1000, "spent": _amount(one.captured, of.unit),
        "limit": _amount(one.limit, of.unit)}}


def sentence(one: Alert) -> str:
    """For people."""
    of = one.account
    whose = f"{of.scope} {of.name}" if of.name else f"calls without {of.scope}"
    whose += f" of {of.org}" if of.org and of.scope != "org" else ""
    within = "in total" if of.period == "total" else f"this {of.period}"
    until = "" if of.end is None else f", until {_time(of.end)}"
    spent, limit = (_shown(amount, of.unit) for amount in (one.captured, one.limit))
    return f"Douane: {whose} has reached {one.share / 10:g} % of its budget {within}: {spent} of {limit}{until}"


def signed(secret: Secret, message_id: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of a Standard Webhook. *secret*: ``whsec_`` and base64, or any text."""
    given = secret.reveal()
    try:
        key = base64.b64decode(given.removeprefix("whsec_"), validate=True) if given.startswith("whsec_") else given.encode()
    except binascii.Error:
        key = given.encode()
    mac = hmac.new(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}


@dataclass(frozen=True, slots=True)
class Webhook:
    url: Secret
    secret: Secret | None = None
    name: str = "webhook"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return (*passwords(self.url), *(() if self.secret is None else (self.secret,)))

    async def send(self, one: Alert, now: float) -> None:
        body = json.dumps(payload(one)).encode()
        headers = signed(self.secret, one.id, int(now), body) if self.secret is not None else {}
        await _post(self.url, body, headers)


@dataclass(frozen=True, slots=True)
class Slack:
    """Slack's incoming webhooks; Mattermost, Discord (``/slack``) and Teams' workflows take the same."""

    url: Secret
    name: str = "slack"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return (Secret(urlsplit(self.url.reveal()).path.removeprefix("/services").strip("/")),)  # who knows it may post

    async def send(self, one: Alert, now: float) -> None:
        await _post(self.url, json.dumps({"text": sentence(one)}).encode(), {})


@dataclass(frozen=True, slots=True)
class Mail:
    """*smtp*: ``smtps://USER:PASSWORD@HOST:465``, or ``smtp://`` with STARTTLS (but to this machine)."""

    smtp: Secret
    sender: str
    to: tuple[str, ...]
    name: str = "email"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        return passwords(self.smtp)

    async def send(self, one: Alert, now: float) -> None:
        from email.message import EmailMessage

        import aiosmtplib

        where = urlsplit(self.smtp.reveal())
        host, secure = where.hostname or "localhost", where.scheme == "smtps"
        said = EmailMessage()
        said["From"], said["To"] = self.sender, ", ".join(self.to)
        said["Subject"] = sentence(one).partition(": ")[2][:150]
        said["Message-ID"] = f"<{one.id}@douane>"
        said["Date"] = datetime.fromtimestamp(one.at, UTC)
        said.set_content(sentence(one) + "\n\n" + json.dumps(payload(one), indent=1) + "\n")
        try:
            await aiosmtplib.send(
                said, hostname=host, port=where.port or (465 if secure else 587), use_tls=secure, timeout=SECONDS,
                start_tls=None if secure or host in ("localhost", "127.0.0.1", "::1") else True,
                username=unquote(where.username) if where.username else None,
                password=unquote(where.password) if where.password else None)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise UndeliveredError(type(error).__name__) from None


@dataclass(slots=True)
class Courier:
    """Takes alerts from the outbox to every channel."""

    outbox: Outbox
    channels: Sequence[Channel]
    _done: dict[tuple[str, int], None] = field(default_factory=dict)
    """Which channel (by its place) has taken which alert: it is not told again for another's sake."""

    async def round(self, now: float) -> list[str]:
        """Deliver what is due. Returns what went wrong, a line each. Without a channel there is nobody to tell, and nothing
        is left waiting."""
        wrong: list[str] = []
        try:
            for one in await self.outbox.due(now, AGAIN_SECONDS):
                before = len(wrong)
                for place, channel in enumerate(self.channels):
                    await self._deliver(one, place, channel, now, wrong)
                if len(wrong) == before:
                    await self.outbox.sent(one)
        except LedgerUnavailableError as error:
            wrong.append(f"the outbox cannot be read: {error.reason}")
        return wrong

    async def _deliver(self, one: Alert, place: int, channel: Channel, now: float, wrong: list[str]) -> None:
        if (one.id, place) in self._done:
            return
        try:
            await channel.send(one, now)
        except UndeliveredError as error:
            wrong.append(f"an alert was not taken by {channel.name}, and is sent again: {error}")
            return
        self._done[one.id, place] = None
        while len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]


async def _post(url: Secret, body: bytes, headers: dict[str, str]) -> None:
    import httpx

    try:
        async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:
            answer = await client.post(url.reveal(), content=body, headers={"content-type": "application/json", **headers})
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UndeliveredError(type(error).__name__) from None
    if not answer.is_success:
        raise UndeliveredError(f"status {answer.status_code}")


def _amount(amount: int, unit: str) -> float | int:
    return amount / NANO if unit == "usd" else amount


def _shown(amount: int, unit: str) -> str:
    return f"{amount / NANO:.2f} USD" if unit == "usd" else f"{amount:,} {unit}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).isoformat().replace("+00:00", "Z")
