"""``douane prices``: what applies and why, from the command line, with no gateway running."""

import json
from pathlib import Path
from typing import Any

import pytest

from douane.audit import record
from douane.audit.journal import Item, Journal
from douane.call import Outcome
from douane.cli import main
from tests import house

POLICY = ("version: 1\nprincipals:\n  - {name: local, cidr: 127.0.0.0/8}\nchain:\n  - authenticate: {}\n"
          "prices:\n  my-finetune: {input: 3, output: 12}\n  openai/prod: {as: gpt-4o}\n  openai/*: {discount: 10%}\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for all: the list is built once."""
    folder = tmp_path_factory.mktemp("data")
    folder.chmod(0o700)
    return folder


@pytest.fixture
def home(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOUANE_HOME", str(tmp_path))
    monkeypatch.setenv("DOUANE_DATA", str(data))
    monkeypatch.delenv("DOUANE_POLICIES", raising=False)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.yaml").write_text(POLICY)
    return tmp_path


@pytest.mark.usefixtures("home")
def test_a_line_of_the_policy_and_the_list_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "openai/prod"]) == 0
    said = capsys.readouterr().out
    for part in ("openai/prod\n", "a.yaml:8: openai/prod: as gpt-4o", "a.yaml:9: openai/*: discount 10%",
                 "openai: gpt-4o, times 0.9",
                 "input                   2.25 USD", "output                     9 USD", "in a batch: 1.125 input, 4.5 output"):
        assert part in said


@pytest.mark.usefixtures("home")
def test_tiers_and_a_price_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "claude-sonnet-4-5", "--provider", "anthropic"]) == 0
    assert "above 200000 input tokens, all tokens:\n    input                      6 USD" in capsys.readouterr().out
    assert main(["prices", "my-finetune"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("my-finetune (any provider)\n")
    assert said.count("a.yaml:7: my-finetune: a price") == 1


@pytest.mark.usefixtures("home")
def test_what_is_not_known_is_said_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "unheard-of"]) == 1
    assert "no price is known: the ceiling holds" in capsys.readouterr().out
    assert main(["prices", "gpt-4o", "--provider", "opnai"]) == 2
    assert "there is no provider opnai; did you mean `openai`?" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "openai/gpt-4o", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["provider"], one["model"], one["known"], one["list"]) == ("openai", "gpt-4o", True, "openai")
    assert one["factor"] == 0.9
    assert (one["prices"]["input"], one["prices"]["output"], one["batch"]["input"]) == (2.25, 9.0, 1.125)
    assert [rule["key"] for rule in one["rules"]] == ["openai/*"]
    assert main(["prices", "unheard-of", "--json"]) == 1
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["provider"], one["known"], one["prices"]) == (None, False, {
        name: 75.0 if name != "audio_hour" else 10.8 for name in one["prices"]})


def test_all_lines_and_the_models_in_use(home: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(data / "audit", "node")
    for model in ("gpt-4o", "gpt-4o", "prod", "unheard\x1b-of"):
        of = record.about(house.call(model=model), "")
        said: dict[str, Any] = record.outcome(of, (), Outcome("complete"), denial=None, latency_ms={})
        journal.write([Item.of(said)])
    journal.close()
    assert main(["prices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{home}/policies/a.yaml:7: my-finetune: a price" in lines
    assert [line.split()[:4] for line in lines if line.startswith("openai")] == [
        ["openai", "gpt-4o", "2.25", "9"], ["openai", "prod", "2.25", "9"], ["openai", "unheard?-of", "75", "75"]]
    assert "unknown: 75 USD for a million tokens (the default)" in lines
    assert main(["prices", "--json"]) == 0
    assert [one["model"] for one in json.loads(capsys.readouterr().out)] == ["gpt-4o", "prod", "unheard\x1b-of"]
