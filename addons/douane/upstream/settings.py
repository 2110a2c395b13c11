"""How long and how much: the bounds of the client. All times in seconds, all sizes in bytes."""

from dataclasses import dataclass

__all__ = ["Limits", "Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect: float = 10.0
    """For name, TCP, proxy and TLS together."""
    first_byte: float = 600.0
    """From the last byte written until the final head is complete: a model may think for minutes."""
    idle: float = 300.0
    """Between two reads of a body. Does not run while the caller is the slow one."""


@dataclass(frozen=True, slots=True)
class Limits:
    per_target: int = 1000
    """Connections to one target, in use, idle and being dialled; more calls wait their turn."""
    keep_alive: float = 30.0
    """How long an idle connection is kept."""
    max_head: int = 65536
    """Of an answer's head, interim (1xx) heads included; also of framing (extensions, trailers) without content."""
    idle_per_target: int = 100
