"""The built-in primitives, each declared in one place; `kernel.py` is the table of contents."""

from vlmdsl.primitives.registry import all_primitives, broken_plugins, register, registered
from vlmdsl.primitives.spec import Builder, Fault, Law, Parameters, Primitive, Subject

__all__ = [
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
