"""Dimensionality-reduced training: pruning, freezing and lottery tickets as choices of coordinates.

    import dimred

    result = dimred.train("rigl", sparsity=0.95, dataset="mnist", model="lenet300", seed=0)
    print(result.test_accuracy)
    model = result.model()      # a plain nn.Module

`import dimred` imports nothing else: each of these names is imported where it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # for type checkers it is true; to import typing takes longer than all else

if TYPE_CHECKING:
    from dimred.errors import UserError
    from dimred.methods.base import Method
    from dimred.net import Net
    from dimred.report.rows import results
    from dimred.runs.api import sweep, train
    from dimred.runs.finished import Result, load
    from dimred.training.loop import Train
    from dimred.training.recipe import Recipe

    __version__: str

__all__ = [
    "Method",
    "Net",
    "Recipe",
    "Result",
    "Train",
    "UserError",
    "__version__",
    "load",
    "results",
    "sweep",
    "train",
]

_MODULES = {
    "Method": "methods.base",
    "Net": "net",
    "Recipe": "training.recipe",
    "Result": "runs.finished",
    "Train": "training.loop",
    "UserError": "errors",
    "load": "runs.finished",
    "results": "report.rows",
    "sweep": "runs.api",
    "train": "runs.api",
}


if not TYPE_CHECKING:  # else they would take any name for one of dimred's

    def __getattr__(name):
        from importlib import import_module

        if name == "__version__":
            from importlib.metadata import version

            return version("dimred")
        if name in _MODULES:
            return getattr(import_module(f"dimred.{_MODULES[name]}"), name)
        raise AttributeError(f"module 'dimred' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
