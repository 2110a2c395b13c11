"""Who looks at which texts: a language model at those of some roles, lists and rules at the others. And what ``douane check``
says of it.

Law: every text is looked at by one of the two, whatever its role; what no role is known of counts as the user's. A name that
was found in one text is found in those after it (``carry.py``)."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from douane.detect.carry import carried
from douane.detect.memory import Keys, Memory
from douane.detect.models import Ner, Tried, find_model, install_line
from douane.detect.scanner import Scanner
from douane.detect.values import BY_MODEL, DEFAULT_ENTITIES, Span, Wanted
from douane.pauses import with_pauses

__all__ = ["BUILTIN", "OFF", "Eyes", "eyes"]

BUILTIN, OFF = "builtin", "off"
"""What ``ner`` may say in place of a model: people's names by lists and a rule; by the policy's own list alone."""
_MODELS_ENTITIES = ("PERSON", "LOCATION", "ORGANIZATION")


_CARRIED = 20_000
"""Texts of which it is remembered what names from others stand in them."""


@dataclass(frozen=True, slots=True)
class Eyes:
    """A scanner for the texts of all roles but *roles*, and one with a model for those."""

    common: Scanner
    reading: Scanner | None = None
    roles: frozenset[str] = frozenset()
    told: tuple[str, ...] = ()
    """Lines that say how names are found, and what is not."""
    allowed: Callable[[str, str], bool] | None = None
    """Whether a value of that type is meant to stay: such names are not looked for elsewhere."""
    carried: Memory = field(default_factory=lambda: Memory(_CARRIED), repr=False, compare=False)

    def warm(self) -> None:
        self.common.warm()
        if self.reading is not None:
            self.reading.warm()

    def know(self, keys: Keys, texts: Sequence[str]) -> None:
        """*texts* are what is left of scanned ones without what was found in them: they hold nothing more."""
        self.common.know(keys, texts)
        if self.reading is not None:
            self.reading.know(keys, texts)

    async def scan(self, keys: Keys, texts: Sequence[str], roles: Sequence[str]) -> list[tuple[Span, ...]]:
        """What stands in each text, whose role is the one beside it. *keys*: of the tenant's texts. Raises ScanFailedError."""
        if self.reading is None:
            found = await self.common.scan(keys.tenant, texts, keys)
        else:
            found = await self._read(self.reading, keys, texts, roles)
        return await with_pauses(carried(texts, roles, found, keys, self.carried, self.allowed)) if any(found) else found

    async def _read(self, reading: Scanner, keys: Keys, texts: Sequence[str], roles: Sequence[str]) -> list[tuple[Span, ...]]:
        read = [role in self.roles for role in roles]
        each = await asyncio.gather(
            reading.scan(keys.tenant, [text for text, mine in zip(texts, read, strict=True) if mine], keys),
            self.common.scan(keys.tenant, [text for text, mine in zip(texts, read, strict=True) if not mine], keys))
        by_model, by_rule = map(iter, each)
        return [next(by_model if mine else by_rule) for mine in read]


def eyes(wanted: Wanted, ner: str | Ner, folder: str) -> Eyes:
    """As the policy says it. Raises ValueError where the model cannot be used."""
    if ner in (BUILTIN, OFF):
        if needs := [one for one in wanted.entities if one in BY_MODEL[1:]]:
            raise ValueError(f"entities: {', '.join(needs)} is found by a language model alone: ner: MODEL (docs/redact.md)")
        made = replace(wanted, by_rule=ner == BUILTIN)
        return Eyes(Scanner(made), told=_without_model(made))
    asked = Ner(ner) if isinstance(ner, str) else ner
    named = tuple(one for one in BY_MODEL if one in wanted.entities)
    found = _MODELS_ENTITIES if wanted.entities == DEFAULT_ENTITIES else named
    model, tried = find_model(asked, found, folder)
    if missing := [one for one in wanted.entities if one in BY_MODEL[1:] and one not in model.entities]:
        raise ValueError(f"entities: {', '.join(missing)} is not found by {asked.model}; it finds: {', '.join(tried.finds)}")
    rest = tuple(one for one in wanted.entities if one not in BY_MODEL)
    reading = replace(wanted, entities=(*rest, *model.entities, *(("PERSON",) if "PERSON" in wanted.entities and
                                                                 "PERSON" not in model.entities else ())),
                      by_rule="PERSON" not in model.entities, model=model)
    common = replace(wanted, entities=tuple(one for one in wanted.entities if one not in BY_MODEL[1:]))
    roles = frozenset(asked.roles) | ({"unknown"} if "user" in asked.roles else set())
    return Eyes(Scanner(common), Scanner(reading), roles, _with_model(asked, tried, model.entities, common))


_RECALL = ("recall .72 at precision .92 on real news, mail, posts and chats that it was not tuned on; a surname by itself, a "
           "rare name, or one in lower case, is not found")


def _without_model(wanted: Wanted) -> tuple[str, ...]:
    listed = f"the {len(wanted.names)} listed" if wanted.names else "none is listed"
    if "PERSON" not in wanted.entities:
        return ("people's names are not looked for: PERSON is not among the entities",)
    how = f"by the built-in recognizer ({_RECALL}), and {listed}" if wanted.by_rule else f"those in `names` alone: {listed}"
    return (f"people's names: {how}", "places and organisations: not found",
            f"to find more: {install_line()}; then `ner: en_core_web_lg` (docs/redact.md)")


def _with_model(asked: Ner, tried: Tried, found: tuple[str, ...], common: Wanted) -> tuple[str, ...]:
    names = "the built-in recognizer's and listed names" if "PERSON" in common.entities else "no names"
    costs = f"{tried.mb} MB in the worker, loaded in {tried.seconds:.1f} s; {asked.timeout} s a call, then it is refused"
    return (f"{', '.join(found)} in texts of {', '.join(asked.roles)}: by {asked.model} ({costs})", f"in other texts: {names}",
            "how much it finds, its own makers say; large models of English find six to eight of ten names")
