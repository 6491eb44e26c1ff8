"""The tower with learned centres: its shape, its assignment, the states of patches, and what is frozen."""

import pytest
import torch

from vlmdsl.runtime.modules.towers import VisionConfig, build_encoder
from vlmdsl.runtime.modules.towers.segclip import CentreConfig, CentreTransformer

ALL = ("pooled", "tokens", "states", "assignment")
SMALL = CentreConfig(VisionConfig(image_size=16, patch_size=4, width=16, depth=2, heads=2), centres=3)


def tower(yields=ALL):
    torch.manual_seed(0)
    return CentreTransformer(SMALL, 8, yields).double()


def gumbel(count, length):
    uniform = torch.rand(count, length, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return -(-uniform.log()).log()


def images(count=3, side=16):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_the_authors_shape():
    with torch.device("meta"):
        base = build_encoder("segclip:base", "Image", 512, ALL)
    assert (len(base.transformer.blocks), len(base.group_transformer.blocks)) == (10, 2)
    assert (base.config.centres, base.noise_length, base.states_width) == (8, 8 * 196, 768)
    assert (len(base.grouping.blocks), len(base.restoring.blocks)) == (2, 2)


def test_a_plain_tower_groups_where_the_recipe_asks_for_an_assignment():
    encoder = build_encoder("vit:tiny", "Image", 8, ("pooled", "assignment"), separate_patches=True)
    assert isinstance(encoder, CentreTransformer)
    assert not encoder.overlapping_patches
    assert "`segclip:tiny`" in " ".join(encoder.notes)


def test_every_patch_is_in_one_group_whose_state_it_takes():
    encoder = tower().eval()
    features = encoder(images())
    assert features.assignment.shape == (3, 16, 3)
    assert torch.equal(features.assignment.sum(dim=2), torch.ones(3, 16, dtype=torch.float64))
    assert torch.equal(features.assignment.argmax(dim=2), encoder.segment(images()).flatten(1))
    assert features.tokens.shape == (3, 3, 8)
    torch.testing.assert_close(features.states[:, 0], features.states[:, 1:].mean(dim=1))
    assert features.states.shape == (3, 17, 16)


def test_the_pooled_feature_has_the_largest_number_of_any_group():
    encoder = tower().eval()
    seen = []
    encoder.group_transformer.register_forward_hook(lambda module, arguments, output: seen.append(output))
    pooled = encoder(images()).pooled
    largest = encoder.pooled_projection(encoder.pooled_norm(seen[0].max(dim=1).values))
    assert torch.equal(pooled, largest)


def test_states_of_patches_are_of_groups_before_the_blocks_on_groups():
    encoder = tower().eval()
    before = encoder(images())
    with torch.no_grad():
        for weight in encoder.group_transformer.parameters():
            weight.add_(1)
    after = encoder(images())
    assert torch.equal(after.states, before.states)
    assert not torch.equal(after.pooled, before.pooled)


def test_a_patch_first_takes_the_group_that_it_is_assigned_to():
    restoring = tower().restoring
    restoring.blocks = torch.nn.ModuleList()
    groups = images()[:, 0, :3]
    states = restoring(groups, torch.eye(3, dtype=torch.float64)[[2, 0]].T.expand(3, 3, 2))
    own = groups[:, [2, 0]]
    torch.testing.assert_close(states[:, 1:], own * torch.sigmoid(1.702 * own))


@pytest.mark.parametrize("yields", [("pooled",), ("tokens",), ("states",), ALL])
def test_every_parameter_but_the_stem_gets_a_gradient(yields):
    encoder = tower(yields).train()
    features = encoder(images(), noise=gumbel(3, encoder.noise_length))
    weights = [torch.randn(part.shape, dtype=part.dtype) for part in features if part is not None]
    sum((part * by).sum() for part, by in zip((p for p in features if p is not None), weights, strict=True)).backward()
    without = {name for name, weight in encoder.named_parameters() if weight.grad is None}
    assert without == {name for name, _ in encoder.named_parameters() if name.startswith("stem.")}


def test_noise_is_of_training_only():
    encoder, noise = tower().eval(), gumbel(3, SMALL.centres * 16)
    plain = encoder(images())
    assert all(torch.equal(one, other) for one, other in zip(plain[:2], encoder(images(), noise=noise)[:2], strict=True))
    drawn = encoder.train()(images(), noise=5 * noise)
    assert not torch.equal(drawn.assignment, plain.assignment)


def test_dropped_patches_are_left_out():
    encoder = tower().eval()
    keep = torch.tensor([[0, 5, 10], [1, 2, 3], [15, 14, 13]])
    features = encoder(images(), keep=keep)
    assert (features.assignment.shape, features.states.shape) == ((3, 3, 3), (3, 4, 16))
    changed = images()
    changed[:, :, 4:8, 8:12] += 1  # patch 6, which no image keeps
    assert torch.equal(encoder(changed, keep=keep).pooled, features.pooled)


def test_there_is_one_grouping():
    with pytest.raises(IndexError, match="one grouping"):
        tower().segment(images(), level=1)
