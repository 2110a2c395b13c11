"""Recorded bodies, broken by chance: each is read to its end or refused with a declared error, whatever has become of it.

``DOUANE_EXAMPLES``: how many hundred (10; ``./run.sh test --full`` takes 1000, which is 10⁵).
"""

import base64
import contextlib
import copy
import json
import os
import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from douane.errors import RefusedError
from douane.providers.base import Operation, Wire
from douane.providers.framing import framing_of
from douane.providers.table import builtin
from tests import wire as recorded

EXAMPLES = 100 * int(os.environ.get("DOUANE_EXAMPLES", "10"))
JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 1e300, 10**18, "", "x", "\ud800", "<EMAIL_ADDRESS_k3v7q2ma>", [], {}, [[]], {"a": 1}, [1, "x", None],
    {"type": "text", "text": "x"}, {"index": 10**9}, {"role": ["user"]}, {"type": {}}, "a" * 5000, "QUJD" * 100)
LARGEST = 20_000


@cache
def rows() -> list[tuple[Operation, dict[str, Any]]]:
    """Recorded exchanges whose operation has a wire, of each operation at most sixty."""
    table, found, seen = builtin(), [], dict[tuple[str, str], int]()
    for record in recorded.records():
        provider, path = table.get(record["provider"]), recorded.url(record).path
        row = provider.operation(record["request"]["method"].upper(), path) if provider is not None else None
        key = (record["provider"], record["operation"])
        if row is not None and row.wire is not None and seen.get(key, 0) < 60:
            seen[key] = seen.get(key, 0) + 1
            found.append((row, record))
    return found


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from nodes(item, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return value


def broken(chance: random.Random, body: bytes) -> bytes:
    """By its structure where it is JSON, else by its bytes."""
    if chance.random() < 0.7:
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if document is not None:
            for _ in range(chance.randrange(1, 4)):
                document = put(document, chance.choice(list(nodes(document))), chance.choice(JUNK))
            return json.dumps(document).encode()
    raw = bytearray(body)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(4):
            case 0:
                raw[at:at + 1] = bytes([chance.randrange(256)])
            case 1:
                del raw[at:at + chance.randrange(1, 40)]
            case 2:
                raw[at:at] = raw[:chance.randrange(60)]
            case _:
                raw[at:at] = chance.choice((b'"', b"{", b"[", b"\\", b"\r\n\r\n", b"data: ", b"\xff\xfe", b",", b"null"))
    return bytes(raw)


def ask(wire: Wire, body: bytes, kind: bytes, chance: random.Random) -> None:
    try:
        document = wire.read(body, kind)
    except ValueError:
        return
    wire.model(document)
    wire.stream(document)
    list(wire.unseen(document))
    positions = [one for one in wire.walk(document) if not one.sealed]
    if positions:
        one = chance.choice(positions)
        try:
            _, changed = wire.rewrite(body, kind, document, {(one.path, one.key): "z @ z"})
        except ValueError:
            return  # declared, and a denial: bytes that stand for no text cannot be written anew
        assert any(other.text == "z @ z" for other in wire.walk(changed))


def answered(wire: Wire, body: bytes, kind: bytes) -> None:
    framing = framing_of(kind, array=wire.array)
    meter = wire.meter(framing, ())
    meter.feed(body[:len(body) // 2])
    meter.feed(body[len(body) // 2:])
    meter.reading()
    try:
        document = json.loads(body) if framing is None else wire.assembled(body, framing)
    except ValueError:
        return
    if document is not None:
        json.dumps(document)
        list(wire.answered(document))


@pytest.mark.parametrize("share", range(2))
def test_every_broken_body_is_read_or_refused(share: int) -> None:
    chance = random.Random(share)
    for _ in range(EXAMPLES // 2):
        row, record = chance.choice(rows())
        assert row.wire is not None
        asked, said = record["request"], record["response"]
        kind = next((value for name, value in (asked.get("headers") or {}).items() if name.lower() == "content-type"), "")
        body = (asked.get("body") or "").encode("utf-8", "surrogatepass")
        if 0 < len(body) < LARGEST:
            ask(row.wire, broken(chance, body), str(kind or "application/json").encode(), chance)
        kind = next((value for name, value in (said.get("headers") or {}).items() if name.lower() == "content-type"), "")
        encoded = said.get("body_base64")
        body = base64.b64decode(encoded) if encoded else (said.get("body") or "").encode("utf-8", "surrogatepass")
        if 0 < len(body) < LARGEST:
            with contextlib.suppress(RefusedError):
                answered(row.wire, broken(chance, body), str(kind).encode())
