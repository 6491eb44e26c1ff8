"""The grouping tower: assignments, their noise, what a new segment is made of, and the segmentation map."""

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from vlmdsl.runtime.modules.towers import GroupingConfig, GroupingTransformer, build_encoder
from vlmdsl.runtime.modules.towers.grouping import GroupingBlock, hard_assignment

SMALL = GroupingConfig(image_size=16, patch_size=4, width=16, heads=2, depths=(1, 1, 1), groups=(6, 3))


def tower(yields=("pooled", "tokens")):
    torch.manual_seed(0)
    return GroupingTransformer(SMALL, 8, yields).double()


def gumbel(*shape, seed=1):
    uniform = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -(-uniform.log()).log()


def images(count=3, side=16):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_the_authors_shape():
    with torch.device("meta"):
        small = build_encoder("groupvit:small", "Image", dimension=256)
    assert (small.config.depths, small.config.groups, small.config.width) == ((6, 3, 3), (64, 8), 384)
    assert (small.config.patch_size, small.config.heads, small.image_format.size) == (16, 6, 224)
    assert [len(stage.blocks) for stage in small.stages] == [6, 3, 3]
    assert small.noise_length == 64 * 196 + 8 * 64


def test_noise_draws_from_the_softmax_over_groups():
    logits = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)[:, None].expand(3, 20_000)
    shares = hard_assignment(logits, gumbel(3, 20_000)).mean(dim=1)
    torch.testing.assert_close(shares, logits[:, 0].softmax(dim=0), atol=0.015, rtol=0)


def test_the_gradient_is_that_of_the_softmax_with_its_noise():
    logits, noise, weights = gumbel(2, 4, 5, seed=3), gumbel(2, 4, 5), gumbel(2, 4, 5, seed=4)

    def gradient(assign):
        own = logits.clone().requires_grad_()
        (assign(own) * weights).sum().backward()
        return own.grad

    expected = gradient(lambda own: (own + noise).softmax(dim=1))
    torch.testing.assert_close(gradient(lambda own: hard_assignment(own, noise)), expected)


def test_a_new_segment_is_the_sum_of_the_values_of_its_own_over_their_count_and_one():
    torch.manual_seed(0)
    block = GroupingBlock(width=4, heads=1, groups=2).double()
    block.output = nn.Identity()
    nn.init.zeros_(block.new_feed_forward.output.weight)  # leaves the query and what was gathered
    nn.init.zeros_(block.new_feed_forward.output.bias)
    groups, segments = images(1)[0, :, :2, :4], images(1)[0, :, :5, :4]
    grouped, assignment = block(groups, segments)
    nn.init.zeros_(block.key_value.weight)
    nn.init.zeros_(block.key_value.bias)
    queries, _ = block(groups, segments)
    torch.manual_seed(0)
    fresh = GroupingBlock(width=4, heads=1, groups=2).double()
    values = fresh.key_value(fresh.segment_norm(segments))[..., 4:]
    for sample in range(len(values)):
        for group in range(2):
            own = values[sample][assignment[sample, group] > 0.5]
            torch.testing.assert_close(grouped[sample, group] - queries[sample, group], own.sum(dim=0) / (len(own) + 1))


@pytest.mark.parametrize("yields", [("pooled",), ("tokens",), ("pooled", "tokens")])
def test_every_parameter_gets_a_gradient_with_noise(yields):
    encoder = tower(yields)
    features = encoder(images(), noise=gumbel(3, encoder.noise_length))
    sum(part.square().sum() for part in (features.pooled, features.tokens) if part is not None).backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_the_pooled_feature_is_the_mean_of_the_final_segments():
    encoder = tower()
    encoder.token_projection.load_state_dict(encoder.pooled_projection.state_dict())
    features = encoder(images())
    assert features.tokens.shape == (3, 3, 8)
    torch.testing.assert_close(features.pooled, features.tokens.mean(dim=1))


def test_noise_is_of_training_only_and_of_its_own_sample():
    encoder, shown = tower(), images()
    noise = gumbel(3, encoder.noise_length)
    other = torch.cat([noise[:2], gumbel(1, encoder.noise_length, seed=5)])
    drawn, changed, likeliest = encoder(shown, noise=noise), encoder(shown, noise=other), encoder(shown)
    torch.testing.assert_close(drawn.pooled[:2], changed.pooled[:2])
    assert not torch.allclose(drawn.pooled[2], changed.pooled[2])
    assert not torch.allclose(drawn.pooled, likeliest.pooled)
    evaluated = encoder.eval()(shown, noise=noise)
    assert evaluated.pooled.equal(likeliest.pooled)
    with pytest.raises(ValueError, match="numbers of noise"):
        encoder.train()(shown, noise=noise[:, :-1])


def test_smaller_images_and_dropped_patches_are_grouped_too():
    encoder = tower()
    noise = gumbel(3, encoder.noise_length)
    kept = torch.arange(15, -1, -1).expand(3, -1)
    assert encoder(images(side=8), noise=noise).tokens.shape == (3, 3, 8)
    assert encoder(images(), keep=kept[:, :5], noise=noise).tokens.shape == (3, 3, 8)
    torch.testing.assert_close(encoder(images(), keep=kept).pooled, encoder(images()).pooled)  # order does not matter


def test_the_segmentation_map_follows_patches_through_all_groupings():
    encoder, shown = tower(), images()
    _, (first, second) = encoder._grouped(shown)
    groups, objects = encoder.segment(shown, level=0), encoder.segment(shown)
    assert groups.shape == objects.shape == (3, 4, 4)
    assert encoder.segment(images(side=24)).shape == (3, 6, 6)
    for sample in range(3):
        for row in range(4):
            for column in range(4):
                group = first[sample, :, 4 * row + column].tolist().index(1.0)
                assert groups[sample, row, column] == group
                assert objects[sample, row, column] == second[sample, :, group].tolist().index(1.0)


@pytest.mark.parametrize(("depths", "groups"), [((1, 1), (4, 2)), ((1,), ())])
def test_stages_and_groups_must_fit(depths, groups):
    with pytest.raises(ValueError, match="groups"):
        GroupingConfig(16, 4, width=16, heads=2, depths=depths, groups=groups)


def test_one_graph_without_breaks_whatever_the_noise():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    encoder = tower()
    compiled = torch.compile(encoder, backend=counter, fullgraph=True)
    for seed in range(3):
        noise = gumbel(3, encoder.noise_length, seed=seed)
        assert compiled(images(), noise=noise).pooled.equal(encoder(images(), noise=noise).pooled)
    assert counter.frame_count == 1
    torch._dynamo.reset()
