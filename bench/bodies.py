"""What the load asks: chat requests, written out."""

import itertools
import random
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

__all__ = ["PACE", "Bodies", "Door", "Talk"]

PACE = 20
"""Milliseconds between the events of a paced stream."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where to knock for one target. *connect*: ``host:port`` to ask a proxy for; empty where there is none."""

    port: int
    context: ssl.SSLContext
    name: str = "127.0.0.1"
    connect: str = ""
    restores: bool = False
    """Whether an answer that repeats a placeholder must come with the value in its place."""


@dataclass(frozen=True, slots=True)
class Talk:
    """What requests say, where it matters. *make*: a text of so many characters (:mod:`bench.goods`)."""

    make: Callable[[random.Random, int], str]
    first: bool = False
    """Every text of every call is another; else the same requests go round."""
    echo: bool = False
    """Each request names an e-mail address, which the answer repeats."""


_POOL = 100
"""Texts of which first-seen ones are made, each by a word of its own before it."""
_LETTERS = bytes.maketrans(b"0123456789abcdef", b"ghijklmnopabcdef")
_serial = itertools.count()


class Bodies:
    """Chat requests of about *size* bytes, written for *door*: words without a meaning, no two alike, or as *talk* says.
    *seen*: how many go round where they do; with a connection each in the warming, all have been seen after it."""

    def __init__(self, door: Door, size: int, *, stream: bool = False, pace: bool = False, talk: Talk | None = None,
                 seen: int = 1) -> None:
        chance = random.Random(size)
        words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(4000)]
        self._text = " ".join(chance.choices(words, k=60_000)).encode()
        self._chance = chance
        turns = 3 if size < 4096 else 9
        flags = b',"stream":true,"stream_options":{"include_usage":true}' if stream else b',"stream":false'
        self._before = b'{"model":"gpt-4o-mini"%b,"temperature":0.2,"messages":[' % flags
        frames = sum(len(self._message(turn, b"")) + 1 for turn in range(turns))
        self._share = (size - len(self._before) - frames - 2) // turns
        self._turns = range(turns)
        host = (door.connect.removesuffix(":443") or f"{door.name}:{door.port}").encode()
        more = (b"x-pace: %d\r\n" % PACE if pace else b"") + (b"x-echo: 1\r\n" if talk and talk.echo else b"")
        self._head = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: %b\r\nAccept: application/json\r\n"
                      b"Content-Type: application/json\r\nUser-Agent: OpenAI/Python 3.52.0\r\n"
                      b"Authorization: Bearer not-a-key\r\n%bContent-Length: " % (host, more))
        self._next = self._some if talk is None else self._told(talk)
        self._again: Iterator[bytes] | None = None
        if talk and not talk.first:
            self._again = itertools.cycle([self._made() for _ in range(seen)])

    def request(self) -> bytes:
        """The bytes of the next call."""
        return next(self._again) if self._again else self._made()

    def _made(self) -> bytes:
        body = self._before + b",".join([self._message(turn, self._next()) for turn in self._turns]) + b"]}"
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def _some(self) -> bytes:
        start = int(self._chance.random() * (len(self._text) - self._share))
        return self._text[start:start + self._share]

    def _told(self, talk: Talk) -> Callable[[], bytes]:
        """One text after the other, as what stands between a JSON string's quotes."""
        size = self._share - 40 if talk.echo else self._share
        pool = itertools.cycle([orjson.dumps(talk.make(self._chance, size))[1:-1] for _ in range(_POOL)])
        if not talk.echo:
            return lambda: b"%b %b" % (_new_word(), next(pool))
        return lambda: b"%b@example.com said: %b" % (_new_word(), next(pool))

    @staticmethod
    def _message(turn: int, text: bytes) -> bytes:
        return b'{"role":"%b","content":"%b"}' % (b"assistant" if turn % 2 else b"user", text)


def _new_word() -> bytes:
    """Eight letters that no text of this run had before, with nothing in them that a detector looks for."""
    return (b"%08x" % next(_serial)).translate(_LETTERS)
