"""A model of a few hundred weights that is trained as the real one is: dropout, a temperature, a global contrastive loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from batches import batch_of
from vlmdsl.backends.torch.collectives import all_gather, own_slice
from vlmdsl.runtime.values import Batch, ImageBatch, TextBatch
from vlmdsl.schema import RunConfig, load_config

__all__ = ["TinyModel", "TwoTerms", "batches", "config"]


class Objective(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, image: Tensor, text: Tensor) -> SimpleNamespace:
        logits = self.log_scale.exp() * image @ text.T
        labels = torch.arange(len(image))
        loss = (nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)) / 2
        return SimpleNamespace(
            loss=loss, terms={"contrast": loss.detach()}, metrics={"temperature": 1 / self.log_scale.exp()}
        )

    def after_step(self) -> None:
        self.log_scale.data.clamp_(max=math.log(100))
        self.steps += 1


class TinyModel(nn.Module):
    """`dropout` makes it depend on the generators; `double` computes in float64."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.language = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
        self.vision = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(3 * 4 * 4, 8))
        self.objective = Objective()

    def forward(self, batch: Batch) -> SimpleNamespace:
        image = self.vision(batch.values["image"].pixels.to(self.objective.log_scale.dtype))
        text = self.language(self.embedding(batch.values["text"].ids).mean(1))
        return self.objective(*(all_gather(nn.functional.normalize(features, dim=-1)) for features in (image, text)))

    def after_step(self) -> None:
        self.objective.after_step()


class TwoTerms(TinyModel):
    """The same with a second term, which depends on the temperature alone."""

    def __init__(self) -> None:
        super().__init__()
        self.objective.program = SimpleNamespace(terms=[SimpleNamespace(name=name) for name in ("contrast", "scale")])

    def forward(self, batch: Batch) -> SimpleNamespace:
        output = super().forward(batch)
        terms = {"contrast": output.loss, "scale": 0.1 * self.objective.log_scale.square()}
        return SimpleNamespace(loss=sum(terms.values()), terms=terms, metrics=output.metrics)


def batches(size: int, start: int = 0) -> Iterator[Batch]:
    """This process's share of batch `start`, `start + 1`, ...: each a function of its number."""
    step = start
    while True:
        draws = torch.Generator().manual_seed(step)
        image = own_slice(torch.rand(size, 3, 4, 4, generator=draws))
        text = own_slice(torch.randint(30, (size, 5), generator=draws))
        yield batch_of(
            {"image": ImageBatch(image), "text": TextBatch(text, torch.ones_like(text, dtype=torch.bool))},
            map(str, range(len(image))),
        )
        step += 1


def config(**overrides: object) -> RunConfig:
    """A configuration of ten steps of eight samples; `train_steps=3` sets `train.steps`."""
    settings = {
        "train_steps": 10,
        "train_batch": 8,
        "train_compile": False,
        "train_log_every": 1,
        "schedule_warmup_steps": 2,
    }
    names = {name.replace("_", ".", 1): value for name, value in (settings | overrides).items()}
    run_config, diagnostics = load_config(flags=names)
    assert run_config is not None, diagnostics
    return run_config
