"""``scan``: kind and place, never the value; what it passes over; how fast it starts."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench.templates import built

from douane.cli import main
from douane.detect.find_secrets import find_secrets
from douane.errors import ConfigError
from douane.scan import files, lines, searching
from tests.gateway import environ

TOKEN = built("ghp_{A36}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.py").write_text(f"x = 1\nüü = '{TOKEN}'; y = '{TOKEN}'\n")
    (tmp_path / "sub" / "b.env").write_text("DB_PASSWORD=Hunt3r!xyz\n")
    (tmp_path / "wide.txt").write_bytes(f"key {TOKEN}".encode("utf-16"))
    (tmp_path / "binary").write_bytes(b"\0" + TOKEN.encode())
    (tmp_path / ".git" / "config").write_text(TOKEN)
    (tmp_path / "link").symlink_to(tmp_path / "a.py")
    (tmp_path / "clean.txt").write_text("nothing here")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["scan", *words])
    got = capsys.readouterr()
    assert TOKEN not in got.out + got.err
    return code, got.out


def test_it_tells_kind_and_place_and_no_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = said(capsys, "--secrets", str(folder))
    assert code == 1
    assert out.splitlines() == [
        f"{folder}/a.py:2:7 GITHUB_TOKEN 1.00", f"{folder}/a.py:2:{7 + len(TOKEN) + 8} GITHUB_TOKEN 1.00",
        f"{folder}/wide.txt:1:5 GITHUB_TOKEN 1.00", f"{folder}/sub/b.env:1:13 PASSWORD 0.60"]
    assert said(capsys, "--secrets", str(folder / "clean.txt")) == (0, "")


def test_json_is_an_array(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(folder / "sub" / "b.env")
    code, out = said(capsys, "--secrets", "--json", file)
    assert (code, json.loads(out)) == (1, [{"file": file, "line": 1, "column": 13, "type": "PASSWORD", "score": 0.6}])
    code, out = said(capsys, "--secrets", "--json", str(folder / "clean.txt"))
    assert (code, json.loads(out)) == (0, [])


def test_standard_input_and_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Given:
        buffer = io.BytesIO(f"a\n {TOKEN}".encode())

    monkeypatch.setattr(sys, "stdin", Given)
    assert said(capsys, "--secrets") == (1, "-:2:2 GITHUB_TOKEN 1.00\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"text": f"é {TOKEN}"}) + '\n\n{"text": "no"}\n'))
    code, out = said(capsys, "--secrets", "--jsonl")
    assert (code, [json.loads(line) for line in out.splitlines()]) == (0, [
        {"spans": [{"start": 2, "end": 2 + len(TOKEN), "type": "GITHUB_TOKEN", "score": 1.0}]}, {"spans": []}])


@pytest.mark.parametrize("line", ["x", "[]", '{"text": 1}', "{}"])
def test_a_line_that_is_none_is_an_error(line: str) -> None:
    with pytest.raises(ConfigError, match=r"f:2: not a line"):
        list(lines(io.StringIO(f'{{"text": ""}}\n{line}\n'), "f", find_secrets))


def test_what_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--jsonl"], ["--pre-commit"]):
        assert main(["scan", "--secrets", *more, str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("none") == 3


def test_in_a_repository_what_it_ignores_is_passed_over(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("*.log\nout/\n")
    (tmp_path / "out").mkdir()
    for name in ("a.log", "out/x", "new.txt"):
        (tmp_path / name).write_text(TOKEN)
    (tmp_path / "hook.sh").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "hook.sh").chmod(0o755)
    subprocess.run(["git", "-C", str(tmp_path), "config", "core.fsmonitor", str(tmp_path / "hook.sh")], check=True)
    assert sorted(files(str(tmp_path))) == sorted(f"{tmp_path}/{name}" for name in (".gitignore", "hook.sh", "new.txt"))
    assert list(files(str(tmp_path / "out"))) == [f"{tmp_path}/out/x"], "who asks for it gets it"
    assert not (tmp_path / "ran").exists(), "nothing that a repository configures is run"


def test_as_a_hook_it_starts_at_once_and_loads_no_detectors(folder: Path) -> None:
    code = ("import sys\nfrom douane.cli import main\nprint(main(['scan', '--pre-commit', *sys.argv[1:]]))\n"
            "print(*sys.modules, file=sys.stderr)")
    times = []
    for _ in range(3):
        begun = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code, str(folder / "a.py")], capture_output=True, text=True, check=True,
                              env=environ())
        times.append(time.monotonic() - begun)
    assert done.stdout.splitlines()[-1] == "1"
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert not loaded & {"presidio_analyzer", "asyncio", "yaml", "mitmproxy", "hyperscan", "spacy"}
    assert min(times) < 1, "0.2 s on an idle machine"
    assert main(["scan", "--pre-commit"]) == 0


def test_personal_data_is_found_too() -> None:
    text = f"Ada, ada@example.com, {TOKEN}"
    with searching(secrets_only=False) as search:
        assert [(one.type, text[one.start:one.end]) for one in search(text)] == [
            ("EMAIL_ADDRESS", "ada@example.com"), ("GITHUB_TOKEN", TOKEN)]
