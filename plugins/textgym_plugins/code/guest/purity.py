"""Whether test code can leave anything behind in the process that runs it.

A tester that ran pure code is used again. What counts is a small language: names and items are
assigned, and attributes are read if they are known to give nothing but values. Everything else, and
everything unknown, costs the tester its life after the run and is otherwise harmless.
"""

from __future__ import annotations

import ast
import collections
from collections.abc import Iterable

_MODULE_NAMES = {
    "bisect": "bisect bisect_left bisect_right insort insort_left insort_right",
    "cmath": "exp isclose phase polar rect sqrt",
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "copy": "copy deepcopy",
    "fractions": "Fraction",
    "functools": "cache cmp_to_key lru_cache partial reduce",
    "heapq": "heapify heappop heappush heappushpop heapreplace merge nlargest nsmallest",
    "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle "
    "dropwhile filterfalse from_iterable groupby islice pairwise permutations product repeat "
    "starmap takewhile tee zip_longest",
    "math": "acos asin atan atan2 ceil comb copysign cos degrees dist e erf exp fabs factorial "
    "floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp log "
    "log10 log1p log2 modf nan perm pi pow prod radians sin sqrt tan tanh tau trunc",
    "random": "Random choice choices gauss getrandbits randint random randrange sample seed "
    "shuffle uniform",
    "re": "DOTALL I IGNORECASE M MULTILINE S VERBOSE X compile escape findall finditer fullmatch "
    "group groups match search split sub subn",
    "statistics": "fmean mean median mode multimode pstdev pvariance stdev variance",
    "string": "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits printable "
    "punctuation whitespace",
    "typing": "Any Callable Dict FrozenSet Generator Iterable Iterator List Mapping Optional "
    "Sequence Set Tuple Union",
}
_ALLOWED = {module: frozenset(names.split()) for module, names in _MODULE_NAMES.items()}
_VALUE_KINDS = (
    bool, bytearray, bytes, complex, dict, float, frozenset, int, list, range, set, str, tuple,
    collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque,
)  # fmt: skip
_ATTRIBUTES = frozenset({"args"}).union(
    *_ALLOWED.values(),
    *([name for name in dir(kind) if not name.startswith("_")] for kind in _VALUE_KINDS),
)
_IMPURE_NAMES = frozenset({
    "breakpoint", "compile", "delattr", "eval", "exec", "exit", "getattr", "globals", "help",
    "input", "locals", "open", "quit", "setattr", "super", "type", "vars",
})  # fmt: skip
_IMPURE_NODES = frozenset({
    ast.ClassDef, ast.Global, ast.Nonlocal, ast.AsyncFunctionDef, ast.Await, ast.Yield,
    ast.YieldFrom, ast.MatchClass,
})  # fmt: skip
"""A class pattern reads attributes whose names are no `ast.Attribute`."""


def is_pure(nodes: Iterable[ast.AST]) -> bool:
    """Return whether code of these nodes, with all that it calls of itself, leaves nothing."""
    return all(map(_leaves_nothing, nodes))


def _leaves_nothing(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return not node.id.startswith("__") and node.id not in _IMPURE_NAMES
    if isinstance(node, ast.Attribute):
        return isinstance(node.ctx, ast.Load) and node.attr in _ATTRIBUTES
    if isinstance(node, ast.Import):
        return all(alias.name in _ALLOWED for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        names = _ALLOWED.get(node.module or "", frozenset())
        return not node.level and all(alias.name in names for alias in node.names)
    return type(node) not in _IMPURE_NODES
