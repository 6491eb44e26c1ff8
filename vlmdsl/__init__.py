"""vlmdsl: a language, a compiler and a trainer for the pre-training objectives of vision-language models.

Importing it imports no torch; `compile`, `emit`, `train` and `evaluate` do when they are called.
"""

from importlib.metadata import PackageNotFoundError, version

from vlmdsl.api.check import check
from vlmdsl.api.compile import compile, emit
from vlmdsl.api.diff import diff
from vlmdsl.api.evaluate import evaluate
from vlmdsl.api.explain import explain
from vlmdsl.api.format import format
from vlmdsl.api.parse import parse
from vlmdsl.api.plan import plan
from vlmdsl.api.recipes import recipes
from vlmdsl.api.train import Trainer, train
from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.primitives.plugin import primitive

__all__ = [
    "Diagnostic", "DiagnosticError", "Trainer", "check", "compile", "diff", "emit", "evaluate", "explain", "format", "parse",
    "plan", "primitive", "recipes", "train",
]  # fmt: skip

try:
    __version__ = version("vlmdsl")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0+checkout"
