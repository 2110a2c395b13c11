"""Stored objects made with a shared credential: two tenants of one key through a real gateway, with a provider that keeps
objects and asks no questions; and the endpoints that nobody reaches."""

import contextlib
import itertools
import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from douane.demo.provider import LocalProvider, Reply, Seen
from douane.histories.sqlite import FILE, SqliteHistories
from douane.objects.base import Holder
from douane.objects.store import SqliteObjects
from douane.providers.objects import Spot, made, named, spot, tells
from douane.providers.offlimits import is_off_limits
from douane.providers.table import builtin
from tests import house
from tests.gateway import BOT_KEY, Gateway, Got, Wire, answering, policy, request, running_gateway, untouched
from tests.test_redact import KEY

CHAIN = "  - authenticate: {unknown: deny}\n  - swap_key: {missing: keep}"
MORE = """edge: {unknown_operations: allow}
"""


class Store:
    """A provider that keeps what is posted to its collections, by ids of its own, for whoever holds the key."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.kept: dict[str, dict[str, Any]] = {}

    def make(self, collection: str, **more: Any) -> dict[str, Any]:
        one = {"id": f"{collection.rpartition('/')[2].rstrip('s')}_{next(self.numbers)}", **more}
        self.kept[one["id"]] = {**one, "_in": collection}
        return one

    def __call__(self, seen: Seen) -> Any:
        steps = [step for step in seen.path.partition("?")[0].split("/")[2:] if step != "messages" or "threads" in seen.path]
        ctype = seen.header("content-type")
        document = json.loads(seen.body) if seen.body and "json" in ctype else {}
        collection = steps[0]
        if seen.method == "GET" and len(steps) == 1:
            data = [{k: v for k, v in one.items() if k != "_in"} for one in self.kept.values() if one["_in"] == collection]
            ends = {"first_id": data and data[0]["id"], "last_id": data and data[-1]["id"]}
            return answer({"object": "list", "data": data, **ends, "has_more": False})
        if seen.method == "POST" and steps == ["threads", "runs"]:
            thread = self.make("threads")
            return answer({"id": "run_1", "object": "thread.run", "thread_id": thread["id"]})
        if seen.method == "POST" and len(steps) == 1:
            more = {"output": [{"id": f"msg_{next(self.numbers)}", "type": "message"}]} if collection == "responses" else {}
            one = self.make(collection, **more)
            if document.get("stream"):
                event = {"type": "response.created", "response": one}
                last = {"type": "response.completed", "response": one}
                return Reply(headers=[("content-type", "text/event-stream")],
                             body=[f"data: {json.dumps(each)}\n\n".encode() for each in (event, last)])
            return answer(one)
        if collection == "batches" and seen.method == "GET":
            out = self.make("files")
            return answer({"id": steps[1], "status": "completed", "output_file_id": out["id"]})
        if steps[-1] == "content":
            return answer({"file_id": "file_of_another", "id": "x"})
        if seen.method == "DELETE":
            self.kept.pop(steps[1], None)
        return answer({"id": steps[1] if len(steps) > 1 else "", "deleted": seen.method == "DELETE"})


def answer(document: Any) -> Reply:
    return Reply(headers=[("content-type", "application/json")], body=json.dumps(document).encode())


@pytest.fixture(autouse=True, scope="module")
def store(provider: LocalProvider) -> Iterator[Store]:
    with answering(provider, one := Store()):
        yield one


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    text = policy(provider, chain=CHAIN, more=MORE)
    return text.replace("  openai: env:REAL_KEY\n", "  openai: env:REAL_KEY\n  anthropic: env:REAL_KEY\n")


def ask(gateway: Gateway, method: str, target: str, body: Any = None, *, bot: bool = False, host: str = "api.openai.com",
        kind: str = "application/json") -> Got:
    """As ``local``, or as ``bot``: two tenants."""
    headers = [("authorization", f"Bearer {BOT_KEY if bot else 'app-key'}")]
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if raw is not None:
        headers.append(("content-type", kind))
    with contextlib.closing(Wire.tls(gateway, host)) as wire:
        wire.send(request(raw if raw is not None or method == "GET" else b"", method=method, target=target, host=host,
                          headers=headers))
        return wire.answer(method)


def allowed(got: Got) -> Any:
    assert got.status == 200, got
    return got.json


def refused(got: Got) -> bytes:
    """The words, without the call's own id."""
    assert (got.status, got.code) == (403, "operation_not_allowed"), got
    return got.body.replace(got.id.encode(), b"")


FORM = "multipart/form-data; boundary=b"


def form(*parts: tuple[str, bytes]) -> bytes:
    return b"".join(b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + body + b"\r\n"
                    for head, body in parts) + b"--b--\r\n"


FILE_FORM = form(('name="purpose"', b"user_data"), ('name="file"; filename="a.txt"', b"text"))


def create(gateway: Gateway, path: str, *, bot: bool = False, host: str = "api.openai.com") -> str:
    """The new object's id."""
    if path == "/v1/files":
        got = ask(gateway, "POST", path, FILE_FORM, kind=FORM, host=host, bot=bot)
    else:
        got = ask(gateway, "POST", path, {"input": "x"}, host=host, bot=bot)
    return str(allowed(got)["id"])


KINDS = [("api.openai.com", f"/v1/{name}") for name in (
    "files", "batches", "responses", "conversations", "threads", "assistants", "vector_stores", "containers", "uploads",
    "videos")] + [("api.anthropic.com", "/v1/files"), ("api.anthropic.com", "/v1/messages/batches")]


@pytest.mark.parametrize(("host", "path"), KINDS)
def test_an_object_is_its_makers_alone(gateway: Gateway, provider: LocalProvider, host: str, path: str) -> None:
    mine = create(gateway, path, host=host)
    theirs = create(gateway, path, host=host, bot=True)
    one = f"{path}/{mine}"
    allowed(ask(gateway, "GET", one, host=host))
    spelled = [one, f"{path}//{mine}", f"{path}/./{mine}", f"{path}/x/../{mine}", one.replace("_", "%5F"),
               one.replace("_", "%255f"), path.replace("e", "%65") + f"/{mine}", path.upper() + f"/{mine}", f"{one}/content",
               f"{one}/cancel", f"{path}/{mine};x=1"]
    with untouched(provider):
        words = {refused(ask(gateway, "GET", each, host=host, bot=True)) for each in spelled}
        words.add(refused(ask(gateway, "DELETE", one, host=host, bot=True)))
        words.add(refused(ask(gateway, "POST", one, {}, host=host, bot=True)))
        words.add(refused(ask(gateway, "GET", f"{path}/forged_1", host=host, bot=True)))
        words.add(refused(ask(gateway, "GET", f"{path}?after={mine}", host=host, bot=True)))
    assert len(words) == 1, "nobody learns whether it is there"
    ids = {one["id"] for one in allowed(ask(gateway, "GET", path, host=host))["data"]}
    assert mine in ids
    assert theirs not in ids
    listed = allowed(ask(gateway, "GET", path, host=host, bot=True))
    assert {one["id"] for one in listed["data"]} >= {theirs}
    assert mine.encode() not in json.dumps(listed).encode()
    assert allowed(ask(gateway, "DELETE", one, host=host))["deleted"]
    refused(ask(gateway, "GET", one, host=host))


REFERENCES = [
    ("files", "/v1/batches", lambda one: {"input_file_id": one}),
    ("files", "/v1/responses", lambda one: {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": one}]}]}),
    ("files", "/v1/chat/completions", lambda one: {"messages": [{"role": "user", "content": [
        {"type": "file", "file": {"file_id": one}}]}]}),
    ("files", "/v1/vector_stores", lambda one: {"file_ids": [one]}),
    ("files", "/v1/fine_tuning/jobs", lambda one: {"training_file": one}),
    ("files", "/v1/responses", lambda one: {"tools": [
        {"type": "code_interpreter", "container": {"type": "auto", "file_ids": [one]}}]}),
    ("containers", "/v1/responses", lambda one: {"tools": [{"type": "code_interpreter", "container": one}]}),
    ("responses", "/v1/responses", lambda one: {"input": "x", "previous_response_id": one}),
    ("responses", "/v1/responses/compact", lambda one: {"input": "x", "previous_response_id": one}),
    ("conversations", "/v1/responses", lambda one: {"input": "x", "conversation": one}),
    ("conversations", "/v1/responses", lambda one: {"input": "x", "conversation": {"id": one}}),
    ("vector_stores", "/v1/responses", lambda one: {"tools": [{"type": "file_search", "vector_store_ids": [one]}]}),
    ("assistants", "/v1/threads/runs", lambda one: {"assistant_id": one}),
]


@pytest.mark.parametrize(("kind", "path", "body"), REFERENCES)
def test_an_object_named_in_a_body_is_its_makers_alone(gateway: Gateway, provider: LocalProvider, kind: str, path: str,
                                                      body: Any) -> None:
    mine = create(gateway, f"/v1/{kind}")
    allowed(ask(gateway, "POST", path, body(mine)))
    escaped = json.dumps(body(mine)).replace("_id", "_i\\u0064").encode()
    with untouched(provider):
        for written in (body(mine), escaped, body("forged_1")):
            refused(ask(gateway, "POST", path, written, bot=True))


def test_items_of_an_answer_are_its_makers(gateway: Gateway) -> None:
    made_one = allowed(ask(gateway, "POST", "/v1/responses", {"input": "x"}))["output"][0]["id"]
    for item in ({"type": "item_reference", "id": made_one}, {"id": made_one}):
        allowed(ask(gateway, "POST", "/v1/responses", {"input": [item]}))
        refused(ask(gateway, "POST", "/v1/responses", {"input": [item]}, bot=True))


def test_what_came_of_an_object_is_its_makers_too(gateway: Gateway) -> None:
    batch = allowed(ask(gateway, "POST", "/v1/batches", {"endpoint": "/v1/responses"}))["id"]
    out = allowed(ask(gateway, "GET", f"/v1/batches/{batch}"))["output_file_id"]
    allowed(ask(gateway, "GET", f"/v1/files/{out}/content"))
    refused(ask(gateway, "GET", f"/v1/files/{out}/content", bot=True))
    refused(ask(gateway, "GET", "/v1/files/file_of_another"))  # the content of a file, which its maker wrote, claims nothing
    thread = allowed(ask(gateway, "POST", "/v1/threads/runs", {"instructions": "x"}))["thread_id"]
    allowed(ask(gateway, "GET", f"/v1/threads/{thread}/messages"))
    refused(ask(gateway, "GET", f"/v1/threads/{thread}/messages", bot=True))


def test_a_stream_makes_an_object(gateway: Gateway) -> None:
    got = ask(gateway, "POST", "/v1/responses", {"input": "x", "stream": True})
    name = json.loads(got.body.split(b"\n")[0].removeprefix(b"data: "))["response"]["id"]
    allowed(ask(gateway, "GET", f"/v1/responses/{name}"))
    refused(ask(gateway, "GET", f"/v1/responses/{name}", bot=True))


def test_what_is_not_stored_is_nobodys(gateway: Gateway) -> None:
    name = allowed(ask(gateway, "POST", "/v1/responses", {"input": "x", "store": False}))["id"]
    refused(ask(gateway, "GET", f"/v1/responses/{name}"))


def test_the_lines_of_a_batch_name_objects(gateway: Gateway, provider: LocalProvider) -> None:
    mine = allowed(ask(gateway, "POST", "/v1/responses", {"input": "x"}))["id"]
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/responses",
                       "body": {"model": "gpt-4o", "input": "?", "previous_response_id": mine}}).encode()
    sent = form(('name="purpose"', b"batch"), ('name="file"; filename="b.jsonl"', b"{}\n" + line))
    allowed(ask(gateway, "POST", "/v1/files", sent, kind=FORM))
    with untouched(provider):
        refused(ask(gateway, "POST", "/v1/files", sent, kind=FORM, bot=True))
        refused(ask(gateway, "POST", "/v1/uploads", {"purpose": "batch", "filename": "b.jsonl"}))
        refused(ask(gateway, "POST", "/v1/containers", {"name": "c", "file_ids": ["file_1"]}, bot=True))
        refused(ask(gateway, "POST", "/v1/videos", form(('name="file_ids[]"', b"file_1")), kind=FORM, bot=True))
        refused(ask(gateway, "POST", "/v1/unheard_of", b'{"file_id": "file_1"', bot=True))  # JSON that we cannot read


def test_what_callers_fill_as_they_like_names_nothing(gateway: Gateway) -> None:
    free = {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"file_id": "x"}}]}],
            "metadata": {"thread_id": "mine"}, "tools": [{"input_schema": {"properties": {"file_id": {"type": "string"}}}}]}
    assert not list(named(free, google=False))
    allowed(ask(gateway, "POST", "/v1/responses", {"input": "file_id resp_1", "metadata": {"thread_id": "mine"}}))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_outlives_the_process(tmp_path: Path, provider: LocalProvider, policy_text: str, number: int) -> None:
    with running_gateway(tmp_path, policy_text) as gateway:
        name = create(gateway, "/v1/files")
        gateway.stop(number)
        gateway.start()
        allowed(ask(gateway, "GET", f"/v1/files/{name}"))
        refused(ask(gateway, "GET", f"/v1/files/{name}", bot=True))


def test_a_key_of_ones_own_has_an_account_of_its_own(tmp_path: Path, provider: LocalProvider) -> None:
    text = policy(provider, chain=CHAIN, more=MORE).replace("credentials:\n  openai: env:REAL_KEY\n", "")
    with running_gateway(tmp_path, text) as gateway:
        allowed(ask(gateway, "GET", "/v1/files/made_elsewhere"))
        refused(ask(gateway, "GET", "/v1/organization/users"))


def test_where_the_store_fails(tmp_path: Path, provider: LocalProvider, policy_text: str) -> None:
    """Reading fails: refused. Writing fails: the app has its answer, the record says so, and this
    process remembers."""
    with running_gateway(tmp_path, policy_text) as gateway:
        name = create(gateway, "/v1/files")
        with contextlib.closing(sqlite3.connect(gateway.data / FILE, isolation_level=None)) as other:
            other.execute("ALTER TABLE object RENAME TO away")
        got = ask(gateway, "GET", f"/v1/files/{name}")
        assert (got.status, got.code) == (503, "policy_error")
        made_now = ask(gateway, "POST", "/v1/files", FILE_FORM, kind=FORM)
        assert allowed(made_now)["id"]
        findings = gateway.outcome(made_now.id)["findings"]
        assert [one["type"] for one in findings if one["policy"] == "objects"] == ["settle_failed:HistoryUnavailableError"]
        with contextlib.closing(sqlite3.connect(gateway.data / FILE, isolation_level=None)) as other:
            other.execute("ALTER TABLE away RENAME TO object")
        allowed(ask(gateway, "GET", f"/v1/files/{allowed(made_now)['id']}"))  # what was owed
        allowed(ask(gateway, "GET", f"/v1/files/{name}"))


ADMIN = [("api.openai.com", path) for path in (
    "/v1/organization/users", "/v1/organization/admin_api_keys", "/v1/organizations", "/v1/projects", "/v1/projects/p/api_keys",
    "/v1/dashboard/billing/usage", "/v1/usage", "/dashboard/billing/credit_grants", "/v1/ORGANIZATION/users",
    "//v1//organization//users", "/v1/./organization/users", "/v1/x/../organization/users", "/v1/%6Frganization/users",
    "/v1/%256Frganization/users", "/v1%2Forganization/users", "/v1\\organization/users", "/v1/organization;a=b/users",
    "/v1/files/..%2forganization/users", "/v1/organization", "/v1/organization/")] + [
    ("api.anthropic.com", path) for path in (
        "/v1/organizations/me", "/v1/organizations/api_keys", "/v1/organizations/usage_report/messages", "/v1/usage_report",
        "/V1/Organizations/invites", "/v1/%6frganizations/workspaces")]


@pytest.mark.parametrize(("host", "path"), ADMIN)
def test_nobody_reaches_the_organisation(gateway: Gateway, provider: LocalProvider, host: str, path: str) -> None:
    with untouched(provider):
        got = ask(gateway, "GET", path, host=host)
        assert b"admin endpoints" in refused(got)
        refused(ask(gateway, "DELETE", path, host=host, bot=True))
    told = gateway.outcome(got.id)
    assert told["verdict"]["code"] == "operation_not_allowed"
    assert told["verdict"]["policy"] == "edge"


def test_what_is_off_limits_elsewhere_and_what_is_not() -> None:
    table = builtin()
    for name, path in (("google", "/v1beta/tunedModels/x/permissions"), ("google", "/v1beta/tunedModels/x:transferOwnership"),
                       ("azure", "/openai/deployments"), ("azure", "/subscriptions/1/resourceGroups/x"),
                       ("openai", "/a/%25%2525252525")):
        assert is_off_limits(table[name], path), path
    for name, path in (("openai", "/v1/files"), ("openai", "/v1/responses/resp_organization"),
                       ("vertex", "/v1/projects/p/locations/l"),
                       ("anthropic", "/v1/messages"), ("azure", "/openai/deployments/gpt-4o/chat/completions"),
                       ("google", "/v1beta/models/gemini-2.5-pro:generateContent")):
        assert not is_off_limits(table[name], path), path


@pytest.mark.parametrize(("path", "where"), [
    ("/v1/files/file-1/content", Spot("files", "files/file-1", ("content",))),
    ("/v1/messages/batches/msgbatch_1/results", Spot("batches", "batches/msgbatch_1", ("results",))),
    ("/openai/v1/responses/resp_1", Spot("responses", "responses/resp_1")),
    ("/v1/threads/runs", Spot("threads", "", ("runs",))),
    ("/v1/fine_tuning/jobs/ft", Spot("fine_tuning/jobs", "fine_tuning/jobs/ft")),
    ("/v1beta/files/abc:download", Spot("files", "files/abc")),
    ("/v1/projects/p/locations/l/cachedContents/7", Spot("cachedContents", "cachedContents/7")),
    ("/v1beta/models/veo/operations/op1", Spot("operations", "operations/op1")),
    ("/openai/deployments/files/chat/completions", Spot("chat/completions", "")),
    ("/v1/embeddings", None)])
def test_where_a_path_stands(path: str, where: Spot | None) -> None:
    assert spot(path) == where


@pytest.mark.parametrize(("method", "path", "document", "told"), [
    ("POST", "/v1/files", None, True), ("GET", "/v1/batches/batch_1", None, True),
    ("GET", "/v1/files/file-1/content", None, False),
    ("GET", "/v1/messages/batches/b/results", None, False), ("GET", "/v1/containers/c/files/f/content", None, False),
    ("POST", "/v1/chat/completions", {"store": True}, True), ("POST", "/v1/chat/completions", {}, False),
    ("POST", "/v1/messages", {"tools": [{"type": "code_execution_20250825"}]}, True), ("POST", "/v1/messages", {}, False),
    ("POST", "/v1beta/models/gemini-2.5-pro:batchGenerateContent", {}, True)])
def test_which_answers_are_believed(method: str, path: str, document: Any, told: bool) -> None:
    """What callers wrote themselves is not: it could name anybody's objects."""
    assert tells(method, path, spot(path), document) is told


def test_googles_names() -> None:
    body = {"cachedContent": "projects/p/locations/l/cachedContents/7", "contents": [{"parts": [
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        {"fileData": {"fileUri": "https://example.com/files/public.pdf"}},
        {"functionCall": {"args": {"name": "files/free"}}}]}]}
    assert set(named(body, google=True)) == {"cachedContents/7", "files/abc"}
    place = spot("/upload/v1beta/files")
    assert set(made("POST", place, {"file": {"name": "files/abc", "uri": ""}}, google=True, stored=True)) == {"files/abc"}


def test_a_tenant_is_bounded_and_nothing_readable_is_kept(tmp_path: Path) -> None:
    with contextlib.closing(SqliteHistories.open(tmp_path, KEY)) as file:
        objects = SqliteObjects(file, KEY, most=100)
        ann, bob = Holder("openai", "tenant-canary"), Holder("openai", "bob")

        async def work() -> None:
            await objects.add(bob, ["files/canary"], 0)
            for number in range(150):
                await objects.add(ann, [f"files/{number}"], number)
            assert await objects.missing(ann, ["files/0", "files/149", "files/canary"]) == 2
            assert await objects.missing(bob, ["files/canary"]) == 0, "others lose nothing by it"
            assert await objects.missing(Holder("azure", "bob"), ["files/canary"]) == 1
            held = await objects.all_of(ann)
            assert "files/149" in held
            assert "files/canary" not in held
            await objects.remove(ann, ["files/canary"])
            assert await objects.missing(bob, ["files/canary"]) == 0

        house.run(work())
    assert not any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_thread_has_its_values(tmp_path: Path, provider: LocalProvider, policy_text: str) -> None:
    """What was redacted in a message of a thread comes back when the thread is read, in another call."""
    heard: list[bytes] = []

    def script(seen: Seen) -> Any:
        if seen.method == "POST":
            heard.append(seen.body)
            said = json.loads(seen.body).get("content", "")
            return answer({"id": "thread_7" if said == "" else "msg_1", "object": "thread" if said == "" else "thread.message"})
        texts = [json.loads(body)["content"] for body in heard[1:]]
        return answer({"object": "list", "data": [{"id": "msg_1", "content": [{"type": "text", "text": {"value": one}}]}
                                                  for one in texts]})

    text = policy_text.replace("  - swap_key", "  - redact: {entities: [EMAIL_ADDRESS]}\n  - swap_key")
    with answering(provider, script), running_gateway(tmp_path, text) as gateway:
        thread = allowed(ask(gateway, "POST", "/v1/threads", {}))["id"]
        allowed(ask(gateway, "POST", f"/v1/threads/{thread}/messages", {"role": "user", "content": "I am ann@example.com."}))
        assert b"ann@example.com" not in heard[-1]
        got = allowed(ask(gateway, "GET", f"/v1/threads/{thread}/messages"))
    assert got["data"][0]["content"][0]["text"]["value"] == "I am ann@example.com."
