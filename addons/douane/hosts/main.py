"""``douane serve``: the process from its first line to its exit code."""

import asyncio
import gc
import logging
import sys

from douane import logs
from douane.hosts.house import House, open_house
from douane.hosts.serve import DRAIN_SECONDS, Gateway
from douane.places import Places, guard_process

__all__ = ["serve"]

log = logging.getLogger("douane.gateway")


def serve(places: Places) -> int:
    """Run until SIGTERM or SIGINT. Raises ConfigError, EnvironmentFailedError before anything listens."""
    guard_process()
    logs.setup()
    house = open_house(places)
    try:
        import uvloop
    except ImportError:  # not on Windows
        asyncio.run(_serve(places, house))
    else:
        uvloop.run(_serve(places, house))
    return 0


async def _serve(places: Places, house: House) -> None:
    gateway = Gateway(places, house)
    try:
        await gateway.start()
    except BaseException:
        await gateway.stop(0)
        raise
    gateway.handle_signals()
    gc.enable()
    gc.freeze()  # what was imported lives for ever: no collection need walk it, one before this included
    print(gateway.banner(), file=sys.stderr, flush=True)
    await gateway.stopping.wait()
    log.info("stopping: running calls have %d s to finish", int(DRAIN_SECONDS))
    await gateway.stop()
    log.info("stopped; every outcome is written")
