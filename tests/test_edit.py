"""Byte-preserving editing of JSON."""

import json

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.providers.edit import quoted, replace_once, rewrite, rewrite_bytes, strings_with, tokens
from douane.providers.openai import CHAT
from douane.providers.table import builtin
from tests import wire as recorded

ODD = ('{ "a" : "x\\u00e9\\/" ,"n":1.0, "big":12345678901234567890,\n'
       ' "l":[ "p", {"k\\"ey":"v"}, -1e5,true,null ],"e":{},"f":[] ,"z":"é"}')


def test_only_the_string_that_changes_is_other_bytes() -> None:
    assert rewrite(ODD, {(("l", 0), False): 'q"\n'}) == ODD.replace('"p"', '"q\\"\\n"')
    assert rewrite(ODD, {(("l", 1, 'k"ey'), False): "w"}) == ODD.replace('"v"', '"w"')
    assert rewrite(ODD, {(("l", 1, 'k"ey'), True): "k"}) == ODD.replace('"k\\"ey"', '"k"')
    assert rewrite(ODD, {(("z",), False): "ü", (("a",), True): "b"}) == ODD.replace('"é"', '"ü"').replace('"a"', '"b"')
    assert rewrite(ODD, {(("n",), False): "one"}) == ODD.replace("1.0", '"one"')


def test_a_renamed_member_and_its_value_change_together() -> None:
    assert rewrite('{"a": {"b": 1, "c": "d"}}', {(("a",), True): "x", (("a", "c"), False): "y"}) == '{"x": {"b": 1, "c": "y"}}'


def test_no_change_is_the_same_object() -> None:
    body = ODD.encode()
    assert rewrite_bytes(body, {}) is body
    assert rewrite(ODD, {}) is ODD


def test_a_place_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in the text"):
        rewrite(ODD, {(("nowhere",), False): "x"})


@pytest.mark.parametrize("text", ["plain", 'q"\\/', "\x00\x1f\n", "é🦊", "\ud800"])
def test_quoted_is_json(text: str) -> None:
    assert json.loads(quoted(text)) == text


def test_tokens_have_the_paths_of_the_document() -> None:
    document = json.loads(ODD)
    for token in tokens(ODD):
        value = json.loads(ODD[token.start:token.end])
        at = document
        for step in token.path[:-1] if token.key else token.path:
            at = at[step]
        assert (value in at) if token.key else (value == at)
    keys = [json.loads(ODD[one.start:one.end]) for one in tokens(ODD) if one.key]
    assert keys == ["a", "n", "big", "l", 'k"ey', "e", "f", "z"]


def test_a_bare_string_is_json_too() -> None:
    assert rewrite(' "a" ', {((), False): "b"}) == ' "b" '


def test_rewriting_recorded_requests_with_themselves_gives_the_same_bytes() -> None:
    """Every text position replaced by itself: where the recorder wrote a string as we do, not a byte changes; elsewhere the
    document is the same and every other byte too."""
    table = builtin()
    seen = 0
    for record in recorded.records():
        path = recorded.url(record).path
        row = table[record["provider"]].operation("POST", path) if record["provider"] in table else None
        wire = row.wire if row is not None else None
        body = (record["request"].get("body") or "").encode()
        try:
            document = jiter.from_json(body, catch_duplicate_keys=True)
        except ValueError:
            continue
        assert rewrite_bytes(body, {}) is body
        strings = [one for one in tokens(body.decode()) if one.string]
        same = {(one.path, one.key): json.loads(body.decode()[one.start:one.end]) for one in strings}
        again = rewrite_bytes(body, same)
        assert jiter.from_json(again) == document
        if all(quoted(same[one.path, one.key]) == body.decode()[one.start:one.end] for one in strings):
            assert again == body
        if wire is not None:
            places = {(one.path, one.key): one.text for one in wire.walk(document)}
            assert same | places == same, "the walk and the editor name the same places"
            marked = rewrite_bytes(body, {place: f"{text} ·" for place, text in places.items() if not place[1]})
            found = {(one.path, one.key): one.text for one in wire.walk(jiter.from_json(marked))}
            assert all(found[place] == f"{text} ·" for place, text in places.items() if not place[1])
            seen += 1
    assert seen > 100


STRINGS = st.text('<u003c"\\,:{}[] aé', max_size=12)
DOCUMENTS = st.recursive(STRINGS | st.none() | st.integers(), lambda below: st.lists(below, max_size=4)
                         | st.dictionaries(STRINGS, below, max_size=4), max_leaves=12)


@given(DOCUMENTS, st.booleans())
def test_strings_with_a_mark_are_those_that_the_reader_finds(document: object, ascii_only: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only)
    read = [(token.start, token.end) for token in tokens(text) if token.string]
    assert list(strings_with(text, ("<", "u003"))) == [
        (start, end) for start, end in read if "<" in text[start:end] or "u003" in text[start:end]]


@given(DOCUMENTS)
def test_what_is_replaced_at_sight_is_the_string_itself(document: object) -> None:
    text = json.dumps(document, ensure_ascii=False)
    read = [token for token in tokens(text) if token.string and text[token.start:token.end] != '""']
    for token in read:
        written = text[token.start:token.end]
        done = replace_once(text.encode(), [(json.loads(written), "new")])
        if text.count(written) == 1 and written[1] not in ",:}] " and not token.key:
            assert done is not None
            assert done.decode() == rewrite(text, {(token.path, token.key): "new"})


@given(DOCUMENTS, st.data())
def test_a_wire_changes_the_strings_that_are_meant_however_often_written(document: object, data: st.DataObject) -> None:
    text = json.dumps(document, ensure_ascii=False)
    read = [token for token in tokens(text) if token.string and not token.key]
    chosen = data.draw(st.lists(st.sampled_from(read), unique_by=id)) if read else []
    changes = {(token.path, False): data.draw(STRINGS) for token in chosen}
    body, again = CHAT.rewrite(text.encode(), b"", json.loads(text), changes)
    assert body.decode() == rewrite(text, changes)
    assert again == json.loads(body)


def test_what_is_written_in_another_way_or_order_is_not_replaced_at_sight() -> None:
    for body in (b'["\\u0061"]', b'["x\\"a"]', b'{"x":1}', b'{"a" : 1}'):
        assert replace_once(body, [("a", "b")]) is None
    assert replace_once(b'["a", "a"]', [("a", "b"), ("a", "b"), ("a", "b")]) is None
    assert replace_once(b'["b", "a"]', [("a", "c"), ("b", "d")]) is None
    assert replace_once(b'["a", "\\u0061"]', [("a", "b"), ("a", "b")]) is None
    assert replace_once(b'["x","y"]', [(",", "b")]) is None
    assert replace_once(b'["a", 1]', [("a", "b\n")]) == b'["b\\n", 1]'
