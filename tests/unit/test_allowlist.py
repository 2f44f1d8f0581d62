"""Which types a schema holds and a list names: at least those LangGraph would derive, and none that cannot be found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypeVar

import pytest
from langgraph._internal._serde import collect_allowlist_from_schemas
from langgraph.graph import MessagesState
from pydantic import BaseModel, SecretStr
from typing_extensions import TypeAliasType, TypedDict

from threadline.domain.errors import Invalid
from threadline.storage.allowlist import names_in, names_of

if TYPE_CHECKING:
    from nowhere import Unknown

T = TypeVar("T")


class Colour(Enum):
    RED = "red"


class Mood(StrEnum):
    GOOD = "good"


class Seat(BaseModel):
    row: int
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Table:
    seats: list[Seat]
    next: Table | None = None


@dataclasses.dataclass
class Halfway:
    """One annotation means nothing at run time; the other still counts."""

    mood: Mood
    unknown: Unknown | None = None


class Point(NamedTuple):
    x: int
    table: Table | None = None


class Box(BaseModel, Generic[T]):
    held: T


class Room(TypedDict):
    tables: Annotated[Mapping[str, Sequence[Table]], "by name"]
    mood: NotRequired[Literal["quiet"] | Mood]


class Outer:
    class Inner(Enum):
        A = 1


TableId = NewType("TableId", Point)
Tree = TypeAliasType("Tree", dict[str, Any] | Seat)

HERE = __name__


def here(*names: str) -> set[tuple[str, str]]:
    return {(HERE, name) for name in names}


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        (int, ()),
        (Any, ()),
        (None, ()),
        (list[int], ()),
        (Colour, ("Colour",)),
        (Seat | None, ("Seat", "Colour")),
        (dict[str, list[Table]], ("Table", "Seat", "Colour")),
        (Point, ("Point", "Table", "Seat", "Colour")),
        (Room, ("Table", "Seat", "Colour", "Mood")),
        (Halfway, ("Halfway", "Mood")),
        (TableId, ("Point", "Table", "Seat", "Colour")),
        (Tree, ("Seat", "Colour")),
        (Annotated[Mood, Seat], ("Mood",)),
        (tuple[type[Mood], ...], ("Mood",)),
        (Outer.Inner, ()),
    ],
    ids=str,
)
def test_what_a_schema_holds(annotation: Any, names: tuple[str, ...]) -> None:
    assert names_in([annotation]) == here(*names)


def test_secrets_are_read_back_as_secrets() -> None:
    assert names_in([SecretStr]) == {("pydantic.types", "SecretStr")}


@pytest.mark.parametrize("schema", [MessagesState, Room, Table, Seat, Box[Seat], list[Point], TableId], ids=str)
def test_what_langgraph_derives_is_in_it(schema: Any) -> None:
    derived = collect_allowlist_from_schemas(schemas=[schema])
    assert derived <= names_in([schema])


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (Seat, ("Seat", "Colour")),
        (f"{HERE}:Seat", ("Seat", "Colour")),
        ((HERE, "Seat"), ("Seat", "Colour")),
        (Room, ("Table", "Seat", "Colour", "Mood")),
        (Outer, ("Outer",)),
    ],
    ids=str,
)
def test_a_listed_type_brings_those_of_its_fields(listed: Any, names: tuple[str, ...]) -> None:
    assert names_of([listed]) == here(*names)


@pytest.mark.parametrize(
    "listed",
    [
        "",
        "Seat",
        ":Seat",
        f"{HERE}:",
        f"{HERE}:Seat:more",
        f"{HERE}:Outer.Inner",
        f"{HERE}:Missing",
        "no.such.module:Seat",
        ".relative:Seat",
        "os:system",
        "this is no module:Seat",
        ("one",),
        ("a", "b", "c"),
        (HERE, 1),
        None,
        5,
        Outer.Inner,
        Seat(row=1),
        Seat | None,
    ],
    ids=str,
)
def test_what_names_no_type_is_refused(listed: Any) -> None:
    with pytest.raises(Invalid):
        names_of([listed])


@pytest.mark.parametrize("allow", ["shop:Seat", Seat, Colour])
def test_a_list_is_a_list(allow: Any) -> None:
    with pytest.raises(Invalid, match="list"):
        names_of(allow)
