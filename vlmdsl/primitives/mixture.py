"""A mixture of two normal distributions, fitted to the numbers of all samples after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vlmdsl.diagnostics.catalog.values import NotKeptPerSample
from vlmdsl.ir import Node
from vlmdsl.ir.operations.per_sample import RUNNING_MEANS
from vlmdsl.primitives.registry import register
from vlmdsl.primitives.spec import Builder, Fault, OptionalName, Parameters, Primitive, Subject
from vlmdsl.primitives.values import Value
from vlmdsl.types import PerSampleType


class MixtureParameters(Parameters):
    """Arguments of `mixture`."""

    component: Literal["larger", "smaller"] = Field(
        default="larger", description="the component whose probability it is: the one with the larger mean, or the smaller"
    )
    iterations: int = Field(default=20, ge=1, le=1000, description="steps of the EM algorithm")
    start: float = Field(
        default=0.0, ge=0.0, le=1.0, description="the probability of a sample before the first fit that includes it"
    )
    name: OptionalName = Field(default="", description="its name in the checkpoint; by default the name it is bound to")


def _mixture(builder: Builder, subjects: Mapping[str, Value], parameters: Parameters) -> Value:
    assert isinstance(parameters, MixtureParameters)
    values = subjects["values"]
    assert isinstance(values, Node)
    if values.operation is not RUNNING_MEANS:
        help = 'keep the latest score of each sample: `running_mean(score, per="sample", momentum=0)`'
        raise Fault(NotKeptPerSample.at(builder.place("values"), function="mixture", help=(help,)), values)
    table, index = values.inputs[0].inputs
    probabilities = builder.state(
        parameters.name, type=PerSampleType(), initial=float(parameters.start), suffix="_probability"
    )
    fitted = builder.add("mixture", table, probabilities, component=parameters.component, iterations=parameters.iterations)
    builder.update(probabilities, fitted, when="epoch")
    return builder.add("lookup", probabilities, index)


register(
    Primitive(
        name="mixture",
        family="scores",
        summary=(
            "The probability that a sample belongs to one of two components: after every epoch a mixture of two normal "
            'distributions is fitted to the numbers that `running_mean(..., per="sample")` keeps for all samples of the '
            "data set. No gradient."
        ),
        meaning=_mixture,
        subjects=(Subject("values", ("Score",), 'the number kept for each sample: a `running_mean` with `per="sample"`'),),
        parameters=MixtureParameters,
        laws=("permutation",),
        formula=r"p_i = \frac{\pi_2 N(u_i; \mu_2, \sigma_2^2)}{\sum_{k=1}^{2} \pi_k N(u_i; \mu_k, \sigma_k^2)}",
        cost="a few passes over a number per sample of the data set, after every epoch",
        example=(
            'let kept = running_mean(stop(score(image, text)), per="sample", momentum=0)\n'
            'let clean = mixture(kept, component="larger", start=1)\n'
            "minimize contrast(image, text, weight=clean, temperature=0.07)"
        ),
    )
)
