"""Heads on pooled features: linear maps with batch norms and activations between them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch.collectives import all_reduce_sum, process_count
from vlmdsl.backends.torch.values import precise
from vlmdsl.ir import Head

__all__ = ["BatchNorm", "MultilayerHead"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class MultilayerHead(nn.Module):
    """The network that `head` describes, for features of `entering` numbers.

    Linear maps start as torch's own do: uniform within one over the root of the input width, as in the published PyTorch
    heads.
    """

    def __init__(self, head: Head, entering: int) -> None:
        super().__init__()
        self.head = head
        modules: list[nn.Module] = []
        for layer, (inputs, outputs) in enumerate(pairwise(head.widths(entering)), start=1):
            last = layer == head.layers
            modules.append(nn.Linear(inputs, outputs, bias=head.bias in ("all", "last" if last else "hidden")))
            norm = head.last_norm if last else head.norm
            if norm != "none":
                scale, offset = norm != "plain", norm == "batch"
                modules.append(BatchNorm(outputs, scale=scale, offset=offset, everybody=head.statistics == "global"))
            if not last:
                modules.append(_ACTIVATIONS[head.activation]())
        self.layers = nn.Sequential(*modules)

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """Features of several views, [b, D] each: each view separately, or all as one batch, as the head says."""
        if self.head.views == "each" or len(views) == 1:
            return [self.layers(view) for view in views]
        return list(self.layers(torch.cat(views)).split([view.shape[0] for view in views]))


class BatchNorm(nn.Module):
    """Features of mean 0 and variance 1 over the batch: (x - mean) / sqrt(variance + epsilon), then scale and offset.

    In training mode the statistics are those of the batch: of all processes' samples with the exact gradient through them
    (`everybody`), or of this process's own. In evaluation mode they are the running ones, which every training call moves by
    `momentum`; these are the same on all processes, and their variance is the unbiased one. Float32 at least, whatever x is.
    Source: Ioffe and Szegedy, 2015.

    >>> norm = BatchNorm(1, scale=True, offset=True, everybody=True, epsilon=0.0)
    >>> norm(torch.tensor([[1.0], [3.0]])).flatten().tolist()
    [-1.0, 1.0]
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(
        self, width: int, *, scale: bool, offset: bool, everybody: bool, momentum: float = 0.1, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width)) if scale else None
        self.offset = nn.Parameter(torch.zeros(width)) if offset else None
        self.everybody, self.momentum, self.epsilon = everybody, momentum, epsilon
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_variance", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """Features [b, D] to features of the same shape and dtype."""
        x = precise(features)
        if self.training:
            x, variance = self._centred(x)
        else:
            x, variance = x - self.running_mean, self.running_variance
        x = x * torch.rsqrt(variance + self.epsilon)
        if self.scale is not None:
            x = x * self.scale
        if self.offset is not None:
            x = x + self.offset
        return x.to(features.dtype)

    def _centred(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x minus its mean, and its variance [D]; the mean is subtracted first, or squares of large means would hide the
        variance."""
        total = all_reduce_sum if self.everybody else _own
        count = x.shape[0] * (process_count() if self.everybody else 1)
        mean = total(x.sum(dim=0)) / count
        centred = x - mean
        variance = total(centred.square().sum(dim=0)) / count
        self._remember(mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        return centred, variance

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if not self.everybody:
            mean, variance = (all_reduce_sum(value) / process_count() for value in (mean, variance))
        self.running_mean.lerp_(mean, self.momentum)
        self.running_variance.lerp_(variance, self.momentum)


def _own(value: Tensor) -> Tensor:
    return value
