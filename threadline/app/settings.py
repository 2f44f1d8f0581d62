"""Every setting of the service, read from flags, the environment and `.env`, in this order of precedence.

`docs/settings.md` and `.env.example` list the same settings; a test holds the three together.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from threadline.domain.egress import Egress
from threadline.domain.signing import key_of

Words = Annotated[tuple[str, ...], NoDecode]
"""A list written with commas: `a, b, c`."""
Secrets = Annotated[tuple[SecretStr, ...], NoDecode]

_LONGEST = timedelta(days=36_500)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _age(value: object) -> object:
    """The span of time that `30d` or `12h` says."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", value.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError("it must be a number and a unit: s, m, h, d or w, such as 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


Age = Annotated[timedelta, BeforeValidator(_age)]


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be an address such as https://example.org")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""The base address of a service over HTTP."""

ELSEWHERE = frozenset({"URL", "KEY", "TEST_SYSTEM_PACKAGES"})
"""Names that commands read besides the settings, less `THREADLINE_`."""


class Settings(BaseSettings):
    """One attribute per setting. Its environment name is `THREADLINE_` and its own in capitals, or its alias."""

    model_config = SettingsConfigDict(
        env_prefix="THREADLINE_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        populate_by_name=True,
        frozen=True,
    )

    # Where the service listens and keeps its state
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8123, ge=0, le=65535, description="Port to listen on.")
    insecure: bool = Field(False, description="Allow a non-loopback host although no API key is set.")
    data_dir: Path = Field(Path(".threadline"), description="Folder of all state: history, embedded Redis, logs.")
    config: Path = Field(Path("langgraph.json"), description="The langgraph.json that names the graphs to serve.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`auto` is `console` on a terminal and `json` elsewhere."
    )

    # Redis and sessions
    redis_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "redis_url"),
        description="A Redis 8 (or Redis Stack) to use. Unset: an embedded one is started.",
    )
    session_ttl: int = Field(3600, ge=1, description="Seconds a session stays live in Redis after its last use.")
    busy_session: Literal["enqueue", "reject"] = Field(
        "enqueue", description="A second message while a session is busy waits its turn or gets a 409."
    )

    # Checkpoints
    allowed_types: Words = Field(
        (), description="Types, as `module:Type`, read back from checkpoints besides those of a graph's state."
    )

    # History
    history_max_age: Age | None = Field(
        None,
        le=_LONGEST,
        description="Checkpoints older than this go, such as `30d`, `12h`. Unset: none goes for its age.",
    )
    history_max_checkpoints: int | None = Field(
        None, ge=1, description="Checkpoints kept of each session; older ones go. Unset: all."
    )
    history_max_log_age: Age | None = Field(
        None, le=_LONGEST, description="Recordings of runs that ended longer ago than this go. Unset: none goes."
    )
    history_sweep: float = Field(
        600, gt=0, description="Seconds between two looks for checkpoints and recordings that may go."
    )

    # Models
    openrouter_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("OPENROUTER_API_KEY", "openrouter_api_key"), description="OpenRouter key."
    )
    openrouter_base_url: Address = Field(
        "https://openrouter.ai/api/v1",
        validation_alias=AliasChoices("OPENROUTER_BASE_URL", "openrouter_base_url"),
        description="OpenRouter's address.",
    )
    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("OPENAI_API_KEY", "openai_api_key"),
        description="Key of an OpenAI-compatible server.",
    )
    openai_base_url: Address | None = Field(
        None,
        validation_alias=AliasChoices("OPENAI_BASE_URL", "openai_base_url"),
        description="Address of an OpenAI-compatible server (Ollama, vLLM, llama.cpp).",
    )
    model: str | None = Field(None, description="Model that answers. Unset: see docs/models.md.")
    analysis_model: str | None = Field(None, description="Model that analyses intent. Unset: the one that answers.")
    fallback_models: Words = Field((), description="Models tried in order when the first one fails.")
    temperature: float | None = Field(None, ge=0, le=2, description="Sampling temperature. Unset: the server's own.")
    model_timeout: float = Field(60, gt=0, description="Seconds without a byte from the model before a call fails.")
    model_retries: int = Field(2, ge=0, le=10, description="Retries of a model call that was refused as overloaded.")
    offline_delay: float = Field(0, ge=0, le=5, description="Seconds the offline model waits before each token.")

    # The agent
    window: int = Field(40, ge=2, description="Messages of the conversation a model is shown, newest last.")
    tool_timeout: float = Field(15, gt=0, description="Seconds one tool call may take.")
    tool_cache_size: int = Field(1000, ge=0, description="Tool results kept in memory. 0 turns the cache off.")
    tool_cache_ttl: float = Field(600, gt=0, description="Seconds a tool result is kept.")
    weather_url: Address = Field("https://api.open-meteo.com", description="Open-Meteo forecast service.")
    geocoding_url: Address = Field("https://geocoding-api.open-meteo.com", description="Open-Meteo geocoding service.")
    wikipedia_url: Address = Field(
        "https://{language}.wikipedia.org", description="Wikipedia; `{language}` becomes the question's language."
    )
    search_providers: Words = Field(
        (), description="Search services in order of preference. Unset: those with a key, then wikipedia, ddgs."
    )
    tavily_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("TAVILY_API_KEY", "tavily_api_key"), description="Tavily search key."
    )
    tavily_url: Address = Field("https://api.tavily.com", description="Tavily's address.")
    brave_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("BRAVE_API_KEY", "brave_api_key"), description="Brave search key."
    )
    brave_url: Address = Field("https://api.search.brave.com", description="Brave's address.")
    searxng_url: Address | None = Field(None, description="A SearXNG instance with its JSON format on.")
    tools: Words = Field((), description="Tools that are offered. Unset: all that are set up.")
    ask_before: Words = Field(
        ("write", "run"),
        description="Tools, or risks of tools, whose calls a person must allow first. `none`: no tool.",
    )
    news_feeds: Words = Field((), description="RSS or Atom feeds, such as `BBC=https://feeds.bbci.co.uk/news/rss.xml`.")
    hacker_news_url: Address = Field("https://hn.algolia.com", description="Search service of Hacker News.")
    web_hosts: Words = Field(
        (), description="Hosts, addresses or networks whose pages may be read although they are not public."
    )
    sql_url: SecretStr | None = Field(
        None, description="Database to ask: `sqlite:///PATH`, or `postgresql://…` of a role that can only read."
    )
    sql_timeout: float = Field(5, gt=0, description="Seconds one SQL statement may take.")
    code_seconds: float = Field(5, gt=0, description="Seconds a piece of code may run.")
    code_memory_mb: int = Field(100, ge=10, description="Megabytes a piece of code may take.")
    workspace_bytes: int = Field(50_000_000, ge=0, description="Bytes the files of one session may have.")

    # Who may ask, and how much
    api_keys: Secrets = Field((), description="Keys callers must show. Unset: no key needed, loopback only.")
    metrics_public: bool = Field(False, description="Serve /metrics without a key although keys are set.")
    rate_limit: str | None = Field(None, description="Requests per caller, such as `120/minute`. Unset: no limit.")
    cors_origins: Words = Field(
        ("https://smith.langchain.com",),
        description="Origins whose pages may call the service from a browser: LangGraph Studio's. `none`: no page may.",
    )
    max_message_chars: int = Field(16_000, ge=1, description="Longest message accepted, in characters.")
    max_body_bytes: int = Field(1_000_000, ge=1, description="Largest request body accepted, in bytes.")
    max_import_bytes: int = Field(
        100_000_000, ge=1, description="Largest session file accepted, in bytes; it may unpack to ten times as many."
    )

    # Runs and streams
    run_timeout: float = Field(600, gt=0, description="Seconds a run may take before it ends as `timeout`.")
    heartbeat: float = Field(15, gt=0, description="Seconds between the comments that keep an idle stream open.")
    stall_timeout: float = Field(
        30, gt=0, description="Seconds a client may take none of what is sent to it; then its connection is cut."
    )
    webhook_hosts: Words = Field(
        (), description="Hosts, addresses or networks that webhooks may reach although they are not public."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Secret that webhooks are signed with: `whsec_` and base64, or any text."
    )

    @field_validator(
        "allowed_types",
        "api_keys",
        "fallback_models",
        "search_providers",
        "cors_origins",
        "webhook_hosts",
        "tools",
        "ask_before",
        "news_feeds",
        "web_hosts",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _no_page(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return () if origins == ("none",) else origins

    @field_validator("api_keys", mode="before")
    @classmethod
    def _some_key(cls, value: object) -> object:
        """What was meant to close the service must not leave it open. Runs before the words are split."""
        if isinstance(value, str) and not value.replace(",", "").strip():
            raise ValueError("it names no key")
        return value

    @field_validator("ask_before")
    @classmethod
    def _no_tool(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return () if words == ("none",) else words

    @field_validator("webhook_hosts", "web_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        Egress.parse(hosts)
        return hosts

    @field_validator("webhook_secret")
    @classmethod
    def _usable(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            key_of(secret.get_secret_value())
        return secret


def unknown_names(environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, str | None]]:
    """What is set under a name that begins like a setting's and is none, each with the setting that may be meant."""
    known = {name.upper() for name in Settings.model_fields} | ELSEWHERE
    given = set(os.environ if environment is None else environment)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        given |= dotenv_values(".env", encoding="utf-8").keys()
    for name in sorted(given):
        prefix, own = name[:11].upper(), name[11:].upper()
        if prefix == "THREADLINE_" and own not in known:
            meant = get_close_matches(own, known, n=1)
            yield name, prefix + meant[0] if meant else None
