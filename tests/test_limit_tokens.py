"""How large one call may be."""

import json
from pathlib import Path
from typing import Any

import pytest

from douane.errors import ConfigError
from douane.loader import load
from douane.policies.limit_tokens import LimitTokens
from douane.policy import Setting
from douane.verdict import ALLOW, Deny, Rewrite
from tests.house import run
from tests.test_budget import asked, say, wire_of


def judged(call: Any, **rules: int) -> Any:
    nobody: Any = None
    return run(LimitTokens(**rules).bind(Setting(nobody, nobody, {}, wire_of)).admit(call))


def test_what_is_over_is_refused_and_says_by_how_much() -> None:
    assert judged(asked(say(max_tokens=100)), output=100, input=1000, context=1000) == ALLOW
    for rules, said in (({"output": 99}, "up to 100 tokens of output; here, up to 99"), ({"input": 10}, "tokens of input"),
                        ({"context": 120}, "tokens of input and output together")):
        denial = judged(asked(say(max_tokens=100)), **rules)
        assert isinstance(denial, Deny)
        assert denial.code == "too_large"
        assert said in denial.reason


def test_without_a_bound_the_limit_is_put_in() -> None:
    verdict = judged(asked(say()), output=64)
    assert isinstance(verdict, Rewrite)
    assert json.loads(verdict.call.body)["max_completion_tokens"] == 64
    assert verdict.call.body.replace(b'"max_completion_tokens":64,', b"") == say()
    assert judged(asked(say()), input=1000) == ALLOW, "of the input alone nothing is put in"
    packed = asked(say(), headers=((b"content-encoding", b"gzip"),))
    assert isinstance(judged(packed, output=64), Deny), "it could not be held to it"


def test_a_bound_that_is_no_count_is_refused() -> None:
    denial = judged(asked(say(max_tokens="many")), output=64)
    assert isinstance(denial, Deny)
    assert denial.code == "bad_request"


def test_what_has_no_tokens_of_its_own_passes() -> None:
    assert judged(asked(operation="images", path="/v1/images/generations"), output=1) == ALLOW
    assert judged(asked(b'{"input": "x"}', operation="embeddings", model="text-embedding-3-small"), output=1) == ALLOW


@pytest.mark.parametrize(("text", "said"), [
    ("{}", "name at least one of"), ("{output: 0}", "1 or more"), ("{output: many}", "a count")])
def test_mistakes_are_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\nchain:\n  - authenticate: {{}}\n  - limit_tokens: {text}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:4") as caught:
        load(tmp_path, environ={})
    assert said in str(caught.value)
