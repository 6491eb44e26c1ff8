"""What the adapters to other libraries share: which families there are, new projections, and what gets no gradient.

Adapters import their library when a tower is built, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import EncoderDoesNotFit
from vlmdsl.diagnostics.catalog.environment import PackageMissing, PretrainedModelMissing
from vlmdsl.runtime.modules.towers.contract import Encoder
from vlmdsl.source import Span

__all__ = ["PatchGate", "library", "loading", "new_projection", "refused", "without_unused", "working"]

_HERE = Span("encoders", 0, 0)
_LONGEST_MESSAGE = 300


def library(package: str, extra: str, what: str) -> ModuleType:
    """The library that `what` needs; V0901 where it is not installed, or cannot be imported here."""
    try:
        return import_module(package)
    except (ImportError, RuntimeError, OSError) as error:
        notes = () if isinstance(error, ModuleNotFoundError) and error.name == package else (f"it says: {_said(error)}",)
        missing = PackageMissing.at(
            _HERE, what=what, package=package, notes=notes, help=(f"`pip install 'vlmdsl[{extra}]'` installs it",)
        )
        raise DiagnosticError((missing,)) from error


@contextmanager
def loading(name: str, package: str, *help_texts: str) -> Iterator[None]:
    """Turns whatever a library raises while it makes the model called `name` into V0902."""
    try:
        yield
    except DiagnosticError:
        raise
    except Exception as error:  # the library raises whatever a damaged or foreign file provokes
        note = f"{package} says: {_said(error)}"
        missing = PretrainedModelMissing.at(_HERE, name=name, notes=(note,), help=help_texts)
        raise DiagnosticError((missing,)) from error


@contextmanager
def working(name: str, model: nn.Module) -> Iterator[None]:
    """Evaluation mode without drawing random numbers of others; whatever the model raises is V0831."""
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except DiagnosticError:
        raise
    except Exception as error:
        raise refused(name, f"cannot be used: {type(error).__name__}: {_said(error)}") from error
    finally:
        model.train(training)


def refused(name: str, problem: str, *help_texts: str) -> DiagnosticError:
    """V0831: the encoder called `name` cannot be used for this."""
    fault: Diagnostic = EncoderDoesNotFit.at(_HERE, name=name, problem=problem, help=help_texts)
    return DiagnosticError((fault,))


def new_projection(encoder: Encoder, features: Tensor, what: str) -> nn.Module:
    """From features of a pretrained model to the encoder's dimension: nothing where they agree, else a new linear map,
    which is noted."""
    width = features.shape[-1]
    if width == encoder.dimension:
        return nn.Identity()
    encoder.notes += (
        f"outputs {what} features of dimension {width}: a new linear layer projects them to {encoder.dimension}",
    )
    return nn.Linear(width, encoder.dimension, bias=False)


def without_unused(encoder: Encoder, example: tuple[Tensor, ...]) -> None:
    """No gradient for parameters that the outputs do not depend on (a pooler where only tokens are compared): one that never
    comes would stop distributed training."""
    with torch.enable_grad():
        features = encoder(*example)
        words = None if encoder.vocabulary_head is None else encoder.vocabulary_head(features.states)
        outputs = (features.pooled, features.tokens, features.states, words)
        total = torch.stack([part.sum() for part in outputs if part is not None]).sum()
        parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


class PatchGate:
    """Lets only some patches into the blocks of a vision transformer of another library.

    The first block is given `before` tokens that are not patches, then the patches that were kept, with the positions that
    they have in the image. Whether a model works so is measured, not known from its name: `fits`.
    """

    def __init__(self, block: nn.Module, before: int) -> None:
        self._before = before
        self._kept: Tensor | None = None
        self._entered: Tensor | None = None
        self._hook = block.register_forward_pre_hook(self._enter, with_kwargs=True)

    @contextmanager
    def keeping(self, indices: Tensor | None) -> Iterator[None]:
        """Within this, only the patches at `indices [b, K]` enter; None: all."""
        self._kept = indices
        try:
            yield
        finally:
            self._kept = None

    def fits(self, encode: Callable[[Tensor, Tensor | None], Tensor], images: Tensor, patches: int) -> bool:
        """Whether dropped patches change nothing but their absence: all patches, given in another order, have the same
        features in that order, and fewer patches are fewer features. `encode` gives the tokens of patches.

        A model that does not work so is left as it was.
        """
        order = torch.arange(patches - 1, -1, -1).expand(len(images), -1)
        try:
            whole, turned, fewer = encode(images, None), encode(images, order), encode(images, order[:, : patches // 2])
            same = whole.shape == turned.shape and fewer.shape[1] == patches // 2
            if same and torch.allclose(whole.flip(1), turned, rtol=1e-3, atol=1e-4):
                return True
        except Exception:  # a model that counts its tokens raises whatever it does
            self._kept = None
        self._hook.remove()
        return False

    def overlaps(self, encode: Callable[[Tensor, Tensor | None], Tensor], images: Tensor, patch: int) -> bool:
        """Whether an embedded patch holds pixels of others: a change of the first patch changes another."""
        changed = images.clone()
        changed[:, :, :patch, :patch] += 1
        entered = []
        for pixels in (images, changed):
            encode(pixels, None)
            assert self._entered is not None
            entered.append(self._entered[:, self._before + 1 :])
        self._entered = None
        return not torch.equal(*entered)

    def _enter(self, block: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any] | None:
        tokens = arguments[0] if arguments else options["hidden_states"]
        if not torch.is_grad_enabled() and self._kept is None:
            self._entered = tokens
        if self._kept is None:
            return None
        fewer = self._some(tokens, self._kept)
        return ((fewer, *arguments[1:]), options) if arguments else ((), {**options, "hidden_states": fewer})

    def _some(self, tokens: Tensor, kept: Tensor) -> Tensor:
        places = kept[:, :, None].expand(-1, -1, tokens.shape[-1]) + self._before
        return torch.cat([tokens[:, : self._before], tokens.gather(1, places)], dim=1)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:_LONGEST_MESSAGE]
