"""What decoders of earlier stages write for a stage before its first step, kept in the run folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlmdsl.backends.torch.collectives import gather_objects
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.cells import plain
from vlmdsl.ir import Writing
from vlmdsl.runtime.data import Loaded, View
from vlmdsl.runtime.data.source import SelectedSource
from vlmdsl.runtime.data.written import TextsWriter, WrittenTexts
from vlmdsl.runtime.evaluation.captions import Captioning, captions_of, writing_captioning
from vlmdsl.runtime.files import file_digest, read_json, seal, write_json
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.tokenizer import Tokenizers
from vlmdsl.runtime.training.assembly import Data
from vlmdsl.runtime.training.checkpoint import WEIGHTS, read_state, take_over
from vlmdsl.runtime.training.course import DataFacts, StageOfRun, models_of
from vlmdsl.runtime.training.evaluation_loaders import Loaders
from vlmdsl.runtime.training.meeting import together
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.records import WrittenRecord
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.runtime.training.stages import end_of
from vlmdsl.runtime.values import ImageBatch, TextBatch, to
from vlmdsl.schema import RunConfig

__all__ = ["with_written_texts"]


@dataclass(frozen=True)
class _Writer:
    """A decoder that is ready to write."""

    model: VisionLanguageModel
    captioning: Captioning
    stage: str


def with_written_texts(
    stage: StageOfRun,
    course: Sequence[StageOfRun],
    data: Mapping[str, Mapping[str, Data]],
    tokenizers: Tokenizers,
    folder: RunFolder,
    world: World,
) -> dict[str, Data]:
    """The data of each flow of a stage, with the texts that decoders of earlier stages write of its samples.

    They are read from the run folder, if the same decoder has written them before, and else written there: a function of
    the decoder, of the data and of `evaluation.batch`, on any number of processes. Each process writes the texts of every
    n-th batch, and the first one keeps them. `data` is that of all stages.
    """
    own = dict(data[stage.name])
    needed = [(flow, writing, writer) for flow in stage.flows for writing, writer in flow.writers.items()]
    for number, (flow, writing, name) in enumerate(needed):
        writer = next(each for each in course if each.name == name)
        end = end_of(writer, folder)
        place = gather_objects(folder.path.resolve())[0]  # only the first process knows it
        path = RunFolder(place).written / f"{stage.name}-{number + 1}.jsonl"
        samples = len(own[flow.name].train)
        facts = {"writing": asdict(writing), "weights": read_state(end).files[WEIGHTS].sha256, "samples": samples}
        if not gather_objects(_is_stored(path, facts))[0]:
            _say(f"writing {samples:,} texts with the decoder `{writing.by}` of the stage `{name}`", world)
            decoder = _writer(writer, writing, data[name], tokenizers, end, world)
            _write(path, decoder, writing, own[flow.name], flow.config, world)
            if world.first:
                write_json(_record(path), seal({**facts, "sha256": file_digest(path)}))
        with together():
            texts = WrittenTexts(path, samples)
        own[flow.name] = replace(own[flow.name], written={**own[flow.name].written, writing: texts})
    return own


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _is_stored(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether these texts have been written before, and are as they were."""
    try:
        record = read_json(_record(path), WrittenRecord, sealed=True).plain()
    except DiagnosticError:
        return False
    as_before = {name: record.get(name) for name in facts} == facts
    return as_before and path.is_file() and not path.is_symlink() and file_digest(path) == record["sha256"]


def _writer(
    stage: StageOfRun, writing: Writing, data: Mapping[str, Data], tokenizers: Tokenizers, end: Path, world: World
) -> _Writer:
    """The decoder with the weights that its stage ended with."""
    model = stage.build(tokenizers, world, DataFacts.of(data))
    take_over(end, model)
    for own in models_of(model, stage).values():
        captioning = writing_captioning(own.objective.program, writing)
        if captioning is not None:
            return _Writer(own, captioning, stage.name)
    raise AssertionError("V0524 refuses a stage that does not train the decoder")


def _write(path: Path, writer: _Writer, writing: Writing, data: Data, config: RunConfig, world: World) -> None:
    """Write the texts of all samples, in rounds of one batch for each process."""
    samples, batch = len(data.train), config.evaluation.batch
    if world.first:
        path.parent.mkdir(exist_ok=True)
    own = _share(writer, writing, data, config, world)
    arrived: list[tuple[int, str]] = []
    with TextsWriter(path if world.first else None) as file:
        for _ in range(-(-samples // (batch * world.size))):
            with together():
                file.add(arrived)
                texts = next(own, [])
            arrived = [text for part in gather_objects(texts) for text in part]
        with together():
            file.add(arrived)
            file.finish(samples)


def _share(
    writer: _Writer, writing: Writing, data: Data, config: RunConfig, world: World
) -> Iterator[list[tuple[int, str]]]:
    """The texts of this process's batches, each with the place of its sample; samples that cannot be read have none."""
    model, captioning, batch = writer.model, writer.captioning, config.evaluation.batch
    every = np.arange(len(data.train))
    places = every[every // batch % world.size == world.rank]
    image, prompt = "image", "prompt"
    values = {image: Loaded(View(writing.image, "Image"), model.form(captioning.image_tower, "Image"))}
    if captioning.prompt is not None:
        values[prompt] = Loaded(View(writing.prompt, "Text"), model.form(captioning.tower, "Text"))
    loader = iter(Loaders(config, data, model).loader((SelectedSource(data.train, places), data.mapping), values))
    loaded = next(loader, None)
    for end in range(batch, len(places) + batch, batch):
        if loaded is None or int(loaded.index[0]) >= end:  # no sample of this batch can be read
            yield []
            continue
        pixels, prompts = to(loaded.values[image], world.device), loaded.values.get(prompt)
        assert isinstance(pixels, ImageBatch)
        assert prompts is None or isinstance(prompts, TextBatch)
        texts = captions_of(model, captioning, pixels, prompts, beams=writing.beams)
        yield list(zip(places[loaded.index.numpy()].tolist(), texts, strict=True))
        loaded = next(loader, None)


def _say(line: str, world: World) -> None:
    if world.first:
        with suppress(OSError):  # the terminal may be gone
            print(plain(line), file=sys.stderr, flush=True)
