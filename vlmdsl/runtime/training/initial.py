"""The weights that a run begins with, where another run has trained them: `model.init`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import safe_open

from vlmdsl.backends.torch.objective import Objective
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import NoInitialWeights
from vlmdsl.runtime.model import FlowModels, VisionLanguageModel
from vlmdsl.runtime.modules.towers import is_pretrained
from vlmdsl.runtime.tokenizer import Tokenizers, train_tokenizer
from vlmdsl.runtime.training.adaptation import without_adapters
from vlmdsl.runtime.training.checkpoint import AS_TRAINED, WEIGHTS, checked, is_checkpoint, sound_checkpoint, take_over
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.runtime.training.tokenizers import stored_tokenizers, text_towers, with_masks
from vlmdsl.schema import ModelConfig
from vlmdsl.source import Span

__all__ = ["initial_checkpoint", "initial_tokenizers", "take_initial_weights"]

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


def initial_tokenizers(
    checkpoint: Path, objectives: Sequence[Objective], config: ModelConfig, new: Callable[[], Tokenizers]
) -> Tokenizers:
    """The tokenizers of the checkpoint, but `new` ones for text towers whose weights it lacks where these have one of their
    own, or where it has learned no words, as a run of images alone."""
    stored, names = stored_tokenizers(checkpoint), _weights_of(checkpoint)
    towers = {tower: name for objective in objectives for tower, name in text_towers(objective, config).items()}
    new_towers = {tower for tower in towers if not any(name.startswith(f"encoders.{tower}.") for name in names)}
    others = {
        tower
        for tower in new_towers
        if config.tokenizer or is_pretrained(towers[tower]) or stored[tower].vocabulary.keys() <= _bytes_alone()
    }
    if others:
        own = new()
        stored = Tokenizers(stored.default, {tower: (own if tower in others else stored)[tower] for tower in towers})
    return with_masks(stored, objectives, config)


def _bytes_alone() -> set[str]:
    """The tokens of a tokenizer that has seen no text."""
    return set(train_tokenizer(()).with_mask().vocabulary)


def take_initial_weights(checkpoint: Path, model: VisionLanguageModel | FlowModels) -> str:
    """Put the weights of a checkpoint into a model, where both have them; returns a note for people.

    Raises `DiagnosticError`: V0853 for a weight of another shape, V0863 if they have none in common.
    """
    names = _weights_of(checkpoint)
    own = {name for name in model.state_dict() if not name.startswith(_NOT_WEIGHTS)}
    names |= {name for name in own if without_adapters(name) in names}
    if not names & own:
        raise _none(str(checkpoint), "it has no weight that the model of this recipe has")
    take_over(checkpoint, model, without=[name for name in model.state_dict() if name not in own], help=AS_TRAINED)
    model.parts.begin_again()
    new = sorted({name.rpartition(".")[0] for name in own - names})
    rest = "" if not new else f"; {len(own - names)} others begin untrained, such as those of {new[0]}"
    return f"{len(names & own)} of {len(own)} tensors are from {checkpoint}{rest}"


def _weights_of(checkpoint: Path) -> set[str]:
    """The names of the weights that a run can begin with."""
    with safe_open(checkpoint / WEIGHTS, framework="pt") as stored:
        return {name for name in stored.keys() if not name.startswith(_NOT_WEIGHTS)}  # noqa: SIM118, it is not a mapping


def _none(path: str, reason: str) -> DiagnosticError:
    return DiagnosticError((NoInitialWeights.at(Span("<command line>", 0, 0), path=path, reason=reason),))
