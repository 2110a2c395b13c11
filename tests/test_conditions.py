"""``when``: what is refused at load, and that no answer is never "no"."""

import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from douane.call import Call, Caller, Principal
from douane.conditions import MAX_CHARACTERS, VARIABLES, UndecidedError, compile_condition
from douane.errors import ConfigError

ADDONS = str(Path(__file__).parent.parent / "addons")

CALL = Call(
    id="1", at=1_763_000_000.0, provider="openai", operation="chat", method="POST", host="api.openai.com",
    path="/v1/chat/completions", query="", headers=((b"authorization", b"Bearer x"),), caller=Caller("127.0.0.1"),
    principal=Principal("bot", "support", "acme", "ann", "agent-7", {"ticket": "42"}), model="gpt-4o-mini", stream=True)


@pytest.mark.parametrize(("text", "answer"), [
    ('principal.team == "support"', True),
    ('principal.team != "support"', False),
    ('principal.name == "bot" && principal.org == "acme" && principal.user == "ann"', True),
    ('principal.agent == "agent-7"', True),
    ('principal.tags["ticket"] == "42"', True),
    ('"x" in principal.tags', False),
    ('has(principal.tags.x) && principal.tags.x == "1"', False),
    ('principal.tags["x"] == "1" || call.stream', True),
    ('call.model.startsWith("gpt-4") && call.stream', True),
    ('call.model.matches("^gpt-[34]o-(mini|nano)$")', True),
    ('call.model in ["a", "b"]', False),
    ('call.provider == "openai" && call.operation == "chat" && call.method == "POST"', True),
    ('call.host.endsWith(".openai.com") && call.path == "/v1/chat/completions"', True),
    ('now > timestamp("2025-11-13T00:00:00Z") && now < timestamp("2025-11-14T00:00:00Z")', True),
    ('now.getHours("Europe/Paris") == 3', True),
    ("principal .\n team == 'support'", True),
    ('principal.team == "call.model"', False),
    ("true", True),
])
def test_conditions_are_decided(text: str, answer: bool) -> None:
    assert compile_condition(text)(CALL) is answer


@pytest.mark.parametrize(("text", "said"), [
    ('principal.tema == "x"', "column 10: undeclared reference to 'principal.tema'; did you mean `principal.team`?"),
    ('call.model == "a" &&\n  foo', "line 2, column 3: undeclared reference to 'foo'; allowed: principal.name"),
    ('call.body == "x"', "undeclared reference to 'call.body'"),
    ('call.headers["authorization"] == "x"', "undeclared reference"),
    ("principal == 1", "undeclared reference"),
    ("call.model = 'x'", "Syntax error"),
    ("a b", "column 3: Syntax error"),
    ("", "Syntax error"),
    ("call.model", "the expression is STRING: it must be true or false"),
    ("dyn(true)", "the expression is DYN"),
    ("has(principal.team)", "the expression is STRING"),
    ("call.model == 1", "no matching overload"),
    ("__import__('os').system('x') == 0", "undeclared reference"),
    ("(" * 200 + "true" + ")" * 200, "recursion limit"),
    ("true\x00 || false", "printable characters"),
    ("'\ud800' == ''", "printable characters"),
    ("true || " * MAX_CHARACTERS + "true", f"at most {MAX_CHARACTERS}"),
])
def test_wrong_expressions_are_refused_at_load(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_condition(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [
    'principal.tags["absent"] == "1"',
    '!(principal.tags["absent"] == "1")',
    "1 / 0 == 1",
    'call.model.matches("(")',
    'timestamp(call.model) < now',
    'dyn(call.model) && true',
])
def test_no_answer_is_neither_true_nor_false(text: str) -> None:
    decide = compile_condition(text)
    with pytest.raises(UndecidedError, match="cannot be decided"):
        decide(CALL)


@pytest.mark.parametrize("changed", [
    {"model": "\ud800"}, {"model": None}, {"model": 7}, {"at": float("nan")}, {"at": 1e300},
])
def test_a_call_that_cel_cannot_read_is_no_answer(changed: dict[str, Any]) -> None:
    decide = compile_condition('call.model == "x" && now > timestamp("2020-01-01T00:00:00Z")')
    with pytest.raises(UndecidedError):
        decide(replace(CALL, **changed))


def test_an_expression_cannot_run_away() -> None:
    many = "[" + "1," * 100 + "1]"
    nested = f"{many}.all(a, {many}.all(b, {many}.all(c, {many}.all(d, a + b + c + d > 0))))"
    began = time.perf_counter()
    with pytest.raises(UndecidedError):
        compile_condition(nested)(CALL)
    compile_condition('call.model.matches("^(a+)+$")')(replace(CALL, model="a" * 50_000 + "b"))
    tags = {f"t{n}": "x" for n in range(50_000)}
    with pytest.raises(UndecidedError):
        compile_condition('principal.tags.all(k, principal.tags[k] == "x")')(
            replace(CALL, principal=Principal("n", tags=tags)))
    assert time.perf_counter() - began < 2


def test_every_variable_can_be_used() -> None:
    for name, (kind, take) in VARIABLES.items():
        test = {"STRING": f'{name} != "?"', "BOOL": name, "TIMESTAMP": f"{name} == {name}", "MAP": f"size({name}) > 0"}
        assert compile_condition(test[kind])(CALL) is True, name
        assert take(CALL) is not None


def test_secrets_of_a_call_are_not_seen() -> None:
    hidden = ("header", "query", "body", "document", "credential", "caller")
    assert not [name for name in VARIABLES if any(word in name for word in hidden)]


def test_a_condition_made_in_one_thread_decides_in_another() -> None:
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(compile_condition('principal.team == "support"')))
    thread.start()
    thread.join()
    assert made[0](CALL) is True


def test_the_library_is_imported_with_the_first_expression_only() -> None:
    code = ("import sys, douane.loader, douane.conditions as c; assert 'cel_expr_python' not in sys.modules; "
            "c.compile_condition('true'); assert 'cel_expr_python' in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ADDONS}, timeout=30)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.lists(st.sampled_from([
    "principal.team", "call.model", "now", "&&", "||", "!", "==", "(", ")", "[", "]", '"a"', "1", "true", ".all(x,",
    "x", "principal.tags", ".matches(", "?", ":", "in", "{", "}", "-", "/", "0"]), max_size=12).map(" ".join))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        decide = compile_condition(text)
    except ConfigError:
        return
    with contextlib.suppress(UndecidedError):
        assert decide(CALL) in (True, False)
