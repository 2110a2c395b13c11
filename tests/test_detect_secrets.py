"""``detect_secrets``: what is refused, what leaves, what comes back, what stands nowhere; by itself, and in a real gateway."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anthropic
import openai
import pytest
from bench.templates import built

from douane.call import Call, Outcome
from douane.demo.provider import LocalProvider
from douane.detect.memory import Keys
from douane.detect.own_keys import GATEWAY_KEY, NO_KEYS
from douane.detect.secret_rules import CONTEXTS, TOKENS
from douane.detect.secret_scanner import KINDS, SecretScanner
from douane.errors import ConfigError
from douane.histories.base import Shelf
from douane.histories.sqlite import SqliteHistories
from douane.loader import load
from douane.people import Known, People, Tokens, Vaulted
from douane.placeholders import LOOKS_LIKE
from douane.policies.detect_secrets import DetectSecrets, _DetectSecrets
from douane.policy import Setting
from douane.secrets import Secret
from douane.verdict import ALLOW, Allow, Deny, Rewrite
from tests import house
from tests.gateway import BOT_KEY, REAL_KEY, Gateway, Wire, forms, policy, request, running_gateway
from tests.test_redact import KEY, TOOL, ask, redact, user, wire_of

OURS = "sk-ours-" + "Zq7/~?" * 5
THEIRS = "issued-key-" + "4f9a" * 6
AWS = built("AKIA{U16}")
GITHUB = built("ghp_{A36}")
PEM = built("-----BEGIN RSA PRIVATE KEY-----\n{B64}\n{B64}\n{B20}==\n-----END RSA PRIVATE KEY-----")
PASSWORD = built("Zq7!{A8}")
PEOPLE = People([Known(house.BOT, hashlib.sha256(THEIRS.encode()).digest())], Tokens())


def bound(**fields: Any) -> _DetectSecrets:
    setting = Setting(PEOPLE, Vaulted(()), {}, wire_of, KEY, secrets=(Secret(OURS), Secret("short-key")))
    return DetectSecrets(**fields).bind(setting)


def asked(document: Any, **fields: Any) -> Any:
    call = document if isinstance(document, Call) else ask(document)
    return house.run(bound(**fields).admit(call))


def test_nothing_found_changes_nothing() -> None:
    assert asked(user("hello, the key to success is password123 policy")) is ALLOW
    assert asked(house.call(operation="unknown", body=b"x", document=None)).code == "uninspectable"
    assert asked(house.call(operation="unknown", body=b"", document=None)) is ALLOW


def test_a_refusal_names_kind_and_place_and_no_value() -> None:
    denial = asked(user(f"my {AWS} and {GITHUB}"), action="deny")
    assert isinstance(denial, Deny)
    assert denial.code == "secret_found"
    place = "$.messages[0].content"
    assert denial.reason == f"the request holds a secret: AWS_ACCESS_KEY at {place}; GITHUB_TOKEN at {place}"
    assert [(one.policy, one.type, one.count, one.where) for one in denial.findings] == [
        ("detect_secrets", kind, 1, ("$.messages[0].content",)) for kind in ("AWS_ACCESS_KEY", "GITHUB_TOKEN")]


def test_many_kinds_are_counted_in_the_reason() -> None:
    text = " ".join([AWS, GITHUB, built("npm_{A36}"), built("glpat-{A20}"), built("hf_{A34}")])
    assert asked(user(text), action="deny").reason.endswith("; and 2 other kinds")


def test_what_is_replaced_has_the_same_placeholder_each_time_and_is_restored() -> None:
    verdict = asked(user(f"{AWS} {AWS}\n{PEM}"))
    assert isinstance(verdict, Rewrite)
    text = verdict.call.document["messages"][0]["content"]
    first, second, third = text.split()
    assert first == second
    assert [LOOKS_LIKE.fullmatch(one) is not None for one in (first, third)] == [True, True]
    assert third.startswith("<PRIVATE_KEY_")
    assert dict(verdict.call.originals) == {first: AWS, third: PEM}
    assert asked(user(f"{AWS} {AWS}\n{PEM}")).call.body == verdict.call.body
    answer = json.dumps({"choices": [{"message": {"content": f"use {first}"}}]}).encode()
    restore = bound().filter(verdict.call)
    assert restore is not None
    restore.headers(((b"content-type", b"application/json"),))
    assert json.loads(restore.feed(answer) + restore.close())["choices"][0]["message"]["content"] == f"use {AWS}"
    kept = asked(user(AWS), restore=False)
    assert not kept.call.originals


def test_each_kind_has_its_own_action() -> None:
    rules: Mapping[str, Any] = {"AWS_ACCESS_KEY": "observe", "private_key": "deny"}
    verdict = asked(user(f"{AWS} {GITHUB}"), rules=rules)
    assert AWS in verdict.call.document["messages"][0]["content"]
    assert GITHUB not in verdict.call.document["messages"][0]["content"]
    assert {one.type for one in verdict.findings} == {"AWS_ACCESS_KEY", "GITHUB_TOKEN"}
    assert isinstance(asked(user(PEM), rules=rules), Deny)
    assert asked(user(AWS), rules=rules) == Allow(verdict.findings[:1])
    assert isinstance(asked(user(AWS), action="observe"), Allow)


def test_what_is_allowed_is_none() -> None:
    digest = hashlib.sha256(AWS.encode()).hexdigest()
    for allow in (("AKIA*",), (f"sha256:{digest[:12].upper()}",)):
        assert asked(user(AWS), allow=allow) is ALLOW
        assert isinstance(asked(user(GITHUB), allow=allow), Rewrite)
    assert isinstance(asked(user(OURS), allow=("sk-ours*",)), Deny)


@pytest.mark.parametrize(("fields", "says"), [
    ({"rules": {"AWS_KEYS": "deny"}}, "AWS_KEYS is not known; allowed: AGE_KEY"), ({"allow": ("*",)}, "a glob of more than"),
    ({"allow": ("sha256:12",)}, "8 to 64")])
def test_what_cannot_be_meant_is_refused(fields: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("*", r"\*")):
        DetectSecrets(**fields)


# -- the gateway's own keys --------------------------------------------------------------------------------------------


def written() -> list[bytes]:
    """``forms``, with base64 that is whole."""
    coded = {base64.b64encode(b"." * shift + OURS.encode() + b"!") for shift in range(3)}
    coded |= {one.translate(bytes.maketrans(b"+/", b"-_")) for one in coded}
    inner = {one for one in forms(OURS) if any(one in whole for whole in coded)}
    assert len(inner) == 5
    return sorted((forms(OURS) - inner) | coded)


@pytest.mark.parametrize("form", written())
def test_a_configured_key_is_refused_in_every_form_whatever_the_action(form: bytes) -> None:
    for action in ("observe", "redact", "deny"):
        denial = asked(user(f"see .{form.decode()}. there"), action=action)
        assert isinstance(denial, Deny)
        assert "GATEWAY_KEY at $.messages[0].content" in denial.reason
    assert isinstance(asked(user(form.decode()), rules={"gateway_key": "redact"}), Rewrite)


def test_a_key_too_short_is_none() -> None:
    """Eight characters may stand anywhere; the configuration is warned of in the docs."""
    assert asked(user("short-key")) is ALLOW


@pytest.mark.parametrize("text", [THEIRS, f"key={THEIRS};", f"({THEIRS})", base64.b64encode(f"bot:{THEIRS}".encode()).decode(),
                                  base64.b64encode(THEIRS.encode()).decode()])
def test_a_principals_key_is_known_by_its_digest(text: str) -> None:
    denial = asked(user(f"see {text} there"), action="observe")
    assert isinstance(denial, Deny)
    assert "GATEWAY_KEY" in denial.reason


def test_where_a_principals_key_cannot_be_known() -> None:
    for text in (f"x{THEIRS}", THEIRS.encode().hex(), THEIRS[:-1]):
        assert GATEWAY_KEY not in repr(asked(user(text), action="observe"))


@pytest.mark.parametrize("form", written())
def test_no_answer_holds_a_configured_key_however_it_is_cut(form: bytes) -> None:
    call = ask(user("hello"))
    text = b'data: {"x":"' + form + b'"}\n\n'
    one = bound()
    for size in (1, 7, len(text)):
        mask = one.filter(call)
        assert mask is not None
        out = b"".join(mask.feed(text[at:at + size]) for at in range(0, len(text), size)) + mask.close()
        assert form not in out
        assert len(out) == len(text)
        assert b"****" in out


def test_what_was_replaced_comes_back_and_our_key_does_not() -> None:
    call = asked(user(AWS)).call
    (placeholder,) = call.originals
    both = bound().filter(call)
    assert both is not None
    both.headers(((b"content-type", b"application/json"),))
    answer = json.dumps({"choices": [{"message": {"content": f"{placeholder} {OURS}"}}]}).encode()
    said = json.loads(b"".join(both.feed(answer[at:at + 9]) for at in range(0, len(answer), 9)) + both.close())
    assert said["choices"][0]["message"]["content"] == f"{AWS} {'*' * len(OURS)}"


def test_nothing_of_ours_is_told_by_repr() -> None:
    assert OURS not in repr(bound())


# -- every position, every form ----------------------------------------------------------------------------------------


def test_every_position_is_looked_at() -> None:
    call = ask({"model": "gpt-4o", "metadata": {AWS: "x", "k": AWS}, "messages": [
        {"role": "system", "content": AWS}, {"role": "user", "content": [{"type": "text", "text": f"{AWS} {AWS}"}]},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {
            "name": "f", "arguments": json.dumps({"a": [AWS], "b": {"pem": PEM, "password": PASSWORD}})}}]},
        {"role": "tool", "tool_call_id": "c", "content": AWS}],
        "tools": [{"type": "function", "function": {"name": "f", "description": AWS}}]})
    verdict = asked(call)
    assert not [value for value in (AWS, PASSWORD, PEM[40:100]) if value.encode() in verdict.call.body]
    counts = {one.type: one.count for one in verdict.findings}
    assert counts == {"AWS_ACCESS_KEY": 8, "PRIVATE_KEY": 1, "PASSWORD": 1}
    arguments = json.loads(verdict.call.document["messages"][2]["tool_calls"][0]["function"]["arguments"])
    assert LOOKS_LIKE.fullmatch(arguments["b"]["pem"])


def test_a_members_name_tells_what_its_value_is() -> None:
    asked_for = {"model": "c", "max_tokens": 9, "messages": [{"role": "assistant", "content": [
        {"type": "tool_use", "id": "t", "name": "login", "input": {"password": PASSWORD, "city": PASSWORD[:-1] + "z"}}]}]}
    verdict = asked(ask(asked_for, "anthropic", "messages"))
    given = verdict.call.document["messages"][0]["content"][0]["input"]
    assert LOOKS_LIKE.fullmatch(given["password"])
    assert given["city"] == PASSWORD[:-1] + "z"


@pytest.mark.parametrize("form", [
    base64.b64encode(f"token: {GITHUB}\n".encode()).decode(), base64.urlsafe_b64encode(f"?{AWS}".encode()).decode(),
    quote(f"?key={GITHUB}&x=", safe=""), json.dumps(json.dumps({"a": f"\n{GITHUB}\t"}))])
def test_an_encoded_secret_is_found(form: str) -> None:
    verdict = asked(user(f"see {form} there"))
    assert isinstance(verdict, Rewrite)
    assert not [value for value in (GITHUB, AWS) if value.encode() in verdict.call.body]


SENTENCE = {
    "OPENAI_KEY": "sk-proj-{W74}T3BlbkFJ{W74}", "ANTHROPIC_KEY": "sk-ant-api03-{W93}AA", "AWS_ACCESS_KEY": "AKIA{U16}",
    "GITHUB_TOKEN": "ghp_{A36}", "SLACK_TOKEN": "xoxb-{D12}-{D12}-{A24}", "STRIPE_KEY": "sk_live_{A24}",
    "GOOGLE_API_KEY": "AIza{W35}", "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJ{A60}.{W43}",
    "PRIVATE_KEY": "-----BEGIN PRIVATE KEY-----\n{B64}\n{B64}\n-----END PRIVATE KEY-----",
    "URL_PASSWORD": "postgres://app:{A12}@db.internal:5432/shop", "BEARER_TOKEN": "Bearer {A40}",
    "PASSWORD": "password=Hunt3r!{A4}"}


@pytest.mark.parametrize("kind", SENTENCE)
def test_twelve_of_twelve_in_a_sentence(kind: str) -> None:
    text = f"Please put {built(SENTENCE[kind])} into the settings of the new server, thanks."
    assert [one.type for one in asked(user(text)).findings] == [kind]


def test_every_rule_is_a_kind_and_makes_a_placeholder() -> None:
    assert set(KINDS) == {rule.name for rule in (*TOKENS, *CONTEXTS)} | {GATEWAY_KEY}


def test_a_text_seen_before_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = SecretScanner(NO_KEYS)
    text = [(f"my {AWS} " * 3, ""), ("x" * 300_000 + GITHUB.join("  "), "")]
    first = house.run(scanner.scan(Keys("t"), text))
    assert [len(one) for one in first] == [3, 1]
    monkeypatch.setattr(scanner, "_find", None)
    assert house.run(scanner.scan(Keys("t"), text)) == first


# -- a real gateway ----------------------------------------------------------------------------------------------------

SAID = f"export AWS={AWS}\npassword={PASSWORD}\n{PEM}\nalso {GITHUB}."
SECRETS = (AWS, PASSWORD, GITHUB, PEM.splitlines()[1])
MAIL = "ann.lee@example.com"
CHAIN = """  - authenticate: {unknown: deny}
  - detect_secrets: {action: redact, rules: {STRIPE_KEY: deny}}
  - redact: {entities: [EMAIL_ADDRESS]}
  - swap_key: {missing: keep}"""


@pytest.fixture(scope="module")
def policy_text(provider: LocalProvider) -> str:
    return policy(provider, chain=CHAIN)


def left(provider: LocalProvider, since: int, count: int) -> None:
    """Nothing of it reached the provider."""
    requests = provider.seen[since:]
    assert len(requests) == count
    for one in requests:
        assert LOOKS_LIKE.search(json.dumps(json.loads(one.body)))
        assert not [form for value in SECRETS for form in forms(value) if form in one.body]


@pytest.mark.usefixtures("governed")
def test_openai_gets_its_secrets_back(provider: LocalProvider) -> None:
    seen, said = len(provider.seen), f"{SAID} {MAIL}"
    given: list[Any] = [{"role": "user", "content": said}]
    tools: list[Any] = [{"type": "function", "function": {"name": "save", "parameters": TOOL}}]
    with openai.OpenAI(max_retries=0) as client:
        create: Any = client.chat.completions.create
        assert create(model="gpt-4o-mini", messages=given).choices[0].message.content == f"You said: {said}"
        stream = create(model="gpt-4o-mini", messages=given, stream=True)
        assert "".join(one.choices[0].delta.content or "" for one in stream if one.choices) == f"You said: {said}"
        called = create(model="gpt-4o-mini", messages=given, tools=tools).choices[0].message.tool_calls
        assert json.loads(called[0].function.arguments) == {"note": said}
        stream = create(model="gpt-4o-mini", messages=given, tools=tools, stream=True)
        pieces = [one.choices[0].delta.tool_calls[0].function.arguments for one in stream
                  if one.choices and one.choices[0].delta.tool_calls]
        assert json.loads("".join(pieces)) == {"note": said}
        assert client.responses.create(model="gpt-4o-mini", input=said).output_text == f"You said: {said}"
    left(provider, seen, 5)
    assert MAIL.encode() not in provider.seen[-1].body


@pytest.mark.usefixtures("governed")
def test_anthropic_gets_its_secrets_back(provider: LocalProvider) -> None:
    seen = len(provider.seen)
    given: dict[str, Any] = {"model": "claude-test", "max_tokens": 100, "messages": [{"role": "user", "content": SAID}]}
    with anthropic.Anthropic(max_retries=0) as client:
        messages: Any = client.messages
        assert messages.create(**given).content[0].text == f"You said: {SAID}"
        with messages.stream(**given, tools=[{"name": "save", "input_schema": TOOL}]) as stream:
            assert stream.get_final_message().content[-1].input == {"note": SAID}
    left(provider, seen, 2)


@pytest.mark.usefixtures("governed")
def test_the_sdk_raises_its_own_error_and_the_gateways_keys_do_not_leave(provider: LocalProvider) -> None:
    seen, stripe = len(provider.seen), built("sk_live_{A24}")
    with openai.OpenAI(max_retries=0) as client:
        for text in (stripe, REAL_KEY, base64.b64encode(f"?{REAL_KEY}?".encode()).decode(), BOT_KEY):
            with pytest.raises(openai.PermissionDeniedError) as raised:
                client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": f"use {text} now"}])
            assert raised.value.code == "secret_found"
            assert text not in str(raised.value)
    assert len(provider.seen) == seen


def test_the_secrets_stand_nowhere(gateway: Gateway, provider: LocalProvider) -> None:
    with Wire.tls(gateway) as wire:
        wire.send(request(json.dumps({**user(SAID), "metadata": {"password": PASSWORD}}).encode()))
        got = wire.answer()
    assert got.json["choices"][0]["message"]["content"] == f"You said: {SAID}"
    outcome = gateway.outcome(got.id)
    assert {(one["policy"], one["type"], one["count"]) for one in outcome["findings"]} == {
        ("detect_secrets", kind, count) for kind, count in
        (("AWS_ACCESS_KEY", 1), ("PASSWORD", 2), ("PRIVATE_KEY", 1), ("GITHUB_TOKEN", 1))}
    with Wire.to(gateway.admin) as admin:
        admin.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        metrics = admin.answer().body
    files = [path for path in gateway.base.rglob("*") if path.is_file() and path != gateway.policy_file]
    assert any(path.suffix == ".jsonl" for path in files)
    for text in (metrics, *(path.read_bytes() for path in files)):
        assert not [form for value in (*SECRETS, REAL_KEY, BOT_KEY) for form in forms(value) if form in text]
    assert LOOKS_LIKE.search(provider.seen[-1].body.decode())


def test_in_observe_mode_it_only_says_what_it_found(tmp_path: Path, provider: LocalProvider) -> None:
    with running_gateway(tmp_path, policy(provider, chain=CHAIN, more="mode: observe")) as gateway, Wire.tls(gateway) as wire:
        body = json.dumps(user(f"{AWS} {built('sk_live_{A24}')}")).encode()
        wire.send(request(body))
        got = wire.answer()
        assert provider.seen[-1].body == body
        assert {one["type"] for one in gateway.outcome(got.id)["findings"]} == {
            "AWS_ACCESS_KEY", "STRIPE_KEY", "would_deny:secret_found"}


def test_its_yaml_is_read_and_its_mistakes_are_told(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    text = "version: 1\nchain:\n  - authenticate: {unknown: deny}\n  - detect_secrets: {action: deny, rules: {JWT: %s}}\n"
    file.write_text(text % "observe")
    entry = load(tmp_path).chain.entries[1]
    assert (entry.policy.actions["JWT"], entry.policy.actions["NPM_TOKEN"]) == ("observe", "deny")
    file.write_text(text % "pass")
    with pytest.raises(ConfigError, match=r"p.yaml:4: detect_secrets.rules.JWT: .*deny, redact, observe"):
        load(tmp_path)


def test_the_shipped_policy_replaces_and_lets_an_agent_print_its_environment() -> None:
    """Its one-run token stands in ``HTTPS_PROXY``: a refusal would meet every later turn."""
    shipped = Path(__file__).parents[1] / "policies"
    entry = next(one for one in load(shipped, environ={}).chain.entries if one.name == "detect_secrets")
    assert set(entry.policy.actions.values()) == {"redact"}


def test_a_turn_gets_the_secrets_of_the_turns_before(tmp_path: Path) -> None:
    """Where the provider keeps the history, with ``redact`` beside it and without."""
    with contextlib.closing(SqliteHistories.open(tmp_path, KEY, clock=lambda: house.AT)) as store:
        shelf = Shelf()
        shelf.histories = store
        setting = Setting(PEOPLE, Vaulted(()), {}, wire_of, KEY, shelf)
        ours = DetectSecrets().bind(setting)

        async def turn(document: Any, answer: str, number: int, *policies: Any) -> Any:
            call = ask({"model": "gpt-4o", **document}, operation="responses", path="/v1/responses")
            for one in policies:
                verdict = await one.admit(call)
                call = verdict.call if isinstance(verdict, Rewrite) else call
            out = json.dumps({"id": f"resp_{number}", "object": "response", "output": [
                {"type": "message", "content": [{"type": "output_text", "text": answer}]}]}).encode()
            for one in reversed(policies):
                if (restoring := one.filter(call)) is not None:
                    restoring.headers(((b"content-type", b"application/json"),))
                    out = restoring.feed(out) + restoring.close()
            for one in reversed(policies):
                await one.settle(call, Outcome("complete", 200))
            return call, json.loads(out)["output"][0]["content"][0]["text"]

        async def work() -> None:
            both = ours, replace(redact(), shelf=shelf, remember=86400)
            call, _ = await turn({"input": f"{AWS} {MAIL}"}, "ok", 1, *both)
            assert AWS not in call.body.decode()
            said = " ".join(call.originals)
            assert len(call.originals) == 2
            for number, policies in ((2, both), (3, (ours,))):
                after = {"input": "and?", "previous_response_id": f"resp_{number - 1}"}
                _, text = await turn(after, said, number, *policies)
                assert set(text.split()) == {AWS, MAIL}
            assert not ours.replacing.open

        house.run(work())
