"""The gateway of ``douane serve`` with nothing in it: no policies (unless ``--chain``) and no audit log.

    python -m bench.bare [--chain] --policies DIR --data DIR --certs DIR --proxy HOST:PORT --admin HOST:PORT

It is here, not in the product: no configuration of Douane leads to a gateway that records nothing.
"""

import argparse
import gc
import os
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from douane import logs
from douane.errors import DouaneError
from douane.hosts.house import House, open_house
from douane.hosts.serve import Gateway
from douane.places import Places, guard_process


async def _serve(places: Places, house: House) -> None:
    """As ``hosts/main.py`` does it, the banner apart."""
    gateway = Gateway(places, house)
    await gateway.start()
    gateway.handle_signals()
    gc.collect()
    gc.freeze()
    await gateway.stopping.wait()
    await gateway.stop(1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.bare", description=__doc__)
    parser.add_argument("--chain", action="store_true", help="keep the policies; audit alone is off")
    for name in ("policies", "data", "certs", "proxy", "http", "admin"):
        parser.add_argument(f"--{name}", required=True)
    asked = parser.parse_args()
    try:
        guard_process()
        logs.setup()
        places = Places.of(vars(asked), os.environ, Path.cwd())
        house = open_house(places)
        if house.audit is not None:
            house.audit.close()
        loaded = house.loaded if asked.chain else replace(house.loaded, chain=replace(house.loaded.chain, entries=()))
        uvloop.run(_serve(places, replace(house, loaded=loaded, audit=None)))
    except DouaneError as failure:
        print(f"bench.bare: {failure}", file=sys.stderr)
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
