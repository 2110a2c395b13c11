"""Structured logs: one JSON object a line on stderr, or one plain line for a person's terminal.

Law 7: a log line holds what the code passed by name; no headers, bodies, queries, and of an exception its type and place
alone. Libraries speak at WARNING and above; mitmproxy's at ERROR, for its warnings quote bytes of the wire.
"""

import json
import logging
import sys
from datetime import UTC, datetime

__all__ = ["setup", "where"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def where(error: BaseException) -> str:
    """``ValueError at policies/redact.py:41 in admit``: what a log may say of an exception. Its message may quote a text
    or a key, so it is never shown."""
    trace = error.__traceback__
    if trace is None:
        return type(error).__name__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{type(error).__name__} at {'/'.join(code.co_filename.split('/')[-2:])}:{trace.tb_lineno} in {code.co_name}"


def _message(record: logging.LogRecord) -> str:
    """asyncio's lines go on with the ``repr`` of a task, in which the exception is quoted: only their first is shown."""
    said = record.getMessage()
    return said.partition("\n")[0] if record.name == "asyncio" else said


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "level": record.levelname.lower(), "logger": record.name, "message": _message(record)}
        line.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info and record.exc_info[1]:
            line["exception"] = where(record.exc_info[1])
        return json.dumps(line, default=str, ensure_ascii=False)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = " ".join(f"{name}={value}" for name, value in vars(record).items() if name not in _STANDARD)
        line = f"{record.levelname.lower()}: {_message(record)}" + (f" ({said})" if said else "")
        if record.exc_info and record.exc_info[1]:
            line += f": {where(record.exc_info[1])}"
        return line


class _Named(logging.Filter):
    """Adds ``worker`` to every line."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        record.worker = self._worker
        return True


def setup(*, as_json: bool | None = None, worker: int = 0) -> None:
    """Install the handler. *as_json* None: plain on a terminal, JSON elsewhere. *worker*: which of several speaks; 0: there
    is one process."""
    plain = sys.stderr.isatty() if as_json is None else not as_json
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain() if plain else _Json())
    if worker:
        handler.addFilter(_Named(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("douane").setLevel(logging.INFO)
    logging.getLogger("mitmproxy").setLevel(logging.ERROR)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
