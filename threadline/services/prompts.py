"""How a prompt is chosen in a run's config: by a version that is kept, or by its text."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

LABEL = "prompt_"
"""A checkpoint's metadata names the version of each prompt under this and the prompt's name."""


def version_of(chosen: str | Mapping[str, Any]) -> str:
    """The version a choice stands for: the one it names, or one made of its text."""
    if isinstance(chosen, str):
        return chosen
    return f"text-{blake2b(str(chosen.get('text')).encode('utf-8', 'replace'), digest_size=4).hexdigest()}"


def labels(versions: Mapping[str, str]) -> dict[str, str]:
    """Prompts' versions as a checkpoint's metadata has them."""
    return {f"{LABEL}{name}": version for name, version in versions.items()}


def chosen_labels(configurable: Mapping[str, Any]) -> dict[str, str]:
    """The same of the prompts that a run's config chooses."""
    chosen = configurable.get("prompts")
    if not isinstance(chosen, Mapping):
        return {}
    return labels({name: version_of(one) for name, one in chosen.items() if isinstance(one, str | Mapping)})
