"""How checkpoints become bytes, and bytes one opaque string. Reading builds allow-listed types only."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import ormsgpack
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, EXT_PYDANTIC_V2, JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

MESSAGES: dict[tuple[str, str], type[BaseMessage]] = {
    (kind.__module__, kind.__name__): kind for kind in (HumanMessage, AIMessage, ToolMessage, SystemMessage)
}
_NAMES = {kind: name for name, kind in MESSAGES.items()}


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer, the same to the byte and to the value, with a short way for messages.

    Reading a long conversation is building its messages: looking up the class and calling its four constructors takes
    as long as pydantic's own work, which is all that is done here.
    """

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        if obj is None or isinstance(obj, bytes | bytearray):
            return super().dumps_typed(obj)
        return "msgpack", ormsgpack.packb(obj, default=_extension, option=jsonplus._option)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        if data[0] != "msgpack":
            return super().loads_typed(data)
        return ormsgpack.unpackb(data[1], ext_hook=self._build, option=ormsgpack.OPT_NON_STR_KEYS)

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


def strict_serializer() -> JsonPlusSerializer:
    """A serializer held to LangChain messages and the standard types on LangGraph's list.

    The list is passed here and not left to `LANGGRAPH_STRICT_MSGPACK`, so no environment can loosen it. A graph adds
    the types of its own state through `with_allowlist`. An instance of any other type is read as its plain data.
    """
    return StrictSerializer(allowed_msgpack_modules=None)


def seal(type_: str, data: bytes) -> str:
    """Serialized data as one ASCII string that no JSON reader can change, nest into or build objects from."""
    return f"{type_}:{b64encode(data).decode()}"


def unseal(sealed: str) -> tuple[str, bytes]:
    """The opposite of `seal`. ValueError if the string is no sealed msgpack.

    A checkpoint is never anything but msgpack; the serializer's other types are refused, because Redis is not ours
    alone and one of them builds objects from JSON.
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
