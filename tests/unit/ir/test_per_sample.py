"""Numbers kept per sample, in the graph: their types, when they are updated, what a step and an epoch compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.mathtext import MathTextParser

import vlmdsl
from vlmdsl.api.driver import build
from vlmdsl.backends.latex import formula_lines, formula_text
from vlmdsl.backends.plan import make_plan
from vlmdsl.ir import Moment, Program, inputs, sample_index
from vlmdsl.ir.digest import digest
from vlmdsl.ir.schedule import Compute
from vlmdsl.ir.text import program_text
from vlmdsl.ir.verify import InternalError, verify
from vlmdsl.planning import schedule_of
from vlmdsl.types import PerSampleType

NOISY = """
recipe noisy(image: Image, text: Text, rate = 0.5)
let loss = 1 - score(image, text)
let noise = mixture(running_mean(loss, per="sample", momentum=0.9, name="usual"))
let latest = running_mean(loss, per="sample", momentum=0, start=0.5, reads="previous")
minimize contrast(image, text, weight=(1 - rate * noise) * latest)
"""


def program() -> Program:
    return build(NOISY).planned


def with_updates(program: Program, when: Moment) -> Program:
    """The same, but every state is updated at this moment."""
    return replace(program, updates=tuple(replace(update, when=when) for update in program.updates))


def test_states_are_updated_after_steps_or_after_epochs_and_say_so() -> None:
    moments = {update.state.string("name"): update.when for update in program().updates}
    assert moments == {"noise_probability": "epoch", "usual": "step", "latest_mean": "step"}
    assert all(update.state.type == update.node.type == PerSampleType() for update in program().updates)
    assert program_text(program()).count("after every epoch") == 1
    assert "PerSample[N]" in program_text(program())


def test_a_step_takes_the_places_of_its_samples_and_an_epoch_takes_states() -> None:
    noisy = program()
    index, schedule = sample_index(noisy), schedule_of(noisy)
    assert index is not None
    (spec,) = (spec for spec in inputs(noisy) if spec.name == index.string("name"))
    assert (spec.axes, spec.dtype) == (("B",), "int64")
    assert index in schedule.load.values
    assert schedule.after["epoch"] == (Compute("after_epoch", ()),)
    assert schedule_of(build("clip").planned).after["epoch"] == ()


def test_what_is_updated_after_an_epoch_reads_no_batch() -> None:
    early = with_updates(program(), "epoch")
    with pytest.raises(InternalError, match="is updated after an epoch, but reads what only a step has"):
        verify(early)


def test_when_a_state_is_updated_is_part_of_the_meaning() -> None:
    assert digest(with_updates(program(), "step")) != digest(program())
    assert digest(build(NOISY).planned) == digest(program())


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("mixture(score(image, text))", "V0414"),
        ('mixture(2 * running_mean(score(image, text), per="sample"))', "V0414"),
        ("mixture(image)", "V0301"),
        ('mixture(running_mean(score(image, text), per="sample"), component="middle")', "V0405"),
        ('mixture(running_mean(score(image, text), per="sample"), start=2)', "V0405"),
        ('running_mean(score(image, text), per="sample", momentum=1.5)', "V0405"),
    ],
)
def test_mistakes_are_named(expression: str, code: str) -> None:
    diagnostics = vlmdsl.check(f"recipe r(image: Image, text: Text)\nminimize mean({expression} * score(image, text))")
    assert [diagnostic.code for diagnostic in diagnostics] == [code]


def test_features_have_no_mean_per_sample() -> None:
    (diagnostic,) = vlmdsl.check(
        'recipe r(image: Image, text: Text)\nminimize contrast(image.pooled - running_mean(image, per="sample"), text)'
    )
    assert diagnostic.code == "V0405"
    assert "needs a score" in diagnostic.message


def test_the_plan_counts_the_samples_of_the_data() -> None:
    plan = make_plan(program(), samples=5000)
    assert vlmdsl.compile(NOISY, compiled=False).plan(samples=5000).state == plan.state
    assert {row.name: row.size for row in plan.state} == dict.fromkeys(("noise_probability", "usual", "latest_mean"), 20_000)
    assert plan.schedule.after_epoch == ("noise_probability",)
    assert "update   noise_probability  after every epoch" in plan.to_text()
    assert "a number per sample of 5,000, updated after every epoch" in plan.to_text()


def test_the_formula_says_what_is_kept_and_when_a_mixture_is_fitted() -> None:
    written = build(NOISY).written
    text = formula_text(written)
    assert "m_i ← 0.9 m_i + 0.1 g_i after use, in each step with sample i, initially g_i" in text
    assert "m(2)_i ← g_i after use, in each step with sample i, initially 1/2" in text
    assert (
        "ε_i: the probability that m_i is of the component with the larger mean of a mixture of two normal distributions, "
        "fitted to all samples after every epoch, before that 0"
    ) in text
    for line in formula_lines(written):
        MathTextParser("path").parse(f"${line}$")
