"""The recorded traffic of ``shared/wire``, beside the repository; tests that need it skip where it is absent."""

import functools
import json
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "wire"


@functools.cache
def records(*providers: str) -> tuple[dict[str, Any], ...]:
    """The HTTP records of these providers (all where none is named); WebSocket sessions and gRPC are left out."""
    if not FOLDER.is_dir():
        pytest.skip(f"recorded traffic is absent: {FOLDER}")
    files = [FOLDER / f"{name}.jsonl" for name in providers] if providers else sorted(FOLDER.glob("*.jsonl"))
    found = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(record for record in found if "request" in record)


def url(record: dict[str, Any]) -> SplitResult:
    return urlsplit(str(record["request"]["url"]))


def asked(record: dict[str, Any]) -> Any:
    """The JSON of the request, or None."""
    try:
        return json.loads(record["request"].get("body") or "null")
    except ValueError:
        return None


def answer(record: dict[str, Any]) -> bytes:
    """The body of the answer."""
    return (record["response"].get("body") or "").encode()
