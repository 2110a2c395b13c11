"""What a rule for secrets says. The rules themselves stand in :mod:`douane.detect.secret_rules` and
:mod:`douane.detect.secret_services`.

Law: a pattern is linear on any text. Every repetition is bounded or possessive, none stands in another unless what parts the
two is in neither's class, and none begins with a wildcard. The whole of a secret is the span, so that nothing of it stays:
lengths are at least those of the source, and a longer one is taken to its end.

An example is a template: ``{W93}`` stands for 93 characters of class W, so that no file holds what looks like a live key.
Classes: W ``[A-Za-z0-9_-]``, A ``[A-Za-z0-9]``, L ``[a-z0-9]``, U ``[A-Z2-7]``, H hexadecimal, D digits,
B base64, G that of age keys, N ``[a-z2-7]``, X the letter x.
"""

from dataclasses import dataclass

__all__ = ["GITHUB", "GITLEAKS", "RUN", "TRUFFLEHOG", "Rule", "first"]

RUN = 20
"""Characters of ``[A-Za-z0-9_.~/+=-]`` in a row that every form of TOKENS has at least."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One form. The secret is the pattern's last group, where it has one, else the whole match."""

    name: str
    """The span's type."""
    pattern: str
    source: str
    """Where the form is written down."""
    found: tuple[str, ...]
    """Templates in which it is found: between « and » where there is more than the secret."""
    passed: tuple[str, ...]
    """Templates near to it in which nothing is found."""
    score: float = 1.0
    """1 where nothing else has this form; below it, what only stands for a secret is told apart (``find_secrets``)."""
    entropy: float = 3.0
    """Bits a character (Shannon) that the secret has at least: below it, it is a stand-in (``xxxx``)."""
    anchor: str = ""
    """Of a rule in CONTEXTS: the lower-case text at which the pattern begins."""
    back: int = 0
    """Characters of the secret before the match: a secret known by what stands in its middle."""
    word: bool = False
    """The secret is a value of any form: it is weighed, for it may be a word."""
    short: bool = False
    """Of a word: a password, of which little is asked."""
    needs: str = ""
    """A character without which a text holds none: looked for first, where that is cheaper than the anchor."""


GITLEAKS = "gitleaks config/gitleaks.toml"
TRUFFLEHOG = "trufflehog pkg/detectors"
GITHUB = "docs.github.com: supported secret scanning patterns"


def first(prefix: str) -> str:
    """*prefix* where a token begins: not within base64 or a longer name, yet after an escape (``\\n``, ``%3D``)."""
    return rf"{prefix}(?:(?<![\w-]{prefix})|(?<=\\[nrtbf]{prefix})|(?<=%[0-9A-Fa-f]{{2}}{prefix}))"
