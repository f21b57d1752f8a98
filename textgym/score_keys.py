"""What a cached score is known by: everything that the score of a sample may depend on.

A key is a hash of a scope and a sample. The scope is the reward: the distribution that offers it
with version, its class and its configuration, and the source files of the packages that its class
and its base classes come from, because a plugin under development keeps its version while its code
changes. The sample goes in whole: whatever a reward can read may change its score.

Not in the key, as nothing here can know it: files and services that a reward reads, and versions
of the libraries it calls. A reward that depends on those declares itself not deterministic.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

from pydantic_core import PydanticSerializationError, to_json

import textgym
from textgym.errors import TextGymError
from textgym.plugins import plugin_manager
from textgym.prompt import Prompt
from textgym.reward import Reward
from textgym.sample import Sample

_FORMAT = 1
_READ_WHOLE = 1 << 20
_EXTERNAL = frozenset({"builtins", "pydantic", "typing", "abc"})


def reward_scope(reward: Reward) -> bytes | None:
    """Return the part of the key that is the reward, or None where its scores are not kept.

    They are kept for a reward that declares itself deterministic and that a plugin offers: only
    then is there a version to tell old scores from new ones.
    """
    if not reward.deterministic:
        return None
    try:
        plugin = plugin_manager().plugin_of(reward)
    except TextGymError:
        return None  # the plugins clash, which is reported where one is asked for by name
    if plugin is None:
        return None
    reward_class = type(reward)
    packages = {base.__module__.partition(".")[0] for base in reward_class.__mro__} - _EXTERNAL
    try:
        parts = {
            "format": _FORMAT,
            "textgym": textgym.__version__,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "class": f"{reward_class.__module__}.{reward_class.__qualname__}",
            "config": reward.model_dump(mode="json"),
            "sources": {name: _source_digest(name) for name in sorted(packages)},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
    except (OSError, TypeError, ValueError):
        return None  # a configuration or a source that cannot be read names nothing for certain


def sample_key(scope: bytes, sample: Sample) -> bytes | None:
    """Return the key of a sample's score, or None for a sample that has no exact form as bytes."""
    try:
        prompt = _prompt_bytes(sample.prompt)
        turns = to_json(sample.turns) if sample.turns else b""
    except PydanticSerializationError:
        return None
    ids = b"" if sample.token_ids is None else b"+" + array("q", sample.token_ids).tobytes()
    completion = sample.completion.encode("utf-8", "surrogatepass")
    parts = (prompt, completion, sample.finish_reason.encode(), ids, turns)
    lengths = array("q", map(len, parts)).tobytes()
    return hashlib.sha256(b"".join((scope, lengths, *parts))).digest()


def _prompt_bytes(prompt: Prompt) -> bytes:
    """Return a prompt as JSON that tells nan and the infinities from null."""
    text = prompt.model_dump_json(exclude_defaults=True)
    if "null" in text:  # perhaps a nan: a model writes it as null, a dictionary need not
        return to_json(prompt.model_dump(), inf_nan_mode="constants")
    return text.encode()


@functools.cache
def _source_digest(package: str) -> str:
    """Return a hash of the files of a top-level package or module, as they were when first asked.

    Of a file above 1 MiB only size and time count.
    """
    digest = hashlib.sha256()
    for name, path in _source_files(package):
        stat = path.stat()
        is_read = stat.st_size <= _READ_WHOLE
        content = path.read_bytes() if is_read else b"%d %d" % (stat.st_size, stat.st_mtime_ns)
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _source_files(package: str) -> Iterator[tuple[str, Path]]:
    module = sys.modules.get(package)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    file = getattr(module, "__file__", None)
    if not folders and file is None:
        raise OSError(f"the module '{package}' has no source file")
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(folder)), path
    if not folders:
        yield package, Path(str(file))
