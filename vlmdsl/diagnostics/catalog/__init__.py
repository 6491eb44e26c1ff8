"""The catalogue: a module per stage, a class per code. Importing this package fills `CATALOGUE`."""

from vlmdsl.diagnostics.catalog import (
    comparison,
    configuration,
    data,
    devices,
    encoders,
    environment,
    evaluation,
    lowering,
    meaning,
    names,
    runs,
    syntax,
    types,
    values,
)

__all__ = [
    "comparison", "configuration", "data", "devices", "encoders", "environment", "evaluation", "lowering", "meaning",
    "names", "runs", "syntax", "types", "values",
]  # fmt: skip
