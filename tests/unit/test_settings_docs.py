"""Settings, docs/settings.md and .env.example name the same variables, with the same defaults and descriptions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from threadline.app.cli import app
from threadline.app.settings import Settings, unknown_names

ROOT = Path(__file__).parents[2]

Told = dict[str, tuple[str, str]]
"""Default (as it is written in .env, "" if there is none) and description of each variable."""


def told_by_code() -> Told:
    return {_variable(name, field): _told(field) for name, field in Settings.model_fields.items()}


def told_by_guide() -> Told:
    """The rows of three columns in docs/settings.md."""
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", _read("docs/settings.md"), re.MULTILINE)
    return {variable: ("" if default == "—" else default.strip("`"), text) for variable, default, text in rows}


def told_by_example() -> Told:
    """Each variable of .env.example, with the comment above it."""
    rows = re.findall(r"^# (.+)\n#(\w+)=(.*)$", _read(".env.example"), re.MULTILINE)
    return {variable: (default, text) for text, variable, default in rows}


@pytest.mark.parametrize("told", [told_by_guide, told_by_example])
def test_every_setting_is_described_as_it_is(told) -> None:
    assert told() == told_by_code()


@pytest.mark.parametrize("path", ["docs/settings.md", ".env.example"])
def test_each_is_listed_once_and_in_order(path: str) -> None:
    listed = re.findall(r"^(?:\| `|#)([A-Z_]+)(?:` \| .+ \| |=)", _read(path), re.MULTILINE)

    assert listed == list(told_by_code())


def test_no_other_variable_is_named_anywhere_in_the_documents() -> None:
    known = {*told_by_code(), *_variables_of_commands()}
    documents = [ROOT / ".env.example", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]

    named = {name for path in documents for name in re.findall(r"\bTHREADLINE_[A-Z_]+\b", path.read_text("utf-8"))}

    assert named - known == set()


def test_the_variables_of_commands_are_described_as_such() -> None:
    section = _read("docs/settings.md").partition("## Of the commands")[2]

    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == _variables_of_commands()


def test_the_example_changes_nothing(tmp_path: Path) -> None:
    uncommented = re.sub(r"^#(?=\w+=)", "", _read(".env.example"), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(uncommented, encoding="utf-8")

    assert _without_environment(tmp_path / ".env") == _without_environment(None)


def test_a_misspelt_name_is_found_in_the_environment_and_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("THREADLINE_DATADIR=x\nTHREADLINE_PORT=1\nOTHER=2\n", encoding="utf-8")
    given = {"THREADLINE_API_KEY": "secret", "THREADLINE_QQQQ": "1", "threadline_host": "h", "THREADLINE_URL": "u"}

    assert list(unknown_names(given)) == [
        ("THREADLINE_API_KEY", "THREADLINE_API_KEYS"),
        ("THREADLINE_DATADIR", "THREADLINE_DATA_DIR"),
        ("THREADLINE_QQQQ", None),
    ]


def test_every_variable_of_a_command_or_setting_is_known() -> None:
    assert list(unknown_names(dict.fromkeys([*told_by_code(), *_variables_of_commands()], ""))) == []


@pytest.mark.parametrize("value", ["localhost:11434", "ftp://host/v1", "http://", "/v1", "not an address"])
def test_an_address_that_is_none_stops_the_start(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", value)

    with pytest.raises(ValidationError, match=r"OPENAI_BASE_URL\n.*an address such as https://example.org"):
        Settings()


def _without_environment(env_file: Path | None) -> BaseSettings:
    with pytest.MonkeyPatch.context() as patch:
        for variable in told_by_code():
            patch.delenv(variable, raising=False)
        return Settings(_env_file=env_file)  # type: ignore[call-arg]


def _variables_of_commands() -> set[str]:
    return set(_environment_of(typer.main.get_command(app)))


def _environment_of(command: object) -> Iterator[str]:
    for parameter in getattr(command, "params", ()):
        if parameter.envvar:
            yield parameter.envvar
    for inner in getattr(command, "commands", {}).values():
        yield from _environment_of(inner)


def _variable(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    return alias.choices[0] if alias else f"{Settings.model_config['env_prefix']}{name.upper()}"


def _told(field: FieldInfo) -> tuple[str, str]:
    match field.default:
        case None | ():
            default = ""
        case bool() as switch:
            default = str(switch).lower()
        case tuple() as words:
            default = ", ".join(words)
        case other:
            default = str(other)
    return default, field.description or "no description"


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
