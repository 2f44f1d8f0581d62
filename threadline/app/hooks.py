"""The `webhooks` part of langgraph.json, its headers filled in from the environment."""

from __future__ import annotations

import os
import re

from threadline.app.project import Project, WebhooksPart
from threadline.domain.errors import Invalid
from threadline.services.hook_policy import HookPolicy

VARIABLE = re.compile(r"\$\{\{\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def hook_policy(project: Project) -> HookPolicy:
    """Raises Invalid for a header that cannot be sent, or that needs what the environment does not have."""
    part = project.file.webhooks
    off = project.file.http.disable_webhooks
    if part is None:
        return HookPolicy(off=off)
    headers = {name: _filled(name, value, part) for name, value in part.headers.items()}
    if part.url is None:
        return HookPolicy(headers=headers, off=off)
    return HookPolicy(
        https_only=part.url.require_https,
        domains=tuple(part.url.allowed_domains),
        ports=frozenset(part.url.allowed_ports),
        longest=part.url.max_url_length,
        headers=headers,
        off=off,
    )


def _filled(name: str, value: str, part: WebhooksPart) -> str:
    """The header's value. Only variables that begin with the prefix may be named: others may be secrets of ours."""

    def variable(match: re.Match[str]) -> str:
        if not match[1].startswith(part.env_prefix):
            raise Invalid(f"webhooks.headers.{name}: {match[1]} does not begin with {part.env_prefix} (env_prefix).")
        if match[1] not in os.environ:
            raise Invalid(f"webhooks.headers.{name}: {match[1]} is not in the environment.")
        return os.environ[match[1]]

    filled = VARIABLE.sub(variable, value)
    if not NAME.fullmatch(name) or not filled.isascii() or not filled.isprintable():
        raise Invalid(f"webhooks.headers.{name}: it is no header that can be sent.")
    return filled
