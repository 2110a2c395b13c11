"""Batches through a real gateway, by the official SDKs: values leave as placeholders, and come back with the answers, whenever
and in whatever file these are fetched."""

import contextlib
import io
import itertools
import json
import ssl
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from douane.demo.provider import LocalProvider, Reply, Seen
from tests.gateway import BOT_KEY, Gateway, answering, policy

MAIL, OTHER = "ada.lovelace@example.com", "grace@example.com"
CHAIN = """  - authenticate: {unknown: deny}
  - redact: {entities: [EMAIL_ADDRESS]}
  - swap_key: {missing: keep}"""


class Batches:
    """A provider of both languages: it answers each line of a batch with its text, once it is asked for."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.claude: dict[str, Any] = {}

    def __call__(self, seen: Seen) -> Reply:
        steps = seen.path.strip("/").split("/")[1:]
        if steps[0] == "messages":
            return self.messages(seen, steps[2:])
        if steps[0] == "files" and seen.method == "POST":
            content = next(part for part in seen.body.split(b"\r\n\r\n") if part.startswith(b"{")).partition(b"\r\n--")[0]
            return said({"id": self.keep(content), "object": "file", "purpose": "batch", "filename": "a.jsonl", "bytes": 1,
                         "created_at": 1, "status": "processed"})
        if steps[0] == "files":
            return Reply(headers=[("content-type", "application/octet-stream")], body=self.files[steps[1]])
        if seen.method == "POST":
            asked = json.loads(seen.body)
            batch = {"id": f"batch_{next(self.numbers)}", "object": "batch", "endpoint": asked["endpoint"], "created_at": 1,
                     "completion_window": "24h", "input_file_id": asked["input_file_id"], "status": "validating"}
            self.batches[batch["id"]] = batch
            return said(batch)
        batch = self.batches[steps[1]]
        if "output_file_id" not in batch:
            lines = [self.line(json.loads(line)) for line in self.files[batch["input_file_id"]].splitlines()]
            batch |= {"status": "completed", "output_file_id": self.keep(b"".join(lines))}
        return said(batch)

    def keep(self, content: bytes) -> str:
        name = f"file-{next(self.numbers)}"
        self.files[name] = content
        return name

    @staticmethod
    def line(asked: dict[str, Any]) -> bytes:
        text = asked["body"]["messages"][0]["content"]
        tool = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": text})}}
        message = {"role": "assistant", "content": text, "tool_calls": [tool]}
        body = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
        return json.dumps({"custom_id": asked["custom_id"], "response": {"status_code": 200, "body": body}}).encode() + b"\n"

    def messages(self, seen: Seen, steps: list[str]) -> Reply:
        if seen.method == "POST":
            name = f"msgbatch_{next(self.numbers)}"
            self.claude[name] = json.loads(seen.body)["requests"]
        else:
            name = steps[0]
        if steps[1:] == ["results"]:
            lines = [{"custom_id": one["custom_id"], "result": {"type": "succeeded", "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn",
                "content": [{"type": "text", "text": one["params"]["messages"][0]["content"]}],
                "usage": {"input_tokens": 1, "output_tokens": 1}}}} for one in self.claude[name]]
            return Reply(headers=[("content-type", "application/x-jsonl")],
                         body="".join(json.dumps(line) + "\n" for line in lines).encode())
        counts = {"processing": 0, "succeeded": 2, "errored": 0, "canceled": 0, "expired": 0}
        return said({"id": name, "type": "message_batch", "processing_status": "ended", "request_counts": counts,
                     "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z", "ended_at": None,
                     "archived_at": None, "cancel_initiated_at": None,
                     "results_url": f"https://api.anthropic.com/v1/messages/batches/{name}/results"})


def said(document: dict[str, Any]) -> Reply:
    return Reply(headers=[("content-type", "application/json")], body=json.dumps(document).encode())


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    return policy(provider, chain=CHAIN).replace("credentials:\n  openai: env:REAL_KEY\n", "")


@pytest.fixture(autouse=True, scope="module")
def batches(provider: LocalProvider) -> Iterator[Batches]:
    with answering(provider, one := Batches()):
        yield one


@contextlib.contextmanager
def sdk(gateway: Gateway, kind: Any, module: Any, key: str = "") -> Iterator[Any]:
    context = ssl.create_default_context(cafile=str(gateway.ca))
    proxy = gateway.url.replace("//", f"//bot:{key}@") if key else gateway.url
    http = module.DefaultHttpxClient(proxy=proxy, verify=context, trust_env=False)
    with kind(api_key="app-key", max_retries=0, http_client=http) as one:
        yield one


def lines_of(*mails: str) -> io.BytesIO:
    bodies = [{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"write to {mail}"}]} for mail in mails]
    rows = [{"custom_id": str(at), "method": "POST", "url": "/v1/chat/completions", "body": body}
            for at, body in enumerate(bodies)]
    return io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())


def test_a_batch_of_openais_comes_back_with_its_values(gateway: Gateway, batches: Batches) -> None:
    with sdk(gateway, openai.OpenAI, openai) as client, sdk(gateway, openai.OpenAI, openai, BOT_KEY) as other:
        file = client.files.create(file=("a.jsonl", lines_of(MAIL, OTHER)), purpose="batch")
        assert MAIL.encode() not in batches.files[file.id]
        assert b"<EMAIL_ADDRESS_" in batches.files[file.id]
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        done = client.batches.retrieve(batch.id)
        assert done.output_file_id is not None
        texts = [json.loads(line)["response"]["body"]["choices"][0]["message"]
                 for line in client.files.content(done.output_file_id).text.splitlines()]
        assert [one["content"] for one in texts] == [f"write to {MAIL}", f"write to {OTHER}"]
        assert json.loads(texts[0]["tool_calls"][0]["function"]["arguments"]) == {"to": f"write to {MAIL}"}
        assert MAIL in client.files.content(file.id).text, "and what was sent"
        rows = (gateway.data / "histories.sqlite-wal").stat().st_size
        for _ in range(5):
            client.batches.retrieve(batch.id)
        assert (gateway.data / "histories.sqlite-wal").stat().st_size == rows, "what is kept is not kept again"
        assert MAIL not in other.files.content(done.output_file_id).text, "another tenant's values are not its own"


def test_a_batch_of_anthropics_comes_back_with_its_values(gateway: Gateway, batches: Batches) -> None:
    with sdk(gateway, anthropic.Anthropic, anthropic) as client, sdk(gateway, anthropic.Anthropic, anthropic, BOT_KEY) as other:
        asked: Any = [{"custom_id": str(at), "params": {"model": "claude-sonnet-4-5", "max_tokens": 9,
                       "messages": [{"role": "user", "content": f"write to {mail}"}]}} for at, mail in enumerate((MAIL, OTHER))]
        batch = client.messages.batches.create(requests=asked)
        assert MAIL not in json.dumps(batches.claude[batch.id])
        found = {one.custom_id: one.result.message.content[0].text for one in client.messages.batches.results(batch.id)}
        assert found == {"0": f"write to {MAIL}", "1": f"write to {OTHER}"}
        theirs = [one.result.message.content[0].text for one in other.messages.batches.results(batch.id)]
        assert MAIL not in "".join(theirs)


def test_a_file_that_is_no_lines_passes_as_it_is(gateway: Gateway, batches: Batches) -> None:
    """Bytes of anything, asked for by a name under which values are kept."""
    with sdk(gateway, openai.OpenAI, openai) as client:
        file = client.files.create(file=("a.jsonl", lines_of(MAIL)), purpose="batch")
        for content in (b"\x00\xff<EMAIL_ADDRESS_\n\n{", b"", b"{}\r\n\r\n[1]", bytes(range(256)) * 999):
            batches.files[file.id] = content
            assert client.files.content(file.id).content == content
