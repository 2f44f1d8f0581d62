"""Which models answer and where they are: plain values, so that nothing here knows the settings."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from pydantic import SecretStr

OPENROUTER_URL = "https://openrouter.ai/api/v1"
OPENROUTER_MODEL = "openai/gpt-4o-mini"
"""What OpenRouter is asked for where no model is named."""

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-4o-mini"
"""The same for OpenAI itself, whose model list begins anywhere. Any other server answers with the first it lists."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """An OpenRouter key wins over an OpenAI key or address; with neither, the offline model answers.

    `timeout` is in seconds without a byte; `retries` counts repetitions of a call that was refused as overloaded or
    could not be made; `offline_delay` is in seconds per token. `fallback_models` live on the same server. `verify`
    holds the certificate authorities, where they have been read already.
    """

    openrouter_api_key: SecretStr | None = None
    openrouter_base_url: str = OPENROUTER_URL
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    model: str | None = None
    analysis_model: str | None = None
    fallback_models: tuple[str, ...] = ()
    temperature: float | None = None
    timeout: float = 60
    retries: int = 2
    offline_delay: float = 0.0
    verify: ssl.SSLContext | bool = True
