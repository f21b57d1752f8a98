"""PPO on a language model: act, update, learn, save, load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textgym.errors import PromptError
from textgym.sample import Completion
from textgym.seeding import Purpose, derive_seed
from textgym_agents.core.baselines import MovingBaseline
from textgym_agents.core.buffer import Batch
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.correction import Correction, NoCorrection, TokenTIS
from textgym_agents.core.estimators import compares_samples
from textgym_agents.core.guard import StepGuard
from textgym_agents.core.kl import HORIZON_SEQUENCES, AdaptiveKLController, EntropyFloor
from textgym_agents.core.masked import masked_mean
from textgym_agents.core.update import explained_variance, ppo_update
from textgym_agents.lm.behaviour import behaviour_policy
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.engine import GenerationEngine, TransformersEngine
from textgym_agents.lm.engines.errors import EngineError
from textgym_agents.lm.kv_cache import make_cache
from textgym_agents.lm.measure import evaluate_in_parts, states_in_parts
from textgym_agents.lm.network import ActionAndValue, PolicyValueNetwork, sample_ids
from textgym_agents.lm.optimizer import make_optimizer, set_learning_rate
from textgym_agents.lm.reference import RemoteReference
from textgym_agents.lm.samples import Samples, gather_samples
from textgym_agents.lm.texts import completion_text, encode
from textgym_agents.lm.token_records import keep_measures
from textgym_agents.lm.transcript import Rollout
from textgym_agents.processes import ONE, Processes


class PPOAgent:
    """A policy/value network, the engine that samples from it, and the optimiser that trains it.

    Args:
        network: the policy.
        config: of the run.
        engine: samples completions; from the network itself by default.
        processes: those of the run; each has an agent of its own, equal to the others.
    """

    def __init__(
        self,
        network: PolicyValueNetwork,
        config: TrainConfig,
        *,
        engine: GenerationEngine | None = None,
        processes: Processes = ONE,
    ) -> None:
        self.network = network
        self.config = config
        self.processes = processes
        self.engine = engine or TransformersEngine(network)
        network.temperature = config.rollout.temperature
        self.optimizer = self._make_optimizer()
        penalty = config.ppo.kl_penalty
        self.kl_controller = AdaptiveKLController(
            penalty.beta,
            penalty.target_nats_per_sequence,
            penalty.horizon_sequences or HORIZON_SEQUENCES,
        )
        self.entropy_floor = EntropyFloor()
        self.baseline = MovingBaseline()
        self.guard = StepGuard(config.ppo.optimizer.max_skipped_steps)
        self.reference: PolicyValueNetwork | None = None
        self._remote_reference = self._make_remote_reference()
        self._cached_ids: list[int] = []
        self._cache: Any = None

    def act(self, observation: str, *, generator: torch.Generator | None = None) -> Completion:
        """Return a completion of a rendered prompt; greedy without a generator."""
        rollout = self.config.rollout
        ids = encode(self.network, [observation])[0]
        if not 0 < len(ids) < rollout.max_length:
            raise PromptError(
                f"the observation has {len(ids)} tokens; it needs at least 1, and fewer than "
                f"rollout.max_length ({rollout.max_length})"
            )
        generation = self.engine.generate(
            [ids],
            max_new_tokens=[min(rollout.max_new_tokens, rollout.max_length - len(ids))],
            temperature=rollout.temperature if generator is not None else 0.0,
            generator=generator or torch.Generator(self.network.device),
        )[0]
        if generation.failure is not None:
            raise EngineError(generation.failure)
        text = completion_text(self.network, generation)
        return Completion(
            text, token_ids=generation.token_ids, finish_reason=generation.finish_reason
        )

    @torch.no_grad()
    def choose_action(
        self, input_ids: list[int], *, generator: torch.Generator | None = None
    ) -> ActionAndValue:
        """Return one token for the state `input_ids`; what was read before is kept in a cache.

        Args:
            input_ids: the whole sequence so far. While it extends the one of the call before, only
                the new ids are read.
            generator: of the sample.
        """
        known = len(self._cached_ids)
        if known == 0 or known >= len(input_ids) or input_ids[:known] != self._cached_ids:
            self._cache, known = make_cache(self.network.lm.config), 0
        ids = torch.tensor([input_ids[known:]], device=self.network.device)
        hidden = self.network.hidden_states(ids, past_key_values=self._cache)[:, -1]
        self._cached_ids = list(input_ids)
        action = sample_ids(self.network.next_logits(hidden), generator)
        scores = self.network.score_tokens(hidden, action)
        return ActionAndValue(
            action, scores.logprobs, scores.entropy, self.network.values_of(hidden)
        )

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.config.ppo.optimizer
        return make_optimizer(
            self.network,
            learning_rate=config.learning_rate,
            eps=config.eps,
            value_lr_mult=self.config.ppo.value.lr_mult,
            kind=config.kind,
        )

    @property
    def correction(self) -> Correction:
        """How the loss corrects for samples of another engine than the network itself."""
        if self.config.ppo.correction is not None:
            return self.config.ppo.correction
        is_network = isinstance(self.engine, TransformersEngine)
        return NoCorrection() if is_network else TokenTIS()

    def plan(self, num_sequences: int) -> None:
        """Take note of how many sequences the run is to train on: the KL's horizon is a tenth."""
        if self.config.ppo.kl_penalty.horizon_sequences is None:
            self.kl_controller.horizon_sequences = min(HORIZON_SEQUENCES, num_sequences / 10)

    def end_cold_start(self) -> None:
        """Bring the network into the configuration's mode of training, with a new optimiser."""
        self.network.base_path = None  # the base is no longer what it was loaded from
        self.network.set_mode(self.config.policy)
        self.network.to(self.network.device)
        self.optimizer = self._make_optimizer()

    def start_reference(self) -> None:
        """Freeze the current policy as the reference, if the configuration penalises KL to it."""
        is_elsewhere = self.network.peft is not None or self._remote_reference is not None
        needs_copy = self.config.ppo.kl_penalty.beta > 0 and not is_elsewhere
        self.reference = self.network.frozen_copy() if needs_copy else None

    def _make_remote_reference(self) -> RemoteReference | None:
        if self.config.reference.url is None:
            return None
        return RemoteReference(
            self.config.reference,
            illegal=self.network.illegal,
            temperature=self.network.temperature,
        )

    def update(
        self,
        rollout: Rollout,
        *,
        iteration: int,
        progress: float,
        on_step: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Do one update on a rollout and return its metrics.

        Args:
            rollout: failed episodes in it are left out; the same in every process.
            iteration: number of the update; it seeds the shuffling.
            progress: share of the run that is done, for the schedule of the learning rate.
            on_step: called after each minibatch.

        Raises:
            NotFiniteError: too many steps in a row were not finite.
        """
        self._cached_ids = []
        samples = gather_samples(rollout, self.config.ppo)
        if not len(samples.buffer):
            return {"ppo/skipped_updates": 1.0, **self.engine.sync(iteration + 1)}
        config = self._current_config()
        metrics = self._prepare(samples, config)
        rate = config.optimizer.learning_rate
        rate *= 1 - progress if config.optimizer.schedule == "linear" else 1.0
        is_warmup = config.has_critic and iteration < config.value.warmup_iterations
        set_learning_rate(self.optimizer, rate, freeze_policy=is_warmup)
        metrics |= ppo_update(
            self.network,
            self.optimizer,
            samples.buffer,
            config,
            generator=torch.Generator().manual_seed(
                derive_seed(self.config.seed, Purpose.SHUFFLING, iteration)
            ),
            max_new_tokens=self.config.rollout.max_new_tokens,
            device=self.network.device,
            on_step=on_step,
            guard=self.guard,
            processes=self.processes,
        )
        self.optimizer.zero_grad(set_to_none=True)  # no rollout has a use for them
        return {**metrics, "ppo/learning_rate": rate, **self.engine.sync(iteration + 1)}

    def _current_config(self) -> PPOConfig:
        """Return the constants of the next update, with the KL penalty as it stands."""
        config = self.config.ppo
        penalty = config.kl_penalty.model_copy(update={"beta": self.kl_controller.beta})
        return config.model_copy(update={"kl_penalty": penalty})

    @torch.no_grad()
    def _prepare(self, samples: Samples, config: PPOConfig) -> dict[str, float]:
        """Score the rollout under theta_old and the reference; fill in advantages and returns."""
        buffer, penalty = samples.buffer, config.kl_penalty
        if self.network.num_top:
            states = states_in_parts(
                self.network, buffer.batch, config.micro_batch_tokens, self.processes
            )
            buffer.keep_cut_states(states)
        batch = buffer.batch
        old, weights, metrics = behaviour_policy(
            self.network, buffer, config, self.correction, self.processes
        )
        reference = self._reference_logprobs(batch) if penalty.beta > 0 else None
        nats = None if reference is None or old is None else old.logprobs - reference
        off_tokens = None if nats is None else penalty.beta * nats
        buffer.record(
            old,
            kl_penalty=off_tokens if penalty.form == "k1_in_reward" else None,
            reference_logprobs=reference if penalty.form.endswith("in_loss") else None,
            engine_weights=weights,
        )
        per_sample = None
        if compares_samples(config.estimator):
            off_scores = None
            if off_tokens is not None and penalty.form == "k1_in_score":
                off_scores = off_tokens.sum(dim=1)
            per_sample = samples.advantages(config.estimator, self.baseline, penalty=off_scores)
        buffer.compute_returns_and_advantages(config, per_sample)
        if self.config.log_tokens:
            logged = samples.transcripts[: self.config.log_rollouts]
            keep_measures(logged, buffer.batch, nats, has_critic=config.has_critic)
        if nats is not None and old is not None:
            metrics |= self._kl_metrics(nats, batch.action_mask, old.entropy)
        return metrics | (value_metrics(buffer.batch) if config.has_critic else {})

    def _reference_logprobs(self, batch: Batch) -> Tensor:
        remote = self._remote_reference
        if remote is not None:
            return self.processes.from_main(lambda: remote.logprobs(batch))
        limit = self.config.ppo.micro_batch_tokens
        if self.reference is not None:
            return evaluate_in_parts(self.reference, batch, limit, self.processes).logprobs
        with self.network.reference():
            return evaluate_in_parts(self.network, batch, limit, self.processes).logprobs

    def _kl_metrics(self, nats: Tensor, mask: Tensor, entropy: Tensor) -> dict[str, float]:
        """Return the distance to the reference, and let the controller follow it."""
        per_sequence = float(torch.where(mask, nats, 0.0).sum() / len(mask))
        metrics = {
            "kl/reference_nats_per_sequence": per_sequence,
            "kl/reference_nats_per_token": float(masked_mean(nats, mask)),
            "kl/beta": self.kl_controller.beta,
        }
        scale = 1.0
        if self.config.ppo.kl_penalty.entropy_floor:
            scale = self.entropy_floor.target_scale(float(masked_mean(entropy, mask)))
            metrics["kl/target_scale"] = scale
        if self.config.ppo.kl_penalty.adaptive:
            self.kl_controller.update(per_sequence, len(mask), target_scale=scale)
        return metrics

    def learn(self, run_path: str | Path, **kwargs: Any) -> Path:
        """Train as the configuration says and return the run directory; see `trainer.learn`."""
        from textgym_agents.lm.trainer import learn

        return learn(self, Path(run_path), **kwargs)

    def save(self, path: str | Path) -> None:
        """Write the policy as a Hugging Face folder; training state is a checkpoint's business."""
        self.network.save(path)

    @classmethod
    def load(cls, path: str | Path, config: TrainConfig | None = None) -> PPOAgent:
        """Load a policy that `save` wrote."""
        return cls(PolicyValueNetwork.load(path), config or TrainConfig())


def value_metrics(batch: Batch) -> dict[str, float]:
    """Return how the value head stood to the returns of a rollout, under theta_old."""
    values, returns, mask = batch.values, batch.returns, batch.action_mask
    return {
        "ppo/value": float(masked_mean(values, mask)),
        "ppo/return": float(masked_mean(returns, mask)),
        "ppo/explained_variance": explained_variance(values, returns, mask),
    }
