"""Placeholders, and the key they are made with."""

import base64
import pickle
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.datakey import open_data_key
from douane.errors import EnvironmentFailedError
from douane.placeholders import LOOKS_LIKE, DataKey, Minter, _base32
from douane.secrets import Originals

KEY = DataKey(b"k" * 32)


def minter(tenant: str = "acme", key: DataKey = KEY) -> Minter:
    return Minter(key, tenant, {})


def test_a_value_has_one_placeholder_for_each_tenant_and_key() -> None:
    made = minter().placeholder("EMAIL_ADDRESS", "ann@example.com")
    assert made == minter().placeholder("EMAIL_ADDRESS", "ann@example.com")
    assert LOOKS_LIKE.fullmatch(made)
    assert made.startswith("<EMAIL_ADDRESS_")
    others = [minter().placeholder("EMAIL_ADDRESS", "Ann@example.com"),
              minter("b").placeholder("EMAIL_ADDRESS", "ann@example.com"),
              minter(key=DataKey(b"x" * 32)).placeholder("EMAIL_ADDRESS", "ann@example.com")]
    assert len({made, *others}) == 4


@pytest.mark.parametrize("kind", ["a b-c", "9", "", "é", "x" * 80])
def test_whatever_the_type_is_called_the_form_holds(kind: str) -> None:
    assert LOOKS_LIKE.fullmatch(minter().placeholder(kind, "v"))


def test_values_that_collide_get_more_digits() -> None:
    first = minter().placeholder("X", "v")
    longer = Minter(KEY, "acme", {first: "another"}).placeholder("X", "v")
    assert longer.startswith(first[:-1])
    assert len(longer) == len(first) + 8
    assert LOOKS_LIKE.fullmatch(longer)
    taken = Minter(KEY, "acme", {first: "v"})
    assert taken.placeholder("X", "v") == first
    assert dict(taken.originals()) == {first: "v"}


@given(st.text(), st.text())
def test_a_values_digest_is_the_plain_one(tenant: str, value: str) -> None:
    for _ in range(2):
        assert KEY.of_value(tenant, value) == KEY.digest("placeholder", tenant, value)


def test_another_key_makes_other_digests() -> None:
    key = DataKey(b"k" * 32)
    before = key.of_value("acme", "v")
    key.give(b"x" * 32)
    assert key.of_value("acme", "v") == DataKey(b"x" * 32).of_value("acme", "v") != before


def test_parts_of_a_digest_do_not_run_into_each_other() -> None:
    assert KEY.digest("ab", "c") != KEY.digest("a", "bc")


def test_what_is_secret_does_not_show_itself() -> None:
    held = Originals({"<X_aaaaaaaa>": "the canary"})
    for one in (held, KEY):
        assert "canary" not in f"{one!r} {one} {one:}"
        assert "kkk" not in f"{one!r}"
        with pytest.raises(TypeError):
            pickle.dumps(one)


def test_without_a_key_nothing_is_made() -> None:
    with pytest.raises(RuntimeError, match="key"):
        DataKey().digest("x")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret.key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: open_data_key(file), range(32)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["secret.key"]


def test_a_key_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "secret.key"
    file.write_bytes(b"short")
    file.chmod(0o600)
    with pytest.raises(EnvironmentFailedError, match="32 bytes"):
        open_data_key(file)
    file.chmod(0o644)
    with pytest.raises(EnvironmentFailedError, match="0600"):
        open_data_key(file)
    with pytest.raises(EnvironmentFailedError, match="No such file"):
        open_data_key(tmp_path / "nowhere" / "secret.key")


@given(st.binary(min_size=32, max_size=32), st.sampled_from(range(8, 49, 8)))
def test_its_digits_are_base32(digest: bytes, length: int) -> None:
    assert _base32(digest, length) == base64.b32encode(digest[:length * 5 // 8]).decode().lower()
