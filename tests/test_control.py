"""The control socket: who may ask, what is asked, and what dies with the connection."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from douane import control
from douane.control import Client, ControlServer
from douane.errors import ConfigError, DouaneError, EnvironmentFailedError
from douane.hosts.banner import Addresses, Summary, banner
from douane.places import Places
from tests import house

ADDONS = Path(__file__).parents[1] / "addons"
KILLED = """
import os, pathlib, sys
from douane.control import Client
Client(pathlib.Path(sys.argv[1])).ask("issue", principal="c")
os.kill(os.getpid(), 9)
"""


class Desk:
    """Operations that write down what they did."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def issue(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        name = request["principal"]
        if name == "nobody":
            raise ConfigError("no principal is called 'nobody'")
        self.steps.append(f"issue {name}")
        undo.callback(self.steps.append, f"revoke {name}")
        return {"token": f"token-{name}", "tags": request.get("tags")}

    async def status(self, request: Mapping[str, Any], undo: contextlib.AsyncExitStack) -> dict[str, Any]:
        return {"revision": "abc"}


def serving[T](path: Path, client: Callable[[], T], desk: Desk | None = None) -> T:
    """What *client*, in a thread, gets from a server on *path*."""
    desk = desk or Desk()

    async def work() -> T:
        server = ControlServer(path, {"issue": desk.issue, "status": desk.status})
        await server.start()
        try:
            return await asyncio.to_thread(client)
        finally:
            await server.close()

    return house.run(work())


def until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        os.sched_yield()
        with contextlib.suppress(TimeoutError):
            house.run(asyncio.sleep(0.005))
    raise AssertionError("it did not come to it")


def test_ask_and_answer(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def client() -> None:
        assert path.stat().st_mode & 0o777 == 0o600
        with Client(path) as one, Client(path) as other:
            assert one.ask("status") == {"revision": "abc"}
            assert one.ask("issue", principal="bot", tags={"job": "é\n"}) == {"token": "token-bot", "tags": {"job": "é\n"}}
            assert other.ask("status") == {"revision": "abc"}
            with pytest.raises(DouaneError, match=r"^no principal is called 'nobody'$"):
                one.ask("issue", principal="nobody")
            with pytest.raises(DouaneError, match=r"^not a known request$"):
                one.ask("destroy")
            assert one.ask("status") == {"revision": "abc"}, "a refusal ends no connection"

    serving(path, client)
    assert not path.exists()


def test_what_was_issued_dies_with_its_connection_however_it_ends(tmp_path: Path) -> None:
    path, desk = tmp_path / "control.sock", Desk()

    def client() -> None:
        with Client(path) as one:
            one.ask("issue", principal="a")
            one.ask("issue", principal="b")
            assert desk.steps == ["issue a", "issue b"]
        until(lambda: desk.steps[2:] == ["revoke b", "revoke a"])
        killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env={"PYTHONPATH": str(ADDONS)})
        assert killed.returncode == -9
        until(lambda: desk.steps[4:] == ["issue c", "revoke c"])
        with Client(path) as one:
            one.ask("issue", principal="d")
            one._socket.sendall(b"x" * (control.MAX_LINE + 2))
            until(lambda: desk.steps[6:] == ["issue d", "revoke d"])
            with pytest.raises(EnvironmentFailedError, match="closed the control connection"):
                one.ask("status")

    serving(path, client, desk)


def test_a_server_that_closes_revokes_what_is_held(tmp_path: Path) -> None:
    path, desk = tmp_path / "control.sock", Desk()

    def client() -> Client:
        one = Client(path)
        one.ask("issue", principal="a")
        return one

    held = serving(path, client, desk)
    assert desk.steps == ["issue a", "revoke a"]
    with held, pytest.raises(EnvironmentFailedError, match="closed the control connection"):
        held.ask("status")


@pytest.mark.parametrize("line", [
    b"", b"{", b"\xff\xfe", b"null", b"7", b"[]", b'"status"', b"{}", b'{"op": null}', b'{"op": []}', b'{"op": "__init__"}',
    b"[" * 60_000, b"9" * 5000,
])
def test_bad_lines_get_an_answer_and_the_connection_goes_on(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "control.sock"

    def client() -> list[dict[str, Any]]:
        with Client(path) as one:
            one._socket.sendall(line + b"\n" + b'{"op": "status"}\n')
            return [json.loads(one._file.readline()) for _ in range(2)]

    assert serving(path, client) == [{"ok": False, "error": "not a known request"}, {"ok": True, "revision": "abc"}]


def test_a_line_in_pieces_and_one_that_never_ends(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def client() -> None:
        with Client(path) as one:
            for byte in b'{"op": "status"}\n':
                one._socket.sendall(bytes([byte]))
            assert json.loads(one._file.readline())["ok"]
            one._socket.sendall(b'{"op": "sta')
            one._socket.shutdown(socket.SHUT_WR)
            assert json.loads(one._file.readline()) == {"ok": False, "error": "not a known request"}
            assert one._file.readline() == b""

    serving(path, client)


def test_a_path_longer_than_a_socket_may_have(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 60) / ("é" * 60)
    folder.mkdir(parents=True)
    path = folder / "control.sock"
    assert len(os.fsencode(path)) > 108
    open_before = len(os.listdir("/proc/self/fd"))

    def client() -> None:
        with Client(path) as one:
            assert one.ask("status") == {"revision": "abc"}
        assert path.is_socket()

    serving(path, client)
    assert not path.exists()
    assert len(os.listdir("/proc/self/fd")) <= open_before


def test_a_socket_left_by_a_dead_gateway_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with pytest.raises(EnvironmentFailedError, match=r"no gateway answers at .*control\.sock; start one with"):
        Client(path)

    def client() -> dict[str, Any]:
        with Client(path) as one:
            return one.ask("status")

    assert serving(path, client) == {"revision": "abc"}
    with pytest.raises(EnvironmentFailedError):
        Client(path)


def test_a_socket_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "missing" / "control.sock", tmp_path / "taken", tmp_path / ("x" * 300) / "s"):
        with pytest.raises(EnvironmentFailedError, match="the control socket cannot be made: ") as caught:
            serving(path, lambda: None)
        assert str(path) in str(caught.value)
        assert caught.value.exit_code == 3


def test_only_ones_own_user_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "control.sock", []
    real = control._peer_uid

    def told(writer: asyncio.StreamWriter) -> int:
        seen.append(real(writer))
        return os.getuid() + 4711

    def client() -> None:
        with Client(path) as one, pytest.raises(EnvironmentFailedError, match="closed the control connection"):
            one.ask("status")

    monkeypatch.setattr(control, "_peer_uid", told)
    serving(path, client)
    assert seen == [os.getuid()], "the kernel says who it is"


def test_one_gateway_serves_a_data_folder(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def client() -> None:
        second = ControlServer(path, {})
        with pytest.raises(EnvironmentFailedError, match="another gateway serves this data folder") as caught:
            second.claim()
        assert caught.value.exit_code == 3
        house.run(second.close())
        with Client(path) as one:
            assert one.ask("status") == {"revision": "abc"}, "who came too late has taken nothing away"

    serving(path, client)
    ControlServer(path, {}).claim()


def test_the_banner_names_few_hosts() -> None:
    summary = Summary("r" * 64, ("p.yaml",), ("authenticate",), tuple(sorted(f"h{at}.example" for at in range(200))), True,
                      "redacted", (), (), (), ())
    places = Places.of({}, {}, Path("/x"))
    at = Addresses(("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3))
    assert max(map(len, banner(summary, places, at, ()).splitlines())) < 200
    few = replace(summary, governed=("api.openai.com", "a.example"))
    assert "governed    api.openai.com, a.example; other hosts pass untouched" in banner(few, places, at, ())
    known = replace(summary, governed=(*summary.governed, "api.openai.com"))
    assert "governed    api.openai.com and 200 more;" in banner(known, places, at, ())
