"""Import modules from code that was carried here, instead of from files.

A worker that compiled its modules itself would keep what is left over from that in its memory, and
every fork would pay for it. Nothing of textgym is a file in the sandbox.
"""

from __future__ import annotations

import marshal
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


class Carried:
    """Finds and loads modules.

    Args:
        modules: marshalled code by the name of the module; a package is a module without code.
    """

    def __init__(self, modules: dict[str, bytes]) -> None:
        self._modules = modules

    def install(self) -> None:
        """Have `import` find them from now on."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Leave in place what is imported, and find no more."""
        sys.meta_path.remove(self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return how to load a module, None if it is not here."""
        if name not in self._modules:
            return None
        is_package = not self._modules[name]
        return ModuleSpec(name, self, is_package=is_package)  # type: ignore[arg-type]  # duck-typed

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the interpreter."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of a module."""
        data = self._modules[module.__name__]
        if data:
            code = marshal.loads(data)
            module.__file__ = code.co_filename
            exec(code, vars(module))
