"""How checkpoints become bytes, and bytes one opaque string. Reading builds allow-listed types only."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

import ormsgpack
from langchain_core.load.load import Reviver
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.jsonplus import (
    EXT_CONSTRUCTOR_KW_ARGS,
    EXT_CONSTRUCTOR_POS_ARGS,
    EXT_DELTA_SNAPSHOT,
    EXT_METHOD_SINGLE_ARG,
    EXT_PYDANTIC_V2,
    JsonPlusSerializer,
)
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from threadline.domain.errors import Unavailable
from threadline.storage.allowlist import Name

MESSAGES: dict[tuple[str, str], type[BaseMessage]] = {
    (kind.__module__, kind.__name__): kind for kind in (HumanMessage, AIMessage, ToolMessage, SystemMessage)
}
_NAMES = {kind: name for name, kind in MESSAGES.items()}
_revive_message = Reviver(allowed_objects="messages")


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's own serializer, held to LangChain messages, the standard types on LangGraph's list and `allowed`.

    The list is passed here and not left to `LANGGRAPH_STRICT_MSGPACK`, so no environment can loosen it. An instance of
    any other type is read as its plain data. Pickle is never read.

    What it writes and reads is LangGraph's own to the byte and to the value, with a short way for messages: reading a
    long conversation is building them, and looking up the class and calling its constructors takes as long as
    pydantic's own work, which is all that is done here.
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
            if type_ == "msgpack":
                return ormsgpack.unpackb(stored, ext_hook=self._build, option=ormsgpack.OPT_NON_STR_KEYS)
            if type_ in ("null", "bytes", "bytearray"):
                return super().loads_typed(data)
        except (ValueError, TypeError, RecursionError) as error:
            raise Unavailable("A checkpoint is damaged.") from error
        raise Unavailable("A checkpoint is stored in a form that is not read.")

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        if obj is None or isinstance(obj, bytes | bytearray):
            return super().dumps_typed(obj)
        return "msgpack", ormsgpack.packb(obj, default=_extension, option=jsonplus._option)

    def _build(self, code: int, data: bytes) -> Any:
        """What an extension stands for. Whatever is not a plain message is left to LangGraph."""
        if code == EXT_PYDANTIC_V2:
            try:
                module, name, fields, _ = ormsgpack.unpackb(
                    data, ext_hook=self._build, option=ormsgpack.OPT_NON_STR_KEYS
                )
                if (kind := MESSAGES.get((module, name))) and "content" in fields and "content_blocks" not in fields:
                    message = kind.__new__(kind)
                    kind.__pydantic_validator__.validate_python(fields, self_instance=message)
                    return message
            except (ValueError, TypeError):
                pass  # LangGraph knows what to do with a message that is not valid
        elif code == EXT_DELTA_SNAPSHOT:
            return _DeltaSnapshot(ormsgpack.unpackb(data, ext_hook=self._build, option=ormsgpack.OPT_NON_STR_KEYS))
        return self._unpack_ext_hook(code, data)

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


def _extension(value: Any) -> Any:
    """A value that msgpack does not know, as LangGraph writes it."""
    if name := _NAMES.get(type(value)):
        fields = value.__pydantic_serializer__.to_python(value)
        packed = (*name, fields, "model_validate_json")
        return ormsgpack.Ext(
            EXT_PYDANTIC_V2, ormsgpack.packb(packed, default=jsonplus._msgpack_default, option=jsonplus._option)
        )
    if isinstance(value, _DeltaSnapshot):
        return ormsgpack.Ext(
            EXT_DELTA_SNAPSHOT, ormsgpack.packb(value.value, default=_extension, option=jsonplus._option)
        )
    return jsonplus._msgpack_default(value)
