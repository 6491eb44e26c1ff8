"""Processes that have different things end by name, all of them, and none waits for another that is not there; a
signal to one of them ends all at one step."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from PIL import Image

import vlmdsl
from bundled.runs import SETTINGS, with_tiny_towers
from vlmdsl import DiagnosticError
from vlmdsl.runtime.training import stages
from vlmdsl.testing.distributed import run_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

TESTS = Path(__file__).resolve().parents[1]
CODE = os.pathsep.join(str(path) for path in (TESTS, TESTS.parent, TESTS.parent / "cli"))
DATA = ["shapes:samples=16,size=16"]
STEPS = 4
SMALL = SETTINGS | {"train.batch": 8, "train.steps": STEPS, "evaluation.limit": 8, "train.checkpoint_every": STEPS}


def error_of(action: Callable[[], object]) -> str:
    """The code and the message of what an action ends with, and its notes."""
    try:
        action()
    except DiagnosticError as error:
        diagnostic = error.diagnostics[0]
        return " | ".join([f"{diagnostic.code} {diagnostic.message}", *diagnostic.notes])
    except SystemExit as error:
        return f"exit {error.code}"
    return "fine"


def errors_of(rank: int, folder: str) -> dict[str, str]:
    """What process `rank` of two meets, one attempt after the other."""
    place = Path(folder)
    with pytest.MonkeyPatch.context() as patch:
        with_tiny_towers(patch)
        patch.setattr(stages, "draw_curves", lambda *arguments: None)
        patch.chdir(place / f"data-{rank}")

        def train(recipe: str = "clip", data: list[str] = DATA, out: str = "run", **settings: Any) -> str:
            names = {name.replace("_", ".", 1): value for name, value in settings.items()}
            return error_of(lambda: vlmdsl.train(recipe, data=data, settings=SMALL | names, out=place / out))

        errors = {
            "settings": train(train_seed=rank, optimizer_learning_rate=0.1 + rank),
            "recipe": train(["clip", "siglip"][rank]),
            "fault": train(train_batch=8 if rank == 0 else 1),
            "taken": train(out="taken"),
            "data": train(data=["pairs.csv"]),
            "missing": train(data=["second.csv"]),
            "whole": train(out="whole"),
        }
        save = stages.BegunStage._log
        patch.setattr(stages.BegunStage, "_log", lambda self, record: (save(self, record), stop_second(rank, record)))
        errors["stopped"] = train(out="stopped")
        patch.setattr(stages.BegunStage, "_log", save)
        return errors | {"resumed": error_of(lambda: vlmdsl.train(resume=place / "stopped"))}


def stop_second(rank: int, record: dict[str, float]) -> None:
    if rank == 1 and record["step"] == 2:
        os.kill(os.getpid(), signal.SIGTERM)


def in_a_group(folder: str) -> dict[str, str]:
    """The same where the host program has made the group."""
    return errors_of(dist.get_rank(), folder)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Data that two processes find in the same place, each its own."""
    for rank in (0, 1):
        (tmp_path / f"data-{rank}").mkdir()
        rows = [f"{number}.png,text {number}" for number in range(16 + rank)]
        for number in range(16 + rank):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"data-{rank}" / f"{number}.png")
        for name in ("pairs.csv", "second.csv")[: 1 + rank]:
            (tmp_path / f"data-{rank}" / name).write_text("\n".join(["image,text", *rows]) + "\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    return tmp_path


def by_hand(folder: Path) -> list[dict[str, str]]:
    """Two processes with the variables that `torchrun` sets, and nobody who ends one when the other ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = "import json, sys; from distributed.test_starting_together import errors_of; "
    program += "print(json.dumps(errors_of(int(sys.argv[1]), sys.argv[2])))"
    processes = []
    for rank in ("0", "1"):
        together = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-c", program, rank, str(folder)]
        environment = os.environ | together | {"PYTHONPATH": CODE, "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    ends = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    return [json.loads(said) for said, _ in ends]


def in_groups(folder: Path) -> list[dict[str, str]]:
    return run_processes(in_a_group, 2, str(folder), timeout=180)


@pytest.mark.parametrize("start", [by_hand, in_groups])
def test_differences_and_faults_end_all_processes_by_name(
    start: Callable[[Path], list[dict[str, str]]], place: Path
) -> None:
    first, second = start(place)
    for errors in (first, second):
        assert errors["settings"].startswith("V0852 the processes of this run have different `optimizer.learning_rate` and")
        assert "`train.seed`: 0 on process 0, 1 on process 1" in errors["settings"]
        assert errors["recipe"].startswith("V0852")
        assert "clip.vlo" in errors["recipe"]
        assert "siglip.vlo" in errors["recipe"]
        assert errors["data"].startswith("V0852 the processes of this run have different data")
        assert "16 samples" in errors["data"]
        assert "17 samples" in errors["data"]
        assert (errors["whole"], errors["stopped"], errors["resumed"]) == ("fine", "exit 143", "fine")
    assert second["fault"].startswith("V0812 `train.batch`")
    assert first["fault"].startswith("V0904")
    assert "V0812" in first["fault"]
    assert first["taken"].startswith("V0815")
    assert "V0815" in second["taken"]
    assert first["missing"].startswith("V0805")
    assert second["missing"].startswith("V0904")
    assert not (place / "run").exists()
    last = Path("checkpoints") / f"step-{STEPS:08d}"
    assert sorted(path.name for path in (place / "stopped" / "checkpoints").iterdir()) == ["step-00000002", last.name]
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        assert (place / "whole" / last / name).read_bytes() == (place / "stopped" / last / name).read_bytes()
