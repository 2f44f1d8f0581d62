"""Assistants and their versions in the history database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError

from threadline.domain.records import Assistant, AssistantQuery, AssistantVersion
from threadline.storage.containment import contains
from threadline.storage.database import Database
from threadline.storage.filtering import is_allowed
from threadline.storage.tables import assistant_versions, assistants, crons

ASSISTANT = select(assistants).where(assistants.c.assistant_id == bindparam("of_assistant"))
"""Built once, as every run asks it."""


class SqlAssistants:
    """The `Assistants` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, assistant: Assistant) -> bool:
        try:
            async with self._database.writer.begin() as connection:
                await connection.execute(insert(assistants).values(**asdict(assistant)))
                await connection.execute(insert(assistant_versions).values(**_version(assistant)))
        except IntegrityError:
            return False
        return True

    async def get(self, assistant_id: str) -> Assistant | None:
        given = {"of_assistant": assistant_id}
        row = await self._database.read(lambda connection: connection.execute(ASSISTANT, given).mappings().first())
        return Assistant(**row) if row else None

    async def search(self, query: AssistantQuery) -> tuple[Sequence[Assistant], int]:
        matching = _matching(query)
        columns = [assistants.c[name] for name in dict.fromkeys((query.sort_by, "created_at", "assistant_id"))]
        order = [column.desc() if query.descending else column.asc() for column in columns]
        page = select(assistants).where(*matching).order_by(*order).limit(query.limit).offset(query.offset)
        total = select(func.count()).select_from(assistants).where(*matching)
        async with self._database.reader.connect() as connection:
            found = [Assistant(**row) for row in (await connection.execute(page)).mappings()]
            return found, (await connection.execute(total)).scalar_one()

    async def change(self, assistant_id: str, alter: Callable[[Assistant, int], Assistant]) -> Assistant | None:
        of = assistant_versions.c.assistant_id == assistant_id
        async with self._database.writer.begin() as connection:  # there is one: nobody changes it in between
            query = select(assistants).where(assistants.c.assistant_id == assistant_id)
            row = (await connection.execute(query)).mappings().first()
            if row is None:
                return None
            newest = (await connection.execute(select(func.max(assistant_versions.c.version)).where(of))).scalar_one()
            changed = alter(Assistant(**row), newest + 1)
            await connection.execute(
                update(assistants).where(assistants.c.assistant_id == assistant_id).values(**asdict(changed))
            )
            kept = upsert(assistant_versions).values(**_version(changed))
            await connection.execute(kept.on_conflict_do_nothing())
        return changed

    async def versions(
        self,
        assistant_id: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        version: int | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> Sequence[AssistantVersion]:
        query = select(assistant_versions).where(assistant_versions.c.assistant_id == assistant_id)
        if metadata:
            query = query.where(contains(assistant_versions.c.metadata, metadata))
        if version is not None:
            query = query.where(assistant_versions.c.version == version)
        query = query.order_by(assistant_versions.c.version.desc()).limit(limit).offset(offset)
        async with self._database.reader.connect() as connection:
            return [AssistantVersion(**row) for row in (await connection.execute(query)).mappings()]

    async def delete(self, assistant_id: str) -> None:
        async with self._database.writer.begin() as connection:
            for table in (crons, assistant_versions, assistants):
                await connection.execute(delete(table).where(table.c.assistant_id == assistant_id))


def _version(assistant: Assistant) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(assistant).items() if name not in ("owner", "updated_at")}
    return {**kept, "created_at": assistant.updated_at}


def _matching(query: AssistantQuery) -> list[ColumnElement[bool]]:
    owner, served = assistants.c.owner, assistants.c.graph_id.in_(query.graphs)
    somebodys = owner != "" if query.owner is None else owner == query.owner
    matching: list[ColumnElement[bool]] = [somebodys | ((owner == "") & served)]
    if query.allowed is not None:
        matching.append(is_allowed(assistants.c.metadata, query.allowed))
    if query.metadata:
        matching.append(contains(assistants.c.metadata, query.metadata))
    if query.graph_id is not None:
        matching.append(assistants.c.graph_id == query.graph_id)
    if query.name is not None:
        matching.append(assistants.c.name.icontains(query.name, autoescape=True))
    return matching
