"""Which ledger the policy files name. Imports little: the command line opens one too."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from douane.ledger.base import Store
from douane.ledger.sqlite import SqliteLedger
from douane.sections import LedgerRules

__all__ = ["open_store"]


def open_store(rules: LedgerRules, data: Path, owner: str) -> Store:
    """The ledger that the policy files name. *owner*: this process's, of those of this data folder. Raises
    EnvironmentFailedError."""
    url = rules.url
    if url is None:
        return SqliteLedger(data, owner)
    from douane.ledger.redis import RedisLedger  # the client, for who needs it

    return RedisLedger(url, f"{owner}@{_instance(data)}")


def _instance(data: Path) -> str:
    """What tells this data folder from all others, for its life."""
    path = data / "instance"
    with suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_hex(8))
    return path.read_text()
