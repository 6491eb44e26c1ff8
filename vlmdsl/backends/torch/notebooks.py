"""How an objective is shown in a notebook: its formula, and a table of its inputs."""

from __future__ import annotations

from abc import abstractmethod
from html import escape

from vlmdsl.ir import Input

__all__ = ["ShownInNotebooks"]


class ShownInNotebooks:
    """Shown as its formula, which notebooks typeset, above what it takes."""

    inputs: dict[str, Input]

    @abstractmethod
    def latex(self) -> str:
        """The formula, in LaTeX; RuntimeError where there is none."""

    def _repr_latex_(self) -> str | None:
        """The formula as a displayed equation; None for an objective that was built without one."""
        try:
            return f"$\\displaystyle {self.latex()}$"
        except RuntimeError:
            return None

    def _repr_html_(self) -> str | None:
        """The formula above a table of inputs, each with its axes and meaning; None as for `_repr_latex_`."""
        try:
            formula = self.latex()
        except RuntimeError:
            return None
        rows = [(name, f"[{', '.join(one.axes)}]", one.meaning) for name, one in self.inputs.items()]
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        table = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<p>$$ {escape(formula)} $$</p><table><tr><th>input</th><th>axes</th><th>meaning</th></tr>{table}</table>"
