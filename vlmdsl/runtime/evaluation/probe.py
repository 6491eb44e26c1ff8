"""The linear probe: the accuracy of a linear classifier on features that are not trained for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vlmdsl.runtime.evaluation.retrieval import Measures

__all__ = ["linear_probe_accuracy"]

_ROUNDING = 1e-6


def linear_probe_accuracy(
    features: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor, ridge: float = 1e-3
) -> Measures | None:
    """How often a linear classifier, fitted to `features [n, D]` with `labels [n]`, names the class of held-out ones.

    It is ridge regression to one number per class, 1 for the right one and 0 for the others: closed form, so the result is a
    function of the features alone. Each of the D features is standardised as it is distributed over the n; the penalty on
    the square of the weights, not of the constants, is `ridge` times n. A class of equal score that comes later is a miss.
    Held-out images of a class that none of the n has are left out, since no classifier could name it; None if all are.
    Chance is the share of the most frequent class of the others. The result's `facts` say how many images of how many
    `classes` it was `fitted` to, how many `images` it was measured on, and how many were `left_out`.

    >>> features, labels = torch.tensor([[0.0], [1.0], [9.0], [8.0]]), torch.tensor([3, 3, 5, 5])
    >>> linear_probe_accuracy(features, labels, torch.tensor([[2.0], [7.0]]), torch.tensor([3, 5])).values
    {'top-1': 1.0}
    """
    classes, own = labels.unique(return_inverse=True)
    nameable = torch.isin(held_out_labels, classes)
    held_out, held_out_labels = held_out[nameable], held_out_labels[nameable]
    if not len(held_out):
        return None
    fitted = features.double()
    centre, spread = fitted.mean(dim=0), fitted.std(dim=0, correction=0)
    # Variation within the rounding of float32 is noise, and must not be amplified.
    spread = torch.where(spread > _ROUNDING * fitted.abs().amax(), spread, torch.inf)
    inputs = (fitted - centre) / spread
    targets = functional.one_hot(own, len(classes)).double()
    constants = targets.mean(dim=0)
    moments = inputs.T @ inputs + ridge * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(moments, inputs.T @ (targets - constants))
    scores = (held_out.double() - centre) / spread @ weights + constants
    right = classes[scores.argmax(dim=1)] == held_out_labels
    frequent = held_out_labels.unique(return_counts=True)[1].max().item()
    left_out = int((~nameable).sum())
    facts = {"classes": len(classes), "fitted": len(labels), "images": len(held_out), "left_out": left_out}
    return Measures({"top-1": right.double().mean().item()}, {"top-1": frequent / len(held_out)}, facts)
