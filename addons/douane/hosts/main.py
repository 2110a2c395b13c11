"""``douane serve``: the process from its first line to its exit code."""

import asyncio
import gc
import logging
import sys

from douane import __version__, logs
from douane.hosts.house import House, open_house
from douane.hosts.serve import DRAIN_SECONDS, Gateway
from douane.loader import Loaded
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
    gc.collect()
    gc.freeze()  # what was imported lives for ever; later collections need not walk it
    print(banner(gateway), file=sys.stderr, flush=True)
    await gateway.stopping.wait()
    log.info("stopping: running calls have %d s to finish", int(DRAIN_SECONDS))
    await gateway.stop()
    log.info("stopped; every outcome is written")


def banner(gateway: Gateway) -> str:
    """What a newcomer must know, in a few lines."""
    loaded = gateway.loaded
    host, port = gateway.proxy.addresses()[0]
    http, admin = gateway.http_address(), gateway.admin_address()
    files = ", ".join(name.rpartition("/")[2] for name in loaded.chain.files)
    chain = " → ".join(entry.name for entry in loaded.chain.entries) or "nothing"
    lines = [
        f"Douane {__version__}",
        f"  listening   proxy http://{host}:{port}   http http://{http[0]}:{http[1]}/PROVIDER   admin http://{admin[0]}:{admin[1]}/metrics",
        f"  policies    {files} (revision {loaded.chain.revision[:12]}): {chain}",
        f"  governed    {', '.join(sorted(loaded.chain.providers))}; other hosts pass "
        + ("untouched, still encrypted" if loaded.chain.edge.unknown_hosts == "tunnel" else "not at all"),
        f"  audit       {gateway.places.audit} (level {loaded.chain.audit.level})",
    ]
    lines += [f"  NOT YET     {line}" for line in unprotected(loaded)]
    lines += [f"  CA          {note}" for note in gateway.house.authority.notes]
    lines += ["  to use it   ./run.sh run -- python my_app.py      or: eval \"$(./run.sh env)\""]
    return "\n".join(lines)


def unprotected(loaded: Loaded) -> list[str]:
    """What a reader might believe to be protected and is not."""
    found = []
    names = {entry.name for entry in loaded.chain.entries}
    if not loaded.credential_providers:
        found.append("no credential is configured: apps still hold and send their own provider keys")
    elif "swap_key" not in names:
        found.append("credentials are configured, but no swap_key in the chain uses them")
    if "redact" not in names:
        found.append("texts are not inspected: PII and secrets in prompts leave as they are")
    if "budget" not in names:
        found.append("no budget: spending is recorded, not held")
    if loaded.chain.edge.tunnel:
        found.append(f"edge: tunnel: {', '.join(loaded.chain.edge.tunnel)}: calls to these pass uninspected and unrecorded")
    if not loaded.has_principals:
        found.append("callers are told apart by nothing but this machine's loopback")
    found.append("an app that ignores HTTPS_PROXY goes past: pair this with egress rules")
    return found

