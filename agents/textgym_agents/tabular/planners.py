"""Planning behind the face of an agent: it reads the environment's table, and learns nothing."""

from __future__ import annotations

from typing import TypeVar

from pydantic import Field, PositiveFloat, PositiveInt

from textgym_agents.agent import WHOLE, AgentConfig, OnMetrics, Part, check_count
from textgym_agents.env_source import EnvSource, opened
from textgym_agents.tabular.evaluation import action_values, expected_return
from textgym_agents.tabular.mdp import TabularMDP
from textgym_agents.tabular.optimality import bellman_residual
from textgym_agents.tabular.planning import (
    Solution,
    backward_blocks,
    backward_induction,
    policy_iteration,
    value_iteration,
)
from textgym_agents.tabular.sources import MAX_STATES, mdp_of
from textgym_agents.tabular.table_agent import TableAgent

PlannerConfigT = TypeVar("PlannerConfigT", bound="PlannerConfig")


class PlannerConfig(AgentConfig):
    """What the planners have in common."""

    gamma: float = Field(default=0.99, ge=0, le=1)
    """Discount per step."""
    max_states: PositiveInt = MAX_STATES
    """Give up on an environment with more states."""
    num_samples: PositiveInt = 1
    """Episodes by which chance is measured in an environment that draws and has no table."""


class ValueIterationConfig(PlannerConfig):
    """Value iteration."""

    tolerance: PositiveFloat = 1e-10
    """Largest error of the values (gamma < 1), or largest last change (gamma = 1)."""


class PolicyIterationConfig(PlannerConfig):
    """Policy iteration."""


class PlanningAgent(TableAgent[PlannerConfigT]):
    """Reads the process, solves it and acts by it; a subclass says how."""

    mdp: TabularMDP | None = None
    """The process of the last `learn`; it is not saved."""
    solution: Solution | None = None
    """Its solution; it is not saved."""

    def solve(self, mdp: TabularMDP) -> Solution:
        """Return the optimum."""
        raise NotImplementedError

    def learn(
        self,
        env: EnvSource,
        *,
        total_steps: int = 1,
        seed: int = 0,
        on_metrics: OnMetrics | None = None,
        part: Part = WHOLE,
    ) -> None:
        """Solve the environment; the budget is not used, for a planner takes no steps."""
        del part
        check_count("total_steps", total_steps)
        config = self.config
        with opened(env) as game:
            self.open_table(game, seed)
            self.mdp = mdp = mdp_of(
                game,
                gamma=config.gamma,
                max_states=config.max_states,
                num_samples=config.num_samples,
            )
        self.solution = solution = self.solve(mdp)
        keys = mdp.observations if mdp.observations is not None else range(mdp.num_states)
        q = action_values(mdp, solution.values)
        self.rows = dict(zip(keys, q.tolist(), strict=True))
        if on_metrics is not None:
            on_metrics(0, self._metrics(mdp, solution))

    def _metrics(self, mdp: TabularMDP, solution: Solution) -> dict[str, float]:
        return {
            "planning/optimum": expected_return(mdp, solution.values),
            "planning/residual": bellman_residual(mdp, solution.values),
            "planning/error_bound": solution.error_bound,
            "planning/num_sweeps": float(solution.num_sweeps),
            "planning/num_states": float(mdp.num_states),
        }


class ValueIterationAgent(PlanningAgent[ValueIterationConfig]):
    """Sweeps over all states; one backward pass where no state can occur twice."""

    name = "value_iteration"
    config_class = ValueIterationConfig

    def solve(self, mdp: TabularMDP) -> Solution:
        """Return the optimum by value iteration."""
        blocks = backward_blocks(mdp)
        if blocks is not None:
            return backward_induction(mdp, blocks)
        return value_iteration(mdp, tolerance=self.config.tolerance)


class PolicyIterationAgent(PlanningAgent[PolicyIterationConfig]):
    """Evaluates a policy exactly, improves it, and so on until it stays."""

    name = "policy_iteration"
    config_class = PolicyIterationConfig

    def solve(self, mdp: TabularMDP) -> Solution:
        """Return the optimum by policy iteration."""
        return policy_iteration(mdp)
