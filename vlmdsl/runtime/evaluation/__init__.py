"""Evaluation: retrieval, classification and reconstruction, beside chance and beside the untrained model."""

from vlmdsl.runtime.evaluation.captions import Captioning, CaptionSettings, caption_measures, captioning_of
from vlmdsl.runtime.evaluation.codes import CodePrediction, code_accuracy, code_prediction_of
from vlmdsl.runtime.evaluation.comparison import Comparison, Part, comparison_of
from vlmdsl.runtime.evaluation.detection import coco_precision
from vlmdsl.runtime.evaluation.examples import BestMatches, Confusion, Match, Query, best_matches
from vlmdsl.runtime.evaluation.grounding import WITHIN_A_PROMPT, box_phrase_accuracy, grounding_of
from vlmdsl.runtime.evaluation.grouping import best_group_overlap, drawn_towers, group_overlap, grouping_tower
from vlmdsl.runtime.evaluation.held_out import evaluate, evaluate_images, image_names
from vlmdsl.runtime.evaluation.matching import (
    HardNegatives,
    Matching,
    masked_word_accuracy,
    masked_words_of,
    matching_accuracy,
    matching_of,
)
from vlmdsl.runtime.evaluation.named_objects import Objects, objects_in
from vlmdsl.runtime.evaluation.neighbours import first_image_tower, neighbour_accuracy
from vlmdsl.runtime.evaluation.probe import linear_probe_accuracy
from vlmdsl.runtime.evaluation.reconstruction import Reconstruction, masked_error, reconstruction_of
from vlmdsl.runtime.evaluation.report import PART_TITLES, Evaluation, results_json, results_table, stored_untrained
from vlmdsl.runtime.evaluation.retrieval import Example, Measures, Retrieval, retrieval_recall
from vlmdsl.runtime.evaluation.zero_shot import DEFAULT_TEMPLATES, ClassPrompts, class_similarities, zero_shot_accuracy

__all__ = [
    "BestMatches",
    "Confusion",
    "Example",
    "Match",
    "Query",
    "best_group_overlap",
    "best_matches",
    "drawn_towers",
    "group_overlap",
    "grouping_tower",
    "DEFAULT_TEMPLATES",
    "CaptionSettings",
    "Captioning",
    "ClassPrompts",
    "CodePrediction",
    "Comparison",
    "PART_TITLES",
    "Part",
    "Evaluation",
    "HardNegatives",
    "Matching",
    "Measures",
    "Objects",
    "Reconstruction",
    "Retrieval",
    "WITHIN_A_PROMPT",
    "box_phrase_accuracy",
    "class_similarities",
    "caption_measures",
    "captioning_of",
    "coco_precision",
    "code_accuracy",
    "code_prediction_of",
    "comparison_of",
    "evaluate",
    "evaluate_images",
    "first_image_tower",
    "grounding_of",
    "image_names",
    "linear_probe_accuracy",
    "masked_error",
    "masked_word_accuracy",
    "masked_words_of",
    "matching_accuracy",
    "matching_of",
    "neighbour_accuracy",
    "objects_in",
    "reconstruction_of",
    "results_json",
    "results_table",
    "retrieval_recall",
    "stored_untrained",
    "zero_shot_accuracy",
]
