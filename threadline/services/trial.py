"""A session as a test: what an exported file asks and expects, and where what is done today differs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from threadline.domain.errors import Invalid
from threadline.services.expectations import Done
from threadline.services.redaction import MASK
from threadline.services.sessionfile import (
    ENDING,
    Bounds,
    EventLine,
    ExpectLine,
    Header,
    RunLine,
    TurnLine,
    read,
)

ENDINGS = (ENDING, ".jsonl")
SIDECAR = ".expect.json"
BOUNDS = Bounds(4 * 2**30)
"""For files of one's own."""
_GIVEN = ("input", "command", "config", "context", "interrupt_before", "interrupt_after")


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return text


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Answer(BaseModel):
    """What an answer is held to; whatever is set must be true."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    equals: str | None = None
    contains: Annotated[list[str], BeforeValidator(_list)] = []
    regex: Annotated[str, AfterValidator(_regex)] | None = None

    def fits(self, answer: str) -> bool:
        return (
            (self.equals is None or answer == self.equals)
            and all(part in answer for part in self.contains)
            and (self.regex is None or re.search(self.regex, answer) is not None)
        )


class Call(BaseModel):
    """A tool call; without `args` any will do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    args: Any = None


class Expected(BaseModel):
    """What a turn is held to; what is null is not looked at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: list[str | list[str]] | None = None
    tools: list[Call] | None = None
    intent: str | None = None
    answer: Answer | None = None
    error: str | None = None


_Sidecar = TypeAdapter(dict[Annotated[str, Field(pattern=r"^[1-9]\d*$")], Expected | None])


@dataclass(frozen=True, slots=True)
class Asked:
    """One run of a turn. `given` is what it was asked in a graph's words, `message` in a chat's; one of them is there.

    `interrupts` are the ids of what it stopped to ask, in order.
    """

    graph_id: str
    message: str | None
    given: dict[str, Any]
    interrupts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """A file as a test. `expected` is by the number of the turn, from 1."""

    path: Path
    graph_id: str
    turns: tuple[tuple[Asked, ...], ...]
    expected: Mapping[int, Expected]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a turn did otherwise; `what` is a field of what was expected."""

    turn: int
    what: str
    expected: Any
    got: Any


@dataclass(slots=True)
class Verdict:
    """What came of a file; `error` is why it could not be tried."""

    path: Path
    turns: int = 0
    differences: list[Difference] = field(default_factory=list)
    error: str | None = None

    @property
    def passed(self) -> bool:
        return not self.differences and self.error is None


def files_in(folder: Path) -> list[Path]:
    """The exported sessions in a folder, or the one that is named. Raises Invalid if there is none."""
    if folder.is_file():
        return [folder]
    found = sorted(path for path in folder.glob("*") if path.name.endswith(ENDINGS) and path.is_file())
    if not found:
        raise Invalid(f"There is no exported session in {folder}: their names end in {ENDING}.")
    return found


def load(path: Path) -> Trial:
    """Read a file and what lies beside it. Raises BadFile, Conflict or Invalid."""
    try:
        with path.open("rb") as file:
            trial = _load(path, file)
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}.") from error
    return Trial(path, trial.graph_id, trial.turns, _beside(path, trial))


def compared(number: int, expected: Expected, done: Done) -> Iterator[Difference]:
    """Where a turn differs from what is expected of it."""
    if done.error != expected.error:
        yield Difference(number, "error", expected.error, done.error)
    if expected.nodes is not None and _ordered(expected.nodes) != _ordered(done.nodes):
        yield Difference(number, "nodes", expected.nodes, done.nodes)
    if expected.tools is not None and not _same_calls(expected.tools, done.tools):
        yield Difference(number, "tools", [_told(call) for call in expected.tools], done.tools)
    if expected.intent is not None and expected.intent != done.intent:
        yield Difference(number, "intent", expected.intent, done.intent)
    if expected.answer is not None and not expected.answer.fits(done.answer or ""):
        wanted = expected.answer.model_dump(exclude_defaults=True)
        yield Difference(number, "answer", wanted, done.answer)


def _load(path: Path, file: BinaryIO) -> Trial:
    graph_id = ""
    runs: dict[str, RunLine] = {}
    asks: dict[str, list[str]] = {}
    turns: list[TurnLine] = []
    expected: dict[int, Expected] = {}
    for line in read(file, BOUNDS):
        match line:
            case Header():
                graph_id = line.graph.id
            case TurnLine() if "rerun_of" not in (line.extra_metadata.model_extra or {}):
                turns.append(line)
            case RunLine():
                runs[line.run_id] = line
            case EventLine(type="interrupt", data={"id": str() as id}):
                asks.setdefault(line.run_id, []).append(id)
            case ExpectLine():
                fields = line.model_dump(exclude={"kind", "turn"}, exclude_none=True)
                expected[line.turn] = _expected(
                    Expected.model_validate, fields, f"{path.name}: expect of turn {line.turn}"
                )
    asked = []
    for turn in turns:
        of_turn = [runs[run_id] for run_id in turn.extra_metadata.run_ids if run_id in runs]
        if of_turn:
            asked.append(tuple(_asked(run, turn, tuple(asks.get(run.run_id, ()))) for run in of_turn))
    return Trial(path, graph_id, tuple(asked), expected)


def _asked(run: RunLine, turn: TurnLine, interrupts: tuple[str, ...]) -> Asked:
    given = {name: run.kwargs[name] for name in _GIVEN if run.kwargs.get(name) is not None}
    in_words_of_a_graph = "input" in given or "command" in given
    return Asked(run.graph_id, None if in_words_of_a_graph else turn.user_message or "", given, interrupts)


def _beside(path: Path, trial: Trial) -> dict[int, Expected]:
    """What is expected, after what a file of the same name says of it."""
    expected = dict(trial.expected)
    name = next(path.name.removesuffix(ending) for ending in (*ENDINGS, "") if path.name.endswith(ending))
    sidecar = path.with_name(f"{name}{SIDECAR}")
    if sidecar.exists():
        try:
            said = orjson.loads(sidecar.read_bytes())
        except (OSError, ValueError) as error:
            raise Invalid(f"{sidecar.name} is no JSON that can be read.") from error
        for number, one in _expected(_Sidecar.validate_python, said, sidecar.name).items():
            turn = int(number)
            if one is None:
                expected.pop(turn, None)
            else:
                before = expected.get(turn, Expected())
                expected[turn] = before.model_copy(update={name: getattr(one, name) for name in one.model_fields_set})
    beyond = [turn for turn in expected if turn > len(trial.turns)]
    if beyond:
        raise Invalid(f"{path.name} has {len(trial.turns)} turns, and something is expected of turn {max(beyond)}.")
    return expected


def _expected(parse: Any, said: Any, where: str) -> Any:
    try:
        return parse(said)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in found["loc"])
        raise Invalid(f"{where}: {place}: {found['msg'].removeprefix('Value error, ')}.") from error


def _ordered(nodes: Sequence[str | list[str]]) -> list[Any]:
    """The nodes with those that ran side by side in one order."""
    return [sorted(each) if isinstance(each, list) else each for each in nodes]


def _same_calls(expected: Sequence[Call], made: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each expected call was made, and no other. Calls made side by side have no order."""
    left = list(made)
    for call in expected:
        found = next((one for one in left if _is_call(call, one)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _is_call(expected: Call, made: Mapping[str, Any]) -> bool:
    any_args = "args" not in expected.model_fields_set
    return made.get("name") == expected.name and (any_args or _same(expected.args, made.get("args")))


def _same(expected: Any, got: Any) -> bool:
    """Whether a value is the expected one; what was taken out at the export may be anything."""
    if expected == MASK:
        return True
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return expected.keys() == got.keys() and all(_same(expected[key], got[key]) for key in expected)
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(_same, expected, got))
    if isinstance(expected, str) and MASK in expected and isinstance(got, str):
        parts = (re.escape(part) for part in expected.split(MASK))
        return re.fullmatch(".*".join(parts), got, re.DOTALL) is not None
    return bool(expected == got)


def _told(call: Call) -> dict[str, Any]:
    return call.model_dump(include=call.model_fields_set)
