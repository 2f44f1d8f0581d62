"""What a compiled graph looks like from outside: its drawing, its schemas and its subgraphs, in JSON types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from langgraph.pregel.protocol import PregelProtocol
from pydantic import ConfigDict, Field, TypeAdapter, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from threadline.services.graphs import Graph
from threadline.services.payload import jsonable

log = structlog.get_logger(__name__)


async def drawing(graph: Graph, *, xray: bool | int) -> dict[str, Any]:
    """`{nodes: [{id, type, data: {name}, metadata}], edges: [{source, target, data, conditional}]}`.

    With `xray` subgraphs are drawn in place, down to that depth where it is a number.
    """
    drawn = (await graph.aget_graph(xray=xray)).to_json()
    for node in drawn["nodes"]:
        if isinstance(node.get("data"), dict):
            node["data"].pop("id", None)  # the path of a Python class
    shown: dict[str, Any] = jsonable(drawn)
    return shown


async def schemas(graph: PregelProtocol[Any, Any, Any, Any]) -> dict[str, Any]:
    """The JSON schemas of the graph's input, output, state, config and context; None for each that cannot be told."""
    return await asyncio.to_thread(_schemas, graph)


async def subgraphs(graph: Graph, *, namespace: str | None, recurse: bool) -> dict[str, dict[str, Any]]:
    """The schemas of each subgraph by its namespace, `parent|child`; of all, or of one namespace."""
    # Only who recurses comes to a nested namespace.
    deep = recurse or (namespace is not None and "|" in namespace)
    found = {name: inner async for name, inner in graph.aget_subgraphs(namespace=namespace, recurse=deep)}
    return {name: await schemas(inner) for name, inner in found.items()}


def _schemas(graph: Any) -> dict[str, Any]:
    context, known = _told(graph, "context", graph_context)
    return {
        "input_schema": _told(graph, "input", lambda graph: graph.get_input_jsonschema())[0],
        "output_schema": _told(graph, "output", lambda graph: graph.get_output_jsonschema())[0],
        "state_schema": _told(graph, "state", graph_state)[0],
        "config_schema": (context or {}) if known else None,
        "context_schema": context,
    }


def _told(graph: Any, part: str, tell: Callable[[Any], Any]) -> tuple[Any, bool]:
    """One schema, and whether it could be told: the types are somebody's, and pydantic knows no word for many."""
    try:
        return jsonable(tell(graph)), True
    except Exception as error:
        log.debug("schema_not_told", part=part, error=type(error).__name__)
        return None, False


def graph_context(graph: Graph) -> dict[str, Any] | None:
    """The schema of the context, which is also that of the config's `configurable`; None where the graph has none."""
    return None if graph.context_schema is None else TypeAdapter(graph.context_schema).json_schema()


def graph_state(graph: Graph) -> dict[str, Any]:
    """The schema of what the graph's state may hold, of which no key is certain."""
    fields: dict[str, Any] = {
        # By number: a channel's name need not be one that pydantic allows.
        f"channel_{number}": (
            graph.channels[name].UpdateType,  # type: ignore[union-attr]  # streamed channels are no managed values
            Field(None, alias=name),
        )
        for number, name in enumerate(graph.stream_channels_list)
    }
    loose = ConfigDict(arbitrary_types_allowed=True)
    state = create_model(graph.get_name("state"), __config__=loose, **fields)
    return state.model_json_schema(schema_generator=_AnyType)


class _AnyType(GenerateJsonSchema):
    """Lets a type without a schema be anything."""

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        return {}
