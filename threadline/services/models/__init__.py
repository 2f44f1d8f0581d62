"""The models that answer: OpenRouter, any OpenAI-compatible server, or the offline one.

`open_models` does no I/O and needs no event loop: a server is first spoken to when a model is first asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from langchain_core.language_models import BaseChatModel

from threadline.domain.errors import Invalid, ModelFault
from threadline.services.models.config import OPENAI_MODEL, OPENAI_URL, OPENROUTER_MODEL, OPENROUTER_URL, ModelConfig
from threadline.services.models.resilient import ResilientChat
from threadline.services.models.server import ModelServer
from threadline.services.models.usage import UsageMeter

__all__ = [
    "OPENAI_MODEL",
    "OPENAI_URL",
    "OPENROUTER_MODEL",
    "OPENROUTER_URL",
    "ModelCheck",
    "ModelConfig",
    "Models",
    "Provider",
    "UsageMeter",
    "open_models",
]

Provider = Literal["openrouter", "openai", "offline"]
OFFLINE_MODEL = "threadline-offline"
_SHOWN = 20
"""Models named to somebody who asks for one that is not there."""


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """`models` will be asked, in this order; those in `unlisted` the server does not list, yet it may know them."""

    models: tuple[str, ...]
    unlisted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Models:
    """Belongs to the event loop it is used in; make one for each.

    `names` are the models that may be asked, fallbacks included; None stands for the first one the server lists.
    """

    chat: BaseChatModel
    analysis: BaseChatModel
    provider: Provider
    names: tuple[str | None, ...] = ()
    server: ModelServer | None = None

    async def check(self) -> ModelCheck:
        """Ask the server for its models. Raises `ModelFault` if it is away or refuses the key."""
        if self.server is None:
            return ModelCheck(models=(OFFLINE_MODEL,), unlisted=())
        if self.provider == "openrouter":
            await self.server.check_key()
        listed = await self.server.models()
        names = tuple([name or await self.server.default_model() for name in self.names])
        return ModelCheck(models=names, unlisted=tuple(name for name in names if name not in listed))

    async def known(self, name: str) -> None:
        """See that a model can be asked for. A server that cannot say what it has is believed. Raises Invalid."""
        if self.server is None:
            listed: tuple[str, ...] = (OFFLINE_MODEL,)
        else:
            try:
                listed = await self.server.models()
            except ModelFault:
                return
        if name not in listed and name not in self.names:
            few = ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
            raise Invalid(f"There is no model {name}. There are: {few}")

    async def aclose(self) -> None:
        if self.server is not None:
            await self.server.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def open_models(config: ModelConfig) -> Models:
    """The models of `config`. Close them, or use them in `async with`."""
    if config.openrouter_api_key:
        return _served(config, "openrouter")
    if config.openai_api_key or config.openai_base_url:
        return _served(config, "openai")

    from threadline.services.models.offline import OfflineModel

    offline = OfflineModel(delay=config.offline_delay)
    return Models(chat=offline, analysis=offline, provider="offline")


def _served(config: ModelConfig, provider: Literal["openrouter", "openai"]) -> Models:
    first: str | None
    if provider == "openrouter":
        url, key = config.openrouter_base_url, config.openrouter_api_key
        first = config.model or OPENROUTER_MODEL
    else:
        url, key = config.openai_base_url or OPENAI_URL, config.openai_api_key
        first = config.model or (None if config.openai_base_url else OPENAI_MODEL)
    server = ModelServer(
        provider=provider,
        url=url,
        key=key,
        default_model=first,
        temperature=config.temperature,
        timeout=config.timeout,
        retries=config.retries,
        verify=config.verify,
    )
    chat = ResilientChat(server=server, names=(first, *config.fallback_models))
    analysis = chat
    if config.analysis_model not in (None, first):
        analysis = ResilientChat(server=server, names=(config.analysis_model, *config.fallback_models))
    return Models(
        chat=chat,
        analysis=analysis,
        provider=provider,
        names=tuple(dict.fromkeys((*chat.names, *analysis.names))),
        server=server,
    )
