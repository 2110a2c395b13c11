"""How the ledger lies in Redis: the names of keys, and what the scripts are told and answer.

Law: no name that a caller may choose (an org, a principal, a tag) breaks out of its place: every one is percent-encoded, so
it holds no brace, colon or blank. All keys of an org have its hash tag and lie in one slot of a cluster; nothing atomic spans
orgs.

=====================================  ==================================================================================
``douane:orgs``                        set of orgs (encoded): who has any of the below. Written before an org's first use
``douane:stops``                       hash: ``scope:name`` → ``since running``
``douane:owner:OWNER``                 lease of a gateway; gone 30 s after its last beat
``douane:{org:ORG}:account:SUFFIX``    hash, see ``lua/accounts.lua``; SUFFIX: ``unit:period:start:scope:name:book``. Gone 35
                                       days after its window's end; ``total`` never
``douane:{org:ORG}:accounts``          sorted set: SUFFIX by the end of its window
``douane:{org:ORG}:hold:CALL``         ``SUFFIX amount SUFFIX amount …``; once resolved, for an hour, ``=`` and who resolved it
``douane:{org:ORG}:open``              hash: call → ``since owner``, of those that are not resolved
``douane:{org:ORG}:outbox``            sorted set: ``share at captured limit end SUFFIX`` by until when somebody is at it
``douane:{org:ORG}:rate:KEY``          when the bucket is full (µs); gone a minute after
``douane:{org:ORG}:slots:KEY``         hash: call → ``owner life``
``douane:{org:ORG}:lives``             hash: ``owner life`` → until when its slots count (ms, the server's clock)
``douane:{org:ORG}:gone:CALL``         for an hour: a take that was given up, and must not be done late
=====================================  ==================================================================================
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from urllib.parse import quote, unquote

from douane.ledger.base import MOST, Account, Alert, Demand, Held, Limited, Rate, Refused, Slots, Spent, Stop, Take
from douane.ledger.limits import MICRO, missing, refusal, worth

__all__ = ["BEAT", "DUE", "GIVE_BACK", "LEASE_MS", "ORGS", "RESERVE", "RESOLVE", "SCRIPTS", "STOPS", "TAKE", "Command",
           "Script", "account_of", "alert_of", "beat", "due", "give_back", "held_of", "lease", "limited_of", "name_of",
           "org_key", "quoted", "reserve", "resolve", "sent", "stop_of", "suffix_of", "take"]

ORGS, STOPS = "douane:orgs", "douane:stops"
LEASE_MS = 30_000

type Command = tuple[str | int, ...]
"""What is sent, without the script's name where it runs one."""


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """A script is known by the digest of its text, so that gateways of two versions do not run each other's, as they would by
    the name of a FUNCTION; and it needs no right to administer the server."""

    source: str
    sha: str

    @classmethod
    def of(cls, *names: str) -> "Script":
        source = "\n".join((files("douane.ledger") / "lua" / f"{name}.lua").read_text("utf-8") for name in names)
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


RESERVE, RESOLVE = Script.of("accounts", "reserve"), Script.of("accounts", "resolve")
TAKE, GIVE_BACK, BEAT, DUE = Script.of("take"), Script.of("give_back"), Script.of("beat"), Script.of("due")
SCRIPTS = (RESERVE, RESOLVE, TAKE, GIVE_BACK, BEAT, DUE)


# -- names ---------------------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def name_of(text: str) -> str:
    """What :func:`quoted` was given."""
    return unquote(text, errors="surrogatepass")


@lru_cache(maxsize=1000)
def _tag(org: str) -> str:
    return f"douane:{{org:{quoted(org)}}}:"


def org_key(org: str, kind: str) -> str:
    return _tag(org) + kind


def lease(owner: str) -> str:
    return f"douane:owner:{quoted(owner)}"


@lru_cache(maxsize=10_000)
def suffix_of(account: Account) -> str:
    """What tells *account* from others of its org; its end does not, as in SQLite's table."""
    of = account
    return f"{of.unit}:{of.period}:{of.start}:{quoted(of.scope)}:{quoted(of.name)}:{quoted(of.book)}"


def account_of(org: str, suffix: str, end: str) -> Account:
    """Raises ValueError for what is none of ours."""
    unit, period, start, scope, name, book = suffix.split(":")
    return Account(org, name_of(book), name_of(scope), name_of(name), unit, period,  # type: ignore[arg-type]
                   int(start), int(end) if end not in ("", "-") else None)


# -- what the scripts are told -------------------------------------------------------------------------------------------


def reserve(call: str, org: str, owner: str, now: int, at: float, demands: Sequence[Demand]) -> Command:
    tag = _tag(org)
    keys, told = [f"{tag}hold:{call}", f"{tag}open", f"{tag}accounts", f"{tag}outbox"], [call, owner, str(now), str(int(at))]
    for one in demands:
        suffix = suffix_of(one.account)
        keys.append(f"{tag}account:{suffix}")
        end = one.account.end
        told += (suffix, str(one.amount), str(one.limit), "1" if one.hard else "0",
                 _thresholds(one.alerts, one.limit) if one.alerts else "", "" if end is None else str(end))
    return (len(keys), *keys, *told)


@lru_cache(maxsize=1000)
def _thresholds(shares: tuple[int, ...], limit: int) -> str:
    """Share and what must be captured for it, which is exact here: a product of the two may not fit a double."""
    return ",".join(f"{share}={min((share * limit + 999) // 1000, MOST)}" for share in shares)


def resolve(call: str, org: str, now: int, spent: Spent, token: str, suffixes: Sequence[str]) -> Command:
    """*token*: the same where the same request is sent again, and no other's."""
    tag = _tag(org)
    return (4 + len(suffixes), f"{tag}hold:{call}", f"{tag}open", f"{tag}accounts", f"{tag}outbox",
            *(f"{tag}account:{suffix}" for suffix in suffixes), call, token, now, spent.usd, spent.tokens, spent.calls,
            int(spent.usd_floor), int(spent.tokens_floor), *suffixes)


def take(call: str, org: str, who: str, at: float, takes: Sequence[Take]) -> Command:
    tag = _tag(org)
    keys, told = [f"{tag}gone:{call}", f"{tag}lives"], [call, who, str(int(at * MICRO)), str(LEASE_MS)]
    for one in takes:
        keys.append(_rule_key(tag, one.rule))
        if isinstance(one.rule, Rate):
            fits, cost = worth(one.rule, one.cost)
            told += ("r", str(fits), str(min(cost, MOST)))
        else:
            told += ("s", str(one.rule.limit), "0")
    return (len(keys), *keys, *told)


def give_back(call: str, org: str, at: float, takes: Sequence[Take], *, given_up: bool = False) -> Command:
    """*given_up*: nobody knows whether it was taken, or will be; name slots alone then."""
    tag = _tag(org)
    keys, told = [f"{tag}gone:{call}"], [call, str(int(at * MICRO)), "1" if given_up else "0"]
    for one in takes:
        keys.append(_rule_key(tag, one.rule))
        if isinstance(one.rule, Rate):
            told += ("r", str(max(-MOST, missing(one.rule, one.cost))))
        else:
            told += ("s", "0")
    return (len(keys), *keys, *told)


def beat(org: str, who: str, rules: Sequence[Slots]) -> Command:
    tag = _tag(org)
    return (1 + len(rules), f"{tag}lives", *(_rule_key(tag, one) for one in rules), who, LEASE_MS)


def due(org: str, at: float, seconds: float) -> Command:
    return (1, f"{_tag(org)}outbox", int(at), int(at + seconds))


def _rule_key(tag: str, rule: Rate | Slots) -> str:
    return f"{tag}{'rate' if isinstance(rule, Rate) else 'slots'}:{':'.join(map(quoted, rule.key))}"


# -- what they answer ----------------------------------------------------------------------------------------------------


def held_of(answer: Sequence[int | bytes], at: float, demands: Sequence[Demand]) -> Held | Refused:
    if not answer[0]:
        return Held(tuple(demands[int(number)].account for number in answer[1:])) if len(answer) > 1 else _HELD
    demand = demands[int(answer[1])]
    end = demand.account.end
    return Refused(demand.account, demand.limit - int(answer[2]) - int(answer[3]), None if end is None else max(0.0, end - at))


_HELD = Held()


def limited_of(answer: Sequence[int | bytes], at: float, takes: Sequence[Take]) -> Limited | None:
    if not answer:
        return None
    one = takes[int(answer[0])]
    if isinstance(one.rule, Slots):
        return Limited(one.rule, 0, 1.0, 1.0)
    return refusal(one.rule, int(answer[1]), int(at * MICRO), one.cost)


def alert_of(org: str, member: bytes) -> Alert:
    share, at, captured, limit, end, suffix = member.decode().split(" ")
    return Alert(account_of(org, suffix, end), int(share), int(at), int(captured), int(limit))


def sent(one: Alert) -> str:
    """The member of the outbox that *one* was made of."""
    end = "-" if one.account.end is None else one.account.end
    return f"{one.share} {one.at:.0f} {one.captured} {one.limit} {end} {suffix_of(one.account)}"


def stop_of(field: bytes, value: bytes) -> Stop:
    scope, name = map(name_of, field.decode().split(":"))
    at, running = value.decode().split(" ")
    return Stop(scope, name, float(at), running == "1")
