"""Classification against its definition: prompts averaged as features or as similarities, ties, several blocks."""

import pytest
import torch
import torch.nn.functional as F

from vlmdsl.runtime.evaluation import ClassPrompts, Comparison, Part, zero_shot_accuracy
from vlmdsl.runtime.modules.towers import EncodedFeatures

COSINE = Comparison("vision", "language")
TOKENMAX = Comparison("vision", "language", parts=(Part("tokenmax", "tokens"),))


def share(scores, labels, cutoff):
    return (scores.topk(cutoff, dim=1).indices == labels[:, None]).any(dim=1).double().mean().item()


def test_the_prompts_of_a_class_are_averaged_as_unit_vectors():
    torch.manual_seed(0)
    images, prompts = torch.randn(40, 6), torch.randn(8 * 3, 6) * torch.rand(24, 1) * 10
    labels = torch.randint(8, (40,))
    classes = F.normalize(F.normalize(prompts, dim=1).view(8, 3, 6).mean(1), dim=1)
    scores = F.normalize(images, dim=1) @ classes.T
    accuracy, _ = zero_shot_accuracy(EncodedFeatures(images), labels, EncodedFeatures(prompts), 3, COSINE)
    assert accuracy.values == pytest.approx({"top-1": share(scores, labels, 1), "top-5": share(scores, labels, 5)})
    assert accuracy.chance == pytest.approx({"top-1": 1 / 8, "top-5": 5 / 8})


@pytest.mark.parametrize("size", [2, 1000])
def test_token_wise_similarities_are_averaged_over_the_prompts(size):
    torch.manual_seed(0)
    images, prompts = torch.randn(20, 4, 6), torch.randn(7 * 3, 5, 6)
    mask = torch.arange(5) < torch.randint(1, 6, (21, 1))
    labels = torch.randint(7, (20,))
    each = torch.einsum("nkd,cld->nckl", F.normalize(images, dim=-1), F.normalize(prompts, dim=-1))
    rows = each.masked_fill(~mask[None, :, None], -2).amax(-1).mean(-1)
    accuracy, _ = zero_shot_accuracy(
        EncodedFeatures(None, images), labels, EncodedFeatures(None, prompts, mask), 3, TOKENMAX, size=size
    )
    scores = rows.view(20, 7, 3).mean(-1)
    assert accuracy.values == pytest.approx({"top-1": share(scores, labels, 1), "top-5": share(scores, labels, 5)})


def test_equal_scores_are_not_a_success():
    same = EncodedFeatures(torch.ones(12, 3))
    accuracy, _ = zero_shot_accuracy(same, torch.arange(12), same, 1, COSINE)
    assert accuracy.values == {"top-1": 0.0, "top-5": 0.0}


def test_more_places_than_classes_are_certain():
    torch.manual_seed(0)
    accuracy, _ = zero_shot_accuracy(
        EncodedFeatures(torch.randn(9, 3)), torch.zeros(9, dtype=int), EncodedFeatures(torch.randn(2, 3)), 1, COSINE
    )
    assert (accuracy.values["top-5"], accuracy.chance["top-5"]) == (1.0, 1.0)


def test_prompts_are_grouped_by_class():
    prompts = ClassPrompts(["a {} b", "cat"], lambda texts: None, ["one {}", "two {}"])
    assert prompts.texts() == ["one a {} b", "two a {} b", "one cat", "two cat"]
