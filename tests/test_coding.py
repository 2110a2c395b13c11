"""Content codings: the same bytes however cut, refused where unknown, bounded whatever the body promises."""

import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from douane.coding import CODINGS, Decoder, coding_of, decode
from douane.errors import RefusedError

TEXT = ('{"messages": "é🙂 ' + "customs house " * 40 + '"}').encode()
LIMIT = 1 << 20


def raw_deflate(body: bytes) -> bytes:
    work = zlib.compressobj(wbits=-15)
    return work.compress(body) + work.flush()


def zstd_stream(body: bytes) -> bytes:
    work = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return work.compress(body) + work.flush()


ENCODE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "two members": ("gzip", lambda body: gzip.compress(body[:50]) + gzip.compress(body[50:])),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.compress),
    "two frames": ("zstd", lambda body: zstandard.compress(body[:50]) + zstandard.compress(body[50:])),
    "zstd stream": ("zstd", zstd_stream),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
}


def refusal(body: bytes, coding: str, limit: int = LIMIT) -> str:
    with pytest.raises(RefusedError) as refused:
        decode(body, coding, limit)
    return refused.value.code


@pytest.mark.parametrize("name", ENCODE)
def test_cut_at_every_byte(name: str) -> None:
    coding, encode = ENCODE[name]
    body = encode(TEXT)
    assert decode(body, coding, LIMIT) == TEXT
    for place in range(len(body) + 1):
        work = Decoder(coding, LIMIT)
        assert work.feed(body[:place]) + work.feed(b"") + work.feed(body[place:]) == TEXT
        work.close()
    work = Decoder(coding, LIMIT)
    assert b"".join(work.feed(body[at:at + 1]) for at in range(len(body))) == TEXT
    work.close()


@pytest.mark.parametrize("name", [name for name in ENCODE if name != "identity"])
def test_truncated_at_every_byte(name: str) -> None:
    coding, encode = ENCODE[name]
    body = encode(TEXT)
    first = len((gzip if coding == "gzip" else zstandard).compress(TEXT[:50])) if name.startswith("two") else 0
    for place in range(1, len(body)):
        work = Decoder(coding, LIMIT)
        assert TEXT.startswith(work.feed(body[:place]))
        if place == first:
            work.close()  # the first member or frame, whole
            continue
        with pytest.raises(RefusedError) as refused:
            work.close()
        assert refused.value.code == "bad_request"


@pytest.mark.parametrize("coding", CODINGS)
def test_garbage_and_bytes_after_the_end(coding: str) -> None:
    encode = ENCODE[coding][1]
    assert refusal(b"\x07this is not it at all" * 10, coding) == "bad_request"
    assert refusal(encode(TEXT) + b"\x07trailing", coding) == "bad_request"
    assert decode(b"", coding, LIMIT) == b""
    chance = random.Random(7)
    for _ in range(300):
        broken = bytearray(encode(TEXT))
        broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        with suppress(RefusedError):  # and no other; codings without a checksum may not notice
            decode(bytes(broken), coding, LIMIT)


@pytest.mark.parametrize("coding", ["identity", *CODINGS])
def test_the_limit_is_exact(coding: str) -> None:
    body = ENCODE[coding][1](TEXT)
    assert decode(body, coding, len(TEXT)) == TEXT
    assert refusal(body, coding, len(TEXT) - 1) == "too_large"
    assert decode(body, coding, 1 << 62) == TEXT


@pytest.mark.parametrize(
    "value", ["gzip, gzip", "gzip,br", "identity, gzip", "compress", "aes128gcm", "gzip;q=1", "br br"])
def test_unknown_and_stacked_codings_are_refused(value: str) -> None:
    assert refusal(b"x", value) == "unsupported_coding"
    with pytest.raises(RefusedError) as refused:
        coding_of(((b"content-encoding", value.encode()),))
    assert refused.value.code == "unsupported_coding"


def test_every_field_counts() -> None:
    assert coding_of(()) == "identity"
    assert coding_of(((b"content-encoding", b" GZIP "), (b"content-type", b"x"))) == "gzip"
    with pytest.raises(RefusedError):
        coding_of(((b"content-encoding", b"gzip"), (b"content-encoding", b"gzip")))


BOMB = """
import gzip, resource, sys, zlib
import brotli, zstandard
from douane.coding import Decoder
from douane.errors import RefusedError

def bomb(coding):
    zeros = bytes(1 << 20)
    if coding == "gzip":
        work = zlib.compressobj(9, wbits=31); end = lambda: work.flush()
    elif coding == "deflate":
        work = zlib.compressobj(9); end = lambda: work.flush()
    elif coding == "zstd":
        work = zstandard.ZstdCompressor(level=3).compressobj(); end = lambda: work.flush()
    else:
        return brotli.compress(bytes(300 << 20), quality=5, lgwin=18)
    return b"".join(work.compress(zeros) for _ in range(300)) + end()

if sys.argv[1] == "make":
    sys.stdout.buffer.write(bomb(sys.argv[2]))
else:
    body = sys.stdin.buffer.read()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        Decoder(sys.argv[2], 4 << 20).feed(body)
    except RefusedError as refused:
        print(refused.code, len(body), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_of_300_megabytes_is_never_unpacked(coding: str) -> None:
    body = subprocess.run([sys.executable, "-c", BOMB, "make", coding], capture_output=True, check=True).stdout
    done = subprocess.run([sys.executable, "-c", BOMB, "open", coding], input=body, capture_output=True, check=True)
    code, size, kilobytes = done.stdout.split()
    assert (code, int(size)) == (b"too_large", len(body))
    assert len(body) < 400_000
    assert int(kilobytes) < 30_000
