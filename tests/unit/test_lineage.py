"""Trees of checkpoints condensed to branches, whatever hangs together how."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from threadline.domain.records import Place
from threadline.services.lineage import Tree, tree_of


def tree(*links: tuple[str, str | None]) -> Tree:
    return tree_of(Place(one, parent, f"run-{one}") for one, parent in links)


def shape(found: Tree) -> list[tuple[str, str | None, str | None, str]]:
    """Each branch's id, its parent's, its fork, and all its own ids."""
    return [
        (b.branch_id, b.parent_branch_id, b.fork_checkpoint_id, "".join(p.checkpoint_id for p in b.own))
        for b in found.branches
    ]


def test_a_line_and_its_forks() -> None:
    found = tree(("a", None), ("b", "a"), ("c", "b"), ("d", "b"), ("e", "d"), ("f", "c"), ("g", "d"), ("h", "b"))

    assert shape(found) == [
        ("a", None, None, "abcf"),
        ("d", "a", "b", "de"),
        ("g", "d", "d", "g"),
        ("h", "a", "b", "h"),
    ]
    assert [place.checkpoint_id for place in found.line("g")] == ["a", "b", "d", "g"]
    assert ["".join(p.checkpoint_id for p in found.tail(b)) for b in found.branches] == ["cf", "e", "g", "h"]
    assert found.branches[1].run_ids == ["run-d", "run-e"]


def test_what_has_no_beginning_or_is_its_own_ancestor() -> None:
    assert shape(tree()) == []
    assert shape(tree(("b", "gone"), ("c", "b"), ("d", "gone"))) == [("b", None, None, "bc"), ("d", None, None, "d")]
    assert shape(tree(("a", "c"), ("b", "a"), ("c", "b"), ("d", "b"))) == [
        ("a", None, None, "abc"),
        ("d", "a", "b", "d"),
    ]
    assert shape(tree(("b", "c"), ("c", None))) == [("c", None, None, "cb")]  # an id from a clock that was set back


@given(st.lists(st.integers(0, 30), max_size=40))
def test_every_checkpoint_is_one_branchs_own(parents: list[int]) -> None:
    ids = [f"{number:03}" for number in range(len(parents) + 1)]
    links = [Place(ids[0], None, None)]
    links += [Place(ids[n], ids[parent % n], None) for n, parent in enumerate(parents, start=1)]
    found = tree_of(links)

    assert sorted(place.checkpoint_id for branch in found.branches for place in branch.own) == ids
    leaves = set(ids) - {place.parent_id for place in links}
    assert sorted(branch.head.checkpoint_id for branch in found.branches) == sorted(leaves)
    for branch in found.branches:
        line = found.line(branch.head.checkpoint_id)
        assert [place.parent_id for place in line] == [None, *(place.checkpoint_id for place in line[:-1])]
        tail = {place.checkpoint_id for place in found.tail(branch)}
        assert branch.head.checkpoint_id in tail
        assert not any(place.parent_id in tail for place in links if place.checkpoint_id not in tail)


def test_ten_thousand_checkpoints_take_no_time() -> None:
    links = [(f"{n:06}", f"{n - 1 if n % 7 else n // 2:06}" if n else None) for n in range(10_000)]
    began = time.perf_counter()
    assert len(tree(*links).branches) > 1000
    assert time.perf_counter() - began < 2
