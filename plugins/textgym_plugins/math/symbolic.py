"""Symbolic comparisons in a killable worker process.

One worker per process, started by the first comparison that needs it and kept warm; the parent
never imports the algebra system. `WorkerPool` kills and replaces a worker that passes its time
limit, and copes with forks.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from textgym.errors import MissingExtraError
from textgym.workers import Failure, WorkerPool
from textgym_plugins.math.answer import Answer, walk
from textgym_plugins.math.compare import Comparison, equal
from textgym_plugins.math.tree import Node

MEMORY_LIMIT = 2 << 30


class Request(NamedTuple):
    """One comparison; without `given`, whether the target alone can be handled."""

    target: Answer
    given: Answer | None
    how: Comparison


class Verdict(NamedTuple):
    """Equal, different, or why neither could be found out."""

    is_equal: bool = False
    blame: Literal["nobody", "answer", "target", "missing"] = "nobody"
    failure: Failure | None = None


def compare_symbolically(requests: Sequence[Request], *, time_limit: float) -> list[Verdict]:
    """Return one verdict per request, in order.

    Where a comparison hangs, crashes or raises, the target is tried alone. If the algebra system
    can handle it, the other side is to blame.
    """
    if not requests:
        return []
    if importlib.util.find_spec("math_verify") is None:
        message = str(MissingExtraError("math-verify", "math", "comparing expressions by value"))
        return [Verdict(blame="missing", failure=Failure("raised", message))] * len(requests)
    outcomes = _pool().run(_JUDGE, requests, time_limit=time_limit, memory_limit=MEMORY_LIMIT)
    verdicts = []
    for request, outcome in zip(requests, outcomes, strict=True):
        if outcome.failure is None:
            verdicts.append(Verdict(is_equal=bool(outcome.value)))
            continue
        alone = request._replace(given=None)
        [tried] = _pool().run(_JUDGE, [alone], time_limit=time_limit, memory_limit=MEMORY_LIMIT)
        blame: Literal["answer", "target"] = "answer" if tried.failure is None else "target"
        verdicts.append(Verdict(blame=blame, failure=outcome.failure))
    return verdicts


@functools.cache
def _pool() -> WorkerPool:
    return WorkerPool(num_workers=1)


class _Judge:
    """A function that is imported where it is unpickled: only a worker loads the algebra system."""

    def __call__(self, request: Request) -> bool:
        raise NotImplementedError("runs in a worker only")

    def __reduce__(self) -> tuple[Callable[[], Callable[[Request], bool]], tuple[()]]:
        return _load_judge, ()


_JUDGE = _Judge()


_WARM_UP = Node("root", (Node("num", value=Fraction(12)), Node("num", value=Fraction(2))))


def _load_judge() -> Callable[[Request], bool]:
    from textgym_plugins.math.algebra import can_handle, equal_in_algebra

    # The first comparison loads grammars and fills caches: that is no item's time.
    equal_in_algebra(_WARM_UP, _WARM_UP, False)

    def judge(request: Request) -> bool:
        if request.given is None:
            return all(can_handle(a.node) for a in walk(request.target) if a.node is not None)
        how = request.how._replace(oracle=equal_in_algebra)
        return equal(request.target, request.given, how)

    return judge
