"""`threadline replay --check`: exported sessions executed again with what is served today, and held to what they did.

Everything happens in a history of its own that is gone afterwards; nothing is written to the service's.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from api.context import Context
from threadline.app.settings import Settings
from threadline.app.tables import rows
from threadline.app.transcript import clean, fit
from threadline.app.wiring import open_services
from threadline.domain.errors import Missing, ThreadlineError
from threadline.domain.events import Event
from threadline.services.auth import LOCAL
from threadline.services.expectations import Done, done
from threadline.services.rerun import Source
from threadline.services.runs import StartRun
from threadline.services.trial import Difference, Trial, Verdict, compared, files_in, load

Execute = Callable[[Context, Trial], Awaitable[Sequence[Done]]]
"""Does a session's turns again, with the services opened for it; what each did."""
WIDTH = 400
"""Characters of a value in the report."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where the answers to calls come from: the file, as long as just the same is asked, or the models and tools."""

    models: Source = "recorded"
    tools: Source = "recorded"


async def check(
    settings: Settings, place: Path, *, answers: Answers | None = None, execute: Execute | None = None
) -> list[Verdict]:
    """Try every exported session in a folder, or one file. Raises Invalid if there is none, and what opening the
    services raises."""
    files = files_in(place)
    with tempfile.TemporaryDirectory(prefix="threadline-check-") as folder:
        apart = settings.model_copy(
            update={
                "data_dir": Path(folder) / "data",
                "redis_url": None,
                "history_max_age": None,
                "history_max_checkpoints": None,
                "busy_session": "enqueue",
            }
        )
        async with open_services(apart, scratch=True) as context:
            return [await _tried(context, path, execute or partial(anew, answers or Answers())) for path in files]


def checked(settings: Settings, place: Path, answers: Answers | None = None) -> list[Verdict]:
    """The same for who has no event loop."""
    return asyncio.run(check(settings, place, answers=answers))


async def anew(answers: Answers, context: Context, trial: Trial) -> list[Done]:
    """Say everything again, in a new session, and answer what is asked with what was answered then."""
    recording = await _recording(context, trial)
    thread, _ = await context.threads.create(LOCAL, metadata={"graph_id": trial.graph_id})
    turns: list[Done] = []
    for turn in trial.turns:
        logs: list[list[Event]] = []
        then, now = list[str](), list[str]()
        for run in turn:
            given = _answering(run.given, then, now)
            if given is None:
                break  # it did not ask this time; the nodes tell
            said = {} if run.message is None else {"message": run.message}
            sources = {"models": answers.models, "tools": answers.tools}
            call = {**given, **said, "recording": recording, "changes": sources}
            request = StartRun(LOCAL, thread_id=thread.thread_id, call=call)
            started = await context.runs.start(request)
            logs.append([event async for event in context.runs.follow(started)])
            then += [id for id in run.interrupts if id not in then]
            asked = (event.data["id"] for event in logs[-1] if event.type == "interrupt")
            now += [id for id in asked if id not in now]
        turns.append(done(logs))
    return turns


async def _recording(context: Context, trial: Trial) -> dict[str, Any]:
    """What the session's calls were answered with, brought into this history. Raises ThreadlineError."""
    imported = await context.share.import_(LOCAL, _bytes(trial.path))
    runs = await context.runs.of_thread(imported.thread, LOCAL, limit=max(1, imported.runs))
    return {"run_ids": [run.run_id for run in reversed(runs)], "after": None}


async def _bytes(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while portion := await asyncio.to_thread(file.read, 2**20):
            yield portion


def _answering(given: Mapping[str, Any], then: Sequence[str], now: Sequence[str]) -> dict[str, Any] | None:
    """What a run was asked, its answers under the ids that the questions have now; None if nobody asks any more."""
    resume = (given.get("command") or {}).get("resume")
    if resume is None:
        return dict(given)
    if not now:
        return None
    if not (isinstance(resume, Mapping) and resume.keys() & set(then)):
        return dict(given)
    ids = dict(zip(then, now, strict=False))
    answers = {ids[id]: value for id, value in resume.items() if id in ids}
    return {**given, "command": {**given["command"], "resume": answers}} if answers else None


async def _tried(context: Context, path: Path, execute: Execute) -> Verdict:
    verdict = Verdict(path)
    try:
        trial = load(path)
        verdict.turns = len(trial.turns)
        if trial.graph_id not in context.info["graphs"]:
            raise Missing(f"The graph {trial.graph_id} is not served here.")
        turns = await execute(context, trial)
    except ThreadlineError as error:
        verdict.error = error.message
        return verdict
    for number, turn in enumerate(turns, start=1):
        if number in trial.expected:
            verdict.differences += compared(number, trial.expected[number], turn)
    return verdict


def report(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """A line for each file, under it what differs, and in a sentence what it adds up to."""
    heads = [("ok" if v.passed else "FAIL", clean(v.path.name), _counted(v.turns, "turn")) for v in verdicts]
    for head, verdict in zip(rows(heads), verdicts, strict=True):
        yield head
        yield from (f"      {line}" for line in told(verdict))
    failed = sum(not verdict.passed for verdict in verdicts)
    yield f"{_counted(len(verdicts), 'session')}, {failed or 'none'} failed."


def told(verdict: Verdict) -> Iterator[str]:
    """What there is to say of a file that failed."""
    if verdict.error is not None:
        yield clean(verdict.error)
    for each in verdict.differences:
        yield f"turn {each.turn}, {each.what}"
        yield f"  expected {_shown(each.expected)}"
        yield f"  got      {_shown(each.got)}"


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """`{passed, sessions: [{file, passed, turns, error, differences: [{turn, what, expected, got}]}]}`."""
    return {
        "passed": all(verdict.passed for verdict in verdicts),
        "sessions": [
            {
                "file": str(verdict.path),
                "passed": verdict.passed,
                "turns": verdict.turns,
                "error": verdict.error,
                "differences": [_fields(each) for each in verdict.differences],
            }
            for verdict in verdicts
        ],
    }


def _fields(difference: Difference) -> dict[str, Any]:
    return {name: getattr(difference, name) for name in ("turn", "what", "expected", "got")}


def _shown(value: Any) -> str:
    return fit(clean(json.dumps(value, ensure_ascii=False, default=str)), WIDTH)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
