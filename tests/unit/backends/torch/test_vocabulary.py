"""The chunked linear cross-entropy against torch's own, which holds all logits: values, gradients, precision, masks."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.ops import vocabulary
from vlmdsl.testing.gradients import assert_same_gradients, check_gradients, value_and_gradients

SAMPLES, LENGTH, WIDTH, SIZE = 4, 5, 3, 11
NO_TEACHER = (None, None, None, None)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few tokens in each chunk as can be, so that there are several, and the last one is not full."""
    monkeypatch.setattr(vocabulary, "CHUNK_ENTRIES", 1)
    counted = int((arguments()["targets"] >= 0).sum())
    assert counted > 2 * WIDTH
    assert counted % WIDTH


def arguments(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random tokens of which some do not count, the whole first sample among them."""
    random = torch.Generator().manual_seed(0)
    targets = torch.randint(SIZE, (SAMPLES, LENGTH), generator=random)
    targets[torch.rand(SAMPLES, LENGTH, generator=random) < 0.3] = -100
    targets[0] = -1
    return {
        "states": torch.randn(SAMPLES, LENGTH, WIDTH, generator=random, dtype=dtype),
        "weight": torch.randn(SIZE, WIDTH, generator=random, dtype=dtype),
        "bias": torch.randn(SIZE, generator=random, dtype=dtype),
        "weights": torch.rand(SAMPLES, LENGTH, generator=random, dtype=dtype),
        "targets": targets,
    }


def by_torch(
    states: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, weights: Tensor, reduction: str, smoothing: float
) -> Tensor:
    """The same number from all logits at once."""
    logits = F.linear(states, weight, bias).flatten(0, 1)
    counted = targets >= 0
    losses = F.cross_entropy(
        logits, torch.where(counted, targets, -1).flatten(), ignore_index=-1, label_smoothing=smoothing, reduction="none"
    )
    total, weights = losses.view_as(targets) * weights, weights * counted
    if reduction == "token":
        return total.sum() / weights.sum()
    return (total.sum(dim=1) / weights.sum(dim=1).clamp(min=1e-30)).mean()


@pytest.mark.parametrize("reduction", ["token", "sample"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_every_gradient_are_those_of_all_logits(reduction: str, smoothing: float) -> None:
    options = {"reduction": reduction, "smoothing": smoothing}
    assert_same_gradients(partial(ops.linear_cross_entropy, **options), partial(by_torch, **options), arguments())


@pytest.mark.parametrize("share", [0.4, torch.tensor(0.4, requires_grad=True)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_teacher_may_have_a_share_of_each_target(share: float | Tensor, smoothing: float) -> None:
    """As ALBEF distils: (1 - share) times the loss of the tokens and share times that of the teacher's softmax."""
    inputs = arguments()
    own = {name: inputs[name] for name in ("states", "weight", "bias", "weights")}
    torch.manual_seed(1)
    teacher = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(SAMPLES, LENGTH, 7), (SIZE, 7), SIZE]
    ]
    counted = inputs["targets"] >= 0

    def reference(states: Tensor, weight: Tensor, bias: Tensor, weights: Tensor) -> Tensor:
        hard = by_torch(states, weight, inputs["targets"], bias, weights, "token", smoothing)
        soft = F.linear(*teacher).softmax(dim=-1).detach()
        losses = -(soft * F.linear(states, weight, bias).log_softmax(dim=-1)).sum(dim=-1)
        return 0.6 * hard + 0.4 * (losses * weights)[counted].sum() / weights[counted].sum()

    soft = ops.SoftTargets(share, *teacher)
    function = partial(ops.linear_cross_entropy, targets=inputs["targets"], smoothing=smoothing, soft=soft)
    assert_same_gradients(function, reference, own, tolerance=1e-10 if isinstance(share, float) else 1e-7)
    poisoned = teacher[0].detach().masked_fill(~counted[:, :, None], torch.nan)
    assert function(**own, soft=soft._replace(states=poisoned)) == function(**own)


def test_the_mean_over_tokens_is_torchs() -> None:
    inputs = arguments()
    plain = F.cross_entropy(
        F.linear(inputs["states"], inputs["weight"]).flatten(0, 1),
        inputs["targets"].clamp(min=-1).flatten(),
        ignore_index=-1,
    )
    loss = ops.linear_cross_entropy(inputs["states"].flatten(0, 1), inputs["weight"], inputs["targets"].flatten())
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=0)


def test_smoothing_over_the_others_leaves_the_target_its_whole_share() -> None:
    """As big_vision's `weighted_softmax_xent` smooths: 1 - e on the target and e / (V - 1) on every other entry."""
    inputs = arguments()
    counted = inputs["targets"] >= 0
    shares = torch.full((int(counted.sum()), SIZE), 0.2 / (SIZE - 1), dtype=torch.float64)
    shares.scatter_(1, inputs["targets"][counted][:, None], 0.8)

    def reference(states: Tensor, weight: Tensor) -> Tensor:
        return -(shares * (states @ weight.T)[counted].log_softmax(dim=1)).sum(dim=1).mean()

    function = partial(ops.linear_cross_entropy, targets=inputs["targets"], smoothing=0.2, over="others")
    assert_same_gradients(function, reference, {"states": inputs["states"], "weight": inputs["weight"]})


@pytest.mark.parametrize("reduction", ["token", "sample"])
def test_finite_differences(reduction: str) -> None:
    inputs = {name: value[1:3] if value.dim() > 1 and name != "weight" else value for name, value in arguments().items()}
    check_gradients(partial(ops.linear_cross_entropy, reduction=reduction, smoothing=0.1), inputs)


def test_a_token_that_does_not_count_may_hold_anything() -> None:
    inputs = arguments()
    clean, gradients = value_and_gradients(ops.linear_cross_entropy, inputs)
    ignored = inputs["targets"] < 0
    poisoned = inputs | {
        "states": inputs["states"].masked_fill(ignored[:, :, None], torch.nan),
        "weights": inputs["weights"].masked_fill(ignored, torch.nan),
    }
    loss, poisoned_gradients = value_and_gradients(ops.linear_cross_entropy, poisoned)
    assert loss == clean
    for name, gradient in gradients.items():
        assert torch.equal(poisoned_gradients[name], gradient), name
    assert not poisoned_gradients["states"][ignored].any()


@pytest.mark.parametrize("reduction", ["token", "sample"])
def test_no_token_at_all_has_no_loss_and_no_gradient(reduction: str) -> None:
    inputs = arguments() | {"targets": torch.full((SAMPLES, LENGTH), -1)}
    loss, gradients = value_and_gradients(partial(ops.linear_cross_entropy, reduction=reduction), inputs)
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("frozen", ["states", "weight", "bias", "all"])
def test_what_does_not_learn_gets_no_gradient_and_changes_no_other(frozen: str) -> None:
    inputs = {name: arguments()[name] for name in ("states", "weight", "bias", "targets")}
    _, expected = value_and_gradients(ops.linear_cross_entropy, inputs)
    for name in expected:
        inputs[name].requires_grad_(frozen not in (name, "all"))
    loss = ops.linear_cross_entropy(**inputs)
    assert loss.requires_grad == (frozen != "all")
    if frozen != "all":
        loss.backward()
    for name, gradient in expected.items():
        learned = inputs[name].grad
        assert (learned is None) if frozen in (name, "all") else torch.equal(learned, gradient), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision_is_float64_rounded(dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loss scale as for float16; the shares of so many tokens are below what it can hold with any precision."""
    monkeypatch.setattr(vocabulary, "CHUNK_ENTRIES", 1 << 20)
    inputs = {name: arguments()[name] for name in ("states", "weight", "targets")}
    inputs["states"] = inputs["states"].repeat(20_000, 1, 1)
    inputs["targets"] = inputs["targets"].repeat(20_000, 1)
    halves = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}

    def scaled(**tensors: Tensor) -> Tensor:
        return ops.linear_cross_entropy(**tensors) * 2.0**10

    loss, gradients = value_and_gradients(scaled, halves)
    exact = {name: value.double() if value.is_floating_point() else value for name, value in halves.items()}
    expected, exact_gradients = value_and_gradients(scaled, exact)
    assert loss.dtype is torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=tolerance, atol=0)
    for name, gradient in gradients.items():
        assert gradient.dtype is dtype
        largest = exact_gradients[name].abs().max().item()
        torch.testing.assert_close(gradient.double(), exact_gradients[name], rtol=tolerance, atol=tolerance * largest)


class Largest(TorchDispatchMode):
    """Remembers how many entries the largest tensor has that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, Tensor):
                self.entries = max(self.entries, part.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_logits_are_never_whole_in_memory(dtype: torch.dtype) -> None:
    """A chunk of them, the states and the gradient of the weight are the largest tensors there are."""
    tokens, width, size = 300, 8, 50
    states, weight = torch.randn(tokens, width, dtype=dtype), torch.randn(size, width, dtype=dtype)
    shares = torch.full((tokens,), 1 / tokens, dtype=torch.promote_types(dtype, torch.float32))
    with Largest() as largest:
        vocabulary.weighted_cross_entropy._init_fn(
            states, weight, None, torch.randint(size, (tokens,)), shares, 1.0, 0.0, *NO_TEACHER, True, True, False
        )
    assert largest.entries == max(tokens * width, size * width) < tokens * size / 6


def test_large_logits_stay_exact() -> None:
    states, weight = torch.tensor([[1e4, 0.0]], requires_grad=True), torch.eye(2)
    loss = ops.linear_cross_entropy(states, weight, torch.tensor([1]))
    loss.backward()
    assert loss.item() == 1e4
    assert states.grad.tolist() == [[1.0, -1.0]]


def test_compiled_in_one_graph_it_gives_the_same() -> None:
    inputs = {name: value.requires_grad_(value.is_floating_point()) for name, value in arguments().items()}
    names = ("states", "weight", "bias", "weights")

    def step(**tensors: Tensor) -> Tensor:
        return 2.0 * ops.linear_cross_entropy(**tensors, smoothing=0.1)

    expected = torch.autograd.grad(step(**inputs), [inputs[name] for name in names])
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for gradient, reference in zip(
        torch.autograd.grad(compiled(**inputs), [inputs[name] for name in names]), expected, strict=True
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-14)


def test_the_operator_is_what_it_tells_the_compiler() -> None:
    inputs = arguments()
    tensors = inputs["states"].flatten(0, 1), inputs["weight"], inputs["bias"], inputs["targets"].flatten()
    learning = [value.detach().requires_grad_() if value.is_floating_point() else value for value in tensors]
    shares = torch.rand(SAMPLES * LENGTH, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor(0.4).double(), tensors[0].flip(0), tensors[1].flip(0), tensors[2]
    operator = torch.ops.vlmdsl.weighted_cross_entropy.default
    torch.library.opcheck(operator, (*learning, shares, 0.9, 0.1 / SIZE, *teacher, True, True, True))
    torch.library.opcheck(
        operator, (*tensors[:2], None, tensors[3], shares.detach(), 1.0, 0.0, *NO_TEACHER, False, False, False)
    )


def test_on_the_meta_device_there_are_shapes() -> None:
    inputs = {name: value.to("meta") for name, value in arguments().items()}
    states = inputs["states"].requires_grad_()
    loss = ops.linear_cross_entropy(**inputs)
    loss.backward()
    assert loss.shape == ()
    assert states.grad.shape == states.shape


def test_a_second_derivative_is_refused() -> None:
    inputs = arguments()
    states = inputs["states"].requires_grad_()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(ops.linear_cross_entropy(states, inputs["weight"], inputs["targets"]), states, create_graph=True)


@pytest.mark.parametrize(("shape", "reduction"), [((4, 6), "token"), ((20,), "token"), ((4,), "sample")])
def test_shapes_that_do_not_belong_together_are_refused(shape: tuple[int, ...], reduction: str) -> None:
    states = torch.zeros(4, WIDTH) if reduction == "sample" else arguments()["states"]
    with pytest.raises(ValueError, match="do not go with targets"):
        ops.linear_cross_entropy(states, arguments()["weight"], torch.zeros(shape, dtype=torch.int64), reduction=reduction)
