"""What a model call cost by the price table that comes with `genai-prices`. No network; unknown is None, never 0."""

from __future__ import annotations

from genai_prices import Usage, calc_price
from langchain_core.messages.ai import UsageMetadata


def price(
    usage: UsageMetadata | None, model: str, *, provider: str | None = None, api_url: str | None = None
) -> float | None:
    """US dollars. Name the provider or give its address: a local model may bear a famous model's name."""
    if usage is None or not model:
        return None
    details = usage.get("input_token_details") or {}
    spent = Usage(
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        cache_read_tokens=details.get("cache_read"),
        cache_write_tokens=details.get("cache_creation"),
    )
    try:
        if api_url:
            return float(calc_price(spent, model, provider_api_url=api_url).total_price)
        if provider:
            return float(calc_price(spent, model, provider_id=provider).total_price)
    except (LookupError, ValueError):
        return None
    return None
