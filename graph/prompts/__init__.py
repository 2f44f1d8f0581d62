"""Prompts as files: front matter with a name and a version, then the text. `$name` stands for a variable.

`name.md` is the one that is used; others are kept beside it as `name.*.md` and asked for by their version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from threadline.services.prompts import version_of

FOLDER = Path(__file__).parent
NAMES = ("analyze_intent", "respond")


@dataclass(frozen=True, slots=True)
class Prompt:
    name: str
    version: str
    text: Template

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}"

    def render(self, **variables: str) -> str:
        """The text with its variables filled in. Raises KeyError if one is missing."""
        return self.text.substitute(variables)


@cache
def kept(name: str) -> Mapping[str, Prompt]:
    """Every version there is, the one that is used first. Raises ValueError if a file's front matter lacks a name or a
    version, or if two have the same."""
    found: dict[str, Prompt] = {}
    for path in (FOLDER / f"{name}.md", *sorted(FOLDER.glob(f"{name}.*.md"))):
        fields, text = _parts(path.read_text(encoding="utf-8"))
        if fields.get("name") != name or not fields.get("version"):
            raise ValueError(f"The prompt {path.name} needs front matter with its name and a version.")
        if fields["version"] in found:
            raise ValueError(f"The prompt {path.name} has the version of another: {fields['version']}.")
        found[fields["version"]] = Prompt(name, fields["version"], Template(text))
    return found


def load(name: str) -> Prompt:
    """The version that is used."""
    return next(iter(kept(name).values()))


def chosen(name: str, choice: str | Mapping[str, str]) -> Prompt:
    """The prompt of a version, or of the text in `{"text": …}`. Raises ValueError with words for who chose."""
    versions = kept(name)
    if isinstance(choice, str):
        if choice not in versions:
            raise ValueError(f"{name} has no version {choice}; there are {', '.join(versions)}")
        return versions[choice]
    _, written = _parts(choice["text"])
    text, known = Template(written), set(load(name).text.get_identifiers())
    if not written:
        raise ValueError(f"{name} has no text")
    if not text.is_valid():
        raise ValueError(f"{name} holds a $ that begins no variable; write $$ for a dollar sign")
    if unknown := sorted(set(text.get_identifiers()) - known):
        raise ValueError(
            f"{name} has no variable ${unknown[0]}; it has {', '.join(f'${one}' for one in sorted(known))}"
        )
    return Prompt(name, version_of(choice), text)


def _parts(whole: str) -> tuple[dict[str, str], str]:
    """The front matter, where there is any, and the text."""
    if not whole.startswith("---\n"):
        return {}, whole.strip()
    front, _, text = whole.removeprefix("---\n").partition("\n---\n")
    fields = {key: value.strip() for key, _, value in (line.partition(":") for line in front.splitlines())}
    return fields, text.strip()
