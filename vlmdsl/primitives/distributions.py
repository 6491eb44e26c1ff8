"""Primitives for distributions over learned clusters, whose logits are the features of a head."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from vlmdsl.ir import Node
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value


class DistributionParameters(Parameters):
    """Arguments of `distribution`."""

    temperature: float = Field(default=1.0, gt=0.0, description="the features are divided by it")


def _distribution(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, DistributionParameters)
    features = builder.pooled(subjects["features"], "features", "distribution")
    return builder.add("distribution", features, temperature=float(parameters.temperature))


register(
    Primitive(
        name="distribution",
        family="distributions",
        summary="Each sample's softmax over its own features: its distribution over clusters.",
        meaning=_distribution,
        subjects=(Subject("features", ("Encoded", "Vec", "Image", "Text"), "one logit per cluster"),),
        parameters=DistributionParameters,
        laws=("permutation",),
        formula=r"p_{ik} = \frac{e^{x_{ik}}}{\sum_l e^{x_{il}}}",
        cost="none",
        example="minimize mean(entropy(distribution(image), distribution(text)))",
    )
)


def _entropy(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    p, q = subjects["p"], subjects["q"]
    assert isinstance(p, Node)
    assert isinstance(q, Node)
    return builder.add("entropy", p, q)


register(
    Primitive(
        name="entropy",
        family="distributions",
        summary="Each sample's cross-entropy H(p, q) of two distributions; of one with itself, its entropy.",
        meaning=_entropy,
        subjects=(
            Subject("p", ("Distribution",), "the distribution p"),
            Subject("q", ("Distribution",), "the distribution q"),
        ),
        laws=("permutation", "non_negative"),
        formula=r"H(p_i, q_i) = -\sum_k p_{ik} \log q_{ik}",
        cost="none",
        example="let p = distribution(image)\nminimize mean(entropy(p, p))",
    )
)


def _entropy_of_mean(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    p = subjects["p"]
    assert isinstance(p, Node)
    return builder.add("entropy_of_mean", p)


register(
    Primitive(
        name="entropy_of_mean",
        family="distributions",
        summary="The entropy of the mean distribution of the global batch: a measure of how many clusters are used.",
        meaning=_entropy_of_mean,
        subjects=(Subject("p", ("Distribution",), "the distributions"),),
        laws=("permutation", "non_negative"),
        formula=r"H(\frac{1}{B} \sum_i p_i)",
        cost="none",
        example="let p = distribution(image)\nminimize mean(entropy(p, p)) + entropy_of_mean(p)",
    )
)
