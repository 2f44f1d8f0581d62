"""The store's file: LangGraph's own, whole after whatever goes wrong, and open to others while an embedding works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite.aio import AsyncSqliteStore

from threadline.domain.errors import Invalid, Unavailable
from threadline.services.store import scoped
from threadline.storage.store import Index, Store, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "store.db") as store:
        yield store


class Slow(Embeddings):
    """Answers when told to."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.set()
        await self.go.wait()
        return [[1.0, 0.0] for _ in texts]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


async def test_reads_see_the_state_before_the_batch_and_the_last_write_counts(store: Store) -> None:
    place = (("a",), "k")
    before, _, _, found = await store.abatch(
        [GetOp(*place), PutOp(*place, {"n": 1}), PutOp(*place, {"n": 2}), SearchOp(("a",))]
    )
    after, _ = await store.abatch([GetOp(*place), PutOp(*place, None)])
    gone, namespaces = await store.abatch([GetOp(*place), ListNamespacesOp()])

    assert (before, found) == (None, [])
    assert after is not None
    assert after.value == {"n": 2}  # type: ignore[union-attr]
    assert (gone, namespaces) == (None, [])


async def test_langgraphs_own_store_reads_what_is_kept(store: Store, tmp_path: Path) -> None:
    await store.aput(("a", "b"), "k", {"이름": "값"}, ttl=5)
    async with AsyncSqliteStore.from_conn_string(str(tmp_path / "store.db")) as other:
        item = await other.aget(("a", "b"), "k")
        found = await other.asearch(("a",), filter={"이름": "값"}) if item is None else [item]
        await other.aput(("a", "b"), "theirs", {"n": 1})
    theirs = await store.aget(("a", "b"), "theirs")

    assert found[0].value == {"이름": "값"}
    assert theirs is not None
    assert theirs.value == {"n": 1}


async def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"this is no database, but it is long enough to look at" * 100)

    with pytest.raises(Unavailable, match=r"store\.db"):
        async with open_store(tmp_path / "store.db"):
            pass


async def test_a_slow_embedding_holds_up_nobody_else(tmp_path: Path) -> None:
    slow = Slow()
    async with open_store(tmp_path / "store.db", index=Index(slow, "slow", 2)) as store:
        putting = asyncio.create_task(store.abatch([PutOp(("a",), "slow", {})]))
        await slow.asked.wait()
        await store.abatch([PutOp(("a",), "other", {}, False)])
        [other] = await store.abatch([GetOp(("a",), "other")])
        assert other is not None
        assert not putting.done()
        slow.go.set()
        await putting
        [found] = await store.abatch([SearchOp(("a",), query="x")])

    assert [item.key for item in found] == ["slow"]  # type: ignore[union-attr]


async def test_a_caller_that_goes_away_leaves_the_store_whole(store: Store) -> None:
    for _ in range(20):
        putting = asyncio.create_task(store.abatch([PutOp(("a",), "k", {"n": 1})]))
        await asyncio.sleep(0)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
    await store.abatch([PutOp(("a",), "k", {"n": 2})])
    [item] = await store.abatch([GetOp(("a",), "k")])

    assert item.value == {"n": 2}  # type: ignore[union-attr]


async def test_a_batch_is_kept_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(Invalid):
        await store.abatch([PutOp(("a",), "good", {}), PutOp(("a",), "bad", {"x": object()})])
    await store.conn.execute("CREATE TRIGGER no BEFORE INSERT ON store BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(Unavailable):
        await store.abatch([PutOp(("a",), "good", {})])
    await store.conn.execute("DROP TRIGGER no")
    await store.abatch([PutOp(("a",), "later", {})])
    [found] = await store.abatch([SearchOp(())])

    assert [item.key for item in found] == ["later"]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["file", "memory"])
async def test_no_name_of_a_caller_opens_anothers_scope(kind: str, store: Store) -> None:
    whole = store if kind == "file" else InMemoryStore()
    names = ["*", "a", "a.b", "A", "%2E", "a%2Eb", "%", ".", "\x00", "a*", " ", "김"]
    for name in names:
        await scoped(whole, name).aput(("n",), "k", {"of": name})

    for name in names:
        own = scoped(whole, name)
        assert [item.value for item in await own.asearch(())] == [{"of": name}]
        assert (await own.aget(("n",), "k")).value == {"of": name}  # type: ignore[union-attr]
        assert await own.alist_namespaces() == [("n",)]
        assert await own.alist_namespaces(prefix=("*",)) == [("n",)]
        assert await own.alist_namespaces(suffix=("n",)) == [("n",)]
        assert await own.alist_namespaces(suffix=("*", "n")) == []


async def test_a_graphs_thread_may_use_the_store_as_it_stands(store: Store) -> None:
    def use() -> object:
        mine = scoped(store, "me")
        mine.put(("a",), "k", {"n": 1}, ttl=5)
        item = mine.get(("a",), "k")
        return item.value if item else None

    assert await asyncio.to_thread(use) == {"n": 1}
