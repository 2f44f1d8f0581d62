"""One model server that speaks OpenAI's chat completions: OpenRouter, OpenAI, Ollama, vLLM, llama.cpp."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast

import httpcore2  # noqa: F401 - the first client would import it, which reads files where an event loop may run
import openai
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage, BaseMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from threadline.domain.errors import ModelFault
from threadline.services.models.ending import Ending
from threadline.services.models.faults import THROWN, fault_of
from threadline.services.models.prices import price

_CONNECT_TIMEOUT = 10.0
_BURST = 16  # chunks read in one go where a server sends all at once; then it is the other chats' turn


class ModelServer:
    """Every model of a server, over one pool of connections.

    Making one touches neither network nor event loop; once used it belongs to the loop it was used in.
    """

    def __init__(
        self,
        *,
        provider: str,
        url: str,
        key: SecretStr | None,
        default_model: str | None = None,
        temperature: float | None = None,
        timeout: float = 60,
        retries: int = 2,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.provider = provider
        self._url = url
        self._key = key or SecretStr("none")
        self._default = default_model
        self.temperature = temperature
        self._timeout = openai.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT))
        self._retries = retries
        self._verify = verify
        self._http = openai.DefaultAsyncHttpxClient(timeout=self._timeout, verify=verify)
        self._client = openai.AsyncOpenAI(
            api_key=self._key.get_secret_value(),
            base_url=url,
            http_client=self._http,
            timeout=self._timeout,
            max_retries=retries,
        )
        self._chats: dict[str, _Chat] = {}
        self._formatless: set[str] = set()
        self._lookup = asyncio.Lock()

    def twin(self) -> ModelServer:
        """The same server with connections of its own, for another event loop."""
        return ModelServer(
            provider=self.provider,
            url=self._url,
            key=self._key,
            default_model=self._default,
            temperature=self.temperature,
            timeout=self._timeout.read or 60,
            retries=self._retries,
            verify=self._verify,
        )

    async def models(self) -> tuple[str, ...]:
        """Names of the models it lists, in its order."""
        try:
            return tuple(model.id for model in (await self._client.models.list()).data)
        except THROWN as error:
            raise fault_of(error, subject="The model server") from error

    async def default_model(self) -> str:
        """The model for those who name none. A server without a stated one is asked once."""
        async with self._lookup:
            if self._default is None:
                listed = await self.models()
                if not listed:
                    raise ModelFault("model_refused", "The model server lists no model.")
                self._default = next((name for name in listed if "embed" not in name.lower()), listed[0])
            return self._default

    async def check_key(self) -> None:
        """Raise if OpenRouter does not know the key. Its model list is public, so that listing proves nothing."""
        try:
            await self._client.get("/key", cast_to=object)
        except openai.NotFoundError:
            return
        except THROWN as error:
            raise fault_of(error, subject="The model server") from error

    async def stream(
        self, model: str, messages: list[BaseMessage], *, stop: list[str] | None, options: Mapping[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        """One answer of one model. Raises `ModelFault`, also where the stream ends without having been completed.

        A model that does not accept `response_format` is asked without it, now and from then on.
        """
        if model in self._formatless:
            options = _without_format(options)
        try:
            async with aclosing(self._attempt(model, messages, stop=stop, options=options)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        except ModelFault as fault:
            if fault.kind != "model_invalid" or "response_format" not in options:
                raise
        async with aclosing(self._attempt(model, messages, stop=stop, options=_without_format(options))) as chunks:
            async for chunk in chunks:
                self._formatless.add(model)
                yield chunk

    async def _attempt(
        self, model: str, messages: list[BaseMessage], *, stop: list[str] | None, options: Mapping[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        subject = f"The model {model}"
        ending = Ending(subject)
        begun, read = False, 0
        try:
            answer = self._chat(model)._astream(messages, stop=stop, **options)
            async with aclosing(cast("AsyncGenerator[ChatGenerationChunk, None]", answer)) as chunks:
                async for chunk in chunks:
                    if visible := ending.take(chunk):
                        begun = True
                        yield visible
                    read += 1
                    if read % _BURST == 0:
                        await asyncio.sleep(0)
        except THROWN as error:
            raise fault_of(error, subject=subject, begun=begun) from error
        ending.check()
        yield ending.last(model_name=ending.info.get("model_name") or model, cost=self._cost(model, ending))

    def _chat(self, model: str) -> _Chat:
        chat = self._chats.get(model)
        if chat is None:
            chat = self._chats[model] = self._make_chat(model)
        return chat

    def _make_chat(self, model: str) -> _Chat:
        async def key() -> str:  # being async, it keeps ChatOpenAI from making a sync client too
            return self._key.get_secret_value()

        return _Chat(
            model=model,
            api_key=key,
            base_url=self._url,
            http_async_client=self._http,
            openai_proxy=None,
            timeout=self._timeout,
            max_retries=self._retries,
            temperature=self.temperature,
            stream_usage=True,
            stream_chunk_timeout=None,
            use_responses_api=False,
            extra_body={"usage": {"include": True}} if self.provider == "openrouter" else None,
        )

    def _cost(self, model: str, ending: Ending) -> float | None:
        """What the server says it cost; else by the price list, under the name it answered with or was asked for."""
        stated = ending.info.get("cost")
        if isinstance(stated, int | float):
            return float(stated)
        answered = price(ending.usage, ending.info.get("model_name") or model, api_url=self._url)
        return answered if answered is not None else price(ending.usage, model, api_url=self._url)

    async def aclose(self) -> None:
        await self._http.aclose()


class _Chat(ChatOpenAI):
    """ChatOpenAI that keeps OpenRouter's cost and streams a `response_format` answer like any other."""

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        wanted = payload.pop("response_format", None)
        if wanted is not None:
            # Seen in the payload it would go through the client's own parser, which has other faults and endings.
            payload["extra_body"] = {**(payload.get("extra_body") or {}), "response_format": _format(wanted)}
        return payload

    def _convert_chunk_to_generation_chunk(
        self,
        chunk: dict[str, Any],
        default_chunk_class: type[BaseMessageChunk],
        base_generation_info: dict[str, Any] | None,
    ) -> ChatGenerationChunk | None:
        converted = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        cost = (chunk.get("usage") or {}).get("cost")
        if converted is not None and cost is not None:
            converted.generation_info = {**(converted.generation_info or {}), "cost": cost}
        return converted


def _format(wanted: Any) -> Any:
    """A `response_format` in OpenAI's form; a Pydantic class or a bare schema becomes one."""
    if isinstance(wanted, dict) and "type" in wanted and wanted["type"] != "object":
        return wanted
    schema = convert_to_json_schema(wanted)
    return {"type": "json_schema", "json_schema": {"name": schema.get("title", "answer"), "schema": schema}}


def _without_format(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "response_format"}
