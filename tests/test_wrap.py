"""``douane run`` and ``douane env``: what the app gets, what becomes of its signals and its exit code."""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from douane import ca
from douane.control import ControlServer
from douane.environment import DUMMY_KEY
from douane.errors import ConfigError
from douane.places import Places
from douane.wrap import _run_child, env

ADDONS = str(Path(__file__).parents[1] / "addons")
TOKEN = "one-run-token"


class Gateway:
    """The control socket of a gateway, in a thread."""

    def __init__(self, home: Path, **status: Any) -> None:
        self.places = Places.of({}, {}, home)
        self.status = {"proxy": ["0.0.0.0", 8089], "certs": str(self.places.certs), "credentials": ["openai"],
                       "secret_variables": ["TEAM_KEY", "OPENAI_API_KEY", "NOT_SET"], **status}
        self.asked: list[dict[str, Any]] = []
        self.revoked = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "Gateway":
        self.places.data.mkdir(exist_ok=True)
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = ControlServer(self.places.control, {"issue": self._issue, "status": self._answer})
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.close()

    async def _issue(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        if request["principal"] == "nobody":
            raise ConfigError("no principal is called 'nobody'")
        undo.callback(self._revoke)
        return {**await self._answer(request, undo), "principal": request["principal"] or "local bot", "token": TOKEN}

    async def _answer(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        self.asked.append(dict(request))
        return self.status

    def _revoke(self) -> None:
        self.revoked += 1


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a CA. The path wants quoting."""
    folder = tmp_path_factory.mktemp("it's a home")
    ca.init(folder / "certs", ["api.openai.com"])
    return folder


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def environment(home: Path, **more: str) -> dict[str, str]:
    return {"PYTHONPATH": ADDONS, "DOUANE_HOME": str(home), "PATH": os.environ["PATH"], **more}


def douane(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "douane", *arguments]


SHOW = "import json, os, sys; print(json.dumps(dict(os.environ))); sys.exit(7)"


def test_run_gives_the_app_its_environment_and_its_exit_code(home: Path) -> None:
    with Gateway(home) as gateway:
        done = subprocess.run(
            douane("run", "--tag", "job=nightly", "--", sys.executable, "-c", SHOW), capture_output=True, text=True, timeout=20,
            env=environment(home, TEAM_KEY="of-the-gateway", OPENAI_API_KEY="of-the-gateway", ANTHROPIC_API_KEY="own",
                            NO_PROXY="*", ALL_PROXY="socks5://x"))
    assert (done.returncode, done.stderr) == (7, "")
    app = json.loads(done.stdout)
    assert app["HTTPS_PROXY"] == app["https_proxy"] == f"http://local%20bot:{TOKEN}@127.0.0.1:8089"
    assert app["OPENAI_API_KEY"] == DUMMY_KEY
    assert app["ANTHROPIC_API_KEY"] == "own"
    assert "of-the-gateway" not in done.stdout
    assert app["SSL_CERT_FILE"].startswith(str(home / "certs"))
    assert app["NO_PROXY"] == "localhost,127.0.0.1,::1"
    assert not {"TEAM_KEY", "ALL_PROXY"} & set(app)
    assert gateway.asked == [{"op": "issue", "principal": None, "tags": {"job": "nightly"}}]
    assert gateway.revoked == 1, "the token died with the command"


CHILD = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.write(1, signal.Signals(number).name.encode() + b"\\n"))
os.write(1, b"ready\\n")
time.sleep(20)
"""


def test_signals_are_the_apps_to_heed(home: Path) -> None:
    with Gateway(home) as gateway:
        running = subprocess.Popen(douane("run", "--", sys.executable, "-c", CHILD), env=environment(home),
                                   stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        with running.stdout as said:
            assert said.readline() == "ready\n"
            for number in (signal.SIGTERM, signal.SIGHUP):
                running.send_signal(number)
                assert said.readline() == f"{number.name}\n"
            assert running.poll() is None
            running.send_signal(signal.SIGINT)  # the terminal sends it to the app too: here nobody does
            running.send_signal(signal.SIGUSR1)
            assert running.wait(10) == 128 + signal.SIGUSR1, "what ended the app is told as a shell would"
    assert gateway.revoked == 1


def test_a_signal_that_comes_while_the_app_is_started_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(subprocess.Popen[bytes]):
        def __init__(self, argv: list[str], env: Mapping[str, str]) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            super().__init__(argv, env=env)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    assert _run_child(["sleep", "10"], {"PATH": os.environ["PATH"]}) == 128 + signal.SIGTERM


def test_a_gateway_of_its_own_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.yaml").write_text("version: 1\nmode: lax\nchain:\n  - authenticate: {}\n")
    done = subprocess.run(douane("run", "--", "true"), capture_output=True, text=True, timeout=30, env=environment(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"douane: {tmp_path}/policies/a.yaml:2: ")
    assert not (tmp_path / "data" / "control.sock").exists()


@pytest.mark.parametrize(("command", "code", "why"), [
    (["/nonexistent/app"], 127, "no such command"), (["/tmp"], 126, "Permission denied"),
])
def test_commands_that_do_not_start(capsys: pytest.CaptureFixture[str], command: list[str], code: int, why: str) -> None:
    assert _run_child(command, {}) == code
    assert capsys.readouterr().err == f"douane: {command[0]}: {why}\n"


def test_env_is_text_for_a_shell(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-of-the-gateway")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Gateway(home, proxy=["::", 8089]) as gateway:
        text = env(gateway.places, principal=None)
    assert "sk-of-the-gateway" not in text
    assert TOKEN not in text, "known by its address: nothing to keep secret"
    script = text + f"exec {shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True,
                           env={"TEAM_KEY": "x", "ALL_PROXY": "y", "HTTPS_PROXY": "z"})
    app = json.loads(shell.stdout)
    assert app["HTTPS_PROXY"] == "http://[::1]:8089"
    assert app["OPENAI_API_KEY"] == DUMMY_KEY
    assert app["SSL_CERT_FILE"].startswith(str(home / "certs"))
    assert not {"TEAM_KEY", "ALL_PROXY"} & set(app)
    assert gateway.asked == [{"op": "status"}]


def test_env_under_a_name_asks_for_a_token_that_lasts(home: Path) -> None:
    with Gateway(home) as gateway:
        text = env(gateway.places, principal="support-bot")
        with pytest.raises(Exception, match="no principal is called 'nobody'"):
            env(gateway.places, principal="nobody")
    assert f"http://support-bot:{TOKEN}@127.0.0.1:8089" in text
    assert gateway.asked == [{"op": "issue", "principal": "support-bot", "lasting": True}]
