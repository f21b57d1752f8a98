"""The YAML dialect of configurations: PyYAML's safe one, but `1e-5` is a number and a date is text.

A key that is not text or occurs twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

_FLOAT_TAG = "tag:yaml.org,2002:float"
_TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")


def _dialect(resolvers: dict[str, list[tuple[str, Any]]]) -> dict[str, list[tuple[str, Any]]]:
    """Return implicit resolvers in which a float is what `_FLOAT` matches and nothing a date."""
    fixed = {
        first: [pair for pair in pairs if pair[0] not in (_FLOAT_TAG, _TIMESTAMP_TAG)]
        for first, pairs in resolvers.items()
    }
    for first in "-+.0123456789":
        fixed.setdefault(first, []).append((_FLOAT_TAG, _FLOAT))
    return fixed


class Loader(yaml.SafeLoader):
    """The safe loader; a key that is not text or occurs twice is an error with its line."""

    yaml_implicit_resolvers = _dialect(yaml.SafeLoader.yaml_implicit_resolvers)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of a node whose keys are distinct strings."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"the key {key!r} is not text; write it in quotes"
            elif key in seen:
                problem = f"the key '{key}' occurs twice"
            else:
                seen.add(key)
                continue
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        return super().construct_mapping(node, deep=deep)


class Dumper(yaml.SafeDumper):
    """The safe dumper that quotes what `Loader` would take for a number."""

    yaml_implicit_resolvers = _dialect(yaml.SafeDumper.yaml_implicit_resolvers)

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Return text as a node, with escapes where PyYAML would write a line break unescaped."""
        style = '"' if _BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


Dumper.add_representer(str, Dumper.represent_str)
