"""The head of a refusal, whatever door the call came by."""

from math import ceil

from douane.errors import retryable
from douane.providers.base import Family
from douane.verdict import Deny

__all__ = ["denied_headers"]


def denied_headers(denial: Deny, family: Family, call_id: str, at: float) -> list[tuple[bytes, bytes]]:
    """What an SDK reads of it. *at*: seconds since the epoch."""
    headers = [(b"content-type", b"application/json"), (b"x-douane-id", call_id.encode()),
               (b"x-douane-code", denial.code.encode())]
    if not retryable(denial.code):
        headers.append((b"x-should-retry", b"false"))
    if denial.retry_after is not None:
        headers.append((b"retry-after", str(max(1, ceil(denial.retry_after))).encode()))
    if denial.room is not None:
        headers += family.room(denial.room, at)
    return headers
