"""The statements of every run, whole but for their values.

To build a statement takes ten times as long as SQLite takes to carry it out; these are built once, and compiled once.
"""

from __future__ import annotations

from sqlalchemy import (
    Integer,
    String,
    bindparam,
    case,
    exists,
    func,
    insert,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from threadline.storage.tables import UNFINISHED, chat_history, run_logs, runs, threads, turn_id_of

STATUS = case((exists().where(runs.c.thread_id == threads.c.thread_id, UNFINISHED), "busy"), else_=threads.c.status)
SHOWN = [STATUS.label("status") if column is threads.c.status else column for column in threads.c]

_THREAD = threads.c.thread_id == bindparam("of_thread")
_RUN = runs.c.run_id == bindparam("of_run")
_TURN = (turn_id_of() == bindparam("of_turn"), chat_history.c.session_id == bindparam("of_session"))

THREAD = select(*SHOWN).where(_THREAD)
RUN = select(runs).where(_RUN)
TURN = select(chat_history).where(*_TURN)
RUNS_BEGUN = (
    select(runs)
    .where(runs.c.thread_id == bindparam("of_thread"), runs.c.position > bindparam("after"))
    .order_by(runs.c.position)
)

NEW_THREAD = insert(threads)
NEW_RUN = insert(runs)
NEW_TURN = insert(chat_history)
_archived = upsert(run_logs)
NEW_LOG = _archived.on_conflict_do_update(
    index_elements=["run_id"], set_={name: _archived.excluded[name] for name in ("events", "ended_at")}
)

_minutes = func.json_extract(threads.c.ttl, "$.ttl")
_renewed = func.strftime(
    "%Y-%m-%d %H:%M:%f000", bindparam("used", type_=String), func.printf("%+f minutes", _minutes), type_=String
)
_USED = {
    "updated_at": bindparam("used_at", type_=threads.c.updated_at.type),
    "expires_at": case((_minutes.is_not(None), type_coerce(_renewed, threads.c.expires_at.type))),
}
"""Its time to live begins anew. `used_at` is when, `used` the same in SQLite's words."""
_begun = {"begun": threads.c.begun + bindparam("begins", type_=Integer)}

THREAD_COUNTS = update(threads).where(_THREAD).values(_begun)
THREAD_TAKES = (
    update(threads)
    .where(_THREAD)
    .values(
        {
            **_USED,
            **_begun,
            "metadata": func.json_patch(threads.c.metadata, bindparam("runs_on", type_=String)),
            "title": func.coalesce(threads.c.title, bindparam("asked", type_=String)),
        }
    )
)
"""A run is created on it. `begins` is 1 if it begins at once."""
THREAD_KEEPS = update(threads).where(_THREAD).values(_USED)
"""A run has ended that never began."""
_LEFT = ("status", "error", "interrupts")
THREAD_IS_LEFT = (
    update(threads)
    .where(_THREAD)
    .values(
        {
            **_USED,
            "state_updated_at": bindparam("used_at", type_=threads.c.updated_at.type),
            **{
                name: bindparam(f"left_{name}", type_=threads.c[name].type)
                for name in ("status", "error", "interrupts")
            },
        }
    )
)

RUN_CHANGES = update(runs).where(_RUN)
RUN_TAKES_PLACE = RUN_CHANGES.values(position=select(threads.c.begun).where(_THREAD).scalar_subquery())
TURN_CHANGES = update(chat_history).where(*_TURN)
