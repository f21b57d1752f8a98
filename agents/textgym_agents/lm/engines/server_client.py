"""The HTTP interface of one vLLM server, as far as the trainer uses it.

Token ids in and out (`/inference/v1/generate`), and the weights (`/collective_rpc`, open only with
VLLM_SERVER_DEV_MODE=1; nothing there asks who calls, so a server belongs on a private network).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from textgym.errors import MissingExtraError
from textgym.http_calls import is_loopback
from textgym_agents.lm.engines.errors import EngineError, ServerLostError

if TYPE_CHECKING:
    import httpx

PROBE_SECONDS = 5.0
SHOWN = 300
NOT_FOUND = 404


class ServerClient:
    """One server. Used on the background loop only.

    Args:
        url: of the server.
        timeout: longest wait for an answer, in seconds.
        concurrency: requests in flight.
    """

    def __init__(self, url: str, *, timeout: float, concurrency: int) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._slots = asyncio.Semaphore(concurrency)
        self._client: httpx.AsyncClient | None = None

    async def version(self) -> str:
        """Return the name of the weights that the server has.

        Raises:
            ServerLostError: it does not answer.
            EngineError: it lets nobody ask.
        """
        answer = await self._call("GET", "/weight_info", timeout=PROBE_SECONDS)
        return str(answer["weight_version"])

    async def set_version(self, version: str) -> None:
        """Name the weights that the server has."""
        await self._call("POST", "/update_weight_version", {"new_version": version})

    async def stop_requests(self) -> None:
        """End what the server is writing, and let nothing new begin."""
        await self._call("POST", "/pause?mode=abort")

    async def go_on(self) -> None:
        """Forget keys and values of old weights, and take requests again."""
        await self._call("POST", "/reset_prefix_cache")
        await self._call("POST", "/resume")

    async def run_in_worker(self, method: str, *args: Any) -> None:
        """Call a method of `WorkerExtension`."""
        await self._call("POST", "/collective_rpc", {"method": method, "args": list(args)})

    async def load_adapter(self, name: str, path: Path) -> None:
        """Offer an adapter as a model of its own name."""
        body = {"lora_name": name, "lora_path": str(path), "load_inplace": True}
        await self._call("POST", "/v1/load_lora_adapter", body)

    async def unload_adapter(self, name: str) -> None:
        """Take an adapter away; one that is not there is none."""
        await self._call(
            "POST", "/v1/unload_lora_adapter", {"lora_name": name}, missing_is_fine=True
        )

    async def generate(
        self, token_ids: list[int], settings: dict[str, Any], model: str | None
    ) -> dict[str, Any]:
        """Return the server's answer to one prompt; `model` names an adapter."""
        body: dict[str, Any] = {"token_ids": token_ids, "sampling_params": settings}
        if model is not None:
            body["model"] = model
        async with self._slots:
            answer: dict[str, Any] = await self._call("POST", "/inference/v1/generate", body)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        missing_is_fine: bool = False,
    ) -> Any:
        client = self._client = self._client or self._make_client()
        import httpx

        try:
            response = await client.request(
                method, self.url + path, json=body, timeout=timeout or self.timeout
            )
        except httpx.HTTPError as error:
            what = " ".join(str(error).split()) or "the connection was lost"
            raise ServerLostError(f"{self.url}: {type(error).__name__}: {what}") from error
        if response.is_success:
            return response.json() if _is_json(response) else None
        if response.status_code == NOT_FOUND and missing_is_fine:
            return None
        raise _error(self.url, path, response)

    def _make_client(self) -> httpx.AsyncClient:
        try:
            import httpx
        except ModuleNotFoundError:
            raise MissingExtraError("httpx", "judge", "engine.kind 'vllm_server'") from None
        return httpx.AsyncClient(
            # A proxy from the environment cannot reach a server on this machine.
            trust_env=not is_loopback(urlsplit(self.url).hostname or ""),
            limits=httpx.Limits(max_connections=None),
        )


def _is_json(response: httpx.Response) -> bool:
    return "json" in response.headers.get("content-type", "")


def _error(url: str, path: str, response: httpx.Response) -> EngineError:
    said = f"{url}{path} answered {response.status_code}: {' '.join(response.text.split())[:SHOWN]}"
    if response.status_code >= 500:
        return ServerLostError(said)
    if path == "/weight_info" and response.status_code == NOT_FOUND:
        said += "; a server that the trainer can update is started by `textgym vllm-server`"
    return EngineError(said)
