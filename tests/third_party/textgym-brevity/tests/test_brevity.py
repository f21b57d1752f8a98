"""What the author of a reward writes: the contract, and one value derived by hand."""

from textgym_brevity import Brevity

from textgym import Prompt, Sample
from textgym.testing import Case, check_reward

PROMPT = Prompt(id="1", messages="Say nothing.")


def test_brevity_keeps_the_contract() -> None:
    # An empty completion is the best one here, so the hacks may reach the top.
    case = Case(PROMPT, gold=("", "  "), wrong=("one", "one two " * 100))
    check_reward(Brevity(max_words=4), [case], hacks_are_wrong=False)


def test_score_falls_linearly() -> None:
    assert Brevity(max_words=4).score(Sample(PROMPT, "one")).value == 0.75
