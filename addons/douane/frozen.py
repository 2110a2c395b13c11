"""Frozen dataclasses that are made often, made fast.

A frozen dataclass's own ``__init__`` calls ``object.__setattr__`` once a field: 3 µs for a :class:`~douane.call.Call`, of which
each exchange makes three; all such values together took a twentieth of a call's CPU. Here the fields are assigned while the
object is of a *twin*, a class with the same slots whose attributes can be set, and then it becomes what it is: a fourth of the
time. What a value is and does stays the same: it is frozen once it is made."""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

__all__ = ["made_fast"]


def made_fast[T](cls: type[T]) -> type[T]:
    """To stand above ``@dataclass(frozen=True, slots=True)``, for fields that are arguments of ``__init__``. Raises TypeError
    for a class that is none of these."""
    own: Any = cls
    if cls.__bases__ != (object,) or not own.__dataclass_params__.frozen or "__slots__" not in cls.__dict__:
        raise TypeError(f"{cls.__qualname__} is no frozen dataclass with slots of its own")
    parts = fields(own)
    if tuple(cls.__dict__["__slots__"]) != tuple(one.name for one in parts) or not all(one.init for one in parts):
        raise TypeError(f"{cls.__qualname__} has fields that are no arguments")
    setattr(cls, "__init__", _init(cls, parts))  # noqa: B010 - a checker takes an assignment for a mistake
    return cls


def _init(cls: type, parts: tuple[Field[Any], ...]) -> Callable[..., None]:
    twin = type(f"_{cls.__name__}", (), {"__slots__": tuple(one.name for one in parts)})
    scope: dict[str, Any] = {"_twin": twin, "_cls": cls, "_set": object.__setattr__, "_missing": MISSING}
    lines = [f"def __init__(self, {', '.join(_arguments(parts, scope))}):", "_set(self, '__class__', _twin)"]
    for one in parts:
        made = f"_make_{one.name}() if {one.name} is _missing else " if one.default_factory is not MISSING else ""
        lines.append(f"self.{one.name} = {made}{one.name}")
    lines.append("self.__class__ = _cls")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    exec("\n ".join(lines), scope)  # noqa: S102 - as dataclasses does it: names of fields are all that is in it
    written: Callable[..., None] = scope["__init__"]
    written.__qualname__ = f"{cls.__qualname__}.__init__"
    return written


def _arguments(parts: tuple[Field[Any], ...], scope: dict[str, Any]) -> Iterator[str]:
    for number, one in enumerate(parts):
        if one.kw_only and not any(before.kw_only for before in parts[:number]):
            yield "*"
        if one.default_factory is not MISSING:
            scope[f"_make_{one.name}"] = one.default_factory
            yield f"{one.name}=_missing"
        elif one.default is not MISSING:
            scope[f"_default_{one.name}"] = one.default
            yield f"{one.name}=_default_{one.name}"
        else:
            yield one.name
