"""``douane demo``: real SDKs, a real gateway process, a provider on this machine; no key, no network.

Law: exit code 0 means that every claim it prints was found to be so in this very run. Whatever ends it, ^C too, no
process that it started outlives it, and nothing stays on the disk.
"""

import contextlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from douane.audit.read import records
from douane.audit.verify import verify
from douane.control import Client
from douane.demo.answers import default_script
from douane.demo.evidence import Arrival, Command, Evidence, Tampered, Told, mask
from douane.demo.provider import Answer, LocalProvider, Reply, Script, Seen, running_provider
from douane.demo.view import PlainView, RichView
from douane.errors import EnvironmentFailedError
from douane.ledger.sqlite import read_balances
from douane.places import Listen, Places

__all__ = ["show"]

START_SECONDS = 20.0
APP_SECONDS = 40.0
STOP_SECONDS = 5.0
_NOT_INHERITED = ("OPENAI_", "ANTHROPIC_", "DOUANE_")
"""Beginnings of variables that would make it another demo: other base URLs, real keys, other folders."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PYTHON = (sys.executable, "-P")
"""``-P``: what lies in the folder where the demo is called is none of its business."""


def show(*, plain: bool) -> int:
    """Run the demo and print it; 0 where everything that it claims happened, else 1.

    Raises EnvironmentFailedError: no SDKs, a gateway or an app that does not start."""
    if not all(importlib.util.find_spec(name) for name in ("openai", "anthropic")):
        raise EnvironmentFailedError("demo: the openai and anthropic SDKs are missing; ./run.sh demo installs them")
    view = PlainView() if plain else RichView()
    with (_ended_by_signals(), tempfile.TemporaryDirectory(prefix="douane-demo-") as name,
          view.working("starting a provider and a gateway on this machine, then the app")):
        evidence = _play(Path(name))
    return 0 if view.show(evidence) else 1


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as ^C does, by way of every ``finally``."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _play(folder: Path) -> Evidence:
    """Everything happens here. *folder* takes all files."""
    real = {name: f"sk-real-{secrets.token_hex(16)}" for name in ("openai", "anthropic")}
    own = f"sk-app-{secrets.token_hex(16)}"
    free = Listen("127.0.0.1", 0)
    places = Places(folder / "policies", folder / "data", folder / "certs", proxy=free, admin=free)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    arrivals: list[Arrival] = []
    with running_provider(folder / "provider", script=_noting(arrivals)) as provider:
        rules = policy(provider)
        places.policies.mkdir()
        (places.policies / "demo.yaml").write_text(rules)
        log = folder / "gateway.log"
        keys = {f"DEMO_{name.upper()}_KEY": key for name, key in real.items()}
        with _gateway(places, log, {**inherited, **keys, "DOUANE_NODE": "demo"}):
            code, out, err = _app(places, {**inherited, "OPENAI_API_KEY": own})
            if code != 0:
                for key in (*real.values(), own):
                    err = err.replace(key, mask(key))
                raise EnvironmentFailedError(f"demo: the app ended with code {code}\n{err.strip()}")
            told = tuple(_told(json.loads(line)) for line in out.splitlines())
            reading = _read(places, folder, told, inherited)
    return Evidence(
        rules=rules[rules.index("chain:"):], told=told, said=out + err, arrivals=tuple(arrivals), **reading, real_keys=real,
        app_keys=tuple(sorted({own, *(one.key for one in told)})),
        kept=log.read_bytes() + b"".join(path.read_bytes() for path in places.data.rglob("*") if path.is_file()))


def _noting(arrivals: list[Arrival]) -> Script:
    """The provider's own behaviour; what it was asked and what it answered goes to *arrivals*."""
    behave = default_script()

    def script(seen: Seen) -> Answer:
        reply = behave(seen)
        if isinstance(reply, Reply):
            parts = [reply.body] if isinstance(reply.body, bytes) else reply.body
            ids = [value for name, value in reply.headers if name in ("x-request-id", "request-id")]
            arrivals.append(Arrival(seen, "".join(ids), b"".join(part for part in parts if isinstance(part, bytes))))
        return reply

    return script


def _told(line: dict[str, Any]) -> Told:
    return Told(**{**line, "pieces": tuple(line["pieces"])})


def _read(places: Places, folder: Path, told: tuple[Told, ...], environ: Mapping[str, str]) -> dict[str, Any]:
    """What ledger and log say, while the gateway runs: the fields of :class:`Evidence` of these names."""
    found = tuple(records(places.audit))
    call = told[0].id if told else ""
    budget, tail, shown, verified = (_command(line, places.data, environ) for line in (
        "budget", f"audit tail -n {sum(one['kind'] != 'event' for one in found)}", f"audit show {call}", "audit verify"))
    return {"records": found, "report": verify(places.audit), "balances": tuple(read_balances(places.data, time.time())),
            "budget": budget, "tail": tail, "shown": shown, "verified": verified,
            "tampered": _tampered(places.audit, folder / "copy", environ)}


def _tampered(audit: Path, copy: Path, environ: Mapping[str, str]) -> Tampered:
    """Make a copy of the log at *copy* in which the dearest call is a little dearer or cheaper."""
    shutil.copytree(audit, copy / "audit", ignore=shutil.ignore_patterns("lock"))
    file = next((copy / "audit").rglob("*.jsonl"))
    lines = file.read_text().splitlines(keepends=True)
    costs = [re.search(r'"cost_usd":[0-9.]+', line) for line in lines]
    at = max(range(len(lines)), key=lambda number: float(_number(costs[number])))
    before = costs[at][0] if costs[at] else ""  # type: ignore[index]
    after = re.sub(r"[1-9]", lambda digit: str((int(digit[0]) + 1) % 10), before, count=1)
    lines[at] = lines[at].replace(before, after, 1)
    file.write_text("".join(lines))
    said = _command("audit verify", copy, environ, f"audit verify --data {copy.name}")
    return Tampered(at + 1, before, after, verify(copy / "audit"),
                    Command(said.line, said.code, said.said.replace(f"{copy.parent}/", "")))


def _number(found: "re.Match[str] | None") -> str:
    return found[0].partition(":")[2] if found else "0"


def _command(line: str, data: Path, environ: Mapping[str, str], shown: str = "") -> Command:
    """Run ``douane LINE`` on *data*. *shown*: the line to show for it."""
    done = subprocess.run([*PYTHON, "-m", "douane", *line.split(), "--data", str(data)], env=dict(environ),  # noqa: S603
                          stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=APP_SECONDS, check=False)
    return Command(f"douane {shown or line}", done.returncode, (done.stdout + done.stderr).rstrip())


def policy(provider: LocalProvider) -> str:
    """The policy file of the demo. JSON's strings are YAML's, so no path can break it."""
    upstream = json.dumps({"upstream": provider.url, "ca": str(provider.ca)})
    return f"""\
version: 1
mode: enforce
principals:
  - {{name: demo-app, team: demo, cidr: [127.0.0.0/8, "::1/128"]}}
providers:                                  # the local provider plays both
  openai: {upstream}
  anthropic: {upstream}
credentials:                                # in the gateway's environment, not in the app's
  openai: env:DEMO_OPENAI_KEY
  anthropic: env:DEMO_ANTHROPIC_KEY
chain:
  - authenticate: {{unknown: deny}}
  - allow_models: {{models: [gpt-4*, claude-*]}}
  - redact: {{names: [Ada Lovelace]}}
  - budget: {{per: team, limit: 0.12 USD/day}}
  - swap_key: {{missing: deny}}
audit: {{level: redacted}}
"""


def _options(places: Places) -> list[str]:
    return ["--policies", str(places.policies), "--data", str(places.data), "--certs", str(places.certs)]


@contextlib.contextmanager
def _gateway(places: Places, log: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """``douane serve`` on free ports, until the block ends. Raises EnvironmentFailedError where it does not start."""
    words = ["serve", *_options(places), "--proxy", str(places.proxy), "--http", str(places.http), "--admin", str(places.admin)]
    with log.open("wb") as said, _started(words, environ, stdout=said, stderr=said) as process:
        _wait_until_it_answers(process, places, log)
        yield


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", places: Places, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            Client(places.control).close()
        except EnvironmentFailedError:
            time.sleep(0.02)
        else:
            return
    raise EnvironmentFailedError(f"demo: the gateway did not start\n{log.read_text(errors='replace').strip()}")


def _app(places: Places, environ: Mapping[str, str]) -> tuple[int, str, str]:
    """``douane run -- python -m douane.demo.app``: exit code, standard output, standard error."""
    words = ["run", *_options(places), "--as", "demo-app", "--tag", "run=demo", "--", *PYTHON, "-m", "douane.demo.app"]
    with _started(words, environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            out, err = process.communicate(timeout=APP_SECONDS)
        except subprocess.TimeoutExpired:
            raise EnvironmentFailedError(f"demo: the app did not end within {APP_SECONDS:g} s") from None
    return process.returncode, out, err


@contextlib.contextmanager
def _started(words: list[str], environ: Mapping[str, str], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """``douane WORDS…``, which has ended when the block is left, with all that it started. A signal that comes while it is
    being started waits until there is something to end."""
    came: list[int] = []
    with contextlib.ExitStack() as stack:
        before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _SIGNALS}
        try:
            process = subprocess.Popen([*PYTHON, "-m", "douane", *words], env=dict(environ),  # noqa: S603 - ourselves
                                       stdin=subprocess.DEVNULL, start_new_session=True, **options)
            stack.callback(_end, process)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if came:
            raise KeyboardInterrupt
        yield process


def _end(process: "subprocess.Popen[Any]") -> None:
    """End a process and what it started: each leads a group of its own. It has been waited for when this returns."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
