"""Secrets in texts: keys, tokens, passwords. Pure functions over the rules of :mod:`douane.detect.secret_rules`.

Law: what the rules describe is found wherever it stands, in time linear in the text's length, whatever the text; where two
findings overlap, one span covers both, so that nothing of either stays. What only stands for a secret (a variable, a
placeholder, ``changeme``) is none.

A text without secrets is read a few times by C loops (``bytes.translate``, ``bytes.find``) and by no regular expression:
these begin only where a run of characters is as long as a token, or where an anchor stands. Base64 that means text is read as
that text, once: the whole of it is the secret.
"""

import binascii
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from math import log2

from douane.detect.secret_rules import CONTEXTS, RUN, TOKENS, Rule
from douane.detect.values import Span

__all__ = ["TELLING", "decoded", "find_in_member", "find_secrets", "together"]

_IN_RUN = re.compile(r"[A-Za-z0-9_.~/+=-]")
_RUNS = bytes(ord("a" if _IN_RUN.match(chr(code)) else " ") for code in range(256))
_LONG = b"a" * RUN
_CODED = bytes(ord("a") if re.match(r"[A-Za-z0-9+/_-]", chr(code)) else 32 for code in range(256))
_PLAIN = frozenset(b"\t\n\r" + bytes(range(32, 127)))


def _alternatives(pattern: str) -> Iterator[str]:
    """What a pattern has between the ``|`` that stand in no group and no class."""
    depth, at, in_class = 0, 0, False
    for found in re.finditer(r"\\.|[\[\]()|]", pattern):
        sign = found[0]
        in_class = (in_class or sign == "[") and sign != "]"
        if not in_class:
            depth += (sign == "(") - (sign == ")")
            if sign == "|" and depth == 0:
                yield pattern[at:found.start()]
                at = found.end()
    yield pattern[at:]


def _by_first(patterns: Iterable[str]) -> str:
    """One pattern for all, parted by the character that each begins with: of what is no token, most is let by at a glance."""
    parts: dict[str, list[str]] = {}
    for pattern in patterns:
        for one in _alternatives(pattern):
            first = re.match(r"\[([^\]]+)\]|(\\.|.)", one)
            if first is not None:
                for sign in re.findall(r"\\.|.", first[1] or first[2]):
                    parts.setdefault(sign, []).append(one[first.end():])
    return "|".join(f"{sign}(?:{'|'.join(rest)})" for sign, rest in parts.items())


_TOKEN = re.compile(_by_first(rule.pattern for rule in TOKENS), re.ASCII)


class _Form:
    """A rule, whose pattern is compiled when it is first needed: all of them take a tenth of a second."""

    __slots__ = ("_flags", "_pattern", "rule")

    def __init__(self, rule: Rule, flags: re.RegexFlag) -> None:
        self.rule, self._flags = rule, flags
        self._pattern: re.Pattern[str] | None = None

    def match(self, text: str, start: int, end: int) -> re.Match[str] | None:
        if self._pattern is None:
            self._pattern = re.compile(self.rule.pattern, self._flags)
        return self._pattern.match(text, start, end)


_TOKENS = tuple(_Form(rule, re.ASCII) for rule in TOKENS)
_CONTEXTS = tuple(
    (anchor.encode(), needs.encode(), tuple(_Form(rule, re.ASCII | re.IGNORECASE) for rule in rules))
    for (anchor, needs), rules in groupby(CONTEXTS, key=lambda rule: (rule.anchor, rule.needs)))

_STANDS_FOR = re.compile(
    r"<|\$[{(]|\$[A-Za-z_]\w*+(?![^/:.])|\{|%[({]|%[A-Za-z_]++%|@\w+@|#\{|\[|https?:"
    r"|[~.]{0,2}/[\w.-]{1,40}/|[~.]{0,2}/[A-Za-z._-]++(?![\s\S])"
    r"|(?:change|replace|insert|enter|put|add|your|my|the|some|not?|mock|test)[-_]"
    r"|(?:none|null|true|false|undefined|nil|test|todo|secret|pass|passwd|password|pwd|pw|token|key|string|env|getenv)(?![A-Za-z0-9])"
    r"|(?:self|this|os|process|env|config|cfg|settings|request|req|args|opts|options|params|props|user|data|form|input|event|state"
    r"|credentials|creds|secrets?|vault|vars?|local|module|ctx|context|app|import|body|json|response|res|auth|db|session)\.[A-Za-z_]"
    r"|[A-Za-z]++(?:[_.][A-Za-z]++)++[_.]?[0-9]{0,3}(?![\s\S])|v?[0-9][0-9.]*+(?![\s\S])", re.ASCII | re.IGNORECASE)
"""How what stands for a value begins: a variable, a path, an instruction to the reader, words joined to a name."""
_MADE_UP = re.compile(r"x{5}|\*{3}|\.{3}|\$\{|\{\{|<[A-Za-z_ -]+>|example|your[-_]|[-_]here(?![A-Za-z])|placeholder|redacted"
                      r"|scrubbed|change[-_]?me|dummy|abcdefgh|0123456789|1234567890", re.ASCII | re.IGNORECASE)
"""What no secret holds."""
TELLING = re.compile(r"pass|pwd|secret|token(?!s)|key|auth|cred|kennwort", re.IGNORECASE)
"""In the name of a member whose bare value may be a secret. Where it speaks of ``tokens``, it counts them."""
_QUOTES = ("\"", "'", "`", "\\")
_SHORTEST = 12
"""Characters of a key or token that is known only by its name."""
_MEASURED = 256
"""Characters of a secret whose entropy is measured."""


def find_secrets(text: str) -> tuple[Span, ...]:
    """Where secrets stand in *text* (characters), sorted, nowhere overlapping. Linear time."""
    raw = text.encode("latin-1", "replace")  # one byte a character: a place in it is a place in the text
    return _joined([*_plain(text, raw), *_encoded(raw)])


def decoded(raw: bytes) -> Iterator[tuple[int, int, str]]:
    """Where in *raw* base64 stands that means text, in either alphabet, and that text."""
    runs = raw.translate(_CODED)
    at = runs.find(_LONG)
    while at >= 0:
        end = runs.find(b" ", at + RUN)
        if end < 0:
            end = len(runs)
        if _PLAIN.issuperset(_from_base64(raw[at:at + 8])):  # one in 300, of what is no such text
            meant = _from_base64(raw[at:end])
            if meant and _PLAIN.issuperset(meant[:4096]):
                yield at, end + len(raw[end:end + 2]) - len(raw[end:end + 2].lstrip(b"=")), meant.decode("utf-8", "replace")
        at = runs.find(_LONG, end)


def _from_base64(coded: bytes) -> bytes:
    """Empty where it is none."""
    try:
        return binascii.a2b_base64(coded.translate(_STANDARD) + b"=" * (-len(coded) % 4))
    except binascii.Error:
        return b""


_STANDARD = bytes.maketrans(b"-_", b"+/")


def _plain(text: str, raw: bytes) -> Iterator[Span]:
    yield from _tokens(text, raw.translate(_RUNS))
    yield from _in_context(text, raw.lower())


def _encoded(raw: bytes) -> Iterator[Span]:
    for start, end, meant in decoded(raw):
        surest = max(_plain(meant, meant.encode("latin-1", "replace")), key=lambda one: one.score, default=None)
        if surest is not None:
            yield Span(surest.type, start, end, surest.score)


def find_in_member(name: str, text: str) -> tuple[Span, ...]:
    """The same for a *text* that is the value of a JSON member: one called ``password`` says what its bare value does not."""
    before = f'"{name}": "'
    found = find_secrets(f'{before}{text}"')
    return tuple(Span(one.type, max(one.start - len(before), 0), min(one.end - len(before), len(text)), one.score)
                 for one in found if one.end > len(before) and one.start < len(before) + len(text))


def _tokens(text: str, runs: bytes) -> Iterator[Span]:
    """What is known by its own form."""
    at = runs.find(_LONG)
    while at >= 0:
        end = runs.find(b" ", at + RUN)
        if end < 0:
            end = len(runs)
        while match := _TOKEN.search(text, at, end):
            at = match.end()
            for form in _TOKENS:
                if known := form.match(text, match.start(), end):
                    yield from _span(form.rule, known)
                    break
        at = runs.find(_LONG, end)


def _in_context(text: str, lower: bytes) -> Iterator[Span]:
    """What is known by what stands before it."""
    for anchor, needs, rules in _CONTEXTS:
        at = -1 if needs and lower.find(needs) < 0 else lower.find(anchor)
        while at >= 0:
            after = at + len(anchor)
            for form in rules:
                if (match := form.match(text, at, len(text))) and (spans := _span(form.rule, match)):
                    yield from spans
                    after = match.end()
                    break
            at = lower.find(anchor, after)


def _span(rule: Rule, match: re.Match[str]) -> tuple[Span, ...]:
    """Of *rule*'s match: the span, unless it only stands for a secret."""
    start, end = match.span(match.lastindex or 0)
    start -= rule.back
    value = match.string[start:end]
    if rule.word and match.string[end:end + 1] not in _QUOTES:  # the end of a sentence, or of bold text
        value = value.rstrip(".,*_")
        end = start + len(value)
    if (rule.word and not _made(value, rule.short)) or (rule.score < 1 and _STANDS_FOR.match(value)):
        return ()
    if _MADE_UP.search(value) or _entropy(value) < rule.entropy:
        return ()
    return (Span(rule.name, start, end, rule.score),)


def _made(value: str, short: bool) -> bool:
    """Whether *value* was made to be secret, and is no word: a digit (in a password, *short*, or a symbol) among others."""
    digit = any(char.isdigit() for char in value)
    symbol = any(not char.isalnum() and char not in "._-/:@" for char in value)
    other = symbol or any(char.isalpha() for char in value)
    if short:
        return other and (digit or symbol) and len(value) >= 6
    return other and digit and len(value) >= _SHORTEST


def _entropy(value: str) -> float:
    """Bits a character (Shannon), of the first characters."""
    head = value[:_MEASURED]
    return -sum(count / len(head) * log2(count / len(head)) for count in Counter(head).values())


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    """Sorted; of those that overlap, one with the type of the surest."""
    if len(spans) < 2:
        return tuple(spans)
    joined: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.start, -one.end)):
        last = joined[-1] if joined else None
        if last is None or last.end <= span.start:
            joined.append(span)
        else:
            surest = span if span.score > last.score else last
            joined[-1] = Span(surest.type, last.start, max(last.end, span.end), surest.score)
    return tuple(joined)


def together(spans: Sequence[Span], surer: Sequence[Span]) -> tuple[Span, ...]:
    """Both, sorted; where one of the *surer* overlaps something, one span of its type covers both."""
    if not surer:
        return tuple(spans)
    joined: list[Span] = []
    sure = False
    for span in sorted((*surer, *spans), key=lambda one: (one.start, -one.end)):
        last = joined[-1] if joined else None
        if last is None or last.end <= span.start:
            joined.append(span)
            sure = span in surer
        else:
            kind = last.type if sure else span.type
            joined[-1] = Span(kind, last.start, max(last.end, span.end), max(last.score, span.score))
            sure = sure or span in surer
    return tuple(joined)
