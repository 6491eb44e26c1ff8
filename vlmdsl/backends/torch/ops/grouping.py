"""Groups of patches: means over segments, and how far two assignments are from each other."""

from __future__ import annotations

from torch import Tensor

from vlmdsl.backends.torch.ops.criteria import mean
from vlmdsl.backends.torch.values import precise

__all__ = ["assignment_divergence", "segment_mean"]


def segment_mean(assignment: Tensor, segments: Tensor) -> Tensor:
    """For each patch the mean of `assignment` [b, P, G] over the patches of the image that are in its segment: [b, P, G].

    `segments` [b, P] are numbers of any kind; patches of equal numbers are in one segment.

    >>> import torch
    >>> segment_mean(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]]), torch.tensor([[4, 4, 7]]))[0].tolist()
    [[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]
    """
    assignment = precise(assignment)
    same = (segments[:, :, None] == segments[:, None, :]).to(assignment.dtype)
    return same @ assignment / same.sum(dim=2, keepdim=True)


def assignment_divergence(p: Tensor, q: Tensor) -> Tensor:
    """The mean over samples of all processes, patches and groups of `(KL(p || q) + KL(q || p)) / 2`: 0-d.

    `p` and `q` [b, P, G] are turned into distributions over groups by a softmax, whatever numbers they are. Gradients flow
    to both. Source: the released code of SegCLIP (Luo et al., ICML 2023).

    >>> import torch
    >>> assignment_divergence(torch.eye(2)[None], torch.eye(2)[None]).item()
    0.0
    """
    log_p, log_q = (precise(part).log_softmax(dim=-1) for part in (p, q))
    # The two divergences add up to one sum, in which every term is at least 0.
    both = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).mean(dim=(1, 2))
    return mean(both) / 2
