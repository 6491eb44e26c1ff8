"""A masked text from the loader through its tower to the criterion."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch.nn import functional

import vlmdsl
from vlmdsl.runtime.data import Batch, BatchLoader, ImageFormat, Requirement, map_fields, open_source
from vlmdsl.runtime.data.batch import NOT_ASKED
from vlmdsl.runtime.encoders import TextConfig, TextTransformer
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.training.checkpoint import Position, load_checkpoint, save_checkpoint
from vlmdsl.runtime.training.optimizer import build_optimizer
from vlmdsl.schema import OptimizerConfig

RECIPE = """
recipe masked(text: Text)
let hidden = mask(text, random(40%))
minimize {
  words: mlm(hidden)
  agree: contrast(hidden, text, temperature=0.1)
}
"""
TOKENIZER = train_tokenizer(["a large red circle", "two blue boxes"], 300).with_mask()


def batches(recipe: str, count: int, **options: int) -> list[Batch]:
    source = open_source("shapes:samples=40,size=20")
    objective = vlmdsl.compile(recipe, compiled=False)
    mapping = map_fields(source, [Requirement("text", "Text")])
    options = {"batch": 8, "seed": 3, **options}
    loader = BatchLoader(source, mapping, objective.streams, TOKENIZER, images=ImageFormat(16), text_length=24, **options)  # type: ignore[arg-type]
    return list(itertools.islice(loader, count))


def tower(yields: tuple[str, ...]) -> TextTransformer:
    torch.manual_seed(0)
    config = TextConfig(width=16, depth=1, heads=2, vocabulary_size=TOKENIZER.vocabulary_size, text_length=24)
    return TextTransformer(config, 8, yields)


def test_only_the_masked_stream_has_targets_and_both_processes_share_its_draws() -> None:
    (whole,) = batches(RECIPE, 1)
    assert whole.streams["text"].targets is None
    masked = whole.streams["text_mask"]
    asked = masked.targets != NOT_ASKED
    assert 0.2 < asked.float().sum() / masked.mask.sum() < 0.6
    assert torch.equal(masked.targets[asked], whole.streams["text"].values[asked])
    shares = [batches(RECIPE, 1, rank=rank, world=2)[0].streams["text_mask"] for rank in (0, 1)]
    assert torch.equal(torch.cat([share.values for share in shares]), masked.values)
    assert torch.equal(torch.cat([share.targets for share in shares]), masked.targets)
    later = batches(RECIPE, 2)[1].to("cpu").streams["text_mask"]
    assert later.targets is not None
    assert not torch.equal(later.targets, masked.targets)


def test_the_tower_is_asked_for_the_hidden_tokens() -> None:
    objective = vlmdsl.compile(RECIPE, compiled=False)
    language = tower(("pooled", "vocabulary"))
    model = VisionLanguageModel({"language": language}, objective)
    (batch,) = batches(RECIPE, 1)
    out = model(batch)
    masked = batch.streams["text_mask"]
    logits = language.vocabulary_head(language(masked.values, masked.mask).states)
    expected = functional.cross_entropy(logits.flatten(0, 1), masked.targets.flatten(), ignore_index=NOT_ASKED)
    torch.testing.assert_close(out.terms["words"], expected)
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in language.parameters())


def test_a_vocabulary_changes_no_other_weight_of_a_tower() -> None:
    plain, asked = tower(("pooled",)).state_dict(), tower(("pooled", "vocabulary")).state_dict()
    assert set(asked) - set(plain) == {"vocabulary_head.weight", "vocabulary_head.bias"}
    assert all(torch.equal(asked[name], value) for name, value in plain.items())


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    recipe = """
recipe queued(text: Text)
let masked = mask(text, random(40%))
let earlier = queue((text, masked), size=20)
minimize contrast(masked, nearest(each((text, masked)), earlier), directions="rows") + mlm(masked)
"""
    given = batches(recipe, 4)

    def made() -> tuple[VisionLanguageModel, torch.optim.AdamW]:
        objective = vlmdsl.compile(recipe, compiled=False)
        model = VisionLanguageModel({"language": tower(("pooled", "vocabulary"))}, objective)
        return model, build_optimizer(model, OptimizerConfig(learning_rate=1e-2))

    def train(model: VisionLanguageModel, optimizer: torch.optim.AdamW, part: list[Batch]) -> list[float]:
        losses = []
        for batch in part:
            loss = model(batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    whole = train(*made(), given)
    half = made()
    first = train(*half, given[:2])
    folder = save_checkpoint(tmp_path, *half, Position(2, 0, 2, seed=0))
    resumed = made()
    load_checkpoint(folder, *resumed)
    assert first + train(*resumed, given[2:]) == whole
