"""The kernel: one place per primitive. Importing this package registers it."""

from vlmdsl.primitives.kernel import FAMILIES
from vlmdsl.primitives.registry import all_primitives, broken_plugins, register, registered
from vlmdsl.primitives.spec import Builder, Fault, Law, Parameters, Primitive, Subject

__all__ = [
    "FAMILIES",
    "Builder",
    "Fault",
    "Law",
    "Parameters",
    "Primitive",
    "Subject",
    "all_primitives",
    "broken_plugins",
    "register",
    "registered",
]
