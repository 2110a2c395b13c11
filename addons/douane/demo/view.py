"""The demo on the screen: side by side in a terminal, aligned lines elsewhere.

Law: both tell the same story, and whether all of it is so.
"""

import contextlib
import re
from collections.abc import Iterator
from itertools import zip_longest

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from douane.demo.evidence import Command, Evidence
from douane.demo.questions import PERSONAL
from douane.demo.story import APP, INTRO, Compared, Grid, Lines, Note, Scene, story

__all__ = ["PlainView", "RichView"]

_SENT, _GOT, _BACK = "the app sent", "the provider got, and answered", "the app got back"
_WIDEST = 108
_STYLES = {
    "bold magenta": r"<[A-Z_]+_[a-z2-7]{8,}>",
    "yellow": "|".join(map(re.escape, PERSONAL)),
    "green": r"\bsk-real-\w*…|\ballow \d+|^ok$",
    "red": r"\bdeny \w+|\b\w+Error\b|^BAD: .*",
}
"""Style → what has it, wherever it stands."""


def _verdict(scenes: tuple[Scene, ...]) -> tuple[bool, str]:
    results = [so for scene in scenes for so, _ in scene.claims]
    if all(results):
        return True, f"All {len(results)} claims were checked in this run and hold."
    return False, f"{results.count(False)} of {len(results)} claims do NOT hold."


class PlainView:
    """Aligned text without colours or boxes."""

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        yield

    def show(self, evidence: Evidence) -> bool:
        """Print everything; whether all that is claimed is so."""
        print(f"Douane demo\n{INTRO}\n\n{evidence.rules}\n$ {APP}")
        scenes = story(evidence)
        for scene in scenes:
            print(f"\n{scene.title}")
            for part in scene.parts:
                print("\n" + "\n".join(f"   {line}".rstrip() for line in _plain(part)))
            print()
            for so, claim in scene.claims:
                print(f"   {'yes' if so else 'NO '}  {claim}")
        good, said = _verdict(scenes)
        print(f"\n{said}")
        return good


def _plain(part: Compared | Grid | Command | Note) -> Iterator[str]:
    match part:
        case Compared():
            yield part.title
            for heading, lines in ((_SENT, part.sent), (_GOT, part.got), (_BACK, part.back)):
                for at, (what, value) in enumerate(lines):
                    yield f"   {'' if at else heading:<32}{what:<9}{value}"
        case Grid():
            widths = [max(map(len, column)) for column in zip_longest(part.heads, *part.rows, fillvalue="")]
            for row in (part.heads, *part.rows):
                yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        case Command():
            yield f"$ {part.line}"
            yield from part.said.splitlines()
        case Note():
            yield part.text


class RichView:
    """Panels in colours, for a terminal of 80 columns or more; made to be looked at at 108."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._console.width = min(self._console.width, _WIDEST)

    def working(self, what: str) -> contextlib.AbstractContextManager[object]:
        return self._console.status(what)

    def show(self, evidence: Evidence) -> bool:
        """Print everything; whether all that is claimed is so."""
        out = self._console
        rules = Text.assemble(("the rules, from the policy file\n", "dim"), evidence.rules.rstrip())
        app = Text.assemble(("the app, its code unchanged\n", "dim"), (f"$ {APP}", "bold"))
        out.print(_panel("Douane", [Text(INTRO), Text(), rules, Text(), app], "cyan"))
        scenes = story(evidence)
        for scene in scenes:
            good = all(so for so, _ in scene.claims)
            parts = [drawn for part in scene.parts for drawn in (Text(), *_drawn(part))]
            out.print(_panel(scene.title, [*parts, Text(), *map(_claim, scene.claims)], "bright_black" if good else "red"))
        good, said = _verdict(scenes)
        out.print(Text(f" {said}", style="bold green" if good else "bold red"))
        return good


def _panel(title: str, parts: list[RenderableType], colour: str) -> Panel:
    return Panel(Group(*parts), title=Text(f" {title} ", style="bold"), title_align="left", border_style=colour, box=ROUNDED,
                 padding=(0, 1))


def _claim(claim: tuple[bool, str]) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_row(Text("✓", style="bold green") if claim[0] else Text("✗", style="bold red"),
                 Text(claim[1], style="green" if claim[0] else "bold red"))
    return line


def _marked(text: str, style: str = "") -> Text:
    """*text* with what is personal, a placeholder, a verdict … in its colour."""
    made = Text(text, style=style)
    for colour, pattern in _STYLES.items():
        made.highlight_regex(re.compile(pattern, re.MULTILINE), colour)
    return made


def _drawn(part: Compared | Grid | Command | Note) -> Iterator[RenderableType]:
    match part:
        case Compared():
            table = Table(box=SIMPLE_HEAD, expand=True, header_style="dim", border_style="bright_black", padding=(0, 1),
                          title=_marked(part.title, "bold"), title_justify="left", show_edge=False, pad_edge=False)
            for heading, ratio in ((_SENT, 9), (_GOT, 10), (_BACK, 10)):
                table.add_column(heading, ratio=ratio)
            table.add_row(_cell(part.sent), _cell(part.got), _cell(part.back))
            yield table
        case Grid():
            table = Table(box=SIMPLE_HEAD, header_style="dim", border_style="bright_black", padding=(0, 1), show_edge=False,
                          pad_edge=False)
            for heading in part.heads:
                table.add_column(heading, justify="right" if heading in ("held", "charged") else "left", no_wrap=True)
            for row in part.rows:
                table.add_row(*map(_marked, row))
            yield table
        case Command():
            yield Text(f"$ {part.line}", style="bold")
            yield from map(_line, part.said.splitlines())
        case Note():
            yield _marked(part.text)


def _line(line: str) -> RenderableType:
    """A line of a command's output: what is told of a call is cut at the end, where its id stands, all else goes on below."""
    said = re.fullmatch(r"( *│ )(.*)", line)
    if said:
        grid = Table.grid()
        grid.add_column()
        grid.add_column(overflow="fold")
        grid.add_row(Text(said[1], style="dim"), _marked(said[2]))
        return grid
    record = re.match(r"\S+ +(intent|outcome) ", line)
    made = _marked(line, "dim" if record and record[1] == "intent" else "")
    made.no_wrap, made.overflow = (True, "ellipsis") if record else (False, "fold")
    return made


def _cell(lines: Lines) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for what, value in lines:
        grid.add_row(what, _marked(value))
    return grid
