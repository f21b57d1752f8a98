"""The score cache: it saves time, is never wrong, and is never in the way."""

from __future__ import annotations

import json
import math
import os
import pickle
import sqlite3
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import textgym
from textgym import Message, Prompt, Sample, Score, ScoreCache, Scorer, make_reward
from textgym.cli.main import main
from textgym.plugins import plugin_manager
from textgym.score_cache import _decode, _encode
from textgym.score_keys import _source_digest, reward_scope, sample_key

Install = Callable[..., None]

COUNTING = """
    from typing import ClassVar
    import textgym

    CALLS = []

    class Counting(textgym.Reward):
        name: ClassVar[str] = "counting"
        isolation: ClassVar[str] = "inline"
        weight: float = 1.0

        def score(self, sample):
            CALLS.append(sample.completion)
            match sample.completion:
                case "raise":
                    raise ValueError("no")
                case "abstain":
                    return textgym.Score.unscored("cannot tell", extracted="x")
            value = min(1.0, self.weight * len(sample.completion) / 100)
            return textgym.Score(value, label="long", reason="it is", extracted=sample.completion)

    class Chance(Counting):
        name: ClassVar[str] = "chance"
        deterministic: ClassVar[bool] = False

    @textgym.hookimpl
    def textgym_rewards():
        return [Counting, Chance]
"""
SAMPLE = Sample(Prompt(id="1", messages="q", target="t"), "answer")


def samples(*completions: str) -> list[Sample]:
    return [replace(SAMPLE, completion=completion) for completion in completions]


@pytest.fixture
def calls(install: Install) -> list[str]:
    """The completions that the reward `counting` was asked about."""
    install("textgym-counting", COUNTING)
    make_reward("counting")
    calls: list[str] = sys.modules["textgym_counting"].CALLS
    _source_digest.cache_clear()
    return calls


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.sqlite"


@pytest.fixture
def scorer(calls: list[str], path: Path) -> Iterator[Scorer]:
    with Scorer("counting", cache=path) as scorer:
        yield scorer


def without_time(score: Score) -> Score:
    parts = {name: without_time(part) for name, part in score.parts.items()}
    return replace(score, seconds=0.0, parts=parts)


def test_equal_samples_are_scored_once_and_come_back_as_they_were(
    scorer: Scorer, calls: list[str], path: Path
) -> None:
    batch = samples("one", "three", "one two " * 1000)
    first = scorer.score_batch(batch)
    again = scorer.score_batch(batch[::-1])[::-1]
    assert len(calls) == 3
    assert list(map(without_time, again)) == list(map(without_time, first))
    assert [score.extracted for score in again] == [sample.completion for sample in batch]
    assert scorer.cache is not None
    assert scorer.cache.counts == {"hits": 3, "misses": 3}


def test_half_a_character_is_scored_but_not_kept(scorer: Scorer, calls: list[str]) -> None:
    for _ in range(2):
        (score,) = scorer.score_batch(samples("\ud800"))
        assert (score.value, score.extracted) == (0.01, "\ud800")
    assert len(calls) == 2  # JSON cannot hold the score that quotes it


def test_scores_outlive_the_process_that_made_them(scorer: Scorer, path: Path) -> None:
    (score,) = scorer.score_batch(samples("one"))
    scorer.close()
    calls = sys.modules["textgym_counting"].CALLS
    calls.clear()
    with Scorer("counting", cache=ScoreCache(path)) as other:
        (kept,) = other.score_batch(samples("one"))
        assert without_time(kept) == without_time(score)
        assert other.cache is not None
        assert other.cache.counts == {"hits": 1, "misses": 0}
    assert calls == []


@pytest.mark.parametrize(
    "other",
    [
        replace(SAMPLE, completion="answer "),
        replace(SAMPLE, finish_reason="length"),
        replace(SAMPLE, token_ids=()),
        replace(SAMPLE, token_ids=(1,)),
        replace(SAMPLE, turns=(Message(role="tool", content="a"),)),
        replace(SAMPLE, prompt=Prompt(id="2", messages="q", target="t")),
        replace(SAMPLE, prompt=Prompt(id="1", messages="q ", target="t")),
        replace(SAMPLE, prompt=Prompt(id="1", messages="q", target=["t"])),
        replace(SAMPLE, prompt=Prompt(id="1", messages="q", target=None)),
        replace(SAMPLE, prompt=Prompt(id="1", messages="q", target=math.nan)),
        replace(SAMPLE, prompt=Prompt(id="1", messages="q", target="t", reward="math")),
        replace(SAMPLE, prompt=Prompt(id="1", messages="q", target="t", passages=("p",))),
        replace(SAMPLE, prompt=Prompt(id="1", messages="q", target="t", answerable=False)),
        replace(SAMPLE, prompt=Prompt(id="1", messages="q", target="t", metadata={"k": 1})),
    ],
)
def test_whatever_a_reward_can_read_is_in_the_key(scorer: Scorer, other: Sample) -> None:
    assert sample_key(b"", SAMPLE) != sample_key(b"", other)
    assert sample_key(b"", SAMPLE) == sample_key(b"", replace(SAMPLE))
    scorer.score_batch([SAMPLE, other])
    assert scorer.cache is not None
    assert scorer.cache.counts["misses"] == 2


def test_targets_that_json_confuses_have_keys_of_their_own() -> None:
    targets: list[Any] = [None, math.nan, math.inf, "null", "NaN", 1, 1.5, True, "1", [None], []]
    keys = {
        sample_key(b"", replace(SAMPLE, prompt=Prompt(id="1", messages="q", target=target)))
        for target in targets
    }
    assert len(keys) == len(targets)


def test_parts_do_not_run_into_each_other() -> None:
    prompt = SAMPLE.prompt
    one = Sample(prompt, "a", None, "stop")
    other = Sample(prompt, "astop", None, "stop")
    assert sample_key(b"", one) != sample_key(b"", other)
    assert sample_key(b"s", one) != sample_key(b"", Sample(prompt, "sa"))


def test_configuration_version_and_source_are_in_the_scope(
    calls: list[str], install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = {
        reward_scope(make_reward("counting")),
        reward_scope(make_reward("counting", weight=2)),
    }
    manager = plugin_manager()
    found = manager.rewards["counting"]
    later = replace(found, plugin=replace(found.plugin, version="0.2.0"))
    monkeypatch.setitem(manager.rewards, "counting", later)
    scopes.add(reward_scope(make_reward("counting")))
    source = Path(str(sys.modules["textgym_counting"].__file__))
    source.write_text(source.read_text() + "\n# the same, said otherwise\n")
    _source_digest.cache_clear()
    scopes.add(reward_scope(make_reward("counting")))
    assert None not in scopes
    assert len(scopes) == 4


def test_failures_are_asked_again_and_abstentions_are_kept(
    scorer: Scorer, calls: list[str]
) -> None:
    batch = samples("raise", "abstain")
    first = scorer.score_batch(batch)
    again = scorer.score_batch(batch)
    assert calls == ["raise", "abstain", "raise"]
    assert [score.status for score in again] == ["failed", "abstained"]
    assert math.isnan(again[1].value)
    assert (again[1].reason, again[1].extracted) == (first[1].reason, first[1].extracted)


def test_rewards_without_determinism_or_version_are_bypassed(calls: list[str], path: Path) -> None:
    class Local(textgym.Reward):
        name = "local"
        isolation = "inline"

        def score(self, sample: Sample) -> Score:
            calls.append("local")
            return Score(1.0)

    for reward in (make_reward("chance"), Local(), make_reward(lambda sample: 1.0)):
        assert reward_scope(reward) is None
    with Scorer(["chance", Local()], cache=path) as scorer:
        scorer.score_batch([SAMPLE])
        scorer.score_batch([SAMPLE])
        assert scorer.cache is not None
        assert scorer.cache.counts == {"bypassed": 4}
    assert len(calls) == 4
    assert not path.exists()


def test_rubric_keeps_its_components_and_gates(calls: list[str], path: Path) -> None:
    rubric = [
        {"reward": "counting", "name": "gate", "gate": {"threshold": 0.05}},
        {"reward": "counting", "name": "twice", "config": {"weight": 2}},
    ]
    batch = samples("four", "fifteen letters")
    with Scorer(rubric, cache=path) as cached, Scorer(rubric) as plain:
        first, again, fresh = (s.score_batch(batch) for s in (cached, cached, plain))
        assert cached.cache is not None
        assert cached.cache.counts == {"misses": 3, "hits": 3}
    assert list(map(without_time, again)) == list(map(without_time, first))
    assert list(map(without_time, again)) == list(map(without_time, fresh))
    assert (set(again[0].parts), set(again[1].parts)) == ({"gate"}, {"gate", "twice"})


def scored(path: Path, *completions: str) -> tuple[list[float], list[str]]:
    """Return the values with a cache at a path, and the warnings; twice, as warnings come once."""
    with warnings.catch_warnings(record=True) as caught, Scorer("counting", cache=path) as scorer:
        warnings.simplefilter("always")
        for _ in range(2):
            values = [score.value for score in scorer.score_batch(samples(*completions))]
    return values, [str(warning.message) for warning in caught]


def test_file_that_is_no_database_is_reported_once_and_left_alone(
    calls: list[str], path: Path
) -> None:
    path.write_bytes(b"my thesis, the only copy " * 100)
    values, reports = scored(path, "one")
    assert values == [0.03]
    (report,) = reports
    assert report.startswith(f"the score cache {path} cannot be read: file is not a database")
    assert path.read_bytes() == b"my thesis, the only copy " * 100


def test_database_of_another_program_is_left_alone(calls: list[str], path: Path) -> None:
    other = sqlite3.connect(path)
    with other:
        other.execute("CREATE TABLE scores (key BLOB, score BLOB)")
    other.close()
    before = path.read_bytes()
    values, (report,) = scored(path, "one")
    assert values == [0.03]
    assert "it is a database of another program" in report
    assert path.read_bytes() == before


def test_folder_that_is_not_there_is_reported_once(calls: list[str], tmp_path: Path) -> None:
    values, (report,) = scored(tmp_path / "none" / "scores.sqlite", "one")
    assert values == [0.03]
    assert "cannot be read: unable to open database file; scoring goes on without it" in report


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_damaged_file_never_gives_a_wrong_score(calls: list[str], path: Path, where: float) -> None:
    completions = [f"{i} {'x' * i}" for i in range(80)]
    expected = [min(1.0, len(text) / 100) for text in completions]
    with Scorer("counting", cache=path) as scorer:
        scorer.score_batch(samples(*completions))
    content = bytearray(path.read_bytes())
    start = max(100, int(len(content) * where))  # past the header, whose loss is another test
    for i in range(start, min(len(content), start + 3000), 7):
        content[i] ^= 0x55
    path.write_bytes(content)
    values, reports = scored(path, *completions)
    assert values == expected
    assert len(reports) <= 1


def test_damaged_row_is_a_miss(scorer: Scorer, calls: list[str], path: Path) -> None:
    scorer.score_batch(samples("one"))
    scorer.close()
    database = sqlite3.connect(path)
    with database:
        ((row,),) = database.execute("SELECT score FROM scores").fetchall()
        assert b'"value":0.03' in row
        database.execute("UPDATE scores SET score = ?", (row.replace(b"0.03", b"0.93"),))
    database.close()
    (score,) = scorer.score_batch(samples("one"))
    assert score.value == 0.03
    assert len(calls) == 2


def test_full_file_is_read_and_no_longer_written(calls: list[str], path: Path) -> None:
    with Scorer("counting", cache=path) as scorer:
        scorer.score_batch(samples("one"))
    cache = ScoreCache(path, max_bytes=1)
    with warnings.catch_warnings(record=True) as caught, Scorer("counting", cache=cache) as scorer:
        warnings.simplefilter("always")
        for _ in range(3):
            scorer.score_batch(samples("one", *(f"{i}" * 200 for i in range(100))))
    (report,) = caught
    assert "cannot be written: database or disk is full" in str(report.message)
    assert cache.counts == {"hits": 3, "misses": 300}


def test_busy_file_costs_a_wait_and_nothing_else(
    calls: list[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textgym.score_file.BUSY_SECONDS", 0.1)
    with Scorer("counting", cache=path) as scorer, warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.score_batch(samples("one"))
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert [s.value for s in scorer.score_batch(samples("one", "four"))] == [0.03, 0.04]
        holder.execute("ROLLBACK")
        holder.close()
        scorer.score_batch(samples("four"))
        assert scorer.cache is not None
        scorer.score_batch(samples("four"))
        assert scorer.cache.counts == {"hits": 2, "misses": 3}


def test_cache_and_scorer_travel_without_their_connection(scorer: Scorer, calls: list[str]) -> None:
    scorer.score_batch(samples("one"))
    with pickle.loads(pickle.dumps(scorer)) as copy:
        copy.score_batch(samples("one"))
        assert copy.cache.counts == {"hits": 1, "misses": 0}


def test_forked_child_opens_the_file_itself(scorer: Scorer, calls: list[str]) -> None:
    scorer.score_batch(samples("one"))
    pid = os.fork()
    if pid == 0:
        scorer.score_batch(samples("one", "child"))
        assert scorer.cache is not None
        os._exit(0 if scorer.cache.counts["hits"] == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    scorer.score_batch(samples("child"))
    assert scorer.cache is not None
    assert scorer.cache.counts == {"hits": 1, "misses": 1}


PROCESS = """
    import sys, json
    from textgym import Prompt, Sample, Scorer
    path, seed = sys.argv[1], int(sys.argv[2])
    with Scorer("math", cache=path) as scorer:
        for start in range(0, 200, 10):
            batch = [
                Sample(Prompt(id=str(n), messages="q", target=str(n)), str(n + n % 2))
                for n in (i % 40 for i in range(start + seed, start + seed + 10))
            ]
            values = [score.value for score in scorer.score_batch(batch)]
            assert values == [float(s.completion == s.prompt.target) for s in batch], values
        print(json.dumps(scorer.cache.counts))
"""


def test_processes_share_one_file(path: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(PROCESS),
             str(path), str(seed)],
            stdout=subprocess.PIPE, text=True,
        )
        for seed in range(4)
    ]  # fmt: skip
    counts = []
    for process in running:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        counts.append(json.loads(out))
    assert all(each["hits"] + each["misses"] == 200 for each in counts)
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("SELECT count(*) FROM scores").fetchone() == (40,)
    database.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    label=st.none() | st.text(),
    reason=st.text(),
    extracted=st.none() | st.text(),
)
def test_score_comes_back_exactly_or_is_not_kept(
    value: float, label: str | None, reason: str, extracted: str | None
) -> None:
    part = Score(value, label=label)
    score = Score(value, "scored", label, reason, extracted, parts={"part": part})
    row = _encode(b"key", score)
    assert row is not None
    assert _decode(b"key", row) == score
    assert _decode(b"other", row) is None


@pytest.mark.parametrize(
    "score",
    [
        Score.failed("timeout", "too long"),
        Score(1.0, label=3),  # type: ignore[arg-type]  # what a plugin may return all the same
        Score(1.0, reason="\ud800"),
        Score(1.0, parts={"odd": Score(math.nan, "abstained")}),
        Score(1.0, parts={"odd": object()}),  # type: ignore[dict-item]
    ],
)
def test_score_that_json_cannot_hold_is_not_kept(score: Score) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _encode(b"key", score) is None


def test_command_reports_hits_and_misses(
    calls: list[str], path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "completions.jsonl"
    file.write_text(
        "".join(json.dumps({"question": "q", "answer": "t", "completion": c}) + "\n" for c in "abc")
    )
    arguments = ["score", str(file), "--reward", "counting", "--cache", str(path)]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == {"hits": 0, "misses": 3}
    assert main(arguments) == 0
    assert "3 hits, 0 misses, 0 bypassed" in capsys.readouterr().out
    assert main([*arguments[:-2], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] is None


def test_environment_keeps_scores(calls: list[str], path: Path) -> None:
    import gymnasium

    for _ in range(2):
        env = gymnasium.make(
            "textgym:TextGen-v0", action_mode="text", reward="counting", score_cache=str(path)
        )
        env.reset(seed=0)
        assert env.step("twelve chars")[1] == 0.12
        env.close()
    assert calls == ["twelve chars"]
