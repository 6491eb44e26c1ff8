"""The language commands answer at once: none of them imports torch or numpy, which take seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from vlmdsl_cli.main import main
code = main(sys.argv[1:])
heavy = sorted({"torch", "numpy", "transformers", "matplotlib", *MORE} & set(sys.modules))
print(f"exit code {code}, heavy modules {heavy}", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "clip"],
        ["check", "-e", "contrast(image.pooled, text, sim=tokenmax)"],
        ["explain", "filip"],
        ["explain", "tokenmax"],
        ["explain", "V0304"],
        ["plan", "clip", "--batch", "4096", "--world", "8"],
        ["diff", "clip", "align"],
        ["emit", "declip"],
        ["recipes"],
        ["train", "--help"],
        ["ground", "--help"],
        ["caption", "--help"],
        ["eval", "--help"],
        ["compare", "--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_language_commands_import_nothing_heavy(arguments: list[str]) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "MORE = []" + PROGRAM, *arguments], capture_output=True, text=True, timeout=60
    )
    last = finished.stderr.splitlines()[-1]
    assert last.endswith("heavy modules []"), finished.stderr
    assert not last.startswith("exit code 1"), finished.stderr


@pytest.mark.parametrize(("arguments", "printed"), [(["recipes"], "clip"), (["explain", "V0304"], "V0304: pooled features")])
def test_lists_and_pages_of_codes_take_no_front_end(arguments: list[str], printed: str) -> None:
    command = [sys.executable, "-c", "MORE = ['pydantic', 'vlmdsl.frontend']" + PROGRAM, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert finished.stderr.endswith("exit code 0, heavy modules []\n"), finished.stderr
    assert printed in finished.stdout


def test_fmt_imports_the_syntax_only() -> None:
    command = [sys.executable, "-c", "MORE = ['pydantic', 'vlmdsl.frontend']" + PROGRAM, "fmt", "-"]
    finished = subprocess.run(command, input="minimize contrast(image,text)", capture_output=True, text=True, timeout=60)
    assert finished.stderr.endswith("exit code 0, heavy modules []\n"), finished.stderr
    assert finished.stdout == "vlo 1\n\nminimize contrast(image, text)\n"


def test_the_package_is_imported_in_fifty_milliseconds() -> None:
    """Of processor time, the least of three processes: 13 ms where it was written."""
    program = (
        "import time; start = time.process_time(); import vlmdsl; print(1000 * (time.process_time() - start)); vlmdsl.check"
    )
    command = [sys.executable, "-c", program]
    taken = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    assert min(taken) < 50, taken
