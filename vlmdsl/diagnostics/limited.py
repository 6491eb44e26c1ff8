"""At most so many diagnostics are reported at once; the last of them says how many more there are."""

from __future__ import annotations

from collections.abc import Sequence

from vlmdsl.diagnostics.catalog.meaning import MoreFaults
from vlmdsl.diagnostics.diagnostic import Diagnostic
from vlmdsl.source.limits import MAXIMUM_DIAGNOSTICS

__all__ = ["limited"]


def limited(diagnostics: Sequence[Diagnostic], *, complete: bool = True) -> list[Diagnostic]:
    """All `diagnostics` if there are few; else the first errors, then warnings, in order, and one that counts the others.

    Unless `complete`, the search was given up, and there may be more than it found.
    """
    if complete and len(diagnostics) <= MAXIMUM_DIAGNOSTICS:
        return list(diagnostics)
    errors_first = sorted(range(len(diagnostics)), key=lambda index: (diagnostics[index].severity != "error", index))
    shown = [diagnostics[index] for index in sorted(errors_first[: MAXIMUM_DIAGNOSTICS - 1])]
    left_out = len(diagnostics) - len(shown)
    count = f"{left_out:,}" if complete else f"at least {max(left_out, 1):,}"
    return [*shown, MoreFaults.at(shown[-1].primary.span, count=count)]
