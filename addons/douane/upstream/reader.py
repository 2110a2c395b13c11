"""An answer's bytes as head and pieces of body. No I/O; for one connection's answers, one after another.

Law: **an answer is complete only when its framing says so**, and what is framed in doubt (length and chunks both, two
lengths, a coding we did not ask for, an upgrade) is no answer. httptools (llhttp, strict) parses lines, fields and
chunks and refuses bare CR or LF, folded and malformed fields, bad lengths and chunk sizes; the rules below are those
it leaves open.
"""

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from douane.upstream.request import is_hop_by_hop

__all__ = ["MalformedError", "Reader"]


class MalformedError(Exception):
    """This is no HTTP/1.1 answer. The text says why, and repeats none of its bytes."""


class Reader:
    """``expect`` the answer to a request, ``feed`` it, look at ``status`` (0: the final head is not there yet),
    ``headers``,
    ``pieces`` (taken by the caller, who puts an empty list in their place), ``complete`` and ``reusable``."""

    __slots__ = ("_feeding", "_fields", "_flaw", "_head_only", "_max_head", "_parser", "_plain", "_until_close",
                 "complete", "headers", "pieces", "reusable", "status")

    def __init__(self, max_head: int) -> None:
        self._max_head = max_head
        self._parser = HttpResponseParser(self)
        self._head_only = False

    def expect(self, method: bytes) -> None:
        """The next bytes are the answer to a *method* request."""
        if self._head_only:  # the parser cannot be told that no body follows, and may be waiting for one
            self._parser = HttpResponseParser(self)
        self._head_only = method == b"HEAD"
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.complete = False
        self.reusable = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._until_close = False
        self._plain = 0
        self._flaw = ""

    def feed(self, data: bytes) -> None:
        """Read *data*; raises MalformedError. What was read before the flaw is there all the same."""
        begun = self.status
        self._feeding = len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.reusable = False
            if self.complete:
                return  # what follows an answer is no part of it
            raise MalformedError(self._flaw or str(error)) from None
        if self.complete or self.pieces or (self.status and not begun):
            self._plain = 0
            return
        self._plain += len(data)
        if self._plain > self._max_head:
            raise MalformedError(self._too_large())

    def eof(self) -> bool:
        """The peer has ended its side in order: whether that ends the answer."""
        return self._until_close and not self.complete

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._fields = []
        if self.complete:
            self.reusable = False  # bytes that nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else a trailer
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        if self._plain + self._feeding > self._max_head and self._measure() > self._max_head:
            self._refuse(self._too_large())
        status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(f"HTTP/{version} in an answer to HTTP/1.1")
        if status < 200:
            self._interim(status)
        else:
            self._final(status, version)

    def on_body(self, piece: bytes) -> None:
        if self.complete:
            self.reusable = False
        else:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True

    # Rules.

    def _interim(self, status: int) -> None:
        """1xx: skipped, but for those that change the protocol or claim a body (RFC 9110 §15.2, §8.6)."""
        if status == 101 or status < 100:
            self._refuse(f"status {status}, which was not asked for")
        if any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._fields):
            self._refuse(f"a body in an interim ({status}) answer")

    def _final(self, status: int, version: str) -> None:
        codings: list[bytes] = []
        named: set[bytes] = set()
        sized = False
        headers = self.headers
        for given, value in self._fields:
            name = given.lower()
            if name == b"content-length":
                sized = True
            elif is_hop_by_hop(name):
                if name == b"transfer-encoding":
                    codings.append(value.strip().lower())
                elif name == b"connection":
                    named.update(token.strip().lower() for token in value.split(b","))
                continue
            headers.append((name, value))
        if codings not in ([], [b"chunked"]):
            self._refuse("a transfer coding other than chunked")
        empty = self._head_only or status in (204, 304)
        named -= {b"close", b"keep-alive", b""}
        if status == 204:
            named.add(b"content-length")  # RFC 9110 §8.6: must not be there, so it is not true
        if named:
            self.headers = [field for field in headers if field[0] not in named]
        self._until_close = not (empty or sized or codings)
        # Chunks in HTTP/1.0 are framing in doubt (RFC 9112 §6.1): read, and not built upon.
        self.reusable = self._parser.should_keep_alive() and not (codings and version == "1.0")
        self.complete = empty
        self.status = status

    def _measure(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self._fields)

    def _too_large(self) -> str:
        what = "framing without content" if self.status else "a head"
        return f"{what} of more than {self._max_head} bytes"

    def _refuse(self, flaw: str) -> None:
        self._flaw = flaw
        raise MalformedError(flaw)
