"""The law of stored objects: those made with a shared credential are reached by the tenant alone that made them through us.

It stands at the end of every chain and in no policy file, so that nobody can leave it out: it acts wherever a credential of
ours was swapped in, and nowhere else, for a caller with a key of its own has an account of its own. An object that somebody
else made and one that is not there are refused in the same words. Lists hold what is the caller's. What an answer says was
made is noted before the app sees its end; where it cannot be noted, it is nobody's, and the record says so.
"""

import asyncio
from collections.abc import Container
from dataclasses import dataclass, field
from typing import ClassVar

from douane.call import Call, Outcome
from douane.errors import RefusedError
from douane.histories.base import durable
from douane.objects.answers import Listed, Noting
from douane.objects.base import Holder, Register
from douane.objects.requests import names_in
from douane.policy import BodyFilter
from douane.providers.dialogue import SOCKET
from douane.providers.objects import Spot, in_query, is_stored, made, own_alone, spot, tells
from douane.verdict import ALLOW, Deny, Verdict

__all__ = ["Ownership"]

_MOST = 20_000
"""Objects that one request may name."""
_NOT_YOURS = Deny("operation_not_allowed", "the request names an object that this caller has not made through this gateway: "
                                           "with a shared key, files, batches, responses, conversations and the like are "
                                           "reachable only by who made them")
_OF_SESSIONS = ("responses/", "conversations/")
_LARGE = 1 << 18
"""Bytes; a longer body is read beside the loop."""


@dataclass(slots=True)
class _Open:
    holder: Holder
    place: Spot | None
    document: object
    held: Container[str] | None = None
    """Of a list: what the caller may see."""
    noting: Noting | None = None


@dataclass(frozen=True, slots=True)
class Ownership:
    """Asked as a policy is: ``admit``, ``filter``, ``settle``."""

    always: ClassVar[bool] = True

    register: Register
    google: frozenset[str]
    """Providers whose requests name objects as Google's do."""
    open: dict[str, _Open] = field(default_factory=dict, repr=False)
    """By call id, to ``settle``."""

    async def admit(self, call: Call) -> Verdict:
        if call.credential is None:
            return ALLOW
        try:
            place = spot(call.path)
            wanted = {place.name} if place is not None and place.name else set[str]()
            wanted.update(in_query(call.query, place))
            google = call.provider in self.google
            if len(call.body) > _LARGE:
                found, document = await asyncio.to_thread(names_in, call, place, google=google)
            else:
                found, document = names_in(call, place, google=google)
        except ValueError as error:
            return Deny("operation_not_allowed", f"it cannot be told which stored objects the request names: {error}")
        wanted |= found
        if call.method == SOCKET and place is None:  # a session's own, which live no longer than it does
            wanted = {one for one in wanted if not one.startswith(_OF_SESSIONS)}
        if len(wanted) > _MOST:
            return Deny("operation_not_allowed", f"a request may name at most {_MOST} stored objects")
        one = _Open(Holder(call.provider, call.principal.tenant), place, document)
        if wanted and await self.register.objects.missing(one.holder, wanted):
            return _NOT_YOURS
        if own_alone(call.method, place):
            one.held = await self.register.objects.all_of(one.holder)
        self.open[call.id] = one
        return ALLOW

    def filter(self, call: Call) -> BodyFilter | None:
        one = self.open.get(call.id)
        if one is None:
            return None
        if one.held is not None and one.place is not None:
            return Listed(one.place.collection, one.held)
        method = "POST" if call.method == SOCKET else call.method
        if not tells(method, call.path, one.place, one.document):
            return None
        google, stored = call.provider in self.google, is_stored(one.place, one.document)
        one.noting = Noting(
            lambda document: made(method, one.place, document, google=google, stored=stored),
            lambda names: self.register.objects.add(one.holder, names, call.at))
        return one.noting

    async def settle(self, call: Call, outcome: Outcome) -> None:
        one = self.open.pop(call.id, None)
        if one is None or outcome.ended == "denied" or not 200 <= outcome.status < 300:
            return
        if one.noting is not None:
            for saving in one.noting.saved():
                await durable(saving)
            if one.noting.lost:
                raise RefusedError("too_large", "the answer was too long to be read for what was made")
        place = one.place
        if call.method == "DELETE" and place is not None and place.name and not place.below:
            await durable(self.register.objects.remove(one.holder, [place.name]))
