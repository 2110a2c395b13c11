"""Forms: which are read, where their texts stand, and that nothing else changes."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.providers.forms import FormWire
from douane.providers.multipart import parts
from douane.providers.openai_more import openai

KIND = b"multipart/form-data; boundary=xYz"
MAIL = "ann.lee@example.com"


def wire(path: str) -> FormWire:
    row = openai().operation("POST", path)
    assert row is not None
    assert isinstance(row.wire, FormWire)
    return row.wire


FILES, SOUND, EDITS = wire("/v1/files"), wire("/v1/audio/transcriptions"), wire("/v1/images/edits")


def part(name: str, content: bytes | str, filename: str | None = None, kind: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    head += f"\r\nContent-Type: {kind}" if kind else ""
    return head.encode() + b"\r\n\r\n" + (content.encode() if isinstance(content, str) else content)


def form(*given: bytes) -> bytes:
    return b"".join(b"--xYz\r\n" + one + b"\r\n" for one in given) + b"--xYz--\r\n"


def texts(spoken: FormWire, document: Any) -> dict[str, str]:
    return {position.text: position.role for position in spoken.walk(document)}


# -- the bytes ---------------------------------------------------------------------------------------------------------

CONTENT = st.binary(max_size=40).filter(lambda content: b"--xYz" not in content)
NAMES = st.from_regex(re.compile(r"[a-z][a-z_]{0,8}"), fullmatch=True)


@given(st.lists(st.tuples(NAMES, CONTENT, st.booleans()), unique_by=lambda one: one[0], min_size=1, max_size=5))
def test_every_part_is_where_it_is_said_to_be(fields: list[tuple[str, bytes, bool]]) -> None:
    body = form(*(part(name, content, "a.bin" if file else None) for name, content, file in fields))
    found = parts(body, KIND)
    assert [(one.name, body[one.start:one.end], one.filename) for one in found] == [
        (name, content, "a.bin" if file else None) for name, content, file in fields]
    assert all(body[slice(*one.named)] == b"a.bin" for one in found if one.named)


@given(st.binary(max_size=120), st.integers(0, 400), st.integers(0, 30))
def test_whatever_comes_is_read_or_refused(noise: bytes, at: int, length: int) -> None:
    whole = form(part("model", "whisper-1"), part("file", b"RIFF\xff\x00", "a.wav", "audio/wav"), part("prompt", "say it"))
    body = whole[:at] + noise + whole[at + length:]
    try:
        document = SOUND.read(body, KIND)
    except ValueError:
        return
    places = {(one.path, False): one.text for one in SOUND.walk(document) if one.path[2] == "text"}
    assert SOUND.rewrite(body, KIND, document, places)[0] == body
    assert sum(one.end - one.start for one in parts(body, KIND)) < len(body)


GOOD = part("prompt", "x")


@pytest.mark.parametrize("body", [
    b"", b"--xYz--\r\n"[:5], b"prefix\r\n" + form(GOOD), form(GOOD)[:-4], form(GOOD) + b"more", form(GOOD) + b"\r\n",
    form(GOOD).replace(b"\r\n", b"\n"), form(part("prompt", "a\r\n--xYzz")), form(part("prompt", "a --xYz b")),
    form(part("prompt", "a\n--xYz\nb")), form(GOOD, GOOD), form(GOOD.replace(b"prompt", b'a"; name="b')),
    form(GOOD.replace(b'name="prompt"', b"name*=utf-8''prompt")), form(part("file", "x", 'a"; filename="b')),
    form(part("file", "x", "a").replace(b"filename=", b"filename*=utf-8''b; filename=")),
    form(part("file", "x", "a\\\\b")), form(b"\r\n" + GOOD), form(GOOD.replace(b"form-data", b"attachment")),
    form(b"X-More: 1\r\n" + GOOD), form(b"Content-Type: a/b\r\n" + part("p", "x", kind="a/b")),
    form(part("file", "x", "a", "multipart/mixed; boundary=q")), form(part("file", "x", "a", "message/rfc822")),
    form(part("file", "x", "a", "text/plain; charset=utf-7")), form(part("prompt", b"\xff\xfea")),
    form(b"Content-Transfer-Encoding: base64\r\n" + GOOD), form(GOOD.replace(b"\r\n\r\n", b"\r\n"))])
def test_what_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"form|utf-8|boundary"):
        SOUND.read(body, KIND)


@pytest.mark.parametrize("kind", [
    b"", b"application/json", b"multipart/mixed; boundary=xYz", b"multipart/form-data", b"multipart/form-data; boundary=",
    b"multipart/form-data; boundary=xYz; boundary=other", b"multipart/form-data; boundary*=xYz",
    b"multipart/form-data; boundary=xYz; charset=utf-7", b"multipart/form-data; boundary=other"])
def test_a_content_type_that_names_another_boundary_is_refused(kind: bytes) -> None:
    with pytest.raises(ValueError, match="form"):
        SOUND.read(form(GOOD), kind)
    assert SOUND.read(form(GOOD), b'Multipart/Form-Data; boundary="xYz"')


# -- the texts ---------------------------------------------------------------------------------------------------------


def test_fields_file_names_and_text_files_are_text_and_sound_is_not() -> None:
    body = form(part("model", "whisper-1"), part("prompt", f"for {MAIL}"), part("stream", "true"),
                part("file", b"RIFF\xff\x00\x01", "ann lee.wav", "audio/wav"), part("timestamp_granularities[]", "word"),
                part("never_heard_of", "Ann"))
    document = SOUND.read(body, KIND)
    assert (SOUND.model(document), SOUND.stream(document)) == ("whisper-1", True)
    assert texts(SOUND, document) == {f"for {MAIL}": "user", "ann lee.wav": "metadata", "Ann": "unknown"}
    assert [(one.path, one.kind, one.name) for one in SOUND.unseen(document)] == [(("parts", 3), "audio", "audio/wav")]
    said = EDITS.read(form(part("image[]", b"\x89PNG\x00", "a.png", "image/png"), part("image[]", b"\x89PNG\x01\x00", "b.png"),
                           part("prompt", "a cat")), KIND)
    assert [one.kind for one in EDITS.unseen(said)] == ["image", "file"]
    lying = EDITS.read(form(part("image", f"<svg>{MAIL}</svg>", "a.png", "image/png")), KIND)
    assert f"<svg>{MAIL}</svg>" in texts(EDITS, lying), "a text is a text whatever it calls itself"


def test_an_identifier_that_reads_like_a_text_is_one() -> None:
    document = SOUND.read(form(part("model", f"for {MAIL}"), part("language", MAIL)), KIND)
    assert set(texts(SOUND, document)) == {f"for {MAIL}", MAIL}


@pytest.mark.parametrize("new", ["<EMAIL_ADDRESS_k3v7q2ma>", "", "zwölf\r\nlines"])
def test_only_the_bytes_of_what_changes_are_others(new: str) -> None:
    given_parts = [part("model", "gpt-4o-transcribe"), part("prompt", f"for {MAIL}"),
                   part("file", b"\x00\xff" * 40, MAIL, "audio/mp3")]
    body = form(*given_parts)
    document = SOUND.read(body, KIND)
    after, again = SOUND.rewrite(body, KIND, document, {(("parts", 1, "text"), False): new})
    assert after == form(given_parts[0], part("prompt", new), given_parts[2])
    assert again["parts"][1]["text"] == new
    named, _ = SOUND.rewrite(body, KIND, document, {(("parts", 2, "filename"), False): 'a"b\r\n'})
    assert named == body.replace(f'"{MAIL}"'.encode(), b'"a%22b%0D%0A"')
    with pytest.raises(ValueError, match="form"):
        SOUND.rewrite(body, KIND, document, {(("parts", 1, "text"), False): "a\r\n--xYz\r\nb"})
    with pytest.raises(ValueError, match="form"):
        SOUND.rewrite(body, KIND, document, {(("parts", 1, "name"), False): "a"})


BATCH = (
    ('{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4o", "messages": '
    f'[{{"role": "user", "content": "write\\u0020to {MAIL}"}}], "seed": 12345678901234567890, "temperature": 1.0}}}}'),
    '{"custom_id":"for Ann","method":"POST","url":"/v1/embeddings","body":{"model":"e","input":[1,2,3]}}')


def test_the_lines_of_a_batch_are_read_by_what_they_name() -> None:
    lines = f"{BATCH[0]}\r\n\r\n{BATCH[1]}\n"
    body = form(part("purpose", "batch"), part("file", lines, "b.jsonl", "application/octet-stream"))
    document = FILES.read(body, KIND)
    found = {one.text: (one.role, one.path) for one in FILES.walk(document)}
    assert found[f"write to {MAIL}"] == ("user", ("parts", 1, "lines", 0, "body", "messages", 0, "content"))
    assert "for Ann" in found
    assert not {"gpt-4o", "user", "e"} & found.keys()
    assert [(one.path, one.kind) for one in FILES.unseen(document)] == [(("parts", 1, "lines", 1, "body", "input"), "tokens")]
    after, again = FILES.rewrite(body, KIND, document, {(found[f"write to {MAIL}"][1], False): "gone"})
    assert after == body.replace(f"write\\u0020to {MAIL}".encode(), b"gone")
    assert again["parts"][1]["lines"][0]["body"]["messages"][0]["content"] == "gone"
    same = {(one.path, False): one.text for one in FILES.walk(document) if not one.key and one.path[2] == "lines"}
    assert json.loads(FILES.rewrite(body, KIND, document, same)[0].split(b"\r\n")[8]) == json.loads(BATCH[0])


@pytest.mark.parametrize("line", ["no json", '{"a": 1, "a": 2}', "[1]"])
def test_a_batch_that_is_no_json_is_refused_and_another_file_is_a_text(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the JSON reader's own words
        FILES.read(form(part("purpose", "batch"), part("file", f"{BATCH[0]}\n{line}", "b.txt")), KIND)
    other = FILES.read(form(part("purpose", "assistants"), part("file", f"{{ {line}", "b.txt")), KIND)
    assert texts(FILES, other)[f"{{ {line}"] == "user"
