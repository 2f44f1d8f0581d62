"""The types a checkpoint may be read back as: those a user lists, and with them those their fields hold."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from threadline.domain.errors import Invalid

Name = tuple[str, str]
"""A module and a type in it: how a checkpoint names what it holds."""
Listed = type | str | tuple[str, str]
"""A type, or its name as `"module:Type"` or `("module", "Type")`."""


def names_of(allow: Iterable[Listed]) -> frozenset[Name]:
    """The names of the listed types and of the types their fields hold. A `TypedDict` stands for its fields.

    Raises Invalid for what names no type of a module: a checkpoint could not be read back as such.
    """
    if isinstance(allow, str | type):
        raise Invalid('Allowed types are given as a list, such as [Booking, "shop.models:Refund"].')
    listed = [each if isinstance(each, type) else _imported(each) for each in allow]
    for each in listed:
        if not _is_typed_dict(each) and not _is_found(each):
            raise Invalid(f"{each.__module__}:{each.__qualname__} cannot be allowed: it is not found in its module.")
    themselves = frozenset((each.__module__, each.__name__) for each in listed if not _is_typed_dict(each))
    return themselves | names_in(listed)


def names_in(annotations: Iterable[Any]) -> frozenset[Name]:
    """The names of all types that values of these annotations may be stored as, those of their fields included.

    That is what LangGraph derives from a graph's schema: Pydantic models, dataclasses and enums; and named tuples and
    secrets as well, which its serializer stores by name too. Which subclasses there are no annotation tells.
    """
    return frozenset((kind.__module__, kind.__name__) for kind in _types_in(annotations) if _is_stored_by_name(kind))


def _imported(listed: str | tuple[str, ...]) -> type:
    module, name = _parted(listed)
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # it is the user's module, which may fail in any way
        raise Invalid(f"{module}:{name} cannot be allowed: there is no such type, or its module fails.") from error
    if not isinstance(found, type):
        raise Invalid(f"{module}:{name} cannot be allowed: it is no type.")
    return found


def _parted(listed: object) -> tuple[str, str]:
    parts = listed.split(":") if isinstance(listed, str) else listed
    match parts:
        case [str() as module, str() as name] if module.strip() and name.isidentifier() and module[0] != ".":
            return module, name
    raise Invalid(f'An allowed type is a type or is written as "module:Type", not {listed!r}.')


def _types_in(annotations: Iterable[Any]) -> Iterator[type]:
    """Every class that the annotations name, each once."""
    seen: dict[int, object] = {}  # holds what it has seen, so that no id is used again
    waiting = list(annotations)
    while waiting:
        annotation = waiting.pop()
        if id(annotation) in seen:
            continue
        seen[id(annotation)] = annotation
        origin = get_origin(annotation)
        if origin is Literal:
            continue
        if origin is Annotated:
            waiting.append(get_args(annotation)[0])
        elif origin is not None:
            waiting += [origin, *get_args(annotation)]
        elif isinstance(annotation, TypeVar):
            waiting += [annotation.__bound__, *annotation.__constraints__]
        elif isinstance(annotation, type):
            yield annotation
            waiting += _fields(annotation)
        else:  # `type X = ...` and NewType
            waiting += [getattr(annotation, name, None) for name in ("__value__", "__supertype__")]


def _fields(kind: type) -> list[Any]:
    """What the fields of a class are annotated with."""
    if issubclass(kind, BaseModel) and kind.__pydantic_complete__:
        return [field.annotation for field in kind.model_fields.values()]
    if _is_old_model(kind):
        return [field.outer_type_ for field in kind.__fields__.values()]  # type: ignore[attr-defined]
    if issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind) or _is_named_tuple(kind) or _is_typed_dict(kind):
        return _hints(kind)
    return []


def _hints(kind: type) -> list[Any]:
    try:
        return list(get_type_hints(kind, include_extras=True).values())
    except Exception:  # a name that only type checkers know, or an expression that means nothing here
        return [_hint(base, *each) for base in kind.__mro__ for each in vars(base).get("__annotations__", {}).items()]


def _hint(kind: type, name: str, annotation: Any) -> Any:
    """One annotation of a class, where not all have a meaning; None if this one has none."""
    alone = type(kind.__name__, (), {"__module__": kind.__module__, "__annotations__": {name: annotation}})
    try:
        return get_type_hints(alone, include_extras=True)[name]
    except Exception:  # as above
        return None


def _is_stored_by_name(kind: type) -> bool:
    """Whether LangGraph's serializer stores such a value as the name of its class and what it is made of."""
    known = (
        issubclass(kind, Enum | BaseModel)
        or dataclasses.is_dataclass(kind)
        or _is_old_model(kind)
        or _is_named_tuple(kind)
        or callable(getattr(kind, "get_secret_value", None))
    )
    return known and _is_found(kind)


def _is_found(kind: type) -> bool:
    """Whether a class is what its name leads to. One within a function or another class is not."""
    return getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind


def _is_old_model(kind: type) -> bool:
    """Whether a class is a model of Pydantic 1."""
    return not issubclass(kind, BaseModel) and hasattr(kind, "__fields__") and callable(getattr(kind, "dict", None))


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and callable(getattr(kind, "_asdict", None))


def _is_typed_dict(kind: type) -> bool:
    return issubclass(kind, dict) and hasattr(kind, "__required_keys__")
