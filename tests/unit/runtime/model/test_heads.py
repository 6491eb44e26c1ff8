"""Heads: the published modules' numbers, batch statistics, what is shared, and what a teacher of one follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vlmdsl
from batches import batch_of
from oracles.cases import DATA
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.ir import Encoder, Head, encoder_of
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.heads import BatchNorm, MultilayerHead
from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer
from vlmdsl.runtime.training.checkpoint import Position, load_checkpoint, save_checkpoint
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.runtime.values import Batch, ImageBatch
from vlmdsl.schema import OptimizerConfig

BYOL = """
recipe small(image: Image)
encoder online = project(vision, hidden=12, out=6)
encoder student = predict(online, hidden=5, last_norm="plain")
encoder target = ema(online, momentum=0.5, schedule="cosine", order="after")
let views = augment(image, n=2)
minimize {
  first: regress(student(views[0]), target(views[1]))
  second: regress(student(views[1]), target(views[0]))
  own: regress(student(views[0]), online(views[1]))
}
"""


def model(recipe: str = BYOL, steps: int = 4) -> VisionLanguageModel:
    torch.manual_seed(0)
    tower = VisionTransformer(VisionConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2), 8, ("pooled",))
    return VisionLanguageModel({"vision": tower}, vlmdsl.compile(recipe, compiled=False), steps=steps)


def batch(built: VisionLanguageModel, number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    names = [stream.name for stream in built.readings]
    return batch_of({name: ImageBatch(torch.rand(4, 3, 8, 8, generator=generator)) for name in names}, "abcd")


def optimizer_of(built: VisionLanguageModel) -> torch.optim.AdamW:
    return build_optimizer(built, OptimizerConfig(learning_rate=1e-2))


def train(built: VisionLanguageModel, optimizer: torch.optim.AdamW, first: int, last: int) -> list[float]:
    losses = []
    for number in range(first, last):
        out = built(batch(built, number))
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        built.after_step()
        losses.append(out.loss.item())
    return losses


def head(**settings: Any) -> Head:
    defaults = {"layers": 2, "hidden": 0, "out": 0, "norm": "batch", "last_norm": "none", "activation": "relu"}
    return Head(**{"name": "h", "bias": "all", "statistics": "global", "views": "each"} | defaults | settings)


def weights_into(module: MultilayerHead, arrays: dict[str, Tensor], prefix: str, gradients: bool = False) -> None:
    """The arrays of a torch Sequential of linear maps, batch norms and activations, as ours; or their gradients compared."""
    for position, layer in enumerate(module.layers):
        names = {"weight": "weight", "bias": "bias", "scale": "weight", "offset": "bias"}
        for name, parameter in layer.named_parameters():
            key = f"param__{prefix}__{position}__{names[name]}"
            if gradients:
                torch.testing.assert_close(parameter.grad, arrays[f"grad_{key}"], rtol=1e-7, atol=1e-9)
            else:
                parameter.data.copy_(arrays[key])


def test_simsiam_gives_the_numbers_of_the_authors_module() -> None:
    with np.load(DATA / "simsiam-module.npz") as stored:
        arrays = {name: torch.from_numpy(np.asarray(stored[name])) for name in stored.files}
    projector = MultilayerHead(head(layers=3, out=16, last_norm="plain", bias="none"), 12).double()
    predictor = MultilayerHead(head(hidden=6, bias="last"), 16).double()
    weights_into(projector, arrays, "encoder__fc")
    weights_into(predictor, arrays, "predictor")
    x = [arrays[name].requires_grad_() for name in ("x1", "x2")]
    z = projector(x)
    p = predictor(z)
    torch.testing.assert_close(z[0], arrays["out_z1"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(p[0], arrays["out_p1"], rtol=1e-9, atol=1e-12)
    objective = vlmdsl.compile("simsiam", compiled=False).double()
    names = [f"image_augment_moco_v2_{name}" for name in ("0_predict", "1_project", "1_predict", "0_project")]
    out = objective(**dict(zip(names, (p[0], z[1], p[1], z[0]), strict=True)))
    out.loss.backward()
    torch.testing.assert_close(out.loss.detach(), arrays["out_loss"], rtol=1e-9, atol=1e-12)
    for values, name in zip(x, ("grad_x1", "grad_x2"), strict=True):
        torch.testing.assert_close(values.grad, arrays[name], rtol=1e-7, atol=1e-9)
    weights_into(projector, arrays, "encoder__fc", gradients=True)
    weights_into(predictor, arrays, "predictor", gradients=True)


def test_a_batch_norm_is_torchs() -> None:
    ours, theirs = BatchNorm(3, scale=True, offset=True, everybody=True), nn.BatchNorm1d(3)
    x = 5 + 3 * torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)


def test_a_batch_norm_is_exact_far_from_zero_and_at_no_variance() -> None:
    """The mean of the squares minus the square of the mean would lose every digit here."""
    norm = BatchNorm(2, scale=False, offset=False, everybody=True)
    x = torch.tensor([[10_000.5, 7.0], [10_001.5, 7.0]])
    torch.testing.assert_close(norm(x), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), rtol=1e-4, atol=0)
    assert norm(x[:1]).isfinite().all()
    assert norm(x.bfloat16()).dtype is torch.bfloat16


@pytest.mark.parametrize("views", ["each", "joint"])
def test_views_have_statistics_of_their_own_or_one(views: str) -> None:
    module = MultilayerHead(head(views=views, last_norm="plain"), 4)
    first, second = torch.randn(6, 4), 3 + torch.randn(6, 4)
    means = torch.stack([output.mean(dim=0) for output in module([first, second])])
    if views == "each":
        torch.testing.assert_close(means, torch.zeros(2, 4), rtol=0, atol=1e-5)
    else:
        torch.testing.assert_close(means.sum(dim=0), torch.zeros(4), rtol=0, atol=1e-5)
        assert means[0].abs().max() > 0.1


def test_widths_and_biases_are_those_of_the_head() -> None:
    def shapes(**settings: Any) -> list[tuple[tuple[int, ...], bool]]:
        linear = [part for part in MultilayerHead(head(**settings), 4).layers if isinstance(part, nn.Linear)]
        return [(tuple(part.weight.shape), part.bias is not None) for part in linear]

    assert shapes(layers=3, hidden=7, out=2) == [((7, 4), True), ((7, 7), True), ((2, 7), True)]
    assert shapes(bias="hidden") == [((4, 4), True), ((4, 4), False)]
    assert shapes(bias="last", layers=1, out=3) == [((3, 4), True)]
    assert shapes(bias="none") == [((4, 4), False)] * 2
    assert Encoder("vision", "Image", heads=(head(out=9), head())).dimension(4) == 9


def test_a_tower_runs_once_and_a_head_once_per_view() -> None:
    built = model()
    calls: dict[str, list[int]] = {}
    modules = {"tower": built.encoders["vision"], **built.heads.parts, "teacher": built.teachers.copies["vision"]}
    for name, module in modules.items():
        size = (lambda args: len(args[0][0])) if name.startswith("vision") else (lambda args: len(args[0]))
        count = (lambda args: len(args[0])) if name.startswith("vision") else (lambda args: 1)
        module.register_forward_pre_hook(
            lambda _, args, name=name, size=size, count=count: calls.setdefault(name, []).append(count(args) * size(args))
        )
    built(batch(built, 0))
    assert calls == {"tower": [8], "vision_project": [8], "vision_predict": [8], "teacher": [8]}
    assert [stream.name for stream in built.streams] == [
        "image_augment_crop_0_predict",
        "image_augment_crop_1_project_teacher",
        "image_augment_crop_1_predict",
        "image_augment_crop_0_project_teacher",
        "image_augment_crop_1_project",
    ]


def test_a_teacher_follows_the_head_and_has_no_predictor() -> None:
    built = model(BYOL.replace('"cosine"', '"constant"'))
    assert built.teachers is not None
    (copied,) = built.teachers.heads.values()
    assert list(copied.parts) == ["vision_project"]
    own = [parameter.clone() for parameter in copied.parameters()]
    with torch.no_grad():
        for parameter in built.heads.parameters():
            parameter.add_(1.0)
    built(batch(built, 0))
    built.after_step()
    followed = built.heads.parts["vision_project"].parameters()
    for start, now, ahead in zip(own, copied.parameters(), followed, strict=True):
        torch.testing.assert_close(now, 0.5 * start + 0.5 * ahead)
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert copied.parts["vision_project"].training
    assert copied.parts["vision_project"].layers[1].running_mean.abs().sum() > 0


def test_heads_train_are_saved_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    whole_model = model()
    names = {name for group in optimizer_of(whole_model).param_groups for name in group["param_names"]}
    assert {"heads.parts.vision_project.layers.0.weight", "heads.parts.vision_predict.layers.0.weight"} <= names
    assert not any("teachers" in name for name in names)
    whole = train(whole_model, optimizer_of(whole_model), 0, 4)
    half = model()
    optimizer = optimizer_of(half)
    losses = train(half, optimizer, 0, 2)
    folder = save_checkpoint(tmp_path, half, optimizer, Position(2, 0, 2, seed=0))
    resumed = model()
    fresh = optimizer_of(resumed)
    load_checkpoint(folder, resumed, fresh)
    assert losses + train(resumed, fresh, 2, 4) == whole
    saved = whole_model.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in resumed.state_dict().items())
    assert "heads.parts.vision_project.layers.1.running_mean" in saved


def test_a_frozen_head_keeps_its_weights_and_its_running_statistics() -> None:
    recipe = """
recipe locked(image: Image)
encoder fixed = frozen(project(vision, out=6, name="fixed"))
encoder free = project(fixed, out=5, name="free")
let views = augment(image, n=2)
minimize contrast(free(views[0]), free(views[1]))
"""
    built = model(recipe).train()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    train(built, optimizer_of(built), 0, 2)
    changed = {name for name, value in built.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("vision_free" in name or name.startswith("objective") for name in changed)


def test_features_of_other_lengths_are_a_diagnostic() -> None:
    recipe = "recipe r(image: Image)\nlet v = augment(image, n=2)\nminimize contrast(project(vision, out=6)(v[0]), v[1])"
    with pytest.raises(DiagnosticError, match="V0832") as caught:
        model(recipe)
    assert "`image_augment_crop_0_project` 6, `image_augment_crop_1` 8" in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("contrast(project(vision)(image), text, sim=tokenmax)", "V0304"),
        ("contrast(project(ema(vision))(image), text)", "V0520"),
        ('contrast(project(vision, name="a b")(image), text)', "V0405"),
        ("contrast(project(image), text)", "V0301"),
        ("contrast(project(vision, layers=0)(image), text)", "V0405"),
    ],
)
def test_wrong_heads_are_diagnosed(expression: str, code: str) -> None:
    diagnostics = vlmdsl.check(f"recipe r(image: Image, text: Text)\nminimize {expression}")
    assert [diagnostic.code for diagnostic in diagnostics if diagnostic.severity == "error"] == [code]


def test_the_same_head_is_the_same_value() -> None:
    program = vlmdsl.compile(BYOL, compiled=False).program
    chains = {encoder_of(node).heads for node in program.nodes() if node.operation == "encode"}
    assert len(chains) == 2
