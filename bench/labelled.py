"""Labelled texts for :mod:`bench.detection`: read from a file, or made up from a seed."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import goods
from bench.templates import built
from douane.detect.secret_rules import TOKENS

__all__ = ["SECRET", "Text", "invented", "read"]

SECRET = "SECRET"
"""The type of all secrets: whether each gets its own name, the rules' examples say."""
_AS_OURS = {
    "PER": "PERSON", "PERS": "PERSON", "LOC": "LOCATION", "GPE": "LOCATION", "ORG": "ORGANIZATION", "EMAIL": "EMAIL_ADDRESS",
    "PHONE": "PHONE_NUMBER", "IBAN": "IBAN_CODE", "DOMAIN_NAME": "URL", "SSN": "US_SSN"}
"""Names that others give to types."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    labels: tuple[tuple[str, int, int], ...]
    """Type, start, end."""


def read(path: Path) -> list[Text]:
    """Of a JSON or a CoNLL file. Raises OSError, and ValueError where it is neither."""
    raw = path.read_text(encoding="utf-8")
    return [_of_json(one) for one in json.loads(raw)] if raw.lstrip().startswith("[") else list(_of_conll(raw))


def _of_json(one: dict[str, object]) -> Text:
    spans = one.get("spans")
    labels = [(_ours(str(span["entity_type"])), int(span["start_position"]), int(span["end_position"]))
              for span in (spans if isinstance(spans, list) else [])]
    return Text(str(one["full_text"]), tuple(sorted(labels, key=lambda label: label[1])))


def _of_conll(raw: str) -> Iterator[Text]:
    for block in re.split(r"\n[ \t]*\n", raw):
        rows = [line.split("\t") if "\t" in line else line.split() for line in block.splitlines()
                if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
        if rows:
            numbered = all(row[0].isdigit() and len(row) > 2 for row in rows)
            yield _of_tokens([(row[1], row[2]) if numbered else (row[0], row[-1]) for row in rows])


def _of_tokens(tokens: list[tuple[str, str]]) -> Text:
    text, labels, before = "", list[tuple[str, int, int]](), "O"
    for token, tag in tokens:
        start = len(text) + bool(text)
        text = f"{text} {token}" if text else token
        kind = _ours(tag[2:])
        if tag[:2] == "I-" and before[2:] == tag[2:] and labels:
            labels[-1] = (kind, labels[-1][1], len(text))
        elif tag != "O":
            labels.append((kind, start, len(text)))
        before = tag
    return Text(text, tuple(labels))


def _ours(name: str) -> str:
    return _AS_OURS.get(name.upper(), name.upper())


# -- made up -----------------------------------------------------------------------------------------------------------

_FIRST = ("Anna", "Boris", "Chloé", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Inès", "Kenji", "Lucía", "Olga", "Paweł")
_LAST = ("Novak", "Müller", "O'Brien", "García", "Tanaka", "Svensson", "Dubois", "Rossi", "Okafor", "Kowalski", "Costa")
_SAID = (
    "Please write to {EMAIL_ADDRESS} before Friday.", "My number is {PHONE_NUMBER}, call after six.",
    "{PERSON} has asked for a refund.", "Charge it to {CREDIT_CARD}, thanks.", "Transfer the rest to {IBAN_CODE}.",
    "The server at {IP_ADDRESS} does not answer.", "{PERSON} ({EMAIL_ADDRESS}) rang from {PHONE_NUMBER}.",
    "Her SSN is {US_SSN}.",
    'log: user="{EMAIL_ADDRESS}" ip={IP_ADDRESS} ok', '{"name": "{PERSON}", "mail": "{EMAIL_ADDRESS}"}', "export KEY={SECRET}",
    "I pasted {SECRET} by mistake, is that bad?", 'headers = {"x-key": "{SECRET}"}', "sha1 {DIGEST}, build 1716239022",
    "Nothing to see here, order 7731 of 2026-05-12 is fine.", "Version 3.12.1 took 0.333333 s.",
    "See section 4.2.1 on page 128, or ring the bell twice.")


def invented(seed: int, count: int) -> Iterator[Text]:
    """Sentences with people's data and keys in them, and some that only look like it. The same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        text, labels = "", list[tuple[str, int, int]]()
        for part in re.split(r"(\{[A-Z_]+\})", rng.choice(_SAID)):
            if re.fullmatch(r"\{[A-Z_]+\}", part):
                kind, value = _value(rng, part[1:-1])
                if kind:
                    labels.append((kind, len(text), len(text) + len(value)))
                text += value
            else:
                text += part
        yield Text(text, tuple(labels))


def _value(rng: random.Random, kind: str) -> tuple[str, str]:
    if kind == "SECRET":
        rule = rng.choice([one for one in TOKENS if not any("«" in made for made in one.found)])
        return SECRET, built(rng.choice(rule.found), rng.randrange(1 << 30))
    if kind == "DIGEST":
        return "", f"{rng.getrandbits(160):040x}"
    made = {
        "PERSON": lambda: f"{rng.choice(_FIRST)} {rng.choice(_LAST)}", "PHONE_NUMBER": lambda: goods.phone(rng),
        "EMAIL_ADDRESS": lambda: (
            f"{rng.choice(('ann', 'bo.li', 'x_y'))}{rng.randrange(99)}@{rng.choice(('', 'mail.'))}example.org"),
        "CREDIT_CARD": lambda: goods.card(rng), "IBAN_CODE": lambda: goods.iban(rng),
        "IP_ADDRESS": lambda: ".".join(str(rng.randrange(1, 255)) for _ in range(4)),
        "US_SSN": lambda: f"536-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}"}
    return kind, made[kind]()
