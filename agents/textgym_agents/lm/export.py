"""A run's policy as an ordinary Hugging Face folder: weights, tokenizer and a model card.

`AutoModelForCausalLM` opens it, or peft where it is an adapter. The value head stays behind: no
other library has a use for it. Ids that the policy may not sample are suppressed by the generation
settings, so greedy generation there is what the policy says.
"""

from __future__ import annotations

from pathlib import Path

from textgym.errors import ConfigError
from textgym_agents.lm.checkpoint import find_checkpoint
from textgym_agents.lm.config import QloraMode
from textgym_agents.lm.model_card import make_card
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.policy_files import BASE_FOLDER, POLICY_FOLDER, is_policy, save_base
from textgym_agents.run.directory import RunDirectory

CARD = "README.md"


def export_policy(run_path: Path, to: Path, *, merge: bool = False, best: bool = False) -> Path:
    """Write the policy of a run and return the folder.

    Args:
        run_path: of `textgym train`, `sft` or `dpo`.
        to: an empty folder, or one that is not there.
        merge: write the whole model where the policy is an adapter.
        best: the best checkpoint, not the newest.

    Raises:
        ConfigError: there is no checkpoint, the run is none of a language model, the folder is in
            use, or the adapter cannot be merged.
    """
    run = RunDirectory.open(run_path)
    checkpoint = find_checkpoint(run, best=best)
    policy = checkpoint / POLICY_FOLDER
    if not is_policy(policy):
        raise ConfigError(f"{run_path} is the run of an agent without a language model")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"--to {to} is in use; name a folder that is empty or not there yet")
    network = PolicyValueNetwork.load(policy)
    if merge and isinstance(network.config.mode, QloraMode):
        raise ConfigError(
            f"--merge: the base of {run_path} is in 4 bits, and an adapter merged into it would be "
            "rounded to them; export the adapter without --merge"
        )
    to.mkdir(parents=True, exist_ok=True)
    is_adapter = network.peft is not None and not merge
    if is_adapter:
        _save_adapter(network, run, to)
    else:
        _save_model(network, to)
    network.tokenizer.save_pretrained(to)
    card = make_card(run, checkpoint, name=to.resolve().name, is_adapter=is_adapter)
    (to / CARD).write_text(card, encoding="utf-8")
    return to


def _save_model(network: PolicyValueNetwork, to: Path) -> None:
    lm = network.lm if network.peft is None else network.peft.merge_and_unload()
    _suppress_illegal(network)
    lm.generation_config = network.lm.generation_config
    lm.save_pretrained(to)


def _save_adapter(network: PolicyValueNetwork, run: RunDirectory, to: Path) -> None:
    """Write the adapter, and its base beside it where that can be loaded from nowhere else."""
    base = network.base_path
    if base is None or Path(base).resolve().is_relative_to(run.path.resolve()):
        save_base(network, to / BASE_FOLDER)
    _suppress_illegal(network)
    network.peft.peft_config["default"].base_model_name_or_path = network.base_path
    network.peft.save_pretrained(to)
    network.lm.generation_config.save_pretrained(to)


def _suppress_illegal(network: PolicyValueNetwork) -> None:
    """Let generation suppress what the policy may not sample."""
    if network.illegal is not None:
        illegal = network.illegal.nonzero().squeeze(1).tolist()
        network.lm.generation_config.suppress_tokens = illegal
