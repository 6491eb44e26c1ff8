"""From a specification after `--data` to a source."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import DataNotFound, ShapesOption, StreamUnusable, UnknownDataForm
from vlmdsl.diagnostics.catalog.sources import DataOption
from vlmdsl.diagnostics.suggest import closest, suggestion
from vlmdsl.runtime.data.fetched import is_address, is_compressed, is_shard, local_copy
from vlmdsl.runtime.data.files import OUTSIDE
from vlmdsl.runtime.data.formats import FORMATS, format_of
from vlmdsl.runtime.data.formats.columnar_stream import COLUMNAR, ColumnarStream
from vlmdsl.runtime.data.formats.folder import files_in
from vlmdsl.runtime.data.formats.hugging_face import NamedData, NamedDataSource
from vlmdsl.runtime.data.formats.named_stream import NamedDataStream
from vlmdsl.runtime.data.formats.rows import DataPath
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.report import allow_folders
from vlmdsl.runtime.data.shapes import CLASSES, ShapesSource
from vlmdsl.runtime.data.shards import TarSource
from vlmdsl.runtime.data.source import JoinedSource, Source, remarks_of
from vlmdsl.runtime.data.streams import SampleStream, TarStream
from vlmdsl.source import Span

__all__ = ["SHAPES_OPTIONS", "held_out", "local_places", "open_source", "open_stream"]

Split = Literal["train", "val"]

_PLACE = Span("<command line>", 0, 0)
_COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
_COUNTING = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_MOST_COUNTED = 100_000
_MOST_NAMES = 2000

_OPTION = re.compile(r"(?P<before>.*),(?P<name>images|split|config|revision)=(?P<value>[^,]*)", re.DOTALL)
_PREFIX = re.compile(r"(?P<name>[a-z]+):(?P<rest>.+)", re.DOTALL)
_NAMED = "hf"
"""Before the name of a data set that the library `datasets` loads."""


def _whole(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = int(str(value))
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high:,}, not {number}")
        return number

    return read


def _share(value: object) -> float:
    number = float(str(value).removesuffix("%")) / (100 if str(value).endswith("%") else 1)
    if not 0 <= number <= 1:
        raise ValueError(f"must be from 0 to 1, not {value}")
    return number


def _truth(value: object) -> bool:
    word = str(value).lower()
    if word not in ("true", "false"):
        raise ValueError(f"must be `true` or `false`, not {value}")
    return word == "true"


def _label(value: object) -> str:
    word = str(value)
    if word not in CLASSES:
        raise ValueError(f"must be one of {', '.join(f'`{name}`' for name in CLASSES)}, not {value}")
    return word


SHAPES_OPTIONS: dict[str, Callable[[object], object]] = {
    "samples": _whole(1, 10_000_000),
    "scenes": _whole(1, 10_000_000),
    "size": _whole(16, 512),
    "objects": _whole(1, 3),
    "fewest": _whole(1, 3),
    "equal_sizes": _truth,
    "distinct": _truth,
    "colours": _whole(2, 16),
    "plain_ground": _truth,
    "noise": _share,
    "single_template": _truth,
    "label": _label,
    "seed": _whole(0, 2**62),
}
"""Options of `shapes:NAME=VALUE,...` and how their values are read."""

_OPTIONS_OF_BOTH_SPLITS = (
    "size",
    "objects",
    "fewest",
    "equal_sizes",
    "distinct",
    "colours",
    "plain_ground",
    "label",
    "seed",
)


def open_source(
    spec: str | Iterable[str],
    split: Split = "train",
    shapes: Mapping[str, object] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Source:
    """The source that one or several specifications name, joined in their order.

    A specification is `shapes` with or without options, a path, or a pattern (`*`, `?`, `{000..003}`), with the name of its
    format before it and the folder of its images after it where they are not recognised
    (`coco:captions.json,images=train2017`); or `hf:NAME`. `split` and the default options `shapes` matter to the built-in
    data only. Raises `DiagnosticError`.

    >>> len(open_source("shapes:samples=12,noise=0.3"))
    12
    """
    specs = [spec] if isinstance(spec, str) else list(spec)
    sources = [_opened(one, split, shapes or {}, limits) for one in specs]
    for source in sources:
        if not len(source):
            raise _not_found(source.name, "it holds no samples", *remarks_of(source))
    if not sources:
        raise _not_found("nowhere", "no specification was given")
    return sources[0] if len(sources) == 1 else JoinedSource(sources)


def open_stream(spec: str | Iterable[str], limits: Limits = DEFAULT_LIMITS) -> SampleStream:
    """The tar shards, or the Parquet and Arrow files, that one or several specifications name, or the data set that one
    does (`hf:NAME`), as a stream; raises `DiagnosticError` (V0837 for other data)."""
    specs = [spec] if isinstance(spec, str) else list(spec)
    for one in specs:
        chosen, place, options = _parts_of(one)
        if chosen == _NAMED and len(specs) > 1:
            raise _not_shards(one, "is a data set by name, which is a stream by itself and not beside other data")
        if chosen == _NAMED:
            return NamedDataStream(_named(one, place, options), limits)
    shards: list[Path] = []
    for one in specs:
        if one == "shapes" or one.startswith("shapes:"):
            raise _not_shards(one)
        for path in _existing(one, limits):
            shards += _files_of_stream(path, limits)
    columnar = [path.suffix.lower() in COLUMNAR for path in shards]
    if any(columnar) and not all(columnar):
        raise _not_shards(", ".join(specs), "has tar shards and other files, which one stream cannot have both")
    stream = ColumnarStream if any(columnar) else TarStream
    return stream(shards, ", ".join(specs), limits)


def _files_of_stream(path: Path, limits: Limits) -> list[Path]:
    """The file, or those of a folder, if they can be read as a stream."""
    for suffix in (".tar", *COLUMNAR):
        if path.is_dir() and (own := files_in(path, suffix, limits)[0]):
            return own
        if not path.is_dir() and path.suffix.lower() == suffix:
            return [path]
    raise _not_shards(path)


def _not_shards(
    path: object, problem: str = "is not a tar shard or a Parquet file, a folder of them, or `hf:NAME`"
) -> DiagnosticError:
    reason = f"`{path}` {problem}"
    return DiagnosticError((StreamUnusable.at(_PLACE, reason=reason, help=("leave out `data.stream=true`",)),))


def _existing(spec: str, limits: Limits) -> list[Path]:
    """The existing paths that a specification names; of shards that are elsewhere or compressed those of local copies."""
    if not spec.strip():
        raise _not_found(spec, "the specification is empty")
    if is_address(spec):
        if not is_shard(spec):
            raise _not_found(spec, "only tar shards are fetched from a URL: fetch it first, as with `curl -LO`")
        return [local_copy(address, limits) for address in _counted(spec)]
    return [local_copy(str(path), limits) if is_compressed(path.name) else path for path in _paths(spec)]


def _opened(spec: str, split: Split, shapes: Mapping[str, object], limits: Limits) -> Source:
    """One specification as one source; its shards share one index."""
    if spec == "shapes" or spec.startswith("shapes:"):
        return _shapes(spec, split, shapes)
    chosen, place, options = _parts_of(spec)
    if chosen == _NAMED:
        return NamedDataSource(_named(spec, place, options), limits)
    for option in options.keys() - {"images"}:
        raise _unusable_option(option, spec, "only a data set named `hf:...` has it")
    images = Path(options["images"]).expanduser() if "images" in options else None
    if images is not None and not images.is_dir():
        raise _unusable_option("images", spec, f"there is no folder `{images}`")
    paths = _existing(place, limits)
    if chosen:
        sources = [_in_format(path, chosen, spec, limits, images) for path in paths]
    else:
        shards = [path for path in paths if path.suffix.lower() == ".tar" and not path.is_dir()]
        copied = is_address(place) or is_compressed(place)
        sources = [TarSource(shards, spec if copied else _name_of(shards), limits)] if shards else []
        sources += [_in_format(path, "", spec, limits, images) for path in paths if path not in shards]
    return sources[0] if len(sources) == 1 else JoinedSource(sources, spec)


def _named(spec: str, place: str, options: Mapping[str, str]) -> NamedData:
    """The data set that `hf:NAME` names."""
    if "images" in options:
        raise _unusable_option("images", spec, "a data set has its images in its rows")
    return NamedData(place, **options)


def _parts_of(spec: str) -> tuple[str, str, dict[str, str]]:
    """The name of a format, if there is one, the path, and options: `coco:captions.json,images=train2017`."""
    if _exists(Path(spec)):
        return "", spec, {}
    options: dict[str, str] = {}
    while match := _OPTION.fullmatch(spec):
        spec, options[match["name"]] = match["before"], match["value"]
    prefix = _PREFIX.fullmatch(spec)
    if prefix and prefix["name"] in (_NAMED, *(one.name for one in FORMATS)) and not is_address(spec):
        return prefix["name"], prefix["rest"], options
    return "", spec, options


def local_places(spec: str) -> list[tuple[str, bool]]:
    """The files and folders of this machine that a specification names, each with whether it is a pattern.

    >>> local_places("coco:captions.json,images=train2017"), local_places("shards/*.tar"), local_places("shapes:samples=9")
    ([('captions.json', False), ('train2017', False)], [('shards/*.tar', True)], [])
    """
    chosen, place, options = _parts_of(spec)
    if spec.partition(":")[0] == "shapes" or chosen == _NAMED or is_address(place) or not place.strip():
        return []
    places = [one for one in (*_counted(place), options.get("images", "")) if one]
    expanded = [os.path.expanduser(one) for one in places]
    return [(one, glob.has_magic(one) and not _exists(Path(one))) for one in expanded]


def _unusable_option(option: str, spec: str, reason: str) -> DiagnosticError:
    return DiagnosticError((DataOption.at(_PLACE, option=option, given=spec, reason=reason),))


def held_out(spec: str | Iterable[str]) -> list[str]:
    """The built-in data among training specifications, as specifications to be opened with `split="val"`.

    >>> held_out(["a.tar", "shapes:samples=500,objects=2,noise=0.3"])
    ['shapes:objects=2']
    """
    specs = []
    for one in [spec] if isinstance(spec, str) else list(spec):
        name, _, options = one.partition(":")
        if name == "shapes":
            kept = [option for option in options.split(",") if option.partition("=")[0].strip() in _OPTIONS_OF_BOTH_SPLITS]
            specs.append(":".join(filter(None, (name, ",".join(kept)))))
    return specs


def _name_of(shards: list[Path]) -> str:
    return str(shards[0]) if len(shards) == 1 else f"{shards[0]} and {len(shards) - 1} more"


def _in_format(path: Path, name: str, spec: str, limits: Limits, images: Path | None) -> Source:
    """The source of one path, in the format of that name or the one that recognises it."""
    chosen = format_of(path, name)
    if chosen is not None:
        if images is not None and chosen.name == "folder":
            raise _unusable_option("images", spec, "the images of a folder are in it")
        return chosen.open(DataPath(path, limits, images))
    help = (
        "supported are `.tar` shards, `.csv`, `.tsv`, `.jsonl`, `.json`, `.parquet` and `.arrow` tables, captions of COCO "
        "and Flickr, folders of images or that `datasets` saved, and `hf:NAME`"
    )
    if path.suffix.lower() in _COMPRESSED:
        help = "unpack it first: of compressed files only shards (`.tar.gz`, `.tar.bz2`, `.tar.xz`, `.tar.zst`) are unpacked"
    raise DiagnosticError((UnknownDataForm.at(_PLACE, given=path, help=(help,)),))


def _paths(pattern_list: str) -> list[Path]:
    """The existing paths that a specification names, sorted within each pattern."""
    paths: list[Path] = []
    for pattern in _counted(pattern_list):
        try:
            pattern = str(Path(pattern).expanduser())
        except RuntimeError:  # `~nobody`
            raise _not_found(pattern, "there is no such home folder") from None
        if _exists(Path(pattern)):
            paths.append(Path(pattern))
        elif matches := _matches(pattern):
            paths.extend(Path(match) for match in matches)
        else:
            is_pattern = glob.has_magic(pattern)
            reason = "the pattern matches nothing" if is_pattern else "there is no such file or folder"
            raise _not_found(pattern, reason)
    return paths


def _matches(pattern: str) -> list[str]:
    """The matches of a pattern, without hidden files. `**` enters no symbolic link: they may lead in circles."""
    try:
        if "**" not in pattern:
            return sorted(glob.glob(pattern))
        path = Path(pattern)
        below = path.relative_to(path.anchor)
        paths = Path(path.anchor).glob(str(below))
        named = set(path.parts)
        return sorted(str(one) for one in paths if not any(part[0] == "." and part not in named for part in one.parts))
    except (OSError, ValueError, NotImplementedError, re.error) as error:  # `a**`, a NUL, a folder that may not be read
        raise _not_found(pattern, f"the pattern cannot be used: {error}") from None


def _counted(spec: str) -> list[str]:
    """`a-{000..002}` as `a-000`, `a-001`, `a-002`; itself without braces."""
    pieces = _COUNTING.split(spec)
    ranges = []
    for low, high in zip(pieces[1::3], pieces[2::3], strict=True):
        numbers = range(int(low), int(high) + 1)
        ranges.append([f"{number:0{len(low)}d}" for number in numbers[:_MOST_COUNTED]])
    fixed = pieces[0::3]
    combinations = itertools.islice(itertools.product(*ranges), _MOST_COUNTED)
    return ["".join(itertools.chain(*zip(fixed, (*numbers, ""), strict=True))) for numbers in combinations]


def _not_found(spec: str, *notes: str) -> DiagnosticError:
    path = Path(spec)
    if not glob.has_magic(spec) and not is_address(spec) and _exists(path.parent) and not _exists(path):
        close = (
            closest(path.name, (other.name for other in itertools.islice(path.parent.iterdir(), _MOST_NAMES)))
            if path.parent.is_dir()
            else None
        )
        notes += (f"did you mean `{path.parent / close}`?",) if close else ()
    help = "give a `.tar` shard, a table, a folder of images, or `shapes` for the built-in data"
    helps = (help, allow_folders()) if any(OUTSIDE in note for note in notes) else (help,)
    return DiagnosticError((DataNotFound.at(_PLACE, given=spec, notes=notes, help=helps),))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a NUL in it, or too long a name
        return False


def _shapes(spec: str, split: Split, defaults: Mapping[str, object]) -> ShapesSource:
    options = dict(defaults)
    for assignment in filter(None, spec.partition(":")[2].split(",")):
        option, separator, value = (part.strip() for part in assignment.partition("="))
        if not separator or not value:
            raise _bad_option(option, "needs a value", f"write `shapes:{option or 'samples'}=VALUE`")
        options[option] = value
    read: dict[str, object] = {}
    for option, chosen in options.items():
        if option not in SHAPES_OPTIONS:
            raise _bad_option(option, "does not exist", suggestion(option, SHAPES_OPTIONS, "the options"))
        try:
            read[option] = SHAPES_OPTIONS[option](chosen)
        except ValueError as fault:
            reason = str(fault) if str(fault).startswith("must") else f"cannot be {chosen!r}"
            raise _bad_option(option, reason, "see `vlmdsl explain V0808`") from fault
    return ShapesSource(split, name=spec, **read)  # type: ignore[arg-type]  # each option is read to its type above


def _bad_option(option: str, problem: str, help: str) -> DiagnosticError:
    return DiagnosticError((ShapesOption.at(_PLACE, option=option, problem=problem, help=(help,)),))
