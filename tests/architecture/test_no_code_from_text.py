"""Nothing in the package runs text as code, starts programs or unpickles, but for the one place that runs checked source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTING = ROOT / "vlmdsl" / "testing"
"""The kit for tests, which starts processes and reads back what they wrote; nothing else of the package imports it."""
FILES = sorted(
    path for folder in ("vlmdsl", "cli") for path in (ROOT / folder).rglob("*.py") if not path.is_relative_to(TESTING)
)
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "subprocess", "pty", "code", "runpy"}
FORBIDDEN_BUILTINS = {"eval", "exec", "__import__", "compile", "input", "breakpoint"}
FORBIDDEN_CALLS = {
    "os.system", "os.popen", "os.execv", "os.spawnv", "torch.load", "torch.hub.load", "numpy.load", "np.load", "yaml.load",
    "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "importlib.reload",
}  # fmt: skip
ALLOWED = {
    ("vlmdsl/backends/torch/objective.py", "exec"),
    ("vlmdsl/backends/torch/objective.py", "compile"),
}
"""The one place that runs emitted source, after `allowed_tree`."""


def dangers(text: str) -> Iterator[str]:
    """What a module does that could run what it reads."""
    defined = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
                yield node.module or ""
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS or (called in FORBIDDEN_BUILTINS - defined and isinstance(node.func, ast.Name)):
                yield called
            if any(keyword.arg in ("shell", "trust_remote_code") and _is_true(keyword.value) for keyword in node.keywords):
                yield f"{called} with {[keyword.arg for keyword in node.keywords]}"


def _is_true(value: ast.expr) -> bool:
    return not (isinstance(value, ast.Constant) and value.value is False)


def test_only_checked_source_is_run() -> None:
    uses = {(str(path.relative_to(ROOT)), danger) for path in FILES for danger in dangers(path.read_text("utf-8"))}
    assert uses <= ALLOWED, sorted(uses - ALLOWED)
    objective = (ROOT / "vlmdsl/backends/torch/objective.py").read_text("utf-8")
    assert "exec(compile(allowed_tree(source)" in objective


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eval('1')", ["eval"]),
        ("import pickle", ["pickle"]),
        ("from subprocess import run", ["subprocess"]),
        ("import yaml\nyaml.load(x)", ["yaml.load"]),
        ("model.eval()\nre.compile('x')\nyaml.safe_load(x)\n", []),
        ("f(x, trust_remote_code=True)", ["f with ['trust_remote_code']"]),
        ("f(x, trust_remote_code=False)", []),
    ],
)
def test_the_measure_itself(text: str, expected: list[str]) -> None:
    assert list(dangers(text)) == expected
