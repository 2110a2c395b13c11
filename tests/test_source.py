"""Policy files as text: places, YAML 1.2 scalars, and what is refused."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.errors import ConfigError
from douane.source import MAX_BYTES, Items, Node, Problems, Scalar, Table, parse, plain


def read(text: str | bytes) -> Table:
    problems = Problems()
    table = parse("f.yaml", text.encode() if isinstance(text, str) else text, problems)
    problems.raise_any()
    assert table is not None
    return table


def refused(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(("written", "value"), [
    ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("NO", "NO"),
    ("true", True), ("True", True), ("FALSE", False), ("'true'", "true"), ('"5"', "5"), ("|-\n  5", "5"),
    ("5", 5), ("-7", -7), ("+7", 7), ("0123", 123), ("0x1F", 31), ("0o17", 15), ("0b1", "0b1"), ("1_000", "1_000"),
    ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("-.inf", -math.inf), (".inf", math.inf), ("1:30", "1:30"),
    ("2026-01-01", "2026-01-01"), ("~", None), ("null", None), ("", None), ("gpt-4o*", "gpt-4o*"), ("=", "="),
])
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    found = plain(read(f"a: {written}\n"))
    assert found == {"a": value}
    assert isinstance(found, dict)
    assert type(found["a"]) is type(value)


def test_not_a_number_is_read() -> None:
    node = read("a: .nan").entries["a"].node
    assert isinstance(node, Scalar)
    assert isinstance(node.value, float)
    assert math.isnan(node.value)


def test_every_node_knows_its_line() -> None:
    table = read("# a comment\na: 1\nb:\n  - x\n  - c: y\n")
    assert str(table.entries["a"].place) == "f.yaml:2"
    items = table.entries["b"].node
    assert isinstance(items, Items)
    assert [item.place.line for item in items.items] == [4, 5]
    inner = items.items[1]
    assert isinstance(inner, Table)
    assert inner.place_of("c").line == 5
    assert inner.place_of("absent") == inner.place


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert plain(read(b"\xef\xbb\xbfa: 1")) == {"a": 1}


@pytest.mark.parametrize(("text", "said"), [
    ("a: 1\nb: 2\na: 3\n", "f.yaml:3: `a` is given twice: first at f.yaml:1"),
    ("a: {b: 1,\n    b: 2}\n", "f.yaml:2: `b` is given twice: first at f.yaml:1"),
    ("a: !!python/object/apply:os.system [x]\n", "f.yaml:1: tags"),
    ("a: !!str 5\n", "f.yaml:1: tags"),
    ("\na: ! 5\n", "f.yaml:2: tags"),
    ("a: &x 5\n", "f.yaml:1: `&x`: anchors"),
    ("a: &x 5\nb: *x\n", "f.yaml:2: `*x`: aliases"),
    ("a: &x [*x]\n", "f.yaml:1: `*x`: aliases"),
    ("a: 1\n<<: {b: 2}\n", "f.yaml:2: merge keys"),
    ("a: 1\n---\nb: 2\n", "f.yaml:2: a second document"),
    ("a: 1\n? [b]\n: c\n", "f.yaml:2: a key is a name, not a list"),
    ("~: c\n", "f.yaml:1: a key is a name, not nothing"),
    ("- a\n", "f.yaml:1: a policy file is a mapping of sections, not a list"),
    ("just text", "f.yaml:1: a policy file is a mapping of sections, not text"),
    ("a: [1,\n", "f.yaml:2: is not YAML: while parsing a flow node"),
    ("a: 1\nb:\n\t- c\n", "f.yaml:3: is not YAML"),
    ("a: 1\nb: \x00\n", "f.yaml:2: is not YAML"),
    (b"a: 1\nb: \xff\n", "f.yaml:2: is not UTF-8 text"),
    (b"#" * (MAX_BYTES + 1), "f.yaml:1: is larger than 1024 KB"),
    ("a: " + "[" * 30 + "]" * 30, "f.yaml:1: is nested deeper than 20"),
])
def test_what_is_not_read_is_refused_with_its_line(text: str | bytes, said: str) -> None:
    assert said in refused(text)


def test_a_syntax_error_does_not_show_the_text() -> None:
    key = "sk-" + "a" * 20
    assert key not in refused(f"a: [{key}\nb: {{\n")


def test_endless_nesting_and_laughing_files_end_soon() -> None:
    began = time.perf_counter()
    assert "deeper" in refused("[" * 300_000)
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 20))
    assert "aliases" in refused(laughs)
    assert time.perf_counter() - began < 2


def test_a_message_commands_no_terminal() -> None:
    said = refused('"a\\e[31m\\x07\\n": 1\n"a\\e[31m\\x07\\n": 2\n')
    assert said.isprintable()
    assert "a\ufffd[31m" in said


def test_all_mistakes_are_told_at_once_in_the_order_of_the_lines() -> None:
    lines = refused("a: 1\na: 2\nb: &x 1\n<<: 3\n").splitlines()
    assert [line.split(": ")[0] for line in lines] == ["f.yaml:2", "f.yaml:3", "f.yaml:4"]


def places(node: Node) -> list[int]:
    inner: list[int] = []
    if isinstance(node, Items):
        inner = [line for item in node.items for line in places(item)]
    if isinstance(node, Table):
        inner = [line for entry in node.entries.values() for line in (entry.place.line, *places(entry.node))]
    return [node.place.line, *inner]


yamlish = st.text(st.sampled_from("ab01:-?!&*<>|{}[],'\"%@`#~ \n\t\\.=\x00\x07\x85\u2028\ufeffé"), max_size=60)


@settings(max_examples=400, deadline=None)
@given(yamlish | st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_read_or_refused_and_nothing_else(text: str | bytes) -> None:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    problems = Problems()
    table = parse("f.yaml", data, problems)
    assert all(line.startswith("f.yaml:") and "\n" not in line for line in problems.lines())
    if table is not None:
        assert min(places(table)) >= 1
