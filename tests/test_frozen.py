"""Frozen dataclasses, made fast: what they are stays the same."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, make_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.call import Call, Usage
from douane.frozen import made_fast


@dataclass(frozen=True, slots=True)
class Plain:
    a: int
    b: str = "b"
    c: tuple[int, ...] = ()
    d: list[int] = field(default_factory=list, compare=False)
    e: int = field(default=5, kw_only=True)

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError("a is less than nothing")


Fast: Any = made_fast(dataclass(frozen=True, slots=True)(type("Fast", (), {
    "__annotations__": Plain.__annotations__, "b": "b", "c": (), "d": field(default_factory=list, compare=False),
    "e": field(default=5, kw_only=True), "__post_init__": Plain.__post_init__, "__module__": __name__})))


@given(st.integers(0, 9), st.dictionaries(st.sampled_from("bcde"), st.integers(), max_size=4))
def test_it_is_made_of_the_same_arguments(a: int, more: dict[str, Any]) -> None:
    one, other = Plain(a, **more), Fast(a, **more)
    assert asdict(other) == asdict(one)
    assert repr(other) == repr(one).replace("Plain", "Fast")
    assert other == Fast(a, **more)
    assert replace(other, a=3) == Fast(3, **more)
    assert copy.copy(other) == pickle.loads(pickle.dumps(other)) == other


@pytest.mark.parametrize("wrong", [
    lambda cls: cls(), lambda cls: cls(1, x=2), lambda cls: cls(1, "b", (), [], 5), lambda cls: cls(-1),
    lambda cls: cls(1, a=1)])
def test_it_refuses_the_same(wrong: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as as_usual:
        wrong(Plain)
    with pytest.raises(as_usual.type):
        wrong(Fast)


def test_it_is_frozen_and_shares_nothing() -> None:
    one = Fast(1)
    for name in (*(part.name for part in fields(Fast)), "x"):
        with pytest.raises((FrozenInstanceError, TypeError)):
            setattr(one, name, 1)
    with pytest.raises(FrozenInstanceError):
        del one.a
    assert type(one) is Fast
    assert one.d is not Fast(1).d
    assert hash(one) == hash(Fast(1))
    assert Usage(1) == Usage(1) != Usage(2)
    assert Call.__init__.__qualname__ == "Call.__init__"


@pytest.mark.parametrize("cls", [
    make_dataclass("Open", ["a"], slots=True), make_dataclass("Loose", ["a"], frozen=True),
    make_dataclass("Inner", [("a", int, field(init=False, default=1))], frozen=True, slots=True),
    make_dataclass("Below", ["b"], bases=(Plain,), frozen=True, slots=True)])
def test_what_it_cannot_make_it_refuses(cls: type) -> None:
    with pytest.raises(TypeError, match=cls.__name__):
        made_fast(cls)
