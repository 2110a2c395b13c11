"""``audit show``: a call as a conversation, and nobody's text commands the terminal."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from douane.audit import show
from douane.audit.conversation import Turn, conversation

CHAT = {
    "model": "gpt-4o", "tools": [{"type": "function", "function": {"name": "mail", "description": "Sends mail."}}],
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "To <EMAIL_ADDRESS_k3v7q2ma>."},
                                     {"type": "text", "text": "Now."}]},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function",
                                              "function": {"name": "mail", "arguments": '{"to":"x"}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "sent"}]}
ANSWER = {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o",
          "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Done."}}]}


def kept(document: Any, **more: Any) -> dict[str, Any]:
    text = document if isinstance(document, str) else json.dumps(document)
    return {"text": text, "bytes": len(text.encode()), **more}


def records(request: Any, response: Any = None, **more: Any) -> list[dict[str, Any]]:
    common = {"id": "0190", "provider": "openai", "operation": "chat", **more}
    return [{"kind": "intent", **common, "request": request},
            {"kind": "outcome", **common, "request": None, "response": response, "status": 200, "verdict": {"action": "allow"},
             "findings": [{"policy": "redact", "type": "EMAIL_ADDRESS", "count": 1,
                           "where": ["$.messages[1].content[0].text"]}]}]


def printed(found: list[dict[str, Any]], *, colours: bool = False) -> str:
    out = io.StringIO()
    show.exchange(found, Console(file=out, width=60, force_terminal=colours, highlight=False, emoji=False, markup=False))
    return out.getvalue()


def test_who_said_what_in_which_order() -> None:
    assert conversation(records(kept(CHAT), kept(ANSWER))) == [
        Turn("system", "Be kind."), Turn("user", "To <EMAIL_ADDRESS_k3v7q2ma>.\nNow."), Turn("tool_call", 'mail\n{"to":"x"}'),
        Turn("tool_result", "sent"), Turn("schema", "mail\nSends mail."), Turn("assistant", "Done.")]


def test_another_name_for_a_provider_of_the_shape() -> None:
    turns = conversation(records(kept(CHAT), provider="vllm"))
    assert turns[0] == Turn("system", "Be kind.")


@pytest.mark.parametrize(("body", "turn"), [
    (kept('{"cut": "of'), Turn("request", '{"cut": "of')),
    (kept("[]"), Turn("request", "[]")),
    ({**kept("abc"), "bytes": 900_000, "cut": True, "sha256": "0"}, Turn("request", "abc", "cut: the first 3 of 900000 bytes")),
    ({"bytes": 12, "left_out": "binary", "sha256": "0"}, Turn("request", "", "left out (binary), 12 bytes")),
])
def test_what_is_no_conversation_is_shown_as_it_is(body: dict[str, Any], turn: Turn) -> None:
    assert conversation(records(body)) == [turn]


def test_what_is_printed() -> None:
    text = printed(records(kept(CHAT, found={"US_SSN": 2}), kept(ANSWER)))
    lines = text.splitlines()
    assert lines[0] == "outcome 0190"
    assert "  findings            redact: EMAIL_ADDRESS ×1 at $.messages[1].content[0].text" in lines
    assert "  log_request         the log itself replaced US_SSN ×2" in lines
    start = lines.index("user")
    assert lines[start:start + 3] == ["user", "  │ To <EMAIL_ADDRESS_k3v7q2ma>.", "  │ Now."]
    assert lines[-2:] == ["assistant", "  │ Done."]
    assert "request" not in [line.split()[0] for line in lines if line], "bodies are no fields"


def test_findings_are_marked_on_a_terminal() -> None:
    assert "\x1b[1;30;43m<EMAIL_ADDRESS_k3v7q2ma>\x1b[0m" in printed(records(kept(CHAT)), colours=True)


def test_a_text_commands_no_terminal_and_forges_no_turn() -> None:
    forged = "x\x1b[2J\r\n\nassistant\n  │ I did it\u202e"
    text = printed(records(kept({"messages": [{"role": "user", "content": forged}]})))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "assistant" not in text.splitlines(), "a text's line is behind its bar"


def test_a_call_without_bodies_says_so() -> None:
    assert "no bodies are kept" in printed(records(None))
