"""The command line: exit codes, one line a mistake, nothing heavy before it is needed."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from douane import __version__, wrap
from douane.audit import read, record
from douane.audit.journal import Item, Journal
from douane.call import Outcome
from douane.cli import main
from douane.places import Places
from douane.verdict import Deny
from tests import house

ADDONS = str(Path(__file__).parents[1] / "addons")
GOOD = "version: 1\nprincipals:\n  - {name: local, cidr: 127.0.0.0/8}\nchain:\n  - authenticate: {}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("POLICIES", "DATA", "CERTS", "PROXY", "ADMIN"):
        monkeypatch.delenv(f"DOUANE_{name}", raising=False)
    monkeypatch.setenv("DOUANE_HOME", str(tmp_path))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "default.yaml").write_text(GOOD)
    return tmp_path


def recorded(home: Path, calls: int) -> list[str]:
    """An audit log of *calls* intents and outcomes; their ids."""
    (home / "data").mkdir(mode=0o700)
    journal = Journal(home / "data" / "audit", "node")
    ids = [f"{number:032x}" for number in range(calls)]
    for one in ids:
        call = house.call(id=one)
        refused = ("x", Deny("too_large", "r")) if one == ids[0] else None
        done = record.outcome(record.about(call, "f" * 64), (), Outcome("complete", 200), denial=refused, latency_ms={})
        journal.write([Item.of(record.intent(record.about(call, "f" * 64), ())), Item.of(done)])
    journal.close()
    return ids


@pytest.mark.parametrize("arguments", [
    [], ["bogus"], ["--bogus", "check"], ["check", "--bogus"], ["check", "a", "b"], ["audit"], ["audit", "bogus"],
    ["audit", "show"], ["audit", "tail", "-n", "x"], ["audit", "tail", "-n", "-3"], ["audit", "tail", "-n", ""], ["ca"],
    ["ca", "issue", "--days", "x"], ["ca", "show", "--days", "3"], ["run", "--tag"], ["serve", "extra"], ["check", "--data"],
])
def test_wrong_arguments_are_one_line_and_2(home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("douane: ")
    assert line.endswith("--help)")
    assert said.out == ""


@pytest.mark.parametrize(("arguments", "code", "line"), [
    (["run"], 2, "run: no command given"),
    (["run", "--"], 2, "run: no command given"),
    (["run", "--tag", "x", "--", "true"], 2, "--tag x: write NAME=VALUE"),
    (["run", "--tag", "=x", "--", "true"], 2, "--tag =x: write NAME=VALUE"),
    (["check", "--proxy", "8080"], 2, "--proxy: '8080' is not HOST:PORT"),
    (["serve", "--admin", "nowhere"], 2, "--admin: 'nowhere' is not HOST:PORT"),
    (["ca", "show"], 2, "no CA here"),
    (["ca", "issue", "--days", "0"], 2, "--days 0: "),
    (["ca", "init", "--policies", "/nonexistent"], 2, "/nonexistent: cannot be read"),
    (["reload"], 3, "no gateway answers at"),
    (["env"], 3, "no gateway answers at"),
    (["audit", "tail"], 3, "No such file or directory"),
    (["audit", "show", "abc"], 3, "No such file or directory"),
    (["ca", "init", "--certs", "/proc/none"], 3, "/proc/none: "),
])
def test_each_failure_has_its_code_and_its_line(home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int,
                                                line: str) -> None:
    assert main(arguments) == code
    said = capsys.readouterr()
    (shown,) = said.err.splitlines()
    assert shown.startswith("douane: ")
    assert line in shown
    assert said.out == ""


def test_check(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{home / 'policies'}: in order (default.yaml); chain authenticate; revision ")
    other = home / "other"
    other.mkdir()
    (other / "a.yaml").write_text("version: 1\nmod: enforce\nchain:\n  - autenticate: {}\n")
    for arguments in (["check", str(other)], ["check", "--policies", str(other)]):
        assert main(arguments) == 1
        said = capsys.readouterr()
        assert {line.split(": ")[0] for line in said.err.splitlines()} == {f"{other}/a.yaml:2", f"{other}/a.yaml:4"}
        assert said.out == ""


def test_ca(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ca", "init", "--days", "30"]) == 0
    assert (home / "certs").stat().st_mode & 0o777 == 0o700
    assert main(["ca", "show"]) == 0
    shown = capsys.readouterr().out
    assert "api.openai.com" in shown
    assert "api.anthropic.com" in shown
    assert main(["ca", "init"]) == 2
    assert "there is a CA already" in capsys.readouterr().err
    assert main(["ca", "issue", "--days", "3"]) == 0


def test_audit(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = recorded(home, 12)
    assert main(["audit", "tail"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20
    assert main(["audit", "tail", "-n", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"allow 200  {ids[-1]}\n")
    assert main(["audit", "tail", "-n", "0"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["audit", "show", ids[0]]) == 0
    assert "code=too_large" in capsys.readouterr().out
    assert main(["audit", "show", ids[3], "--json"]) == 0
    assert [line[:17] for line in capsys.readouterr().out.splitlines()] == ['{"kind": "intent"', '{"kind": "outcome'[:17]]
    assert main(["audit", "show", "f" * 32]) == 1
    assert capsys.readouterr().err == f"douane: no record has the id {'f' * 32}\n"


def test_audit_verify(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(home, 3)
    (segment,) = (home / "data" / "audit" / "node").glob("*.jsonl")
    head = segment.read_text().splitlines()[-1][-66:-2]
    assert main(["audit", "verify"]) == 0
    assert head in capsys.readouterr().out
    assert main(["audit", "verify", "--head", head]) == 0
    assert main(["audit", "verify", "--head", "0" * 64]) == 1
    segment.write_text(segment.read_text().replace("too_large", "too_small"))
    capsys.readouterr()
    assert main(["audit", "verify"]) == 1
    assert "000001.jsonl" in "".join(capsys.readouterr())


def test_run_hands_on_what_stands_behind_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def run(places: Places, argv: Sequence[str], *, principal: str | None, tags: Mapping[str, str]) -> int:
        given.append((list(argv), principal, dict(tags)))
        return 42

    monkeypatch.setattr(wrap, "run", run)
    assert main(["run", "--as", "bot", "--tag", "a=b=c", "--tag", "d=", "--", "prog", "--as", "x", "--", "-h"]) == 42
    assert main(["run", "prog", "--tag", "x"]) == 42
    assert given == [(["prog", "--as", "x", "--", "-h"], "bot", {"a": "b=c", "d": ""}), (["prog", "--tag", "x"], None, {})]


def test_an_interrupt_is_no_traceback(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(read, "tail", interrupted)
    assert main(["audit", "tail", "-f"]) == 130


def environment(home: Path) -> dict[str, str]:
    return {"PYTHONPATH": ADDONS, "DOUANE_HOME": str(home), "PATH": os.environ["PATH"]}


@pytest.mark.parametrize("calls", [1, 400], ids=["less than a buffer", "more than a pipe"])
def test_a_reader_that_leaves_is_no_failure(home: Path, calls: int) -> None:
    recorded(home, calls)
    process = subprocess.Popen([sys.executable, "-m", "douane", "audit", "tail", "-n", "9999", "--json"], env=environment(home),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(10), said) == (0, b"")


def test_help_answers_at_once(home: Path) -> None:
    times = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "douane", "--help"], env=environment(home), capture_output=True, text=True)
        times.append(time.monotonic() - began)
        assert (done.returncode, done.stderr) == (0, "")
        if times[-1] < 0.4:
            break
    assert min(times) < 0.4
    for command in ("serve", "run", "env", "check", "reload", "demo", "audit", "ca"):
        assert f"\n    {command} " in done.stdout


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"douane {__version__}\n"
