"""Google's formats on recorded traffic: recognised, walked, rewritten, metered, put together and restored, however cut."""

import gzip
import json
import os
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from douane.answer import AnswerPipe
from douane.ca.certificates import make_intermediate, make_root
from douane.ca.names import Names
from douane.call import Usage
from douane.errors import DENIALS
from douane.placeholders import LOOKS_LIKE, DataKey, Minter
from douane.providers.base import Operation, Provider
from douane.providers.framing import ARRAY, SSE, Framing
from douane.providers.google import EMBED, GENERATE, GOOGLE, INTERACT, PREDICT, STREAM, UPLOAD
from douane.providers.hosts import unparsed
from douane.providers.kept import answer_names, goes_on_from, is_kept
from douane.providers.table import builtin
from douane.rehydrate import Restorer
from douane.restore import RestoreFilter
from tests import wire

TABLE = builtin()
GOOGLE_API, VERTEX = TABLE["google"], TABLE["vertex"]
CUTS = int(os.environ.get("DOUANE_EXAMPLES", "2"))
VALUE = 'O\'Brien "the\\one"\nof Köln 🦊'
MINTER = Minter(DataKey(b"k" * 32), "acme", {})
P = MINTER.placeholder("PERSON", VALUE)
ELSEWHERE = {"test-location-aiplatform.googleapis.com"}
"""Recorded with a region that there is not."""

type Doc = dict[str, Any]


def recorded() -> Iterator[tuple[Doc, Provider, Operation]]:
    """Every record with its provider and row; those of gateways too, whose paths Google's stand below."""
    for record in wire.records("google", "vertex"):
        where = wire.url(record)
        provider = next((one for one in (GOOGLE_API, VERTEX) if where.netloc in one.hosts), VERTEX)
        assert where.netloc in provider.hosts or where.netloc in ELSEWHERE
        row = provider.operation(record["request"]["method"].upper(), where.path)
        assert row is not None, where.path
        assert (provider.name, row.name) == (record["provider"], record["operation"]), where.path
        yield record, provider, row
    for record in wire.records("local"):
        path = re.sub(r"^/(?:router/v2/google|google-vertex)(?=/)", "", wire.url(record).path)
        if record["operation"] == "generate_content":
            provider = VERTEX if "publishers" in path else GOOGLE_API
            row = provider.operation(record["request"]["method"], path)
            assert row is not None
            assert row.name == record["operation"]
            yield record, provider, row


def framing(body: bytes) -> Framing | None:
    """Of an answer whose headers the recorder dropped."""
    start = body.lstrip()[:1]
    return SSE if body.startswith((b"data:", b"event:")) else ARRAY if start == b"[" else None


def frames(body: bytes) -> list[Any]:
    """The documents of a stream, told apart without the code under test."""
    if framing(body) is ARRAY:
        found = json.loads(body)
        assert isinstance(found, list)
        return found
    blocks = body.replace(b"\r\n", b"\n").split(b"\n\n")
    data = [b"\n".join(line[5:] for line in block.split(b"\n") if line.startswith(b"data:")) for block in blocks]
    return [json.loads(one) for one in data if one.strip() not in (b"", b"[DONE]")]


def strings(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from strings(item, (*path, key))


# -- recognise ---------------------------------------------------------------------------------------------------------


def test_every_record_has_its_label_and_its_model() -> None:
    seen = 0
    for record, _, row in recorded():
        path = wire.url(record).path
        if row.path.fullmatch(path) and ":" in path and "/models/" in path:
            assert row.model_of(path, None) == path.rpartition("/models/")[2].partition(":")[0]
        seen += 1
    assert seen > 350


@pytest.mark.parametrize(("path", "operation", "model"), [
    ("/v1/models/gemini-2.5-flash:generateContent", "generate_content", "gemini-2.5-flash"),
    ("/v1beta/tunedModels/mine-1a:streamGenerateContent", "generate_content", "tunedModels/mine-1a"),
    ("/v1beta/models/gemini-2.5-flash:asyncBatchEmbedContent", "embeddings", "gemini-2.5-flash"),
    ("/v1beta/openai/chat/completions", "chat", ""), ("/v1beta/openai/embeddings", "embeddings", ""),
    ("/v1beta/interactions", "interactions", ""),
    ("/upload/v1beta/files", "files", "")])
def test_paths_of_the_gemini_api(path: str, operation: str, model: str) -> None:
    row = GOOGLE_API.operation("POST", path)
    assert row is not None
    assert (row.name, row.model_of(path, {})) == (operation, model)


HERE = "/v1/projects/example.com:p-1/locations/europe-west4"


@pytest.mark.parametrize(("path", "operation", "model"), [
    (f"{HERE}/publishers/google/models/gemini-2.5-pro:streamGenerateContent", "generate_content", "gemini-2.5-pro"),
    ("/v1beta1/publishers/google/models/gemini-2.5-pro:countTokens", "count_tokens", "gemini-2.5-pro"),
    (f"{HERE}/endpoints/123:generateContent", "generate_content", "endpoints/123"),
    (f"{HERE}/publishers/anthropic/models/claude-sonnet-4%4020250514:rawPredict", "messages", "claude-sonnet-4@20250514"),
    (f"{HERE}/publishers/anthropic/models/claude-sonnet-4@20250514:streamRawPredict", "messages", "claude-sonnet-4@20250514"),
    (f"{HERE}/publishers/anthropic/models/count-tokens:rawPredict", "count_tokens", "claude-x"),
    (f"{HERE}/publishers/mistralai/models/mistral-small:rawPredict", "chat", "mistral-small"),
    (f"{HERE}/endpoints/openapi/chat/completions", "chat", "claude-x")])
def test_paths_of_vertex(path: str, operation: str, model: str) -> None:
    row = VERTEX.operation("POST", path)
    assert row is not None
    assert (row.name, row.model_of(path, {"model": "claude-x"})) == (operation, model)


@pytest.mark.parametrize("path", [
    "/v1beta/models/a/../b:generateContent", "/v1beta/models/..:generateContent", "/v1beta/models/a%2Fb:generateContent",
    "/v1beta/models/a%3AgenerateContent:countTokens", "/v1beta/models/a:b:countTokens", "/v1beta/models/:generateContent",
    "/v1beta//models/a:generateContent", "/v1beta/models/a:generateContent/", "/v1beta/models/a%252e:generateContent",
    "/v1beta/models/tunedModels/a:generateContent", "/v1alpha/auth_tokens", "/v1beta/models/a:generateContent\n"])
def test_paths_that_nothing_reads(path: str) -> None:
    assert GOOGLE_API.operation("POST", path) is None


def test_regions_have_hosts_of_their_own_and_others_are_refused() -> None:
    assert len(set(VERTEX.hosts)) == len(VERTEX.hosts) > 40
    assert {"aiplatform.googleapis.com", "aiplatform.eu.rep.googleapis.com",
            "us-east5-aiplatform.googleapis.com"} <= set(VERTEX.hosts)
    for host in ("mars-north1-aiplatform.googleapis.com", "aiplatform.mars.rep.googleapis.com"):
        assert unparsed(host)
    assert all(unparsed(host) is None or host in VERTEX.hosts for host in VERTEX.hosts)
    assert unparsed("storage.googleapis.com") is None


# -- walk and rewrite --------------------------------------------------------------------------------------------------

OPAQUE = {
    "model", "ttl", "role", "id", "type", "tool_call_id", "taskType", "task_type", "mode", "responseModalities", "mimeType",
    "mime_type", "responseMimeType", "response_mime_type", "tool_type", "category", "threshold", "cachedContent",
    "thinking_level", "agent", "resolution"}
"""Members of recorded requests that hold identifiers and enumerations."""
BYTES = {"thoughtSignature", "thought_signature", "data"}


def documents() -> Iterator[tuple[Operation, bytes, Any]]:
    for record, _, row in recorded():
        body = (record["request"].get("body") or "").encode()
        if row.wire is not None and body:
            yield row, body, row.wire.read(body, b"application/json")


def test_every_string_of_a_request_is_text_or_stated_not_to_be() -> None:
    seen = 0
    for row, _, document in documents():
        assert row.wire is not None
        walked = {one.path: one for one in row.wire.walk(document) if not one.key}
        for path, text in strings(document):
            member = next((step for step in reversed(path) if isinstance(step, str)), "")
            if not text:
                continue
            if path in walked:
                assert walked[path].text == text
                seen += 1
            elif member in BYTES:
                assert re.fullmatch(r"[A-Za-z0-9+/=_-]{32,}", text)
            else:
                assert member in OPAQUE, path
                assert re.fullmatch(r"[A-Za-z0-9._:/-]+", text), (path, text)
    assert seen > 2500


def test_keys_that_callers_make_up_are_text_and_those_of_the_format_are_not() -> None:
    ours = {one.text for row, _, document in documents() if row.wire for one in row.wire.walk(document) if one.key}
    assert {"city", "isbn", "$defs", "return_value"} <= ours
    assert not ours & {"systemInstruction", "function_call", "generationConfig", "inlineData", "toolConfig"}


ASKED: Doc = {
    "systemInstruction": {"parts": [{"text": "sys"}]},
    "contents": [
        {"role": "user", "parts": [{"text": "hi"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0K" * 9}},
                                   {"file_data": {"file_uri": "https://example.com/a.png", "mime_type": "image/png"}}]},
        {"role": "model", "parts": [
            {"text": "hm", "thought": True}, {"text": "said", "thoughtSignature": "QUJD" * 20},
            {"functionCall": {"name": "send", "args": {"to": "ann", "data": "QUJD" * 20}, "id": "c1"}}]},
        {"role": "user", "parts": [{"function_response": {"name": "send", "response": {"type": "ok"}}}]},
        {"role": "model", "parts": [{"executableCode": {"language": "PYTHON", "code": "print(1)"}},
                                    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}]}],
    "tools": [{"functionDeclarations": [{"name": "send", "description": "sends", "parameters": {"type": "OBJECT"}}]}],
    "generationConfig": {"stopSequences": ["END"], "responseSchema": {"title": "T"}, "responseMimeType": "application/json"},
    "cachedContent": "cachedContents/x1", "labels": {"team": "blue"}}


def test_roles_seals_and_what_is_no_text() -> None:
    roles = {one.text: one.role for one in GENERATE.walk(ASKED) if not one.key}
    assert roles == {
        "sys": "system", "hi": "user", "https://example.com/a.png": "user", "hm": "assistant", "said": "assistant",
        "ann": "tool_call", "QUJD" * 20: "tool_call", "ok": "tool_result", "print(1)": "tool_call", "1": "tool_result",
        "sends": "schema", "OBJECT": "schema", "END": "metadata", "T": "schema", "blue": "metadata", "send": roles["send"]}
    assert [one.text for one in GENERATE.walk(ASKED) if one.sealed] == ["hm"]


def test_identity_and_one_string_rewritten() -> None:
    chance = random.Random(5)
    for row, body, document in documents():
        assert row.wire is not None
        assert row.wire.rewrite(body, b"application/json", document, {})[0] == body
        places = [one for one in row.wire.walk(document) if not one.key]
        if not places:
            continue
        one = chance.choice(places)
        new, read = row.wire.rewrite(body, b"application/json", document, {(one.path, False): "~new~ é"})
        before, after = list(strings(document)), list(strings(read))
        assert [(at, text) for at, text in after if (at, text) not in before] == [(one.path, "~new~ é")]
        assert len(before) == len(after)
        assert new.replace('~new~ é'.encode(), b"") in _without(body, one.text)


def _without(body: bytes, text: str) -> set[bytes]:
    """*body* without one of the places where *text* stands, in whichever spelling."""
    found = set()
    for match in re.finditer(rb'"[^"\\]*(?:\\.[^"\\]*)*"', body):
        if json.loads(match[0]) == text:
            found.add(body[:match.start() + 1] + body[match.end() - 1:])
    return found or {b""}


def test_a_file_is_one_text_or_none() -> None:
    text = b"Paris is the capital. ann@example.com"
    document = UPLOAD.read(text, b"")
    (one,) = UPLOAD.walk(document)
    assert (one.path, one.text) == ((), text.decode())
    assert UPLOAD.rewrite(text, b"", document, {((), False): "new"}) == (b"new", "new")
    assert UPLOAD.rewrite(text, b"", document, {}) == (text, text.decode())
    with pytest.raises(ValueError, match="place"):
        UPLOAD.rewrite(text, b"", document, {(("a",), False): "new"})
    pdf = b"%PDF-1.4\0" + bytes(range(256)) * 4
    document = UPLOAD.read(pdf, b"application/pdf")
    assert list(UPLOAD.walk(document)) == []
    assert list(UPLOAD.unseen(document))
    assert UPLOAD.rewrite(pdf, b"", document, {})[0] == pdf
    said = UPLOAD.read(b'{"file": {"displayName": "ann"}}', b"application/json")
    assert [one.text for one in UPLOAD.walk(said)] == ["ann"]


# -- usage -------------------------------------------------------------------------------------------------------------


def told(row: Operation, body: bytes) -> Usage | None:
    """The usage that an answer tells, read here once more."""
    kind = framing(body)
    answers = frames(body) if kind else [json.loads(body)]
    if row.name == "predict":
        return Usage(sum(one["embeddings"]["statistics"]["token_count"] for one in answers[0]["predictions"]))
    usage: Doc = {}
    for one in answers:
        usage = one.get("usageMetadata") or one.get("usage") or (one.get("interaction") or {}).get("usage") or usage
    if "total_input_tokens" in usage:
        images = sum(one["tokens"] for one in usage["input_tokens_by_modality"] if one["modality"] == "image")
        return Usage(usage["total_input_tokens"], usage["total_output_tokens"] + usage["total_thought_tokens"],
                     cached_input=usage["total_cached_tokens"], reasoning=usage["total_thought_tokens"], input_image=images)
    if not {name for name in usage if name.endswith("TokenCount")}:
        return None

    def of(details: str, *kinds: Any) -> int:
        return sum(one.get("tokenCount", 0) for one in usage.get(details, ()) if one["modality"] in kinds)

    image, audio = ("IMAGE", "DOCUMENT", 2, 5), ("AUDIO", 4)
    names = ("prompt", "toolUsePrompt", "candidates", "thoughts", "cachedContent")
    sums = [usage.get(f"{name}TokenCount", 0) for name in names]
    if len(usage) == 1:
        sums[0] = usage["totalTokenCount"]
    queries = [query for one in answers for candidate in one.get("candidates", ())
               for query in candidate.get("groundingMetadata", {}).get("webSearchQueries", ()) if query]
    old = str(answers[-1].get("modelVersion", "")).startswith(("gemini-1", "gemini-2"))
    return Usage(
        sums[0] + sums[1], sums[2] + sums[3], cached_input=sums[4], reasoning=sums[3],
        web_searches=min(len(queries), 1) if old else len(queries),
        input_audio=of("promptTokensDetails", *audio) + of("toolUsePromptTokensDetails", *audio),
        cached_audio=of("cacheTokensDetails", *audio), output_audio=of("candidatesTokensDetails", *audio),
        input_image=of("promptTokensDetails", *image) + of("toolUsePromptTokensDetails", *image),
        cached_image=of("cacheTokensDetails", *image), output_image=of("candidatesTokensDetails", *image))


def test_usage_of_every_answer_is_what_it_says() -> None:
    chance = random.Random(11)
    seen, models = {True: 0, False: 0}, 0
    for record, _, row in recorded():
        body = wire.answer(record)
        if row.wire is None or record["response"]["status"] >= 300 or row.name in ("chat", "count_tokens", "other"):
            continue
        meters = [row.wire.meter(framing(body), ()) for _ in range(2)]
        meters[0].feed(body)
        ends = sorted(chance.randrange(len(body) + 1) for _ in range(12))
        for start, end in zip([0, *ends], [*ends, len(body)], strict=True):
            meters[1].feed(body[start:end])
        found = meters[0].reading()
        assert meters[1].reading() == found
        assert found.usage == told(row, body), record["source"]
        assert not found.partial
        if found.usage is not None and row.name == "generate_content":
            models += bool(found.model)
            seen[bool(record["stream"])] += 1
    assert seen[False] > 200
    assert seen[True] > 45
    assert models > 250


def test_a_modality_may_be_a_number_and_the_last_chunk_wins() -> None:
    meter = STREAM.meter(ARRAY, ())
    meter.feed(b"[")
    for chunk in ({"promptTokenCount": 5, "candidatesTokenCount": 1}, {"trafficType": "ON_DEMAND"},
                  {"promptTokenCount": 5, "candidatesTokenCount": 9, "thoughtsTokenCount": 3, "trafficType": "ON_DEMAND_FLEX",
                   "promptTokensDetails": [{"modality": 4, "tokenCount": 2}, {"modality": 1, "tokenCount": 3}]}):
        meter.feed(b"," + json.dumps({"candidates": [{"content": {}}], "usageMetadata": chunk}).encode())
    reading = meter.reading()
    assert (reading.usage, reading.partial, reading.tier) == (Usage(5, 12, reasoning=3, input_audio=2), True, "flex")


@pytest.mark.parametrize("usage", [{"promptTokenCount": -1}, {"promptTokenCount": "7"}, {"trafficType": "ON_DEMAND"}, {}, "x"])
def test_what_is_no_count_is_no_usage(usage: Any) -> None:
    meter = GENERATE.meter(None, ())
    meter.feed(json.dumps({"usageMetadata": usage}).encode())
    assert meter.reading().usage is None


# -- streams -----------------------------------------------------------------------------------------------------------


def through(pieces: list[bytes], kind: bytes, row: Any = STREAM, coding: bytes = b"") -> bytes:
    one = RestoreFilter(Restorer(MINTER.originals(), frozenset), deltas=row.deltas, array=row.array)
    pipe = AnswerPipe(None, [one], 1 << 24)
    head = ((b"content-type", kind), (b"content-encoding", coding)) if coding else ((b"content-type", kind),)
    pipe.start(head, coding, framing=None)
    return b"".join([pipe.feed(piece) for piece in pieces]) + pipe.close()


def slots(document: Doc) -> Iterator[tuple[tuple[Any, ...], Doc]]:
    """(text it belongs to, the object whose ``text`` holds a piece of it)."""
    for candidate in document.get("candidates", ()):
        for part in candidate.get("content", {}).get("parts", ()):
            if isinstance(part.get("text"), str):
                yield ("thought" if part.get("thought") else "text", candidate.get("index", 0)), part
    if str(document.get("event_type")).endswith(".delta") and document["delta"]["type"] == "text":
        yield ("text", document["index"]), document["delta"]


def runs(documents: list[Any]) -> list[tuple[tuple[Any, ...], list[Doc]]]:
    """The texts of a stream, each with the objects that hold it: one ends where another part comes between."""
    found: list[tuple[tuple[Any, ...], list[Doc]]] = []
    for document in documents:
        for candidate in document.get("candidates", ()):
            others = [part for part in candidate.get("content", {}).get("parts", ()) if not isinstance(part.get("text"), str)]
            found += [(("other",), []) for _ in others]
        for key, holder in slots(document):
            if found and found[-1][0] == key:
                found[-1][1].append(holder)
            else:
                found.append((key, [holder]))
            if "thoughtSignature" in holder:
                found.append((("other",), []))
    return [one for one in found if one[1]]


def texts(documents: list[Any]) -> str:
    return "".join(holder["text"] for key, holders in runs(documents) for holder in holders if key[0] == "text")


def written(body: bytes, documents: list[Any], chance: random.Random) -> bytes:
    """*documents* in the form of *body*."""
    dumped = [json.dumps(one, ensure_ascii=chance.random() < 0.5).encode() for one in documents]
    if framing(body) is ARRAY:
        return b"[" + b"\n,\r\n".join(one.replace(b"<", chance.choice((b"<", b"\\u003c"))) for one in dumped) + b"\n]\n"
    return b"".join(b"data: " + one + chance.choice((b"\r\n\r\n", b"\n\n")) for one in dumped)


def planted(body: bytes, chance: random.Random) -> tuple[bytes, list[Any], str]:
    """The stream with placeholders in each of its texts, split anew over the same events; its documents, and the text that
    they shall hold."""
    documents = frames(body)
    wanted = ""
    for key, holders in runs(documents):
        old = "".join(holder["text"] for holder in holders)
        new = f"{P} {old} {P} <PERSON_{P[:4]}<PER"
        ends = sorted(chance.randrange(len(new) + 1) for _ in holders[1:])
        for holder, start, end in zip(holders, [0, *ends], [*ends, len(new)], strict=True):
            holder["text"] = new[start:end]
        wanted += new.replace(P, VALUE) if key[0] == "text" else ""
    for document in documents:
        for candidate in document.get("candidates", ()):
            for part in candidate.get("content", {}).get("parts", ()):
                if "functionCall" in part:
                    part["functionCall"].setdefault("args", {})["to"] = [f"a {P}"]
    return written(body, documents, chance), documents, wanted


def streams() -> list[tuple[Doc, Any, bytes]]:
    return [(record, row.wire, wire.answer(record)) for record, _, row in recorded()
            if record["stream"] and framing(wire.answer(record)) and row.name in ("generate_content", "interactions")]


def test_recorded_streams_however_they_are_cut() -> None:
    chance = random.Random(3)
    seen = 0
    for _, row, body in streams():
        given, documents, wanted = planted(body, chance)
        kind = b"text/event-stream" if framing(body) is SSE else b"application/json; charset=UTF-8"
        whole = through([given], kind, row)
        got = frames(whole)
        assert texts(got) == wanted
        sent = [part["functionCall"]["args"]["to"] for one in got for candidate in one.get("candidates", ())
                for part in candidate.get("content", {}).get("parts", ()) if "functionCall" in part]
        assert all(to == [f"a {VALUE}"] for to in sent)
        assert [holder["text"] for key, holders in runs(got) for holder in holders if key[0] == "thought"] \
            == [holder["text"] for key, holders in runs(documents) for holder in holders if key[0] == "thought"]
        for _ in range(CUTS):
            ends = sorted(chance.randrange(len(given) + 1) for _ in range(chance.randrange(1, 12)))
            pieces = [given[start:end] for start, end in zip([0, *ends], [*ends, len(given)], strict=True)]
            assert through(pieces, kind, row) == whole
        if len(given) < 6000 or CUTS >= 200:
            assert through([given[at:at + 1] for at in range(len(given))], kind, row) == whole
        packed = gzip.compress(given)
        assert through([packed[at:at + 97] for at in range(0, len(packed), 97)], kind, row, b"gzip") == whole
        seen += len(sent) + bool(wanted)
    assert seen > 50


def test_recorded_streams_put_together() -> None:
    for record, row, body in streams():
        document = row.assembled(body, framing(body))
        assert "events" not in document, record["source"]
        documents = frames(body)
        if row is INTERACT:
            assert [step["type"] for step in document["steps"]] == ["thought", "model_output"]
            assert document["steps"][1]["content"] == [{"type": "text", "text": texts(documents)}]
            assert document["steps"][0]["signature"]
            assert document["status"] == "completed"
            continue
        parts = [part for candidate in document["candidates"] for part in candidate["content"]["parts"]]
        assert "".join(part["text"] for part in parts if "text" in part and not part.get("thought")) == texts(documents)
        assert sum("text" in part for part in parts) <= len(runs(documents))
        assert document["candidates"][0].get("finishReason")
        assert document["usageMetadata"] == documents[-1]["usageMetadata"]
        for path, text in strings(documents):
            if len(path) > 1 and path[-1] != "text" and "logprobsResult" not in path:
                assert text in json.dumps(document, ensure_ascii=False) or json.dumps(text)[1:-1] in json.dumps(document), path
        for cut in (0, len(body) // 2, len(body) - 1):
            row.assembled(body[:cut], framing(body))


def chunk(*parts: Doc, index: int = 0, **more: Any) -> bytes:
    one = {"candidates": [{"content": {"parts": list(parts), "role": "model"}, "index": index, **more}]}
    return b"data: " + json.dumps(one).encode() + b"\r\n\r\n"


def test_candidates_and_kinds_of_part_are_told_apart() -> None:
    half, rest = P[:7], P[7:]
    given = [chunk({"text": half}), chunk({"text": half}, index=1), chunk({"text": rest, "thought": True}),
             chunk({"text": rest}), chunk({"text": rest}, index=1)]
    got = frames(through(given, b"text/event-stream"))
    assert texts([one for one in got if one["candidates"][0]["index"] == 1]) == VALUE
    assert texts([one for one in got if one["candidates"][0]["index"] == 0]) == VALUE
    call = {"functionCall": {"name": "send", "args": {"to": P}}}
    got = frames(through([chunk({"text": f"a {half}"}), chunk(call), chunk(finishReason="STOP")], b"text/event-stream"))
    assert [part for one in got for part in one["candidates"][0]["content"]["parts"]] == [
        {"text": "a "}, {"text": half}, {"functionCall": {"name": "send", "args": {"to": VALUE}}}]


def test_whole_strings_beside_a_piece_and_several_pieces_in_one_chunk() -> None:
    """A text in two parts, and a call whose arguments are whole."""
    call = {"functionCall": {"name": "send", "args": {"to": P, "q": "<b>"}}}
    given = [chunk({"text": P[:3]}, {"text": P[3:5]}), chunk({"text": P[5:] + " " + P}, call), chunk({"text": "<"})]
    got = frames(through(given, b"text/event-stream"))
    assert texts(got) == f"{VALUE} {VALUE}<"
    parts = [part for one in got for part in one["candidates"][0]["content"]["parts"]]
    (sent,) = [part["functionCall"] for part in parts if "functionCall" in part]
    assert sent["args"] == {"to": VALUE, "q": "<b>"}
    last = chunk({"text": P[:5]}, {"text": P[5:]}, finishReason="STOP")
    assert texts(frames(through([last], b"text/event-stream"))) == VALUE


def test_arguments_that_come_in_pieces() -> None:
    """Vertex's ``streamFunctionCallArguments``."""
    pieces = [{"jsonPath": "$.to", "stringValue": P[:6], "willContinue": True},
              {"jsonPath": "$.to", "stringValue": P[6:], "willContinue": True}, {"jsonPath": "$.to", "stringValue": "!"}]
    given = [chunk({"functionCall": {"name": "send", "willContinue": True}}),
             *(chunk({"functionCall": {"partialArgs": [one], "willContinue": True}}) for one in pieces),
             chunk({"functionCall": {}}, finishReason="STOP")]
    got = through(given, b"text/event-stream")
    assert STREAM.assembled(got, SSE)["candidates"][0]["content"]["parts"] == [{"functionCall": {  # type: ignore[index]
        "name": "send", "willContinue": False,
        "partialArgs": [{"jsonPath": "$.to", "stringValue": f"{VALUE}!", "willContinue": False}]}}]


def test_an_array_keeps_its_form_where_something_waits_at_its_end() -> None:
    given = b'[' + json.dumps({"candidates": [{"content": {"parts": [{"text": f"a {P[:5]}"}]}}]}).encode() + b"\n]"
    got = through([given], b"application/json")
    assert texts(json.loads(got)) == f"a {P[:5]}"
    assert through([b"[]"], b"application/json") == b"[]"


def test_json_answers_have_their_values_back_but_for_thoughts() -> None:
    answer = {"candidates": [{"content": {"parts": [
        {"text": P, "thought": True}, {"text": P, "thoughtSignature": "QUJD"},
        {"functionCall": {"args": {"to": P, "thought": True}}}]}}]}
    got = json.loads(through([json.dumps(answer).encode()], b"application/json", GENERATE))
    assert [one for _, one in strings(got)] == [P, VALUE, "QUJD", VALUE]


def test_interactions_have_their_values_back_but_for_thoughts() -> None:
    answer = {"steps": [{"type": "thought", "signature": "QUJD", "summary": [{"type": "text", "text": P}]},
                        {"type": "function_call", "name": "send", "arguments": {"to": P}, "signature": "QUJD"}]}
    got = json.loads(through([json.dumps(answer).encode()], b"application/json", INTERACT))
    assert [got["steps"][0]["summary"][0]["text"], got["steps"][1]["arguments"]["to"]] == [P, VALUE]
    events = [{"event_type": "step.start", "index": 0, "step": {"type": "function_call", "id": "c", "name": "send"}},
              *({"event_type": "step.delta", "index": 0, "delta": {"type": "arguments_delta", "arguments": one}}
                for one in ('{"to": "<PER', P[4:] + '"', "}")),
              {"event_type": "step.stop", "index": 0}]
    got = through([b"data: %b\n\n" % json.dumps(one).encode() for one in events], b"text/event-stream", INTERACT)
    document = INTERACT.assembled(got, SSE)
    assert document == {"steps": [{"type": "function_call", "id": "c", "name": "send", "arguments": {"to": VALUE}}]}
    assert not LOOKS_LIKE.search(json.dumps(document))


def test_what_is_kept_at_google_is_known_by_its_name() -> None:
    assert goes_on_from("/v1beta/models/m:generateContent", {"cachedContent": "cachedContents/a1"}) == ("a1",)
    assert goes_on_from("/v1beta/interactions", {"previous_interaction_id": "v1_x"}) == ("v1_x",)
    assert is_kept("/v1beta/cachedContents", {"contents": []})
    assert is_kept("/v1beta/interactions", {"input": "x"})
    assert not is_kept("/v1beta/interactions", {"input": "x", "store": False})
    assert not is_kept("/v1beta/models/m:generateContent", {"contents": []})
    assert answer_names({"name": "projects/1/locations/l/cachedContents/a1", "model": "m"}) == ("a1",)
    made = {"event_type": "interaction.created", "interaction": {"id": "v1_x", "object": "interaction"}}
    assert answer_names(made) == ("v1_x",)
    assert answer_names({"name": "fileSearchStores/x"}) == ()


# -- saying no ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(DENIALS))
def test_a_denial_is_googles_own_error(code: str) -> None:
    status, body = GOOGLE.error(DENIALS[code], code, "why", "id-1")
    error = json.loads(body)["error"]
    assert (status, error["code"], error["message"]) == (DENIALS[code], DENIALS[code], "why")
    assert error["details"][0]["reason"] == code
    assert re.fullmatch("[A-Z_]+", error["status"])


def test_wires_have_a_bound_where_they_answer_at_length() -> None:
    assert ("generationConfig", "maxOutputTokens") in GENERATE.bound.stated
    assert ("generation_config", "max_output_tokens") in GENERATE.bound.stated
    assert STREAM.stream({})
    assert not GENERATE.stream({})
    assert EMBED.bound.insert is PREDICT.bound.insert is None


def test_the_regions_leave_the_chain_of_certificates_small() -> None:
    """The intermediate, with all its names, goes with each handshake."""
    now = datetime.now(UTC)
    names = Names.of((*GOOGLE_API.hosts, *VERTEX.hosts))
    made = make_intermediate(make_root(now), names, now, timedelta(days=30)).certificate
    assert len(made.public_bytes(Encoding.DER)) < 3000
    assert "storage.googleapis.com" not in names
    assert "googleapis.com" not in names.bases
