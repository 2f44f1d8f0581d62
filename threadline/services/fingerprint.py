"""What tells whether a graph is still the one a session was made with: its nodes, what leads to them, its channels."""

from __future__ import annotations

import hashlib

import orjson

from threadline.services.graphs import Graph


def fingerprint(graph: Graph) -> str:
    """Sixteen hexadecimal digits, the same for the same shape in every process. Prompts and code are not in it."""
    nodes = {name: sorted(map(str, node.triggers)) for name, node in graph.nodes.items()}
    channels = {name: type(channel).__name__ for name, channel in graph.channels.items()}
    shape = orjson.dumps([nodes, channels], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(shape).hexdigest()[:16]
