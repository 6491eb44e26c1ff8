"""The records of all operations with their type rules, one module per family.

Importing this package defines them all. `docs/architecture.md` section 3 shows them as a table.
"""

from vlmdsl.ir.operation import OPERATIONS
from vlmdsl.ir.operations import (
    contrast,
    detection,
    encoding,
    grounding,
    grouping,
    matrices,
    mining,
    modules,
    per_sample,
    prediction,
    reductions,
    reference,
    scalars,
    state,
    targets,
    views,
)

__all__ = ["FAMILIES", "OPERATIONS"]

FAMILIES = (
    views, encoding, prediction, matrices, targets, reductions, scalars, state, per_sample, reference, mining, modules,
    grounding, detection, grouping, contrast,
)  # fmt: skip
"""The modules in the order in which documents list their operations."""
