"""How a place in a body is told: in findings and in reasons.

Law: indexes and names that the formats themselves have; a name that somebody made up may be a value, and is ``*``.
"""

from douane.providers.edit import Path

__all__ = ["PLACES", "shown"]

PLACES = 20
"""Places that one finding names."""
_KNOWN = frozenset({
    "arguments", "audio", "bytes", "content", "contents", "context", "data", "data_sources", "description", "developer",
    "document", "documents", "encrypted_content", "file", "fileData", "fileUri", "file_data", "file_id", "file_url",
    "function", "function_call", "functions", "image", "image_url", "images", "inlineData", "inline_data", "input",
    "input_audio", "input_schema", "instructions", "json_schema", "mcp_servers", "messages", "metadata", "name", "output",
    "output_config", "output_format", "parameters", "parts", "prediction", "prompt", "refusal", "response_format",
    "s3Location", "schema", "signature", "source", "stop", "stop_sequences", "summary", "system", "text", "thinking",
    "thoughtSignature", "title", "toolConfig", "tool_calls", "tool_choice", "tools", "uri", "url", "user", "user_id",
    "variables", "video", "web_search_options",
})


def shown(path: Path, *, key: bool = False) -> str:
    """``$.messages[0].content``. *key*: the name of the member is meant, which ends the path."""
    steps = path[:-1] if key else path
    told = ["$", *(f"[{one}]" if isinstance(one, int) else f".{one if one in _KNOWN else '*'}" for one in steps)]
    return "".join([*told, ".*~"] if key else told)
