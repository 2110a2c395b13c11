"""Placeholders in a text, back into the values they stand for.

Laws: restored is only what this exchange put in, in whatever form it comes back (:mod:`douane.forms`). Law 5: a text that
comes in pieces is restored as the whole would be;
held back is a tail only where one of this exchange's placeholders may begin in it. **Nothing is restored into a URL
whose host nobody who asks has named**: a model that was talked into ``https://evil/?q=<EMAIL_…>`` sends nobody anything.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping

from douane.forms import FORM, first_words, forms_in, opening_at, watcher
from douane.providers.edit import quoted

__all__ = ["Piecewise", "Restorer", "hosts_in"]

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
_ESCAPED = re.compile(r"\\[>\"'`)(]")
_BESIDE = 6
"""Characters before a text that tell whether a word begins in it."""
_HELD_HOST = re.compile(r"//((?:[a-z0-9-]+\.)*[a-z0-9-]+)|(?<![\w.@-])((?:[a-z0-9-]+\.)+[a-z]{2,})", re.IGNORECASE)


def hosts_in(texts: Collection[str]) -> frozenset[str]:
    """Hosts that *texts* name, in lower case: of URLs, and domain names by themselves (those of e-mail addresses not)."""
    return frozenset((one or other).lower() for text in texts for one, other in _HELD_HOST.findall(text))


class Restorer:
    """*originals*: placeholder → value. *hosts* tells, when first asked for, the hosts that a URL may have."""

    __slots__ = ("_bodies", "_hosts", "_known", "_tell_hosts", "may_concern", "words")

    def __init__(self, originals: Mapping[str, str], hosts: Callable[[], frozenset[str]]) -> None:
        self._known = {placeholder[1:-1].lower(): value for placeholder, value in originals.items()}
        self._bodies = sorted(self._known)
        self._tell_hosts = hosts
        self._hosts: frozenset[str] | None = None
        words = first_words(self._bodies)
        self.words = tuple(sorted(words))
        """One of them, in lower case, stands in whatever holds a placeholder."""
        self.may_concern = watcher(words)
        """Whether an event's bytes hold one, or a text that may become one."""

    def restore(self, text: str, before: str = "", *, json: bool = False) -> str:
        """*text* with the values in place of their placeholders. *before*: what came before it, as it came. *json*: the text
        is JSON, so that values are escaped."""
        folded = text.lower()
        if not any(word in folded for word in self.words):
            return text
        beside = before[-_BESIDE:]
        whole, begin = beside + text, len(beside)
        out, at = [], begin
        for form in forms_in(whole, begin):
            value = self._known.get(form.body)
            if value is None or (form.escape and len(form.escape) % 2 == 0):
                continue
            if self._leads_elsewhere((before + whole[begin:form.start])[-_CONTEXT:], json=json):
                continue
            out += [whole[at:form.start], form.escape[1:] if form.escape else "",
                    quoted(value)[1:-1] if json or form.escape else value]
            at = form.end
        return "".join([*out, whole[at:]]) if out else text

    def tail(self, text: str) -> int:
        """Where in *text* a placeholder of ours may have begun that is not whole; its length where none has."""
        return opening_at(text, self._begins, self._known.__contains__)

    def _begins(self, body: str) -> bool:
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
    rest = _ESCAPED.sub("", FORM.sub("", rest))
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
