"""Checkpoints: complete or absent, and nothing pickled.

One is a folder `step-NNNNNNNN` with `model.safetensors` (encoders and objective, its parameters and its state),
`optimizer.safetensors` (moments under the parameters' names), `tokenizer.json` and `state.json` (the step, the position in
the data, the seed, the size of every file). The learning rate and every generator are functions of (seed, step), so
these are all that a run needs to go on.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmdsl.runtime.training.run_folder import flush

__all__ = [
    "Position",
    "load_checkpoint",
    "load_weights",
    "newest_checkpoint",
    "read_position",
    "save_checkpoint",
]

_NAME = re.compile(r"step-(\d{8})")
_FORMAT = 1


@dataclass(frozen=True)
class Position:
    """How far a run is: `step` optimiser steps are done, and batch `batch` of epoch `epoch` is next."""

    step: int
    epoch: int
    batch: int
    seed: int


def save_checkpoint(
    root: Path,
    model: nn.Module,
    optimizer: Optimizer,
    position: Position,
    *,
    texts: Mapping[str, str] | None = None,
    keep: int = 2,
) -> Path:
    """Write a checkpoint under `root` and remove all but the newest `keep`.

    Everything is written and flushed to disk in a folder of another name, which is then renamed: whenever the process is
    killed, what has a checkpoint's name is whole. `texts` are further files, such as the tokenizer's.
    """
    final = root / f"step-{position.step:08d}"
    if _complete(final):
        return final
    root.mkdir(parents=True, exist_ok=True)
    for leftover in (final, *root.glob(".partial-*")):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = root / f".partial-{final.name}"
    partial.mkdir()
    save_file(_on_cpu(model.state_dict()), partial / "model.safetensors")
    save_file(_optimizer_tensors(optimizer), partial / "optimizer.safetensors")
    for name, text in (texts or {}).items():
        (partial / name).write_text(text, encoding="utf-8")
    sizes = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
    state = {"format": _FORMAT, **asdict(position), "files": sizes}
    (partial / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        flush(path)
    partial.rename(final)
    flush(root)
    _remove_old(root, keep)
    return final


def newest_checkpoint(root: Path) -> Path | None:
    """The complete checkpoint under `root` with the most steps, or None."""
    return next((folder for folder in reversed(_checkpoints(root)) if _complete(folder)), None)


def read_position(folder: Path) -> Position:
    """How far the run was when the checkpoint was written."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return Position(state["step"], state["epoch"], state["batch"], state["seed"])


def load_weights(folder: Path, model: nn.Module) -> None:
    """Put the checkpoint's weights and state into `model`; every name must be on both sides (RuntimeError)."""
    model.load_state_dict(load_file(folder / "model.safetensors"))


def load_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer) -> Position:
    """Put everything in the checkpoint into `model` and `optimizer`; returns how far the run was."""
    load_weights(folder, model)
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        name, _, kind = key.rpartition("/")
        moments.setdefault(name, {})[kind] = tensor
    state = optimizer.state_dict()
    names = _parameter_names(state)
    state["state"] = {index: moments[name] for index, name in names.items() if name in moments}
    optimizer.load_state_dict(state)
    return read_position(folder)


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()
    names = _parameter_names(state)
    return {
        f"{names[index]}/{kind}": tensor.detach().to("cpu", copy=True).contiguous()
        for index, moments in state["state"].items()
        for kind, tensor in moments.items()
    }


def _parameter_names(state: Mapping[str, list[dict[str, list[object]]]]) -> dict[int, str]:
    """Position of a parameter in the optimiser -> its name in the model (torch keeps both, in the same order)."""
    return {
        int(str(index)): str(name)
        for group in state["param_groups"]
        for index, name in zip(group["params"], group["param_names"], strict=True)
    }


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, because safetensors refuses tensors that share memory (tied weights)."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _checkpoints(root: Path) -> list[Path]:
    """Every folder under `root` with a checkpoint's name, oldest first."""
    return sorted(folder for folder in root.iterdir() if _NAME.fullmatch(folder.name)) if root.is_dir() else []


def _complete(folder: Path) -> bool:
    """Whether every file that the checkpoint lists is there in its full size."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in state["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def _remove_old(root: Path, keep: int) -> None:
    for folder in _checkpoints(root)[:-keep]:
        # Renamed first: a removal that is cut short must not leave a part under a checkpoint's name.
        doomed = folder.rename(root / f".partial-{folder.name}")
        shutil.rmtree(doomed)
