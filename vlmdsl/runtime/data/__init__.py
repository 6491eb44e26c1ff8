"""Data: sources, columns to fields, views, batches. The same for any number of processes, and after a resume."""

from vlmdsl.runtime.data.collate import text_inputs
from vlmdsl.runtime.data.concepts import ConceptNames, read_concepts
from vlmdsl.runtime.data.context import Materials
from vlmdsl.runtime.data.limits import Limits
from vlmdsl.runtime.data.loader import BatchLoader, EvaluationLoader, check_batch, values_of_step
from vlmdsl.runtime.data.mapping import (
    FieldMapping,
    Requirement,
    map_fields,
    mapped_names,
    parse_assignments,
    plain_fields,
    requirements,
)
from vlmdsl.runtime.data.mixture import MixedBatches, Mixture, seed_of
from vlmdsl.runtime.data.order import groups_by_source, weighted_parts
from vlmdsl.runtime.data.rendering import checked_font
from vlmdsl.runtime.data.report import Skipped, SkipReport, too_few_usable
from vlmdsl.runtime.data.sample import Loaded
from vlmdsl.runtime.data.source import BadSample, Source, fingerprint, remarks_of, some_samples, source_facts, split_samples
from vlmdsl.runtime.data.specification import held_out, open_source, open_stream
from vlmdsl.runtime.data.stand_ins import calls_of, stream_with_stand_ins, with_stand_ins
from vlmdsl.runtime.data.streams import SampleStream
from vlmdsl.runtime.data.surveys import Survey, survey
from vlmdsl.runtime.data.synonyms import read_synonyms
from vlmdsl.runtime.data.texts import duplicate_share, texts_of
from vlmdsl.runtime.data.views import View, view_of

__all__ = [
    "BadSample", "BatchLoader", "ConceptNames", "EvaluationLoader", "FieldMapping", "Limits", "Loaded", "Materials",
    "MixedBatches", "Mixture", "Requirement", "SampleStream", "SkipReport", "Skipped", "Source", "Survey", "View",
    "calls_of", "check_batch", "checked_font", "duplicate_share", "fingerprint", "groups_by_source", "held_out",
    "map_fields", "mapped_names", "open_source", "open_stream", "parse_assignments", "plain_fields", "read_concepts",
    "read_synonyms", "remarks_of", "requirements", "seed_of", "some_samples", "source_facts", "split_samples",
    "stream_with_stand_ins", "survey", "text_inputs", "texts_of", "too_few_usable", "values_of_step", "view_of",
    "weighted_parts", "with_stand_ins",
]  # fmt: skip
