"""Which tools a request gives the model: those that the provider runs, those of MCP servers, and the app's own functions.

Law: a tool is the provider's unless its shape says that the app runs it; a new type of tool is a hosted tool. Formats:
https://platform.openai.com/docs/guides/tools, https://docs.claude.com/en/docs/agents-and-tools/tool-use/overview,
https://ai.google.dev/api/caching#Tool, https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Tool.html,
the recordings of ``shared/wire``.
"""

import re
from collections.abc import Iterator
from typing import Any

from douane.providers.base import Unseen
from douane.providers.edit import Path

__all__ = ["LISTS", "MAYBE_PAYLOADS", "MCP_TYPES", "PAYLOADS", "SERVERS", "declared", "hosted", "is_payload", "link_host"]

SERVERS = frozenset({"mcp_servers", "mcpServers"})
LISTS = SERVERS | {"tools", "enabled_tools", "web_search_options", "search_parameters", "data_sources", "dataSources",
                   "plugins", "connectors"}
"""Members that give tools: Anthropic's and Google's MCP servers; everybody's ``tools``; Groq's; OpenAI's and xAI's search in
chat; Azure's; OpenRouter's; Cohere's."""
MCP_TYPES = frozenset({"mcp", "mcp_server"})
PAYLOADS = frozenset({
    "arguments", "args", "parameters", "parametersJsonSchema", "parameters_json_schema", "parameter_definitions", "schema",
    "input_schema", "inputSchema", "output_schema", "json_schema", "responseSchema", "response_schema", "responseJsonSchema",
    "response_json_schema", "metadata", "labels", "headers", "logit_bias", "requestMetadata", "input_examples", "json"})
"""Members in which the app, or the model, says what it likes: nothing there is of the format."""
MAYBE_PAYLOADS = frozenset({"input", "response"})
"""Members that are such, or the conversation itself: :func:`is_payload` tells."""

_OWN_TYPES = re.compile(r"function|custom|namespace|local_shell|apply_patch|mcp_toolset|"
                        r"(?:computer|bash|text_editor|memory)_\d{8}")
"""Run by the app. Anthropic's computer, shell and editor are named tools that the app runs; OpenAI's computer use has no name
of its own and is told by its type, as hosted tools are."""
_OWN_MEMBERS = frozenset({"functionDeclarations", "function_declarations", "toolSpec", "cachePoint", "function", "name"})
_GOOGLES = frozenset({"google_search", "google_search_retrieval", "google_maps", "url_context", "code_execution", "file_search",
                      "computer_use", "retrieval", "enterprise_web_search", "system_tool"})
_DECLARING = frozenset({"tools", "functions", "functionDeclarations", "function_declarations"})
_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")
_LINK = re.compile(r"(?:https?|wss?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#].*)?", re.DOTALL)
_BUCKET = re.compile(r"(?:gs|s3)://[A-Za-z0-9._-]+(?=/|\Z)")


def link_host(link: str) -> str:
    """The host of an address, in lower case; ``gs://BUCKET`` or ``s3://BUCKET``. Empty where it is not plain whose it is (a
    user name, a backslash): two readers may then find two hosts."""
    if (bucket := _BUCKET.match(link)) is not None:
        return bucket[0]
    match = _LINK.fullmatch(link)
    return "" if match is None else match["host"].lower().removesuffix(".")


def is_payload(member: str, parent: dict[str, Any]) -> bool:
    """Whether what stands under *member* of *parent* is the app's own data."""
    if member in PAYLOADS:
        return True
    if member == "input":
        return "toolUseId" in parent or parent.get("type") in ("tool_use", "server_tool_use", "mcp_tool_use")
    return member == "response" and "name" in parent


def hosted(path: Path, value: Any) -> Iterator[Unseen]:
    """The hosted tools and MCP servers in *value*, which stands at *path*, under one of :data:`LISTS`."""
    member = path[-1]
    if member == "web_search_options":
        yield Unseen(path, "hosted_tool", "web_search")
    elif member == "search_parameters":
        yield Unseen(path, "hosted_tool", "live_search")
    else:
        for at, one in enumerate(value) if isinstance(value, list) else ((None, value),):
            yield from _hosted(path if at is None else (*path, at), str(member), one)


def _hosted(path: Path, member: str, tool: Any) -> Iterator[Unseen]:
    if not isinstance(tool, dict):
        yield Unseen(path, "hosted_tool", tool if isinstance(tool, str) else "")
        return
    kind = tool.get("type", tool.get("id") if member in ("plugins", "connectors") else None)
    if member in SERVERS or (isinstance(kind, str) and kind in MCP_TYPES):
        yield Unseen(path, "mcp", _server(tool))
    elif member != "tools":
        yield Unseen(path, "hosted_tool", kind if isinstance(kind, str) else "")
    else:
        yield from _of_members(path, tool, named=kind is not None or not _OWN_MEMBERS.isdisjoint(tool))
        if kind is not None and not (isinstance(kind, str) and _OWN_TYPES.fullmatch(kind)):
            yield Unseen(path, "hosted_tool", kind if isinstance(kind, str) else "")


def _of_members(path: Path, tool: dict[str, Any], *, named: bool) -> Iterator[Unseen]:
    """Google's and Amazon's tools are members: ``{"googleSearch": {}}``."""
    for key, value in tool.items():
        name = _HUMP.sub(r"_\1", key).lower()
        if key in SERVERS or key in LISTS:
            continue  # the walk comes to it
        if name in _GOOGLES or not (named or key in _OWN_MEMBERS):
            inner = value.get("name") if name == "system_tool" and isinstance(value, dict) else None
            yield Unseen((*path, key), "hosted_tool", inner if isinstance(inner, str) else name)


def _server(tool: dict[str, Any]) -> str:
    """The host of an MCP server, or the name of a connector that the provider keeps."""
    connector = tool.get("connector_id")
    link = tool.get("server_url", tool.get("url"))
    for transport in ("streamableHttpTransport", "streamable_http_transport"):
        inner = tool.get(transport)
        if link is None and isinstance(inner, dict):
            link = inner.get("url")
    if isinstance(link, str):
        return "" if connector else link_host(link)
    return connector if isinstance(connector, str) else ""


def declared(document: Any) -> Iterator[tuple[Path, str]]:
    """(path, name) of each function that the app declares, wherever tools may stand; a name that is no text is empty."""
    tasks: list[tuple[Path, Any]] = [((), document)]
    while tasks:
        path, value = tasks.pop()
        if isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, (dict, list)) and not is_payload(key, value):
                    below = (*path, key)
                    if key in _DECLARING and isinstance(item, list):
                        yield from ((where, name) for at, one in enumerate(item) for where, name in _named((*below, at), one))
                    tasks.append((below, item))
        elif isinstance(value, list):
            tasks.extend(((*path, at), one) for at, one in enumerate(value) if isinstance(one, (dict, list)))


def _named(path: Path, tool: Any) -> Iterator[tuple[Path, str]]:
    if not isinstance(tool, dict):
        return
    kind = tool.get("type")
    if isinstance(kind, str) and kind != "object" and not _OWN_TYPES.fullmatch(kind):
        return
    for holder in (tool, *(tool.get(name) for name in ("function", "custom", "toolSpec"))):
        if isinstance(holder, dict) and "name" in holder:
            yield path, holder["name"] if isinstance(holder["name"], str) else ""
