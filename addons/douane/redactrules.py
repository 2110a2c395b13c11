"""What ``redact`` looks for and what it does with it, as policy files say it: frozen values, read once.

Law: a name, a pattern, a network or a region that cannot be meant is refused when the file is read. What is allowed is not
found: it is neither replaced nor told of."""

import fnmatch
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import Annotated, Any, Literal

from douane.detect.custom import Custom, Validator, parse_pattern
from douane.detect.presets import PRESETS, Preset
from douane.detect.values import ENTITIES, Span, Wanted
from douane.units import Spelled

__all__ = ["NOBODY", "Action", "AllowList", "Allowed", "Entities", "Recognizer", "Region", "Rule", "Rules"]

type Action = Literal["placeholder", "mask", "hash", "deny", "observe"]

def parse_allowed(text: str) -> str:
    """*text*, where it allows something and not everything. Raises ValueError."""
    if not text.strip("*? "):
        raise ValueError("this would allow everything; take the entity out instead")
    return text


def parse_region(text: str) -> str:
    """*text*, where phone numbers of such a region are known. Raises ValueError."""
    known: Any = importlib.import_module("phonenumbers").SUPPORTED_REGIONS  # which no gateway without regions of its own needs
    if text not in known:
        raise ValueError("no region that is known; allowed: two capital letters")
    return text


type Allowed = Annotated[str, Spelled(parse_allowed, "'*@acme.example'")]
type Region = Annotated[str, Spelled(parse_region, "FR")]
type Entities = Preset | tuple[str, ...] | Mapping[str, Action | Rule]
"""A set, names (of sets too), or each name with what is done with it."""

_MOST_ALLOWED = 1000


@dataclass(frozen=True, slots=True)
class Rule:
    """Of one type; what is left out is as for all."""

    action: Action | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Recognizer:
    """As :class:`~douane.detect.custom.Custom`, whose name is the key it stands under."""

    regex: Annotated[str, Spelled(parse_pattern, r"'E-\d{6}'")] = ""
    words: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    validator: Validator = "none"
    score: float = 0.6

    def __post_init__(self) -> None:
        self.custom("X")

    def custom(self, name: str) -> Custom:
        return Custom(name, self.regex, self.words, self.context, self.validator, self.score)


@dataclass(frozen=True, slots=True)
class Rules:
    """*actions*: by type, where another is meant than for all."""

    wanted: Wanted
    actions: Mapping[str, Action]
    restores: bool
    """Whether anything leaves as a placeholder."""

    @classmethod
    def of(cls, entities: Entities, action: Action, threshold: float, names: tuple[str, ...],
           recognizers: Mapping[str, Recognizer], regions: tuple[str, ...]) -> "Rules":
        """Raises ValueError for what cannot be meant."""
        rules = _by_name(entities)
        unknown = [name for name in rules if name not in ENTITIES and name not in recognizers]
        if unknown:
            known = sorted([*ENTITIES, *recognizers])
            raise ValueError(f"entities: {unknown[0]} is not known; allowed: {', '.join(known)}; "
                             f"and the sets {', '.join(PRESETS)}")
        wanted = Wanted(
            tuple(name for name in rules if name in ENTITIES), threshold, names,
            thresholds=tuple((name, rule.threshold) for name, rule in rules.items() if rule.threshold is not None),
            custom=tuple(one.custom(name) for name, one in recognizers.items()), phone_regions=regions)
        actions = {name: rule.action for name, rule in rules.items() if rule.action is not None}
        sought = {*wanted.entities, *recognizers}
        all_said = bool(sought) and sought <= actions.keys()
        restores = "placeholder" in actions.values() or (action == "placeholder" and not all_said)
        return cls(wanted, MappingProxyType(actions), restores)


def _by_name(entities: Entities) -> dict[str, Rule]:
    """Each type and its rule; one that is named itself goes before the set it stands in."""
    given: dict[str, Rule] = {}
    if isinstance(entities, Mapping):
        given = {name: rule if isinstance(rule, Rule) else Rule(rule) for name, rule in entities.items()}
    else:
        given = dict.fromkeys([entities] if isinstance(entities, str) else entities, Rule())
    rules: dict[str, Rule] = {}
    for name, rule in given.items():
        for one in PRESETS.get(name, (name,)):
            if one == name or one not in given:
                rules[one] = rule
    return rules


@dataclass(frozen=True, slots=True)
class AllowList:
    """Values that are no finding."""

    exact: frozenset[str] = frozenset()
    """Case-folded, as the *form* is."""
    form: re.Pattern[str] | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Of addresses that are found as IP_ADDRESS."""

    @classmethod
    def of(cls, allowed: Sequence[str]) -> "AllowList":
        """Raises ValueError."""
        if not allowed:
            return NOBODY
        if len(allowed) > _MOST_ALLOWED:
            raise ValueError(f"allow: at most {_MOST_ALLOWED}")
        exact, globs, networks = set(), [], []
        for one in allowed:
            network = _network(one)
            if network is not None:
                networks.append(network)
            elif set(one) & set("*?["):
                globs.append(fnmatch.translate(one.casefold()))
            else:
                exact.add(one.casefold())
        return cls(frozenset(exact), re.compile("|".join(globs)) if globs else None, tuple(networks))

    def less(self, text: str, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        """*spans* but for those of what is allowed."""
        if self is NOBODY or not spans:
            return spans
        return tuple(one for one in spans if not self.holds(one.type, text[one.start:one.end]))

    def holds(self, kind: str, value: str) -> bool:
        """Whether *value* of type *kind* is allowed."""
        folded = value.casefold()
        if folded in self.exact or (self.form is not None and self.form.match(folded) is not None):
            return True
        return kind == "IP_ADDRESS" and any(_within(value, one) for one in self.networks)


NOBODY = AllowList()


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _within(value: str, network: IPv4Network | IPv6Network) -> bool:
    try:
        return ip_address(value) in network
    except ValueError:
        return False
