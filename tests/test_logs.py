"""Log lines: their two forms, and what is never in one."""

import asyncio
import gc
import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from douane import logs
from douane.logs import where
from douane.secrets import Secret

LOG = logging.getLogger("douane.test")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    names = ("", "douane", "mitmproxy", "uvicorn", "asyncio")
    before = [(one, one.level, one.handlers[:]) for one in map(logging.getLogger, names)]
    yield
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers[:] = handlers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def installed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False, as_json: bool | None = None) -> io.StringIO:
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logs.setup(as_json=as_json)
    return out


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    out = installed(monkeypatch)
    LOG.info("a %s é\n", "café", extra={"douane_id": "1a", "key": Secret("sk-" + "canary" * 3), "n": 3})
    LOG.warning("second")
    first, second = map(json.loads, out.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("at"))
    assert first == {"level": "info", "logger": "douane.test", "message": "a café é\n", "douane_id": "1a",
                     "key": "Secret(***)", "n": 3}
    assert (second["level"], second["message"]) == ("warning", "second")


def test_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    out = installed(monkeypatch, as_json=False)
    LOG.error("it failed", extra={"policy": "redact", "n": 3})
    LOG.info("done")
    assert out.getvalue() == "error: it failed (policy=redact n=3)\ninfo: done\n"


@pytest.mark.parametrize(("terminal", "as_json", "is_json"), [
    (True, None, False), (False, None, True), (True, True, True), (False, False, False),
])
def test_which_form(monkeypatch: pytest.MonkeyPatch, terminal: bool, as_json: bool | None, is_json: bool) -> None:
    out = installed(monkeypatch, terminal=terminal, as_json=as_json)
    LOG.info("x")
    assert out.getvalue().startswith("{") is is_json


def test_libraries_speak_only_of_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    out = installed(monkeypatch, as_json=False)
    LOG.debug("ours, too fine")
    logging.getLogger("httpx").info("a URL")
    logging.getLogger("mitmproxy.proxy").warning("bytes of the wire")
    logging.getLogger("uvicorn.error").error("a traceback")
    assert out.getvalue() == ""
    logging.getLogger("httpx").warning("odd")
    assert out.getvalue() == "warning: odd\n"


def failed(text: str) -> Exception:
    try:
        json.loads(f'{{"{text}"')
    except ValueError as inner:
        try:
            raise KeyError(text) from inner
        except KeyError as error:
            return error
    raise AssertionError


def test_where_names_type_and_place_never_the_message() -> None:
    assert re.fullmatch(r"KeyError at tests/test_logs\.py:\d+ in failed", where(failed("canary")))
    assert where(ValueError("canary")) == "ValueError"
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads('{"canary"')
    assert re.fullmatch(r"JSONDecodeError at json/decoder\.py:\d+ in \w+", where(caught.value))


@pytest.mark.parametrize("as_json", [True, False])
def test_an_exception_in_a_line_is_its_type_and_place(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    out = installed(monkeypatch, as_json=as_json)
    LOG.error("a thing failed", exc_info=failed("canary"))
    assert "canary" not in out.getvalue()
    assert "KeyError at tests/test_logs.py:" in out.getvalue()
    assert len(out.getvalue().splitlines()) == 1


def test_a_task_nobody_waited_for_does_not_tell_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio itself logs it, with the exception in its text."""
    out = installed(monkeypatch)

    async def fails() -> None:
        raise ValueError("canary")

    async def work() -> None:
        task = asyncio.ensure_future(fails())
        await asyncio.sleep(0)
        del task
        gc.collect()

    asyncio.run(work())
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert "canary" not in json.dumps(line)
    assert line["message"] == "Task exception was never retrieved"
    assert re.search(r"ValueError at tests/test_logs\.py:\d+ in fails", line["exception"])
