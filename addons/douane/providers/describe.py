"""The table of ``docs/providers.md``, from the code: ``python -m douane.providers.describe > docs/providers.md``."""

import sys
from collections.abc import Iterable

from douane.providers.base import Operation, Provider
from douane.providers.table import builtin

__all__ = ["page"]

_HEAD = """# Providers and operations

What is understood at which host. This page is written from the code (`python -m douane.providers.describe`); a test holds the two together.
What is in no row at a governed host is refused (`edge.unknown_operations`). To see what is understood of *your* traffic:
[`douane inspect`](inspect.md). Servers of your own that speak one of these languages: `providers: {NAME: {like: openai, …}}`
([policies.md](policies.md)).

*Texts*: requests are walked, policies read and rewrite every text in them. *Streams*: answers may come in pieces, in which values are
restored. *Usage*: tokens are read from the answer; where it tells none they are counted, and the record says `estimated`. *Bound*: where the
request says how long the answer may be; a budget can put it in where it is missing.
"""


def page(providers: Iterable[Provider]) -> str:
    """Markdown."""
    parts = [_HEAD]
    for provider in providers:
        header, prefix = provider.credential
        keys = ", ".join(f"`{name.decode()}`" for name in provider.key_headers)
        parts += [f"## {provider.name}", "",
                  f"Hosts: {', '.join(f'`{host}`' for host in provider.hosts) or 'those that policy files name'}. "
                  f"A credential is sent as `{header.decode()}: {prefix.decode()}KEY`; an app's own key is recognised in {keys}. "
                  f"Price list: {provider.prices or 'none (name prices in the policy files)'}. "
                  f"Refusals in the shape of {type(provider.family).__name__.removesuffix('Family')}.", "",
                  "| operation | request | texts | streams | usage | bound |", "|---|---|---|---|---|---|"]
        parts += _rows(provider.operations)
        parts.append("")
    return "\n".join(parts)


def _rows(operations: Iterable[Operation]) -> list[str]:
    return [f"| `{one.name}` | `{one.method} {_path(one)}` | {_cells(one)} |" for one in operations]


def _path(one: Operation) -> str:
    return one.path.pattern.replace("\\", "").replace("|", "¦")


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
