"""vlmdsl: a language, a compiler and a trainer for the pre-training objectives of vision-language models.

The names below are loaded on first use, and torch only by functions that train or run: `import vlmdsl` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmdsl.api.check import check
    from vlmdsl.api.compare import compare
    from vlmdsl.api.compile import compile
    from vlmdsl.api.diff import diff
    from vlmdsl.api.emit import emit
    from vlmdsl.api.evaluate import evaluate
    from vlmdsl.api.explain import explain
    from vlmdsl.api.format import format
    from vlmdsl.api.load import load
    from vlmdsl.api.overfit import overfit
    from vlmdsl.api.parse import parse
    from vlmdsl.api.plan import plan
    from vlmdsl.api.recipes import recipes
    from vlmdsl.api.train import Trainer, train
    from vlmdsl.api.verify import verify
    from vlmdsl.backends.torch.cached import CachedStep
    from vlmdsl.diagnostics import Diagnostic, DiagnosticError
    from vlmdsl.primitives.plugins import primitive

    __version__: str

__all__ = [
    "CachedStep", "Diagnostic", "DiagnosticError", "Trainer", "check", "compare", "compile", "diff", "emit", "evaluate",
    "explain", "format", "load", "overfit", "parse", "plan", "primitive", "recipes", "train",
    "verify",
]  # fmt: skip

_HOMES = {
    "CachedStep": "vlmdsl.backends.torch.cached",
    "Diagnostic": "vlmdsl.diagnostics",
    "DiagnosticError": "vlmdsl.diagnostics",
    "Trainer": "vlmdsl.api.train",
    "primitive": "vlmdsl.primitives.plugins",
}
"""The module of every public name that is not `vlmdsl.api.NAME`."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        return str(import_module("vlmdsl._resources").installed_version())
    if name not in __all__:
        raise AttributeError(f"module 'vlmdsl' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES.get(name, f"vlmdsl.api.{name}")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
