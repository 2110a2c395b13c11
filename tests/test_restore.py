"""Restoring: recorded answers with placeholders planted into their text, cut in every way; URLs; forged placeholders."""

import gzip
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.answer import AnswerPipe
from douane.placeholders import LOOKS_LIKE, DataKey, Minter
from douane.providers.framing import framing_of
from douane.providers.table import builtin
from douane.rehydrate import Piecewise, Restorer, hosts_in
from douane.restore import RestoreFilter
from tests import wire as recorded

VALUES = ("ann@example.com", 'O\'Brien "the\\one"\nof Köln 🦊\t', "</script>")
MINTER = Minter(DataKey(b"k" * 32), "acme", {})
PLACEHOLDERS = [MINTER.placeholder(kind, value) for kind, value in zip(("EMAIL_ADDRESS", "PERSON", "X"), VALUES, strict=True)]
ORIGINALS = MINTER.originals()
CUTS = int(os.environ.get("DOUANE_EXAMPLES", "2"))
"""Ways in which each stream is cut at random; 200 in the long run."""

type Doc = dict[str, Any]
type Slot = tuple[tuple[Any, ...], Doc, str]


def restorer(*hosts: str) -> Restorer:
    return Restorer(ORIGINALS, lambda: frozenset(hosts))


def through(pieces: Sequence[bytes], kind: bytes, coding: bytes = b"", **more: Any) -> bytes:
    pipe = AnswerPipe(None, [RestoreFilter(restorer(), **more)], 1 << 24)
    head = ((b"content-type", kind), (b"content-encoding", coding)) if coding else ((b"content-type", kind),)
    headers = pipe.start(head, coding, framing=None if coding else framing_of(kind))
    assert not any(name == b"content-encoding" for name, _ in headers)
    return b"".join([pipe.feed(piece) for piece in pieces]) + pipe.close()


def stream(*events: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % (one if isinstance(one, bytes) else json.dumps(one).encode()) for one in events)


def blocks(body: bytes) -> list[bytes]:
    return body.replace(b"\r\n", b"\n").split(b"\n\n")


def data_of(block: bytes) -> Any:
    data = b"\n".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
    try:
        return json.loads(data)
    except ValueError:
        return None


def slots(document: Any) -> Iterator[Slot]:
    """(text it belongs to, object, member) of each piece in an event: told apart here once more, by other means."""
    if not isinstance(document, dict):
        return
    for choice in document.get("choices") or ():
        delta = choice.get("delta") or {}
        if isinstance(delta.get("content"), str):
            yield ("text", choice["index"]), delta, "content"
        for number, call in enumerate(delta.get("tool_calls") or ()):
            if isinstance((call.get("function") or {}).get("arguments"), str):
                yield ("json", choice["index"], call.get("index", number)), call["function"], "arguments"
    kind = document.get("type", "")
    if kind == "content_block_delta":
        delta = document["delta"]
        for mode, member in (("text", "text"), ("json", "partial_json")):
            if member in delta:
                yield (mode, document["index"]), delta, member
    elif str(kind).startswith("response.") and kind.endswith("text.delta"):
        part = document.get("content_index"), document.get("summary_index")
        yield ("text", kind, document["output_index"], *part), document, "delta"
    elif str(kind).startswith("response.") and kind.endswith("arguments.delta"):
        yield ("json", kind, document["output_index"]), document, "delta"


def texts(body: bytes) -> dict[tuple[Any, ...], str]:
    found: dict[tuple[Any, ...], str] = {}
    for block in blocks(body):
        for key, holder, member in slots(data_of(block)):
            found[key] = found.get(key, "") + holder[member]
    return found


def fill(value: Any, old: str, new: str) -> Any:
    """*value* with every string that is *old* made *new*."""
    if isinstance(value, dict):
        return {key: fill(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, old, new) for item in value]
    return new if value == old else value


def finished(document: Any) -> bool:
    return any(choice.get("finish_reason") for choice in document.get("choices") or ())


def planted_text(mode: str, text: str, chance: random.Random) -> str:
    if mode == "json":
        try:
            arguments = json.loads(text)
        except ValueError:
            return text
        if not isinstance(arguments, dict):
            return text
        return json.dumps({**arguments, "to": chance.choice(PLACEHOLDERS), "list": [f"a {PLACEHOLDERS[1]} b", PLACEHOLDERS[0]]},
                          ensure_ascii=chance.random() < 0.5).replace("<", chance.choice(("<", "\\u003c")))
    head, space, rest = text.partition(" ")
    return f"{chance.choice(PLACEHOLDERS)} {head}{space}{PLACEHOLDERS[1]}{space}{rest} <{PLACEHOLDERS[2]}<EMAIL"


def plant(body: bytes, chance: random.Random) -> bytes:
    """The stream with placeholders in each of its texts, and these split anew over the same events."""
    documents: list[Any] = [data_of(block) for block in blocks(body)]
    places: dict[tuple[Any, ...], list[tuple[int, Doc, str]]] = {}
    for at, document in enumerate(documents):
        for key, holder, member in slots(document):
            places.setdefault(key, []).append((at, holder, member))
    for key, holders in places.items():
        old = "".join(holder[member] for _, holder, member in holders)
        new = planted_text(str(key[0]), old, chance)
        over = [number for number, (at, _, _) in enumerate(holders) if finished(documents[at])]
        if over:  # some send an empty piece more with the usage
            assert all(holder[member] == "" for _, holder, member in holders[over[0] + 1:])
            del holders[over[0] + 1:]
        ends = sorted(chance.randrange(len(new) + 1) for _ in holders[1:])
        for (_, holder, member), start, end in zip(holders, [0, *ends], [*ends, len(new)], strict=True):
            holder[member] = new[start:end]
        if old and str(documents[holders[0][0]].get("type", "")).startswith("response."):
            deltas = {at for at, _, _ in holders}
            documents = [one if at in deltas else fill(one, old, new) for at, one in enumerate(documents)]
    out = []
    for block, document in zip(blocks(body), documents, strict=True):
        lines = block.split(b"\n")
        out.append(b"\n".join(b"data: " + json.dumps(document, ensure_ascii=chance.random() < 0.5).encode()
                              if line.startswith(b"data:") and document is not None else line for line in lines))
    return b"\n\n".join(out)


def meant(planted: Mapping[tuple[Any, ...], str]) -> dict[tuple[Any, ...], Any]:
    """What the texts shall be after restoring."""
    found: dict[tuple[Any, ...], Any] = {}
    for key, text in planted.items():
        if key[0] == "text":
            found[key] = walk(text)
        else:
            found[key] = parsed(text, restore=True)
    return found


def parsed(text: str, *, restore: bool = False) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return walk(value) if restore else value


def walk(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: walk(item) for key, item in value.items()}
    if isinstance(value, list):
        return [walk(item) for item in value]
    if isinstance(value, str):
        for placeholder, original in ORIGINALS.items():
            value = value.replace(placeholder, original)
    return value


def read(body: bytes) -> dict[tuple[Any, ...], Any]:
    return {key: text if key[0] == "text" else parsed(text) for key, text in texts(body).items()}


def streams() -> list[bytes]:
    return [recorded.answer(one) for one in recorded.records("openai", "anthropic")
            if one["stream"] and one["response"]["status"] < 300 and b"data:" in recorded.answer(one)]


def test_recorded_streams_however_they_are_cut() -> None:
    chance = random.Random(7)
    seen = 0
    for body in streams():
        planted = plant(body, chance)
        wanted = meant(texts(planted))
        whole = through([planted], b"text/event-stream")
        assert read(whole) == wanted
        assert not LOOKS_LIKE.search("".join(json.dumps(data_of(block)) for block in blocks(whole)))
        seen += sum(key[0] == "text" for key in wanted)
        for _ in range(CUTS):
            ends = sorted(chance.randrange(len(planted) + 1) for _ in range(chance.randrange(1, 12)))
            pieces = [planted[start:end] for start, end in zip([0, *ends], [*ends, len(planted)], strict=True)]
            assert through(pieces, b"text/event-stream") == whole
    assert seen > 50


def test_recorded_streams_byte_by_byte_and_compressed() -> None:
    chance = random.Random(8)
    for body in sorted(streams(), key=len)[::6 if CUTS < 200 else 1]:
        planted = plant(body, chance)
        whole = through([planted], b"text/event-stream")
        if len(planted) < 20_000 or CUTS >= 200:
            assert through([planted[at:at + 1] for at in range(len(planted))], b"text/event-stream") == whole
        for coding, packed in ((b"gzip", gzip.compress(planted)), (b"br", brotli.compress(planted, quality=3))):
            pieces = [packed[at:at + 97] for at in range(0, len(packed), 97)]
            assert through(pieces, b"text/event-stream", coding) == whole


def test_recorded_streams_without_a_placeholder_keep_their_bytes() -> None:
    seen = 0
    for body in streams():
        got = through([body[at:at + 1000] for at in range(0, len(body), 1000)], b"text/event-stream")
        assert texts(got) == texts(body)
        pieces = [holder[member] for block in blocks(body) for _, holder, member in slots(data_of(block))]
        if all(restorer().tail(piece) == len(piece) for piece in pieces):  # what may begin one waits for the next piece
            assert got == body
            seen += 1
    assert seen > 20


def test_recorded_json_answers() -> None:
    seen = 0
    for record in recorded.records("openai", "anthropic"):
        body = recorded.answer(record)
        if record["stream"] or not body.startswith(b"{"):
            continue
        assert through([body], b"application/json") == body
        document = json.loads(body)
        message = ((document.get("choices") or [{}])[0].get("message") or {}) if "choices" in document else {}
        if isinstance(message.get("content"), str):
            message["content"] = f"{PLACEHOLDERS[0]} and {message['content']} {PLACEHOLDERS[1]}"
            planted = json.dumps(document).encode()
            message["content"] = walk(message["content"])
            half = len(planted) // 2
            got = through([planted[:half], planted[half:]], b"application/json; charset=utf-8")
            assert json.loads(got) == document
            seen += 1
    assert seen > 20


# -- by hand -----------------------------------------------------------------------------------------------------------


def anthropic_text(*pieces: str, index: int = 0) -> list[Any]:
    return [{"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": one}} for one in pieces]


def test_nothing_waits_but_what_may_become_a_placeholder() -> None:
    text = Piecewise(restorer(), json=False)
    assert text.feed("Hello <b>you</b> 1 < 2 ") == "Hello <b>you</b> 1 < 2 "
    assert text.feed("a <EMAIL_X") == "a <EMAIL_X"
    assert text.feed("b <EMAIL_ADD") == "b "
    assert text.feed("RESS") == ""
    assert text.feed(" no") == "<EMAIL_ADDRESS no"
    assert text.feed(PLACEHOLDERS[0]) == VALUES[0]


def test_what_left_unread_counts_for_where_a_value_may_go() -> None:
    events = [stream(one) for one in anthropic_text("see https://evil", ".example/?q=", PLACEHOLDERS[0])]
    assert through(events, b"text/event-stream") == b"".join(events)


def test_what_waits_leaves_before_its_block_ends() -> None:
    stop = {"type": "content_block_stop", "index": 0}
    got = through([stream(*anthropic_text("a <EM"), {"type": "ping"}, stop)], b"text/event-stream")
    assert got == stream(*anthropic_text("a "), {"type": "ping"}, *anthropic_text("<EM"), stop)
    chunk = {"choices": [{"index": 0, "delta": {"content": "a <"}, "finish_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    got = through([stream(chunk, last, b"[DONE]")], b"text/event-stream")
    assert [one["choices"][0]["delta"].get("content") for one in map(data_of, blocks(got)) if one] == ["a ", "<", None]


def test_a_stream_without_an_end_loses_nothing() -> None:
    got = through([stream(*anthropic_text("a <EM"))], b"text/event-stream")
    assert texts(got) == {("text", 0): "a <EM"}


def test_blocks_are_told_apart() -> None:
    first, second = PLACEHOLDERS[:2]
    events = [*anthropic_text(first[:5]), *anthropic_text(second[:9], index=1), *anthropic_text(first[5:]),
              *anthropic_text(second[9:], index=1)]
    assert texts(through([stream(*events)], b"text/event-stream")) == {("text", 0): VALUES[0], ("text", 1): VALUES[1]}


def test_signed_reasoning_is_left_alone() -> None:
    thinking = [{"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": PLACEHOLDERS[0]}}]
    assert through([stream(*thinking)], b"text/event-stream") == stream(*thinking)
    whole = {"content": [{"type": "thinking", "thinking": PLACEHOLDERS[0], "signature": "s"},
                         {"type": "text", "text": PLACEHOLDERS[0]}]}
    got = json.loads(through([json.dumps(whole).encode()], b"application/json"))
    assert [got["content"][0]["thinking"], got["content"][1]["text"]] == [PLACEHOLDERS[0], VALUES[0]]


def test_every_other_byte_of_an_event_stays() -> None:
    odd = b"".join((b': note\r\nevent:x\r\nid: 7\r\ndata:{ "type" : "content_block_delta","index":0, "n":1.0,\r\n',
                    b'data: "delta":{"type":"text_delta", "text" : "%b", "z":"\\u00e9"}}\r\n\r\n' % PLACEHOLDERS[0].encode()))
    assert through([odd], b"text/event-stream") == odd.replace(PLACEHOLDERS[0].encode(), VALUES[0].encode())


@pytest.mark.parametrize("kind", [b"text/plain", b"application/octet-stream"])
def test_what_is_neither_json_nor_a_stream_passes(kind: bytes) -> None:
    assert through([PLACEHOLDERS[0].encode()], kind) == PLACEHOLDERS[0].encode()


@pytest.mark.parametrize("body", [b"", b"<html>" + PLACEHOLDERS[0].encode(), b'{"a": "' + PLACEHOLDERS[0].encode()])
def test_what_says_it_is_json_and_is_not_passes(body: bytes) -> None:
    assert through([body], b"application/json") == body


def test_an_error_body_has_its_values_back() -> None:
    got = through([json.dumps({"error": {"message": f"no {PLACEHOLDERS[0]}"}}).encode()], b"application/json")
    assert json.loads(got) == {"error": {"message": f"no {VALUES[0]}"}}


def test_json_that_was_asked_for_stays_json() -> None:
    answer = {"choices": [{"index": 0, "message": {"content": json.dumps({"name": PLACEHOLDERS[1]})}}]}
    got = json.loads(through([json.dumps(answer).encode()], b"application/json", json_text=True))
    assert json.loads(got["choices"][0]["message"]["content"]) == {"name": VALUES[1]}
    pieces = anthropic_text('{"na', 'me": "<PER', PLACEHOLDERS[1][4:] + '"}')
    assert json.loads(texts(through([stream(*pieces)], b"text/event-stream", json_text=True))["text", 0]) == {"name": VALUES[1]}


# -- each wire format, in thousands of cuts ---------------------------------------------------------------------------


def chat_stream(pieces: list[str]) -> bytes:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return stream(*({"choices": [{"index": 0, "delta": {"content": one}}]} for one in pieces), end, b"[DONE]")


def messages_stream(pieces: list[str]) -> bytes:
    return stream(*anthropic_text(*pieces), {"type": "content_block_stop", "index": 0})


def responses_stream(pieces: list[str]) -> bytes:
    at = {"output_index": 0, "content_index": 0, "item_id": "m"}
    return stream(*({"type": "response.output_text.delta", **at, "delta": one} for one in pieces),
                  {"type": "response.output_text.done", **at, "text": "".join(pieces)})


def gemini_stream(pieces: list[str]) -> bytes:
    return stream(*({"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": one}]}}]} for one in pieces))


def ollama_stream(pieces: list[str]) -> bytes:
    lines: list[Any] = [{"model": "m", "message": {"role": "assistant", "content": one}, "done": False} for one in pieces]
    return b"".join(json.dumps(one).encode() + b"\n" for one in [*lines, {"model": "m", "done": True, "done_reason": "stop"}])


def wire_of(provider: str, operation: str) -> Any:
    return next(row.wire for row in builtin()[provider].operations if row.name == operation and row.wire)


OLLAMA = builtin()["ollama"].operation("POST", "/api/chat")


FORMATS: dict[str, tuple[Any, Any, bytes, str]] = {
    "chat": (wire_of("openai", "chat"), chat_stream, b"text/event-stream", "content"),
    "messages": (wire_of("anthropic", "messages"), messages_stream, b"text/event-stream", "text"),
    "responses": (wire_of("openai", "responses"), responses_stream, b"text/event-stream", "delta"),
    "gemini": (wire_of("google", "generate_content"), gemini_stream, b"text/event-stream", "text"),
    "ollama": (OLLAMA.wire if OLLAMA else None, ollama_stream, b"application/x-ndjson", "content"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_in_thousands_of_cuts(name: str) -> None:
    """20,000 in the long run; each stream's text with a placeholder in every form, split anew over its events."""
    spoken, write, kind, member = FORMATS[name]
    chance = random.Random(name)
    for _ in range(4):
        text = " ".join(chance.sample([*FORMS.values(), *PLACEHOLDERS, "<EMAIL", "mail & more", "C:\\new", "e"], 9))
        wanted = restorer().restore(text)
        assert VALUES[0] in wanted
        ends = sorted(chance.randrange(len(text) + 1) for _ in range(30))
        body = write([text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)])

        def cut(pieces: list[bytes]) -> bytes:
            one = RestoreFilter(restorer(), deltas=spoken.deltas, array=spoken.array)
            one.headers(((b"content-type", kind),))
            return b"".join([*map(one.feed, pieces), one.close()])

        whole = cut([body])
        documents = [json.loads(line.removeprefix(b"data: ")) for line in whole.splitlines() if line[-1:] == b"}"]
        said = "".join(found for one in documents if "done" not in str(one.get("type")) for found in members(one, member))
        assert said == wanted
        for _ in range(5 * CUTS):
            marks = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(1, 20)))
            assert cut([body[start:end] for start, end in zip([0, *marks], [*marks, len(body)], strict=True)]) == whole


def members(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == name and isinstance(item, str):
                yield item
            else:
                yield from members(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from members(item, name)


# -- what must not be restored -----------------------------------------------------------------------------------------


BARE = PLACEHOLDERS[0][1:-1]
FORMS = {
    "lower case": PLACEHOLDERS[0].lower(), "upper case": PLACEHOLDERS[0].upper(), "title": BARE.title(), "bare": BARE,
    "no end": PLACEHOLDERS[0][:-1], "html": f"&lt;{BARE}&gt;", "html by number": f"&#60;{BARE}&#62;",
    "html in hex": f"&#x3c;{BARE}&#x3E;",
    "markdown": "\\" + PLACEHOLDERS[0].replace("_", "\\_").replace(">", "\\>"), "escaped": BARE.replace("_", "\\_"),
    "json": f"\\u003c{BARE}\\u003E",
}
AROUND = ("{}", "**{}**", "`{}`", "_{}_", "__{}__", "{}'s", "({})", "to:{}.", "邮箱是{}。", '"{}"', "x {}\n{} y",
          "<b>{}</b>", "a-{}-b", "{}, {}")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("around", AROUND)
def test_whatever_form_it_comes_in_it_is_restored(name: str, around: str) -> None:
    text = around.format(*[FORMS[name]] * 2)
    wanted = around.format(*[VALUES[0]] * 2)
    assert restorer().restore(text) == wanted
    assert piecewise(text) == wanted


def piecewise(text: str, *, json: bool = False) -> str:
    pieces = Piecewise(restorer(), json=json)
    return "".join([*(pieces.feed(char) for char in text), pieces.feed("", last=True)])


@pytest.mark.parametrize("name", FORMS)
def test_in_arguments_too(name: str) -> None:
    form = FORMS[name] if name == "json" else json.dumps(FORMS[name])[1:-1]
    text = f'{{"a": "x {form}\\n{form}", "b": ["{form}"]}}'
    value = json.dumps(VALUES[0])[1:-1]
    wanted = f'{{"a": "x {value}\\n{value}", "b": ["{value}"]}}'
    assert restorer().restore(text, json=True) == piecewise(text, json=True) == wanted


@pytest.mark.parametrize("name", FORMS)
def test_in_streams_and_documents_too(name: str) -> None:
    text = f"dear {FORMS[name]}, hi"
    for cut in range(1, len(text)):
        got = through([stream(*anthropic_text(text[:cut], text[cut:]))], b"text/event-stream")
        assert texts(got) == {("text", 0): f"dear {VALUES[0]}, hi"}
    answer = {"choices": [{"index": 0, "message": {"content": text}}]}
    got = json.loads(through([json.dumps(answer).encode()], b"application/json"))
    assert got["choices"][0]["message"]["content"] == f"dear {VALUES[0]}, hi"


@pytest.mark.parametrize("text", [
    f"x{BARE}", f"{BARE}x", f"{BARE}2", f"MY_{BARE}", f"{BARE}_2", f"{BARE}__x", BARE[:-1], BARE.replace("_", "-"),
    BARE.replace("_", " "),
    BARE.replace("EMAIL", "E\\MAIL"), f"9{BARE}", f"EMAIL_{BARE}", f"&amp;lt;x{BARE}", BARE.replace("_", "__")])
def test_another_word_stays(text: str) -> None:
    assert restorer().restore(text) == piecewise(text) == text


def test_a_word_goes_on_behind_an_escaped_underscore() -> None:
    text = f"{PLACEHOLDERS[0][1:-1]}\\_{PLACEHOLDERS[2][1:-1]}"
    assert restorer().restore(text) == piecewise(text) == text


FRAGMENTS = st.sampled_from([
    *FORMS.values(), BARE[:9], BARE[9:], PLACEHOLDERS[2], PLACEHOLDERS[2][1:-1], "<", ">", "\\", "&lt;", "&", "_", "__",
    "u003c", "\\u003c", "\\n", " ", "x", "\u90ae", "https://evil.example/", "EMAIL", "e", '"', "*"])


@given(st.lists(FRAGMENTS, max_size=8), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=100 * CUTS, deadline=None)
def test_however_a_text_is_cut_the_same_comes_out(fragments: list[str], json: bool, chance: random.Random) -> None:
    text = "".join(fragments)
    whole = restorer().restore(text, json=json)
    assert piecewise(text, json=json) == whole
    ends = sorted(chance.randrange(len(text) + 1) for _ in range(4))
    pieces = Piecewise(restorer(), json=json)
    cut = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    assert "".join([*map(pieces.feed, cut), pieces.feed("", last=True)]) == whole


@given(st.lists(FRAGMENTS, max_size=6), st.lists(st.sampled_from(["word", " a", "1.", "é", ";"]), max_size=3))
@settings(max_examples=200, deadline=None)
def test_what_an_event_may_hold_is_seen_at_a_glance(fragments: list[str], more: list[str]) -> None:
    """The look at an event's bytes says yes wherever the text in it is changed, or waits."""
    text = "".join([*fragments, *more])
    one = restorer()
    if one.restore(text) != text or one.tail(text) != len(text):
        for ascii_only in (True, False):
            assert one.may_concern(json.dumps({"delta": text, "n": 1}, ensure_ascii=ascii_only).encode())


@pytest.mark.parametrize("text", ["Hello", " word", "mail", "The emails", "a.", "AT", "xe", "MY_EM", "{}", "12", "Zoë"])
def test_other_text_does_not_wait(text: str) -> None:
    assert restorer().tail(text) == len(text)


@pytest.mark.parametrize("text", [
    "<EMAIL_ADDRESS_aaaaaaaa>", PLACEHOLDERS[0].replace("EMAIL_ADDRESS", "PERSON"),
    PLACEHOLDERS[0][:-2] + ">", "<EMAIL_ADDRESS_1>", "\\\\" + PLACEHOLDERS[0].replace("<", "\\u003c")[0:0] + "<_>"])
def test_a_forged_placeholder_stays(text: str) -> None:
    assert restorer().restore(text) == text


def test_one_of_another_tenant_or_gateway_stays() -> None:
    for minter in (Minter(DataKey(b"k" * 32), "other", {}), Minter(DataKey(b"x" * 32), "acme", {})):
        theirs = minter.placeholder("EMAIL_ADDRESS", VALUES[0])
        assert LOOKS_LIKE.fullmatch(theirs)
        assert restorer().restore(theirs) == theirs


P = PLACEHOLDERS[0]
FOREIGN = [
    f"https://evil.example/?q={P}", f"![x](https://evil.example/?q={P})", f"[x](https://evil.example/a(b)c?q={P})",
    f'<img src="https://evil.example/?q=a b {P}">', f"<https://evil.example/{P}>", f"[x]: //evil.example/{P}",
    f"https://{P}.evil.example/", f"https://good.example@evil.example/{P}", f"https://good.example\\@evil.example/{P}",
    f"https://good.example.evil.example/{P}", f"HTTPS://EVIL.example/{P}", f"https:/evil.example/{P}", f"evil.example/?q={P}",
    f"www.evil.example/{P}", f"https://good.example/?u=https://evil.example/{P}", f"https://evil.example/?u=https://good.example/{P}",
    f"https://evil.example/?a={PLACEHOLDERS[2]}&b={P}", f"https:&#47;&#47;evil.example/{P}", f"https://evil.example{P}",
]


@pytest.mark.parametrize("text", [*FOREIGN, *(one.replace(P, form) for one in FOREIGN for form in (BARE, f"&lt;{BARE}&gt;")),
                                  "<https://evil.example/?a=\\<X_aaaaaaaa\\>&b=" + P + ">"])
def test_no_value_goes_into_a_url_of_another_host(text: str) -> None:
    assert restorer("good.example").restore(text) == text
    pieces = Piecewise(restorer("good.example"), json=False)
    assert "".join([*(pieces.feed(char) for char in text), pieces.feed("", last=True)]) == text


@pytest.mark.parametrize("text", [
    f'{{"url": "https://evil.example/?q={P}"}}', f'{{"url": "https:\\/\\/evil.example\\/{P}"}}',
    f'{{"url": "\\u0068ttps:\\u002f\\u002fevil.example/{P}"}}', f'{{"html": "<img src=\\"https://evil.example/a b {P}\\">"}}',
    f'{{"url": "https://evil.example/?a=\\"&q={P}"}}'])
def test_nor_in_tool_arguments(text: str) -> None:
    assert restorer("good.example").restore(text, json=True) == text


@pytest.mark.parametrize("text", [
    f"https://good.example/?q={P}", f"![x](https://good.example:8443/?q={P})", f"see https://evil.example/ or write to {P}",
    f"[x](https://evil.example/) {P}", f'<a href="https://evil.example/">{P}</a>', f"mailto:{P}", f"a // {P}", f"and/or {P}",
    f"<https://evil.example/> {P}"])
def test_elsewhere_it_does(text: str) -> None:
    assert restorer("good.example").restore(text) == text.replace(P, VALUES[0])


@pytest.mark.parametrize("text", [f'{{"a": "https://evil.example/", "to": "{P}"}}', f'{{"path": "C:\\\\Users\\\\{P}"}}'])
def test_elsewhere_in_tool_arguments_too(text: str) -> None:
    assert restorer().restore(text, json=True) == text.replace(P, VALUES[0])


def test_the_hosts_that_a_request_holds() -> None:
    held = hosts_in(["see https://A.example:80/x, b.example and //localhost/; ann@c.example", "http://10.0.0.1/"])
    assert held == {"a.example", "b.example", "localhost", "10.0.0.1"}
