"""What a newcomer must know at a start, in a few lines; and the plain data it is made of, which a worker can hand to its
parent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from douane import __version__
from douane.places import Places

__all__ = ["Addresses", "Summary", "banner"]

type Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a set of policy files comes to, as JSON can carry it."""

    revision: str
    files: tuple[str, ...]
    """Names without their folder."""
    chain: tuple[str, ...]
    governed: tuple[str, ...]
    tunnels: bool
    """Whether hosts that nobody governs are tunnelled."""
    level: str
    """Of the audit log."""
    unprotected: tuple[str, ...]
    """What a reader might believe to be protected and is not."""
    tls_names: tuple[str, ...]
    """For which leaves are signed."""
    credentials: tuple[str, ...]
    secret_variables: tuple[str, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Summary":
        """What ``asdict`` said, back from JSON."""
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a gateway listens."""

    proxy: Address
    http: Address
    admin: Address


def banner(summary: Summary, places: Places, at: Addresses, notes: tuple[str, ...], workers: int = 1) -> str:
    """*notes*: the CA's."""
    files = ", ".join(summary.files)
    chain = " → ".join(summary.chain) or "nothing"
    lines = [
        f"Douane {__version__}",
        f"  listening   proxy http://{_of(at.proxy)}   http http://{_of(at.http)}/PROVIDER   admin http://{_of(at.admin)}/metrics",
        f"  policies    {files} (revision {summary.revision[:12]}): {chain}",
        f"  governed    {_few(summary.governed)}; other hosts pass "
        + ("untouched, still encrypted" if summary.tunnels else "not at all"),
        f"  audit       {places.audit} (level {summary.level})",
    ]
    if workers > 1:
        lines.append(f"  workers     {workers}, each with a chain of records of its own")
    lines += [f"  NOT YET     {line}" for line in summary.unprotected]
    lines += [f"  CA          {note}" for note in notes]
    lines += ["  to use it   ./run.sh run -- python my_app.py      or: eval \"$(./run.sh env)\""]
    return "\n".join(lines)


_BEST_KNOWN = ("api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com", "*.openai.azure.com",
               "bedrock-runtime.us-east-1.amazonaws.com")


def _few(hosts: tuple[str, ...]) -> str:
    """All of them where they are few; else the best known, and how many more there are (docs/providers.md has the list)."""
    if len(hosts) <= len(_BEST_KNOWN):
        return ", ".join(hosts) or "nothing"
    shown = [one for one in _BEST_KNOWN if one in hosts] or list(hosts[:len(_BEST_KNOWN)])
    return f"{', '.join(shown)} and {len(hosts) - len(shown)} more"


def _of(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
