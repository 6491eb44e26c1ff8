"""`data`: look through data, preview it, and convert it to shards. Torch is imported when one of these is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.sources import NoColumnToRead
from vlmdsl.diagnostics.cells import displayed
from vlmdsl.source import Span

if TYPE_CHECKING:
    from vlmdsl.runtime.data import FieldMapping, Source
    from vlmdsl.runtime.data.inspection import Findings, Repeated
    from vlmdsl.schema import DataConfig, DataSources

__all__ = ["DataCheck", "DataConversion", "DataPreview", "check_data", "convert_data", "preview_data"]


@dataclass(frozen=True)
class DataCheck:
    """What a look through data has found, as plain data and as lines for people."""

    facts: Mapping[str, Any]
    lines: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        return dict(self.facts)

    def to_text(self) -> str:
        """A line per finding."""
        return "\n".join(map(displayed, self.lines))


@dataclass(frozen=True)
class DataPreview:
    """The picture, and a line for each sample in it: its key, its size and its text."""

    file: Path | None
    rows: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        return {"file": None if self.file is None else str(self.file), "rows": list(self.rows)}

    def to_text(self) -> str:
        """The lines, and the file."""
        drawn = [] if self.file is None else [f"drawn in {self.file}"]
        return "\n".join(map(displayed, [*self.rows, *drawn]))


@dataclass(frozen=True)
class DataConversion:
    """The shards that were written, the samples in them, and what is not in them, one line each."""

    folder: Path
    shards: int
    samples: int
    remarks: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        return {"folder": str(self.folder), "shards": self.shards, "samples": self.samples, "remarks": list(self.remarks)}

    def to_text(self) -> str:
        """What was written where, then what was left out."""
        written = f"{self.samples:,} samples in {self.shards:,} shards in {displayed(str(self.folder))}"
        return "\n".join([written, *map(displayed, self.remarks)])


def check_data(
    data: DataSources,
    *,
    map: Mapping[str, str] | None = None,
    samples: int | None = None,
    tokens: int = 32,
    overrides: Iterable[str] = (),
) -> DataCheck:
    """Read data as a run would: count samples, those that are damaged and why, sizes, texts that are cut at so many `tokens`
    (of a tokenizer trained on them, as for a run), repeated images and texts, and scripts.

    Raises `DiagnosticError` for data that cannot be opened, and V0846 where it has neither images nor texts.

    Args:
        data: a specification, as for `train`, or several.
        map: `image` or `text` -> its column, if that has another name.
        samples: how many are read, spread evenly; None: all.
        tokens: the length of a text of which the rest is cut off.
        overrides: `data.setting=value` texts, such as `data.allowed_folders=[/pictures]`.

    >>> print(check_data("shapes:samples=20").lines[0])
    samples  20 in shapes:samples=20
    """
    source, mapping, limits = _opened(_settings(data, map, overrides))
    inspection = import_module("vlmdsl.runtime.data.inspection")
    form = _text_format(source, mapping, tokens)
    findings: Findings = inspection.inspect(source, mapping, limits, form=form, most=samples)
    repeated = {
        name: inspection.Repeated.of(digests, findings.places)
        for name, digests in (("images", findings.images), ("texts", findings.texts))
        if name.removesuffix("s") in mapping
    }
    facts = _facts(source, mapping, findings, repeated, tokens)
    return DataCheck(facts, tuple(_lines(source, mapping, findings, repeated, facts)))


def preview_data(
    data: DataSources,
    out: str | Path | None = None,
    *,
    map: Mapping[str, str] | None = None,
    samples: int = 24,
    overrides: Iterable[str] = (),
) -> DataPreview:
    """Samples spread evenly over data, as lines, and with `out` as a picture: a grid of images with their texts.

    >>> print(preview_data("shapes:samples=20", samples=2).rows[0].split("  ")[0])
    train-000000
    """
    own = _settings(data, map, overrides)
    if out is not None:
        import_module("vlmdsl.runtime.data.read_places").check_apart(out, own.train, "`--out`")
    source, mapping, limits = _opened(own)
    positions = import_module("vlmdsl.runtime.data.source").probed_positions(len(source), samples)
    drawn, rows = [], []
    for index in positions:
        pixels, row = _previewed(source, mapping, limits, index)
        rows.append(row)
        if pixels is not None:
            drawn.append((pixels, row.partition("  ")[2] or row))
    file = None if out is None else Path(out)
    if file is not None:
        import_module("vlmdsl.runtime.tracking.grid").draw_grid(drawn, file, source.name)
    return DataPreview(file, tuple(rows))


def convert_data(
    data: DataSources,
    out: str | Path,
    *,
    map: Mapping[str, str] | None = None,
    per_shard: int = 1000,
    shuffle: int | None = None,
    overrides: Iterable[str] = (),
) -> DataConversion:
    """Write data as webdataset shards: `OUT/shard-000000.tar` and so on, images as they are encoded.

    Samples that cannot be used are left out and named. Raises `DiagnosticError` as `check_data` does, V0845 where there are
    shards in the folder already, V0870 where the data is in it, V0903 where it cannot be written.

    Args:
        data: a specification, as for `train`, or several.
        out: the folder.
        map: `image` or `text` -> its column, if that has another name.
        per_shard: samples of a shard.
        shuffle: a seed by which samples are put into a random order; None: as they are.
        overrides: as for `check_data`.

    >>> import tempfile
    >>> convert_data("shapes:samples=20", tempfile.mkdtemp(), per_shard=8).shards
    3
    """
    own = _settings(data, map, overrides)
    import_module("vlmdsl.runtime.data.read_places").check_apart(out, own.train, "`--out`", files=("shard-000000.tar",))
    source, mapping, limits = _opened(own)
    order = None
    if shuffle is not None:
        order = import_module("vlmdsl.runtime.draws").generator(shuffle, "convert").permutation(len(source))
    conversion = import_module("vlmdsl.runtime.data.conversion")
    written = conversion.write_shards(source, mapping, Path(out), limits, per_shard=per_shard, order=order)
    left_out = [f"column `{name}` left out of {count:,} samples" for name, count in written.left_out.items()]
    remarks = (*source_remarks(source), *written.skipped.table().splitlines(), *left_out)
    return DataConversion(Path(out), len(written.shards), written.samples, remarks)


def source_remarks(source: Source) -> list[str]:
    """How a source was read."""
    remarks: list[str] = import_module("vlmdsl.runtime.data").remarks_of(source)
    return remarks


def _settings(data: DataSources, map: Mapping[str, str] | None, overrides: Iterable[str]) -> DataConfig:
    own: DataConfig = import_module("vlmdsl.api.runs").data_of_call(data, map, overrides)
    return own


def _opened(own: DataConfig) -> tuple[Source, FieldMapping, Any]:
    """The data, the columns of its images and texts, and the limits."""
    runtime = import_module("vlmdsl.runtime.data")
    limits = runtime.Limits.of(own)
    source = runtime.open_source(own.train, limits=limits)
    needs = [runtime.Requirement(name, kind, optional=name not in own.map) for name, kind in _FIELDS.items()]
    mapping: FieldMapping = runtime.map_fields(source, needs, own.map, limits=limits)
    if not any(name in mapping for name in _FIELDS):
        notes = (f"its columns: {', '.join(source.columns[:20]) or 'none'}", *source_remarks(source)[:3])
        raise DiagnosticError((NoColumnToRead.at(Span("<command line>", 0, 0), name=source.name, notes=notes),))
    return source, mapping, limits


_FIELDS = {"image": "Image", "text": "Text"}


def _text_format(source: Source, mapping: FieldMapping, tokens: int) -> Any:
    """The format of texts for a tokenizer trained on them; None without texts."""
    if "text" not in mapping:
        return None
    texts = list(import_module("vlmdsl.runtime.data").texts_of(source, mapping, ["text"], 10_000))
    if not texts:
        return None
    tokenizer = import_module("vlmdsl.runtime.tokenizer").train_tokenizer(texts)
    return import_module("vlmdsl.runtime.values").TextFormat(tokenizer, tokens)


def _facts(
    source: Source, mapping: FieldMapping, findings: Findings, repeated: Mapping[str, Repeated], tokens: int
) -> dict[str, Any]:
    sizes = {"width": findings.widths, "height": findings.heights} if "image" in mapping else {}
    lengths = {"words": findings.words, "tokens": findings.tokens} if "text" in mapping else {}
    used = {column for columns in mapping.columns.values() for column in columns}
    cut = sum(length > tokens for length in findings.tokens)
    return {
        "data": source.name,
        "samples": len(source),
        "read": findings.samples,
        "columns": {name: list(columns) for name, columns in mapping.columns.items()},
        "unused_columns": [name for name in source.columns if name not in used],
        "remarks": source_remarks(source),
        "skipped": findings.skipped.as_dict()["skipped"],
        "examples": findings.skipped.as_dict()["examples"],
        "sizes": {name: _spread(own) for name, own in {**sizes, **lengths}.items() if own},
        "several_texts": findings.listed,
        "cut_texts": {"tokens": tokens, "samples": cut} if lengths else {},
        "scripts": dict(findings.scripts.most_common()),
        "repeated": {name: own.samples for name, own in repeated.items()},
    }


def _spread(numbers: Sequence[int]) -> dict[str, int]:
    ordered = sorted(numbers)
    last = len(ordered) - 1
    places = {"smallest": 0, "median": last // 2, "largest": last, "99_percent": int(0.99 * last)}
    return {name: int(ordered[place]) for name, place in places.items()}


def _lines(
    source: Source, mapping: FieldMapping, findings: Findings, repeated: Mapping[str, Repeated], facts: Mapping[str, Any]
) -> Iterator[str]:
    """The findings in words."""
    part = "" if findings.samples == len(source) else f", of which {findings.samples:,} were read"
    yield f"samples  {len(source):,} in {source.name}{part}"
    columns = [f"{name} from {' and '.join(own)}" for name, own in mapping.columns.items()]
    unused = [f"unused: {', '.join(facts['unused_columns'][:12])}"] if facts["unused_columns"] else []
    yield f"columns  {'; '.join([*columns, *unused])}"
    yield from (f"         {remark}" for remark in facts["remarks"])
    table = findings.skipped.table().splitlines()
    yield f"damaged  {table[0].removeprefix('skipped ') if table else 'none'}"
    yield from (f"       {line}" for line in table[1:])
    good, sizes = max(len(findings.places), 1), facts["sizes"]
    if "width" in sizes:
        low, middle, high = (
            f"{sizes['width'][place]} x {sizes['height'][place]}" for place in ("smallest", "median", "largest")
        )
        yield f"images   {low} to {high}, median {middle}"
    if "words" in sizes:
        words, cut = sizes["words"], facts["cut_texts"]
        yield f"texts    {words['smallest']} to {words['largest']} words, median {words['median']}"
        if "tokens" in sizes:
            share = f"{cut['samples']:,} ({cut['samples'] / good:.1%})"
            yield f"         longer than {cut['tokens']} tokens: {share}; 99 % have at most {sizes['tokens']['99_percent']}"
        if findings.listed:
            yield f"         several for one sample: {findings.listed:,}"
        shown = ", ".join(
            f"{script or 'no letters'} {count / good:.1%}" for script, count in findings.scripts.most_common(8) if count
        )
        yield f"scripts  {shown or 'none'}"
    example_keys = import_module("vlmdsl.runtime.data.inspection").example_keys
    for name, own in repeated.items():
        yield f"repeated {name}: {own.samples:,} ({own.samples / good:.1%})"
        yield from (f"         {line}" for line in example_keys(source, own))


def _previewed(source: Source, mapping: FieldMapping, limits: Any, index: int) -> tuple[Any, str]:
    """The image of a sample, at most 256 pixels wide and high, and a line that says what it is or why it cannot be used."""
    runtime = import_module("vlmdsl.runtime.data")
    images, values = import_module("vlmdsl.runtime.data.images"), import_module("vlmdsl.runtime.values")
    key, pixels, parts = source.keys[index], None, []
    try:
        sample = source[index]
        if "image" in mapping:
            value = values.first_value(sample, mapping.columns["image"])
            pixels = images.decode_image(value, source.folder_of(index), limits)
            parts.append(f"{pixels.shape[1]} x {pixels.shape[0]}")
            pixels = images.thumbnail(pixels, _THUMBNAIL)
        if "text" in mapping:
            parts.append(mapping.read("text", "Text", sample).text)
    except runtime.BadSample as fault:
        parts.append(f"cannot be used: {fault.reason}")
    return pixels, "  ".join([key, *parts])


_THUMBNAIL = 256
