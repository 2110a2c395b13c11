"""Nodes → typed values: the schema is the type."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from douane.errors import ConfigError
from douane.schema import INVALID, read, read_fields
from douane.source import Problems, parse
from douane.units import Bytes, parse_bytes

type Level = Literal["low", "high"]


@dataclass(frozen=True, slots=True)
class AllowAs:
    allow_as: str


@dataclass(frozen=True, slots=True)
class Example:
    text: str
    count: int = 1
    ratio: float = 0.5
    yes: bool = False
    level: Level = "low"
    names: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    unknown: Literal["deny"] | AllowAs = "deny"
    one_or_more: str | tuple[str, ...] = ()
    size: Bytes = 1

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count is 0 or more")


def example(text: str) -> tuple[Any, tuple[str, ...]]:
    problems = Problems()
    table = parse("f", text.encode(), problems)
    assert table is not None
    return read_fields(table, Example, "example", problems), problems.lines()


def test_each_type_is_read_as_it_is_written() -> None:
    value, lines = example(
        "text: no\ncount: 3\nratio: 1\nyes: true\nlevel: high\nnames: [a, b]\nweights: {x: 1, y: .5}\n"
        "unknown: {allow-as: local}\none-or-more: [c]\nsize: 32MB\n")
    assert not lines
    assert value == Example("no", 3, 1.0, True, "high", ("a", "b"), {"x": 1.0, "y": 0.5}, AllowAs("local"), ("c",),
                            32 * 1024 * 1024)
    assert type(value.ratio) is float


def test_what_is_left_out_has_its_default() -> None:
    assert example("text: x\nunknown: deny\none_or_more: c\nweights:\n") == (Example("x", one_or_more="c"), ())


@pytest.mark.parametrize(("text", "said"), [
    ("count: 1", "f:1: example: `text` is missing: text"),
    ("text: 5", "f:1: example.text: a number is not allowed here; allowed: text (put it in quotes)"),
    ("text: [x]", "f:1: example.text: a list is not allowed here; allowed: text"),
    ("text: ~", "f:1: example.text: nothing is not allowed here; allowed: text"),
    ("text: x\ncount: true", "f:2: example.count: true or false is not allowed here; allowed: a whole number"),
    ("text: x\ncount: 1.5", "f:2: example.count: a number is not allowed here; allowed: a whole number"),
    ("text: x\ncount: '1'", "f:2: example.count: text is not allowed here; allowed: a whole number"),
    ("text: x\ncount: -1", "f:1: example: count is 0 or more"),
    ("text: x\nratio: .inf", "f:2: example.ratio: this number is not allowed"),
    ("text: x\nratio: .nan", "f:2: example.ratio: this number is not allowed"),
    ("text: x\nratio: true", "f:2: example.ratio: true or false is not allowed here; allowed: a number"),
    ("text: x\nyes: no", "f:2: example.yes: text is not allowed here; allowed: true or false"),
    ("text: x\nlevel: hihg", "f:2: example.level: `hihg` is not allowed; did you mean `high`? allowed: low, high"),
    ("text: x\nlevel: {}", "f:2: example.level: a mapping is not allowed here; allowed: low, high"),
    ("text: x\nnames: a", "f:2: example.names: text is not allowed here; allowed: a list (of: text)"),
    ("text: x\nnames:\n  - a\n  - 5", "f:4: example.names[1]: a number is not allowed here"),
    ("text: x\nweights: {a: b}", "f:2: example.weights.a: text is not allowed here; allowed: a number"),
    ("text: x\nunknown: allow", "f:2: example.unknown: `allow` is not allowed; allowed: deny or {allow_as: …}"),
    ("text: x\nunknown: {allow: y}", "f:2: example.unknown: there is no key `allow`; did you mean `allow_as`?"),
    ("text: x\none_or_more: {}", "f:2: example.one_or_more: a mapping is not allowed here; allowed: text or a list"),
    ("text: x\nsize: much", "f:2: example.size: a size is a whole number above 0"),
    ("text: x\nsize: [1]", "f:2: example.size: a list is not allowed here; allowed: such as 32MB"),
    ("text: x\ncoutn: 1", "f:2: example: there is no key `coutn`; did you mean `count`? allowed: text, count"),
    ("text: x\none-or-more: a\none_or_more: b", "f:3: example: `one_or_more` is given twice: first at f:2"),
])
def test_a_wrong_value_says_where_what_and_what_is_allowed(text: str, said: str) -> None:
    value, lines = example(text)
    assert value is INVALID
    assert said in "\n".join(lines)


def test_every_wrong_field_is_told() -> None:
    _, lines = example("count: x\nyes: 1\nnope: 2")
    assert len(lines) == 4


def test_a_class_may_refuse_with_a_config_error() -> None:
    @dataclass(frozen=True)
    class Never:
        def __post_init__(self) -> None:
            raise ConfigError("never")

    problems = Problems()
    table = parse("f", b"a: {}", problems)
    assert table is not None
    assert read(table.entries["a"].node, Never, "never", problems) is INVALID
    assert problems.lines() == ("f:1: never: never",)


def test_a_type_that_files_cannot_give_is_the_programmers_mistake() -> None:
    problems = Problems()
    table = parse("f", b"a: 1", problems)
    assert table is not None
    with pytest.raises(TypeError, match="no type that policy files can give"):
        read(table.entries["a"].node, complex, "a", problems)


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("10B", 10), ("2KB", 2048), ("2 kb", 2048), ("1MiB", 1 << 20),
                                            ("32MB", 32 << 20), ("1G", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["0", "0MB", "-1", "1.5MB", "MB", "", "1TB", "9" * 30, "1MB\n"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="a size is"):
        parse_bytes(text)
