"""What a record says, and what it never holds."""

import json
from typing import Any

from douane.audit import record, show
from douane.call import Call, Caller, Credential, Finding, Outcome, Principal, Usage
from douane.secrets import Secret
from douane.verdict import Deny
from tests import house

COMMON = {"kind", "id", "at", "revision", "principal", "provider", "operation", "model", "host", "method", "path", "stream",
          "client_request_id", "findings", "reserved_usd", "request"}
OUTCOME = COMMON | {"verdict", "ended", "status", "answer_model", "usage", "estimated", "cost_usd", "latency_ms",
                    "upstream_request_id", "response"}
"""DESIGN "Audit record"; ``node``, ``seq``, ``prev`` and ``hash`` are the journal's."""

WHO = Principal("support-bot", "support", "acme", "u1", "a1", {"job": "nightly"})
FOUND = (Finding("redact", "EMAIL_ADDRESS", 2, ("messages[0].content",)),)
LATENCIES: dict[str, float | None] = {"total": 12.5, "gateway": 0.5, "upstream": 12.0, "first_token": None}


def call(**more: Any) -> Call:
    return house.call(**{"principal": WHO, "stream": True, "headers": ((b"x-request-id", b"mine"),), **more})


def intent(asked: Call, found: tuple[Finding, ...] = FOUND) -> dict[str, Any]:
    return record.intent(record.about(asked, "f" * 64), found)


def outcome(asked: Call, result: Outcome, denial: tuple[str, Deny] | None = None) -> dict[str, Any]:
    return record.outcome(record.about(asked, "f" * 64), FOUND, result, denial=denial, latency_ms=LATENCIES)


def test_an_intent_has_every_field() -> None:
    said = intent(call())
    assert set(said) == COMMON
    assert said == {
        "kind": "intent", "id": "0" * 32, "at": "2026-01-02T03:04:05.678Z", "revision": "f" * 64,
        "principal": {"name": "support-bot", "team": "support", "org": "acme", "user": "u1", "agent": "a1",
                      "tags": {"job": "nightly"}},
        "provider": "openai", "operation": "chat", "model": "gpt-4o", "host": "api.openai.com", "method": "POST",
        "path": "/v1/chat/completions", "stream": True, "client_request_id": "mine",
        "findings": [{"policy": "redact", "type": "EMAIL_ADDRESS", "count": 2, "where": ("messages[0].content",)}],
        "reserved_usd": None, "request": None}


def test_an_outcome_has_every_field() -> None:
    result = Outcome("complete", 200, Usage(10, 5, 3, 2, 1, 4, 1), True, 0.25, "gpt-4o-2024", "req_1")
    said = outcome(call(), result)
    assert set(said) == OUTCOME
    assert said.items() >= {
        "kind": "outcome", "verdict": {"action": "allow"}, "ended": "complete", "status": 200, "answer_model": "gpt-4o-2024",
        "usage": {"input": 10, "output": 5, "cached_input": 3, "cache_write": 2, "reasoning": 4,
                  "cache_write_1h": 1, "web_searches": 1}, "estimated": True,
        "cost_usd": 0.25, "latency_ms": LATENCIES, "upstream_request_id": "req_1"}.items()


def test_a_denial_names_policy_code_and_reason() -> None:
    said = outcome(call(), Outcome("denied"), ("allow_models", Deny("model_not_allowed", "not here", 3.0)))
    assert set(said) == OUTCOME
    assert said["verdict"] == {"action": "deny", "policy": "allow_models", "code": "model_not_allowed", "reason": "not here"}
    assert (said["status"], said["usage"], said["cost_usd"], said["upstream_request_id"]) == (0, None, None, None)


def test_what_is_not_known_is_null_and_what_is_long_is_cut() -> None:
    bare = intent(house.call(model="", caller=Caller("")), ())
    assert bare["principal"] == {"name": None, "team": None, "org": None, "user": None, "agent": None}
    assert (bare["model"], bare["client_request_id"], bare["findings"]) == (None, None, [])
    long = intent(call(model="m" * 999, path="/" + "p" * 999, headers=((b"x-client-request-id", b"r" * 999),)), ())
    assert [len(long[name]) for name in ("model", "path", "client_request_id")] == [200, 200, 200]


def test_no_record_holds_a_header_a_body_a_query_or_a_key() -> None:
    """A canary in every place that a caller or a provider can fill, the declared names apart."""
    def canary(name: str) -> str:
        return f"canary-{name}"

    asked = call(
        query=f"key={canary('query')}", body=canary("body").encode(), document={"messages": [canary("document")]},
        headers=((b"authorization", canary("key").encode()), (b"cookie", canary("cookie").encode()),
                 (b"canary-header", b"1"), (b"user-agent", canary("agent").encode())),
        caller=Caller("192.0.2.7", canary("proxyuser"), Secret(canary("proxykey")), canary("user"), tags={canary("tag"): "1"}),
        credential=Credential(Secret(canary("credential")), b"authorization", b"Bearer "))
    usage = Outcome("complete", 200, Usage(1, 1), False, 1.0, "gpt-4o", "req_1")
    refused = ("redact", Deny("pii_found", "a name was found"))
    said = [intent(asked), outcome(asked, usage), outcome(asked, Outcome("denied"), refused)]
    said.append(record.unknown(said[0], house.AT))
    for one in said:
        assert "canary" not in json.dumps(one)
        assert "192.0.2.7" not in json.dumps(one)
        assert "canary" not in show.one_line(one) + show.whole(one) + show.as_json(one)


def test_a_lost_call_keeps_what_its_intent_said() -> None:
    known = {**intent(call()), "seq": 7, "prev": "0", "hash": "1", "node": "n"}
    said = record.unknown(known, house.AT + 1)
    assert set(said) == OUTCOME
    assert (said["kind"], said["id"], said["at"], said["ended"]) == ("outcome", "0" * 32, "2026-01-02T03:04:06.678Z", "unknown")
    assert (said["principal"], said["findings"], said["cost_usd"]) == (known["principal"], known["findings"], None)


def test_an_event() -> None:
    assert record.event("reload", house.AT, revision="abc") == {
        "kind": "event", "event": "reload", "at": "2026-01-02T03:04:05.678Z", "revision": "abc"}


def test_times_are_in_utc_with_milliseconds() -> None:
    assert record.timestamp(0.0004) == "1970-01-01T00:00:00.000Z"
    assert record.timestamp(house.AT) < record.timestamp(house.AT + 0.001)


# -- for a person's eyes -----------------------------------------------------------------------------------------------


def test_one_line() -> None:
    paid = outcome(call(), Outcome("complete", 200, Usage(120, 45), False, 0.00075))
    assert show.one_line(paid) == (f"2026-01-02T03:04:05.678Z  outcome   support-bot  openai/chat gpt-4o  allow 200  "
                                   f"120→45 tokens  $0.000750  {'0' * 32}")
    refused = outcome(house.call(model=""), Outcome("denied", cost_usd=0.0), ("x", Deny("too_large", "r")))
    assert "  -  openai/chat -  deny too_large  $0.000000  " in show.one_line(refused)
    cut = outcome(call(), Outcome("upstream_timeout"), ("relay", Deny("upstream_timeout", "r")))
    assert "deny upstream_timeout  upstream_timeout" in show.one_line(cut)
    event = {**record.event("reload", house.AT, revision="abc"), "seq": 1, "node": "n", "prev": "0", "hash": "1"}
    assert show.one_line(event) == "2026-01-02T03:04:05.678Z event    reload revision=abc"


def test_whole_leaves_out_what_is_empty_and_no_zero() -> None:
    lines = show.whole(outcome(call(), Outcome("complete", 0, None, False, 0.0))).splitlines()
    assert lines[0] == f"outcome {'0' * 32}"
    names = [line.split()[0] for line in lines[1:]]
    assert "usage" not in names
    assert {"status", "cost_usd", "estimated", "stream"} <= set(names)
    assert "  status              0" in lines


def test_what_a_caller_made_up_commands_no_terminal_and_forges_no_line() -> None:
    odd = "a\x1b[2J\n2026-01-02T03:04:05.678Z  outcome\x9b\u202e\r"
    said = outcome(call(model=odd, path=odd, principal=Principal("bot", tags={odd: odd}, user=odd)), Outcome("complete"))
    assert show.one_line(said).isprintable()
    assert "openai/chat a\\x1b[2J\\n2026" in show.one_line(said)
    assert show.as_json(said).isprintable()
    assert show.one_line({**record.event("refused", house.AT), "host": odd}).isprintable()
    lines = show.whole(said).split("\n")
    assert all(line.isprintable() for line in lines)
    decent = call(model="m", path="p", principal=Principal("bot", tags={"t": "v"}, user="u"))
    assert len(lines) == len(show.whole(outcome(decent, Outcome("complete"))).split("\n"))
    assert "café" in show.one_line(intent(call(model="café"), ()))


def test_as_json_is_the_record() -> None:
    said = intent(call(), ())
    assert json.loads(show.as_json(said)) == json.loads(json.dumps(said))
    assert "\n" not in show.as_json(said)
