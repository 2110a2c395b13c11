"""The table of ``docs/providers.md``, from the code: ``python -m douane.providers.describe > docs/providers.md``."""

import re
import sys
from collections.abc import Iterable

from douane.providers.base import Operation, Provider
from douane.providers.table import builtin

__all__ = ["page"]

_HEAD = """# Providers and operations

What is understood at which host. This page is written from the code (`python -m douane.providers.describe`); a test holds the
two together. What is in no row at a governed host is refused (`edge.unknown_operations`). To see what is understood of *your*
traffic: [`douane inspect`](inspect.md). Servers of your own that speak one of these languages:
`providers: {NAME: {like: openai, …}}` ([policies.md](policies.md)).

*Texts*: requests are walked, policies read and rewrite every text in them. *Streams*: answers may come in pieces, in which
values are restored. *Usage*: tokens are read from the answer. *Bound*: where the request says how long the answer may be; a
budget can put it in where it is missing.
"""


def page(providers: Iterable[Provider]) -> str:
    """Markdown."""
    parts = [_HEAD]
    for provider in providers:
        header, prefix = provider.credential
        keys = ", ".join(f"`{name.decode()}`" for name in provider.key_headers)
        about = (f"Hosts: {_hosts(provider)}. A credential is sent as `{header.decode()}: {prefix.decode()}KEY`; an app's own "
                 f"key is recognised in {keys}. Price list: {provider.prices or 'none (name prices in the policy files)'}. "
                 f"Refusals in the shape of {type(provider.family).__name__.removesuffix('Family')}.")
        parts += [f"## {provider.name}", "", about, "",
                  "| operation | request | texts | streams | usage | bound |", "|---|---|---|---|---|---|"]
        parts += _rows(provider.operations)
        parts.append("")
    return "\n".join(parts)


def _hosts(provider: Provider) -> str:
    shown = [f"`{host}`" for host in provider.hosts]
    more = f" and {len(shown) - 4} more of its regions" if len(shown) > 6 else ""
    return ", ".join(shown[:4] if more else shown) + more or "those that policy files name"


def _rows(operations: Iterable[Operation]) -> list[str]:
    return [f"| `{one.name}` | `{one.method} {_path(one)}` | {_cells(one)} |" for one in operations]


def _path(one: Operation) -> str:
    """The pattern as a person writes it: ``/model/{model}/converse``; what may be left out has a question mark."""
    shown = _shown(one.path.pattern.replace("\\", "").removeprefix("(?i)"))
    while (shorter := re.sub(r"\{id\}(?:\{id\}|\(\{id\}\)\?)|\{id\}\{id\}", "{id}", shown)) != shown:
        shown = shorter
    return shown.replace("|", "¦")


def _shown(text: str) -> str:
    out, at = "", 0
    while at < len(text):
        if text[at] == "(":
            end = _closing(text, at)
            inner, least, at = text[at + 1:end], *_repeated(text, end + 1)
            if not inner.startswith(("?!", "?=")):
                shown = "{model}" if inner.startswith("?P<") else _shown(inner.removeprefix("?:"))
                alternatives = "|" in shown and least != 0 and not shown.startswith("{")
                out += f"({shown})?" if least == 0 else f"({shown})" if alternatives else shown
        elif text[at] == "[":
            _, at = _repeated(text, text.index("]", at + 2) + 1)
            out += "{id}"
        else:
            out, at = out + text[at], at + 1
    return out


def _repeated(text: str, at: int) -> tuple[int, int]:
    """The least count that the quantifier there asks for, and where it ends."""
    found = re.compile(r"[*+?]|\{(\d+)(?:,\d*)?\}").match(text, at)
    if found is None:
        return 1, at
    least = int(found[1]) if found[1] else {"*": 0, "?": 0, "+": 1}[found[0]]
    return least, found.end()


def _closing(text: str, at: int) -> int:
    """Where the group that begins there ends; brackets within a class do not count."""
    depth, within = 0, False
    for place in range(at, len(text)):
        char = text[place]
        within = (within or char == "[") and char != "]"
        if not within:
            depth += {"(": 1, ")": -1}.get(char, 0)
        if not depth:
            return place
    return len(text)


def _cells(one: Operation) -> str:
    wire = one.wire
    if wire is None:
        return " | ".join(["none in it", "–", "–", "–"])
    streams = "yes" if getattr(wire, "assembler", None) is not None else "–"
    usage = "yes" if getattr(wire, "answers", None) is not None else "not billed"
    bound = "`" + ".".join(map(str, wire.bound.insert)) + "`" if wire.bound.insert else "–"
    return " | ".join(["yes", streams, usage, bound])


if __name__ == "__main__":
    sys.stdout.write(page(builtin().values()))
