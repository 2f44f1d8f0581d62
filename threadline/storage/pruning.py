"""What limits on age and number leave of a history, and what they take: planned from a reading, removed bit by bit.

A checkpoint that stays reads the same afterwards: whatever its delta channels are rebuilt from stays with it, unless
their values are written into it first; where its parent goes, the nearest ancestor that stays becomes its parent.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from threadline.domain.errors import Conflict
from threadline.domain.records import Limits
from threadline.storage import heads
from threadline.storage.deltas import STORED, counters
from threadline.storage.rows import metadata_of
from threadline.storage.snapshots import Snapshot, channels_of

ROWS = 200
"""Checkpoints one transaction removes at most, so that nobody waits long for it."""
BYTES = 4 * 2**20
"""What their values may add up to; a single larger one goes alone."""

CHEAP = 32 * 2**10
"""A conversation no larger than this is written out without a second thought."""

_GREGORIAN = datetime(1582, 10, 15, tzinfo=UTC)
_CHECKPOINTS = """SELECT checkpoint_id, parent_checkpoint_id, metadata, length(checkpoint) + length(metadata)
                  FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? ORDER BY checkpoint_id"""
_WRITES = """SELECT checkpoint_id, sum(length(value)), max(channel = '__interrupt__')
             FROM writes WHERE thread_id = ? AND checkpoint_ns = ? GROUP BY checkpoint_id"""
_CROWDED = """SELECT thread_id, count(*) FROM checkpoints WHERE thread_id > ?
              GROUP BY thread_id HAVING count(*) > 1 AND (count(*) > ? OR min(checkpoint_id) < ?)
              ORDER BY thread_id LIMIT ?"""
_NAMESPACES = "SELECT DISTINCT checkpoint_ns FROM checkpoints WHERE thread_id = ?"
_COUNT = "SELECT count(*) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ?"
_RELINK = """UPDATE checkpoints SET parent_checkpoint_id = ?
             WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"""
_UNGIVE = "DELETE FROM writes WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? AND task_id = ?"
_MANY = 2**62
INPUT = "__input__"
"""By which LangGraph names the task under which it writes a delta channel's input to the checkpoint it comes after."""

Spot = tuple[str, str]
"""A namespace and a checkpoint id."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A checkpoint that goes. `heirs` are children that stay; `parent_id` is what becomes their parent.

    `given_at` is where the input that it is of was written, which then goes too.
    """

    checkpoint_ns: str
    checkpoint_id: str
    size: int
    heirs: Sequence[str]
    parent_id: str | None
    given_at: str | None = None


@dataclass(slots=True)
class Plan:
    """What goes of one thread, children before their parents: wherever it is broken off, all that is left is whole.

    `counts` says how many checkpoints each namespace has; where it has another number by now, the plan is stale.
    `heeds_names`: the name of a branch keeps its checkpoint as a pin does.
    """

    thread_id: str
    counts: dict[str, int]
    victims: list[Victim]
    snapshots: Sequence[Snapshot] = ()
    heeds_names: bool = True

    @property
    def size(self) -> int:
        """How many checkpoints the thread has."""
        return sum(self.counts.values())

    def parts(self) -> Iterator[list[Victim]]:
        """The victims in the portions in which they are removed."""
        part, held = list[Victim](), 0
        for victim in self.victims:
            if part and (len(part) == ROWS or held + victim.size > BYTES):
                yield part
                part, held = [], 0
            part.append(victim)
            held += victim.size
        if part:
            yield part


def crowded(
    connection: sqlite3.Connection, limits: Limits, *, now: datetime, after: str, count: int
) -> list[tuple[str, int]]:
    """Threads of which something might go, and how many checkpoints each has: the first `count` behind `after`."""
    most = limits.max_checkpoints if limits.max_checkpoints is not None else _MANY
    oldest = earliest_id(now - limits.max_age) if limits.max_age is not None else ""
    return connection.execute(_CROWDED, (after, most, oldest, count)).fetchall()


@dataclass(frozen=True, slots=True)
class Cut:
    """A checkpoint that would need nothing older, were the values of these channels stored in it."""

    checkpoint_id: str
    channels: frozenset[str]
    graph_id: str | None


def cuts(
    connection: sqlite3.Connection,
    thread_id: str,
    limits: Limits,
    *,
    now: datetime,
    pins: Collection[Spot],
    thrifty: bool,
) -> list[Cut]:
    """Where a conversation should be written out, so that what lies behind can go. Of the graph's own checkpoints.

    `thrifty`: of a large one only where what was added since it was last written out is half as much as that.
    """
    line = _Line(connection, thread_id, "", {})
    if not line.rows:
        return []
    base = line.with_origins(line.within(limits, now) | line.always() | {one for ns, one in pins if ns == ""})
    found = list[Cut]()
    for one in sorted(base):
        row, channels = line.rows[one], line.own(one)
        if channels and row.parent_id in line.rows and row.parent_id not in base:
            if thrifty and not line.is_worth_a_cut(one, base):
                continue
            found.append(Cut(one, frozenset(channels), row.graph_id))
    return found


def plan(
    connection: sqlite3.Connection,
    thread_id: str,
    limits: Limits,
    *,
    now: datetime,
    pins: Collection[Spot],
    snapshots: Sequence[Snapshot] = (),
) -> Plan:
    """What the limits take of a thread, once the snapshots are saved.

    They count the checkpoints of the graph itself; those of its subgraphs go with the one they ran under. What stays
    whatever the limits are: the newest of each namespace, what is pinned, what waits for an answer, and what any of
    these is rebuilt or re-run from.
    """
    namespaces = [found for (found,) in connection.execute(_NAMESPACES, (thread_id,))]
    saved = {(snapshot.checkpoint_ns, snapshot.checkpoint_id): snapshot.channels for snapshot in snapshots}
    lines = {ns: _Line(connection, thread_id, ns, saved) for ns in namespaces}
    pinned = {ns: {checkpoint_id for place, checkpoint_id in pins if place == ns} for ns in namespaces}
    top = lines.get("")
    roots = top.closed(top.within(limits, now) | top.always() | pinned[""]) if top else set()
    counts, victims = {}, list[Victim]()
    for ns, line in lines.items():
        below = line.under(roots) | line.astray(limits, now)
        kept = roots if ns == "" else line.closed(below | line.always() | pinned[ns])
        counts[ns] = len(line.rows)
        victims += line.victims(kept)
    return Plan(thread_id, counts, victims, snapshots)


def cut(connection: sqlite3.Connection, thread_id: str, going: Collection[str]) -> Plan:
    """What goes with these checkpoints of the graph itself: they, and what its subgraphs did under them.

    Raises Conflict if one that stays comes after one of them.
    """
    counts, victims = {}, list[Victim]()
    for (ns,) in connection.execute(_NAMESPACES, (thread_id,)).fetchall():
        line = _Line(connection, thread_id, ns, {})
        kept = {one for one, row in line.rows.items() if (one if ns == "" else row.root_id) not in going}
        if ns != "":
            kept = line.closed(kept)
        elif any(line.rows[one].parent_id in going for one in kept):
            raise Conflict("A checkpoint that stays comes after one of these.")
        counts[ns] = len(line.rows)
        victims += [replace(victim, given_at=line.given_at(victim, kept)) for victim in line.victims(kept)]
    return Plan(thread_id, counts, victims, heeds_names=False)


def newest_only(connection: sqlite3.Connection, thread_id: str, *, pins: Collection[Spot] = ()) -> Plan:
    """What goes if the checkpoint each namespace stands at stays and no more than that one needs, and what is pinned.

    Of those that the newest needs, delta channels that it does not need them for may be lost.
    """
    namespaces = [found for (found,) in connection.execute(_NAMESPACES, (thread_id,))]
    lines = {ns: _Line(connection, thread_id, ns, {}) for ns in namespaces}
    pinned = {ns: {checkpoint_id for place, checkpoint_id in pins if place == ns} for ns in namespaces}
    roots = lines[""].closed(pinned[""]) if pins and "" in lines else set()
    counts, victims = {}, list[Victim]()
    for ns, line in lines.items():
        whole = roots if ns == "" else line.closed(line.under(roots) | pinned[ns])
        counts[ns] = len(line.rows)
        victims += line.victims(line.closed({line.head} if line.head else (), whole=False) | whole)
    return Plan(thread_id, counts, victims)


def remove(connection: sqlite3.Connection, thread_id: str, victims: Sequence[Victim]) -> None:
    for victim in victims:
        for heir in victim.heirs:
            connection.execute(_RELINK, (victim.parent_id, thread_id, victim.checkpoint_ns, heir))
        if victim.given_at is not None:
            task_id = str(uuid5(UUID(victim.given_at), INPUT))
            connection.execute(_UNGIVE, (thread_id, victim.checkpoint_ns, victim.given_at, task_id))
    places = [(thread_id, victim.checkpoint_ns, victim.checkpoint_id) for victim in victims]
    for table in ("writes", "checkpoints"):
        connection.executemany(
            f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?", places
        )


def fits(connection: sqlite3.Connection, plan: Plan) -> bool:
    """Whether nothing was added or taken since the plan was made."""
    return all(
        connection.execute(_COUNT, (plan.thread_id, ns)).fetchone() == (count,) for ns, count in plan.counts.items()
    )


def made_at(checkpoint_id: str) -> datetime | None:
    """When LangGraph gave out this id, a UUID of version 6; None if it is no such id."""
    try:
        uuid = UUID(checkpoint_id)
    except ValueError:
        return None
    if uuid.version != 6:
        return None
    ticks = (uuid.int >> 80) << 12 | (uuid.int >> 64) & 0xFFF  # of 100 ns, as RFC 9562 lays them out
    return _GREGORIAN + timedelta(microseconds=ticks // 10)


def earliest_id(moment: datetime) -> str:
    """What all ids given out from this moment on come behind."""
    ticks = max(0, (moment - _GREGORIAN) // timedelta(microseconds=1) * 10)
    return f"{ticks >> 28:08x}-{ticks >> 12 & 0xFFFF:04x}-6{ticks & 0xFFF:03x}-8000-000000000000"


@dataclass(slots=True)
class _Row:
    parent_id: str | None
    counters: Mapping[str, Any]
    source: str | None
    root_id: str | None
    graph_id: str | None
    size: int
    waits: bool = False
    """Whether there is a question among its writes."""


@dataclass(slots=True)
class _Held:
    """The channels a checkpoint stores, and those that have ever been written."""

    stored: frozenset[str]
    written: frozenset[str]


@dataclass(slots=True)
class _Line:
    """The checkpoints of one namespace by their ids, which come in order. `saved` says what snapshots will store."""

    connection: sqlite3.Connection
    thread_id: str
    checkpoint_ns: str
    saved: Mapping[Spot, Collection[str]]
    rows: dict[str, _Row] = field(default_factory=dict)
    head: str | None = None
    """The one that its namespace stands at."""
    _held: dict[str, _Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        place = (self.thread_id, self.checkpoint_ns)
        for checkpoint_id, parent_id, metadata, size in self.connection.execute(_CHECKPOINTS, place):
            known = metadata_of(metadata)
            said = known if isinstance(known, dict) else {}
            root_id, graph_id = (said.get("parents") or {}).get(""), said.get("graph_id")
            self.rows[checkpoint_id] = _Row(parent_id, counters(said), said.get("source"), root_id, graph_id, size or 0)
        for checkpoint_id, size, waits in self.connection.execute(_WRITES, place):
            row = self.rows.get(checkpoint_id)
            if row is not None:
                row.size += size or 0
                row.waits = bool(waits)
        self.head = heads.current(self.connection, *place)

    @property
    def newest(self) -> str:
        return next(reversed(self.rows))

    def within(self, limits: Limits, now: datetime) -> set[str]:
        """Those that neither limit takes. One whose id does not tell its time is never too old."""
        ids = list(self.rows)
        if limits.max_checkpoints is not None:
            ids = ids[-limits.max_checkpoints :]
        if limits.max_age is not None:
            oldest = now - limits.max_age
            ids = [one for one in ids if (made := made_at(one)) is None or made >= oldest]
        return set(ids)

    def always(self) -> set[str]:
        """The newest, the one to go on from, and every end of a branch that waits for an answer."""
        parents = {row.parent_id for row in self.rows.values()}
        standing = {self.newest, self.head or self.newest}
        return {*standing, *(one for one, row in self.rows.items() if row.waits and one not in parents)}

    def under(self, roots: Collection[str]) -> set[str]:
        """Of a subgraph's: those that ran under a checkpoint that stays, and where it stood before each of them."""
        kept = {one for one, row in self.rows.items() if row.root_id in roots}
        ids = list(self.rows)
        for root_id in roots:
            before = bisect_left(ids, root_id)
            if before:
                kept.add(ids[before - 1])
        return kept

    def astray(self, limits: Limits, now: datetime) -> set[str]:
        """Of a subgraph's: those that name no checkpoint they ran under, as far as the limits leave them."""
        return {one for one, row in self.rows.items() if row.root_id is None} & self.within(limits, now)

    def with_origins(self, kept: Iterable[str]) -> set[str]:
        """These, and what forks among them were made from: the place a re-run of a subgraph goes back to."""
        return self._closed(kept, lambda one: set(), whole=True)

    def closed(self, kept: Iterable[str], *, whole: bool = True) -> set[str]:
        """These and all they need: what their delta channels are rebuilt from, and the origin of a fork.

        `whole`: what is kept for others' sake keeps all its own values too, and not just those the others need.
        """
        return self._closed(kept, self.own, whole=whole)

    def _closed(self, kept: Iterable[str], own: Callable[[str], set[str]], *, whole: bool) -> set[str]:
        needs: dict[str, set[str]] = {one: own(one) for one in kept if one in self.rows}
        pending = list(needs)
        while pending:
            one = pending.pop()
            row, wanted = self.rows[one], needs[one]
            parent_id = row.parent_id
            if parent_id not in self.rows or not (wanted or (whole and row.source in ("fork", "update"))):
                continue
            further = self._unmet(parent_id, wanted)
            if parent_id not in needs:
                needs[parent_id] = further | (own(parent_id) if whole else set())
                pending.append(parent_id)
            elif not further <= needs[parent_id]:
                needs[parent_id] |= further
                pending.append(parent_id)
        return set(needs)

    def victims(self, kept: Collection[str]) -> Iterator[Victim]:
        """All others, children first. Rows that are their own ancestors have no order, and stay."""
        gone = self.rows.keys() - set(kept)
        children: dict[str, list[str]] = {}
        for one, row in self.rows.items():
            if row.parent_id in gone:
                children.setdefault(row.parent_id, []).append(one)
        waiting = {one: sum(child in gone for child in children.get(one, ())) for one in gone}
        ready = sorted(one for one, count in waiting.items() if count == 0)
        while ready:
            one = ready.pop()
            row = self.rows[one]
            heirs = [child for child in children.get(one, ()) if child not in gone]
            yield Victim(self.checkpoint_ns, one, row.size, heirs, self._ancestor(row, gone) if heirs else None)
            if row.parent_id in gone:
                waiting[row.parent_id] -= 1
                if waiting[row.parent_id] == 0:
                    ready.append(row.parent_id)

    def given_at(self, victim: Victim, kept: Collection[str]) -> str | None:
        """Where the input of a checkpoint that goes was written, unless one that stays is rebuilt from that as well."""
        row = self.rows[victim.checkpoint_id]
        if row.source != "input" or row.parent_id is None or row.parent_id not in kept or not made_at(row.parent_id):
            return None
        others = (one for one, other in self.rows.items() if other.parent_id == row.parent_id and one in kept)
        return None if any(map(self.own, others)) else row.parent_id

    def is_worth_a_cut(self, checkpoint_id: str, base: Collection[str]) -> bool:
        """Whether what would go with a cut here is half as large as what was last written out, or that is small."""
        wanted, sizes = self.own(checkpoint_id), list[int]()
        walked, parent_id = set[str](), self.rows[checkpoint_id].parent_id
        while wanted and parent_id is not None and parent_id in self.rows and parent_id not in walked:
            walked.add(parent_id)
            wanted = self._unmet(parent_id, wanted)
            if parent_id not in base:
                sizes.append(self.rows[parent_id].size)
            parent_id = self.rows[parent_id].parent_id
        return bool(wanted) or (bool(sizes) and (sizes[-1] <= CHEAP or 2 * sum(sizes[:-1]) >= sizes[-1]))

    def own(self, checkpoint_id: str) -> set[str]:
        """The delta channels for which a checkpoint needs its parent."""
        since = self.rows[checkpoint_id].counters
        wanted = {name for name in since if _updates(since[name])}  # since a snapshot, so it is not stored here
        quiet = set(since) - wanted
        if quiet:
            held = self._look(checkpoint_id)
            wanted |= {name for name in quiet if name in held.written and name not in held.stored}
        return wanted.difference(self.saved.get((self.checkpoint_ns, checkpoint_id), ()))

    def _unmet(self, checkpoint_id: str, wanted: Collection[str]) -> set[str]:
        """Those of the channels that need more than this ancestor: no value is stored, yet some was written before."""
        since = self.rows[checkpoint_id].counters
        unmet = {name for name in wanted if name in since and _updates(since[name])}
        rest = set(wanted) - unmet
        if rest:
            held = self._look(checkpoint_id)
            unmet |= {name for name in rest if name in held.written and name not in held.stored}
        return unmet.difference(self.saved.get((self.checkpoint_ns, checkpoint_id), ()))

    def _ancestor(self, row: _Row, gone: Collection[str]) -> str | None:
        """The nearest ancestor that stays."""
        walked = set[str]()
        parent_id = row.parent_id
        while parent_id is not None and parent_id in gone and parent_id not in walked:
            walked.add(parent_id)
            parent_id = self.rows[parent_id].parent_id
        return parent_id if parent_id in self.rows and parent_id not in gone else None

    def _look(self, checkpoint_id: str) -> _Held:
        held = self._held.get(checkpoint_id)
        if held is None:
            place = (self.thread_id, self.checkpoint_ns, checkpoint_id)
            _, checkpoint = self.connection.execute(STORED, place).fetchone()
            held = self._held[checkpoint_id] = _Held(*channels_of(checkpoint))
        return held


def _updates(counter: Any) -> bool:
    """Whether a channel was written since its last snapshot; a counter is `[updates, supersteps]`."""
    return not isinstance(counter, list | tuple) or not counter or bool(counter[0])
