"""``run.sh``: what a newcomer meets before there is anything of Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
TOOLS = ("bash", "dirname", "cat", "cksum", "env")


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A checkout without .venv, and an environment in which no Python is to be found."""
    home = tmp_path / "checkout"
    (home / "requirements").mkdir(parents=True)
    for name in ("run.sh", "pyproject.toml", "requirements/base.txt", "requirements/test.txt"):
        shutil.copy(HERE / name, home / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is needed to run run.sh"
        (tools / tool).symlink_to(found)
    return home, {"PATH": str(tools), "HOME": str(tmp_path), "PYENV_ROOT": str(tmp_path / "no-pyenv")}


def start(home: Path, environ: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(home / "run.sh"), *arguments], env=environ, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("arguments", [(), ("test",), ("demo",), ("check",)], ids=" ".join)
def test_without_a_python_it_says_which_to_install(bare: tuple[Path, dict[str, str]], arguments: tuple[str, ...]) -> None:
    home, environ = bare
    ended = start(home, environ, *arguments)
    assert ended.returncode == 2
    assert "no Python 3.12 or newer found" in ended.stderr
    assert "install python3.13" in ended.stderr
    assert not (home / ".venv").exists()


def fake_python(path: Path, version: tuple[int, int]) -> None:
    """Something that answers the one question run.sh asks, as a Python of that version would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n"
                    f"case \"$2\" in *'(3, 12)'*) exit {0 if version >= (3, 12) else 1};; esac\n"
                    "echo chosen: $0 >&2; exit 1\n")
    path.chmod(0o755)


def test_a_named_python_that_is_too_old_is_refused(bare: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    home, environ = bare
    fake_python(tmp_path / "old", (3, 11))
    ended = start(home, environ | {"PYTHON": str(tmp_path / "old")})
    assert ended.returncode == 2
    assert "$PYTHON is" in ended.stderr


@pytest.mark.parametrize("where", ["bin/python3", "bin/python3.12", "no-pyenv/versions/3.13.1/bin/python", "named"])
def test_it_finds(bare: tuple[Path, dict[str, str]], tmp_path: Path, where: str) -> None:
    home, environ = bare
    fake_python(tmp_path / where, (3, 13))
    fake_python(tmp_path / "no-pyenv/versions/3.11.9/bin/python", (3, 11))
    if where == "named":
        environ = environ | {"PYTHON": str(tmp_path / where)}
    ended = start(home, environ)
    assert f"chosen: {tmp_path / where}" in ended.stderr, ended.stderr


def test_the_lock_files_hold_hashes_and_no_address() -> None:
    for name in ("base", "test"):
        text = (HERE / "requirements" / f"{name}.txt").read_text()
        assert "://" not in text
        pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert len(pinned) > 50
        assert all("==" in line and line.endswith("\\") for line in pinned), "a requirement without a version or a hash"
        assert text.count("--hash=sha256:") >= len(pinned)


def test_ci_calls_the_readmes_own_test_command() -> None:
    assert "./run.sh test" in (HERE / ".ci" / "run").read_text()
    assert "./run.sh test" in (HERE / "README.md").read_text()
    assert os.access(HERE / ".ci" / "run", os.X_OK)
    assert os.access(HERE / "run.sh", os.X_OK)
