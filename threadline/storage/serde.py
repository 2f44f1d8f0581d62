"""How checkpoints become bytes, and bytes one opaque string. Reading builds allow-listed types only."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

import ormsgpack
from langchain_core.load.load import Reviver
from langgraph.checkpoint.serde.jsonplus import (
    EXT_CONSTRUCTOR_KW_ARGS,
    EXT_CONSTRUCTOR_POS_ARGS,
    EXT_METHOD_SINGLE_ARG,
    JsonPlusSerializer,
)

from threadline.domain.errors import Unavailable
from threadline.storage.allowlist import Name

_revive_message = Reviver(allowed_objects="messages")


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's own serializer, held to LangChain messages, the standard types on LangGraph's list and `allowed`.

    The list is passed here and not left to `LANGGRAPH_STRICT_MSGPACK`, so no environment can loosen it. An instance of
    any other type is read as its plain data. Pickle is never read.
    """

    def __init__(self, allowed: frozenset[Name] = frozenset()) -> None:
        super().__init__(allowed_msgpack_modules=allowed or None)
        self.allowed = allowed

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[tuple[str, ...] | type]) -> StrictSerializer:
        """A serializer that may build these types as well: this one, if it may already."""
        extra = frozenset(
            (each.__module__, each.__name__) if isinstance(each, type) else (each[0], each[1])
            for each in extra_allowlist
        )
        return self if extra <= self.allowed else StrictSerializer(self.allowed | extra)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Raises Unavailable for what is damaged or in a form that is not read."""
        type_, stored = data
        try:
            if type_ == "json":  # as LangGraph once wrote
                return json.loads(stored, object_hook=self._revived)
            if type_ in ("msgpack", "null", "bytes", "bytearray"):
                return super().loads_typed(data)
        except (ValueError, TypeError, RecursionError) as error:
            raise Unavailable("A checkpoint is damaged.") from error
        raise Unavailable("A checkpoint is stored in a form that is not read.")

    def _revived(self, value: dict[str, Any]) -> Any:
        match value:
            case {"lc": 1, "type": "constructor"}:
                return _message(value)
            case {"lc": 2, "type": "constructor", "id": [*module, str() as name]}:
                return self._built(".".join(map(str, module)), name, value)
        return value

    def _built(self, module: str, name: str, value: dict[str, Any]) -> Any:
        """What an object of the old form is, let through by the same gate as one of the new."""
        args, kwargs = value.get("args") or [], value.get("kwargs")
        made: tuple[Any, ...] = (module, name, kwargs or args)
        code = EXT_CONSTRUCTOR_KW_ARGS if kwargs else EXT_CONSTRUCTOR_POS_ARGS
        if isinstance(value.get("method"), str) and args:
            made, code = (module, name, args[0], value["method"]), EXT_METHOD_SINGLE_ARG
        _, packed = self.dumps_typed(made)
        return super().loads_typed(("msgpack", ormsgpack.packb(ormsgpack.Ext(code, packed))))


def _message(value: dict[str, Any]) -> Any:
    try:
        return _revive_message(value)
    except Exception:  # no message, or one that is not whole
        return value


def strict_serializer(allowed: frozenset[Name] = frozenset()) -> StrictSerializer:
    return StrictSerializer(allowed)


def seal(type_: str, data: bytes) -> str:
    """Serialized data as one ASCII string that no JSON reader can change, nest into or build objects from."""
    return f"{type_}:{b64encode(data).decode()}"


def unseal(sealed: str) -> tuple[str, bytes]:
    """The opposite of `seal`. ValueError if the string is no sealed msgpack.

    A checkpoint is never anything but msgpack; the serializer's other types are refused, because Redis is not ours
    alone.
    """
    type_, _, data = sealed.partition(":")
    if type_ != "msgpack":
        raise ValueError("not a sealed checkpoint")
    return type_, b64decode(data, validate=True)
