"""Damaged files in torch's compile cache, as a killed process leaves them: said in a line, compiled again, right numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
PROGRAM = """
import torch, vlmdsl
objective = vlmdsl.compile("recipe r(image: Image, text: Text)\\nminimize mean(softplus(-score(image, text)))")
generator = torch.Generator().manual_seed(0)
image, text = (torch.randn(4, 8, generator=generator).requires_grad_() for _ in range(2))
loss = objective(image=image, text=text).loss
loss.backward()
print(round(loss.item(), 5), round(image.grad.abs().sum().item(), 5))
"""


def run(cache: Path) -> tuple[str, str]:
    """What the program prints, and what is said on the side."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "PYTHONWARNINGS": "default"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    cache = tmp_path_factory.mktemp("cache")
    printed, said = run(cache)
    assert "compile cache" not in said
    return cache, printed


@pytest.mark.parametrize(
    ("pattern", "share", "said"),
    [
        ("??/*.so", 0.5, "libraries written in part only"),
        ("??/*.py", 0.5, "a file of torch's compile cache is damaged"),
        ("[af]*g*/**/*", 0.5, ""),  # entries of both graph caches: torch says so itself
    ],
)
def test_damaged_files_are_done_without(
    filled: tuple[Path, str], tmp_path: Path, pattern: str, share: float, said: str
) -> None:
    cache, expected = filled
    shutil.copytree(cache, tmp_path / "cache")
    damaged = [path for path in (tmp_path / "cache").glob(pattern) if path.is_file()]
    assert damaged
    for path in damaged:
        os.truncate(path, int(share * path.stat().st_size))
    printed, messages = run(tmp_path / "cache")
    assert printed == expected
    assert said in messages


def test_a_test_run_that_was_killed_does_not_fail_the_next_one(tmp_path: Path) -> None:
    library = tmp_path / "ab" / "library.main.so"
    library.parent.mkdir()
    library.write_bytes(b"\x7fELF")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/unit/backends/torch/test_compile_cache.py",
    ]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not library.exists()
