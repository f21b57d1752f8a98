"""A language model as an answerer: any engine that the trainer can sample with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import JsonValue

from textgym.benchmark import Benchmark
from textgym.config import load_config, merge, read_yaml
from textgym_agents.evaluation.answerers import Answer, Question
from textgym_agents.evaluation.weights import weights_mark
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.checkpoint import find_checkpoint
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.engines.config import EngineConfig
from textgym_agents.lm.shapes import BUILT_IN
from textgym_agents.lm.texts import completion_text, encode
from textgym_agents.run.directory import RunDirectory

DEFAULT_MAX_LENGTH = 4096
ROWS, TOKENS = 256, 1 << 17
"""Most answers that are written side by side, and most tokens of them all."""
RENDERING = ("template", "system", "think_share")
BUILT_IN_TEMPLATE = "chatml"


class LanguageModel:
    """The policy of a run, a model folder, a hub id, or an embedded model; loaded when first asked.

    Args:
        model: `tiny`, `small`, a folder (of a model, or a run directory), or a hub id.
        engine: what samples; None is that of the run, or transformers.
        max_length: prompt and answer together, in tokens.
        device: `auto`, `cpu` or `cuda`.
        overrides: fields of the trainer's configuration by dotted name, such as `policy.precision`
            or `env.kwargs.template`.
    """

    def __init__(
        self,
        model: str,
        *,
        engine: EngineConfig | None = None,
        max_length: int | None = None,
        device: str = "auto",
        overrides: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self.model = model
        self.max_length = max_length or DEFAULT_MAX_LENGTH
        self._checkpoint = checkpoint_of(model)
        given: dict[str, JsonValue] = {"rollout": {"max_length": self.max_length}, "device": device}
        if engine is not None:
            given["engine"] = engine.model_dump(mode="json")
        self.config = _config(model, self._checkpoint, given, overrides or {})
        self._agent: PPOAgent | None = None

    @property
    def batch_size(self) -> int:
        """As many rows as have room side by side."""
        return max(1, min(ROWS, TOKENS // self.max_length))

    def describe(self) -> dict[str, JsonValue]:
        """Return the model with a mark of its weights, and how it is run."""
        return {
            "kind": "language_model",
            "model": self.model,
            "weights": weights_mark(self._checkpoint or Path(self.model)),
            "engine": self.config.engine.kind,
            "precision": self.config.policy.precision,
            "max_length": self.max_length,
        }

    def rendering(self, benchmark: Benchmark) -> Mapping[str, JsonValue]:
        """Return how a run's prompts were rendered, or the suite's or the model's own template."""
        kwargs = self.config.env.kwargs
        given = {name: kwargs[name] for name in RENDERING if name in kwargs}
        if "template" not in given:
            own = "plain" if self._checkpoint is not None else benchmark.template
            given["template"] = own or self._own_template()
        return given

    def _own_template(self) -> str:
        if self.model in BUILT_IN:
            return BUILT_IN_TEMPLATE
        has_one = bool(getattr(self._load().network.tokenizer, "chat_template", None))
        return f"tokenizer:{self.model}" if has_one else "plain"

    def answer(
        self, questions: Sequence[Question], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """Return what the engine samples; a prompt that leaves no room for an answer has none."""
        agent = self._load()
        ids = encode(agent.network, [question.text for question in questions])
        rooms = [min(max_new_tokens, self.max_length - len(each)) for each in ids]
        fits = [i for i, room in enumerate(rooms) if room > 0 and ids[i]]
        answers = [self._too_long(len(each)) for each in ids]
        if fits:
            generations = agent.engine.generate(
                [ids[i] for i in fits],
                max_new_tokens=[rooms[i] for i in fits],
                temperature=temperature,
                generator=torch.Generator(agent.network.device).manual_seed(seed),
            )
            for i, generation in zip(fits, generations, strict=True):
                answers[i] = Answer("", "abort", failure=generation.failure or "")
                if generation.failure is None:
                    text = completion_text(agent.network, generation)
                    answers[i] = Answer(text, generation.finish_reason, len(generation.token_ids))
        return answers

    def _too_long(self, num_tokens: int) -> Answer:
        what = f"the prompt has {num_tokens} tokens, and max_length is {self.max_length}"
        return Answer("", failure=what)

    def _load(self) -> PPOAgent:
        if self._agent is None:
            self._agent = build_agent(self.config, checkpoint=self._checkpoint)
        return self._agent

    def close(self) -> None:
        """Release the model."""
        if self._agent is not None:
            self._agent.engine.close()
            self._agent = None


def checkpoint_of(model: str) -> Path | None:
    """Return the newest checkpoint where a model is the directory of a run, else None.

    Raises:
        ConfigError: the run has none yet.
    """
    if not (Path(model) / "config.yaml").exists():
        return None
    return find_checkpoint(RunDirectory.open(Path(model)))


def _config(
    model: str,
    checkpoint: Path | None,
    given: Mapping[str, JsonValue],
    overrides: Mapping[str, JsonValue],
) -> TrainConfig:
    preset = dict(given)
    if checkpoint is None:
        preset["policy"] = {"model": model}
        file_config: dict[str, JsonValue] = {}
    else:
        file_config = _run_config(Path(model)).model_dump(mode="json")
    values = merge(file_config, preset)
    for name, value in overrides.items():
        values = merge(values, _nested(name, value))
    return load_config(TrainConfig, preset=values)


def _run_config(path: Path) -> TrainConfig:
    """Return the configuration of a run; of one of SFT or DPO, what PPO knows of it too."""
    values = read_yaml(path / "config.yaml")
    if RunDirectory(path).kind != "train":
        values = {name: values[name] for name in ("env", "policy") if name in values}
    return load_config(TrainConfig, preset=values)


def _nested(name: str, value: JsonValue) -> dict[str, JsonValue]:
    for part in reversed(name.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value
