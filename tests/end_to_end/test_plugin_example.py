"""`tests/plugin_example` as a stranger meets it: installed, then checked, explained, compiled and held to its laws."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests" / "plugin_example"

Python = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("plugin")]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Runs Python where the plug-in is installed."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(EXAMPLE)], check=True, capture_output=True, timeout=120)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(target), *(str(ROOT / folder) for folder in (".", "cli"))])  # the tree under test
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=target, capture_output=True, text=True, timeout=240)

    return run


def test_a_recipe_may_use_it(python: Python) -> None:
    checked = python("-m", "vlmdsl", "check", "-e", "contrast(image, text, sim=0.5*student(freedom=2.0) + 0.5*cosine)")
    assert checked.returncode == 0, checked.stderr


def test_its_arguments_are_checked(python: Python) -> None:
    misspelt = python("-m", "vlmdsl", "check", "-e", "contrast(image, text, sim=student(fredom=2.0))")
    assert misspelt.returncode == 2
    assert "freedom" in misspelt.stderr
    mistyped = python("-m", "vlmdsl", "check", "-e", "contrast(image, text, sim=student(freedom=(1, 2)))")
    assert mistyped.returncode == 2
    assert "error[V0" in mistyped.stderr


def test_it_has_a_page_that_says_where_it_comes_from(python: Python) -> None:
    page = python("-m", "vlmdsl", "explain", "student")
    assert page.returncode == 0, page.stderr
    assert "freedom" in page.stdout
    assert "vlmdsl_student" in page.stdout


def test_it_compiles_to_its_own_formula(python: Python) -> None:
    program = """
import torch, vlmdsl
objective = vlmdsl.compile("contrast(image, text, sim=student(freedom=2.0), temperature=1)", compiled=False)
generator = torch.Generator().manual_seed(0)
image, text = (torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
loss = objective(image=image, text=text).loss
logits = -1.5 * (torch.cdist(image, text) ** 2 / 2).log1p()
target = torch.arange(5)
cross_entropy = torch.nn.functional.cross_entropy
expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
torch.testing.assert_close(loss, expected)
for got, wanted in zip(torch.autograd.grad(loss, (image, text)), torch.autograd.grad(expected, (image, text))):
    torch.testing.assert_close(got, wanted)
"""
    compiled = python("-W", "error", "-c", program)
    assert compiled.returncode == 0, compiled.stderr


def test_it_keeps_the_laws_that_it_declares(python: Python) -> None:
    program = """
from vlmdsl.testing import check_primitive
from vlmdsl_student import fusion, masks, similarities, targets
for primitive in (similarities.student, masks.one_run, targets.near_numbers, fusion.mean_fusion):
    check_primitive(primitive)
"""
    checked = python("-W", "error", "-c", program)
    assert checked.returncode == 0, checked.stderr


TRAINING = """
import json, pathlib, sys
import vlmdsl
recipe = pathlib.Path(sys.argv[1])
assert vlmdsl.check(recipe.read_text(encoding="utf-8")) == []
assert "torch" not in sys.modules
import numpy as np
from PIL import Image
folder = pathlib.Path(sys.argv[2])
folder.mkdir()
random, rows = np.random.default_rng(0), []
for index in range(12):
    Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    described = {"text": f"the picture of number {index} and its friends", "descriptor": random.normal(size=8).tolist()}
    described["wave"] = random.normal(size=5).tolist()
    rows.append({"file_name": f"{index}.png", "age": index, **described})
(folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows), encoding="utf-8")
settings = {"train.batch": 4, "train.compile": False, "train.log_every": 1, "train.device": "cpu"}
settings |= {"model.dimension": 8, "model.text_length": 16, "model.image_size": 16}
run = vlmdsl.train(recipe, data=[str(folder)], steps=3, settings=settings, out=folder.with_name("run"))
print((run.folder / "metrics.jsonl").read_text(encoding="utf-8"))
"""
"""Checks the recipe that uses all that the plug-in brings, without torch, and trains it."""


def test_a_run_trains_with_all_that_it_brings(python: Python, tmp_path: Path) -> None:
    """A mask rule, a target, a fusion module and two kinds of fields, one of which a tower encodes, each of one file."""
    trained = python("-W", "error", "-c", TRAINING, str(EXAMPLE / "recipe.vlo"), str(tmp_path / "data"))
    assert trained.returncode == 0, trained.stderr
    steps = [json.loads(line) for line in trained.stdout.splitlines() if line]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert all(math.isfinite(step[f"terms/{term}"]) for step in steps for term in ("near", "distilled", "heard", "mlm"))
    assert steps[0]["loss"] != steps[-1]["loss"]
