"""The clients of `langgraph_sdk`, the asynchronous and the synchronous one, behind one way to call them."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from langgraph_sdk import get_client, get_sync_client

Flavour = Literal["async", "sync"]
NO_METHODS = ("http", "client")


class Sdk:
    """Every method of a client's resources, awaited; what is a stream comes as a list of its parts.

    `called` tells which methods were.
    """

    def __init__(self, url: str, flavour: Flavour) -> None:
        self.flavour = flavour
        self.client: Any = (
            get_client(url=url, timeout=30) if flavour == "async" else get_sync_client(url=url, timeout=30)
        )
        self.called: dict[str, set[str]] = defaultdict(set)
        self.assistants = _Resource(self, "assistants")
        self.threads = _Resource(self, "threads")
        self.runs = _Resource(self, "runs")
        self.store = _Resource(self, "store")
        self.crons = _Resource(self, "crons")

    def methods(self, resource: str) -> set[str]:
        """What the client's class can do, as the installed version has it."""
        found = getattr(self.client, resource)
        return {name for name in dir(found) if not name.startswith("_") and name not in NO_METHODS}

    def resources(self) -> set[str]:
        return {name for name in vars(self.client) if not name.startswith("_") and name not in NO_METHODS}


class _Resource:
    def __init__(self, sdk: Sdk, name: str) -> None:
        self._sdk = sdk
        self._name = name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        self._sdk.called[self._name].add(method)
        return partial(_call, getattr(getattr(self._sdk.client, self._name), method))


async def _call(
    method: Callable[..., Any], *args: Any, until: Callable[[Any], bool] | None = None, **named: Any
) -> Any:
    """`until`: a stream is left after the first part for which this is true."""
    if not (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)) and _of_sync_client(method):
        return await asyncio.to_thread(_synchronous, method, args, named, until)
    answer = method(*args, **named)
    if inspect.isawaitable(answer):
        answer = await answer
    if not hasattr(answer, "__aiter__"):
        return answer
    parts = []
    async for part in answer:
        parts.append(part)
        if until is not None and until(part):
            break
    return parts


def _of_sync_client(method: Callable[..., Any]) -> bool:
    return "._sync." in method.__module__


def _synchronous(
    method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], until: Callable[[Any], bool] | None
) -> Any:
    answer = method(*args, **named)
    if not hasattr(answer, "__next__"):
        return answer
    parts = []
    for part in answer:
        parts.append(part)
        if until is not None and until(part):
            break
    return parts
