"""At most so many diagnostics are reported at once; the last of them says how many more there are."""

from __future__ import annotations

from collections.abc import Sequence

from vlmdsl.diagnostics.catalog.meaning import MoreFaults
from vlmdsl.diagnostics.diagnostic import Diagnostic
from vlmdsl.source.limits import MAXIMUM_DIAGNOSTICS

__all__ = ["limited"]


def limited(found: Sequence[Diagnostic], *, complete: bool = True) -> list[Diagnostic]:
    """`found` as they are, if they are few enough; else the first errors, then warnings, in the order of `found`, and a last
    one that counts the others. Unless `complete`, the search was given up, and there may be more than it found.
    """
    if complete and len(found) <= MAXIMUM_DIAGNOSTICS:
        return list(found)
    errors_first = sorted(range(len(found)), key=lambda index: (found[index].severity != "error", index))
    shown = [found[index] for index in sorted(errors_first[: MAXIMUM_DIAGNOSTICS - 1])]
    left_out = len(found) - len(shown)
    count = f"{left_out:,}" if complete else f"at least {max(left_out, 1):,}"
    return [*shown, MoreFaults.at(shown[-1].primary.span, count=count)]
