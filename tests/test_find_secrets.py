"""Secrets are found by form and by what stands before them; what only looks like one is not; hostile texts cost no more."""

import base64
import json
import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from bench.templates import CLASSES, built
from hypothesis import given
from hypothesis import strategies as st

from douane.detect.find_secrets import find_in_member, find_secrets, together
from douane.detect.secret_rules import CONTEXTS, RUN, TOKENS, Rule
from douane.detect.values import Span
from douane.placeholders import LOOKS_LIKE
from tests import wire

RULES = (*TOKENS, *CONTEXTS)


def parted(text: str) -> tuple[str, str]:
    """The text, and the secret in it."""
    return text.replace("«", "").replace("»", ""), re.split("[«»]", text)[1] if "«" in text else text


def named(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start:span.end]) for span in find_secrets(text)]


FOUND = [(rule, template) for rule in RULES for template in rule.found]
PASSED = [(rule, template) for rule in RULES for template in rule.passed]


@pytest.mark.parametrize(("rule", "template"), FOUND, ids=lambda one: one.name if isinstance(one, Rule) else one[:24])
def test_what_a_rule_describes_is_found_whole(rule: Rule, template: str) -> None:
    for seed in range(3):
        text, secret = parted(built(template, seed))
        for around in (text, f"See {text} there", f"日本 é\n{text}\n\U0001f600", f"({text})"):
            assert named(around) == [(rule.name, secret)]
        if rule in TOKENS:
            for around in (f"KEY={text}\n", f'"key":"{text}",', f"'{text}'", f"?k={text}&n=1", f"<k>{text}</k>"):
                assert named(around) == [(rule.name, secret)]


@pytest.mark.parametrize(("rule", "template"), PASSED, ids=lambda one: one.name if isinstance(one, Rule) else one[:24])
def test_what_is_near_to_a_rule_is_not_found(rule: Rule, template: str) -> None:
    for seed in range(3):
        assert named(f"a {built(template, seed)} b") == []


def test_every_rule_has_examples_a_source_and_a_name_for_placeholders() -> None:
    for rule in RULES:
        assert rule.found
        assert rule.passed
        assert rule.source
        assert LOOKS_LIKE.fullmatch(f"<{rule.name}_k3v7q2ma>")
        assert 0 < rule.score <= 1


def test_no_example_looks_like_a_key_before_it_is_built() -> None:
    for _, template in FOUND:
        assert {kind for kind, _ in named(template)} <= {"PASSWORD", "URL_PASSWORD"}


def test_what_is_known_by_its_form_is_as_long_as_a_run() -> None:
    for rule in TOKENS:
        for template in rule.found:
            assert len(parted(built(template))[1]) + rule.back >= RUN
    for rule in CONTEXTS:
        assert rule.anchor == rule.anchor.lower() != ""


def test_every_repetition_is_bounded_or_possessive() -> None:
    for rule in RULES:
        bare = re.sub(r"\[[^\]]+\]", "C", re.sub(r"\\.", "E", rule.pattern))
        assert not re.search(r"(?<![*+}?])[*+](?!\+)", bare), rule.name
        assert not re.search(r"\{[0-9]+,\}(?!\+)", bare), rule.name


# -- where it stands ---------------------------------------------------------------------------------------------------

KEY = built("sk-ant-api03-{W93}AA")


@pytest.mark.parametrize("around", [
    "KEY={}", '"{}"', "'{}'", "`{}`", "a\\n{}\\n", "a\\t{}", "https://x.example/?key={}&a=1", "x%3D{}%20", "{},", "{}.",
    "<k>{}</k>",
    'curl -H "x-api-key: {}"', "Authorization: Bearer {}", "api_key={}"])
def test_a_token_is_found_whatever_stands_around_it(around: str) -> None:
    for key in (KEY, built("hf_{A34}"), built("ghp_{A36}"), built("AKIA{U16}"), built("xai-{A80}")):
        [(_, secret)] = named(around.format(key))
        assert secret.startswith(key)
        assert len(secret) <= len(key) + 1


def test_json_in_json_is_read_at_any_depth() -> None:
    pem = built("-----BEGIN PRIVATE KEY-----\n{B64}\n{B64}\n-----END PRIVATE KEY-----\n")
    text = json.dumps({"private_key": pem, "password": built("Zq7!{A8}")})
    for _ in range(3):
        kinds = [kind for kind, _ in named(text)]
        assert kinds == ["PRIVATE_KEY", "PASSWORD"]
        assert "PRIVATE KEY-----" not in "".join(text[a.end:b.start] for a, b in pairwise(find_secrets(text)))
        text = json.dumps({"arguments": text})


def test_of_two_that_overlap_one_span_covers_both() -> None:
    token = built("ghp_{A36}")
    assert named(f'secret="{token}!x"') == [("GITHUB_TOKEN", f"{token}!x")]
    assert named(f"https://bot:{token}@git.example.com/a") == [("GITHUB_TOKEN", token)]


def test_what_stands_behind_a_stand_in_is_found_too() -> None:
    text = f"password=<password> password: changeme\nsecret=$X api_key={built('{A32}')}\npassword='{built('q!{A9}')}'"
    assert [kind for kind, _ in named(text)] == ["API_KEY", "PASSWORD"]


PART = st.tuples(st.sampled_from(FOUND), st.integers(0, 5), st.sampled_from([" ", "\n", "\n\n", '", "', " é "]))


@given(st.lists(PART, min_size=1, max_size=12))
def test_spans_are_sorted_and_apart_and_leave_no_secret(parts: list[tuple[tuple[Rule, str], int, str]]) -> None:
    text, ranges = "", []
    for (_, template), seed, after in parts:
        whole, secret = parted(built(template, seed))
        start = len(text) + whole.index(secret)
        ranges.append((start, start + len(secret)))
        text += whole + after
    spans = find_secrets(text)
    assert all(0 <= one.start < one.end <= len(text) for one in spans)
    assert all(before.end <= after.start for before, after in pairwise(spans))
    for start, end in ranges:
        assert any(one.start <= start and end <= one.end for one in spans)


def test_a_members_name_says_what_its_value_is() -> None:
    value = built("Zq7!{A8}")
    assert find_secrets(value) == ()
    [span] = find_in_member("password", value)
    assert (span.type, span.start, span.end) == ("PASSWORD", 0, len(value))
    assert find_in_member("city", value) == ()
    assert [(one.type, one.start) for one in find_in_member("note", f"so {KEY}")] == [("ANTHROPIC_KEY", 3)]
    assert find_in_member(KEY, "x") == ()


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert all(0 <= one.start < one.end <= len(text) for one in find_secrets(text))


# -- what is none ------------------------------------------------------------------------------------------------------


def test_ids_digests_and_placeholders_are_none() -> None:
    chance = random.Random(5)
    for _ in range(300):
        ids = [prefix + "".join(chance.choices(CLASSES["A"], k=24)) for prefix in (
            "chatcmpl-", "call_", "msg_", "resp_", "req_", "toolu_", "file-", "batch_", "thread_", "run_", "asst_", "org-")]
        digests = [uuid.UUID(int=chance.getrandbits(128)), f"{chance.getrandbits(160):040x}", f"{chance.getrandbits(256):064x}",
                   f"sha256:{chance.getrandbits(256):064x}", f"sha512-{''.join(chance.choices(CLASSES['B'], k=86))}=="]
        for one in (*ids, *digests, "<EMAIL_ADDRESS_k3v7q2ma>", "<OPENAI_KEY_k3v7q2makbbbbbbb>"):
            assert named(f"id {one}, or id={one} or {{\"id\": \"{one}\"}}") == []
    ours = "<OPENAI_KEY_k3v7q2ma>"
    assert named(f"password={ours} api_key: '{ours}' Bearer {ours} a://b:{ours}@h -----BEGIN PRIVATE KEY-----{ours}") == []


def test_bytes_in_base64_are_none() -> None:
    chance = random.Random(6)
    for letters in ("B", "W"):
        text = "".join(chance.choices(CLASSES[letters], k=300_000))
        assert named(f"data:image/png;base64,{text}") == []


def test_base64_is_read_where_it_means_text() -> None:
    said = built("password: Zq7!{A8}\n").encode()
    whole = base64.b64encode(said).decode()
    assert named(f"data: {whole}") == [("PASSWORD", whole)]
    assert named(f"x={base64.b64encode(b'GIF89a' + bytes(4) + said).decode()}") == []
    assert named(f"x={base64.b64encode(b'no secret at all, only words').decode()}") == []
    assert named("a_very_long_identifier_of_somebody and/a/path/that/leads/nowhere") == []


def test_the_surer_kind_covers_a_whole_row_of_overlaps() -> None:
    ours = Span("OURS", 2, 9, 1.0)
    others = [Span("A", 0, 3, 0.5), Span("B", 8, 12, 0.5), Span("C", 11, 15, 0.5), Span("D", 20, 22, 0.5)]
    assert together(others, [ours]) == (Span("OURS", 0, 15, 1.0), others[3])
    assert together(others, ()) == tuple(others)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def test_recorded_traffic_raises_hardly_an_alarm() -> None:
    """Its credentials are scrubbed. What is left: the passwords of WebRTC offers (ice-pwd), and a key of a web analytics
    service that a tool answered with."""
    records = wire.records()
    texts = {record["request"].get("body") or "" for record in records} | {wire.answer(record).decode() for record in records}
    texts |= {text for record in records for text in _strings(wire.asked(record))}
    assert sum(map(len, texts)) > 8_000_000
    kinds = Counter((kind, value) for text in texts for kind, value in named(text))
    assert {kind for kind, _ in kinds} <= {"PASSWORD", "API_KEY"}
    assert len(kinds) <= 5


# -- hostile texts -----------------------------------------------------------------------------------------------------

HOSTILE = {
    "run": "a", "runs": "a" * RUN + " ", "jwt": "eyJ.", "jwt-": "eyJ-", "jwt long": "eyJ" + "a" * 3000 + " ",
    "proj": "sk-proj-",
    "stand-in": "sk-proj-" + "x" * 250 + " ", "token in token": "a_sk-proj-", "annotated": "JQQJ9",
    "sendgrid": "SG." + "a" * 32, "equals": "pass=", "quote": 'pass="', "is": "pass is ", "colon": "pass:a",
    "spaces": "pass    ",
    "backslash": "pass=\\\\\\", "joined words": "pass=" + "a_a." * 120 + " ", "urls": "@://a:b",
    "userinfo": "@://" + "a" * 120 + ":" + "b" * 250,
    "pem": "-----BEGIN PRIVATE KEY-----", "pem body": "-----BEGIN PRIVATE KEY-----\n" + "A" * 64 + "\n",
    "pem lines": "-----BEGIN PRIVATE KEY-----\n" + "A" * 24 + "\n\n \n" * 99,
    "pem headers": "-----BEGIN PRIVATE KEY-----\n" + "Ab: c\n" * 7,
    "header": "authorization:", "header long": "authorization: " + "b" * 4090, "bearer": "bearer " + "a" * 4000,
    "keys": "api_key", "secrets": "secretkeykeykey", "token": "token ", "webhook": "hooks.slack.com/services/"}


def _cost(text: str) -> float:
    """Seconds of CPU, the least of some."""
    def once() -> float:
        begun = time.process_time()
        find_secrets(text)
        return time.process_time() - begun
    return min(once() for _ in range(3))


@pytest.mark.parametrize("name", HOSTILE)
def test_four_times_the_text_costs_about_four_times(name: str) -> None:
    """A quadratic search would cost sixteen times as much."""
    part = HOSTILE[name]
    small, large = (part * (size // len(part)) for size in (24_000, 96_000))
    assert _cost(large) < 9 * _cost(small) + 0.002
