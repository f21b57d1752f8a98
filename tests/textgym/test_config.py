from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from textgym import ConfigError
from textgym.config import dump_config, load_config, merge, parse_override


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PPO(Frozen):
    clip_range: float = Field(default=0.2, gt=0, le=1)
    learning_rate: float = 1e-5


class Gae(Frozen):
    kind: Literal["gae"] = "gae"
    lam: float = 0.95


class Grpo(Frozen):
    kind: Literal["grpo"] = "grpo"
    group_size: int = 4


class Config(Frozen):
    name: str = "run"
    seed: int | None = None
    ppo: PPO = PPO()
    estimator: Annotated[Gae | Grpo, Field(discriminator="kind")] = Gae()
    stages: tuple[PPO, ...] = ()
    by_name: dict[str, PPO] = {}
    notes: dict[str, str | float | bool | None] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.seed == 13:
            raise ValueError(f"seed=13 does not go with name='{self.name}'")
        return self


def load(tmp_path: Path, text: str, *overrides: str, **preset: Any) -> Config:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    return load_config(Config, path=path, preset=preset, overrides=overrides)


def error_of(tmp_path: Path, text: str, *overrides: str, **preset: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides, **preset)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_load_config_file_beats_preset_and_override_beats_file(tmp_path: Path) -> None:
    preset = {"name": "preset", "seed": 1, "ppo": {"clip_range": 0.5, "learning_rate": 0.1}}
    text = "seed: 2\nppo: {learning_rate: 0.2}"
    config = load(tmp_path, text, "ppo.learning_rate=3e-4", **preset)
    assert (config.name, config.seed) == ("preset", 2)
    assert config.ppo == PPO(clip_range=0.5, learning_rate=3e-4)


def test_load_config_without_anything_is_the_default() -> None:
    assert load_config(Config) == Config()


def test_load_config_later_override_wins() -> None:
    assert load_config(Config, overrides=["seed=1", "seed=2"]).seed == 2


def test_load_config_does_not_change_the_preset() -> None:
    preset = {"ppo": {"clip_range": 0.5}}
    load_config(Config, preset=preset, overrides=["ppo.clip_range=0.1"])
    assert preset == {"ppo": {"clip_range": 0.5}}


def test_load_config_other_kind_drops_the_fields_of_the_first(tmp_path: Path) -> None:
    preset = {"estimator": {"kind": "gae", "lam": 0.5}}
    assert load(tmp_path, "estimator: {kind: grpo}", **preset).estimator == Grpo()
    assert load(tmp_path, "estimator: {kind: gae}", **preset).estimator == Gae(lam=0.5)
    assert load(tmp_path, "", "estimator.kind=grpo", **preset).estimator == Grpo()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ppo: {clip_rnage: 0.1}",
            "train.yaml: no field 'ppo.clip_rnage'. Did you mean 'ppo.clip_range'? "
            "'ppo' has the fields clip_range, learning_rate.",
        ),
        ("clip_range: 0.1", "no field 'clip_range'. Did you mean 'ppo.clip_range'?"),
        ("nmae: x", "no field 'nmae'. Did you mean 'name'? The fields are name, seed, ppo,"),
        ("zzzzzz: x", "train.yaml: no field 'zzzzzz'. The fields are name,"),
        ("estimator: {kind: grpo, lam: 1}", "'estimator' has the fields kind, group_size."),
        ("estimator: {kind: gea}", "'estimator' is {'kind': 'gea'}: Input tag 'gea'"),
        ("stages: [{lr: 1}, {}]", "no field 'stages.0.lr'."),
        ("by_name: {a: {clip_rang: 1}}", "Did you mean 'by_name.a.clip_range'?"),
        ("ppo: {clip_range: 2}", "train.yaml: 'ppo.clip_range' is 2: Input should be less than"),
        ("ppo: {clip_range: much}", "'ppo.clip_range' is 'much': Input should be a valid number"),
        ("ppo: 3", "'ppo' is 3: "),
        ("name: 3", "'name' is 3: Input should be a valid string"),
        ("seed: 13", "train.yaml: seed=13 does not go with name='run'"),
        ("- 1", "train.yaml: expected `field: value` lines, got [1]"),
        ("ppo: {a: [1}", "train.yaml, line 1, column 12: expected ',' or ']'"),
        ("name: a\nname: b", "train.yaml, line 2, column 1: the key 'name' occurs twice"),
        ("ppo:\n  on: 1", "train.yaml, line 2, column 3: the key True is not text"),
        ("name: \x00", "train.yaml: unacceptable character"),
        ("name: !!python/name:os.system", "could not determine a constructor"),
        ("name: " + "[" * 10_000, "train.yaml"),
    ],
)
def test_load_config_error_names_file_field_and_fix(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in error_of(tmp_path, text)


def test_load_config_reports_every_mistake_with_its_origin(tmp_path: Path) -> None:
    lines = error_of(tmp_path, "seed: x", "nmae=1", "ppo.clip_range=0", by_name=3).splitlines()
    assert len(lines) == 4
    assert {line.partition(": ")[0] for line in lines} == {
        "train.yaml", "--set nmae=1", "--set ppo.clip_range=0", "preset",
    }  # fmt: skip


def test_load_config_blames_nobody_for_a_rule_across_several(tmp_path: Path) -> None:
    message = error_of(tmp_path, "name: x", "seed=13")
    assert message == "seed=13 does not go with name='x'"


def test_load_config_names_a_missing_field() -> None:
    class Needy(Frozen):
        model: str

    with pytest.raises(ConfigError, match="the field 'model' is missing"):
        load_config(Needy)


def test_load_config_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read: No such file"):
        load_config(Config, path=tmp_path / "no.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml: byte 6 is not UTF-8"):
        load_config(Config, path=tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("-2.5e+3", -2500.0), (".5", 0.5), ("1_000.5", 1000.5),
        (".inf", float("inf")), ("1.2.3", "1.2.3"), ("e5", "e5"), ("12", 12), ("2024-01-01",
        "2024-01-01"), ("", None), ("a=b", "a=b"), ("[1, x]", [1, "x"]), ("true", True),
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
    ],
)  # fmt: skip
def test_parse_override_reads_yaml_values(text: str, value: object) -> None:
    parsed = parse_override(f"a.b={text}")
    assert parsed == {"a": {"b": value}}
    assert type(parsed["a"]["b"]) is type(value)


@pytest.mark.parametrize("override", ["ppo", "=1", "a..b=1", ".a=1", "", "a=[1"])
def test_parse_override_malformed(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_override(override)


def test_merge_replaces_lists_and_keeps_the_rest() -> None:
    assert merge({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": {"d": 2}}) == {
        "a": [3],
        "b": {"c": 1, "d": 2},
    }


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    rate=st.floats(allow_nan=False),
    notes=st.dictionaries(
        st.text(max_size=8),
        st.one_of(
            st.none(),
            st.booleans(),
            st.floats(allow_nan=False),
            st.text(max_size=8),
            st.sampled_from(["1e5", "1e-5", "null", "yes", "1:30", "0x1", "2024-01-01", "~", ".5"]),
        ),
        max_size=4,
    ),
)
def test_dump_config_loads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, name: str, rate: float, notes: dict[str, Any]
) -> None:
    config = Config(
        name=name, ppo=PPO(learning_rate=rate), estimator=Grpo(), stages=(PPO(),), notes=notes
    )
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    loaded = load_config(Config, path=path)
    assert loaded == config
    assert {k: type(v) for k, v in loaded.notes.items()} == {
        k: type(v) for k, v in config.notes.items()
    }
