"""Placeholders in a text, back into the values they stand for.

Laws: restored is only what this exchange put in. Law 5: a text that comes in pieces is restored as the whole would be;
held back is a tail only where one of this exchange's placeholders may begin in it. **Nothing is restored into a URL
whose host nobody who asks has named**: a model that was talked into ``https://evil/?q=<EMAIL_…>`` sends nobody anything.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping

from douane.providers.edit import quoted

__all__ = ["Piecewise", "Restorer", "hosts_in"]

_FORM = re.compile(r"(?:<|(\\+)u003[cC])([A-Z][A-Z0-9_]{0,41}_[a-z2-7]{8,48})(?:>|\\u003[eE])")
"""A placeholder, its angle brackets perhaps in the form that some JSON writers give them."""
_BEGUN = re.compile(r"(?:<|(?<!\\)\\+u003[cC])([A-Za-z0-9_]{0,96})(\\(?:u(?:00?3?)?)?)?\Z")
_ESCAPE_BEGUN = re.compile(r"(?<!\\)\\+(?:u(?:00?3?)?)?\Z")
_WINDOW = 256
"""Characters of a text's end in which a placeholder may have begun."""

_CONTEXT = 2048
"""Characters before a placeholder in which a URL around it is looked for."""
_URL = re.compile(r"\b(?:https?|wss?|ftp)\s*:[\\/]*|[\\/]{2,}|\bwww\.|"
                  r"(?<![\w.@/\\-])(?=(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?[/?#])", re.IGNORECASE)
_HOST = re.compile(r"((?:[a-z0-9-]+\.)*[a-z0-9-]+)(?::\d{1,5})?[/?#]", re.IGNORECASE)
_JSON_CHAR = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(.))|"', re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_END = "\0"
"""Stands for a quote that begins or ends a JSON string."""
_CLOSING = {'"': '"', "'": "'", "`": "`", "<": ">"}
_HELD_HOST = re.compile(r"//((?:[a-z0-9-]+\.)*[a-z0-9-]+)|(?<![\w.@-])((?:[a-z0-9-]+\.)+[a-z]{2,})", re.IGNORECASE)


def hosts_in(texts: Collection[str]) -> frozenset[str]:
    """Hosts that *texts* name, in lower case: of URLs, and domain names by themselves (those of e-mail addresses not)."""
    return frozenset((one or other).lower() for text in texts for one, other in _HELD_HOST.findall(text))


class Restorer:
    """*originals*: placeholder → value. *hosts* tells, when first asked for, the hosts that a URL may have."""

    __slots__ = ("_bodies", "_hosts", "_known", "_tell_hosts")

    def __init__(self, originals: Mapping[str, str], hosts: Callable[[], frozenset[str]]) -> None:
        self._known = {placeholder[1:-1]: value for placeholder, value in originals.items()}
        self._bodies = sorted(self._known)
        self._tell_hosts = hosts
        self._hosts: frozenset[str] | None = None

    def restore(self, text: str, before: str = "", *, json: bool = False) -> str:
        """*text* with the values in place of their placeholders. *before*: what came before it, as it came. *json*: the text
        is JSON, so that values are escaped."""
        if "<" not in text and "u003" not in text:
            return text
        out, at = [], 0
        for match in _FORM.finditer(text):
            slashes, body = match[1], match[2]
            value = self._known.get(body)
            if value is None or (slashes and len(slashes) % 2 == 0):
                continue
            if self._leads_elsewhere((before + text[:match.start()])[-_CONTEXT:], json=json):
                continue
            out += [text[at:match.start()], slashes[1:] if slashes else "", quoted(value)[1:-1] if json or slashes else value]
            at = match.end()
        return "".join([*out, text[at:]]) if at else text

    def tail(self, text: str) -> int:
        """Where in *text* a placeholder of ours may have begun that is not whole; its length where none has."""
        start = max(0, len(text) - _WINDOW)
        end = text[start:]
        begun = _BEGUN.search(end)
        if begun is not None and self._may_become(begun[1], closing=bool(begun[2])):
            return start + begun.start()
        escape = _ESCAPE_BEGUN.search(end)
        return start + escape.start() if escape is not None else len(text)

    def _may_become(self, body: str, *, closing: bool) -> bool:
        if closing:
            return body in self._known
        at = bisect_left(self._bodies, body)
        return at < len(self._bodies) and self._bodies[at].startswith(body)

    def _leads_elsewhere(self, before: str, *, json: bool) -> bool:
        """Whether what follows *before* stands in a URL of another host."""
        if json:
            before = _JSON_CHAR.sub(_decoded, before)
        for match in _URL.finditer(before):
            rest = before[match.end():]
            if not _is_over(before[:match.start()][-1:], rest):
                host = _HOST.match(rest)
                if host is None or not self._is_held(host[1].lower()):
                    return True
        return False

    def _is_held(self, host: str) -> bool:
        if self._hosts is None:
            self._hosts = self._tell_hosts()
        return host in self._hosts


def _decoded(match: re.Match[str]) -> str:
    """A piece of a JSON text as it reads; the quotes around its strings become :data:`_END`."""
    code, char = match[1], match[2]
    if code:
        return chr(int(code, 16))
    return _ESCAPES.get(char, char) if char else _END


def _is_over(opener: str, rest: str) -> bool:
    """Whether a URL that *opener* stands before and *rest* follows has ended: one in quotes or brackets at the closing
    one, another at white space; each where the JSON string around it ends."""
    if _END in rest:
        return True
    if opener == _END:
        return False
    rest = _FORM.sub("", rest)
    if opener == "(":
        depth = 0
        for char in rest:
            depth += (char == "(") - (char == ")")
            if depth < 0:
                return True
        return False
    if opener in _CLOSING:
        return _CLOSING[opener] in rest
    return re.search(r"\s", rest) is not None


class Piecewise:
    """One text that comes in pieces."""

    __slots__ = ("_before", "_held", "_json", "_restorer")

    def __init__(self, restorer: Restorer, *, json: bool) -> None:
        self._restorer = restorer
        self._json = json
        self._before = ""
        self._held = ""

    @property
    def held(self) -> bool:
        return bool(self._held)

    def feed(self, piece: str, *, last: bool = False) -> str:
        """What may leave now. *last*: all of it."""
        text = self._held + piece
        end = len(text) if last else self._restorer.tail(text)
        done, self._held = text[:end], text[end:]
        out = self._restorer.restore(done, self._before, json=self._json)
        self._before = (self._before + done)[-_CONTEXT:]
        return out
