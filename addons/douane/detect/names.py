"""People's names without a language model: a given name that a list has, and the run of capitals behind it.

Law: it says too little rather than too much (a false name is a word that the model does not get to read), it takes time in
proportion to the text, and it needs nothing of presidio: it runs in the gateway. Every name begins with a capital. What looks
like source code is not looked at for a name by itself, as ``Martin = Tax()`` names nobody."""

import re

from douane.detect.namelists import (
    BEFORE_NAMES,
    NO_SURNAMES,
    OF_PLACES,
    OF_WORK,
    PARTICLES,
    ROLES,
    TITLES,
    Lists,
    is_word,
    lists,
)
from douane.detect.values import Span

__all__ = ["CAPITALS", "FULL", "find_names", "may_stand_alone"]

CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""One of them begins each name within ASCII."""
FULL, _SAID, _LONE = 0.7, 0.6, 0.5
"""Scores: given name and surname, or behind a title; said to be a name; a given name by itself."""
_LETTERS = r"[^\W\d_]"
_REST = rf"(?:['’](?=[^\W\d_a-z]))?{_LETTERS}*(?:-{_LETTERS}+|['’][^\W\d_a-z]{_LETTERS}+)*"
_WORD = rf"[^\W\d_a-zß-öø-ÿ]{_REST}"
_CAPITAL = re.compile(rf"[A-ZÀ-ÖØ-Þ\u0100-\U0010ffff](?<=[^\W\d_]){_REST}")
"""Where one begins: plain ranges are looked for twice as fast."""
_BLANK = " \n\t(\""
"""What stands before most words."""
_NOT_BEFORE = frozenset("_.@/\\#$<&-")
"""No name begins behind one of these: it is a part of an address, a path or a name in source code."""
_SMALL = "|".join(sorted(PARTICLES))
_NEXT = re.compile(rf"(?:\.? |-)(?:((?:{_SMALL})(?: (?:{_SMALL}))?)[ -])?({_WORD})(?![\w@])")
"""What may go on with a name: a particle, and a word with a capital."""
_ENDS = re.compile(r"(?![\w(\[{=\\@/<>$&%+|~^#]|\*\w|\.\w|::|-\w|['’](?!s\b|[\s.,;:!?)\]]|$)|\s?(?:=|\(\)|:=|->|=>))")
"""What may stand behind a name: nothing of source code."""
_MOST = 4
"""Words of one name behind the first."""
_SAYS = ("my name is", "my full name is", "my name's", "my name’s", "the name is", "i am called", "i'm called", " mr.", " mrs.",
         " ms.", " dr.")
"""What comes before a name, in lower case, so that any word with a capital is one …"""
_FIELD = ("name:", "name\":", "name':")
"""… so that any two are …"""
_MAY_SAY = (
    *_SAYS, *_FIELD, "name", "name=", "name =", "name\" :", "i'm", "i’m", "i am", "this is", "speak to", "speak with",
    "speaking with", "talk to", "from:", "to:", "cc:", " by", "by:", "patient", "patient,", "client", "client,", "customer",
    "customer,", "employee", "regards,", "sincerely,", "cheers,", "signed,", "attn:", "and", ",")
"""… and so that a surname of the list makes one of a word that is in none."""
_ENDINGS = frozenset(one[-2:] for one in (*_SAYS, *_FIELD, *_MAY_SAY))
"""Of each of these: quick to say."""
_LONGEST_HEADER = 800
"""Characters of one that are looked back on: fewer than pieces of a long text overlap by (``spans.cut``)."""
_STATE = 5
"""So many capitals are no more a state's or a department's."""
_BEHIND = 80
"""Characters behind a word in which it is looked for what it belongs to."""
_BACK = 28
"""Characters before a word in which it is looked for what says that it is a name."""
_STATEMENTS = ("def ", "class ", "import ", "elif ", "const ", "var ", "func ", "fn ", "namespace ", "#", "//", "@", "$ ")
"""What a line of a program may begin with."""
_ALONE = ("", "\n", "\"", "-", "*", "•")
"""What stands before a name that is alone in a line."""
_SIGNS = re.compile(r"[=;{}(_<>:]")
"""One of these stands in each line that ``_CODE`` finds something in: quick to say."""
_CODE = re.compile(r"[;{}=]\s*$|\w\(|\)[:;{]|[\w\])] ?[-+*|&!<>]?= ?[\w'\"(\[{]|->|=>|::|\w_\w|\w\.\w+\(|</?\w+>")
_LINE = re.compile(r"[^\n]*[^\n\s][^\n]*")
_NEAR = 200
"""Characters of a line to both sides of a given name that say whether it is one of a program."""
_BLOCK = 1024
"""Characters of a text that are source code together, or are not. The pieces of a long text begin at one (``spans.cut``)."""
_ADDRESS = re.compile(r",? \d{1,5}\b(?! ?(?:years|yrs|and|times|days|of|to|is|was|has|[ap]m))")
"""A number behind a name: that of a house."""
_NO_PERSON = PARTICLES - {"e", "i", "y", "al", "el"} | frozenset((
    "st", "saint", "san", "santa", "sankt", "ste", "são", "rue", "calle", "via", "viale", "chemin", "cours",
    "boulevard", "avenue", "plaza", "rua", "avenida", "c/", "piazza", "place", "lake", "mount", "mt", "cape", "fort",
    "port", "north", "south", "east", "west", "new", "upper", "lower", "lady", "little", "big"))
"""Words before a given name that make it a place's, a street's, or a part of a surname."""
_TURNED = re.compile(rf",[ \t]+({_WORD})(?: [A-Z]\b\.?)?(?=[ \t]*(?:[;,\n<(\[/\"]|$))")
"""Behind a surname: a given name, as address books have it (``Miller, Sarah; Baker, Tom``)."""
_HEADER = re.compile(r"(?:X-)?(?:From|To|CC|Cc|BCC|Bcc|Sent by):[ \t]")
"""How a line begins that says whom a mail is from or to."""
_ARTICLES = frozenset(("the", "a", "an"))
_HI = frozenset({"Hi", "Hey", "Hello", "Dear", "Thanks"})


def find_names(text: str) -> list[Span]:
    """Where people are named in *text*, in order, nowhere overlapping."""
    known, found, at = lists(), list[Span](), 0
    given, code = known.given, dict[int, bool]()
    for match in _CAPITAL.finditer(text):
        start, end = match.span()
        if start < at or (start and text[start - 1] not in _BLANK and _within(text, start)):
            continue
        word = match[0]
        if not word[0].isupper():
            continue
        if text[end:end + 1] == "," and (span := _turned(text, word, start, end, known)) is not None:
            at = span.end
            found.append(span)
            continue
        if word in TITLES:
            span = _titled(text, end)
        elif word in given or _may_be(text, word, start, known):
            span = _named(text, word, start, end, known)
        else:
            continue
        if span is not None:
            at, block = span.end, start // _BLOCK
            if block not in code:
                code[block] = _is_code(text[block * _BLOCK:(block + 1) * _BLOCK])
            if not code[block]:
                found.append(span)
    return found


def may_stand_alone(text: str, start: int, end: int) -> bool:
    """Whether what stands there, a word of somebody's name, is neither a part of something longer nor of a place or a firm, and
    the line is none of a program."""
    if (start and text[start - 1] not in _BLANK and _within(text, start)) or _ENDS.match(text, end) is None:
        return False
    behind = _NEXT.match(text, end, end + _BEHIND)
    if behind is not None and behind[2] in OF_PLACES:
        return False
    low, high = max(0, start - _NEAR), end + _NEAR
    line, close = text.rfind("\n", low, start) + 1, text.find("\n", end, high)
    return not _is_of_program(text[max(line, low):close if close >= 0 else high])


def _is_code(text: str) -> bool:
    """Whether what stands in *text* is more of a program than of a letter."""
    lines = _LINE.findall(text)
    some = sum(map(_is_of_program, lines)) if len(lines) > 2 else 0
    return some > 2 and some * 4 > len(lines)


def _is_of_program(line: str) -> bool:
    begun = line.lstrip()
    return begun.startswith(_STATEMENTS) or (begun.startswith("from ") and " import " in begun) or (
        _SIGNS.search(line) is not None and _CODE.search(line) is not None)


def _within(text: str, start: int) -> bool:
    """Whether the word at *start* is a part of something longer."""
    before = text[start - 1]
    if before in "'’":
        return start > 1 and (text[start - 2].isalnum() or text[start - 2] == ".")
    return before.isalnum() or before in _NOT_BEFORE


def _may_be(text: str, word: str, start: int, known: Lists) -> bool:
    """Whether a word that is in no list may begin a name all the same."""
    return (word.isupper() and word.title() in known.given) or ("-" in word and word.partition("-")[0] in known.sure) or _said(
        text, start) or _previous(text, start).lower() in ROLES


def _named(text: str, word: str, start: int, end: int, known: Lists) -> Span | None:
    if not _ENDS.match(text, end):
        return None
    words, last = _run(text, word, end)
    return _full(text, words, start, last, known) if len(words) > 1 else _lone(text, word, start, end, known)


def _run(text: str, first: str, end: int) -> tuple[list[str], int]:
    """The words of the run that begins with *first*, and where it ends."""
    words = [first]
    while len(words) <= _MOST:
        found = _NEXT.match(text, end)
        if found is None or not found[2][0].isupper() or (text[end] == "." and len(words[-1]) > 1):
            break
        if not _ENDS.match(text, found.end()) or (len(found[2]) > 1 and found[2] in NO_SURNAMES):
            break
        words.append(found[2])
        end = found.end()
    return words, end


def _titled(text: str, end: int) -> Span | None:
    """Behind a title: a name, in a list or not."""
    found = _NEXT.match(text, end)
    if found is None or not found[2][0].isupper() or found[2] in NO_SURNAMES or found[2] in TITLES or not _ENDS.match(
            text, found.end()):
        return None
    start = found.start(1) if found[1] else found.start(2)
    words, last = _run(text, found[2], found.end())
    if words[-1] in OF_PLACES or len(words[-1]) < 2 or found[2] in OF_WORK or (found[2].isupper() and len(words) == 1):
        return None
    return Span("PERSON", start, last, FULL)


def _turned(text: str, word: str, start: int, end: int, known: Lists) -> Span | None:
    """A surname before the given name: in a list with semicolons, in a mail's header, or by itself in a line (``Fixed, Martin``
    is none: there it must be a surname that is known, and no word)."""
    match = _TURNED.match(text, end)
    if match is None or match[1] not in known.sure or word in NO_SURNAMES or word in OF_PLACES or word in TITLES:
        return None
    before, behind = text[max(0, start - 2):start].rstrip(" \t")[-1:], text[match.end():match.end() + 2].lstrip(" \t")[:1]
    listed = ";" in (before, behind)
    if (word.isupper() and len(word) < _STATE) or (not listed and (
            word in known.common or (word in known.sure and word not in known.surnames))):
        return None  # a state, or two people
    named = word in known.surnames or not is_word(word)
    if before in _ALONE and not listed and behind != ",":
        named = named and word in known.surnames and not is_word(word)
    elif before not in (*_ALONE, ";") or behind == ",":
        line = text.rfind("\n", max(0, start - _LONGEST_HEADER), start) + 1
        named = named and before in (":", ",", ";") and start - line <= _LONGEST_HEADER and (
            _HEADER.match(text, line) is not None)
    return Span("PERSON", start, match.end(), _SAID) if named else None


def _full(text: str, words: list[str], start: int, last: int, known: Lists) -> Span | None:
    first, rest = words[0], words[1:]
    if rest[-1] in OF_PLACES or _ADDRESS.match(text, last) or _goes_before(text, start, words):
        return None
    if len(rest[-1]) == 1 or (first.isupper() and len(first) > 1):
        named = first.title() in known.sure and rest[-1].title() in known.surnames
        return Span("PERSON", start, last, FULL) if named and first.isupper() == rest[-1].isupper() else None
    if first in known.sure or first.partition("-")[0] in known.sure:
        return Span("PERSON", start, last, FULL)
    if first.lower() in _NO_PERSON:
        return None
    if rest[-1] in known.surnames and first in known.given and (rest[-1] not in known.given or rest[-1] in known.sure):
        return Span("PERSON", start, last, FULL)
    if _said(text, start, _SAYS) or (_said(text, start) and (rest[-1] in known.surnames or _said(text, start, _FIELD))) or (
            _behind_a_role(text, start, words, known)):
        return Span("PERSON", start, last, _SAID)
    return None


def _behind_a_role(text: str, start: int, words: list[str], known: Lists) -> bool:
    """Whether two words stand behind what somebody is (``the goalkeeper Abdi Bitar``), one of which is known for a name."""
    return len(words) == 2 and _previous(text, start).lower() in ROLES and not any(
        word in NO_SURNAMES or word in OF_PLACES or word in OF_WORK for word in words) and (
            words[0] in known.sure or (words[1] in known.surnames and not is_word(words[1])))


def _lone(text: str, word: str, start: int, end: int, known: Lists) -> Span | None:
    """A word with a capital that has none behind it."""
    low = max(0, start - _NEAR)
    line = max(low, text.rfind("\n", low, start) + 1)
    before = text[line:start].rsplit(None, 1)
    previous = before[-1].lstrip("\"'“‘(*") if before else ""
    if word not in known.common and (word not in known.given or previous not in _HI):
        return Span("PERSON", start, end, _SAID) if word not in NO_SURNAMES and _said(text, start, _SAYS) else None
    if previous[:1].isupper() and previous not in BEFORE_NAMES and (previous[-1].isalnum() or len(previous) == 2):
        return None
    small = previous.rstrip(".").lower()
    if small in _NO_PERSON or small in _ARTICLES or _ADDRESS.match(text, end):
        return None
    close = text.find("\n", end, end + _NEAR)
    return None if _is_of_program(text[line:close if close >= 0 else end + _NEAR]) else Span("PERSON", start, end, _LONE)


def _previous(text: str, start: int) -> str:
    """The word before, behind a blank; empty where there is none."""
    if start < 2 or text[start - 1] != " ":
        return ""
    return text[max(0, start - 24):start - 1].rpartition(" ")[2].rpartition("\n")[2]


def _goes_before(text: str, start: int, words: list[str]) -> bool:
    """Whether a word with a capital stands before, so that the run begins in the middle of something else."""
    word = _previous(text, start)
    if not word or word.lower() in ROLES:
        return False
    return word.rstrip(".").lower() in _NO_PERSON or (word[:1].isupper() and word[-1].isalnum() and len(words) < 3 and
                                                      word not in BEFORE_NAMES and word not in NO_SURNAMES)


def _said(text: str, start: int, what: tuple[str, ...] = _MAY_SAY) -> bool:
    """Whether what stands before says that a name comes."""
    before = text[max(0, start - _BACK):start].rstrip(" \t\n\"'“")
    return (before[-2:].lower() in _ENDINGS or before[-1:] == ",") and before.lower().endswith(what)
