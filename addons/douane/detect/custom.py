"""Recognizers of the operator's own: a pattern or a list of words, as policy files give them. Frozen values.

Law: a pattern is compiled when it is read, so that what is wrong with it is said with its line; one that matches nothing at
all (the empty text) is refused, for it would be found between any two characters. No pattern is trusted to end: it runs in
the worker with a timeout, and one that runs out of it denies the call."""

import importlib
import re
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Custom", "Validator", "parse_pattern", "plain_for_prefilter", "words_pattern"]

type Validator = Literal["none", "luhn", "iban", "verhoeff"]

_LONGEST = 2000
_MOST_WORDS = 1000
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_PLAIN = re.compile(
    r"(?:\(\?i\))?(?:"
    r"[A-Za-z0-9 _@/:;,=!\"#%&'<>~`-]"
    r"|\\[dDwWsSbB.\\/@:;,=!\"#%&'<>~`\-\[\](){}|?*+^$ ntrf]"
    r"|\[\^?(?:[A-Za-z0-9 _@/:;,=!\"#%'<>`.+*?(){}|$-]|\\[dDwWsS.\\/\-\[\]^ ntrf])+\]"
    r"|\((?!\?)|\(\?(?::|=|!|<=|<!)|\)|\||\.|\^|\$"
    r"|[*+?]\??|\{[0-9]{1,3}(?:,[0-9]{0,3})?\}\??)*+")
"""Syntax that ``regex`` and hyperscan read alike. What ``regex`` has beyond it (fuzzy matches, sets, ``{,3}``) hyperscan may
take for plain text, and would see too little."""
_SET_OPERATION = re.compile(r"--|&&|\|\||~~")
"""Within brackets, some day, to ``regex``."""


@dataclass(frozen=True, slots=True)
class Custom:
    """What to find as *name*. With *context* words, one of them near raises the *score* by 0.35, as presidio does. A
    *validator* decides: 1.0 where what was found fits, nothing where it does not. Raises ValueError."""

    name: str
    regex: str = ""
    words: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    validator: Validator = "none"
    score: float = 0.6

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the name of a recognizer is capital letters, digits and _ (EMPLOYEE_ID), at most 40; "
                             f"`{self.name[:40]}` is not")
        if not self.regex and not self.words:
            raise ValueError("a recognizer needs `regex` or `words`")
        if not 0 < self.score <= 1:
            raise ValueError(f"score: {self.score} is not between 0 and 1")
        for what, words in (("words", self.words), ("context", self.context)):
            if len(words) > _MOST_WORDS or not all(word.strip() for word in words):
                raise ValueError(f"{what}: at most {_MOST_WORDS}, none empty")


def parse_pattern(text: str) -> str:
    """*text*, once ``regex`` has read it. Raises ValueError."""
    engine: Any = importlib.import_module("regex")  # which no gateway without a pattern of its own needs
    if len(text) > _LONGEST:
        raise ValueError(f"a pattern has at most {_LONGEST} characters")
    try:
        pattern = engine.compile(text)
        empty = pattern.fullmatch("", timeout=1) is not None
    except (engine.error, ValueError, OverflowError, RecursionError, TimeoutError) as error:
        raise ValueError(f"not a pattern that can be read: {error}") from None
    if empty:
        raise ValueError("this pattern matches the empty text, and would be found everywhere")
    return text


def words_pattern(words: tuple[str, ...]) -> str:
    """Of whole words, whatever their case, for the prefilter."""
    return "(?i)(?:" + "|".join(re.escape(word) for word in words) + ")"


def plain_for_prefilter(pattern: str) -> bool:
    """Whether hyperscan, asked for *pattern*, surely sees all that ``regex`` finds in ASCII text."""
    return _PLAIN.fullmatch(pattern) is not None and _SET_OPERATION.search(pattern) is None
