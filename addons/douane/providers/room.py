"""What a refused call is told of the limit it met, in the headers that the provider's own SDKs and retry code read.

Spellings: OpenAI's ``x-ratelimit-…`` with Go's durations (``6m0s``, ``12ms``), which Azure, Mistral, Groq and others took over,
and Anthropic's ``anthropic-ratelimit-…`` with RFC 3339 times; both as recorded in ``shared/wire``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from douane.call import Headers

__all__ = ["Room", "anthropic_room", "openai_room"]


@dataclass(frozen=True, slots=True)
class Room:
    """What is left of one limit."""

    unit: str
    """``requests`` or ``tokens``."""
    limit: int
    remaining: int
    reset_after: float
    """Seconds until all of it is there again."""


type RoomStyle = Callable[[Room, float], Headers]


def openai_room(room: Room, at: float) -> Headers:
    """*at*: seconds since the epoch."""
    return _headers("x-ratelimit-{what}-{unit}", room, duration(room.reset_after))


def anthropic_room(room: Room, at: float) -> Headers:
    """As :func:`openai_room`."""
    reset = datetime.fromtimestamp(ceil(at + room.reset_after), UTC).isoformat().replace("+00:00", "Z")
    return _headers("anthropic-ratelimit-{unit}-{what}", room, reset)


def _headers(name: str, room: Room, reset: str) -> Headers:
    told = (("limit", str(room.limit)), ("remaining", str(room.remaining)), ("reset", reset))
    return tuple((name.format(what=what, unit=room.unit).encode(), value.encode()) for what, value in told)


def duration(seconds: float) -> str:
    """``12ms``, ``1.5s``, ``6m0s``, ``1h0m3s``: as Go's ``Duration.String``, to the millisecond."""
    millis = ceil(seconds * 1000)
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    last = f"{rest / 1000:g}s"
    return f"{hours}h{minutes}m{last}" if hours else f"{minutes}m{last}" if minutes else last
