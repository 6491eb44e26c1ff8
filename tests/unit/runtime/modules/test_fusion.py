"""Fusion of texts with images: shapes, masks, padding, what is causal, parts of the stack, gradients, first weights."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from vlmdsl.ir.modules import FusionSettings, block_range
from vlmdsl.runtime.modules import Fusion, SequenceFeatures, fusion
from vlmdsl.runtime.values import tuples

TEXT, IMAGE, STATES, CONTEXT = 5, 4, 6, 10
SETTINGS = {
    "cross": FusionSettings("cross", depth=2, heads=2),
    "cross, learned token, other width": FusionSettings("cross", depth=2, width=8, heads=2, pooled="learned"),
    "merged": FusionSettings("merged", depth=2, heads=2),
    "merged, learned token, other width": FusionSettings("merged", depth=2, width=8, heads=2, pooled="learned"),
}
every_kind = pytest.mark.parametrize("kind", SETTINGS)
CROSS = [kind for kind in SETTINGS if kind.startswith("cross")]


def module_of(kind: str, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    module = fusion(replace(SETTINGS[kind], **changes), STATES, CONTEXT).double()
    for parameter in module.parameters():  # weights as small as at the start would hide what is wrong
        nn.init.normal_(parameter, std=0.4)
    return module


def inputs() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        "states": torch.randn(3, TEXT, STATES, generator=random, dtype=torch.float64),
        "mask": torch.arange(TEXT) < torch.tensor([TEXT, 3, 1])[:, None],
        "context": torch.randn(3, IMAGE, CONTEXT, generator=random, dtype=torch.float64),
        "context_mask": torch.arange(IMAGE) < torch.tensor([2, IMAGE, 3])[:, None],
    }


def real_parts(features: SequenceFeatures, context_mask: Tensor | None = None) -> list[Tensor]:
    """What means something: pooled features and the states of real tokens, sample by sample."""
    assert features.pooled is not None
    parts = [features.pooled, features.tokens if features.mask is None else features.tokens[features.mask]]
    if features.context is not None:
        parts.append(features.context if context_mask is None else features.context[context_mask])
    return parts


def assert_close(tensors: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(tensors, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@every_kind
def test_shapes(kind: str) -> None:
    width = SETTINGS[kind].width or STATES
    features = module_of(kind)(**inputs())
    assert features.tokens.shape == (3, TEXT, width)
    assert features.pooled.shape == (3, width)
    assert features.mask is not None
    assert features.context is None if kind in CROSS else features.context.shape == (3, IMAGE, width)


@every_kind
def test_padding_may_be_anything_and_gets_no_gradient(kind: str) -> None:
    module, arguments = module_of(kind), inputs()
    expected = module(**arguments)
    poisoned = arguments | {
        "states": arguments["states"].masked_fill(~arguments["mask"][:, :, None], torch.nan).requires_grad_(),
        "context": arguments["context"].masked_fill(~arguments["context_mask"][:, :, None], torch.nan).requires_grad_(),
    }
    features = module(**poisoned)
    parts = real_parts(features, arguments["context_mask"])
    assert_close(parts, real_parts(expected, arguments["context_mask"]))
    assert features.tokens.isfinite().all()
    sum(part.square().sum() for part in parts).backward()
    for name, mask in {"states": "mask", "context": "context_mask"}.items():
        assert not poisoned[name].grad[~arguments[mask]].any()
        assert poisoned[name].grad[arguments[mask]].isfinite().all()
        assert poisoned[name].grad[arguments[mask]].any()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, {}) for kind in SETTINGS]
    + [(kind, {"causal": True}) for kind in CROSS]
    + [(kind, {"causal": True, "prefix": torch.tensor([2, 1, 4])}) for kind in CROSS],
)
def test_longer_padding_and_none_give_the_same_features(kind: str, options: dict[str, object]) -> None:
    module, arguments = module_of(kind), inputs()
    expected = module(**arguments, **options)
    longer = {
        "states": torch.cat([arguments["states"], torch.ones(3, 2, STATES)], dim=1),
        "mask": torch.cat([arguments["mask"], torch.zeros(3, 2, dtype=torch.bool)], dim=1),
        "context": torch.cat([arguments["context"], torch.ones(3, 3, CONTEXT)], dim=1),
        "context_mask": torch.cat([arguments["context_mask"], torch.zeros(3, 3, dtype=torch.bool)], dim=1),
    }
    assert_close(
        real_parts(module(**longer, **options), longer["context_mask"]), real_parts(expected, arguments["context_mask"])
    )
    alone = module(
        arguments["states"][1:2, :3], None, arguments["context"][1:2], None,
        **{name: value[1:2] if isinstance(value, Tensor) else value for name, value in options.items()},
    )  # fmt: skip
    torch.testing.assert_close(alone.pooled, expected.pooled[1:2])
    torch.testing.assert_close(alone.tokens, expected.tokens[1:2, :3])


@every_kind
def test_an_empty_text_and_an_empty_context_have_finite_features(kind: str) -> None:
    arguments = inputs()
    arguments["mask"][0], arguments["context_mask"][1] = False, False
    features = module_of(kind)(**arguments)
    assert features.pooled.isfinite().all()
    assert features.tokens.isfinite().all()


def test_an_empty_text_is_read_as_one_token_of_zeros() -> None:
    module, arguments = module_of("cross"), inputs()
    empty = module(**arguments | {"mask": torch.zeros(3, TEXT, dtype=torch.bool)}).pooled
    one = module(**arguments | {"states": torch.zeros(3, 1, STATES).double(), "mask": None}).pooled
    torch.testing.assert_close(empty, one)


@pytest.mark.parametrize("kind", CROSS)
def test_an_empty_context_is_read_as_one_token_of_zeros(kind: str) -> None:
    module, arguments = module_of(kind), inputs()
    empty = module(**arguments | {"context_mask": torch.zeros(3, IMAGE, dtype=torch.bool)})
    assert_close(
        real_parts(empty),
        real_parts(module(**arguments | {"context": torch.zeros(3, 1, CONTEXT).double(), "context_mask": None})),
    )


@pytest.mark.parametrize("kind", CROSS)
def test_a_causal_token_is_blind_to_what_follows_but_for_the_prefix(kind: str) -> None:
    module, arguments = module_of(kind), inputs() | {"mask": None}
    changed = arguments["states"].clone()
    changed[:, 3] += torch.arange(STATES)

    def unchanged(**options: object) -> list[bool]:
        one, other = module(**arguments, **options).tokens, module(**arguments | {"states": changed}, **options).tokens
        return torch.isclose(one, other).all(dim=-1).all(dim=0).tolist()

    assert unchanged() == [False] * TEXT
    assert unchanged(causal=True) == [True, True, True, False, False]
    assert unchanged(causal=True, prefix=torch.tensor([2, 2, 2])) == [True, True, True, False, False]
    assert unchanged(causal=True, prefix=torch.tensor([4, 4, 4])) == [False] * TEXT


def test_the_learned_token_sees_the_whole_text_though_it_is_causal() -> None:
    module, arguments = module_of(CROSS[1]), inputs()
    changed = arguments["states"].clone()
    changed[0, TEXT - 1] += torch.arange(STATES)
    one, other = module(**arguments, causal=True).pooled, module(**arguments | {"states": changed}, causal=True).pooled
    assert not torch.isclose(one[0], other[0]).any()
    assert torch.equal(one[1:], other[1:])


@pytest.mark.parametrize("kind", CROSS)
def test_without_a_context_the_text_is_read_alone(kind: str) -> None:
    module, arguments = module_of(kind), inputs()
    alone = module(arguments["states"], arguments["mask"])
    for block in module.transformer.blocks:
        nn.init.zeros_(block.cross_attention.output.weight)
        nn.init.zeros_(block.cross_attention.output.bias)
    assert_close(real_parts(module(**arguments)), real_parts(alone))


def test_two_calls_through_parts_of_the_blocks_are_one_through_all() -> None:
    module, arguments = module_of("cross"), inputs()
    lower = module(arguments["states"], arguments["mask"], blocks=(0.0, 0.5))
    upper = module(lower.tokens, arguments["mask"], arguments["context"], arguments["context_mask"], blocks=(0.5, 1.0))
    for block in module.transformer.blocks[:1]:
        nn.init.zeros_(block.cross_attention.output.weight)
        nn.init.zeros_(block.cross_attention.output.bias)
    assert_close(real_parts(upper), real_parts(module(**arguments)))


def test_states_of_the_modules_own_width_pass_by_the_adapter() -> None:
    module = module_of("cross, learned token, other width")
    assert module(torch.randn(1, 2, 8, dtype=torch.float64), blocks=(0.5, 1.0)).tokens.shape == (1, 2, 8)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [((0.0, 1.0), range(12)), ((0.5, 1.0), range(6, 12)), ((0.0, 0.5), range(6)), ((1.0, 1.0), range(11, 12))],
)
def test_shares_of_a_stack(blocks: tuple[float, float], expected: range) -> None:
    assert block_range(12, blocks) == expected


@every_kind
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    module, arguments = module_of(kind, depth=1), inputs()
    states, context = arguments["states"][1:, :3].requires_grad_(), arguments["context"][1:].requires_grad_()

    def function(states: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        mask, context_mask = arguments["mask"][1:, :3], arguments["context_mask"][1:]
        return tuple(real_parts(module(states, mask, context, context_mask), context_mask))

    assert torch.autograd.gradcheck(function, (states, context), fast_mode=True)


@every_kind
@pytest.mark.parametrize("gated", [False, True])
def test_first_weights_keep_the_variance_of_what_they_multiply(kind: str, gated: bool) -> None:
    torch.manual_seed(0)
    module = fusion(replace(SETTINGS[kind], width=64, gated=gated), STATES, CONTEXT)
    for name, parameter in module.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name
        elif name.endswith(("bias", "gate")):
            assert not parameter.any(), name
        elif name == "pooled_token":
            assert 0.7 * 0.02 < parameter.std().item() < 1.3 * 0.02, name
        else:
            added = name.startswith("transformer") and ".output." in name
            terms = 2 * (3 if kind.startswith("cross") else 2) if added else 1
            deviation = parameter.std().item() * (terms * parameter.shape[1]) ** 0.5
            assert 0.8 < deviation < 1.2, name


@every_kind
@pytest.mark.parametrize("width", [64, 256])
def test_another_image_changes_the_pooled_features_from_the_first_step_on(kind: str, width: int) -> None:
    """Beside states of variance 1, what cross-attention adds may not vanish, whatever the width: matching would have no
    gradient to begin with."""
    torch.manual_seed(0)
    module = fusion(replace(SETTINGS[kind], width=0 if "other" not in kind else width, depth=2, heads=2), width, width)
    states, images = torch.randn(2, 32, TEXT, width), torch.randn(32, 16, width)
    with torch.no_grad():
        # The first tokens are alike in all texts.
        states[:, :, 0] = states[0, 0, 0]
        pooled, other_image, other_text = (
            module(text, None, context).pooled
            for text, context in ((states[0], images), (states[0], images.roll(1, 0)), (states[1], images))
        )
    by_image, by_text = ((pooled - other).norm() for other in (other_image, other_text))
    assert by_image > 0.05 * pooled.norm()
    assert by_image > 0.2 * by_text


@every_kind
def test_on_the_meta_device_there_are_shapes(kind: str) -> None:
    with torch.device("meta"):
        module = fusion(SETTINGS[kind], STATES, CONTEXT)
    arguments = {name: value.to("meta") for name, value in inputs().items()}
    arguments |= {name: arguments[name].float() for name in ("states", "context")}
    assert module(**arguments).pooled.shape == (3, module.transformer.norm.normalized_shape[0])


class Texts(NamedTuple):
    """What a call of a fusion takes of texts."""

    states: Tensor
    mask: Tensor

    @property
    def padded(self) -> tuple[str, ...]:
        return ("states", "mask")


@every_kind
def test_texts_of_two_lengths_in_one_call_are_those_of_two_calls(kind: str) -> None:
    module, arguments = module_of(kind), inputs()
    images = {name: arguments[name] for name in ("context", "context_mask")}
    short, long = Texts(arguments["states"][:, :3], arguments["mask"][:, :3]), Texts(arguments["states"], arguments["mask"])
    both = tuples.cat([short, long])
    together = module(*both, **{name: image.repeat(2, *[1] * (image.dim() - 1)) for name, image in images.items()})
    for text, features in zip((short, long), tuples.split(together, [3, 3]), strict=True):
        features = tuples.shorten(features, text.mask.shape[1])
        assert_close(
            real_parts(features, images["context_mask"]), real_parts(module(*text, **images), images["context_mask"])
        )


def test_compiled_in_one_graph_it_gives_the_same() -> None:
    module, arguments = module_of("cross, learned token, other width"), inputs()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert isinstance(module, Fusion)
    assert_close(real_parts(compiled(**arguments, causal=True)), real_parts(module(**arguments, causal=True)))
