"""Whose items are whose: every caller sees a store of its own, in graphs as over HTTP.

An item is kept under one more label in front of its namespace, the scope, which nobody outside sees.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchOp,
    TTLConfig,
)

from threadline.domain.records import Caller
from threadline.services.permission import Permission

_ESCAPES = {"%": "%25", ".": "%2E", "*": "%2A", "\x00": "%00"}


class Scoped(BaseStore):
    """The part of a store that lies in one scope, as a store of its own."""

    supports_ttl = True

    def __init__(self, store: BaseStore, scope: str, *, ttl: TTLConfig | None = None) -> None:
        self._store = store
        self._scope = "".join(_ESCAPES.get(letter, letter) for letter in scope) or "%"
        self.ttl_config = ttl

    @property
    def scope(self) -> str:
        return self._scope

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        asked = list(ops)
        return list(self._outwards(asked, self._store.batch([self._inwards(op) for op in asked])))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        asked = list(ops)
        return list(self._outwards(asked, await self._store.abatch([self._inwards(op) for op in asked])))

    def _inwards(self, op: Op) -> Op:
        if isinstance(op, GetOp | PutOp):
            return op._replace(namespace=(self._scope, *op.namespace))
        if isinstance(op, SearchOp):
            return op._replace(namespace_prefix=(self._scope, *op.namespace_prefix))
        conditions = [MatchCondition("prefix", (self._scope,))]
        for condition in op.match_conditions or ():
            if condition.match_type == "prefix":
                conditions.append(MatchCondition("prefix", (self._scope, *condition.path)))
            else:  # a suffix must end before the scope
                conditions += [condition, MatchCondition("prefix", (self._scope, *("*" for _ in condition.path)))]
        depth = None if op.max_depth is None else op.max_depth + 1
        return op._replace(match_conditions=tuple(conditions), max_depth=depth)

    @staticmethod
    def _outwards(ops: Iterable[Op], results: Iterable[Any]) -> Iterator[Result]:
        for op, result in zip(ops, results, strict=True):
            if isinstance(op, ListNamespacesOp):
                yield [namespace[1:] for namespace in result]
            elif isinstance(op, SearchOp):
                yield [_out_of_scope(item) for item in result]
            else:
                yield _out_of_scope(result) if isinstance(result, Item) else result


class Stores:
    """Hands every caller its store. Built once; the stores it hands out are light and made for each use."""

    def __init__(self, store: BaseStore, *, permission: Permission, ttl: TTLConfig | None = None) -> None:
        self._store = store
        self._permission = permission
        self._ttl = ttl

    def of(self, caller: Caller) -> Scoped:
        """The caller's store, for its requests and for the graphs of its runs."""
        return self.within(self._permission.scope(caller))

    def within(self, scope: str) -> Scoped:
        """The store of a scope that was kept with a run: what `Permission.scope` said of its caller."""
        return scoped(self._store, scope, ttl=self._ttl)


def scoped(store: BaseStore, scope: str, *, ttl: TTLConfig | None = None) -> Scoped:
    """The part of `store` that belongs to `scope`; `ttl` holds for what is put without one of its own."""
    return Scoped(store, scope, ttl=ttl if ttl is not None else store.ttl_config)


def _out_of_scope(item: Any) -> Any:
    shown = copy.copy(item)  # a store in memory hands out what it holds
    shown.namespace = item.namespace[1:]
    return shown
