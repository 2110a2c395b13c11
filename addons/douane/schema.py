"""Nodes of a policy file → typed values. The schema is the type: a dataclass's fields are its keys.

Read are ``str``, ``int``, ``float``, ``bool``, ``None``, ``Literal``, ``tuple[T, ...]`` (a list), ``Mapping[str, T]``,
dataclasses, unions of these, and ``Annotated[T, Spelled(…)]``. Nothing is converted behind anybody's back: a number is
no text, text is no number. A key may be written with ``-`` for ``_``.
"""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAliasType, Union, get_args, get_origin, get_type_hints

from douane.errors import ConfigError
from douane.source import Items, Node, Place, Problems, Scalar, Table, kind, suggest
from douane.units import Spelled

__all__ = ["INVALID", "read", "read_fields"]


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final = _Invalid()
"""What a node that could not be read gives; the reasons are in the ``Problems``."""

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}
_LARGEST = 1e18
_NO_HINTS: Mapping[str, Any] = MappingProxyType({})


def read(node: Node, hint: Any, what: str, problems: Problems) -> Any:
    """*node* as a value of type *hint*, else INVALID. *what* names the value in messages (``edge.max_body``).

    Raises TypeError where *hint* is a type that policy files cannot give: a mistake of the class, not of the file."""
    while isinstance(hint, TypeAliasType):
        hint = hint.__value__
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        spelled = _spelled(hint)
        return _read_spelled(node, spelled, what, problems) if spelled else read(node, args[0], what, problems)
    if origin in (Union, types.UnionType):
        return _read_union(node, hint, what, problems)
    if origin is tuple and len(args) == 2 and args[1] is ...:
        return _read_items(node, args[0], what, problems)
    if origin is Mapping and args[0] is str:
        return _read_names(node, args[1], what, problems)
    if origin is Literal:
        return _read_literal(node, hint, what, problems)
    if hint in _WORDS:
        return _read_scalar(node, hint, what, problems)
    if isinstance(hint, type) and is_dataclass(hint):
        return read_fields(node, hint, what, problems)
    raise TypeError(f"{what}: {hint!r} is no type that policy files can give")


def read_fields(node: Node, cls: type, what: str, problems: Problems, hints: Mapping[str, Any] = _NO_HINTS) -> Any:
    """A mapping as the dataclass *cls*; *hints* stand in for the types of some of its fields.

    Unknown, repeated and missing keys are problems, as is what ``__post_init__`` raises (ValueError, ConfigError)."""
    if not isinstance(node, Table):
        return _wrong(node, cls, what, problems)
    schema = {one.name: one for one in fields(cls) if one.init}
    typed = {**get_type_hints(cls, include_extras=True), **hints}
    before, given = len(problems), dict[str, Any]()
    seen: dict[str, Place] = {}
    for key, entry in node.entries.items():
        name = key.replace("-", "_")
        if name not in schema:
            hint = suggest(name, schema) if schema else "; it takes no keys"
            problems.add(entry.place, f"{what}: there is no key `{key}`{hint}")
        elif name in seen:
            problems.add(entry.place, f"{what}: `{key}` is given twice: first at {seen[name]}")
        else:
            seen[name] = entry.place
            given[name] = read(entry.node, typed[name], f"{what}.{key}", problems)
    for name, one in schema.items():
        if name not in seen and one.default is MISSING and one.default_factory is MISSING:
            problems.add(node.place, f"{what}: `{name}` is missing: {describe(typed[name])}")
    if len(problems) > before:
        return INVALID
    try:
        return cls(**given)
    except (ValueError, ConfigError) as error:
        problems.add(node.place, f"{what}: {error}")
        return INVALID


def describe(hint: Any) -> str:
    """What a value of this type looks like, for the end of a message."""
    while isinstance(hint, TypeAliasType):
        hint = hint.__value__
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        spelled = _spelled(hint)
        return f"such as {spelled.example}" if spelled else describe(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(one) for one in args)
    if origin is tuple:
        return f"a list (of: {describe(args[0])})"
    if origin is Mapping:
        return f"a mapping of names (to: {describe(args[1])})"
    if origin is Literal:
        return ", ".join(str(one) for one in args)
    if isinstance(hint, type) and is_dataclass(hint):
        return "{" + ", ".join(f"{one.name}: …" for one in fields(hint) if one.init) + "}"
    return _WORDS.get(hint, str(hint))


def _wrong(node: Node, hint: Any, what: str, problems: Problems) -> _Invalid:
    problems.add(node.place, f"{what}: {kind(node)} is not allowed here; allowed: {describe(hint)}")
    return INVALID


def _read_scalar(node: Node, hint: Any, what: str, problems: Problems) -> Any:
    value = node.value if isinstance(node, Scalar) else INVALID
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) < _LARGEST:  # false for nan
            return float(value)
        problems.add(node.place, f"{what}: this number is not allowed; allowed: finite ones, below {_LARGEST:g}")
        return INVALID
    if type(value) is hint:
        return value
    if hint is str and isinstance(value, bool | int | float):
        problems.add(node.place, f"{what}: {kind(node)} is not allowed here; allowed: text (put it in quotes)")
        return INVALID
    return _wrong(node, hint, what, problems)


def _read_spelled(node: Node, spelled: Spelled, what: str, problems: Problems) -> Any:
    if not isinstance(node, Scalar) or node.value is None or isinstance(node.value, bool):
        problems.add(node.place, f"{what}: {kind(node)} is not allowed here; allowed: such as {spelled.example}")
        return INVALID
    try:
        return spelled.parse(node.text)
    except ValueError as error:
        problems.add(node.place, f"{what}: {error}, such as {spelled.example}")
        return INVALID


def _read_literal(node: Node, hint: Any, what: str, problems: Problems) -> Any:
    allowed = get_args(hint)
    if not isinstance(node, Scalar):
        return _wrong(node, hint, what, problems)
    for one in allowed:
        if type(one) is type(node.value) and one == node.value:
            return one
    word = node.text[:40]
    problems.add(node.place, f"{what}: `{word}` is not allowed{suggest(word, [str(one) for one in allowed])}")
    return INVALID


def _read_items(node: Node, hint: Any, what: str, problems: Problems) -> Any:
    if not isinstance(node, Items):
        return _wrong(node, tuple[hint, ...], what, problems)
    values = tuple(read(one, hint, f"{what}[{index}]", problems) for index, one in enumerate(node.items))
    return INVALID if INVALID in values else values


def _read_names(node: Node, hint: Any, what: str, problems: Problems) -> Any:
    if not isinstance(node, Table):
        return _wrong(node, Mapping[str, hint], what, problems)
    values = {key: read(entry.node, hint, f"{what}.{key}", problems) for key, entry in node.entries.items()}
    return INVALID if any(value is INVALID for value in values.values()) else MappingProxyType(values)


def _read_union(node: Node, hint: Any, what: str, problems: Problems) -> Any:
    """The first member that reads the node. Where none does: the reasons of the only member of that shape, if it is a
    mapping or a list; of the only one that is spelled in its own way; else what the whole union allows."""
    reasons: list[Problems] = []
    members = _members(hint)
    for member in members:
        if _shape(member) is type(node):
            attempt = Problems()
            value = read(node, member, what, attempt)
            if value is not INVALID:
                return value
            reasons.append(attempt)
    if len(reasons) == 1 and not isinstance(node, Scalar):
        problems.extend(reasons[0])
        return INVALID
    if isinstance(node, Scalar):
        own = [one for member in members if (one := _spelled(member)) is not None]
        words = [member for member in members if get_origin(member) is Literal]
        if len(own) == 1 and isinstance(node.value, str):
            beside = f"; or {' or '.join(map(describe, words))}" if words else ""
            return _read_spelled(node, replace(own[0], example=own[0].example + beside), what, problems)
        if words:
            problems.add(node.place, f"{what}: `{node.text[:40]}` is not allowed; allowed: {describe(hint)}")
            return INVALID
    return _wrong(node, hint, what, problems)


def _members(hint: Any) -> list[Any]:
    """What a union is made of, those within it too."""
    while isinstance(hint, TypeAliasType):
        hint = hint.__value__
    if get_origin(hint) in (Union, types.UnionType):
        return [one for member in get_args(hint) for one in _members(member)]
    return [hint]


def _spelled(hint: Any) -> Spelled | None:
    if get_origin(hint) is not Annotated:
        return None
    return next((one for one in get_args(hint)[1:] if isinstance(one, Spelled)), None)


def _shape(hint: Any) -> type:
    """Which node a value of this type is read from."""
    while isinstance(hint, TypeAliasType):
        hint = hint.__value__
    origin = get_origin(hint)
    if origin is tuple:
        return Items
    return Table if origin is Mapping or (isinstance(hint, type) and is_dataclass(hint)) else Scalar
