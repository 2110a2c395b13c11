"""``allow_tools``: hosted tools, MCP servers, addresses and functions that are listed pass, in every format; others do not."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from douane.call import Call
from douane.demo.provider import LocalProvider
from douane.errors import ConfigError
from douane.loader import load
from douane.people import People, Tokens, Vaulted
from douane.policies.allow_tools import AllowTools
from douane.policy import Setting
from douane.providers import base
from douane.providers.table import builtin
from douane.verdict import ALLOW, Deny
from tests import house
from tests.gateway import Gateway, policy, untouched

WIRES = {(name, row.name): row.wire for name, one in builtin().items() for row in one.operations if row.wire}


def wire_of(call: Call) -> base.Wire | None:
    return WIRES.get((call.provider, call.operation))


SETTING = Setting(People([], Tokens()), Vaulted([]), {}, wires=wire_of)
LISTED = AllowTools(hosted=("web_search*", "google_search"), mcp=("mcp.example.com", "*.good.org", "connector_gmail"),
                    urls=("*.example.com", "gs://our-*"))


def judge(rule: AllowTools, document: Any, provider: str = "openai", operation: str = "chat") -> str:
    """The reason of the denial; empty where there is none."""
    verdict = house.run(rule.bind(SETTING).admit(house.call(
        provider=provider, operation=operation, body=json.dumps(document).encode(), document=document)))
    if verdict is ALLOW:
        return ""
    assert isinstance(verdict, Deny)
    assert verdict.code == "content_blocked"
    return verdict.reason


def mcp(url: str) -> dict[str, Any]:
    return {"tools": [{"type": "mcp", "server_label": "x", "server_url": url}]}


def picture(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


@pytest.mark.parametrize(("document", "provider", "operation"), [
    ({"messages": [{"role": "user", "content": "hi"}]}, "openai", "chat"),
    ({"tools": [{"type": "web_search_preview"}]}, "openai", "responses"),
    ({"messages": [], "web_search_options": {}}, "openai", "chat"),
    (mcp("https://mcp.example.com/sse"), "openai", "responses"),
    (mcp("https://A.B.GOOD.org:8443/sse"), "openai", "responses"),
    ({"tools": [{"type": "mcp", "connector_id": "connector_gmail"}]}, "openai", "responses"),
    ({"tools": [{"type": "function", "function": {"name": "anything"}}]}, "openai", "chat"),
    (picture("https://cdn.Example.com/a.png"), "openai", "chat"),
    (picture("data:image/png;base64,aGVsbG8="), "openai", "chat"),
    ({"tools": [{"type": "web_search_20250305", "name": "w"}, {"type": "bash_20250124", "name": "bash"}]},
     "anthropic", "messages"),
    ({"tools": [{"googleSearch": {}}], "contents": [{"parts": [{"fileData": {"fileUri": "gs://our-files/a"}}]}]},
     "google", "generate_content"),
])
def test_what_is_listed_passes(document: Any, provider: str, operation: str) -> None:
    assert judge(LISTED, document, provider, operation) == ""


@pytest.mark.parametrize(("document", "provider", "operation", "reason"), [
    ({"tools": [{"type": "web_search"}, {"type": "code_interpreter"}]}, "openai", "responses",
     "the hosted tool code_interpreter at $.tools[1]"),
    ({"tools": [{"type": "Ann Smith"}]}, "openai", "responses", "the hosted tool other at $.tools[0]"),
    ({"tools": [{"type": ["web_search"]}]}, "openai", "responses", "the hosted tool other"),
    (mcp("https://mcp.evil.org"), "openai", "responses", "the MCP server at $.tools[0]"),
    (mcp("https://good.org"), "openai", "responses", "the MCP server"),
    (mcp("https://mcp.example.com@evil.org/"), "openai", "responses", "the MCP server"),
    (mcp("https://mcp.example.com.evil.org/"), "openai", "responses", "the MCP server"),
    ({"tools": [{"type": "mcp", "connector_id": "connector_dropbox"}]}, "openai", "responses", "the MCP server"),
    (picture("https://evil.org/a.example.com"), "openai", "chat", "the address at $.messages[0].content[0].image_url.url"),
    ({"mcp_servers": [{"type": "url", "url": "https://evil.org", "name": "m"}]}, "anthropic", "messages",
     "the MCP server at $.mcp_servers[0]"),
    ({"tools": [{"type": "code_execution_20250825", "name": "c"}]}, "anthropic", "messages",
     "the hosted tool code_execution_20250825"),
    ({"tools": [{"functionDeclarations": [], "codeExecution": {}}]}, "google", "generate_content",
     "the hosted tool code_execution"),
    ({"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}, "bedrock", "converse",
     "the hosted tool nova_grounding"),
    ({"message": "hi", "connectors": [{"id": "web-search"}]}, "cohere", "chat", "the hosted tool web-search"),
    ({"input": [{"type": "additional_tools", "tools": [{"type": "code_interpreter"}]}]}, "openai", "responses",
     "the hosted tool code_interpreter at $.input[0].tools[0]"),
    ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "code_interpreter"}]}]}, "openai", "responses",
     "the hosted tool code_interpreter"),
    ({"never_heard_of": {"tools": {"type": "code_interpreter"}}}, "openai", "responses", "the hosted tool code_interpreter"),
])
def test_what_is_not_listed_is_refused(document: Any, provider: str, operation: str, reason: str) -> None:
    said = judge(LISTED, document, provider, operation)
    assert reason in said
    assert "evil" not in said
    assert "Ann" not in said


def test_nothing_listed_allows_no_tool_but_functions() -> None:
    assert judge(AllowTools(), {"tools": [{"type": "web_search"}]}, "openai", "responses")
    assert judge(AllowTools(), mcp("https://mcp.example.com"), "openai", "responses")
    assert judge(AllowTools(), picture("https://x.org/a"))
    assert judge(AllowTools(), {"tools": [{"type": "function", "function": {"name": "f"}}]}) == ""


@pytest.mark.parametrize(("document", "provider", "operation", "where"), [
    ({"tools": [{"type": "function", "function": {"name": "get_x"}}, {"type": "function", "function": {"name": "drop"}}]},
     "openai", "chat", "$.tools[1]"),
    ({"functions": [{"name": "drop", "parameters": {}}]}, "openai", "chat", "$.functions[0]"),
    ({"tools": [{"type": "function", "name": "drop"}]}, "openai", "responses", "$.tools[0]"),
    ({"tools": [{"type": "custom", "custom": {"name": "drop"}}]}, "openai", "chat", "$.tools[0]"),
    ({"tools": [{"name": "drop", "input_schema": {}}]}, "anthropic", "messages", "$.tools[0]"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "anthropic", "messages", "$.tools[0]"),
    ({"tools": [{"functionDeclarations": [{"name": "get_a"}, {"name": "drop"}]}]}, "google", "generate_content",
     "$.tools[0].*[1]"),
    ({"toolConfig": {"tools": [{"toolSpec": {"name": "drop"}}]}}, "bedrock", "converse", "$.toolConfig.tools[0]"),
    ({"tools": [{"name": "drop", "parameter_definitions": {}}]}, "cohere", "chat", "$.tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": ["get_x"]}}]}, "openai", "chat", "$.tools[0]"),
    ({"tools": [{"type": "function", "name": "get_x", "function": {"name": "drop"}}]}, "openai", "chat", "$.tools[0]"),
])
def test_functions_by_name(document: Any, provider: str, operation: str, where: str) -> None:
    said = judge(AllowTools(functions=("get_*",)), document, provider, operation)
    assert said == f"the function at {where} is not allowed here"
    assert judge(AllowTools(functions=("get_*", "drop", "bash", "")), document, provider, operation) == ""
    assert judge(AllowTools(), document, provider, operation) == ""


def test_names_in_the_apps_own_data_are_no_tools() -> None:
    schema = {"type": "object", "properties": {"tools": {"type": "array"}, "functions": [{"name": "drop"}]}}
    document = {"tools": [{"type": "function", "function": {"name": "get_a", "parameters": schema}}],
                "metadata": {"tools": [{"type": "code_interpreter"}]}}
    assert judge(AllowTools(functions=("get_*",)), document) == ""


def test_a_body_that_is_not_read_is_refused() -> None:
    unread = house.call(operation="unknown", body=b"tools", document=None)
    verdict = house.run(LISTED.bind(SETTING).admit(unread))
    assert isinstance(verdict, Deny)
    assert verdict.code == "uninspectable"
    assert house.run(LISTED.bind(SETTING).admit(house.call(operation="unknown"))) is ALLOW


@pytest.mark.parametrize("glob", ["https://mcp.example.com", "example.com/path", "a b.org", ""])
def test_a_glob_that_could_match_no_host_is_refused(glob: str) -> None:
    for field in ("mcp", "urls"):
        with pytest.raises(ConfigError, match=f"{field}: .* is no host"):
            AllowTools(**{field: (glob,)}).bind(SETTING)


def test_in_a_policy_file(tmp_path: Path) -> None:
    text = 'version: 1\nchain:\n  - authenticate: {unknown: {allow-as: local}}\n  - allow_tools: {functions: %s}\n'
    people = "principals:\n  - {name: local, cidr: 127.0.0.0/8}\n"
    for given in ("any", "[get_*]"):
        (tmp_path / "a.yaml").write_text(text % given + people)
        assert [one.name for one in load(tmp_path, environ={}).chain.entries] == ["authenticate", "allow_tools"]
    (tmp_path / "a.yaml").write_text(text % "none" + people)
    with pytest.raises(ConfigError, match=r"a\.yaml:4: "):
        load(tmp_path, environ={})


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    return policy(provider, chain="""  - authenticate: {unknown: deny}
  - allow_tools: {hosted: [web_search]}
    when: call.model == "gpt-4o"
  - allow_tools: {hosted: [web_search]}
    when: call.model != "gpt-4o"
    mode: observe
  - swap_key: {missing: keep}""")


def test_the_sdk_raises_its_own_exception_and_observe_only_records(
        governed: None, gateway: Gateway, provider: LocalProvider) -> None:
    asked: Any = {"messages": [{"role": "user", "content": "hello"}], "tools": [{"type": "code_interpreter"}]}
    with openai.OpenAI() as client:
        with untouched(provider), pytest.raises(openai.PermissionDeniedError, match="tool code_interpreter") as caught:
            client.chat.completions.create(model="gpt-4o", **asked)
        assert caught.value.code == "content_blocked"
        answer = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", **asked)
    found = gateway.outcome(answer.headers["x-douane-id"])["findings"]
    assert {(one["policy"], one["type"]) for one in found} == {
        ("edge", "hosted_tool:code_interpreter"), ("allow_tools", "would_deny:content_blocked")}
