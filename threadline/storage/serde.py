"""How checkpoints become bytes, and bytes one opaque string. Reading builds allow-listed types only."""

from __future__ import annotations

from base64 import b64decode, b64encode

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer


def strict_serializer() -> JsonPlusSerializer:
    """LangGraph's own serializer, held to LangChain messages and the standard types on LangGraph's list.

    The list is passed here and not left to `LANGGRAPH_STRICT_MSGPACK`, so no environment can loosen it. A graph adds
    the types of its own state through `with_allowlist`. An instance of any other type is read as its plain data.
    """
    return JsonPlusSerializer(allowed_msgpack_modules=None)


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
