"""The workers of one gateway: started, asked, replaced, ended.

Law: each place (:class:`Slot`) has one worker that serves; another only while it takes over. A worker is told everything
before it may accept, one that dies unasked is replaced in its place and log, and of what it counted nothing is lost that
was ever shown. What changes the workers, and what must find them all the same, holds ``changing``.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from douane.errors import DouaneError, EnvironmentFailedError
from douane.hosts.banner import Summary
from douane.hosts.channel import GoneError
from douane.hosts.hand import END_SECONDS, Hand
from douane.hosts.slots import Slot
from douane.metrics import Metrics
from douane.places import chain_names

__all__ = ["Crew"]

log = logging.getLogger("douane.gateway")

START_SECONDS = 60.0
ASK_SECONDS = 5.0
_LOOK_SECONDS = 2.0
"""What a worker may take to say its counts and problems: behind it stands who asked for them."""
_QUICK_SECONDS = 5.0
"""A worker that ends so soon after it has opened is not replaced at once."""
_PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds before a place is filled again, after so many quick deaths or failed starts in a row."""
_MOST_FAILED_STARTS = 5

type Brief = Callable[[], Mapping[str, Any]]
"""What every worker is told first."""
type Certify = Callable[[Summary], Awaitable[None]]
"""Sees to it that the CA can sign for what the policies govern. Raises DouaneError."""


class Crew:
    """*gave_up* is told why, when a place cannot be filled any more."""

    def __init__(self, node: str, slots: Sequence[Slot], brief: Brief, certify: Certify,
                 gave_up: Callable[[DouaneError], None]) -> None:
        self._node = node
        self._slots = slots
        self._brief = brief
        self._certify = certify
        self._gave_up = gave_up
        self.changing = asyncio.Lock()
        self._hands: list[Hand] = []
        """All processes, those that begin or leave too."""
        self._at: dict[int, Hand] = {}
        """Place → who serves there."""
        self._quick: dict[int, int] = {}
        """Place → deaths in a row that came soon."""
        self._gone = Metrics()
        """What the dead have counted."""
        self._rolling = False
        self._stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> Summary:
        """Fill every place; what the policies come to. Raises DouaneError with what the first worker says that cannot."""
        async with self.changing:
            begun = await asyncio.gather(*(self._begin(slot, chain_names(self._node, slot.number)) for slot in self._slots),
                                         return_exceptions=True)
            for one in begun:
                if isinstance(one, BaseException):
                    raise one
            found = [one for one in begun if not isinstance(one, BaseException)]
            self._at = {hand.slot.number: hand for hand, _ in found}
        self._spawn(self._close_abandoned())
        return found[0][1]

    async def stop(self) -> None:
        """Have all finish what runs, at once, and end."""
        self._stopping = True
        await asyncio.gather(*(self._end(hand, "stop") for hand in self._hands))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def roll(self, slots: Sequence[Slot] = ()) -> None:
        """Replace the workers, or those in *slots*, one by one: each by one that serves before the other leaves."""
        if self._rolling or self._stopping:
            log.warning("a rolling restart is under way already")
            return
        self._rolling = True
        try:
            for slot in slots or self._slots:
                if not self._stopping:
                    await self._succeed(slot)
            log.info("workers were replaced", extra={"replaced": len(slots or self._slots)})
        except DouaneError as error:
            log.error("the rolling restart ends here, the others stay: %s", error)
        finally:
            self._rolling = False

    async def _succeed(self, slot: Slot) -> None:
        async with self.changing:
            old = self._at[slot.number]
            free = [name for name in chain_names(self._node, slot.number) if name != old.chain]
            new, _ = await self._begin(slot, free)
            self._at[slot.number] = new
        await self._end(old, "leave")

    async def _begin(self, slot: Slot, chains: Sequence[str], died: Sequence[str] = ()) -> tuple[Hand, Summary]:
        """A worker that serves; with ``changing`` held. Raises DouaneError, and nothing is left of it then."""
        try:
            hand = await Hand.start(slot)
        except OSError as error:
            raise EnvironmentFailedError(f"worker {slot.number} cannot be started: {error.strerror or error}") from None
        self._hands.append(hand)
        self._spawn(self._watch(hand))
        try:
            if self._stopping:
                raise EnvironmentFailedError("the gateway is stopping")
            fds = {name: [one.fileno() for one in sockets] for name, sockets in (("proxy", slot.proxy), ("http", slot.http))}
            said = await hand.channel.ask("begin", START_SECONDS, worker=slot.number, **fds, **self._brief())
            found = Summary.of(said["summary"])
            await self._certify(found)
            hand.may_serve = True
            said = await hand.channel.ask("open", START_SECONDS, chains=list(chains), died=list(died))
        except GoneError:
            await hand.ended.wait()
            raise EnvironmentFailedError(f"worker {slot.number} ended while it started ({hand.how})") from None
        except BaseException:
            hand.asked_to_end = True
            hand.kill()
            raise
        hand.chain, hand.opened_at = said["chain"], time.monotonic()
        return hand, found

    async def _end(self, hand: Hand, how: str) -> None:
        hand.asked_to_end = True
        try:
            hand.counts = (await hand.channel.ask(how, END_SECONDS))["counts"]
        except GoneError:
            pass  # it has ended
        except DouaneError as error:
            log.error("worker %d does not end in order, and is killed: %s", hand.slot.number, error)
            hand.kill()
        hand.channel.close()
        await hand.ended.wait()

    # -- death ---------------------------------------------------------------------------------------------------

    async def _watch(self, hand: Hand) -> None:
        await hand.watch()
        self._hands.remove(hand)
        if hand.counts is not None:
            self._gone.add(hand.counts, ended=True)
        if self._stopping:
            return
        if self._at.get(hand.slot.number) is hand and not hand.asked_to_end:
            log.error("a worker died and is replaced", extra={"died": hand.slot.number, "how": hand.how})
            await self._replace(hand)
        elif hand.chain and hand.failed:
            await self._close_abandoned()

    async def _replace(self, dead: Hand) -> None:
        number, failed = dead.slot.number, 0
        lived = time.monotonic() - dead.opened_at
        self._quick[number] = self._quick.get(number, 0) + 1 if lived < _QUICK_SECONDS else 0
        names = chain_names(self._node, number)
        chains = (dead.chain, *(name for name in names if name != dead.chain))  # its log first: its calls are closed there
        while True:
            await asyncio.sleep(_PAUSES[min(self._quick[number] + failed, len(_PAUSES) - 1)])
            async with self.changing:
                if self._at[number] is not dead:
                    break
                try:
                    self._at[number], _ = await self._begin(dead.slot, chains, (dead.how,))
                    return
                except DouaneError as error:
                    if self._stopping:
                        return
                    failed += 1
                    log.error("worker %d cannot be replaced: %s", number, error)
                    if failed >= _MOST_FAILED_STARTS:
                        self._gave_up(error)
                        return
        await self._close_abandoned()  # a rolling restart was quicker, in the other log

    async def _close_abandoned(self) -> None:
        """Have one of the workers close what the dead left open in logs that nobody holds."""
        async with self.changing:  # else it might hold the log that a successor is to have
            for hand in self._at.values():
                try:
                    await hand.channel.ask("abandoned", START_SECONDS)
                    return
                except GoneError:
                    continue
                except DouaneError as error:
                    log.error("what a dead worker left open is not closed yet: %s", error)
                    return

    # -- what all are asked --------------------------------------------------------------------------------------

    async def all(self, op: str, seconds: float, **more: Any) -> list[dict[str, Any] | DouaneError]:
        """The answers, or refusals, of all that serve or may soon; those that end meanwhile are left out. Those that only
        begin are told, and hear it before they serve."""
        for hand in self._hands:
            if not hand.may_serve:
                hand.channel.tell(op, **more)
        answers = await asyncio.gather(*(_answer(hand, op, seconds, more) for hand in self._hands if hand.may_serve))
        return [one for one in answers if not isinstance(one, GoneError)]

    async def adopt(self) -> None:
        """Have all take into use what they have prepared; one that cannot is succeeded by one that begins with it. With
        ``changing`` held."""
        hands = [hand for hand in self._hands if hand.may_serve]
        answers = await asyncio.gather(*(_answer(hand, "adopt", ASK_SECONDS, {}) for hand in hands))
        for hand, answer in zip(hands, answers, strict=True):
            if isinstance(answer, DouaneError) and self._at.get(hand.slot.number) is hand:
                log.error("worker %d cannot take the new policies into use, and is replaced: %s", hand.slot.number, answer)
                self._spawn(self.roll([hand.slot]))

    def pids(self) -> dict[str, int]:
        """Place → process id of who serves there."""
        return {str(number): hand.pid for number, hand in sorted(self._at.items())}

    def tell(self, op: str, **more: Any) -> None:
        for hand in self._hands:
            hand.channel.tell(op, **more)

    async def one(self, op: str, **more: Any) -> dict[str, Any]:
        """The answer of one that serves. Raises its refusal, and EnvironmentFailedError where there is none."""
        for hand in self._at.values():
            try:
                return await hand.channel.ask(op, ASK_SECONDS, **more)
            except GoneError:
                continue
        raise EnvironmentFailedError("no worker serves at the moment; try again")

    async def problems(self) -> list[str]:
        """Why not every place has a worker that is ready; empty where each has."""
        async def of(slot: Slot) -> list[str]:
            hand = self._at.get(slot.number)
            if hand is None or hand.channel.gone.is_set():
                return [f"worker {slot.number}: is being replaced"]
            said = await _answer(hand, "problems", _LOOK_SECONDS, {})
            found = [str(said)] if isinstance(said, DouaneError) else said["problems"]
            return [f"worker {slot.number}: {one}" for one in found]

        return [line for lines in await asyncio.gather(*map(of, self._slots)) for line in lines]

    async def metrics(self) -> bytes:
        """Everybody's counts, added up, in the exposition format."""
        await asyncio.gather(*map(self._count, list(self._hands)))
        total = Metrics()
        total.add(self._gone.counts())
        for hand in self._hands:
            if hand.counts is not None:
                total.add(hand.counts)
        return total.text()

    async def _count(self, hand: Hand) -> None:
        """One that is late counts for what it told last."""
        said = await _answer(hand, "counts", _LOOK_SECONDS, {}) if hand.may_serve else {}
        if not isinstance(said, DouaneError) and "counts" in said:
            hand.counts = said["counts"]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _answer(hand: Hand, op: str, seconds: float, more: Mapping[str, Any]) -> dict[str, Any] | DouaneError:
    try:
        return await hand.channel.ask(op, seconds, **more)
    except DouaneError as error:
        return error
