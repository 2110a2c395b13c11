"""What cannot be searched and what leads elsewhere: found in every format, recorded, and refused where the edge says so."""

import base64
import json
from typing import Any

import anthropic
import pytest

from douane.call import Finding
from douane.demo.provider import LocalProvider
from douane.edge import EdgeRules
from douane.exchange import Exchange
from douane.providers.anthropic import MESSAGES
from douane.providers.base import Unseen
from douane.providers.openai import CHAT
from douane.providers.tools import link_host
from douane.providers.unseen import unseen
from douane.unsearched import declare, tool_type
from tests import house, wire
from tests.gateway import CHAT as CHAT_PATH
from tests.gateway import Gateway, Wire, policy, request, untouched

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(40))).decode()
BLOB = base64.b64encode(bytes(range(256))).decode()
SCHEMA = {"type": "object", "properties": {
    "image_url": {"type": "string", "description": "https://example.com/x.png"}, "url": {"type": "string", "default": "http://x"},
    "tools": {"type": "array"}, "file_id": {"type": "string"}, "prompt": {"enum": [1, 2, 3]}}}


def kinds(document: Any) -> list[str]:
    """``kind`` or ``kind:name`` of each, sorted."""
    return sorted(f"{one.kind}:{one.name}" if one.name else one.kind for one in unseen(document))


def said(*content: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(content)}]}


OPENAI: list[tuple[Any, list[str]]] = [
    (said({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}), ["image"]),
    (said({"type": "image_url", "image_url": {"url": "https://Example.com./a.png"}}), ["url:example.com"]),
    (said({"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "wav"}}), ["audio"]),
    (said({"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"}}), ["document"]),
    (said({"type": "file", "file": {"file_id": "file-1"}}), ["file"]),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.7:8000/a"}]}]},
     ["url:10.0.0.7"]),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x.org/a.pdf"}]}]}, ["url:x.org"]),
    ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAAAB"}]}, ["encrypted"]),
    ({"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot",
                                                            "image_url": f"data:image/png;base64,{PNG}"}}]}, ["image"]),
    ({"input": [{"type": "image_generation_call", "result": PNG * 8}]}, ["image"]),
    ({"input": [{"type": "web_search_call", "action": {"type": "open_page", "url": "https://x.org"}}]}, []),
    ({"prompt": {"id": "p", "variables": {"pic": {"type": "input_image", "image_url": "https://x.org/p"}}}}, ["url:x.org"]),
    ({"tools": [{"type": kind} for kind in ("web_search", "code_interpreter", "image_generation", "computer_use_preview")]},
     ["hosted_tool:code_interpreter", "hosted_tool:computer_use_preview", "hosted_tool:image_generation",
      "hosted_tool:web_search"]),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, ["file", "hosted_tool:file_search"]),
    ({"tools": [{"type": "mcp", "server_label": "d", "server_url": "https://mcp.example.com/sse"}]}, ["mcp:mcp.example.com"]),
    ({"tools": [{"type": "mcp", "server_label": "d", "connector_id": "connector_gmail"}]}, ["mcp:connector_gmail"]),
    ({"tools": [{"type": "mcp", "connector_id": "connector_gmail", "server_url": "https://ok.example.com"}]}, ["mcp"]),
    ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]}, ["hosted_tool:web_search"]),
    ({"tools": [{"type": "never_heard_of"}, {"type": 7}, {"novel": {}}, "bare"]},
     ["hosted_tool", "hosted_tool:bare", "hosted_tool:never_heard_of", "hosted_tool:novel"]),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}, {"type": "custom", "name": "c"},
                {"type": "function", "name": "g", "parameters": SCHEMA}], "metadata": {"tools": [{"type": "x"}]}}, []),
    ({"messages": [], "web_search_options": {}}, ["hosted_tool:web_search"]),
    ({"data_sources": [{"type": "azure_search", "parameters": {}}]}, ["hosted_tool:azure_search"]),
    ({"model": "m", "prompt": [1, 2, 3]}, ["tokens"]),
    ({"model": "m", "input": [[1, 2], [3]]}, ["tokens"]),
    ({"model": "m", "input": ["a", "b"], "novel": list(range(40))}, ["tokens"]),
    ({"images": [{"image_url": "https://x.org/1"}, {"file_id": "file-2"}], "mask": {"file_id": "file-3"}},
     ["file", "file", "url:x.org"]),
]
ANTHROPIC: list[tuple[Any, list[str]]] = [
    (said({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}}), ["image"]),
    (said({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PNG}}), ["document"]),
    (said({"type": "document", "source": {"type": "url", "url": "https://x.org/a.pdf"}}), ["url:x.org"]),
    (said({"type": "image", "source": {"type": "file", "file_id": "file_1"}}), ["file"]),
    (said({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hello to Ann, and all."}}), []),
    (said({"type": "thinking", "thinking": "hm", "signature": "EqMB"}, {"type": "redacted_thinking", "data": "EqMC"}),
     ["encrypted", "encrypted"]),
    (said({"type": "tool_use", "id": "t", "name": "fetch", "input": {"url": "https://x.org", "image": PNG}}), []),
    (said({"type": "tool_result", "tool_use_id": "t", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]}), ["image"]),
    (said({"type": "web_search_tool_result", "content": [
        {"type": "web_search_result", "url": "https://x.org", "encrypted_content": BLOB}]}), ["encrypted"]),
    ({"tools": [{"type": name, "name": "n"} for name in (
        "web_search_20250305", "web_fetch_20250910", "code_execution_20250825", "computer_20250124", "bash_20250124",
        "text_editor_20250728")]},
     ["hosted_tool:code_execution_20250825", "hosted_tool:web_fetch_20250910", "hosted_tool:web_search_20250305"]),
    ({"tools": [{"name": "f", "input_schema": SCHEMA}], "mcp_servers": [
        {"type": "url", "url": "https://mcp.example.com/sse", "name": "m"}]}, ["mcp:mcp.example.com"]),
    ({"requests": [{"custom_id": "a", "params": {"tools": [{"type": "web_search_20250305", "name": "w"}]}}]},
     ["hosted_tool:web_search_20250305"]),
]
OTHERS: list[tuple[Any, list[str]]] = [
    ({"contents": [{"parts": [{"inlineData": {"mimeType": "audio/mp3", "data": PNG}}, {"inline_data": {"data": BLOB}}]}]},
     ["audio", "binary"]),
    ({"contents": [{"parts": [{"fileData": {"fileUri": "https://x.org/v"}}, {"file_data": {"file_uri": "gs://bucket/v"}},
                              {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a"}}]}]},
     ["file", "url:gs://bucket", "url:x.org"]),
    ({"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"url": "https://x.org"}}, "thoughtSignature": "Ab"},
                              {"functionResponse": {"name": "f", "response": {"image": PNG}}}]}]}, ["encrypted"]),
    ({"tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}], "googleSearch": {}}, {"url_context": {}},
                {"codeExecution": {}}, {"googleSearchRetrieval": {}}, {"name": "sly", "googleMaps": {}},
                {"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/a"]}}]},
     ["file", "hosted_tool:code_execution", "hosted_tool:file_search", "hosted_tool:google_maps", "hosted_tool:google_search",
      "hosted_tool:google_search_retrieval", "hosted_tool:url_context"]),
    ({"tools": [{"mcpServers": [{"name": "m", "streamableHttpTransport": {"url": "https://mcp.example.com"}}]}]},
     ["mcp:mcp.example.com"]),
    (said({"image": {"format": "png", "source": {"bytes": "aGk="}}},
          {"document": {"format": "pdf", "name": "d", "source": {"s3Location": {"uri": "s3://mine/a.pdf"}}}},
          {"video": {"format": "mp4", "source": {"bytes": PNG}}},
          {"guardContent": {"image": {"format": "png", "source": {"bytes": PNG}}}},
          {"reasoningContent": {"redactedContent": "aGk="}},
          {"toolUse": {"toolUseId": "t", "name": "f", "input": {"url": "https://x.org"}}}),
     ["encrypted", "image", "image", "url:s3://mine", "video"]),
    ({"toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}},
                               {"cachePoint": {"type": "default"}}, {"systemTool": {"name": "nova_grounding"}}]},
      "additionalModelRequestFields": {"tools": [{"type": "web_search_20250305", "name": "w"}]}},
     ["hosted_tool:nova_grounding", "hosted_tool:web_search_20250305"]),
    ({"message": "hi", "connectors": [{"id": "web-search"}], "documents": [{"text": "a b"}]}, ["hosted_tool:web-search"]),
    ({"model": "m", "images": [f"data:image/png;base64,{PNG}"]}, ["image"]),
    ({"messages": [{"role": "user", "content": "hi", "images": [PNG]}], "context": [1, 2]}, ["image", "tokens"]),
]


@pytest.mark.parametrize(("document", "found"), [*OPENAI, *ANTHROPIC, *OTHERS])
def test_each_shape_of_each_format(document: Any, found: list[str]) -> None:
    assert kinds(document) == sorted(found)


@pytest.mark.parametrize("document", [
    {"never_heard_of": BLOB}, [[BLOB]], BLOB, said({"type": "tool_use", "input": {"x": BLOB}}), {"metadata": {"k": [BLOB]}},
    {"tools": [{"name": "f", "input_schema": {"description": BLOB}}]},
    {"a": "\n".join(BLOB[at:at + 76] for at in range(0, 344, 76))}])
def test_what_looks_like_base64_is_told_anywhere(document: Any) -> None:
    assert kinds(document) == ["binary"]


@pytest.mark.parametrize("text", ["word " * 100, "one\nword\na\nline\n" * 40, "é" * 300, BLOB[:255], "", BLOB + " and words",
                                  "a.b" * 200])
def test_text_is_not(text: str) -> None:
    assert kinds({"messages": [{"content": text}], "novel": text, "data": ""}) == []


def test_text_in_base64_cannot_be_searched_either() -> None:
    assert kinds(said({"type": "file", "file": {"file_data": "data:text/plain;base64,QW5u"}})) == ["document"]
    assert kinds(said({"type": "text", "text": "data:text/plain,Ann"})) == []


def test_what_the_walk_leaves_out_of_recorded_bodies_as_bytes_is_told() -> None:
    """The two together forget nothing: a long string is text to the walk, or it is here."""
    long = 0
    for record in wire.records("openai", "anthropic"):
        body = wire.asked(record)
        if record["operation"] not in ("chat", "messages") or not isinstance(body, dict):
            continue
        spoken = CHAT if record["operation"] == "chat" else MESSAGES
        told = {one.path for one in unseen(body)} | {one.path for one in spoken.walk(body)}
        for path, text in _strings(body):
            if len(text) > 64:
                long += 1
                assert path in told, path
    assert long > 500


def _strings(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        return [(path, value)]
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for step, item in rows for one in _strings(item, (*path, step))]


def test_depth_costs_no_stack() -> None:
    body: Any = {"type": "image_url", "image_url": "https://x.org/a"}
    for _ in range(5_000):
        body = [body]
    assert kinds(body) == ["url:x.org"]


@pytest.mark.parametrize(("link", "host"), [
    ("https://A.example.com:8443/x?y#z", "a.example.com"), ("http://[::1]:80/x", "[::1]"), ("wss://x.org", "x.org"),
    ("gs://b-1/x", "gs://b-1"), ("https://good.example.com@evil.org/", ""), ("https://good.example.com\\@evil.org/", ""),
    ("https://goöd.example.com/", ""), ("//x.org/a", ""), ("https:///x", ""), ("https://x.org:99x/", ""),
    (" https://x.org", ""), ("file:///etc/passwd", ""), ("https://a b.org/", "")])
def test_a_host_is_told_only_where_all_readers_agree(link: str, host: str) -> None:
    assert link_host(link) == host


def test_records_name_kind_count_and_place_and_nothing_that_an_app_made_up() -> None:
    body = said({"type": "image_url", "image_url": {"url": "https://ann-smith.example.com/a"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}})
    body |= {"tools": [{"type": "web_search"}, {"type": "call Ann 555 123 4567"},
                       {"type": "mcp", "server_url": "https://ann.example.com"}], "Ann Smith": [BLOB]}
    findings, denial = declare(unseen(body), "allow")
    assert denial is None
    assert findings == [
        Finding("edge", "hosted_tool:other", 1, ("$.tools[1]",)), Finding("edge", "hosted_tool:web_search", 1, ("$.tools[0]",)),
        Finding("edge", "mcp_server", 1, ("$.tools[2]",)),
        Finding("edge", "remote_url", 1, ("$.messages[0].content[0].image_url.url",)),
        Finding("edge", "uninspectable:binary", 1, ("$.*[0]",)),
        Finding("edge", "uninspectable:image", 1, ("$.messages[0].content[1].image_url.url",))]
    assert "Ann" not in str(findings)
    assert "ann" not in str(findings)


@pytest.mark.parametrize(("name", "told"), [
    ("web_search_20250305", "web_search_20250305"), ("openrouter:web_search", "openrouter:web_search"),
    ("web-search", "web-search"), ("call_5551234567", "other"), ("Ann", "other"),
    ("", "other"), ("a" * 60, "other"), ("ann@example.com", "other")])
def test_types_of_tools_that_may_be_recorded(name: str, told: str) -> None:
    assert tool_type(name) == told


REFUSED = ("image", "audio", "video", "document", "file", "tokens", "binary", "url")


@pytest.mark.parametrize("kind", [*REFUSED, "encrypted", "hosted_tool", "mcp"])
def test_what_the_rule_refuses(kind: Any) -> None:
    findings, denial = declare([Unseen(("messages", 0, "Ann"), kind, "n")], "deny")
    assert len(findings) == 1
    assert (denial is not None) is (kind in REFUSED)
    if denial is not None:
        assert denial.code == "uninspectable"
        assert kind in denial.reason
        assert "$.messages[0].*" in denial.reason


def exchange(rule: Any, body: Any) -> tuple[Exchange, house.Book, Any]:
    book = house.Book()
    gate = house.gate(house.chain(edge=EdgeRules(uninspectable=rule)), book)
    call = house.call(body=json.dumps(body).encode(), document=body)
    one = Exchange(gate, house.OPENAI, house.OPENAI.operation("POST", "/v1/chat/completions"), call)
    return one, book, house.run(one.admit(call))


JSON = (("Content-Type", "application/json"),)
PICTURE = said({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}})


def test_allowed_it_is_recorded_all_the_same() -> None:
    _, book, denial = exchange("allow", PICTURE)
    assert denial is None
    (intent,) = book.records
    assert [(one["policy"], one["type"], one["count"]) for one in intent["findings"]] == [("edge", "uninspectable:image", 1)]


def test_denied_it_is_recorded_as_the_edges_refusal() -> None:
    one, book, denial = exchange("deny", PICTURE)
    assert denial.code == "uninspectable"
    house.run(one.finish("denied"))
    assert book.outcome["verdict"]["policy"] == "edge"
    assert book.outcome["findings"][0]["type"] == "uninspectable:image"
    assert exchange("deny", said({"type": "text", "text": "hello"}))[2] is None


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    return policy(provider, more="edge: {uninspectable: deny}", chain="""  - authenticate: {unknown: deny}
  - redact: {}
  - swap_key: {missing: keep}""")


def test_at_both_doors_of_a_gateway(gateway: Gateway, provider: LocalProvider) -> None:
    body = json.dumps({**PICTURE, "model": "gpt-4o"}).encode()
    with untouched(provider):
        with Wire.to(gateway.http) as plain:
            plain.send(request(body, target=f"/openai{CHAT_PATH}", host=f"127.0.0.1:{gateway.http[1]}", headers=JSON))
            reverse = plain.answer()
        with Wire.tls(gateway) as tunnel:
            tunnel.send(request(body, headers=JSON))
            proxied = tunnel.answer()
    for got in (reverse, proxied):
        assert (got.status, got.code) == (403, "uninspectable")
        assert "image at $.messages[0].content[0].image_url.url" in got.json["error"]["message"]
        assert gateway.outcome(got.id)["findings"][0]["type"] == "uninspectable:image"


def test_anthropics_sdk_raises_its_own_exception_after_one_attempt(governed: None, provider: LocalProvider) -> None:
    source: Any = {"type": "base64", "media_type": "image/png", "data": PNG}
    with untouched(provider), anthropic.Anthropic() as client, pytest.raises(anthropic.PermissionDeniedError, match="image at"):
        client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=[
            {"role": "user", "content": [{"type": "image", "source": source}]}])
