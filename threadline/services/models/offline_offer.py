"""Which tools are on offer, read from a request's schemas, and how a call is put in a tool's own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from threadline.services.models.offline_conversation import Call, Tool, tool_kind

Schema = Mapping[str, Any]


def intent_schema(options: Mapping[str, Any]) -> Schema | None:
    """The schema of the intent asked for, or None if no intent is."""
    wanted = options.get("response_format")
    shape = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    if not isinstance(shape, Mapping) or shape.get("name") != "intent":
        return None
    schema = shape.get("schema")
    return schema if isinstance(schema, Mapping) else {}


def offered_in(schema: Schema) -> dict[str, Schema]:
    """The tools of an intent's schema, by name, each with the schema of its arguments."""
    items = schema.get("properties", {}).get("tool_calls", {}).get("items", {})
    variants = (_resolved(variant, schema) for variant in items.get("anyOf") or items.get("oneOf") or [items])
    found: dict[str, Schema] = {}
    for variant in variants:
        properties = variant.get("properties", {})
        name = properties.get("name", {})
        for value in [name["const"]] if "const" in name else name.get("enum", []):
            found[value] = _resolved(properties.get("args", {}), schema)
    return found


def _resolved(schema: Schema, root: Schema) -> Schema:
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part, {})
    return found if isinstance(found, Mapping) else {}


def offered_as_tools(tools: Sequence[Schema]) -> dict[str, Schema]:
    """The tools of OpenAI tool objects, by name, each with the schema of its arguments."""
    functions = (tool.get("function", tool) for tool in tools)
    return {function["name"]: function.get("parameters") or {} for function in functions if "name" in function}


def fitting(tool: Tool, offered: Mapping[str, Schema]) -> str | None:
    """The name of the tool on offer that does this."""
    return tool if tool in offered else next((name for name in offered if tool_kind(name) == tool), None)


def fit(call: Call, offered: Mapping[str, Schema]) -> tuple[str, dict[str, Any]] | None:
    """The call as the tool on offer wants it: a tool of another make gets the first argument where it takes a text."""
    name = fitting(call.tool, offered)
    if name is None:
        return None
    properties = offered[name].get("properties")
    if not properties:
        return name, call.args
    args = {key: value for key, value in call.args.items() if key in properties}
    main, value = next(iter(call.args.items()))
    if main not in properties:
        texts = [key for key, schema in properties.items() if schema.get("type", "string") == "string"]
        required = [key for key in offered[name].get("required", ()) if key in texts]
        if not texts:
            return None
        args[(required or texts)[0]] = value
    return name, args
