"""The formula of a program, in LaTeX and in plain text, as the paper would print it."""

from vlmdsl.backends.latex.document import formula, formula_lines, formula_text

__all__ = ["formula", "formula_lines", "formula_text"]
