"""Diagnostics: their data, the catalogue of codes, suggestions and renderers."""

from vlmdsl.diagnostics.diagnostic import Diagnostic, DiagnosticError, Edit, Fix, Label
from vlmdsl.diagnostics.problem import CATALOGUE, Problem
from vlmdsl.diagnostics.suggest import closest, suggestion

__all__ = ["CATALOGUE", "Diagnostic", "DiagnosticError", "Edit", "Fix", "Label", "Problem", "closest", "suggestion"]
