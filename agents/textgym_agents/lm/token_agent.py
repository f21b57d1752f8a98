"""`lm:ppo`: the trainer of language models behind the face of all agents.

It learns in the text mode of an exactly solvable environment, as any language model does, and acts
in its token mode, where every other agent plays: the environment tells what its ids are in text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from gymnasium.vector import VectorEnv
from pydantic import NonNegativeInt, PositiveInt, field_validator, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from textgym.config import merge
from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed, stream
from textgym_agents.agent import WHOLE, AgentConfig, OnMetrics, Part, check_count
from textgym_agents.agent_files import read_config, write_manifest
from textgym_agents.classic.agent import one_thread
from textgym_agents.classic.reports import Reports
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.optimizer_state import optimizer_tensors, restore_optimizer
from textgym_agents.env_source import EnvSource, spec_of
from textgym_agents.episode_statistics import EpisodeStatistics
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.checkpoint import OPTIMIZER_FILE
from textgym_agents.lm.collection import Collector
from textgym_agents.lm.config import EnvConfig, PolicyConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.exact import ExactTask, Floats, Ints, SymbolIds, action_probabilities
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.policy_files import POLICY_FOLDER, load_tokenizer
from textgym_agents.lm.presets import TOY
from textgym_agents.run.directory import STATE_FILE


class LanguageModelConfig(AgentConfig):
    """PPO on a language model; the defaults are those of the preset `toy`."""

    model: str = "tiny"
    """`tiny`, the folder of a Hugging Face causal language model, or a hub id; all of it learns."""
    num_episodes: PositiveInt = TOY["rollout"]["num_episodes"]
    """Episodes of a rollout."""
    ppo: PPOConfig = PPOConfig.model_validate(TOY["ppo"])
    """The algorithm; what is not given is the preset's."""

    @field_validator("ppo", mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        return merge(TOY["ppo"], given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ppo.batch_size > self.num_episodes:
            raise ValueError(
                f"ppo.batch_size ({self.ppo.batch_size}) is larger than num_episodes "
                f"({self.num_episodes}); lower the one or raise the other"
            )
        if self.ppo.kl_penalty.beta > 0:
            raise ValueError("ppo.kl_penalty.beta must be 0: this agent keeps no reference policy")
        if not self.ppo.has_critic:
            raise ValueError(
                f"ppo.estimator is {self.ppo.estimator.kind}; this agent is PPO with a critic (gae)"
            )
        return self


class LanguageModelState(AgentConfig):
    """What a saved agent knows besides its weights."""

    symbols: tuple[str, ...]
    """Of the environment's exact solution; those of actions come first."""
    num_actions: PositiveInt
    max_new_tokens: PositiveInt
    max_length: PositiveInt
    seed: NonNegativeInt
    num_steps: NonNegativeInt
    num_updates: NonNegativeInt


class LanguageModelAgent:
    """A language model in token mode; it is made when the first environment tells its symbols."""

    name: ClassVar[str] = "lm:ppo"

    def __init__(self, config: LanguageModelConfig | None = None) -> None:
        self.config = config or LanguageModelConfig()
        self.state: LanguageModelState | None = None
        self._ppo: PPOAgent | None = None

    def learn(
        self,
        env: EnvSource,
        *,
        total_steps: int,
        seed: int = 0,
        on_metrics: OnMetrics | None = None,
        part: Part = WHOLE,
    ) -> None:
        """Learn for a number of environment steps; a second call goes on where the first ended.

        Args:
            env: an environment, a spec, or an id; copies of it are made, in text mode, and closed.
            total_steps: tokens sampled. A rollout is not cut; the last one may exceed the budget.
            seed: of the copies, of sampling and of initial weights.
            on_metrics: told of progress now and then, and once at the end.
            part: where this call stands in a longer stretch of learning.

        Raises:
            ConfigError: a budget that is no positive integer, or an environment that has no exact
                solution, no text mode, or other symbols than those learnt with.
        """
        check_count("total_steps", total_steps)
        spec = spec_of(env)
        source = EnvConfig(id=spec.id, kwargs=spec.kwargs)
        with closing(make_envs(source, self.config.num_episodes)) as envs, one_thread():
            self._prepare(envs, seed)
            self._learn(envs, total_steps, on_metrics, part)

    def _prepare(self, envs: VectorEnv[Any, Any, Any], seed: int) -> None:
        """Make the model for the environment's symbols, or check that it is made for them."""
        made = self._ppo
        tokenizer = load_tokenizer(self.config.model) if made is None else made.network.tokenizer
        solution, symbols = task = ExactTask.of(envs, tokenizer)
        limits = task.limits()["rollout"]
        found = {"symbols": solution.symbols, "num_actions": solution.num_actions, **limits}
        if self.state is None:
            policy = PolicyConfig(model=self.config.model, legal_ids=symbols.actions)
            network = PolicyValueNetwork.from_config(policy, seed=derive_seed(seed, Purpose.MODEL))
            state = LanguageModelState(**found, seed=seed, num_steps=0, num_updates=0)
            self._build(state, network)
        elif found != self.state.model_dump(include=set(found)):
            raise ConfigError(
                f"{self.name} has learnt with {self.state.model_dump(include=set(found))}; it "
                f"cannot go on with {found}"
            )
        assert self._ppo is not None
        self._ppo.config = self._ppo.config.model_copy(update={"seed": seed})

    def _build(self, state: LanguageModelState, network: PolicyValueNetwork) -> None:
        self.state = state
        rollout = RolloutConfig(
            num_episodes=self.config.num_episodes,
            num_envs=self.config.num_episodes,
            max_new_tokens=state.max_new_tokens,
            max_length=state.max_length,
        )
        config = TrainConfig(policy=network.config, rollout=rollout, ppo=self.config.ppo)
        self._ppo = PPOAgent(network, config)
        self._symbols = SymbolIds(state.symbols, state.num_actions, network.tokenizer)
        self._rng = stream(state.seed, Purpose.EVALUATION)

    def _learn(
        self,
        envs: VectorEnv[Any, Any, Any],
        total_steps: int,
        on_metrics: OnMetrics | None,
        part: Part,
    ) -> None:
        assert self._ppo is not None
        assert self.state is not None
        statistics = EpisodeStatistics()
        whole = part.whole(total_steps)
        reports = Reports(on_metrics, statistics, whole)
        config = self._ppo.config
        collector = Collector(
            [envs], self._ppo.engine, self._ppo.network, config.rollout, seed=config.seed
        )
        while reports.num_steps < total_steps:
            index = self.state.num_updates
            rollout = collector.collect(index)
            progress = (part.before + reports.num_steps) / whole
            metrics = self._ppo.update(rollout, iteration=index, progress=progress)
            lengths = [sum(transcript.is_action) for transcript in rollout.transcripts]
            for transcript, length in zip(rollout.transcripts, lengths, strict=True):
                statistics.add(sum(transcript.rewards), length, transcript.info)
            counted = {"num_steps": self.state.num_steps + sum(lengths), "num_updates": index + 1}
            self.state = self.state.model_copy(update=counted)
            reports.add(sum(lengths), metrics)
        reports.finish()

    def act(self, observation: Any, *, deterministic: bool = True) -> int:
        """Return the action for one observation: the most probable one, or a sample."""
        probabilities = self.probabilities(np.asarray(observation)[None])[0]
        if deterministic:
            return int(probabilities.argmax())
        return int(self._rng.choice(len(probabilities), p=probabilities))

    def act_batch(self, observations: Ints) -> Ints:
        """Return the most probable actions (n,) of observations (n, length)."""
        actions: Ints = self.probabilities(observations).argmax(axis=1)
        return actions

    def probabilities(self, observations: Ints) -> Floats:
        """Return the probabilities (n, num_actions) of observations (n, length)."""
        if self._ppo is None:
            raise ConfigError(f"{self.name} has not learnt anything: call learn() or load() first")
        return action_probabilities(self._ppo.network, self._symbols, observations)

    def save(self, path: str | Path) -> None:
        """Write configuration, policy and optimiser into a folder.

        `policy/` in it is an ordinary Hugging Face folder.
        """
        if self._ppo is None or self.state is None:
            raise ConfigError(f"{self.name} has not learnt anything: there is nothing to save")
        folder = write_manifest(path, self.name, self.config)
        (folder / STATE_FILE).write_text(self.state.model_dump_json(indent=2) + "\n")
        with _quiet():
            self._ppo.save(folder / POLICY_FOLDER)
        save_file(optimizer_tensors(self._ppo.optimizer), folder / OPTIMIZER_FILE)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an agent that `save` wrote."""
        folder = Path(path)
        agent = cls(read_config(folder, cls.name, LanguageModelConfig))
        try:
            state = LanguageModelState.model_validate_json((folder / STATE_FILE).read_bytes())
            with _quiet():
                network = PolicyValueNetwork.load(folder / POLICY_FOLDER)
            agent._build(state, network)
            assert agent._ppo is not None
            restore_optimizer(agent._ppo.optimizer, load_file(folder / OPTIMIZER_FILE))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise ConfigError(f"{folder} holds no complete '{cls.name}' agent: {error}") from error
        return agent


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from showing bars of its own while it reads and writes models."""
    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()
