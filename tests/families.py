"""What every provider family's tests ask of its recorded traffic, by means other than the code under test."""

import contextlib
import gzip
import json
import os
import random
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2

from douane.answer import AnswerPipe
from douane.demo.provider import LocalProvider
from douane.placeholders import DataKey, Minter
from douane.providers.base import Operation, Wire
from douane.providers.by_host import ByHost
from douane.providers.framing import framing_of
from douane.providers.table import builtin
from douane.rehydrate import Restorer
from douane.restore import RestoreFilter
from tests import wire
from tests.gateway import Gateway, running_gateway

__all__ = ["PLACEHOLDER", "VALUE", "gateway_for", "identity_and_one_change", "leaves", "operation_of", "planted", "recorded",
           "restored_however_cut", "trusting", "walked"]

VALUE = 'Ann "the\\one" <ann@example.com>'
_MINTER = Minter(DataKey(b"k" * 32), "acme", {})
PLACEHOLDER = _MINTER.placeholder("EMAIL_ADDRESS", VALUE)
CUTS = int(os.environ.get("DOUANE_EXAMPLES", "2"))
_TABLE = ByHost(builtin().values())
_LIKE_A_TOKEN = re.compile(r"[A-Za-z0-9_.:/+=|~-]{1,256}")


def operation_of(record: dict[str, Any], table: ByHost = _TABLE) -> tuple[str, Operation | None]:
    where = wire.url(record)
    found = table.at(where.netloc, where.path)
    if found is None or found[1] is None:
        return "", None
    return found[0].name, found[0].operation(record["request"]["method"], found[1])


def recorded(*files: str) -> Iterator[tuple[dict[str, Any], Wire]]:
    """Records whose request is read, with how."""
    for record in wire.records(*files):
        row = operation_of(record)[1]
        if row is not None and row.wire is not None and record["request"].get("body"):
            yield record, row.wire


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from leaves(item, (*path, at))


def walked(positions: Iterable[Any], document: Any, opaque: Sequence[str]) -> int:
    """Every string stands in a position, but for tokens in *opaque* members. How many do."""
    found = {one.path: one.text for one in positions if not one.key}
    for path, text in leaves(document):
        if not text or found.get(path) == text:
            continue
        member = next(step for step in reversed(path) if isinstance(step, str))
        assert member in opaque, f"{path}: {text[:80]!r} is in no position"
        assert _LIKE_A_TOKEN.fullmatch(text), f"{path}: {text[:80]!r} is no token"
    assert found.items() <= dict(leaves(document)).items()
    return len(found)


def identity_and_one_change(spoken: Wire, body: bytes) -> None:
    document = spoken.read(body, b"application/json")
    places = [one for one in spoken.walk(document) if not one.key and not one.sealed]
    assert spoken.rewrite(body, b"application/json", document, {})[0] == body
    for one in places:
        new, read = spoken.rewrite(body, b"application/json", document, {(one.path, False): VALUE})
        there = dict(leaves(json.loads(new)))
        assert there.pop(one.path) == VALUE
        assert there == {path: text for path, text in leaves(document) if path != one.path}
        assert read == json.loads(new)
        head = next(at for at, (x, y) in enumerate(zip(body, new, strict=False)) if x != y)
        tail = next(at for at, (x, y) in enumerate(zip(body[::-1], new[::-1], strict=False)) if x != y)
        assert max(len(body), len(new)) - head - tail <= len(json.dumps(one.text)) + len(json.dumps(VALUE))


def _through(spoken: Wire, pieces: Iterable[bytes], kind: bytes, coding: bytes = b"") -> bytes:
    pipe = AnswerPipe(None, [RestoreFilter(Restorer(_MINTER.originals(), frozenset), deltas=spoken.deltas, array=spoken.array)],
                      1 << 24)
    head = ((b"content-type", kind), *([(b"content-encoding", coding)] if coding else []))
    pipe.start(head, coding, framing=None if coding else framing_of(kind))
    return b"".join([pipe.feed(piece) for piece in pieces]) + pipe.close()


def planted(texts: Sequence[str], chance: random.Random) -> list[str]:
    """As many pieces as there were, of the same text with placeholders round it."""
    new = f"{PLACEHOLDER} {''.join(texts)} {PLACEHOLDER}<EM"
    ends = sorted(chance.randrange(len(new) + 1) for _ in texts[1:])
    return [new[start:end] for start, end in zip([0, *ends], [*ends, len(new)], strict=True)]


def restored_however_cut(spoken: Wire, stream: bytes, kind: bytes, text_of: Callable[[bytes], Any], wanted: Any) -> None:
    chance = random.Random(len(stream))
    whole = _through(spoken, [stream], kind)
    assert text_of(whole) == wanted
    assert PLACEHOLDER.encode() not in whole
    for _ in range(CUTS):
        ends = sorted(chance.randrange(len(stream) + 1) for _ in range(12))
        pieces = [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]
        assert _through(spoken, pieces, kind) == whole
    assert _through(spoken, [stream[at:at + 1] for at in range(len(stream))], kind) == whole
    packed = gzip.compress(stream)
    assert _through(spoken, [packed[at:at + 97] for at in range(0, len(packed), 97)], kind, b"gzip") == whole


# -- a gateway and clients ---------------------------------------------------------------------------------------------

CHAIN = """  - authenticate: {unknown: deny}
  - allow_models: {models: [good*, costly]}
  - budget: {per: team, limit: 0.000001 USD/day, unbounded: insert 100}
    when: call.model == "costly"
  - swap_key: {missing: keep}"""


@contextlib.contextmanager
def gateway_for(base: Path, provider: LocalProvider, name: str, more: str = "") -> Iterator[Gateway]:
    """A gateway whose provider *name* is *provider*; the model ``costly`` is over its budget, ``bad`` is not allowed."""
    roots = f', ca: "{provider.ca}"' if provider.url.startswith("https") else ""
    text = f"""version: 1
principals:
  - {{name: local, team: dev, cidr: [127.0.0.0/8, "::1/128"]}}
providers:
  {name}: {{upstream: "{provider.url}"{roots}}}
prices: {{good: {{input: 1.0, output: 1.0}}, costly: {{input: 1000.0, output: 1000.0}}}}
audit: {{level: metadata}}
{more}
chain:
{CHAIN}
"""
    with running_gateway(base, text) as one:
        yield one


def trusting(gateway: Gateway) -> httpx2.Client:
    """Through the proxy."""
    return httpx2.Client(proxy=gateway.url, verify=ssl.create_default_context(cafile=str(gateway.ca)), trust_env=False)
