"""``when``: CEL over ``principal``, ``call`` and ``now``.

Law: a condition that cannot be decided is neither true nor false; it raises, and the entry's ``on_error`` speaks.
Checked at load: syntax, names, types, and that the answer is a bool. Evaluation is bounded by the CEL library itself:
RE2 for ``matches``, an iteration budget for ``all``, ``exists`` and ``map``, a recursion limit of 32.

Seen are names and labels, no header, query, body or key. The library is imported with the first expression only.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from douane.call import Call
from douane.errors import ConfigError, DouaneError
from douane.source import suggest

if TYPE_CHECKING:
    from cel_expr_python import cel  # type: ignore[import-untyped]

__all__ = ["MAX_CHARACTERS", "VARIABLES", "UndecidedError", "compile_condition"]

MAX_CHARACTERS = 4096


class UndecidedError(DouaneError):
    """A condition that gave no answer, such as one that asks for a tag that is not there."""


VARIABLES: Mapping[str, tuple[str, Callable[[Call], Any]]] = MappingProxyType({
    "principal.name": ("STRING", lambda call: call.principal.name),
    "principal.team": ("STRING", lambda call: call.principal.team),
    "principal.org": ("STRING", lambda call: call.principal.org),
    "principal.user": ("STRING", lambda call: call.principal.user),
    "principal.agent": ("STRING", lambda call: call.principal.agent),
    "principal.tags": ("MAP", lambda call: dict(call.principal.tags)),
    "call.provider": ("STRING", lambda call: call.provider),
    "call.operation": ("STRING", lambda call: call.operation),
    "call.model": ("STRING", lambda call: call.model),
    "call.host": ("STRING", lambda call: call.host),
    "call.method": ("STRING", lambda call: call.method),
    "call.path": ("STRING", lambda call: call.path),
    "call.stream": ("BOOL", lambda call: call.stream),
    "now": ("TIMESTAMP", lambda call: datetime.fromtimestamp(call.at, UTC)),
})
"""Name → (CEL type, how to take it from a call). ``now`` is when the call came; MAP is of text to text."""

_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)'")


@cache
def _environment() -> "cel.Env":
    from cel_expr_python import cel

    kinds = {"STRING": cel.Type.STRING, "BOOL": cel.Type.BOOL, "TIMESTAMP": cel.Type.TIMESTAMP,
             "MAP": cel.Type.Map(cel.Type.STRING, cel.Type.STRING)}
    return cel.NewEnv(variables={name: kinds[kind] for name, (kind, _) in VARIABLES.items()})


def compile_condition(text: str) -> Callable[[Call], bool]:
    """The function that decides *text* for a call: 2 µs, 7 with ``matches`` (measured).

    Raises ConfigError (what is wrong, and at which column); the function raises UndecidedError."""
    if len(text) > MAX_CHARACTERS or not text.replace("\n", " ").replace("\t", " ").isprintable():
        raise ConfigError(f"an expression is at most {MAX_CHARACTERS} printable characters")
    environment = _environment()
    try:
        expression = environment.compile(text)
    except RuntimeError as error:  # what the binding raises for every status
        raise ConfigError(_complaint(str(error))) from None
    if expression.return_type().name() != "BOOL":
        raise ConfigError(f"the expression is {expression.return_type().name()}: it must be true or false (BOOL)")
    # The checked expression names what it refers to: a superset (a text may hold such a name) costs time, no more.
    serialized = expression.serialize()
    used = tuple((name, take) for name, (_, take) in VARIABLES.items() if name.encode() in serialized)

    def decide(call: Call) -> bool:
        try:
            answer = expression.eval(data={name: take(call) for name, take in used}).value()
        except (RuntimeError, ValueError, OverflowError) as error:
            raise UndecidedError(f"`{text}` cannot be decided: {type(error).__name__}") from None
        if answer is True or answer is False:
            return bool(answer)
        raise UndecidedError(f"`{text}` cannot be decided: {str(answer)[:200]}")

    return decide


def _complaint(message: str) -> str:
    """CEL's message as one line: ``column 10: undeclared reference to 'principal.nix'; …``."""
    found = _ERROR.findall(message)
    if not found:
        return message.splitlines()[0][:300]
    parts = []
    unknown: list[str] = []
    for line, column, reason in found:
        where = f"line {line}, column {column}: " if line not in ("1", "-1") else f"column {column}: "
        text = reason.replace(" (in container '')", "").replace(" [INVALID_ARGUMENT]", "")
        unknown += _UNDECLARED.findall(text)
        parts.append(text if column == "-1" else where + text)
    return "; ".join(parts) + (suggest(unknown[0], VARIABLES) if unknown else "")
