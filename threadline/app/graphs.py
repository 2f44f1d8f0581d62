"""Reads langgraph.json and loads the graphs it names: somebody's project, ours among them."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from threadline.domain.errors import Invalid
from threadline.services.assistants import UNNAMED_GRAPH
from threadline.services.graphs import Graph, OpenGraph
from threadline.storage.allowlist import Listed, Name, names_in, names_of

DEFAULT = "agent"
SHARED_NAMES = ("api", "graph", "tools")
"""Our top-level packages whose names a project is likely to use as well."""


@dataclass(frozen=True, slots=True)
class Project:
    """A langgraph.json: its folder, each graph's exported object, and what it says of each that it describes."""

    root: Path
    graphs: dict[str, Any]
    descriptions: dict[str, str]

    def types(self, names: Iterable[str]) -> list[Listed]:
        """The types that a setting names as "module:Type". Raises Invalid for one there is not.

        A graph's own file is loaded under another name, which its types then go by.
        """
        files = [(module, sys.modules[module].__file__) for module in map(_module_name, self.graphs)]
        loaded = {_dotted(Path(file), self.root): module for module, file in files if file is not None}
        return [_checked(name, loaded) for name in names]

    @property
    def default(self) -> str:
        """The graph that /chat runs: `agent`, or else the first one named."""
        return DEFAULT if DEFAULT in self.graphs else next(iter(self.graphs))


def load_project(config: Path) -> Project:
    """Import every graph of a langgraph.json. Raises Invalid, saying what is wrong and where."""
    try:
        content = orjson.loads(config.read_bytes())
    except OSError as error:
        raise Invalid(f"{config} cannot be read: {error.strerror}.") from error
    except orjson.JSONDecodeError as error:
        raise Invalid(f"{config} is not valid JSON: {error}.") from error
    named = content.get("graphs") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named:
        raise Invalid(f'{config} names no graphs: it needs "graphs": {{"name": "./file.py:object"}}.')
    root = config.resolve().parent
    _make_way(root)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    graphs = {graph_id: _load(graph_id, entry, root) for graph_id, entry in named.items()}
    return Project(root, graphs, {graph_id: text for graph_id, entry in named.items() if (text := _description(entry))})


def name_of(graph_id: str, exported: Any) -> str:
    """The name a compiled graph was given, or else its id."""
    return exported.name if isinstance(exported, Pregel) and exported.name != UNNAMED_GRAPH else graph_id


def _description(entry: Any) -> str | None:
    text = entry.get("description") if isinstance(entry, dict) else None
    return text if isinstance(text, str) else None


class _ProjectFirst(MetaPathFinder):
    """Finds a project's `api`, `graph` and `tools` before ours, also as folders without an `__init__.py`, which the
    usual search would pass over for any package of that name."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [self._root]) if fullname in SHARED_NAMES else None


def _make_way(root: Path) -> None:
    """Let the project have its own modules of our names. Ours stay bound wherever they are imported by now."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _ProjectFirst)]
    sys.meta_path.insert(0, _ProjectFirst(root))
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in SHARED_NAMES and not _lies_in(module, root):
            del sys.modules[name]


def _lies_in(module: ModuleType, root: Path) -> bool:
    places = [module.__file__] if getattr(module, "__file__", None) else getattr(module, "__path__", [])
    return any(Path(str(place)).is_relative_to(root) for place in places)


def _dotted(file: Path, root: Path) -> str:
    """What a file would be imported as by others of its project."""
    return ".".join(file.relative_to(root).with_suffix("").parts) if file.is_relative_to(root) else ""


def _checked(name: str, loaded: Mapping[str, str]) -> Listed:
    module, colon, kind = name.partition(":")
    listed = f"{loaded.get(module, module)}{colon}{kind}"
    try:
        names_of([listed])
    except Invalid as error:
        raise Invalid(f"THREADLINE_ALLOWED_TYPES: {name} is no type that can be found. Write module:Type.") from error
    return listed


def opener(exported: Any, saver: BaseCheckpointSaver[Any]) -> OpenGraph:
    """How to open an exported graph, or a factory of one in any form LangGraph knows, with our saver.

    The saver reads back the types of the graph's state, as LangGraph itself would have it in its strict mode.
    """
    bound: tuple[Graph, Graph] | None = None

    @asynccontextmanager
    async def open_graph(config: RunnableConfig) -> AsyncIterator[Graph]:
        nonlocal bound
        async with _made(exported, config) as made:
            graph = made.compile() if isinstance(made, StateGraph) else made
            if bound is None or bound[0] is not graph:
                bound = (graph, graph.copy(update={"checkpointer": saver.with_allowlist(types_of(graph))}))
            yield bound[1]

    return open_graph


def types_of(graph: Graph) -> frozenset[Name]:
    """The types that the state of a graph may hold, and of the graphs within it that can be seen from outside."""
    return names_in(annotation for each in _with_inner(graph) for annotation in _annotations(each))


def _with_inner(graph: Graph) -> list[Graph]:
    graphs = [graph]
    for each in graphs:  # grows while it is walked; a graph may be within itself
        inner = [found for node in each.nodes.values() for found in node.subgraphs if isinstance(found, Pregel)]
        graphs += [found for found in inner if not any(found is known for known in graphs)]
    return graphs


def _annotations(graph: Graph) -> Iterator[Any]:
    """A graph's schemas, and what its channels take and hold: a functional graph has these alone."""
    yield from getattr(getattr(graph, "builder", None), "schemas", ())
    for channel in graph.channels.values():
        yield from (getattr(channel, "ValueType", None), getattr(channel, "UpdateType", None))


def _load(graph_id: str, entry: Any, root: Path) -> Any:
    spelled = entry.get("path") if isinstance(entry, dict) else entry
    path, _, name = spelled.rpartition(":") if isinstance(spelled, str) else ("", "", "")
    if not path or not name:
        raise Invalid(f'Graph {graph_id}: write it as "./file.py:object", not {spelled!r}.')
    file = root / path
    if not file.is_file():
        raise Invalid(f"Graph {graph_id}: there is no file {file}.")
    module_name = _module_name(graph_id)
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise Invalid(f"Graph {graph_id}: {file} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Invalid(f"Graph {graph_id}: importing {file} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise Invalid(f"Graph {graph_id}: {file} has no {name}.")
    exported = getattr(module, name)
    if not isinstance(exported, StateGraph | Pregel) and not callable(exported):
        raise Invalid(f"Graph {graph_id}: {name} in {file} is neither a graph nor a function that makes one.")
    return exported


def _module_name(graph_id: str) -> str:
    return f"threadline_project_{graph_id}"


@asynccontextmanager
async def _made(exported: Any, config: RunnableConfig) -> AsyncIterator[Any]:
    """What an exported object comes to. A factory may take the config, be async, or give a context manager."""
    if isinstance(exported, StateGraph | Pregel):
        yield exported
        return
    takes_config = bool(inspect.signature(exported).parameters)
    made = exported(config) if takes_config else exported()
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        async with made as graph:
            yield graph
    elif isinstance(made, AbstractContextManager):
        with made as graph:
            yield graph
    else:
        yield made
