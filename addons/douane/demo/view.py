"""The demo on the screen: side by side in a terminal, aligned lines elsewhere.

Law: a key is shown by its first characters only, and every word comes from the evidence.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from rich.box import HEAVY_HEAD
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from douane.audit.show import one_line
from douane.demo.evidence import Evidence, Told, claims, key_of, mask

__all__ = ["PlainView", "RichView"]

_SENT, _LEFT, _BACK = "the app sent", "left for the provider", "came back to the app"
_INTRO = "Two real SDKs, a gateway, a provider on this machine that plays both; no key, no network."
_COMMAND = "douane run -- python -m douane.demo.app"
type Lines = list[tuple[str, str]]
"""(what, value); an empty *what* continues the line before."""


def _title(number: int, told: Told) -> str:
    return f"{number}  {told.sdk} SDK, {'streaming' if told.stream else 'forbidden model' if told.refused else 'plain'}"


def _sent(told: Told) -> Lines:
    return [("to", urlsplit(told.url).netloc), ("model", told.model), ("text", f"“{told.question}”"),
            ("key", mask(told.key)), ("body", f"{len(told.body.encode())} bytes")]


def _left(evidence: Evidence, told: Told) -> Lines:
    found = evidence.arrived(told)
    if not found:
        return [("", "nothing")]
    seen = found[0]
    asked = json.loads(seen.body)
    return [("to", seen.header("host")), ("model", asked["model"]), ("text", f"“{asked['messages'][-1]['content']}”"),
            ("key", mask(key_of(seen))), ("body", f"the same {len(seen.body)} bytes")]


def _back(evidence: Evidence, told: Told) -> Lines:
    if told.refused:
        name, _, message = told.refused.partition(": ")
        lines = [("raised", name), ("", message)]
    else:
        lines = [("answer", f"“{told.answer}”")]
        if told.stream:
            lines.append(("in", f"{len(told.pieces)} pieces"))
    return [*lines, ("verdict", _verdict(evidence, told)), ("record", f"{told.id[:16]}…")]


def _verdict(evidence: Evidence, told: Told) -> str:
    for record in evidence.recorded(told):
        if record["kind"] == "outcome":
            verdict = record["verdict"]
            return f"deny {verdict['code']}" if verdict["action"] == "deny" else f"allow {record['status']}"
    return "none recorded"


def _log_lines(evidence: Evidence) -> list[str]:
    return [one_line(dict(record)) for record in evidence.records if record.get("kind") != "event"]


def _verified(evidence: Evidence) -> str:
    report = evidence.report
    heads = ", ".join(f"{node} {head[:16]}…" for node, head in report.heads.items())
    return f"{report.records} records, {'ok' if report.ok else f'BAD: {report.first_bad}'}; head {heads}"


class PlainView:
    """Aligned text without colours or boxes."""

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        yield

    def show(self, evidence: Evidence) -> bool:
        """Print everything; whether all that is claimed is so."""
        print(f"Douane demo\n{_INTRO}\n\n$ {_COMMAND}")
        for number, told in enumerate(evidence.told, 1):
            print(f"\n{_title(number, told)}")
            columns = ((_SENT, _sent(told)), (_LEFT, _left(evidence, told)), (_BACK, _back(evidence, told)))
            for heading, lines in columns:
                for at, (what, value) in enumerate(lines):
                    print(f"   {'' if at else heading:<23}{what:<9}{value}".rstrip())
        print("\n$ douane audit tail")
        for line in _log_lines(evidence):
            print(line)
        print(f"\n$ douane audit verify\n{_verified(evidence)}\n\nChecked")
        results = list(claims(evidence))
        for good, claim in results:
            print(f"   {'yes' if good else 'NO '}  {claim}")
        return all(good for good, _ in results)


class RichView:
    """Three columns side by side, in colours, for a terminal of 80 columns or more."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._console.width = min(self._console.width, 132)

    def working(self, what: str) -> contextlib.AbstractContextManager[object]:
        return self._console.status(what)

    def show(self, evidence: Evidence) -> bool:
        """Print everything; whether all that is claimed is so."""
        out = self._console
        intro = Group(Text(_INTRO), Text(f"$ {_COMMAND}", style="bold"))
        out.print(Panel(intro, title="Douane demo", title_align="left", border_style="cyan"))
        out.print(self._calls(evidence))
        out.print(Text("\n$ douane audit tail", style="bold"))
        for line in _log_lines(evidence):
            style = "red" if "  deny " in line else "dim" if " intent " in line else ""
            out.print(Text(line, style=style), no_wrap=True, overflow="ellipsis")
        out.print(Text("\n$ douane audit verify", style="bold"))
        out.print(Text(_verified(evidence), style="green" if evidence.report.ok else "bold red"))
        out.print()
        results = list(claims(evidence))
        lines = [Text.assemble(("✓ ", "bold green") if so else ("✗ ", "bold red"), claim) for so, claim in results]
        good = all(so for so, _ in results)
        out.print(Panel(Group(*lines), title="Checked in this run", title_align="left",
                        border_style="green" if good else "red"))
        return good

    def _calls(self, evidence: Evidence) -> Table:
        table = Table(box=HEAVY_HEAD, show_lines=True, expand=True, header_style="bold", border_style="bright_black")
        for heading in (_SENT, _LEFT, _BACK):
            table.add_column(heading, ratio=1)
        for number, told in enumerate(evidence.told, 1):
            table.add_row(
                self._cell(_title(number, told), _sent(told), "yellow"),
                self._cell("forwarded", _left(evidence, told), "green") if evidence.arrived(told)
                else self._cell("nothing: refused here", [], "red"),
                self._cell("refused", _back(evidence, told), "red") if told.refused
                else self._cell("answered", _back(evidence, told), "green"))
        return table

    @staticmethod
    def _cell(title: str, lines: Sequence[tuple[str, str]], colour: str) -> Table:
        """A title, then lines as two columns; the key and the verdict stand out."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for what, value in lines:
            grid.add_row(what, Text(value, style=f"bold {colour}" if what in ("key", "verdict", "raised") else ""))
        cell = Table.grid()
        cell.add_row(Text(title, style=f"bold {colour}"))
        cell.add_row(grid)
        return cell
