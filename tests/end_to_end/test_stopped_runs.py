"""Signals and full disks end a run with a checkpoint, an exit code and the line to go on; the run that is resumed is
bit for bit the one that was never stopped."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from cli.conftest import Result
from vlmdsl import DiagnosticError
from vlmdsl.runtime.tracking import MetricsFile
from vlmdsl.runtime.training import stages
from vlmdsl_cli.main import main

STEPS = 6
SMALL = SETTINGS | {"train.batch": 4, "train.steps": STEPS, "train.checkpoint_every": 100, "evaluation.limit": 8}
DATA = ["shapes:samples=16,size=16"]
CODE = os.pathsep.join([str(Path(vlmdsl.__file__).parents[1] / name) for name in ("", "cli")])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    with_tiny_towers(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        return vlmdsl.train("clip", data=DATA, settings=SMALL, out=tmp_path_factory.mktemp("runs") / "whole").folder


def at_step(step: int, action: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Does something while the record of a step is written."""
    log = MetricsFile.log

    def logs(self: MetricsFile, record: dict[str, float]) -> None:
        log(self, record)
        if record["step"] == step:
            action()

    patch.setattr(MetricsFile, "log", logs)


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def commanded(capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)


def command(out: Path, **changed: object) -> list[str]:
    """The command of a small run; `changed` are settings of `train`."""
    every = SMALL | {f"train.{name}": value for name, value in changed.items()}
    settings = [word for name, value in every.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    return ["train", "clip", "--data", *DATA, *settings, "--out", str(out)]


def equal_runs(first: Path, second: Path) -> None:
    last = Path("checkpoints") / f"step-{STEPS:08d}"
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "tokenizer.json"):
        assert (first / last / name).read_bytes() == (second / last / name).read_bytes(), name
    assert (first / "evaluation.json").read_bytes() == (second / "evaluation.json").read_bytes()
    assert losses(first) == losses(second)


def losses(folder: Path) -> list[tuple[int, float]]:
    records: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"]) for record in records]


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGTERM], 143), ([signal.SIGINT], 130), ([signal.SIGHUP], 129), ([signal.SIGTERM, signal.SIGTERM], 143)],
    ids=["term", "interrupt", "hang-up", "term-twice"],
)
def test_a_signal_ends_a_run_with_a_checkpoint(
    signals: list[int],
    code: int,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "a run"
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with monkeypatch.context() as patch:
        at_step(3, lambda: send(*signals), patch)
        ended = commanded(capsys, *command(out))
    assert ended.code == code
    line = f"`vlmdsl train --resume {shlex.quote(str(out))}` continues from step 3"
    assert ended.stderr.rstrip().splitlines()[-1] == f"interrupted: {line}"
    assert "Traceback" not in ended.stderr
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000003"]
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == handlers
    assert commanded(capsys, *shlex.split(line.split("`")[1])[1:]).code == 0
    equal_runs(out, whole)


def test_a_second_interrupt_ends_at_once_with_the_last_checkpoint(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(4, lambda: send(signal.SIGINT, signal.SIGINT), patch)
        ended = commanded(capsys, *command(tmp_path / "run", checkpoint_every=3))
    assert ended.code == 130
    assert "continues from step 3" in ended.stderr
    assert commanded(capsys, "train", "--resume", str(tmp_path / "run")).code == 0
    equal_runs(tmp_path / "run", whole)


def test_a_signal_before_the_first_step_is_over_leaves_a_run_that_starts_again(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(1, lambda: send(signal.SIGTERM), patch)
        ended = commanded(capsys, *command(tmp_path / "run"))
    assert ended.code == 143
    assert f"`vlmdsl train --resume {tmp_path / 'run'}` starts from scratch" in ended.stderr
    assert commanded(capsys, "train", "--resume", str(tmp_path / "run")).code == 0
    equal_runs(tmp_path / "run", whole)


def test_an_evaluation_between_steps_is_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(self: Any, step: int) -> None:
        measured.append(step)
        send(signal.SIGTERM)
        pytest.fail("the signal waits for the end of the evaluation")

    with monkeypatch.context() as patch:
        patch.setattr(stages.BegunStage, "measure", measure)
        ended = commanded(capsys, *command(tmp_path / "run"), "--set", "evaluation.every=2")
    assert (ended.code, measured) == (143, [2])
    assert "continues from step 2" in ended.stderr


def test_from_python_it_is_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)):
        with monkeypatch.context() as patch:
            at_step(2, lambda number=number: send(number), patch)  # type: ignore[misc]
            with pytest.raises(kind) as caught:
                vlmdsl.train("clip", data=DATA, settings=SMALL, out=tmp_path / kind.__name__)
        assert caught.value.args in (
            (143,),
            (f"interrupted: `vlmdsl train --resume {tmp_path / kind.__name__}` continues from step 2",),
        )


def test_a_handler_of_the_host_program_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        with monkeypatch.context() as patch:
            at_step(2, lambda: send(signal.SIGTERM), patch)
            run = vlmdsl.train("clip", data=DATA, settings=SMALL, out=tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM]
    assert len(losses(run.folder)) == STEPS


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a full disk: what is written beyond `size` bytes of a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("step", "size", "what"), [(3, 20_000, "step-00000004"), (3, 60, "metrics.jsonl")])
def test_a_full_disk_ends_a_run_with_the_last_checkpoint(
    step: int,
    size: int,
    what: str,
    whole: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        limits = files_of_at_most(size)
        at_step(step, limits.__enter__, patch)
        try:
            with pytest.raises(DiagnosticError) as caught:
                vlmdsl.train("clip", data=DATA, settings=SMALL | {"train.checkpoint_every": 2}, out=out)
        finally:
            limits.__exit__(None, None, None)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "V0903"
    assert what in diagnostic.message
    assert diagnostic.help == (f"make room; then `vlmdsl train --resume {out}` continues from step 2",)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    vlmdsl.train(resume=out)
    equal_runs(out, whole)


@pytest.mark.parametrize("size", [10, 300, 2500])
def test_a_disk_that_is_full_from_the_beginning_is_not_a_bug(
    size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_of_at_most(size):
        ended = commanded(capsys, *command(tmp_path / "run"))
    assert ended.code == 3
    assert "V0903" in ended.stderr
    assert "File too large" in ended.stderr


@pytest.mark.slow
def test_a_process_that_is_terminated_leaves_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = command(out, steps=1000000)
    environment = os.environ | {"PYTHONPATH": CODE, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "vlmdsl", *words, "--set", "data.workers=1"]
    with subprocess.Popen(launch, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not ((out / "metrics.jsonl").is_file() and len(losses(out)) > 2):
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)  # a shell's background jobs, tests among them, ignore SIGINT
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()  # without it, leaving `with` waits for a million steps
    assert process.returncode == 143, said
    last = said.rstrip().splitlines()[-1]
    assert last.startswith(f"interrupted: `vlmdsl train --resume {out}` continues from step ")
    assert (out / "checkpoints" / f"step-{int(last.split()[-1]):08d}").is_dir()
