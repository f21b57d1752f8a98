"""Methods and budgets on one set of prompts: what each answers, and at what price."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from textgym.errors import ConfigError
from textgym.prompt import Prompt
from textgym.seeding import Purpose, derive_seed
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import EnvConfig
from textgym_agents.lm.evaluation import make_held_out
from textgym_agents.lm.planning.answers import Answer
from textgym_agents.lm.planning.config import SearchConfig
from textgym_agents.lm.planning.solve import solve
from textgym_agents.lm.planning.worth import Judge, RewardWorth, ValueWorth, Verdict, WorthSource
from textgym_agents.lm.texts import encode
from textgym_agents.run.progress import Progress, SilentProgress

PROMPTS_AT_ONCE = 64
"""Prompts whose keys and values are kept side by side."""


class Problem(NamedTuple):
    """A prompt to plan for."""

    number: int
    """Of the prompt in the environment."""
    text: str
    """As the environment renders it."""
    ids: list[int]
    room: int
    """Most tokens of its completion."""
    task: Prompt
    """What the rewards know of it."""


class Result(NamedTuple):
    """What one method made of one prompt."""

    problem: Problem
    answer: Answer
    num_tokens: int
    """Tokens that the network read, those of the prompt included."""
    verdict: Verdict
    """What the environment says of the answer."""


class Experiment:
    """A policy, its prompts, and what judges completions.

    Args:
        agent: policy and value head; its configuration says environment, limits and discount.
        terminals: `value` lets the value head say what a finished completion is worth, `reward` the
            environment's own reward; anything else is another reward or rubric that does.

    Raises:
        ConfigError: the environment has no numbered prompts, or no prompt leaves room for a
            completion.
    """

    def __init__(self, agent: PPOAgent, *, terminals: Any = "value") -> None:
        self.agent, self.terminals = agent, terminals
        self.gamma = agent.config.ppo.gamma
        self._seed = derive_seed(agent.config.seed, Purpose.EVALUATION, 0)
        self.num_left_out = 0
        """Prompts that leave no room for a completion."""
        self.optimum: float | None = None
        """The value of the best policy, where the environment knows it."""
        self.problems, self._arguments = self._read_problems()
        self._verifier = self._judge(agent.config.env)
        self._search_judge = self._verifier
        if terminals not in ("value", "reward"):
            env = agent.config.env.model_copy(update={"reward": terminals})
            self._search_judge = self._judge(env)

    def _read_problems(self) -> tuple[list[Problem], Mapping[str, str]]:
        config, network = self.agent.config, self.agent.network
        held_out = make_held_out(self.agent)
        try:
            if held_out.options is None or not hasattr(held_out.envs.unwrapped, "current_prompts"):
                raise ConfigError(
                    f"env.id: the prompts of {config.env.id} have no numbers; planning needs to "
                    "come back to a prompt"
                )
            texts, _ = held_out.envs.reset(seed=self._seed, options=held_out.options)
            tasks = held_out.envs.unwrapped.current_prompts
            if held_out.exact is not None:
                self.optimum = held_out.exact.solution.optimal_value
        finally:
            held_out.envs.close()
        problems = []
        indices = held_out.options["prompt_index"]
        ids = encode(network, list(texts))
        for index, text, each, task in zip(indices, texts, ids, tasks, strict=True):
            room = min(config.rollout.max_new_tokens, config.rollout.max_length - len(each))
            if each and room > 0:
                problems.append(Problem(index, str(text), each, room, task))
        self.num_left_out = len(ids) - len(problems)
        if not problems:
            raise ConfigError(
                f"no prompt has fewer tokens than rollout.max_length ({config.rollout.max_length})"
            )
        return problems, held_out.arguments

    def _judge(self, env: EnvConfig) -> Judge:
        indices = [problem.number for problem in self.problems]
        return Judge(env, self.agent.network, seed=self._seed, indices=indices, **self._arguments)

    def run(
        self, config: SearchConfig, *, seed: int = 0, progress: Progress | None = None
    ) -> list[Result]:
        """Return what a method answers to every prompt.

        Args:
            config: of the method.
            seed: of its samples.
            progress: is told of each batch of prompts.
        """
        progress = progress or SilentProgress()
        progress.start_phase(f"{config.kind} {config.budget}", len(self.problems))
        results: list[Result] = []
        for start in range(0, len(self.problems), PROMPTS_AT_ONCE):
            began = time.perf_counter()
            part = range(start, min(start + PROMPTS_AT_ONCE, len(self.problems)))
            new = list(self._solve(part, config, seed))
            results += new
            num_tokens = sum(result.num_tokens for result in new)
            speed = num_tokens / (time.perf_counter() - began)
            progress.advance({}, speed, num_steps=len(part))
        return results

    def _solve(self, part: range, config: SearchConfig, seed: int) -> Iterator[Result]:
        problems = [self.problems[i] for i in part]
        judge: WorthSource = ValueWorth()
        if self.terminals != "value":
            judge = RewardWorth(self._search_judge, first=part.start)
        solved = solve(
            self.agent.network,
            [problem.ids for problem in problems],
            judge,
            config,
            max_new_tokens=[problem.room for problem in problems],
            gamma=self.gamma,
            seed=seed,
            prompt_numbers=[problem.number for problem in problems],
        )
        finished = [each.answer.finished for each in solved]
        verdicts = self._verifier(
            [(i, f.ids, f.finish_reason) for i, f in zip(part, finished, strict=True)]
        )
        for problem, each, verdict in zip(problems, solved, verdicts, strict=True):
            yield Result(problem, each.answer, each.num_tokens, verdict)

    def close(self) -> None:
        """Give up the environments."""
        self._verifier.close()
        self._search_judge.close()
