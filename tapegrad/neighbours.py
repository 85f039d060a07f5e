"""Libraries that ask which framework a tensor belongs to: when one is imported, it is told of ours.

A table of modules and of what is done once one has run; nothing is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from .core import Tensor


def _einops(module: Any) -> None:
    """A backend of einops: torch's, with our functions."""
    package = sys.modules[__package__]

    class TapegradBackend(module.TorchBackend):  # type: ignore[misc]  # einops finds it among the subclasses
        framework_name = "tapegrad"

        def __init__(self) -> None:
            self.torch = package

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, Tensor)

    module.TapegradBackend = TapegradBackend  # kept alive


_TOLD: dict[str, Callable[[Any], None]] = {"einops._backends": _einops}


class _Then(Loader):
    """Another loader, and something more once the module has run."""

    def __init__(self, loader: Any, then: Callable[[Any], None]) -> None:
        self.loader = loader
        self.then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.then(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class Finder(MetaPathFinder):
    """Finds the modules of the table, with their own loaders."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of a module of the table."""
        spec = PathFinder.find_spec(fullname, path) if fullname in _TOLD else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, _TOLD[fullname])
        return spec


def install() -> None:
    """Tell those that are imported already, and those that will be."""
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    for name, tell in _TOLD.items():
        if name in sys.modules:
            tell(sys.modules[name])
    sys.meta_path.insert(0, Finder())
