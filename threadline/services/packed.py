"""What a serialized value holds, looked into without building any of it: plain data, and marks where objects stand."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import orjson
import ormsgpack

CONSTRUCTED = frozenset(range(6))
"""Codes of LangGraph's extensions that name a class and what to make it of: `[module, name, arguments, …]`."""
SNAPSHOT = 7
"""The code of a delta channel's whole value."""
DEPTH = 100
"""Extensions within extensions, at most."""
TYPES = frozenset({"msgpack", "json", "null", "bytes", "bytearray"})
"""How a value may be stored. Pickle is none of them."""
_OPTION = ormsgpack.OPT_NON_STR_KEYS
_PACKED = _OPTION | ormsgpack.OPT_REPLACE_SURROGATES | ormsgpack.OPT_PASSTHROUGH_DATACLASS


@dataclass(frozen=True, slots=True, eq=False)
class Ext:
    """Where an object stands: the code says how it is written, the value is what it is made of."""

    code: int
    value: Any


def opened(type_: str, data: bytes) -> Any:
    """The value as plain data, with `Ext` where objects stand. Raises ValueError for what is damaged or not read."""
    if type_ == "msgpack":
        return _unpack(data, DEPTH)
    if type_ == "json":
        return orjson.loads(data)
    if type_ in ("bytes", "bytearray"):
        return data
    if type_ == "null" and not data:
        return None
    raise ValueError(type_)


def closed(type_: str, value: Any) -> bytes:
    """The bytes of a value that was opened."""
    if type_ == "msgpack":
        return ormsgpack.packb(value, default=_extension, option=_PACKED)
    if type_ == "json":
        return orjson.dumps(value)
    return bytes(value or b"")


def rewritten(type_: str, data: bytes, rewrite: Callable[[Any], Any]) -> tuple[bytes, Any]:
    """The bytes after `rewrite`, the same to the last where it changes nothing, and the value in them.

    `rewrite` gives back the very object where it changes nothing.
    """
    value = opened(type_, data)
    changed = rewrite(value)
    return (data if changed is value else closed(type_, changed)), changed


def readable(value: Any) -> Any:
    """An opened value in JSON types, for people: an object is what it is made of."""
    if isinstance(value, Ext):
        made = value.value
        return readable(made[2] if value.code in CONSTRUCTED and len(made) > 2 else made)
    if isinstance(value, Mapping):
        return {str(key): readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [readable(item) for item in value]
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else None


def _unpack(data: bytes, depth: int) -> Any:
    def extension(code: int, inner: bytes) -> Any:
        if code not in CONSTRUCTED and code != SNAPSHOT:
            return ormsgpack.Ext(code, inner)
        if not depth:
            raise ValueError("nested too deep")
        made = _unpack(inner, depth - 1)
        if code in CONSTRUCTED and not (isinstance(made, list) and len(made) > 2):
            raise ValueError("an object of nothing")
        return Ext(code, made)

    return ormsgpack.unpackb(data, ext_hook=extension, option=_OPTION)


def _extension(value: Any) -> Any:
    if isinstance(value, Ext):
        return ormsgpack.Ext(value.code, ormsgpack.packb(value.value, default=_extension, option=_PACKED))
    raise TypeError
