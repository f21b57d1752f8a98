"""The vLLM servers of a run: which have the trainer's weights, and sending them to the rest.

The name of the weights holds a token of this trainer and a counter. A server that was started anew,
or that another trainer has taken, reports another name and is sent the weights before it is used.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from textgym.background_loop import background_loop
from textgym_agents.lm.engines.config import VllmServerEngineConfig
from textgym_agents.lm.engines.errors import ServerLostError
from textgym_agents.lm.engines.model_files import illegal_ids
from textgym_agents.lm.engines.server_client import ServerClient
from textgym_agents.lm.engines.weights import (
    save_adapter,
    save_weights,
    sends_adapter,
    weights_of,
)
from textgym_agents.lm.network import PolicyValueNetwork

T = TypeVar("T")
Prove = Callable[[ServerClient, bool], None]
"""Raises unless a server has the trainer's policy; the flag says that it is new to the trainer."""

POLL_SECONDS = 0.5
LOADING = "textgym-loading"
MEMORY = Path("/dev/shm")
WEIGHTS_FILE = "weights.safetensors"


class ServerPool:
    """The servers, and the weights they are to have.

    Args:
        network: whose weights they are.
        config: where the servers are.
        prove: called for each server after it was sent weights.
    """

    def __init__(
        self, network: PolicyValueNetwork, config: VllmServerEngineConfig, prove: Prove
    ) -> None:
        self.network = network
        self.config = config
        self.prove = prove
        self._token = uuid.uuid4().hex[:8]
        self._number = 0
        self._sends_adapter = False
        self._clients: list[ServerClient] = []
        self._proven: dict[str, int] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def has_weights(self) -> bool:
        """Whether the servers were given weights to have."""
        return self._number > 0

    @property
    def num_servers(self) -> int:
        """How many there should be."""
        return len(self._open())

    @property
    def weights_name(self) -> str:
        """The name under which a server reports the weights that it samples from."""
        return f"{self._token}-{'base' if self._sends_adapter else self._number}"

    @property
    def adapter_name(self) -> str | None:
        """The adapter to ask for; None where it is merged, or there is none."""
        return self._adapter(self._number) if self._sends_adapter else None

    def _adapter(self, number: int) -> str:
        return f"{self._token}-adapter-{number}"

    def take_new_weights(self) -> list[ServerClient]:
        """Send the network's weights as they are now to every server; return those that have them.

        Raises:
            ServerLostError: none answers.
            EngineError: one answers that it cannot, or has another policy all the same.
        """
        is_bf16 = self.network.config.precision == "bf16"
        self._sends_adapter = sends_adapter(self.network, self.config.sync, is_bf16=is_bf16)
        self._number += 1
        return self.bring_up()

    def bring_up(self) -> list[ServerClient]:
        """Return the servers that have the newest weights, after sending them where they are not.

        Waits `reconnect_seconds` for a server while none answers.

        Raises:
            ServerLostError: none did.
            EngineError: one answers that it cannot, or has another policy all the same.
        """
        reported = self.find()
        behind = {c: v for c, v in reported.items() if self._is_behind(c, v)}
        if not behind:
            return list(reported)
        results: dict[ServerClient, Any] = {**reported, **self._send(behind)}
        ready = [c for c, v in results.items() if not isinstance(v, ServerLostError)]
        if not ready:
            raise ServerLostError(_nobody(results.values()))
        return ready

    def find(self) -> dict[ServerClient, str]:
        """Return the servers that answer, and the names of their weights.

        Raises:
            ServerLostError: none answers within `reconnect_seconds`.
            EngineError: one has no place for weights.
        """
        deadline = time.monotonic() + self.config.reconnect_seconds
        while True:
            clients = self._open()
            answers = together([_or_lost(client.version()) for client in clients])
            pairs = zip(clients, answers, strict=True)
            found = {c: v for c, v in pairs if not isinstance(v, ServerLostError)}
            if found:
                return found
            if time.monotonic() >= deadline:
                raise ServerLostError(_nobody(answers))
            time.sleep(POLL_SECONDS)

    def doubt(self, client: ServerClient) -> None:
        """Send a server the weights again before it is used again."""
        self._proven.pop(client.url, None)

    def close(self) -> None:
        """Close the connections; the servers keep the weights that they have."""
        if self._clients:
            together([client.close() for client in self._clients])
        if self._folder is not None:
            self._folder.cleanup()
        self._clients, self._folder, self._number = [], None, 0
        self._proven.clear()

    def _open(self) -> list[ServerClient]:
        if not self._clients:
            config = self.config
            self._clients = [
                ServerClient(url, timeout=config.timeout_seconds, concurrency=config.concurrency)
                for url in dict.fromkeys(config.urls)
            ]
        return self._clients

    def _is_behind(self, client: ServerClient, reported: str) -> bool:
        return reported != self.weights_name or self._proven.get(client.url) != self._number

    def _is_new(self, reported: str) -> bool:
        """Return whether a server has not had this trainer's weights before, as far as it says."""
        return not reported.startswith(self._token)

    def _send(self, behind: dict[ServerClient, str]) -> dict[ServerClient, ServerLostError | None]:
        """Send weights to servers; return what became of each: None, or how it was lost."""
        path = self._write(is_base_known=all(v == self.weights_name for v in behind.values()))
        sent = together([_or_lost(self._send_to(c, v, path)) for c, v in behind.items()])
        (path / WEIGHTS_FILE).unlink(missing_ok=True)
        results = dict(zip(behind, sent, strict=True))
        for client, reported in behind.items():
            if results[client] is not None:
                continue
            try:
                self.prove(client, self._is_new(reported))
            except ServerLostError as error:
                results[client] = error
            else:
                self._proven[client.url] = self._number
        return results

    def _write(self, *, is_base_known: bool) -> Path:
        """Write what the servers are to load, and return the folder."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(
                prefix="textgym-sync-", dir=self.config.sync_folder or self._find_memory()
            )
        path = Path(self._folder.name)
        if not (self._sends_adapter and is_base_known):
            weights = weights_of(self.network, with_adapter=not self._sends_adapter)
            save_weights(weights, path / WEIGHTS_FILE)
        if self._sends_adapter:
            shutil.rmtree(path / self._adapter(self._number - 1), ignore_errors=True)
            save_adapter(self.network, path / self._adapter(self._number))
        return path

    def _find_memory(self) -> Path | None:
        """Return the file system in memory if all weights fit into half of what is free there."""
        size = sum(p.numel() * p.element_size() for p in self.network.lm.parameters())
        fits = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * size
        return MEMORY if fits else None

    async def _send_to(self, client: ServerClient, reported: str, path: Path) -> None:
        """Send weights to one server; until it has them all, it reports none."""
        await client.stop_requests()
        if not (self._sends_adapter and reported == self.weights_name):
            await client.set_version(LOADING)
            if self._is_new(reported):
                await client.run_in_worker("textgym_set_illegal_ids", illegal_ids(self.network))
            await client.run_in_worker("textgym_load_weights", str(path / WEIGHTS_FILE))
        if self._sends_adapter:
            name = self._adapter(self._number)
            await client.load_adapter(name, path / name)
            await client.unload_adapter(self._adapter(self._number - 1))
        await client.set_version(self.weights_name)
        await client.go_on()


def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines side by side on the background loop and return their results."""

    async def gather(awaitables: list[Awaitable[T]]) -> list[T]:
        return await asyncio.gather(*awaitables)

    return background_loop().run(gather(list(coroutines)))


async def _or_lost(answer: Awaitable[T]) -> T | ServerLostError:
    try:
        return await answer
    except ServerLostError as error:
        return error


def _nobody(errors: Iterable[Any]) -> str:
    said = "; ".join(str(error) for error in errors)
    return f"no vLLM server answers ({said}); start one with `textgym vllm-server`"
