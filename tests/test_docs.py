"""What the pages say is there, and what is there stands in a page."""

import argparse
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from douane.audit import record
from douane.call import Outcome
from douane.cli import _parser
from douane.detect.secret_scanner import KINDS
from douane.edge import EdgeRules
from douane.errors import DENIALS, retryable
from douane.policy import registry
from douane.providers import describe
from douane.providers.table import builtin
from douane.verdict import Deny
from tests import house

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def words(*names: str) -> set[str]:
    """What stands between backticks in these pages, whole and in its parts."""
    quoted = [quote for name in names for quote in re.findall(r"`([^`\n]+)`", PAGES[name])]
    return {*quoted, *(part for quote in quoted for part in re.findall(r"[\w.-]+", quote))}


def rows(page: str, *, width: int) -> dict[str, list[str]]:
    """First cell (a word in backticks) → the cells of that row, of the tables that wide."""
    found = {}
    for line in PAGES[page].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if len(cells) == width and re.fullmatch(r"`\w+`", cells[0]):
            found[cells[0].strip("`")] = cells
    return found


def test_every_denial_is_explained_with_its_status() -> None:
    explained = rows("reference.md", width=4)
    assert set(explained) == set(DENIALS)
    for code, cells in explained.items():
        assert cells[1].startswith(str(DENIALS[code])), code
        assert all(cells), code
        if DENIALS[code] >= 500:
            assert retryable(code), "the page says that what is above 500 may be tried again"


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_policy_stands_with_its_fields(name: str) -> None:
    cells = rows("policies.md", width=2)[name]
    for field in fields(registry()[name]):
        assert f"`{field.name}" in cells[1], field.name


def test_no_policy_is_told_of_that_is_not_there() -> None:
    """Of the example chains in the pages: every entry is a policy of this version."""
    for page, text in PAGES.items():
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
            chain = block.partition("chain:\n")[2]
            assert set(re.findall(r"^  - (\w+):", chain, re.MULTILINE)) <= set(registry()), page


def test_every_edge_rule_stands_with_its_default() -> None:
    told = rows("policies.md", width=3)
    for field in fields(EdgeRules):
        default = {"max_body": "32MB", "tunnel": "[]"}.get(field.name, field.default)
        assert told[field.name][1].startswith(f"`{default}`"), field.name


def test_every_field_of_a_record_is_told() -> None:
    call = house.call(principal=house.BOT)
    said = [record.intent(record.about(call, ""), ()),
            record.outcome(record.about(call, ""), (), Outcome("denied"), denial=("p", Deny("too_large", "r")), latency_ms={})]
    names = {name for one in said for name in one} | {"node", "seq", "prev", "hash"}
    names |= set(said[1]["verdict"]) | set(said[0]["principal"])
    assert names <= words("audit.md")


@cache
def commands() -> frozenset[str]:
    """Every command as one writes it: ``check``, ``audit tail`` …"""
    found: set[str] = set()

    def visit(parser: argparse.ArgumentParser, before: str) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, below in action.choices.items():
                    visit(below, f"{before} {name}".strip())
                return
        found.add(before)

    visit(_parser(), "")
    return frozenset(found)


def written() -> set[str]:
    """Commands in the pages, ``a|b`` counted as both."""
    found = set()
    for text in PAGES.values():
        for group, names in re.findall(r"(?:\./run\.sh|douane) (audit|ca)? ?([a-z]+(?:\|[a-z]+| ID\|[a-z]+)*)", text):
            found |= {f"{group} {name}".strip() for name in names.replace(" ID", "").split("|")}
    return found


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_stands_somewhere(command: str) -> None:
    assert command in written()


def test_every_option_stands_in_the_readme() -> None:
    for option in ("policies", "data", "certs", "proxy", "http", "admin"):
        assert f"`--{option} " in PAGES["README.md"]
        assert f"`DOUANE_{option.upper()}`" in PAGES["README.md"]


def test_no_command_is_told_of_that_is_not_there() -> None:
    here = commands() | {"test", "bench", "audit", "ca"}  # run.sh's own, and the groups
    line = re.compile(r"^(?:\./run\.sh|douane) ((?:audit |ca )?[a-z]+)", re.MULTILINE)
    told = {command for text in PAGES.values() for command in line.findall(text)}
    assert told - here == set()
    assert len(told) > 5


def test_links_between_pages_lead_somewhere() -> None:
    for page, text in PAGES.items():
        folder = ROOT if page == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#:]*)(?:#[^)]*)?\)", text):
            assert not target or (folder / target).exists(), f"{page}: {target}"


def test_anchors_lead_somewhere() -> None:
    for page, text in PAGES.items():
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", text):
            headings = re.findall(r"^#+ (.*)$", PAGES[Path(target).name if target else page], re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page}: {target}#{anchor}"


def test_the_providers_are_told_as_they_are() -> None:
    """Written anew by ``python -m douane.providers.describe > docs/providers.md``."""
    assert PAGES["providers.md"] == describe.page(builtin().values())


def test_every_kind_of_secret_is_told_and_no_other() -> None:
    found = PAGES["secrets.md"].partition("## What is found")[2].partition("Each rule stands")[0]
    assert set(re.findall(r"`([A-Z][A-Z0-9_]+)`", found)) == set(KINDS)
