"""`compile`: from a recipe to an `nn.Module`. Torch is imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.api.driver import Built, build
from vlmdsl.backends.latex import formula
from vlmdsl.backends.plan import Plan, make_plan
from vlmdsl.ir import Program
from vlmdsl.planning.lowering import LoweringRequest
from vlmdsl.source import SourceMap

if TYPE_CHECKING:
    from vlmdsl.backends.torch.objective import Objective

__all__ = ["compile", "compile_built"]


def compile(
    recipe: str | Path,
    *,
    expression: bool = False,
    compiled: bool = True,
    lowering: str | Mapping[str, str] = "auto",
    passes: str = "all",
    stage: str | None = None,
    flow: str | None = None,
    samples: int | None = None,
    **knobs: object,
) -> Objective:
    """Compile a recipe to a module for any training loop: features in, loss and named terms out.

    `recipe` is a bundled name, a path or source text; keywords set its hyper-parameters. The emitted function is compiled
    with `torch.compile(fullgraph=True)` unless `compiled` is false. Raises DiagnosticError if the recipe has errors.

    `lowering` selects how similarities of all pairs are computed: `dense` makes whole matrices, `chunked` blocks of rows,
    which takes far less memory for large batches, and `auto` chooses by the sizes of each batch. A dictionary selects it per
    term. `passes` are the compiler passes that run (`all`, `off`, or names separated by commas); they do not change the
    loss. `samples` is the size of the data set, for a recipe that keeps a number per sample.

    Of a recipe with stages or flows, `stage` and `flow` select the objective (V0221 where several are possible). Learned
    numbers of one name are one parameter in `vlmdsl train`; of two objectives, assign the same parameter to both.

    >>> import torch, vlmdsl
    >>> objective = vlmdsl.compile("clip", compiled=False, temperature=0.1)
    >>> {name: tensor.axes for name, tensor in objective.inputs.items()}
    {'image': ('B', 'D'), 'text': ('B', 'D')}
    >>> out = objective(image=torch.eye(4), text=torch.eye(4))
    >>> round(out.loss.item(), 6)
    0.000136
    """
    built = build(recipe, expression=expression, knobs=knobs, passes=passes, stage=stage, flow=flow)
    return compile_built(built, compiled=compiled, lowering=lowering, samples=samples)


def compile_built(
    built: Built,
    *,
    compiled: bool = True,
    lowering: str | Mapping[str, str] | LoweringRequest = "auto",
    samples: int | None = None,
) -> Objective:
    """The objective of a built recipe."""
    module = import_module("vlmdsl.backends.torch.objective")
    objective: Objective = module.Objective(
        built.planned,
        sources=built.front_end.sources,
        lowering=lowering,
        compiled=compiled,
        samples=samples,
        # Module functions, not closures, so that an objective can be pickled.
        latex=partial(formula, built.written),
        planner=partial(_plan, built.planned, built.front_end.sources, lowering=lowering),
    )
    return objective


def _plan(program: Program, sources: SourceMap, **options: Any) -> Plan:
    """The plan of a compiled objective, with the options of `plan` that are not about its recipe."""
    return make_plan(program, sources=sources, **options)
