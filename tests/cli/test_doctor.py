"""`vlmdsl doctor`: what an environment has and lacks, each with what to do about it."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from cli.conftest import Run
from vlmdsl.api import doctor


def test_a_sound_environment_is_shown(run: Run) -> None:
    result = run("doctor", "--no-compile", "--json")
    assert result.code == 0
    checkup = json.loads(result.stdout)
    assert checkup["sound"]
    values = {finding["name"]: finding["value"] for finding in checkup["findings"]}
    assert values["torch"] == metadata.version("torch")
    assert {"vlmdsl", "python", "lark", "cpu", "disk"} <= values.keys()


@pytest.mark.slow
def test_the_compiler_is_tried(run: Run) -> None:
    result = run("doctor")
    assert (result.code, "torch.compile works" in result.stdout) == (0, True)


def test_what_is_lacking_is_said_with_a_remedy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        if name in ("lark", "faiss-cpu"):
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    def fails(*arguments: object, **options: object) -> None:
        raise RuntimeError("no C++ compiler\nsecond line")

    monkeypatch.setattr(doctor.metadata, "version", absent)
    monkeypatch.setattr("torch.compile", fails)
    result = run("doctor")
    assert result.code == 3
    lines = result.stdout.splitlines()
    lacking = [line.split()[1] for line in lines if line.startswith("LACKING")]
    assert lacking == ["lark", "compiler"]
    assert [line.split()[1] for line in lines if line.startswith("absent") and "faiss" in line] == ["faiss-cpu"]
    assert "pip install 'vlmdsl[ann]'" in result.stdout
    assert "train.compile=false" in result.stdout
    assert "second line" not in result.stdout


def test_a_checkout_that_is_not_installed_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", absent)
    checkup = doctor.doctor(compile=False)
    assert checkup.sound
    assert any("not installed" in finding.value for finding in checkup.findings)
