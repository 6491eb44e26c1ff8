"""A plug-in of each kind, written as another package would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import vlmdsl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlmdsl.backends.torch.ops.plugins import Rows
    from vlmdsl.backends.torch.values import TokenFeatures
    from vlmdsl.runtime.modules.towers import Request


@vlmdsl.primitive(
    kind="criterion",
    takes=("Tokens", "Tokens"),
    normalized=True,
    laws=("permutation", "non_negative"),
    formula=r"\frac{1}{|x_i|} \sum_k \max(0, m - \max_l x_{ik}^\top y_{il})",
)
def token_margin(x: TokenFeatures, y: TokenFeatures, *, margin: float = 0.5) -> Tensor:
    """By how much the best match of each token falls short of a margin, on average."""
    best = (x.values @ y.values.transpose(1, 2)).amax(dim=2)
    short = (margin - best).clamp(min=0.0)
    return short.mean(dim=1) if x.mask is None else (short * x.mask).sum(dim=1) / x.mask.sum(dim=1).clamp(min=1)


@vlmdsl.primitive(
    kind="criterion", takes=("Sim", "Target"), laws=("permutation", "non_negative"), formula=r"(T_{ij} - S_{ij})^2"
)
def squares(matrix: Rows, shares: Tensor) -> Tensor:
    """The squared differences of a row and its target, over its candidates."""
    return ((shares - matrix.values).square() * matrix.candidates).sum(dim=1)


@vlmdsl.primitive(
    kind="target",
    takes=("Score",),
    laws=("permutation", "swap"),
    formula=r"e^{-|a_i - a_j| / w}",
    example=(
        "recipe near(image: Image, text: Text, age: Number)\n"
        "minimize contrast(image, text, targets=nearby(age, width=2.0), temperature=0.5)"
    ),
)
def nearby(x: Tensor, y: Tensor, *, width: float = 1.0) -> Tensor:
    """Pairs whose numbers are near each other belong together."""
    return (-(x[:, None] - y[None, :]).abs() / width).exp()


@vlmdsl.primitive(
    kind="target",
    takes=("Score",),
    formula=r"[a_j \geq a_i]",
    example=(
        "recipe above(image: Image, text: Text, age: Number)\n"
        "minimize contrast(image, text, targets=upwards(age), temperature=0.5)"
    ),
)
def upwards(x: Tensor, y: Tensor) -> Tensor:
    """Every row chooses what has at least its number: no transpose of its own."""
    return (y[None, :] >= x[:, None]).to(x.dtype)


@vlmdsl.primitive(
    kind="criterion", takes=("Logits", "Codes"), laws=("permutation", "non_negative"), formula=r"-(1 - p_t)^\gamma \log p_t"
)
def focused_words(logits: Tensor, targets: Tensor, *, focus: float = 2.0) -> Tensor:
    """A cross-entropy in which tokens that are predicted well count less."""
    log = logits.log_softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
    return -((1 - log.exp()) ** focus) * log


@vlmdsl.primitive(kind="mask", formula=r"M_i = \{ k_0, \ldots, k_0 + n \}")
def one_span(selectable: np.ndarray, random: np.random.Generator, *, share: float = 0.15) -> np.ndarray:
    """One run of neighbouring tokens."""
    places = selectable.nonzero()[0]
    length = max(round(share * len(places)), 1)
    start = random.integers(max(len(places) - length + 1, 1))
    selected = selectable & False
    selected[places[start : start + length]] = True
    return selected


@vlmdsl.primitive(kind="mask", takes=("Image",))
def one_square(patches: tuple[int, int], random: np.random.Generator, *, share: float = 0.5) -> np.ndarray:
    """The patches around a random one, nearest first."""
    rows, columns = np.indices(patches)
    row, column = (random.integers(size) for size in patches)
    return -np.hypot(rows - row, columns - column)


@vlmdsl.primitive(kind="module", takes=("Image",))
def averages(request: Request) -> nn.Module:
    """A tower that sees the mean colour of an image only."""
    from unit.plugins.tower import Averages

    return Averages(request)


@vlmdsl.primitive(kind="fusion", formula=r"t_{il} + A \bar x_i")
def added_context(states_width: int, context_width: int, *, times: float = 1.0) -> nn.Module:
    """The states of a text plus a linear map of the mean of its image's."""
    from unit.plugins.tower import AddedContext

    return AddedContext(states_width, context_width, times)
