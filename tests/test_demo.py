"""The demo: it runs as a process, claims only what happened, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from douane.audit.verify import Bad, Report
from douane.demo.evidence import Evidence, Told, claims, mask
from douane.demo.questions import FORBIDDEN, QUESTIONS
from douane.demo.view import PlainView, RichView
from douane.demo.wire import Seen

DEMO = [sys.executable, "-m", "douane", "demo", "--plain"]
REAL = {"openai": "sk-real-" + "1" * 32, "anthropic": "sk-real-" + "2" * 32}
OWN = "sk-app-" + "3" * 32


def environ(folder: Path) -> dict[str, str]:
    """All temporary files go below *folder*; what would be another demo is set, and must not matter."""
    addons = str(Path(__file__).parent.parent / "addons")
    return {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": addons, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
            "ANTHROPIC_API_KEY": "sk-inherited", "DOUANE_POLICIES": "/nowhere", "NO_PROXY": "api.openai.com"}


def started_under(folder: Path) -> list[str]:
    """Command lines of the running processes that name *folder*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if os.fsencode(folder) in line:
                found.append(line.replace(b"\0", b" ").decode())
    return found


def test_it_shows_what_was_sent_what_left_and_what_came_back(tmp_path: Path) -> None:
    done = subprocess.run(DEMO, env=environ(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    said = done.stdout
    for part in ("1  openai SDK, plain", "2  openai SDK, streaming", "3  openai SDK, forbidden model",
                 "4  anthropic SDK, plain", "5  anthropic SDK, streaming",
                 "key      sk-app-", "key      sk-real-", "key      douane-", "left for the provider           nothing",
                 "raised   PermissionDeniedError", "verdict  deny model_not_allowed", "verdict  allow 200",
                 "outcome   demo-app  openai/chat gpt-5  deny model_not_allowed", "13 records, ok"):
        assert part in said
    assert [said.count(f"“{question}”") for question in QUESTIONS] == [2, 2, 1, 2, 2]
    assert said.count("You said: ") == 4
    assert re.findall(r"sk-(?:real|app)-[0-9a-f]{4,}", said) == [], "more of a key than its beginning"
    assert "NO " not in said[said.index("Checked"):]
    assert list(tmp_path.iterdir()) == []
    assert started_under(tmp_path) == []


def test_no_process_and_no_file_outlives_an_interrupt(tmp_path: Path) -> None:
    with subprocess.Popen(DEMO, env=environ(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as process:
        deadline = time.monotonic() + 20
        while not any(" serve " in line for line in started_under(tmp_path)):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == b""
    assert started_under(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_without_the_sdks_it_says_what_installs_them(tmp_path: Path) -> None:
    """A base install: the SDKs are hidden from the import system, nothing else changes."""
    hide = ("import sys\n"
            "from importlib import machinery as m\n"
            "real = m.PathFinder.find_spec\n"
            "m.PathFinder.find_spec = lambda name, *a: None if name in ('openai', 'anthropic') else real(name, *a)\n"
            "from douane.cli import main\n"
            "sys.exit(main(['demo']))\n")
    done = subprocess.run([sys.executable, "-c", hide], env=environ(tmp_path), capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == "douane: demo: the openai and anthropic SDKs are missing; ./run.sh demo installs them\n"


# -- the claims ----------------------------------------------------------------------------------------------------


def told(number: int, *, refused: bool = False) -> Told:
    stream = number in (1, 4)
    question = QUESTIONS[number]
    pieces = ("You said:", f" {question}") if stream else (f"You said: {question}",)
    return Told(
        sdk="openai" if number < 3 else "anthropic", model=FORBIDDEN if refused else f"m{number}", question=question,
        stream=stream, url="https://api.openai.com/v1", key=OWN, status=403 if refused else 200,
        body=f'{{"model": "m{number}", "messages": [{{"content": "{question}"}}]}}', pieces=() if refused else pieces,
        refused="PermissionDeniedError: no" if refused else "", code="model_not_allowed" if refused else "",
        id=f"{number:032x}")


def seen(one: Told) -> Seen:
    path = "/v1/messages" if one.sdk == "anthropic" else "/v1/chat/completions"
    key = (b"authorization", b"Bearer " + REAL[one.sdk].encode())
    return Seen(connection=1, target=path, headers=(key,), head=b"POST", body=one.body.encode())


def recorded(one: Told) -> list[dict[str, Any]]:
    if one.refused:
        verdict = {"action": "deny", "code": "model_not_allowed"}
        return [{"kind": "outcome", "id": one.id, "model": one.model, "verdict": verdict}]
    return [{"kind": "intent", "id": one.id, "model": one.model},
            {"kind": "outcome", "id": one.id, "model": one.model, "status": 200, "verdict": {"action": "allow"}}]


def report(bad: Bad | None = None, left_open: int = 0) -> Report:
    return Report(9, 1, ("n",), bad, (), None, None, {"n": "0" * 64}, left_open)


def evidence() -> Evidence:
    calls = tuple(told(number, refused=number == 2) for number in range(5))
    records: tuple[Mapping[str, Any], ...] = tuple(record for one in calls for record in recorded(one))
    return Evidence(told=calls, said="said", seen=tuple(seen(one) for one in calls if not one.refused), records=records,
                    report=report(), real_keys=REAL, app_keys=(OWN,), kept=b"kept")


def but(one: Evidence, at: int, **changes: Any) -> Evidence:
    """The same, with one call told otherwise."""
    return replace(one, told=(*one.told[:at], replace(one.told[at], **changes), *one.told[at + 1:]))


def but_seen(one: Evidence, **changes: Any) -> Evidence:
    """The same, with the first arrival otherwise."""
    return replace(one, seen=(replace(one.seen[0], **changes), *one.seen[1:]))


def test_what_happened_is_claimed() -> None:
    assert [claim for so, claim in claims(evidence()) if not so] == []


OK = evidence()
LIES = {
    "a call is missing": (replace(OK, told=OK.told[:4]), "the app ran"),
    "a refused call too many": (but(OK, 0, refused="PermissionDeniedError: no"), "the app ran"),
    "the app's key upstream": (but_seen(OK, headers=((b"x-api-key", OWN.encode()),)), "every call arrived"),
    "the wrong real key": (but_seen(OK, headers=((b"x-api-key", REAL["anthropic"].encode()),)), "every call arrived"),
    "the app's key in a head": (but_seen(OK, head=OWN.encode()), "no key that the app"),
    "the app's key in a body": (but_seen(OK, body=OWN.encode()), "no key that the app"),
    "a body changed": (but_seen(OK, body=OK.seen[0].body + b" "), "each body arrived"),
    "a body sent twice": (replace(OK, seen=(*OK.seen, OK.seen[0])), "each body arrived"),
    "another answer": (but(OK, 3, pieces=("You said: ",)), "each answer"),
    "a stream held back": (but(OK, 4, pieces=(OK.told[4].answer,)), "each answer"),
    "the forbidden model left": (replace(OK, seen=(*OK.seen, seen(OK.told[2]))), "gpt-5 never left"),
    "tried again": (replace(OK, records=(*OK.records, *recorded(OK.told[2]))), "gpt-5 never left"),
    "another exception": (but(OK, 2, refused="APIStatusError: no"), "gpt-5 never left"),
    "no intent": (replace(OK, records=OK.records[1:]), "the log has an intent"),
    "no outcome": (replace(OK, records=OK.records[:-1]), "the log has an intent"),
    "the app saw the key": (replace(OK, said=f"oh {REAL['openai']}"), "the app never saw"),
    "a key kept": (replace(OK, kept=REAL["anthropic"].encode()), "neither a key"),
    "the app's key kept": (replace(OK, kept=OWN.encode()), "neither a key"),
    "a question kept": (replace(OK, kept=QUESTIONS[1].encode()), "neither a key"),
    "a broken log": (replace(OK, report=report(Bad(Path("x"), 1, "changed"))), "the log verifies"),
    "a call left open": (replace(OK, report=report(left_open=1)), "the log verifies"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_did_not_happen_is_not_claimed(lie: str) -> None:
    made, claim = LIES[lie]
    assert any(text.startswith(claim) for so, text in claims(made) if not so)


@pytest.mark.parametrize("view", [PlainView, RichView])
def test_both_views_tell_the_same_and_no_key(view: type[PlainView | RichView], capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "132")
    assert view().show(evidence())
    said = capsys.readouterr().out
    assert mask(REAL["openai"]) in said
    assert mask(OWN) in said
    assert "PermissionDeniedError" in said
    assert not any(key in said for key in (*REAL.values(), OWN))
    assert not view().show(but_seen(evidence(), head=OWN.encode()))
    assert OWN not in capsys.readouterr().out
