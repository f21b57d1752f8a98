"""The reward `similarity`: BLEU, chrF or ROUGE of the answer against references.

Computed by sacrebleu and rouge-score, sentence by sentence, on a scale from 0 to 1; with several
references BLEU and chrF use them together and ROUGE takes the best.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field

from textgym import Reward, Sample, Score
from textgym.errors import MissingExtraError
from textgym.reward import Isolation
from textgym_plugins.rules.exact_match import accepted
from textgym_plugins.rules.text import short
from textgym_plugins.thinking import after_thinking

Metric = Literal["bleu", "chrf", "rouge1", "rouge2", "rougeL"]
_Measure = Callable[[str, list[str]], float]

_LONGEST = 20_000
"""Characters compared. ROUGE-L takes time with the product of the lengths; a text that much longer
than its reference scores close to nothing anyway."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_ROUGE_READS = re.compile("[A-Za-z0-9]")


class SimilarityReward(Reward):
    """How similar the answer is to a reference text."""

    name: ClassVar[str] = "similarity"
    isolation: ClassVar[Isolation] = "inline"

    metric: Metric = "chrf"
    """`chrf` works in every language; `bleu` by words; `rouge` knows Latin letters and digits."""
    tokenizer: Literal["13a", "intl", "zh", "char"] = "13a"
    """How BLEU finds words: `13a` for English, `intl`, `zh` for Chinese, `char`."""
    reference: str = Field(default="target", pattern=r"^(target|metadata\.\w+)$")
    """Where a prompt has its reference: in its target, or as `metadata.NAME`, where the target is
    what another reward needs."""

    def score(self, sample: Sample) -> Score:
        """Return the similarity; abstain where the target holds no text to compare with."""
        field, _, name = self.reference.partition(".")
        held = sample.prompt.metadata.get(name) if name else sample.prompt.target
        references = [reference[:_LONGEST] for reference in accepted(held)]
        if self.metric.startswith("rouge"):
            references = [r for r in references if _ROUGE_READS.search(r)]
        if not references:
            what = short(str(held))
            return Score.unscored(
                f"the {field} of prompt '{sample.prompt.id}' is {what}; {self.metric} needs a "
                "text or a list of texts" + _ROUGE_HINT * self.metric.startswith("rouge")
            )
        answer = after_thinking(sample.completion) or ""
        answer = _SURROGATES.sub("\ufffd", answer[:_LONGEST])
        try:
            value = _measure(self.metric, self.tokenizer)(answer, references)
        except MissingExtraError as error:
            return Score.failed("unavailable", str(error))
        return Score(min(max(value, 0.0), 1.0), reason=f"{self.metric} {value:.4f}")


_ROUGE_HINT = " with Latin letters or digits"


@functools.cache
def _measure(metric: Metric, tokenizer: str) -> _Measure:
    """Return the function of an answer and its references.

    Raises:
        MissingExtraError: the package is not installed.
    """
    return _rouge(metric) if metric.startswith("rouge") else _sacrebleu(metric, tokenizer)


def _sacrebleu(metric: Metric, tokenizer: str) -> _Measure:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ModuleNotFoundError as error:
        raise MissingExtraError("sacrebleu", "similarity", f"the metric '{metric}'") from error
    scorer = CHRF() if metric == "chrf" else BLEU(tokenize=tokenizer, effective_order=True)
    return lambda answer, references: float(scorer.sentence_score(answer, references).score) / 100


def _rouge(metric: Metric) -> _Measure:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise MissingExtraError("rouge-score", "similarity", f"the metric '{metric}'") from error
    scorer = RougeScorer([metric])
    return lambda answer, references: max(
        float(scorer.score(reference, answer)[metric].fmeasure) for reference in references
    )
