"""What every operation takes, carries and yields: the table that `vlmdsl.ir.verify` holds graphs to, a room a family.

A row stands beside the rule of its type. `docs/architecture.md` section 3 is the same table in words.
"""

from vlmdsl.ir.operations import contrast, encoding, matrices, reductions, reference, scalars, state, targets, views
from vlmdsl.ir.operations.scalars import COMPARISONS, ELEMENTWISE, broadcast
from vlmdsl.ir.operations.signature import BrokenError, Signature, need

__all__ = [
    "COMPARISONS", "ELEMENTWISE", "SIGNATURES", "BrokenError", "Signature", "broadcast", "need",
]  # fmt: skip

SIGNATURES: dict[str, Signature] = {
    name: signature
    for family in (views, encoding, matrices, targets, reductions, scalars, state, reference, contrast)
    for name, signature in family.SIGNATURES.items()
}
