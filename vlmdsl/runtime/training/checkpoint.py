"""Checkpoints: complete or absent, every file with its SHA-256, and nothing pickled.

One is a folder `step-NNNNNNNN` with `model.safetensors` (encoders and objective, its parameters and its state),
`optimizer.safetensors` (moments under the parameters' names), `tokenizer.json` and `state.json` (the step, the position in
the data, the seed, which run it is, size and SHA-256 of every file, and the SHA-256 of all this). The learning rate and
every generator are functions of (seed, step), so this is all that a run needs to resume.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.runs import CheckpointMismatch
from vlmdsl.runtime.files import damaged, file_digest, flush, read_json, seal, write_json, writing
from vlmdsl.runtime.training.adaptation import without_adapters
from vlmdsl.runtime.training.loss_scale import LossScale
from vlmdsl.runtime.training.records import CheckpointState
from vlmdsl.source import Span

__all__ = [
    "AS_TRAINED",
    "WEIGHTS",
    "Position",
    "check_written_by",
    "checked",
    "is_checkpoint",
    "load_checkpoint",
    "load_weights",
    "newest_checkpoint",
    "read_position",
    "read_state",
    "save_checkpoint",
    "sound_checkpoint",
    "stage_of",
    "take_over",
    "take_weights",
    "write_weights_only",
]

_NAME = re.compile(r"step-(\d{8,18})")
_FORMAT = 2
_STATE = "state.json"
WEIGHTS, _MOMENTS = "model.safetensors", "optimizer.safetensors"
AS_TRAINED = "use the settings of `model` and the hyper-parameters of the run that wrote it"
"""The help where weights of one name have another shape."""


@dataclass(frozen=True)
class Position:
    """The position of a run: `step` optimiser steps are done, and batch `batch` of epoch `epoch` is next."""

    step: int
    epoch: int
    batch: int
    seed: int
    stage: str = ""
    """The stage that the steps before this one are of; "" of a run without stages."""
    scale: LossScale = field(default_factory=LossScale)


def save_checkpoint(
    root: Path,
    model: nn.Module,
    optimizer: Optimizer,
    position: Position,
    *,
    texts: Mapping[str, str] | None = None,
    keep: int = 2,
    records: int = 0,
    run: str = "",
) -> Path:
    """Write a checkpoint under `root`; then remove all but the newest `keep`, and those of later steps.

    Everything is written and flushed to disk in a folder of another name, which is then renamed: so that every folder with a
    checkpoint's name is complete, even if the process is killed. `texts` are further files, such as the tokenizer's;
    `records` is how many lines of metrics belong to the steps until here, `run` the identity of the run. DiagnosticError
    V0903 where the disk is full: what was there before is left as it was.
    """
    final = root / f"step-{position.step:08d}"
    if not _fault(final):
        return final
    with writing(final):
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(".partial-*"):
            _remove(leftover)
        partial = root / f".partial-{final.name}"
        partial.mkdir()
        try:
            _write(partial, model, optimizer, texts or {})
            sizes = {file.name: file for file in sorted(partial.iterdir())}
            files = {name: {"size": file.stat().st_size, "sha256": file_digest(file)} for name, file in sizes.items()}
            state = {"format": _FORMAT, **asdict(position), "records": records, "run": run, "files": files}
            write_json(partial / _STATE, seal(state))
            for path in (*partial.iterdir(), partial):
                flush(path)
            if final.exists() or final.is_symlink():
                _remove(final)
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        flush(root)
        _remove_old(root, keep, final)
    return final


def write_weights_only(checkpoint: Path, root: Path) -> Path:
    """A copy of a checkpoint under `root`, without the states of the optimiser: a run cannot be resumed from it."""
    state, copy = read_state(checkpoint), root / checkpoint.name
    copy.mkdir(parents=True)
    kept = {name: stored for name, stored in state.files.items() if name != _MOMENTS}
    for name in kept:
        shutil.copyfile(checkpoint / name, copy / name)
    write_json(copy / _STATE, seal({**state.plain(), "files": {name: stored.plain() for name, stored in kept.items()}}))
    return copy


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the name of a checkpoint and says what is in it."""
    return _NAME.fullmatch(folder.resolve().name) is not None and (folder / _STATE).is_file()


def newest_checkpoint(root: Path) -> Path | None:
    """The sound checkpoint under `root` with the most steps, or None."""
    return next((folder for folder in reversed(_checkpoints(root)) if not _fault(folder)), None)


def sound_checkpoint(root: Path) -> tuple[Path | None, list[str]]:
    """The sound checkpoint with the most steps, and what is wrong with each newer one; V0850 if all are damaged."""
    faults: list[DiagnosticError] = []
    for folder in reversed(_checkpoints(root)):
        fault = _fault(folder)
        if fault is None:
            return folder, [error.diagnostics[0].message for error in faults]
        faults.append(fault)
    if not faults:
        return None, []
    first, *others = (error.diagnostics[0] for error in faults)
    help = (*first.help, "no checkpoint is whole: restore one from a copy of the folder, or train again")
    raise DiagnosticError((replace(first, notes=tuple(other.message for other in others), help=help),))


def checked(folder: Path) -> CheckpointState:
    """What `state.json` says, every file compared with it; V0850 names the one that is damaged."""
    if folder.is_symlink() or not folder.is_dir():
        raise damaged(folder, "it is not a folder")
    state = read_state(folder)
    if f"step-{state.step:08d}" != folder.name:
        raise damaged(folder / _STATE, f"it is of step {state.step}")
    if WEIGHTS not in state.files:
        raise damaged(folder / _STATE, "it does not list the weights")
    for name, stored in state.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise damaged(path, "it is missing" if not path.exists() else "it is not a regular file")
        if path.stat().st_size != stored.size:
            raise damaged(path, f"it has {path.stat().st_size:,} bytes, not {stored.size:,}")
        if file_digest(path) != stored.sha256:
            raise damaged(path, "it is not what the run wrote: its SHA-256 differs")
    return state


def read_state(folder: Path) -> CheckpointState:
    """What `state.json` says; V0850 if it is damaged."""
    return read_json(folder / _STATE, CheckpointState, sealed=True)


def check_written_by(folder: Path, run: str) -> None:
    """V0853 unless the run with the identity `run` wrote this checkpoint."""
    if read_state(folder).run != run:
        raise _mismatch(folder, "it was written by a run with another recipe, other settings or other data")


def read_position(folder: Path) -> Position:
    """How far the run was when the checkpoint was written."""
    state = read_state(folder)
    scale = LossScale(state.scale.value, state.scale.steps, state.scale.skipped)
    return Position(state.step, state.epoch, state.batch, state.seed, state.stage, scale)


def stage_of(folder: Path, stages: Collection[str]) -> str:
    """The name of the stage that a checkpoint was written in; V0853 if the recipe has no such stage."""
    name = read_position(folder).stage
    if name not in stages:
        written = f"in the stage `{name}`" if name else "by a recipe without stages"
        names = ", ".join(f"`{stage}`" for stage in stages if stage)
        has = f"has the stages {names}" if names else "has no stages"
        raise _mismatch(folder, f"it was written {written}, but the recipe {has}")
    return name


def load_weights(folder: Path, model: nn.Module) -> None:
    """Put the checkpoint's weights and state into `model`; V0853 unless all names, shapes and types agree."""
    tensors = _load(folder / WEIGHTS)
    _compare(folder, tensors, model.state_dict(), "the model")
    model.load_state_dict(tensors)


def take_over(folder: Path, model: nn.Module, without: Collection[str] = (), *, help: str = "") -> None:
    """Begin with the weights of a checkpoint of another stage: of all that `model` has, too, but teachers, and what is
    named by `without`.

    State of another size starts again, as does what the other stage does not have. V0853 for a weight of another form, with
    this `help`.
    """
    take_weights(_load(folder / WEIGHTS), model, without, folder=folder, help=help)


def take_weights(
    weights: Mapping[str, Tensor],
    model: nn.Module,
    without: Collection[str] = (),
    *,
    folder: Path = Path(),
    help: str = "",
) -> None:
    """The same with the `weights` of a model, by name; `folder` is where a diagnostic says that they are."""
    present = model.state_dict()
    called = {without_adapters(name): name for name in present}
    taken: dict[str, Tensor] = {}
    for stored, tensor in weights.items():
        name = stored if stored in present else called.get(without_adapters(stored), stored)
        own = present.get(name)
        if own is None or name.startswith("teachers.") or name in without:
            continue
        if (own.shape, own.dtype) == (tensor.shape, tensor.dtype):
            taken[name] = tensor
        elif not name.startswith("objective.state."):
            reason = f"`{name}` is {_form(tensor)} there, but {_form(own)} in the model of the stage"
            raise _mismatch(folder, reason, help=(help,) if help else ())
    model.load_state_dict({**present, **taken})


def load_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer) -> Position:
    """Put everything in the checkpoint into `model` and `optimizer`; returns how far the run was. V0853 as above."""
    if _MOMENTS not in read_state(folder).files:
        raise _mismatch(folder, "it was exported without the states of the optimiser, so that no run can be resumed from it")
    load_weights(folder, model)
    tensors = _load(folder / _MOMENTS)
    state = optimizer.state_dict()
    names = _parameter_names(state)
    _compare_moments(folder, tensors, dict(model.named_parameters()), set(names.values()))
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition("/")
        moments.setdefault(name, {})[kind] = tensor
    state["state"] = {index: moments[name] for index, name in names.items() if name in moments}
    optimizer.load_state_dict(state)
    return read_position(folder)


def _write(folder: Path, model: nn.Module, optimizer: Optimizer, texts: Mapping[str, str]) -> None:
    save_file(_on_cpu(model.state_dict()), folder / WEIGHTS)
    save_file(_optimizer_tensors(optimizer), folder / _MOMENTS)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise damaged(path, f"it is not a safetensors file: {error}") from None


def _compare(folder: Path, stored: Mapping[str, Tensor], present: Mapping[str, Tensor], whose: str) -> None:
    """V0853 unless both have the same names, each of one shape and type."""
    lacking = [name for name in present if name not in stored]
    more = [name for name in stored if name not in present]
    if lacking or more:
        which = f"it lacks `{lacking[0]}`, which {whose} has" if lacking else f"it has `{more[0]}`, which {whose} lacks"
        raise _mismatch(folder, which, len(lacking) + len(more))
    for name, tensor in present.items():
        if not _fits(stored[name], tensor):
            reason = f"`{name}` is {_form(stored[name])} there, but {_form(tensor)} in {whose}"
            raise _mismatch(folder, reason, help=(AS_TRAINED,))


def _fits(stored: Tensor, present: Tensor) -> bool:
    """Whether a tensor can be loaded: an axis of length 0 waits for a checkpoint, or a step, to say how long it is."""
    lengths = zip(stored.shape, present.shape, strict=False)
    shape = stored.dim() == present.dim() and all(own in (0, length) for length, own in lengths)
    return shape and stored.dtype == present.dtype


def _compare_moments(
    folder: Path, stored: Mapping[str, Tensor], parameters: Mapping[str, Tensor], trained: set[str]
) -> None:
    """V0853 unless every moment belongs to a trained parameter, and a parameter has all of its moments or none."""
    kinds: dict[str, set[str]] = {}
    for key, tensor in stored.items():
        name, _, kind = key.rpartition("/")
        if name not in trained or kind not in _MOMENT_KINDS:
            raise _mismatch(folder, f"it has the optimiser state `{key}`, which belongs to no trained parameter")
        if kind != "step" and tensor.shape != parameters[name].shape:
            reason = f"`{key}` is {_form(tensor)} there, but the parameter is {_form(parameters[name])}"
            raise _mismatch(folder, reason)
        kinds.setdefault(name, set()).add(kind)
    for name, own in kinds.items():
        if own != _MOMENT_KINDS:
            raise _mismatch(folder, f"it lacks the optimiser state `{name}/{min(_MOMENT_KINDS - own)}`")


_MOMENT_KINDS = {"step", "exp_avg", "exp_avg_sq"}
"""What AdamW remembers of a parameter."""


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _mismatch(folder: Path, reason: str, count: int = 1, help: tuple[str, ...] = ()) -> DiagnosticError:
    notes = (f"{count - 1} further names differ",) if count > 1 else ()
    place = Span("<command line>", 0, 0)
    return DiagnosticError((CheckpointMismatch.at(place, path=folder, reason=reason, notes=notes, help=help),))


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
    """Everything under `root` with a checkpoint's name, oldest first."""
    named = [folder for folder in root.iterdir() if _NAME.fullmatch(folder.name)] if root.is_dir() else []
    return sorted(named, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _fault(folder: Path) -> DiagnosticError | None:
    """What is damaged in a checkpoint, or missing; None if all of it is as it was written."""
    try:
        checked(folder)
    except DiagnosticError as error:
        return error
    return None


def _remove_old(root: Path, keep: int, newest: Path) -> None:
    """What lies after the newest is left over from before the run went back to an older one."""
    folders = _checkpoints(root)
    for folder in folders:
        if folder not in folders[: folders.index(newest) + 1][-keep:]:
            _remove(folder)


def _remove(path: Path) -> None:
    """Renamed first: a removal that is cut short must not leave a part under a checkpoint's name."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    doomed = (
        path if path.name.startswith(".partial-") else path.rename(path.with_name(f".partial-{path.name}-{os.getpid()}"))
    )
    shutil.rmtree(doomed)
