"""A Secret shows itself through ``reveal`` alone."""

import copy
import hashlib
import json
import logging
import pickle
import pprint
import traceback

import orjson
import pytest

from douane.call import Caller, Credential
from douane.secrets import Secret
from tests import house

VALUE = "sk-" + "canary" * 4
SECRET = Secret(VALUE)


def test_reveal_and_digest() -> None:
    assert SECRET.reveal() == VALUE
    assert SECRET.digest() == hashlib.sha256(VALUE.encode()).digest()


@pytest.mark.parametrize("shown", [
    repr(SECRET), str(SECRET), f"{SECRET}", f"{SECRET!r}", f"{SECRET:>40}", f"{SECRET} {SECRET!r}", f"{[SECRET]}",
    pprint.pformat({"k": SECRET}), json.dumps([SECRET], default=str), orjson.dumps([SECRET], default=str).decode(),
    logging.LogRecord("x", 10, "f", 1, "%s", (SECRET,), None).getMessage(),
    repr(Credential(SECRET, b"authorization", b"Bearer ", "openai")), repr(Caller("::1", "me", SECRET)),
    repr(house.call(caller=Caller("::1", "me", SECRET), credential=Credential(SECRET, b"x-api-key"))),
])
def test_no_way_of_showing_it_shows_it(shown: str) -> None:
    assert "Secret(***)" in shown
    assert "canary" not in shown


@pytest.mark.parametrize("leave", [
    pickle.dumps, copy.copy, copy.deepcopy, json.dumps, orjson.dumps, vars, iter, bytes, len,
])
def test_it_is_not_carried_away(leave: object) -> None:
    with pytest.raises((TypeError, orjson.JSONEncodeError)) as caught:
        leave(SECRET)  # type: ignore[operator]
    assert "canary" not in str(caught.value)


def test_a_traceback_with_locals_shows_the_mask() -> None:
    def fail(key: Secret) -> None:
        raise ValueError(f"cannot use {key}")

    try:
        fail(SECRET)
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "Secret(***)" in shown
    assert "key = Secret(***)" in shown


def test_equal_by_value_and_only_to_secrets() -> None:
    same = Secret(VALUE)
    assert same == SECRET
    assert hash(SECRET) == hash(same)
    assert len({SECRET, same, Secret("another")}) == 2
    assert Secret(VALUE + "x") != SECRET
    assert VALUE != SECRET


def test_a_call_shows_neither_body_nor_document() -> None:
    shown = repr(house.call(body=b"my text", document={"text": "my text"}))
    assert "my text" not in shown
