"""The environments that exist as soon as textgym is imported, as strings: nothing is loaded.

Gymnasium reads no entry points, so an id exists only after some import; `import textgym` (and with
it `gym.make("textgym:TextGen-v0")`) is that import. Environments of other distributions come
through the hook `textgym_environments` when plugins are loaded.
"""

from __future__ import annotations

import gymnasium
from gymnasium.envs.registration import EnvSpec
from pydantic import JsonValue


def _toy_text(env_id: str, **arguments: JsonValue) -> EnvSpec:
    return EnvSpec(
        env_id,
        entry_point="textgym_envs.toy_text:ToyTextEnv",
        vector_entry_point="textgym_envs.toy_text:ToyTextVectorEnv",
        kwargs=dict(arguments),
    )


ENVIRONMENTS = [
    EnvSpec(
        "TextGen-v0",
        entry_point="textgym_envs.textgen:TextGenEnv",
        vector_entry_point="textgym_envs.textgen_vector:TextGenVectorEnv",
    ),
    EnvSpec(
        "TextGenTools-v0",
        entry_point="textgym_envs.tools.env:ToolsEnv",
        vector_entry_point="textgym_envs.tools.vector:ToolsVectorEnv",
    ),
    EnvSpec(
        "QueryRewrite-v0",
        entry_point="textgym_envs.query_rewrite:QueryRewriteEnv",
        vector_entry_point="textgym_envs.query_rewrite:QueryRewriteVectorEnv",
    ),
    EnvSpec(
        "ToyTwoTurn-v0",
        entry_point="textgym_envs.toy_two_turn:ToyTwoTurnEnv",
        vector_entry_point="textgym_envs.toy_two_turn:ToyTwoTurnVectorEnv",
    ),
    EnvSpec("Gem-v0", entry_point="textgym_envs.gem_env:GemEnv"),
    _toy_text("ToyText-v0"),
    _toy_text("ToyTextSmall-v0", below=5, max_new_tokens=2),
    _toy_text("ToyTextNoisy-v0", noise=0.1),
    _toy_text("ToyTextDense-v0", dense=True),
]


def register_environments() -> None:
    """Put the first-party environments into Gymnasium's registry; a second call changes nothing."""
    for spec in ENVIRONMENTS:
        gymnasium.registry.setdefault(spec.id, spec)
