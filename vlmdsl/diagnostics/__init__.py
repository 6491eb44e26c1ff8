"""Diagnostics: their data, the catalogue of codes, suggestions, fixes, renderers and pages."""

from vlmdsl.diagnostics.cells import controls, displayed, json_text, plain
from vlmdsl.diagnostics.diagnostic import Diagnostic, DiagnosticError, Edit, Fix, Label
from vlmdsl.diagnostics.fixes import apply_safe_fixes
from vlmdsl.diagnostics.limited import limited
from vlmdsl.diagnostics.page import catalogue, page_of, title_of
from vlmdsl.diagnostics.problem import Problem
from vlmdsl.diagnostics.render_github import render_github
from vlmdsl.diagnostics.render_json import as_json, render_json
from vlmdsl.diagnostics.render_text import render_text
from vlmdsl.diagnostics.suggest import closest, suggestion

__all__ = [
    "Diagnostic", "DiagnosticError", "Edit", "Fix", "Label", "Problem", "apply_safe_fixes", "as_json",
    "catalogue", "closest", "controls", "displayed", "json_text", "limited", "page_of", "plain", "render_github",
    "render_json", "render_text", "suggestion", "title_of",
]  # fmt: skip
