"""Prompts as files: front matter with a name and a version, then the text. `$name` stands for a variable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Prompt:
    name: str
    version: str
    text: Template

    def render(self, **variables: str) -> str:
        """The text with its variables filled in. Raises KeyError if one is missing."""
        return self.text.substitute(variables)


def load(name: str) -> Prompt:
    """Read `name`.md. Raises ValueError if its front matter lacks a name or a version."""
    _, _, rest = (FOLDER / f"{name}.md").read_text(encoding="utf-8").partition("---\n")
    front, _, text = rest.partition("\n---\n")
    fields = {key: value.strip() for key, _, value in (line.partition(":") for line in front.splitlines())}
    if fields.get("name") != name or not fields.get("version"):
        raise ValueError(f"The prompt {name}.md needs front matter with its name and a version.")
    return Prompt(name, fields["version"], Template(text.strip()))
