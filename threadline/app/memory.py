"""Opens the store of a project: the file of our own or the one it brings, with the embedding it names."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings
from langgraph.store.base import BaseStore, TTLConfig, ensure_embeddings

from threadline.app.project import Project, StoreIndex, StorePart, StoreTtl, load_object
from threadline.app.settings import Settings
from threadline.domain.errors import Invalid
from threadline.services.permission import Permission
from threadline.services.store import Stores
from threadline.storage.store import SWEEP_MINUTES, Index, open_store


@asynccontextmanager
async def open_stores(
    project: Project, settings: Settings, *, path: Path, permission: Permission
) -> AsyncIterator[Stores]:
    """Every caller's store, in the file at `path` unless the project brings a store. Raises Invalid or Unavailable."""
    part = project.file.store or StorePart()
    ttl = _ttl(part.ttl) if part.ttl is not None else None
    if part.path is not None:
        async with _own(load_object("store.path", part.path, project.root), part.path) as store:
            yield Stores(store, permission=permission, ttl=ttl)
        return
    index = _index(part.index, settings, project.root) if part.index is not None else None
    minutes = (part.ttl.sweep_interval_minutes if part.ttl else None) or SWEEP_MINUTES
    async with open_store(path, index=index, sweep_minutes=minutes) as store:
        yield Stores(store, permission=permission, ttl=ttl)


def _ttl(part: StoreTtl) -> TTLConfig:
    return {"refresh_on_read": part.refresh_on_read, "default_ttl": part.default_ttl}


@asynccontextmanager
async def _own(exported: Any, spelled: str) -> AsyncIterator[BaseStore]:
    """The project's own store: the object, or a function that makes it or a context manager of it."""
    made = exported() if callable(exported) else exported
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, BaseStore):
        yield made
    elif isinstance(made, AbstractAsyncContextManager):
        async with made as store:
            yield store
    elif isinstance(made, AbstractContextManager):
        with made as store:
            yield store
    else:
        raise Invalid(f"store.path: {spelled} is no store and makes none.")


def _index(part: StoreIndex, settings: Settings, root: Path) -> Index:
    fields = tuple(part.fields) if part.fields else ("$",)
    return Index(_embeddings(part.embed, settings, root), name=part.embed, dims=part.dims, fields=fields)


def _embeddings(spelled: str, settings: Settings, root: Path) -> Embeddings:
    """An embedding as `provider:model`, or as an object or a function `path/file.py:name`."""
    provider, _, model = spelled.partition(":")
    if provider.endswith(".py") or "/" in provider or "." in provider:
        found = load_object("store.index.embed", spelled, root)
        if isinstance(found, Embeddings) or callable(found):
            return ensure_embeddings(found)
        raise Invalid(f"store.index.embed: {spelled} is neither an embedding nor a function.")
    if provider == "openai" and model:
        # The text itself is sent, not tokens: the tokenizer would be downloaded, and other servers want text.
        given = {"api_key": settings.openai_api_key, "base_url": settings.openai_base_url}
        known = {name: value for name, value in given.items() if value is not None}
        try:
            return OpenAIEmbeddings(model=model, check_embedding_ctx_length=False, **known)
        except Exception as error:
            raise Invalid(f"store.index.embed: {spelled} needs OPENAI_API_KEY or OPENAI_BASE_URL.") from error
    try:
        return ensure_embeddings(spelled)
    except Exception as error:
        raise Invalid(
            f"store.index.embed: {spelled} cannot be used: {error} "
            'Without further packages, "openai:model" and "./file.py:function" can.'
        ) from error
