"""What a run may choose: the model, its temperature and the prompts, by its config or its context."""

from functools import partial
from typing import Annotated, Any

from langchain_core.runnables import RunnableConfig
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from graph import prompts
from graph.prompts import Prompt
from threadline.domain.errors import Invalid


class PromptText(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    text: Annotated[str, Field(max_length=100_000)]


def _checked(name: str, choice: str | PromptText | None) -> str | PromptText | None:
    if choice is not None:
        prompts.chosen(name, choice)  # type: ignore[arg-type]
    return choice


class Prompts(TypedDict, total=False):
    """By a prompt's name: a version kept in `graph/prompts`, or a text."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    analyze_intent: Annotated[
        str | PromptText | None,
        AfterValidator(partial(_checked, "analyze_intent")),
        Field(json_schema_extra={"langgraph_nodes": ["analyze_intent"], "langgraph_type": "prompt"}),
    ]
    respond: Annotated[
        str | PromptText | None,
        AfterValidator(partial(_checked, "respond")),
        Field(json_schema_extra={"langgraph_nodes": ["respond"], "langgraph_type": "prompt"}),
    ]


class Choices(TypedDict, total=False):
    """What is left out, or null, is as the service has it."""

    model: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="A model of the service's model server. It answers alone: no other stands in for it.",
            json_schema_extra={"langgraph_nodes": ["analyze_intent", "respond"], "threadline_type": "model"},
        ),
    ]
    temperature: Annotated[
        float | None,
        Field(ge=0, le=2, json_schema_extra={"langgraph_nodes": ["analyze_intent", "respond"]}),
    ]
    prompts: Prompts | None


_CHOICES: TypeAdapter[Choices] = TypeAdapter(Choices)
_KNOWN = ("model", "temperature", "prompts")


def choices(config: RunnableConfig) -> Choices:
    """What the run of this config chose. Raises Invalid."""
    configurable = config.get("configurable") or {}
    given = {name: configurable[name] for name in _KNOWN if configurable.get(name) is not None}
    if not given:
        return {}
    try:
        return _CHOICES.validate_python(given)
    except ValidationError as error:
        reasons = [f"{_where(item['loc'])}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()]
        raise Invalid("; ".join(reasons)) from error


def options(config: RunnableConfig) -> dict[str, Any]:
    """What of it goes to the model server with a request. Raises Invalid."""
    chosen = choices(config)
    given = {"model": chosen.get("model"), "temperature": chosen.get("temperature")}
    return {name: value for name, value in given.items() if value is not None}


def prompt(config: RunnableConfig, name: str) -> Prompt:
    """The prompt of that name to use. Raises Invalid."""
    choice: Any = (choices(config).get("prompts") or {}).get(name)
    return prompts.load(name) if choice is None else prompts.chosen(name, choice)


def _where(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place if part in (*_KNOWN, *prompts.NAMES))
