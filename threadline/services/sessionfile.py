"""The file a session is shared as: lines of JSON, packed with gzip. docs/replay.md tells what each kind holds.

What is read is a stranger's: lines, what they unpack to and their number are bounded, and each must fit its model.
"""

from __future__ import annotations

import binascii
import gzip
import hashlib
import re
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, BinaryIO, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from threadline.domain.errors import Conflict, Invalid
from threadline.services.packed import Ext

FORMAT = "threadline-session"
VERSION = 1
ENDING = ".jsonl.gz"
LINE = 16 * 2**20
"""Bytes of a line, at most."""
CHUNK = 2**18
MAGIC = b"\x1f\x8b"
PARTS = 2_000_000
"""Objects and lists in a line, at most: each takes many times the room in memory that it takes in the file."""
LEVELS = 150
"""Lists and objects within each other, at most."""
UNHASHED = "expect"
"""The kind of line that may be edited: the digest leaves it out."""


class BadFile(Invalid):
    """The file is no exported session, or is damaged. The message is for whoever brought it."""


def _text(value: str) -> str:
    if "\x00" in value:
        raise ValueError("holds a NUL")
    return value


def _uuid(value: str) -> str:
    if str(UUID(value)) != value:
        raise ValueError("is not spelled as ids are")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("is not base64")
    try:
        return b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError("is not base64") from error


Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_text)]
Id = Annotated[str, AfterValidator(_uuid)]
CheckpointId = Annotated[str, Field(pattern=re.compile(r"^[A-Za-z0-9._:-]{1,100}$"))]
Namespace = Annotated[str, Field(max_length=4000), AfterValidator(_text)]
Bytes = Annotated[bytes, BeforeValidator(_bytes)]
Label = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Number = Annotated[int, Field(ge=0, lt=2**31)]
When = Annotated[AwareDatetime, Field(strict=False)]
Serialized = Literal["msgpack", "json", "null", "bytes", "bytearray"]
Object = dict[str, Any]


class Line(BaseModel):
    """What every line is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Graph(Line):
    id: Name
    fingerprint: Text | None = None


class Header(Line):
    kind: Literal["header"]
    format: Literal["threadline-session"]
    version: Literal[1]
    threadline: Text
    created_at: When
    graph: Graph
    prompts: dict[str, Text] = {}
    models: list[Text] = []


class ThreadLine(Line):
    kind: Literal["thread"]
    thread_id: Id
    title: Text | None
    metadata: Object
    config: Object
    status: Literal["idle", "interrupted", "error"]
    error: Object | None
    interrupts: dict[str, list[Object]]
    created_at: When
    updated_at: When
    state_updated_at: When | None


class RunLine(Line):
    kind: Literal["run"]
    run_id: Id
    graph_id: Name
    turn_id: Id
    status: Literal["success", "error", "timeout", "interrupted"]
    kwargs: Object
    created_at: When
    updated_at: When | None
    ended_at: When | None
    error: Object | None
    attempt: Annotated[int, Field(ge=1, le=1000)]
    assistant_id: Id | None
    metadata: Object
    multitask_strategy: Literal["reject", "interrupt", "rollback", "enqueue"]
    position: Number


class TurnExtra(BaseModel):
    """The part of `extra_metadata` that is relied on."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    turn_id: Id
    run_ids: Annotated[list[Id], Field(min_length=1)]
    status: Text
    ended_at: Text


class TurnLine(Line):
    kind: Literal["turn"]
    user_message: Text | None
    assistant_message: Text | None
    tools_used: list[Text]
    model_used: Text | None
    tokens_used: Number | None
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    created_at: When
    extra_metadata: TurnExtra


class EventLine(Line):
    kind: Literal["event"]
    run_id: Id
    id: Annotated[int, Field(ge=1, lt=2**53)]
    type: Text
    ns: list[Text]
    at: Annotated[float, Field(ge=0, le=4e9, allow_inf_nan=False)]
    data: Any


class CheckpointLine(Line):
    kind: Literal["checkpoint"]
    ns: Namespace
    id: CheckpointId
    parent: CheckpointId | None
    type: Literal["msgpack", "json"]
    data: Bytes
    metadata: Object
    values: Any = None


class WriteLine(Line):
    kind: Literal["write"]
    ns: Namespace
    checkpoint: CheckpointId
    task_id: Name
    task_path: Text
    idx: Annotated[int, Field(gt=-1000, lt=2**31)]
    channel: Name
    type: Serialized
    data: Bytes
    value: Any = None


class HeadLine(Line):
    kind: Literal["head"]
    ns: Namespace
    checkpoint: CheckpointId | Literal[""]
    since: CheckpointId


class BranchLine(Line):
    kind: Literal["branch"]
    checkpoint: CheckpointId
    name: Label | None
    main: bool
    created_at: When


class PinLine(Line):
    kind: Literal["pin"]
    ns: Namespace
    checkpoint: CheckpointId
    name: Label | None
    created_at: When


class ExpectLine(Line):
    kind: Literal["expect"]
    turn: Annotated[int, Field(ge=1)]
    nodes: list[Any] | None = None
    tools: list[Object] | None = None
    intent: Text | None = None
    answer: Object | None = None
    error: Text | None = None


class End(Line):
    kind: Literal["end"]
    counts: dict[str, Number]
    redacted: dict[str, Number]
    sha256: Text


AnyLine = (
    Header
    | ThreadLine
    | RunLine
    | TurnLine
    | EventLine
    | CheckpointLine
    | WriteLine
    | HeadLine
    | PinLine
    | BranchLine
    | ExpectLine
    | End
)
KINDS: dict[str, type[AnyLine]] = {
    "header": Header,
    "thread": ThreadLine,
    "turn": TurnLine,
    "run": RunLine,
    "event": EventLine,
    "checkpoint": CheckpointLine,
    "write": WriteLine,
    "head": HeadLine,
    "pin": PinLine,
    "branch": BranchLine,
    "expect": ExpectLine,
    "end": End,
}
"""In the order in which a file has them: events stand behind their run, writes behind their checkpoint."""
_BEHIND = {"event": "run", "write": "checkpoint"}
ORDER = {kind: list(KINDS).index(_BEHIND.get(kind, kind)) for kind in KINDS}


class Writer:
    """Writes a file line by line and counts."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=out, mtime=0)
        self._digest = hashlib.sha256()
        self._counts: Counter[str] = Counter()

    def line(self, kind: str, **fields: Any) -> None:
        """Raises Conflict for what is too large to be handed on."""
        packed = orjson.dumps({"kind": kind, **fields}, default=_json, option=orjson.OPT_NON_STR_KEYS) + b"\n"
        if len(packed) > LINE:
            raise Conflict(f"The session holds a {kind} that is too large to be exported.")
        if kind != UNHASHED:
            self._digest.update(packed)
        self._counts[kind] += 1
        self._out.write(packed)

    def end(self, redacted: Counter[str]) -> None:
        self.line("end", counts=self._counts, redacted=redacted, sha256=self._digest.hexdigest())
        self._out.close()


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a file may come to, unpacked, in bytes."""

    unpacked: int
    lines: int = 5_000_000


def read(file: BinaryIO, bounds: Bounds) -> Iterator[AnyLine]:
    """The lines of a file, each as its model, in the order they must have; the digest and the counts are checked at
    the end. Raises BadFile, or Conflict if a newer version wrote it."""
    digest, counts = hashlib.sha256(), Counter[str]()
    at, last = -1, None
    for number, packed in enumerate(_lines(file, bounds), start=1):
        if isinstance(last, End):
            raise BadFile(f"Line {number} of the file stands after its end.")
        last = _parsed(packed, number)
        if number == 1 and not isinstance(last, Header):
            raise BadFile("The file is no session of Threadline: it does not begin with a header.")
        if ORDER[last.kind] < at or (at == ORDER[last.kind] and last.kind in ("header", "thread")):
            raise BadFile(f"Line {number} of the file, a {last.kind}, stands in the wrong place.")
        at = ORDER[last.kind]
        if isinstance(last, End):
            if last.sha256 != digest.hexdigest():
                raise BadFile("The file is damaged: its lines are not those that were exported.")
            if {kind: count for kind, count in last.counts.items() if kind != UNHASHED} != dict(counts):
                raise BadFile("The file is damaged: it does not hold what its last line says.")
        elif last.kind != UNHASHED:
            digest.update(packed + b"\n")
            counts[last.kind] += 1
        yield last
    if not isinstance(last, End):
        raise BadFile("The file is cut off: its last line is missing.")


def _parsed(packed: bytes, number: int) -> AnyLine:
    parts = packed.count(b"{") + packed.count(b"[")
    if parts > PARTS:
        raise BadFile(f"Line {number} of the file has too many parts.")
    try:
        line = orjson.loads(packed)
        if parts > LEVELS and is_deep(line):
            raise BadFile(f"Line {number} of the file is nested too deep.")
        kind = line["kind"]
        model = KINDS[kind]
        if kind == "header":
            _check_version(line)
        return model.model_validate(line)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in found["loc"])
        raise BadFile(f"Line {number} of the file, a {kind}, does not fit: {where}: {found['msg']}.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        what = "is no line of an exported session" if number > 1 else "is no header, so this is no session"
        raise BadFile(f"Line {number} of the file {what}.") from error


def is_deep(value: Any) -> bool:
    """Whether lists and objects stand within each other more than `LEVELS` deep: who walks them would fall."""
    at = [value]
    for _ in range(LEVELS):
        at = [item for each in at for item in _within(each)]
        if not at:
            return False
    return True


def _within(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list):
        return value
    return (value.value,) if isinstance(value, Ext) else ()


def _check_version(line: dict[str, Any]) -> None:
    version = line.get("version")
    if line.get("format") == FORMAT and isinstance(version, int) and version > VERSION:
        raise Conflict("The file was made by a newer version of Threadline. Import it there.")


def _lines(file: BinaryIO, bounds: Bounds) -> Iterator[bytes]:
    """The lines, without their ends; no more is unpacked than is needed for the next."""
    rest, count = b"", 0
    for chunk in _unpacked(file, bounds.unpacked):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            count += 1
            if count > bounds.lines:
                raise BadFile("The file has too many lines.")
            if len(line) > LINE:
                raise BadFile(f"Line {count} of the file is too long.")
            yield line
        if len(rest) > LINE:
            raise BadFile(f"Line {count + 1} of the file is too long.")
    if rest:
        raise BadFile("The file is cut off: its last line has no end.")


def _unpacked(file: BinaryIO, most: int) -> Iterator[bytes]:
    """A file's bytes in chunks, unpacked if it is packed."""
    chunk = file.read(CHUNK)
    if not chunk:
        raise BadFile("The file is empty.")
    unpack = zlib.decompressobj(wbits=31) if chunk.startswith(MAGIC) else None
    size = 0
    while chunk:
        if unpack is None:
            found, chunk = chunk, b""
        else:
            if unpack.eof:
                raise BadFile("The file is damaged: something stands behind its end.")
            try:
                found = unpack.decompress(chunk, CHUNK)
            except zlib.error as error:
                raise BadFile("The file is damaged: it cannot be unpacked.") from error
            chunk = unpack.unused_data or unpack.unconsumed_tail
        size += len(found)
        if size > most:
            raise BadFile(f"The file unpacks to more than {most} bytes.")
        yield found
        chunk = chunk or file.read(CHUNK)
    if unpack is not None and not unpack.eof:
        raise BadFile("The file is cut off.")
