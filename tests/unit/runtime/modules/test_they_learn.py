"""Modules put together as their papers do, on a few samples: the loss falls, and what it should read is read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmdsl.backends.torch import ops
from vlmdsl.ir.modules import FusionSettings, LinearSettings, PixelDecoderSettings, PoolerSettings, TextDecoderSettings
from vlmdsl.runtime.modules import AttentionalPooler, Fusion, LinearHead, PixelDecoder, TextDecoder
from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer
from vlmdsl.runtime.values import KeptPatches, kept

WORDS, LENGTH, WIDTH = 12, 5, 16


def images() -> Tensor:
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def vision() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(VisionConfig(image_size=16, patch_size=4, width=WIDTH, depth=1, heads=2), WIDTH, ("tokens",))


def texts() -> tuple[Tensor, Tensor]:
    """One caption for each image, after the word 0 that all begin with."""
    random = torch.Generator().manual_seed(2)
    ids = torch.randint(1, WORDS, (6, LENGTH), generator=random)
    ids[:, 0] = 0
    return ids, torch.arange(LENGTH) < torch.tensor([5, 4, 5, 3, 5, 4])[:, None]


def train(parts: list[nn.Module], loss: object, steps: int, rate: float = 1e-2) -> list[float]:
    """The losses of some steps of Adam."""
    assert callable(loss)
    optimizer = torch.optim.Adam(nn.ModuleList(parts).parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def test_masked_pixels_are_learned_from_the_patches_that_are_kept() -> None:
    """MAE on images whose patches are all alike: the dropped ones are those that are kept."""
    tower, decoder = vision(), PixelDecoder(PixelDecoderSettings(patch=4, depth=1, width=32, heads=2), WIDTH, 16)
    pictures = images()[:, :, :4, :4].repeat(1, 1, 4, 4)
    noise = torch.rand(6, 16, generator=torch.Generator().manual_seed(3)).numpy()
    keep = torch.stack([torch.from_numpy(kept(row, 0.75)) for row in noise])
    hidden = KeptPatches(keep).dropped(16)
    target = ops.pixels(pictures, 4, normalised="patch")

    def loss() -> Tensor:
        return ops.reconstruct(decoder(tower(pictures, keep=keep).tokens, keep), target, hidden)

    losses = train([tower, decoder], loss, 80)
    assert losses[0] > 0.9
    assert losses[-1] < 0.2 * losses[0]


def test_captions_are_learned_in_the_light_of_their_images() -> None:
    """CoCa's captioner: pooled image tokens, a decoder whose upper half sees them, a head with the weight of the
    embedding."""
    tower, pooler = vision(), AttentionalPooler(PoolerSettings(queries=4, heads=2), WIDTH)
    decoder = TextDecoder(TextDecoderSettings(depth=2, heads=2, cross_from=0.5, class_token=True), WORDS, LENGTH, WIDTH)
    head = LinearHead(LinearSettings(tied=True), WIDTH, WORDS, decoder.embedding.weight)
    ids, mask = texts()
    targets = torch.where(mask, ids, -1)[:, 1:]

    def loss(order: Tensor | None = None) -> Tensor:
        context = pooler(tower(images() if order is None else images()[order]).tokens)
        states = decoder(ids, mask, context).tokens[:, :-1]
        return ops.linear_cross_entropy(head(states, product=False), head.weight, targets, head.bias)

    losses = train([tower, pooler, decoder], loss, 100)
    assert losses[0] > 2.0
    assert losses[-1] < 0.2
    assert loss(torch.tensor([1, 2, 3, 4, 5, 0])) > 2.0


def test_masked_words_are_learned_in_the_light_of_their_images() -> None:
    """ALBEF's masked language modelling: all words but the first are masked, so that only the image tells them."""
    tower, embedding = vision(), nn.Embedding(WORDS, WIDTH)
    fusion = Fusion(FusionSettings("cross", depth=2, heads=2), WIDTH, WIDTH)
    head = LinearHead(LinearSettings(transform=True), WIDTH, WORDS)
    positions = nn.Embedding(LENGTH, WIDTH)
    ids, mask = texts()
    targets = torch.where(mask, ids, -1)
    targets[:, 0] = -1

    def loss() -> Tensor:
        states = embedding(torch.zeros_like(ids)) + positions.weight
        fused = fusion(states, mask, tower(images()).tokens).tokens
        return ops.linear_cross_entropy(head(fused, product=False), head.weight, targets, head.bias)

    losses = train([tower, embedding, positions, fusion, head], loss, 100)
    assert losses[0] > 2.0
    assert losses[-1] < 0.3


def test_which_texts_are_those_of_their_images_is_learned() -> None:
    """ALBEF's matching, of every text with every image: the class token of all texts is the same, so that its state must
    come from both."""
    tower, embedding, positions = vision(), nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
    fusion, head = Fusion(FusionSettings("cross", depth=2, heads=2), WIDTH, WIDTH), nn.Linear(WIDTH, 2)
    ids, mask = texts()
    text, image = torch.arange(6).repeat(6), torch.arange(6).repeat_interleave(6)
    chosen = torch.cat([torch.arange(36), *[torch.arange(0, 36, 7)] * 4])
    text, image = text[chosen], image[chosen]

    def logits() -> Tensor:
        states = nn.functional.layer_norm(embedding(ids) + positions.weight, (WIDTH,))
        pooled = fusion(states[text], mask[text], tower(images()).tokens[image]).pooled
        assert pooled is not None
        answers: Tensor = head(pooled)
        return answers

    losses = train([tower, embedding, positions, fusion, head], lambda: ops.matching(logits(), text == image), 120, 3e-3)
    # With first weights that hide the image beside the text it is ln 2 all the time.
    assert losses[-1] < 0.1
    with torch.no_grad():
        right = (logits().argmax(dim=1) == 1) == (text == image)
    assert right[text == image].float().mean() > 0.9
    assert right[text != image].float().mean() > 0.9
