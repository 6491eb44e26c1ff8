"""The weights that a run begins with, where another run has trained them: `model.init`."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import NoInitialWeights
from vlmdsl.runtime.model import FlowModels, VisionLanguageModel
from vlmdsl.runtime.training.adaptation import without_adapters
from vlmdsl.runtime.training.checkpoint import WEIGHTS, checked, is_checkpoint, sound_checkpoint, take_over
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.source import Span

__all__ = ["initial_checkpoint", "take_initial_weights"]

_NOT_WEIGHTS = ("objective.state.", "teachers.")
"""Queues and means belong to the steps of a run, and teachers begin as copies of what they follow."""


def initial_checkpoint(path: str) -> Path:
    """The sound checkpoint that `model.init` names: the newest one of a run folder, or this one.

    Raises `DiagnosticError`: V0816 if there is no such folder, V0850 for a damaged file, V0863 without a checkpoint.
    """
    folder = Path(path)
    if is_checkpoint(folder):
        checked(folder)
        return folder
    checkpoint, _ = sound_checkpoint(RunFolder.existing(path).checkpoints)
    if checkpoint is None:
        raise _none(path, "the run has no complete checkpoint")
    return checkpoint


def take_initial_weights(checkpoint: Path, model: VisionLanguageModel | FlowModels) -> str:
    """Put the weights of a checkpoint into a model, where both have them; returns a note for people.

    Raises `DiagnosticError`: V0853 for a weight of another shape, V0863 if they have none in common.
    """
    with safe_open(checkpoint / WEIGHTS, framework="pt") as stored:
        names = {name for name in stored.keys() if not name.startswith(_NOT_WEIGHTS)}  # noqa: SIM118, it is not a mapping
    own = {name for name in model.state_dict() if not name.startswith(_NOT_WEIGHTS)}
    names |= {name for name in own if without_adapters(name) in names}
    if not names & own:
        raise _none(str(checkpoint), "it has no weight that the model of this recipe has")
    take_over(checkpoint, model, without=[name for name in model.state_dict() if name not in own])
    model.parts.begin_again()
    new = sorted({name.rpartition(".")[0] for name in own - names})
    rest = "" if not new else f"; {len(own - names)} others begin untrained, such as those of {new[0]}"
    return f"{len(names & own)} of {len(own)} tensors are from {checkpoint}{rest}"


def _none(path: str, reason: str) -> DiagnosticError:
    return DiagnosticError((NoInitialWeights.at(Span("<command line>", 0, 0), path=path, reason=reason),))
