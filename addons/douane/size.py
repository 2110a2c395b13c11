"""How many tokens a call may come to: its input as estimated (``ledger/estimate.py``), its output as its body bounds it."""

from dataclasses import dataclass, replace
from typing import Any

from douane.call import Call
from douane.ledger.estimate import UNSEEN, input_bound
from douane.policy import positions
from douane.providers.base import Bound, Wire
from douane.providers.edit import Path, member_at, put
from douane.providers.wires import read_json
from douane.verdict import Deny

__all__ = ["OF_THE_BYTES", "SILENT", "Size", "inserted", "output_bound", "size_of", "spelled"]

SILENT = frozenset({"embeddings", "rerank", "classify"})
"""Operations whose answers have no tokens that are billed."""
OF_THE_BYTES = frozenset({b"content-encoding", b"content-md5", b"digest", b"content-digest"})
"""Headers of a body in which no byte can be changed."""
_MOST = 10_000_000
"""Tokens, or choices, that one call may ask for; more is a slip or an attack on our arithmetic."""


@dataclass(frozen=True, slots=True)
class Size:
    input: int
    output: int | None
    """Of one answer, at most; None: the call states no bound."""
    answers: int = 1
    """How many are made, each as long."""
    known: bool = True
    """False: the body says nothing of its tokens; *input* is a guess."""

    def tokens(self, assumed: int) -> tuple[int, int]:
        """(input, output), where a call without a bound makes *assumed*."""
        return self.input, (assumed if self.output is None else self.output) * self.answers


_UNKNOWN = Size(UNSEEN, None, known=False)


def size_of(call: Call, wire: Wire | None) -> Size:
    """Raises ValueError where a bound is no count."""
    if wire is None or not isinstance(call.document, dict):
        return _UNKNOWN
    of, silent = wire.bound, call.operation in SILENT
    if not of.stated and not silent:
        return _UNKNOWN
    given = input_bound(call.provider, call.document, (one.text for one in positions(call, wire)), call.model)
    given += _token_ids(call.document) + call.context
    if silent:
        return Size(given, 0)
    return Size(given, output_bound(of, call.document), _answers(of, call.document))


def output_bound(of: Bound, document: Any) -> int | None:
    """Tokens that one choice may have at most, as the call itself says; None where it does not. Raises ValueError."""
    stated = [value for path in of.stated if (value := _whole(document, path)) is not None]
    return max(stated) if stated else None


def spelled(path: Path) -> str:
    return ".".join(map(str, path))


def inserted(call: Call, of: Bound, bound: int) -> Call | Deny:
    """The call with a bound put in: every other byte stays."""
    if of.insert is None or not OF_THE_BYTES.isdisjoint(name for name, _ in call.headers):
        return Deny("budget_exceeded", "the call states no bound for its output, and none can be inserted in such a body")
    if any(path[-1] in holder for path in of.stated
           if isinstance(holder := member_at(call.document, path[:-1]), dict) and holder.get(path[-1]) is None):
        return Deny("bad_request", "a bound of null is none: leave the member out, so that one can be inserted")
    try:
        body = put(call.body, _beside(of, call.document), b"%d" % bound)
    except ValueError as error:
        return Deny("bad_request", str(error))
    return replace(call, body=body, document=read_json(body))


def _beside(of: Bound, document: object) -> Path:
    """Where the bound goes: into the object that the call has, where a format knows it by two names."""
    path = of.insert or ()
    beside = (one for one in of.stated
              if len(one) > 1 and len(one) == len(path) and isinstance(member_at(document, one[:-1]), dict))
    return next(beside, path) if len(path) > 1 and member_at(document, path[:-1]) is None else path


def _answers(of: Bound, document: Any) -> int:
    """How many answers are made, each as long as the bound. Raises ValueError."""
    choices = [_whole(document, path) or 1 for path in (of.choices, *of.tries) if path is not None]
    asked = None if of.each is None else member_at(document, of.each)
    many = len(asked) if isinstance(asked, list) and not all(isinstance(one, int) for one in asked) else 1
    return max(choices, default=1) * many


def _token_ids(document: Any) -> int:
    """Tokens that are given as numbers, alone or in lists."""
    found = 0
    for name in ("input", "prompt"):
        given = document.get(name)
        for one in given if isinstance(given, list) else ():
            found += len(one) if isinstance(one, list) else isinstance(one, int)
    return found


def _whole(document: Any, path: Path) -> int | None:
    value = member_at(document, path)
    if value is None or value == "inf" or (value == -1 and path[-1] == "num_predict"):  # Realtime's, Ollama's word for no bound
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise ValueError(f"{spelled(path)} must be a whole number, up to {_MOST}")
    return value
