"""Opens what a project exports as a graph, in any form LangGraph knows, with the service's checkpointer and store."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph_sdk import runtime

from threadline.app.project import Broken, Project, place_of
from threadline.domain.errors import Invalid, ThreadlineError, Unavailable
from threadline.services.assistants import UNNAMED_GRAPH
from threadline.services.graphs import LOOK, Graph, OpenGraph, Opening
from threadline.services.store import Scoped
from threadline.storage.allowlist import Name, names_in

log = structlog.get_logger(__name__)

KEPT = 64
"""Callers for whom a graph stays bound to their store."""


def name_of(graph_id: str, exported: Any) -> str:
    """The name a compiled graph was given, or else its id."""
    return exported.name if isinstance(exported, Pregel) and exported.name != UNNAMED_GRAPH else graph_id


async def open_graphs(project: Project, saver: BaseCheckpointSaver[Any], store: Scoped) -> dict[str, OpenGraph]:
    """How to open each graph of the project, those included that are broken: opening one says so.

    Each is opened once, so that what would fail the first message is found now. Raises Invalid if none can be.
    """
    opened: dict[str, OpenGraph] = {}
    failures = []
    for graph_id, exported in project.graphs.items():
        try:
            opened[graph_id] = opener(graph_id, exported, saver, store)
            async with opened[graph_id]({}):
                pass
        except Exception as error:
            failures.append(error)
            place = place_of(error, project.root)
            reason = error.message if isinstance(error, ThreadlineError) else f"{type(error).__name__}: {error}"
            log.error("graph_not_opened", graph_id=graph_id, reason=reason, place=place)
            where = f" ({place})" if place else ""
            told = f"{place or 'opening it'}: {type(error).__name__}"
            project.broken[graph_id] = Broken(f"Graph {graph_id}: opening it failed: {reason}{where}", told)
    if len(failures) == len(project.graphs):
        ours = next((error for error in failures if isinstance(error, ThreadlineError)), None)
        raise ours or Invalid("\n".join(one.reason for one in project.broken.values())) from failures[0]
    return {
        **{graph_id: _broken(graph_id) for graph_id in project.file.graphs if graph_id not in opened},
        **opened,
    }


def opener(graph_id: str, exported: Any, saver: BaseCheckpointSaver[Any], store: Scoped) -> OpenGraph:
    """How to open an exported graph, or a factory of one. `store` is for whoever does not bring a caller's.

    The saver reads back the types of the graph's state, as LangGraph itself would have it in its strict mode.
    Raises Invalid if a factory asks for more than a config and a runtime.
    """
    arguments = _arguments(graph_id, exported)
    bound: OrderedDict[str, Graph] = OrderedDict()
    unbound: Graph | None = None
    typed = saver
    warned = False

    def bind(graph: Graph, of_caller: Scoped) -> Graph:
        nonlocal unbound, typed, warned
        if isinstance(graph.checkpointer, BaseCheckpointSaver) and not warned:
            warned = True
            log.warning("graph_checkpointer_replaced", graph_id=graph_id)
        if unbound is not graph:  # a factory may make a new one every time
            unbound, typed = graph, saver.with_allowlist(types_of(graph))
            bound.clear()
        if of_caller.scope not in bound:
            own_store = graph.store is not None
            update = {"checkpointer": typed} if own_store else {"checkpointer": typed, "store": of_caller}
            bound[of_caller.scope] = graph.copy(update=update)
            if len(bound) > KEPT:
                bound.popitem(last=False)
        bound.move_to_end(of_caller.scope)
        return bound[of_caller.scope]

    compiled: Graph | None = exported.compile() if isinstance(exported, StateGraph) else None

    @asynccontextmanager
    async def open_graph(config: RunnableConfig, opening: Opening = LOOK) -> AsyncIterator[Graph]:
        of_caller = opening.store or store
        if compiled is not None or isinstance(exported, Pregel):
            yield bind(compiled or exported, of_caller)
            return
        async with _made(exported, arguments(config, opening, of_caller)) as made:
            graph = made.compile() if isinstance(made, StateGraph) else made
            if not isinstance(graph, Pregel):
                raise Invalid(f"Graph {graph_id}: its function makes no graph but this: {type(made).__name__}.")
            yield bind(graph, of_caller)

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


def _broken(graph_id: str) -> OpenGraph:
    @asynccontextmanager
    async def open_graph(config: RunnableConfig, opening: Opening = LOOK) -> AsyncIterator[Graph]:
        raise Unavailable(f"The graph {graph_id} could not be loaded. The service's log says why.")
        yield

    return open_graph


@asynccontextmanager
async def _made(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
    """What a factory comes to. It may be async, or give a context manager."""
    made = factory(**arguments)
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


Arguments = Callable[[RunnableConfig, Opening, Scoped], Mapping[str, Any]]


def _arguments(graph_id: str, exported: Any) -> Arguments:
    """What to call a factory with: the config, the runtime, both or nothing, by annotation or else by name."""
    if isinstance(exported, StateGraph | Pregel):
        return lambda config, opening, store: {}
    try:
        named = inspect.signature(exported, eval_str=True).parameters.values()
    except Exception:  # an annotation that only a type checker can resolve
        named = inspect.signature(exported).parameters.values()
    asked = [one for one in named if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    of_runtime = next((one.name for one in asked if _is_runtime(one)), None)
    others = [one for one in asked if one.name != of_runtime]
    of_config = next((one.name for one in others if one.name == "config" or one.default is one.empty), None)
    unknown = [one.name for one in others if one.default is one.empty and one.name != of_config]
    if unknown:
        raise Invalid(f"Graph {graph_id}: its function may ask for config and runtime, not for {', '.join(unknown)}.")

    def arguments(config: RunnableConfig, opening: Opening, store: Scoped) -> Mapping[str, Any]:
        given: dict[str, Any] = {of_config: config} if of_config else {}
        if of_runtime:
            given[of_runtime] = _runtime(opening, store)
        return given

    return arguments


def _is_runtime(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return parameter.name == "runtime"
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2].startswith("ServerRuntime")
    return runtime.ServerRuntime in (annotation, getattr(annotation, "__origin__", None))


def _runtime(opening: Opening, store: Scoped) -> Any:
    given: dict[str, Any] = {"access_context": opening.access, "user": opening.user, "store": store}
    if opening.access == "threads.create_run":
        return runtime._ExecutionRuntime(**given, context=opening.context)
    return runtime._ReadRuntime(**given)
