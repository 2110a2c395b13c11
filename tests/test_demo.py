"""The demo: it runs as a process, claims only what happened, and leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from douane.audit.verify import Bad, Report
from douane.demo.evidence import Arrival, Command, Evidence, Tampered, Told, left_as, mask, wire_text
from douane.demo.questions import DEAR, FORBIDDEN, FORM, FORM_VALUES, LETTER, PAGES, PERSONAL, REFUND
from douane.demo.show import _noting
from douane.demo.story import story
from douane.demo.view import PlainView, RichView
from douane.demo.wire import Seen
from douane.ledger.base import NANO, Account, Balance

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


def test_it_shows_four_scenes_and_checks_what_it_shows(tmp_path: Path) -> None:
    done = subprocess.run(DEMO, env=environ(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    said = done.stdout
    assert re.search(r"^All \d\d claims were checked in this run and hold\.$", said, re.MULTILINE)
    assert "   NO  " not in said
    start, personal, money, model, log = re.split(r"^\d  .*$", said, flags=re.MULTILINE)
    assert "  - redact: {names: [Ada Lovelace]}\n" in start
    sent, got, back = personal.index("the app sent"), personal.index("the provider got"), personal.index("the app got back")
    for name, value in FORM_VALUES.items():
        assert f"{name}: {value}" in personal[sent:got]
        assert re.search(rf"{name}: <{PERSONAL[value]}_[a-z2-7]{{8}}>", personal[got:back])
        assert re.search(rf"^ +{name} +{re.escape(value)}$", personal[back:], re.MULTILINE)
    assert f"says     You said: {LETTER}\n" in personal[back:]
    assert money.count("200 answered") == 3
    assert "openai.RateLimitError (429 insufficient_quota): the budget of team 'demo' has 0.026562 USD left" in money
    assert "anthropic.PaymentRequiredError (402 billing_error): the budget of team 'demo'" in money
    assert re.search(r"^ +team +demo +- +day .* 0\.120000  0\.093438  0\.000000  0\.026562  USD$", money, re.MULTILINE)
    assert "raised   PermissionDeniedError" in model
    assert re.search(r"and answered +nothing$", model, re.MULTILINE)
    assert "deny budget_exceeded" in log
    assert re.search(r"^   ok$", log, re.MULTILINE)
    line = re.search(r"changed in line (\d+) of a copy", log)
    assert line is not None
    assert f"BAD: copy/audit/demo/000001.jsonl:{line[1]}: changed: its hash does not fit its bytes" in log
    assert re.findall(r"sk-(?:real|app)-[0-9a-f]{4,}", said) == [], "more of a key than its beginning"
    assert list(tmp_path.iterdir()) == []
    assert started_under(tmp_path) == []


def test_where_a_fact_is_broken_it_says_so_and_leaves_with_1(tmp_path: Path) -> None:
    """The same run, under a policy file that does not redact."""
    without = ("import sys\n"
               "from douane.demo import show\n"
               "real = show.policy\n"
               "show.policy = lambda provider: real(provider).replace('  - redact: {names: [Ada Lovelace]}\\n', '')\n"
               "sys.exit(show.show(plain=True))\n")
    done = subprocess.run([sys.executable, "-c", without], env=environ(tmp_path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "   NO   every value left as a placeholder" in done.stdout
    assert "   yes  every call arrived with the real key" in done.stdout
    assert re.search(r"^\d of \d\d claims do NOT hold\.$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """A background job of a shell, as CI may be, ignores SIGINT, and so does what it starts: but not what handles it here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
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

MARKS = {value: f"<{kind}_{'a' * 8}>" for value, kind in PERSONAL.items()}


def swapped(text: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def made() -> Evidence:
    """What a good run leaves, without one: the provider's own script answers."""
    told: list[Told] = []
    records: list[Mapping[str, Any]] = []
    arrivals: list[Arrival] = []
    provider = _noting(arrivals)
    for question in (FORM, LETTER, *PAGES[:3], DEAR, FORBIDDEN):
        sdk = "anthropic" if question in (LETTER, DEAR) else "openai"
        name, kind = {PAGES[2]: ("RateLimitError", "insufficient_quota"), DEAR: ("PaymentRequiredError", "billing_error"),
                      FORBIDDEN: ("PermissionDeniedError", "")}.get(question, ("", ""))
        status = {"RateLimitError": 429, "PaymentRequiredError": 402, "PermissionDeniedError": 403}.get(name, 200)
        stream, code = question in (FORM, LETTER), "model_not_allowed" if question == FORBIDDEN else "budget_exceeded"
        model = f"m{len(told)}"
        asked = {"model": model, "max_tokens": 99, "stream": stream, "messages": [{"role": "user", "content": question}]}
        body = json.dumps({**asked, "tools": [REFUND]} if question == FORM else asked)
        known = {"id": f"{len(told):032x}", "model": model}
        one = Told(sdk=sdk, model=model, question=question, stream=stream, url="https://api.example/v1", body=body,
                   key=OWN, status=status, pieces=(), tool="", refused=name, error={"type": kind, "message": "no"},
                   code=code if name else "", id=known["id"], request="")
        if name:
            records.append({**known, "kind": "outcome", "verdict": {"action": "deny", "code": code}, "cost_usd": 0.0})
            told.append(one)
            continue
        key = (b"authorization", b"Bearer " + REAL[sdk].encode())
        target = "/v1/messages" if sdk == "anthropic" else "/v1/chat/completions"
        provider(Seen(connection=1, number=len(told), target=target, method="POST", head=b"POST",
                      headers=(key, (b"anthropic-version", b"1")) if sdk == "anthropic" else (key,),
                      body=swapped(body, MARKS).encode()))
        tool, text = wire_text(arrivals[-1].answer)
        back = swapped(text, {mark: value for value, mark in MARKS.items()})
        pieces = (back[:9], back[9:]) if stream else (back,)
        told.append(replace(one, tool=tool, pieces=pieces, request=arrivals[-1].id))
        response = {"text": text, "assembled": True}
        records += [{**known, "kind": "intent", "request": {"text": swapped(body, MARKS)}},
                    {**known, "kind": "outcome", "verdict": {"action": "allow"}, "cost_usd": 0.01, "response": response}]
    spent = Balance(Account("", "", "team", "demo", "usd", "day", 0, 86400), 4 * NANO // 100, 0, NANO // 20)
    bad = replace(REPORT, first_bad=Bad(Path("x"), 7, "changed"))
    return Evidence(
        rules="  - redact: {}", told=tuple(told), said="said", arrivals=tuple(arrivals), records=tuple(records),
        balances=(spent,), report=REPORT, real_keys=REAL, app_keys=(OWN,), kept=b"kept", budget=Command("budget", 0, "left"),
        tail=Command("tail", 0, "2026-01-02T03:04 intent"), shown=Command("show", 0, "id\n\nuser"),
        verified=Command("verify", 0, "ok"), tampered=Tampered(7, "0.1", "0.2", bad, Command("verify", 1, "BAD: x:7: no")))


REPORT = Report(9, 1, ("n",), None, (), None, None, {"n": "0" * 64}, 0)
OK = made()


def claimed(one: Evidence) -> list[tuple[bool, str]]:
    return [claim for scene in story(one) for claim in scene.claims]


def told(at: int, **changes: Any) -> Evidence:
    """The same, with one call told otherwise."""
    return replace(OK, told=(*OK.told[:at], replace(OK.told[at], **changes), *OK.told[at + 1:]))


def seen(at: int, **changes: Any) -> Evidence:
    """The same, with one arrival otherwise."""
    one = replace(OK.arrivals[at], seen=replace(OK.arrivals[at].seen, **changes))
    return replace(OK, arrivals=(*OK.arrivals[:at], one, *OK.arrivals[at + 1:]))


def body(at: int, change: Callable[[bytes], bytes]) -> Evidence:
    return seen(at, body=change(OK.arrivals[at].seen.body))


def answered(at: int, change: Callable[[bytes], bytes]) -> Evidence:
    one = replace(OK.arrivals[at], answer=change(OK.arrivals[at].answer))
    return replace(OK, arrivals=(*OK.arrivals[:at], one, *OK.arrivals[at + 1:]))


def recorded(at: int, **changes: Any) -> Evidence:
    return replace(OK, records=(*OK.records[:at], {**OK.records[at], **changes}, *OK.records[at + 1:]))


def test_what_happened_is_claimed() -> None:
    assert [claim for so, claim in claimed(OK) if not so] == []
    assert len(claimed(OK)) == 14
    assert left_as(OK.told[0], OK.arrivals[0]) == {value: MARKS[value] for value in FORM_VALUES.values()}


EMAIL = FORM_VALUES["email"].encode()
MARK = MARKS[FORM_VALUES["email"]].encode()
OTHER = MARK.replace(b"aaaa", b"bbbb")
TEXT = OK.told[1].answer
LIES: dict[str, tuple[Evidence, str]] = {
    "a value left": (body(0, lambda it: it.replace(MARK, EMAIL)), "every value left"),
    "a value left with another call": (body(3, lambda it: it + EMAIL), "every value left"),
    "a value left in a header": (seen(3, head=EMAIL), "every value left"),
    "a placeholder of another type": (body(0, lambda it: it.replace(b"<EMAIL_ADDRESS", b"<PERSON")), "every value left"),
    "more of a body changed": (body(1, lambda it: it.replace(b"Draft", b"draft")), "every value left"),
    "one call is missing": (replace(OK, told=OK.told[1:]), "every value left"),
    "another placeholder": (body(1, lambda it: it.replace(MARK, OTHER)), "the same address"),
    "the provider knew a value": (answered(1, lambda it: it + b": " + EMAIL), "the answers held"),
    "the app got a placeholder": (told(1, pieces=(TEXT[:9], TEXT[9:].replace(EMAIL.decode(), MARK.decode()))), "the answers"),
    "a stream held back": (told(1, pieces=(TEXT,)), "the answers held"),
    "another tool": (told(0, tool="other"), "the answers held"),
    "the arguments are none": (told(0, pieces=('{"', "email")), "the answers held"),
    "the app's key upstream": (seen(0, headers=((b"x-api-key", OWN.encode()),)), "every call arrived"),
    "the wrong real key": (seen(0, headers=((b"x-api-key", REAL["anthropic"].encode()),)), "every call arrived"),
    "the app's key in a body": (seen(2, body=OWN.encode()), "every call arrived"),
    "the app saw the key": (replace(OK, said=f"oh {REAL['openai']}"), "the app never saw"),
    "a byte more": (body(2, lambda it: it + b" "), "what holds no"),
    "another answer": (told(2, pieces=("no",)), "what holds no"),
    "one page only": (replace(OK, told=(*OK.told[:3], *OK.told[4:])), "what holds no"),
    "all pages were answered": (replace(OK, told=(*OK.told[:4], *OK.told[5:])), "when it was spent"),
    "another exception": (told(4, refused="APIStatusError"), "when it was spent"),
    "another error": (told(5, error={"type": "api_error"}), "when it was spent"),
    "tried again": (replace(OK, records=(*OK.records, {**OK.records[8], "id": "x"})), "when it was spent"),
    "it went on all the same": (body(3, lambda _: PAGES[2].encode()), "when it was spent"),
    "charged otherwise": (recorded(1, cost_usd=0.010000001), "the ledger charged"),
    "something is still held": (replace(OK, balances=(replace(OK.balances[0], reserved=1),)), "the ledger charged"),
    "over the limit": (replace(OK, balances=(replace(OK.balances[0], limit=1),)), "the ledger charged"),
    "the model was allowed": (told(6, status=200), "it never left"),
    "the model's call left": (body(3, lambda _: FORBIDDEN.encode()), "it never left"),
    "no intent": (replace(OK, records=OK.records[1:]), "an intent and"),
    "no outcome": (replace(OK, records=OK.records[:-1]), "an intent and"),
    "the log has another text": (recorded(0, request={"text": "other"}), "the log holds"),
    "the log has no placeholder": (recorded(3, response={"text": "", "assembled": True}), "the log holds"),
    "the log has no answer": (recorded(1, response=None), "the log holds"),
    "a key kept": (replace(OK, kept=REAL["anthropic"].encode()), "no key and"),
    "the app's key kept": (replace(OK, kept=OWN.encode()), "no key and"),
    "a value kept": (replace(OK, kept=b"x" + EMAIL), "no key and"),
    "a broken log": (replace(OK, report=replace(REPORT, first_bad=Bad(Path("x"), 1, "changed"))), "the log verifies"),
    "a call left open": (replace(OK, report=replace(REPORT, open=1)), "the log verifies"),
    "the command says no": (replace(OK, verified=Command("verify", 1, "BAD")), "the log verifies"),
    "a change not seen": (replace(OK, tampered=replace(OK.tampered, report=REPORT)), "one byte changed"),
    "another line": (replace(OK, tampered=replace(OK.tampered, line=8)), "one byte changed"),
    "nothing was changed": (replace(OK, tampered=replace(OK.tampered, after="0.1")), "one byte changed"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_did_not_happen_is_not_claimed(lie: str) -> None:
    one, claim = LIES[lie]
    assert any(text.startswith(claim) for so, text in claimed(one) if not so)


@pytest.mark.parametrize("view", [PlainView, RichView])
def test_both_views_tell_the_same_and_no_key(view: type[PlainView | RichView], capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "108")
    assert view().show(OK)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 108 or view is PlainView
    for part in (mask(REAL["openai"]), mask(OWN), MARK.decode(), EMAIL.decode(), "PermissionDeniedError", "BAD: x:7: no",
                 "All 14 claims were checked"):
        assert part in said
    assert not any(key in said for key in (*REAL.values(), OWN))
    assert not view().show(seen(0, head=OWN.encode()))
    said = capsys.readouterr().out
    assert OWN not in said
    assert "1 of 14 claims do NOT hold" in said
