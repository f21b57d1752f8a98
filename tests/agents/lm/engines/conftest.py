"""A server that speaks as vLLM's does, with the trainer's own engine behind it.

What it answers is what vLLM 0.32 was seen to answer; test_vllm.py holds the client against vLLM
itself. Here it can be made to die, to come back, to be taken by somebody else and to lie.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from textgym_agents.lm.engine import Generation, TransformersEngine
from textgym_agents.lm.engines.canary import trainer_scores
from textgym_agents.lm.network import PolicyValueNetwork

Answer = tuple[int, dict[str, Any]]
Spoil = Callable[[dict[str, Any], dict[str, Any]], None]
"""Changes the answer to a request to generate."""


class FakeServer:
    """A vLLM server for one test.

    Args:
        network: of the shape that it serves; it gets weights of its own.
    """

    def __init__(self, network: PolicyValueNetwork) -> None:
        self.start_weights = {n: torch.zeros_like(p) for n, p in network.lm.named_parameters()}
        self.network = copy.deepcopy(network)
        self.lock = threading.Lock()
        self.num_completions = 0
        self.dies_after: int | None = None
        self.on_completion: Callable[[], None] = lambda: None
        self.spoil: Spoil = lambda request, choice: None
        self.takes_weights = True
        self.calls: list[str] = []
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, with weights that mean nothing."""
        self.version, self.is_paused, self.adapters = "default", False, dict[str, Path]()
        self.network.load_state_dict(
            {f"lm.{n}": p for n, p in self.start_weights.items()}, strict=False
        )
        self.network.illegal = None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(*fake.answer(self.path, {}))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.reply(*fake.answer(self.path, json.loads(body or b"{}")))

            def reply(self, status: int, answer: dict[str, Any]) -> None:
                if status == 0:  # it died: nobody gets an answer
                    self.close_connection = True
                    self.connection.close()
                    return
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.is_dead = False
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def die(self) -> None:
        """Answer nobody any more, and close the port."""
        self.is_dead = True
        self.http.shutdown()
        self.http.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        with self.lock:
            self.calls.append(path)
            if self.is_dead:
                return 0, {}
            if path == "/inference/v1/generate":
                return self.generate(body)
            return self.control(path.partition("?")[0], body)

    def control(self, path: str, body: dict[str, Any]) -> Answer:
        if path == "/weight_info":
            return 200, {"weight_version": self.version}
        if path == "/update_weight_version":
            self.version = body["new_version"]
        elif path == "/pause":
            self.is_paused = True
        elif path == "/resume":
            self.is_paused = False
        elif path == "/collective_rpc":
            assert self.is_paused
            getattr(self, body["method"])(*body["args"])
        elif path == "/v1/load_lora_adapter":
            self.adapters[body["lora_name"]] = Path(body["lora_path"])
        elif path == "/v1/unload_lora_adapter":
            if self.adapters.pop(body["lora_name"], None) is None:
                return 404, {"error": "no such adapter"}
        elif path != "/reset_prefix_cache":
            return 404, {"detail": "Not Found"}
        return 200, {}

    def textgym_set_illegal_ids(self, ids: list[int]) -> None:
        rows = torch.arange(self.network.head_weight.shape[0])
        self.network.illegal = torch.isin(rows, torch.tensor(ids)) if ids else None

    def textgym_load_weights(self, path: str) -> None:
        weights = load_file(path)
        for name, p in self.network.lm.named_parameters():
            if self.takes_weights and "lora_" not in name:
                p.data.copy_(weights[name.replace(".base_layer", "")])
            elif "lora_" in name:
                p.data.zero_()

    def generate(self, body: dict[str, Any]) -> Answer:
        assert not self.is_paused
        if "model" in body:
            if body["model"] not in self.adapters:
                return 404, {"error": f"The model {body['model']} does not exist."}
            if self.takes_weights:
                folder = self.adapters[body["model"]]
                self.network.load_adapter(load_file(folder / "adapter_model.safetensors"))
        settings, ids = body["sampling_params"], body["token_ids"]
        choice: dict[str, Any] = {
            "weight_versions": [{"version": self.version, "start": 0, "end": 1}]
        }
        answer: dict[str, Any] = {"choices": [choice], "prompt_logprobs": None}
        if settings.get("prompt_logprobs") is not None:
            scores = trainer_scores(self.network, ids).tolist()
            pairs = zip(ids[1:], scores, strict=True)
            answer["prompt_logprobs"] = [None, *({str(i): {"logprob": x}} for i, x in pairs)]
            return 200, answer
        self.num_completions += 1
        if self.dies_after is not None and self.num_completions > self.dies_after:
            threading.Thread(target=self.die).start()
            self.is_dead = True
            return 0, {}
        self.on_completion()
        self.write(choice, ids, settings)
        choice["weight_versions"][0]["version"] = self.version
        self.spoil(body, choice)
        return 200, answer

    def write(self, choice: dict[str, Any], ids: list[int], settings: dict[str, Any]) -> None:
        generation = sample_alone(self.network, ids, settings)
        content = [
            {"token_id": i, "logprob": x}
            for i, x in zip(generation.token_ids, generation.logprobs, strict=True)
        ]
        choice |= {"token_ids": generation.token_ids, "logprobs": {"content": content}}
        choice["finish_reason"] = generation.finish_reason


def sample_alone(
    network: PolicyValueNetwork, ids: list[int], settings: dict[str, Any]
) -> Generation:
    """Return what a policy answers to one prompt under vLLM's settings."""
    return TransformersEngine(network).generate(
        [ids],
        max_new_tokens=[settings["max_tokens"]],
        temperature=settings["temperature"],
        generator=torch.Generator().manual_seed(settings["seed"]),
    )[0]


@pytest.fixture
def start_server() -> Iterator[Callable[[PolicyValueNetwork], FakeServer]]:
    """Return a function that starts a server; they end with the test."""
    servers: list[FakeServer] = []

    def start(network: PolicyValueNetwork) -> FakeServer:
        servers.append(FakeServer(network))
        return servers[-1]

    yield start
    for server in servers:
        if not server.is_dead:
            server.die()
