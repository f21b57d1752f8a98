"""A causal language model for a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import torch


def load_model(
    folder: Path, *, needs: str, device: str | None, dtype: str | None = None
) -> tuple[Any, torch.device]:
    """Return a model that is only read, and where it is.

    Args:
        folder: as `save_pretrained` writes it; weights as safetensors only, because unpickling
            runs code.
        needs: what needs it, for the error without torch.
        device: as torch names it; None takes a GPU where there is one.
        dtype: of the weights; None is bfloat16 on a GPU and float32 else.

    Raises:
        MissingExtraError: torch or transformers are not installed.
        ConfigError: the folder holds no model.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ModuleNotFoundError as error:
        package = (error.name or "torch").partition(".")[0]
        raise MissingExtraError(package, "agents", needs) from None
    if not (folder / "config.json").is_file():
        raise ConfigError(f"--model {folder} is no folder of a model: it has no config.json")
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    default = "bfloat16" if place.type == "cuda" else "float32"
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype or default),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    return model.to(place).eval().requires_grad_(False), place
