"""The catalogue: a module a stage, a class a code. Importing this package fills `CATALOGUE`."""

from vlmdsl.diagnostics.catalog import (
    configuration,
    data,
    devices,
    encoders,
    environment,
    lowering,
    meaning,
    names,
    syntax,
    types,
    values,
)

__all__ = [
    "configuration", "data", "devices", "encoders", "environment", "lowering", "meaning", "names", "syntax", "types",
    "values",
]  # fmt: skip
