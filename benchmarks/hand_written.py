"""Losses as they are usually written by hand in plain torch, not compiled: what plans and objectives are compared with.

Each takes what the objective of the bundled recipe of its name takes, features before they are normalised, and gives its
value; a test compares them. `learned` gives the numbers that are learned. One process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["HAND_WRITTEN", "learned", "usual", "usual_siglip", "usual_tokenmax"]

Numbers = Mapping[str, Tensor]


def usual(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss of unit vectors: two products, two cross-entropies."""
    positions = torch.arange(x.shape[0], device=x.device)
    by_row, by_column = scale * x @ y.T, scale * y @ x.T
    return (F.cross_entropy(by_row, positions) + F.cross_entropy(by_column, positions)) / 2


def usual_siglip(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The sigmoid loss of unit vectors: labels of 1 and -1."""
    logits = scale * x @ y.T + bias
    labels = 2 * torch.eye(x.shape[0], dtype=x.dtype) - torch.ones_like(logits)
    return -F.logsigmoid(labels * logits).sum() / x.shape[0]


def usual_tokenmax(x: Tensor, y: Tensor, scale: Tensor, real: Tensor) -> Tensor:
    """CLIP's loss over FILIP's two matrices, of unit vectors: all pairs of tokens by `einsum`, then both maxima."""
    values = torch.einsum("ipd,jld->ijpl", x, y).masked_fill(~real[None, :, None, :], -torch.inf)
    rows = values.max(dim=3).values.mean(dim=2)
    best = values.max(dim=2).values.masked_fill(~real[None], 0.0)
    columns = best.sum(dim=2) / real.sum(dim=1)
    positions = torch.arange(x.shape[0])
    return (F.cross_entropy(scale * rows, positions) + F.cross_entropy(scale * columns.T, positions)) / 2


def clip(numbers: Numbers, image: Tensor, text: Tensor) -> Tensor:
    """CLIP's loss."""
    return usual(F.normalize(image, dim=-1), F.normalize(text, dim=-1), numbers["scale"])


def siglip(numbers: Numbers, image: Tensor, text: Tensor) -> Tensor:
    """The sigmoid loss, with a matrix of labels."""
    return usual_siglip(F.normalize(image, dim=-1), F.normalize(text, dim=-1), numbers["scale"], numbers["bias"])


def filip(numbers: Numbers, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor, image_mask: Tensor) -> Tensor:
    """FILIP's loss. Images have no padding: their mask is not read."""
    return usual_tokenmax(F.normalize(image_tokens, dim=-1), F.normalize(text_tokens, dim=-1), numbers["scale"], text_mask)


def otter(numbers: Numbers, image: Tensor, text: Tensor, image_teacher: Tensor, text_teacher: Tensor) -> Tensor:
    """CLIP's loss, and the Kullback-Leibler divergence from the transport plan of a teacher."""
    x, y = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    with torch.no_grad():
        by_row, by_column = _plans(F.normalize(image_teacher, dim=-1), F.normalize(text_teacher, dim=-1))
    hard = 2 * usual(x, y, numbers["hard_scale"])
    soft_scale = numbers["soft_scale"]
    soft = F.kl_div(F.log_softmax(soft_scale * x @ y.T, dim=1), by_row, reduction="batchmean")
    soft = soft + F.kl_div(F.log_softmax(soft_scale * y @ x.T, dim=1), by_column, reduction="batchmean")
    return 0.5 * hard + 0.5 * soft


def _plans(image: Tensor, text: Tensor, epsilon: float = 0.15, iterations: int = 5) -> tuple[Tensor, Tensor]:
    """Sinkhorn's plan of each direction: what agrees, a sample excluded from its own, scaled until rows sum to one."""
    own = image @ image.T + text @ text.T
    affinity = own.fill_diagonal_(0.0) + image @ text.T
    affinity.fill_diagonal_(-torch.inf)
    return _sinkhorn(affinity, epsilon, iterations), _sinkhorn(affinity.T, epsilon, iterations)


def _sinkhorn(affinity: Tensor, epsilon: float, iterations: int) -> Tensor:
    kernel = torch.exp(affinity / epsilon)
    rows = 1 / kernel.sum(dim=1)
    for _ in range(iterations):
        columns = 1 / (rows @ kernel)
        rows = 1 / (kernel @ columns)
    return rows[:, None] * kernel * columns


def declip(
    numbers: Numbers,
    image_augment_declip_0: Tensor,
    image_augment_declip_1: Tensor,
    text_masked: Tensor,
    text_eda: Tensor,
    text_masked_vocabulary: Tensor,
    text_masked_targets: Tensor,
    image_augment_declip_0_predict: Tensor,
    image_augment_declip_1_predict: Tensor,
    image_augment_declip_0_project: Tensor,
    image_augment_declip_1_project: Tensor,
) -> Tensor:
    """DeCLIP's loss: CLIP's of four pairs of views, SimSiam's, masked language modelling, and the nearest texts of a queue,
    which it writes to."""
    images = [F.normalize(view, dim=-1) for view in (image_augment_declip_0, image_augment_declip_1)]
    texts = [F.normalize(view, dim=-1) for view in (text_masked, text_eda)]
    queue, scale = numbers["queue"], numbers["scale"]
    pairs = [usual(image, text, scale) for image in images for text in texts]
    positions = torch.arange(len(text_masked), device=text_masked.device)
    nearest = [_nearest(text.detach(), queue) for text in texts]
    neighbours = [F.cross_entropy(scale * image @ text.T, positions) for image in images for text in nearest]
    regression = _cosine(image_augment_declip_0_predict, image_augment_declip_1_project)
    regression = regression + _cosine(image_augment_declip_1_predict, image_augment_declip_0_project)
    words = F.cross_entropy(text_masked_vocabulary.flatten(0, 1), text_masked_targets.flatten())
    with torch.no_grad():
        for text in (texts[1], texts[0]):
            _enqueue(numbers, text)
    return 0.1 * sum(pairs) + 0.1 * regression + 0.2 * words + 0.05 * sum(neighbours)  # type: ignore[return-value]


def _nearest(text: Tensor, queue: Tensor) -> Tensor:
    return queue[(text @ queue.T).argmax(dim=1)]


def _enqueue(numbers: Numbers, text: Tensor) -> None:
    """Overwrite the oldest texts; as usual the size of the queue is a multiple of the batch's."""
    start, queue = int(numbers["start"]), numbers["queue"]
    queue[start : start + len(text)] = text
    numbers["start"].fill_((start + len(text)) % len(queue))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return -F.cosine_similarity(x, y.detach(), dim=-1).mean()


HAND_WRITTEN: dict[str, Callable[..., Tensor]] = {
    "clip": clip,
    "siglip": siglip,
    "filip": filip,
    "otter": otter,
    "declip": declip,
}
"""The losses by the names of recipes."""


def learned(recipe: str, dim: int, size: int = 0) -> dict[str, Tensor]:
    """What a loss learns, or keeps, as the recipes start."""
    scales = {
        "clip": {"scale": 1 / 0.07},
        "siglip": {"scale": 1 / 0.1, "bias": -10.0},
        "filip": {"scale": 1 / 0.07},
        "otter": {"hard_scale": 1 / 0.020242, "soft_scale": 1 / 0.020242},
        "declip": {"scale": 1 / 0.049787},
    }[recipe]
    numbers = {name: torch.tensor(value, requires_grad=True) for name, value in scales.items()}
    if size:
        numbers |= {"queue": F.normalize(torch.randn(size, dim), dim=-1), "start": torch.tensor(0)}
    return numbers
