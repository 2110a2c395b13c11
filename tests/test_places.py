"""Folders and addresses, and what guards the process."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from douane.errors import ConfigError, EnvironmentFailedError
from douane.places import Listen, Places, node_name, private_folder

HOME = Path("/srv/douane")


def test_defaults_lie_below_home() -> None:
    places = Places.of({}, {}, HOME)
    assert (places.policies, places.data, places.certs) == (HOME / "policies", HOME / "data", HOME / "certs")
    assert (str(places.proxy), str(places.http), str(places.admin)) == ("127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082")
    assert (places.control, places.audit) == (HOME / "data" / "control.sock", HOME / "data" / "audit")


def test_the_command_line_outranks_the_environment_which_outranks_the_default(monkeypatch: pytest.MonkeyPatch,
                                                                              tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"DOUANE_DATA": "/env/data", "DOUANE_CERTS": "/env/certs", "DOUANE_PROXY": "0.0.0.0:1", "DOUANE_ADMIN": ""}
    places = Places.of({"data": "mine", "certs": None, "proxy": "[::1]:2", "policies": ""}, environ, HOME)
    assert places.data == tmp_path / "mine", "absolute, as others may run in another folder"
    assert places.certs == Path("/env/certs")
    assert places.policies == HOME / "policies"
    assert (places.proxy, str(places.admin)) == (Listen("::1", 2), "127.0.0.1:8082")


@pytest.mark.parametrize(("text", "expected"), [
    ("127.0.0.1:8080", Listen("127.0.0.1", 8080)), ("localhost:0", Listen("localhost", 0)), ("[::1]:80", Listen("::1", 80)),
    ("0.0.0.0:65535", Listen("0.0.0.0", 65535)),
])
def test_addresses(text: str, expected: Listen) -> None:
    assert Listen.parse(text, "--proxy") == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", [
    "", "8080", ":8080", "host", "host:", "host:x", "host:-1", "host:65536", "host:8 0", "h:٣", "[]:1",
])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--admin: .* is not HOST:PORT") as caught:
        Listen.parse(text, "--admin")
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigError):
        Places.of({"admin": text or " "}, {}, HOME)


@pytest.mark.parametrize(("name", "expected"), [
    ("gate-1", "gate-1"), ("a b/c", "a-b-c"), ("../../etc", "-..-etc"), ("..", "node"), ("x" * 99, "x" * 64),
])
def test_a_node_is_called_by_what_makes_a_folder_name(name: str, expected: str) -> None:
    assert node_name({"DOUANE_NODE": name}) == expected
    assert "/" not in node_name({})
    assert node_name({}) not in ("", ".", "..")


def test_private_folders(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "a" / "b")
    assert made == tmp_path / "a" / "b"
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    assert private_folder(made).stat().st_mode & 0o777 == 0o700, "one that others could read is closed to them"


def test_folders_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/douane")):
        with pytest.raises(EnvironmentFailedError, match="choose another folder") as caught:
            private_folder(folder)
        assert str(folder) in str(caught.value)
        assert caught.value.exit_code == 3


def test_the_process_writes_for_its_owner_alone_and_leaves_no_core(tmp_path: Path) -> None:
    code = ("import pathlib, resource, sys; from douane.places import guard_process; guard_process(); "
            "pathlib.Path(sys.argv[1]).write_text(''); print(resource.getrlimit(resource.RLIMIT_CORE))")
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(Path(__file__).parents[1] / "addons")}).stdout
    assert said.strip() == "(0, 0)"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    assert resource.getrlimit(resource.RLIMIT_CORE) is not None
