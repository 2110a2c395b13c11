"""Bedrock through a real gateway with boto3: signed anew, by a bearer key, refused, restored, over budget."""

import contextlib
import hashlib
import hmac
import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import anthropic
import boto3  # type: ignore[import-untyped]
import httpx2
import openai
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError, EventStreamError  # type: ignore[import-untyped]

from douane.demo.provider import LocalProvider, Reply, Seen, running_provider
from douane.errors import ConfigError
from douane.loader import Loaded
from douane.loader import load as load_folder
from douane.providers.framing import aws_message
from tests.gateway import BOT_KEY, Gateway, answering, running_gateway, untouched
from tests.test_bedrock import encoded, kind

ACCESS, SECRET, TOKEN = "AKIA" + "REALREALREALREAL", "real/" + "secret+0123456789abcdefghij", "real-session-" + "token=="
BEARER = "ABSK" + "cmVhbC1rZXk="
APP = {"aws_access_key_id": "AKIA" + "APPAPPAPPAPPAPPA", "aws_secret_access_key": "app-" + "secret",
       "aws_session_token": "app-token"}
MAIL = "ann@example.com"
NOVA, CLAUDE = "us.amazon.nova-lite-v1:0", "anthropic.claude-3-haiku-20240307-v1:0"
KEYS = "{access_key: env:AK, secret_key: env:SK, session_token: env:ST}"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No keys, files or proxies of this machine; the clients are closed."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    while CLIENTS:
        CLIENTS.pop().close()


def policies(provider: LocalProvider, *, credential: str, chain: str = "", missing: str = "deny", more: str = "") -> str:
    where = f'{{upstream: "{provider.url}", ca: "{provider.ca}"}}'
    return f"""version: 1
principals:
  - {{name: local, team: dev, cidr: [127.0.0.0/8]}}
  - {{name: bot, team: bots, key: env:BOT_KEY}}
providers: {{bedrock: {where}, sagemaker: {where}}}
{f"credentials: {{bedrock: {credential}, sagemaker: {credential}}}" if credential else ""}
audit: {{level: metadata}}
{more}
chain:
  - authenticate: {{unknown: deny}}
  - allow_models: {{models: ["*nova*", "*anthropic.*"]}}
    when: call.model != ""
{chain}
  - swap_key: {{missing: {missing}}}
"""


CLIENTS: list[Any] = []
ENV = {"AK": ACCESS, "SK": SECRET, "ST": TOKEN, "BK": BEARER}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProvider]:
    with running_provider(tmp_path_factory.mktemp("provider"), script=script) as one:
        yield one


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    text = policies(provider, credential=KEYS, chain="  - redact: {entities: [EMAIL_ADDRESS]}")
    with running_gateway(tmp_path_factory.mktemp("signing"), text, env=ENV) as one:
        yield one


@pytest.fixture(scope="module")
def bearing(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    budget = "  - budget: {per: principal, limit: 0.01 USD/day, unbounded: assume 100}"
    prices = f"prices: {{'{CLAUDE}': {{input: 0, output: 90}}, '*': 0}}"
    text = policies(provider, credential="env:BK", chain=budget, more=prices)
    with running_gateway(tmp_path_factory.mktemp("bearing"), text, env=ENV) as one:
        yield one


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory, provider: LocalProvider) -> Iterator[Gateway]:
    text = policies(provider, credential="", missing="keep", chain="  - redact: {entities: [EMAIL_ADDRESS]}")
    with running_gateway(tmp_path_factory.mktemp("keeping"), text, env=ENV) as one:
        yield one


def client(gateway: Gateway, service: str = "bedrock-runtime", *, key: str = "", region: str = "eu-west-1", **keys: str) -> Any:
    address = "{}:{}".format(*gateway.proxy)
    proxy = f"http://bot:{key}@{address}" if key else f"http://{address}"
    session = boto3.Session(region_name=region, **(keys or APP))
    CLIENTS.append(session.client(service, config=Config(proxies={"https": proxy}), verify=str(gateway.ca)))
    return CLIENTS[-1]


def said(seen: Seen) -> str:
    """The last text of a request: the placeholder, where it was redacted."""
    found = re.findall(r"<EMAIL_ADDRESS_\w+>|" + re.escape(MAIL), seen.body.decode())
    return found[-1] if found else "nothing"


def chunk(document: Any, name: str = "") -> bytes:
    return encoded({":event-type": name or "chunk", ":content-type": "application/json", ":message-type": "event"}, document,
                   not name, "converse")


def script(seen: Seen) -> Reply:
    """Plays the model: it says what it was told, in two pieces, and calls a tool with it."""
    mail = said(seen)
    usage = {"inputTokens": 10, "outputTokens": 4, "totalTokens": 14}
    if seen.path.endswith("/converse"):
        content = [{"text": f"to {mail}"}, {"toolUse": {"toolUseId": "t", "name": "send", "input": {"to": mail}}}]
        return Reply(headers=JSON, body=json.dumps({
            "output": {"message": {"role": "assistant", "content": content}}, "stopReason": "tool_use", "usage": usage,
            "metrics": {"latencyMs": 1}}).encode())
    if seen.path.endswith("/converse-stream"):
        tool = {"toolUse": {"toolUseId": "t", "name": "send"}}
        pieces = [chunk({"role": "assistant"}, "messageStart"),
                  *(chunk({"contentBlockIndex": 0, "delta": {"text": one}}, "contentBlockDelta")
                    for one in halves(f"to {mail}")),
                  chunk({"contentBlockIndex": 0}, "contentBlockStop"),
                  chunk({"contentBlockIndex": 1, "start": tool}, "contentBlockStart"),
                  *(chunk({"contentBlockIndex": 1, "delta": {"toolUse": {"input": one}}}, "contentBlockDelta")
                    for one in halves(json.dumps({"to": mail}))),
                  chunk({"contentBlockIndex": 1}, "contentBlockStop"), chunk({"stopReason": "tool_use"}, "messageStop"),
                  chunk({"usage": usage, "metrics": {"latencyMs": 1}}, "metadata")]
        return Reply(headers=EVENTS, body=pieces)
    if seen.path.endswith("/invoke"):
        return Reply(headers=[*JSON, ("x-amzn-Bedrock-Input-Token-Count", "10"), ("x-amzn-Bedrock-Output-Token-Count", "4")],
                     body=json.dumps({"generation": f"to {mail}"}).encode())
    if seen.path.endswith("/invoke-with-response-stream"):
        pieces = [chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": one}})
                  for one in halves(f"to {mail}")]
        return Reply(headers=EVENTS, body=[*pieces, chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": {
            "inputTokenCount": 10, "outputTokenCount": 4}})])
    if seen.path.endswith("/retrieve"):
        return Reply(headers=JSON, body=b'{"retrievalResults": []}')
    return Reply(headers=JSON, body=b'[{"generated_text": "to %b"}]' % mail.encode())


JSON = [("content-type", "application/json")]
EVENTS = [("content-type", "application/vnd.amazon.eventstream")]


def halves(text: str) -> tuple[str, str]:
    return text[:len(text) // 2], text[len(text) // 2:]


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": [{"text": text}]}]


# -- signatures --------------------------------------------------------------------------------------------------------


def signature(seen: Seen, secret: str) -> tuple[str, str, str]:
    """(access key, scope without its date, ``right`` or ``wrong``) of the signature that arrived, reckoned from AWS's
    description alone: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html."""
    match = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^,]+), SignedHeaders=([^,]+), "
                         r"Signature=([0-9a-f]{64})", seen.header("authorization"))
    assert match is not None, seen.head
    access, day, scope, names, given = match.groups()
    parts = urlsplit(seen.target)
    values: dict[str, list[str]] = {}
    for name, value in seen.headers:
        values.setdefault(name.decode().lower(), []).append(" ".join(value.decode("latin-1").split()))
    canonical = "\n".join([
        seen.method, quote(parts.path, safe="/-_.~"), "&".join(sorted(parts.query.split("&"))),
        *(f"{name}:{','.join(values[name])}" for name in names.split(";")), "", names, hashlib.sha256(seen.body).hexdigest()])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", seen.header("x-amz-date"), f"{day}/{scope}",
                         hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret.encode()
    for step in (day, *scope.split("/"), to_sign):
        key = hmac.digest(key, step.encode(), "sha256")
    assert {"host", *(name for name in values if name.startswith("x-amz-"))} <= set(names.split(";"))
    return access, scope, "right" if hmac.compare_digest(key.hex(), given) else "wrong"


def test_converse_is_signed_anew_after_redaction(signing: Gateway, provider: LocalProvider) -> None:
    got = client(signing).converse(modelId=NOVA, messages=ask(f"write to {MAIL}"))
    seen = provider.seen[-1]
    assert MAIL.encode() not in seen.body
    assert seen.path == f"/model/{quote(NOVA, safe='')}/converse"
    assert signature(seen, SECRET) == (ACCESS, "eu-west-1/bedrock/aws4_request", "right")
    assert seen.header("x-amz-security-token") == TOKEN
    assert sum(name.lower() == b"authorization" for name, _ in seen.headers) == 1
    for ours in APP.values():
        assert ours.encode() not in seen.head
    text, tool = got["output"]["message"]["content"]
    assert text["text"] == f"to {MAIL}"
    assert tool["toolUse"]["input"] == {"to": MAIL}
    outcome = signing.last_outcome()
    assert (outcome["provider"], outcome["operation"], outcome["model"]) == ("bedrock", "converse", NOVA)
    assert (outcome["usage"]["input"], outcome["usage"]["output"]) == (10, 4)
    assert not re.search("|".join(map(re.escape, (SECRET, TOKEN, *APP.values()))),
                         signing.log() + json.dumps(signing.records()))


def test_streams_are_restored(signing: Gateway, provider: LocalProvider) -> None:
    found = client(signing).converse_stream(modelId=NOVA, messages=ask(f"write to {MAIL}"))
    texts = {0: "", 1: ""}
    for event in found["stream"]:
        delta = event.get("contentBlockDelta", {}).get("delta", {})
        index = event.get("contentBlockDelta", {}).get("contentBlockIndex", 0)
        texts[index] += delta.get("text", "") + delta.get("toolUse", {}).get("input", "")
    assert texts == {0: f"to {MAIL}", 1: json.dumps({"to": MAIL})}
    assert signature(provider.seen[-1], SECRET)[2] == "right"
    outcome = signing.last_outcome()
    assert (outcome["stream"], outcome["usage"]["output"], outcome["estimated"]) == (True, 4, False)


def test_invoke_and_its_stream(signing: Gateway, provider: LocalProvider) -> None:
    body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9,
                       "messages": [{"role": "user", "content": f"write to {MAIL}"}]})
    runtime = client(signing)
    got = runtime.invoke_model(modelId=f"arn:aws:bedrock:eu-west-1:1:inference-profile/{CLAUDE}", body=body)
    assert json.loads(got["body"].read()) == {"generation": f"to {MAIL}"}
    assert signature(provider.seen[-1], SECRET)[2] == "right"
    assert signing.last_outcome()["usage"]["input"] == 10
    stream = runtime.invoke_model_with_response_stream(modelId=CLAUDE, body=body)
    documents = [json.loads(event["chunk"]["bytes"]) for event in stream["body"]]
    assert "".join(one["delta"]["text"] for one in documents if "delta" in one) == f"to {MAIL}"
    assert signature(provider.seen[-1], SECRET)[2] == "right"
    assert signing.last_outcome()["usage"]["input"] == 10


def test_agents_runtime_and_sagemaker_have_scopes_of_their_own(signing: Gateway, provider: LocalProvider) -> None:
    client(signing, "bedrock-agent-runtime", region="us-west-2").retrieve(
        knowledgeBaseId="KB12345678", retrievalQuery={"text": f"of {MAIL}"})
    assert MAIL.encode() not in provider.seen[-1].body
    assert signature(provider.seen[-1], SECRET)[1:] == ("us-west-2/bedrock/aws4_request", "right")
    got = client(signing, "sagemaker-runtime").invoke_endpoint(
        EndpointName="nova", ContentType="application/json", Body=json.dumps({"inputs": f"of {MAIL}"}))
    assert json.loads(got["Body"].read()) == [{"generated_text": f"to {MAIL}"}]
    assert signature(provider.seen[-1], SECRET)[1:] == ("eu-west-1/sagemaker/aws4_request", "right")


def test_who_is_denied_raises_aws_s_exception_after_one_attempt(signing: Gateway, provider: LocalProvider) -> None:
    runtime = client(signing)
    before = len(signing.records())
    with untouched(provider), pytest.raises(runtime.exceptions.AccessDeniedException) as caught:
        runtime.converse(modelId="meta.llama3-8b-instruct-v1:0", messages=ask("hi"))
    response = caught.value.response
    assert response["ResponseMetadata"]["RetryAttempts"] == 0
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-douane-code"] == "model_not_allowed"
    assert "not" in response["Error"]["Message"]
    assert len(signing.records()) == before + 1
    with untouched(provider), pytest.raises(ClientError) as caught:
        runtime.list_async_invokes()
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def test_a_failure_in_a_stream_is_an_event_stream_error(signing: Gateway, provider: LocalProvider) -> None:
    def broken(seen: Seen) -> Reply:
        good = chunk({"contentBlockIndex": 0, "delta": {"text": "so far"}}, "contentBlockDelta")
        return Reply(headers=EVENTS, body=[good, 0.05, aws_message(kind("x"), b"{}")[:-1] + b"?"])

    with answering(provider, broken):
        stream = client(signing).converse_stream(modelId=NOVA, messages=ask(f"to {MAIL}"))["stream"]
        got: list[Any] = []
        events = iter(stream)
        with contextlib.closing(stream):
            got.append(next(events))
            with pytest.raises(EventStreamError) as caught:
                next(events)
    assert [one["contentBlockDelta"]["delta"]["text"] for one in got] == ["so far"]
    assert caught.value.response["Error"]["Code"]


# -- a bearer key ------------------------------------------------------------------------------------------------------


def test_a_bearer_key_goes_upstream_and_the_principal_s_does_not(
        bearing: Gateway, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    client(bearing, key=BOT_KEY).converse(modelId=NOVA, messages=ask("hi"))
    seen = provider.seen[-1]
    assert seen.header("authorization") == f"Bearer {BEARER}"
    assert not any(name.lower().startswith(b"x-amz-") for name, _ in seen.headers)
    assert bearing.last_outcome()["principal"]["name"] == "bot"
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", BOT_KEY)
    client(bearing).converse(modelId=NOVA, messages=ask("hi"))
    assert provider.seen[-1].header("authorization") == f"Bearer {BEARER}"
    assert bearing.last_outcome()["principal"]["name"] == "bot"
    assert BOT_KEY.encode() not in provider.seen[-1].head


def test_over_budget_is_a_quota_after_one_attempt(bearing: Gateway, provider: LocalProvider) -> None:
    runtime = client(bearing)
    runtime.invoke_model(modelId=CLAUDE, body='{"max_tokens": 100, "prompt": "hi"}')
    with untouched(provider), pytest.raises(runtime.exceptions.ServiceQuotaExceededException) as caught:
        runtime.invoke_model(modelId=CLAUDE, body='{"max_tokens": 110, "prompt": "hi"}')
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    assert bearing.last_outcome()["verdict"]["code"] == "budget_exceeded"


def test_mantle_speaks_openai_and_anthropic(bearing: Gateway, provider: LocalProvider) -> None:
    context = ssl.create_default_context(cafile=str(bearing.ca))
    host = "https://bedrock-mantle.us-east-1.api.aws"
    with httpx2.Client(proxy=bearing.url, verify=context) as http, untouched(provider):
        one = openai.OpenAI(api_key="k", base_url=f"{host}/openai/v1", http_client=http)
        with pytest.raises(openai.PermissionDeniedError):
            one.responses.create(model="other", input="hi")
        two = anthropic.Anthropic(api_key="k", base_url=f"{host}/anthropic", http_client=http)
        with pytest.raises(anthropic.PermissionDeniedError):
            two.messages.create(model="other", max_tokens=5, messages=[{"role": "user", "content": "hi"}])


# -- the app's own signature -------------------------------------------------------------------------------------------


def test_the_app_s_signature_stands_while_nothing_is_changed(keeping: Gateway, provider: LocalProvider) -> None:
    body = json.dumps({"max_tokens": 5, "prompt": "hi"})
    client(keeping).invoke_model(modelId=CLAUDE, body=body)
    seen = provider.seen[-1]
    assert seen.body == body.encode()
    assert f"Credential={APP['aws_access_key_id']}/" in seen.header("authorization")
    assert seen.header("x-amz-security-token") == APP["aws_session_token"]
    with untouched(provider), pytest.raises(ClientError) as caught:
        client(keeping).converse(modelId=CLAUDE, messages=ask(f"to {MAIL}"))
    error = caught.value.response
    assert error["ResponseMetadata"]["HTTPHeaders"]["x-douane-code"] == "credential_missing"
    assert "signed again" in error["Error"]["Message"]
    assert (error["Error"]["Code"], error["ResponseMetadata"]["RetryAttempts"]) == ("AccessDeniedException", 0)


# -- policy files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("credential", "problem"), [
    ("bedrock: {access_key: env:AK}", "credentials.bedrock: `secret_key` is missing"),
    ("bedrock: {access_key: env:AK, secret_key: env:SK, key: env:BK}", "credentials.bedrock: a key or AWS keys, not both"),
    ("bedrock: {team: x}", "credentials.bedrock: `key` is missing: text (or access_key and secret_key)"),
    ("bedrock: {access_key: env:AK, secret_key: env:NO}", "credentials.bedrock.secret_key: the environment variable NO is not"),
    ("bedrock: {access_key: env:AK, secret_key: env:SK, region: 'x y'}", "credentials.bedrock: `x y` is no region"),
    ("openai: {access_key: env:AK, secret_key: env:SK}", "credentials.openai: openai takes no AWS keys"),
    ("mine: {access_key: env:AK, secret_key: env:SK}", "credentials.mine: `region` is missing, and the host llm.internal"),
])
def test_wrong_credentials_say_so_with_their_line(credential: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        load(tmp_path, credential)
    assert re.search(r"a\.yaml:\d+: credentials", str(caught.value))
    assert SECRET not in str(caught.value)


def load(folder: Path, credential: str) -> Loaded:
    folder.joinpath("a.yaml").write_text(f"""version: 1
chain: [authenticate: {{unknown: deny}}, swap_key: {{}}]
providers: {{mine: {{like: bedrock, hosts: [llm.internal], upstream: "https://llm.internal"}}}}
credentials: {{{credential}}}
""")
    return load_folder(folder, environ=ENV)


def test_keys_do_not_show_themselves(tmp_path: Path) -> None:
    loaded = load(tmp_path, "bedrock: {access_key: env:AK, secret_key: env:SK, session_token: env:ST}, "
                            "mine: {access_key: env:AK, secret_key: env:SK, region: us-east-1}")
    assert loaded.credential_providers == {"bedrock", "mine"}
    shown = repr(loaded)
    assert not any(value in shown for value in (ACCESS, SECRET, TOKEN))
