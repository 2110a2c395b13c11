"""``douane run`` and ``douane env``: an app's environment, so that its calls go through the gate."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from douane.control import Client
from douane.environment import dummy_keys, exports, prepare
from douane.errors import ConfigError, EnvironmentFailedError
from douane.places import Places, private_folder

__all__ = ["env", "run"]

START_SECONDS = 20.0
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run(places: Places, argv: Sequence[str], *, principal: str | None, tags: Mapping[str, str]) -> int:
    """Run *argv* governed; its exit code (128 + N where signal N ended it, 127 where it is not found)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # until the child is there, ours to heed
    gateway = None
    try:
        try:
            client = Client(places.control)
        except EnvironmentFailedError:
            gateway = _spawn_gateway(places)
            client = _connected(places, gateway)
        with client:
            issued = client.ask("issue", principal=principal, tags=dict(tags))
            return _run_child(argv, _environment(issued, os.environ))
    finally:
        if gateway is not None:
            gateway.terminate()
            gateway.wait()


def env(places: Places, *, principal: str | None) -> str:
    """Shell text. Names the principal by a token that lives as long as the gateway where *principal* is given; otherwise
    the caller is known by its address."""
    with Client(places.control) as client:
        issued = client.ask("issue", principal=principal, lasting=True) if principal else client.ask("status")
    return exports(_variables(issued, os.environ))


def _variables(issued: Mapping[str, Any], inherited: Mapping[str, str]) -> dict[str, str | None]:
    """What changes in *inherited*; None: it is to be unset. Variables that hold the gateway's keys are: where a key is
    swapped, the app has none."""
    host, port = issued["proxy"]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - turned into an address one can reach
    who = f"{quote(issued['principal'], safe='')}:{issued['token']}@" if "token" in issued else ""
    url = f"http://{who}{f'[{host}]' if ':' in host else host}:{port}"
    hidden: dict[str, str | None] = dict.fromkeys(name for name in issued["secret_variables"] if name in inherited)
    left = {name: value for name, value in inherited.items() if name not in hidden}
    return {**hidden, **prepare(url, Path(issued["certs"]), left), **dummy_keys(issued["credentials"], left)}


def _environment(issued: Mapping[str, Any], inherited: Mapping[str, str]) -> dict[str, str]:
    merged = {**inherited, **_variables(issued, inherited)}
    return {name: value for name, value in merged.items() if value is not None}


def _run_child(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The terminal's ^C reaches the child by itself; other signals are passed on, so that the child decides."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []
    """Signals that came while it was being started."""

    def pass_on(number: int, _: object) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    for number in _FORWARDED:
        signal.signal(number, pass_on)
    try:
        child = subprocess.Popen(argv, env=environ)  # noqa: S603 - what the user asked for
    except FileNotFoundError:
        print(f"douane: {argv[0]}: no such command", file=sys.stderr)
        return 127
    except OSError as error:
        print(f"douane: {argv[0]}: {error.strerror}", file=sys.stderr)
        return 126
    signal.signal(signal.SIGINT, lambda *_: None)
    for missed in early:
        child.send_signal(missed)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _spawn_gateway(places: Places) -> "subprocess.Popen[bytes]":
    """A gateway of our own on free ports, for as long as the command runs."""
    private_folder(places.data)
    with _log_of(places).open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "douane", "serve", "--workers", "1", "--policies", places.policies, "--data", places.data,
             "--certs", places.certs, "--proxy", "127.0.0.1:0", "--http", "127.0.0.1:0",
             "--admin", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _log_of(places: Places) -> Path:
    return places.data / "run-gateway.log"


def _connected(places: Places, gateway: "subprocess.Popen[bytes]") -> Client:
    """Wait for it to listen. Raises what it said where it ended instead."""
    log_path = _log_of(places)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        code = gateway.poll()
        if code is not None:
            said = log_path.read_text(errors="replace").strip() or f"it ended with code {code}; see {log_path}"
            kind = ConfigError if code == ConfigError.exit_code else EnvironmentFailedError
            raise kind("\n".join(line.removeprefix("douane: ") for line in said.splitlines()))
        try:
            return Client(places.control)
        except EnvironmentFailedError:
            time.sleep(0.05)
    raise EnvironmentFailedError(f"the gateway did not start within {START_SECONDS:g} s; see {log_path}")
