"""The intermediate representation: data that the front end creates, passes transform and back ends read."""

from vlmdsl.ir.blocks import exchange_counts, whole_blocks
from vlmdsl.ir.contrast import Contrast, Direction, TargetPart
from vlmdsl.ir.encoders import Encoder, Head, Teacher, encoder_of, head_words
from vlmdsl.ir.gradients import has_untrained_outputs, learns, reached, trained_modules, uses_at
from vlmdsl.ir.graph import Graph, Node, walk
from vlmdsl.ir.inputs import Column, Input, column_of, columns, inputs, module_inputs
from vlmdsl.ir.node import is_condition
from vlmdsl.ir.operations.views import masked_text
from vlmdsl.ir.program import (
    BATCH_POLICIES,
    MIXED,
    ONE_SOURCE,
    Metric,
    Moment,
    Program,
    Term,
    Update,
    draws,
    logarithms,
    parameters,
    ramps,
    sample_index,
    states,
)
from vlmdsl.ir.ramps import Duration, Ramp, ramp_at, ramps_at, ramps_in_epochs
from vlmdsl.ir.stages import Flow, Stage, flow_title
from vlmdsl.ir.streams import (
    CODES,
    OUTPUTS,
    ModuleOutput,
    Reading,
    Stream,
    block_of,
    boxed_images,
    kept_inputs,
    loaded_origin,
    loaded_parts,
    module_outputs,
    parts_of,
    readings,
    root_field,
    source_names,
    streams,
)
from vlmdsl.ir.updates import live_updates
from vlmdsl.ir.uses import Module, Use, uses_of, vocabulary_use
from vlmdsl.ir.written import Writing, decoded_texts, writer_of, writes, writing_of, writings

__all__ = [
    "BATCH_POLICIES", "CODES", "MIXED", "ONE_SOURCE", "OUTPUTS", "Column", "Contrast", "Direction", "Duration",
    "Encoder", "Flow", "Graph", "Head", "Input", "Metric", "Module", "ModuleOutput", "Moment", "Node", "Program",
    "Ramp", "Reading", "Stage", "Stream", "TargetPart", "Teacher", "Term", "Update", "Use", "Value", "Writing",
    "block_of", "boxed_images", "column_of", "columns", "decoded_texts", "draws", "encoder_of", "exchange_counts",
    "flow_title", "has_untrained_outputs", "head_words", "inputs", "is_condition", "kept_inputs", "learns",
    "live_updates", "loaded_origin", "loaded_parts", "logarithms", "masked_text", "module_inputs", "module_outputs",
    "parameters", "parts_of", "ramp_at", "ramps", "ramps_at", "ramps_in_epochs", "reached", "readings", "root_field",
    "sample_index", "source_names", "states", "streams", "trained_modules", "uses_at", "uses_of", "vocabulary_use",
    "walk", "whole_blocks", "writer_of", "writes", "writing_of", "writings",
]  # fmt: skip
