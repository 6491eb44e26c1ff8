"""Evaluation: retrieval and zero-shot classification, beside chance and beside the untrained model."""

from vlmdsl.runtime.evaluation.comparison import Comparison, Part, comparison_of
from vlmdsl.runtime.evaluation.held_out import evaluate
from vlmdsl.runtime.evaluation.report import Evaluation, results_json, results_table, stored_untrained
from vlmdsl.runtime.evaluation.retrieval import Measures, Retrieval, retrieval_recall
from vlmdsl.runtime.evaluation.zero_shot import DEFAULT_TEMPLATES, ClassPrompts, zero_shot_accuracy

__all__ = [
    "DEFAULT_TEMPLATES",
    "ClassPrompts",
    "Comparison",
    "Part",
    "Evaluation",
    "Measures",
    "Retrieval",
    "comparison_of",
    "evaluate",
    "results_json",
    "results_table",
    "retrieval_recall",
    "stored_untrained",
    "zero_shot_accuracy",
]
