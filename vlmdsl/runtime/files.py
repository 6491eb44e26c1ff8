"""Single files of a run folder, which may come from a stranger or from a disk that failed: read with limits and checked,
written whole or not at all. This module needs no torch."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import CannotWrite
from vlmdsl.diagnostics.catalog.runs import RunFileDamaged
from vlmdsl.source import Span

__all__ = [
    "check_place", "damaged", "file_digest", "flush", "read_json", "read_text", "rounded", "seal", "unsealed",
    "write_atomically", "write_json", "writing",
]  # fmt: skip

_COMMAND_LINE = Span("<command line>", 0, 0)
_LARGEST_TEXT = 1 << 30
"""Bytes: far more than any text of a run."""
_SEAL = "sha256"
_DIGITS = 12
"""Significant digits of a number in JSON: what lies below is noise of the arithmetic."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")

Model = TypeVar("Model", bound=BaseModel)


def damaged(path: Path, reason: str, *help: str, notes: tuple[str, ...] = ()) -> DiagnosticError:
    """The error V0850 for a file of a run folder."""
    return DiagnosticError((RunFileDamaged.at(_COMMAND_LINE, path=path, reason=reason, help=help, notes=notes),))


def read_text(path: Path) -> str:
    """The text of a plain file in UTF-8; V0850 for anything else."""
    try:
        kind = path.lstat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a symbolic link" if stat.S_ISLNK(kind) else "not a regular file"
            raise damaged(path, f"it is {what}")
        if path.stat().st_size > _LARGEST_TEXT:
            raise damaged(path, f"it is larger than {_LARGEST_TEXT >> 20} MiB")
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise damaged(path, "it is missing") from None
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is not UTF-8 text (byte {error.start})") from None


def read_json(path: Path, model: type[Model], *, sealed: bool = False, help: str = "") -> Model:
    """The JSON object in a file as `model`; V0850 where it is cut off, altered (`sealed`) or of another form."""
    helps = (help,) if help else ()
    text = read_text(path)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if not text.strip() else f"it is not JSON: {_json_fault(error)}"
        raise damaged(path, reason, *helps) from None
    if not isinstance(value, dict):
        raise damaged(path, f"it holds {_kind(value)}, not a JSON object", *helps)
    if sealed and not unsealed(value):
        raise damaged(path, "it is not what the run wrote: its SHA-256 differs", *helps)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise damaged(path, f"`{where}`: {str(fault['msg']).removeprefix('Value error, ')}", *helps) from None


def seal(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the SHA-256 of all that it holds, under `sha256`."""
    plain = {name: value for name, value in facts.items() if name != _SEAL}
    as_read = json.loads(json.dumps(plain, allow_nan=False))  # keys that are numbers become texts
    return {**plain, _SEAL: _digest(as_read)}


def unsealed(facts: Mapping[str, Any]) -> bool:
    """Whether `facts` match their seal."""
    return facts.get(_SEAL) == seal(facts)[_SEAL]


def rounded(value: Any) -> Any:
    """A JSON value whose numbers are free of the noise of arithmetic.

    >>> rounded({"mean": 0.0024999999999999467, "low": [0.1 + 0.2, -1e-17]})
    {'mean': 0.0025, 'low': [0.3, 0.0]}
    """
    if isinstance(value, float) and math.isfinite(value):
        return 0.0 if abs(value) < 10.0**-_DIGITS / 10 else float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: rounded(entry) for name, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file by `value` as JSON."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the file at `path` by `content`; readers see the old one or the new one, never a part.

    In a text, a name that is not UTF-8, as a path may be, is written as JSON and YAML write it: by its escape.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    with writing(path):
        try:
            # What lies under this name, such as a link to elsewhere, is not written through.
            partial.unlink(missing_ok=True)
            with partial.open("xb") as file:
                file.write(content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Reports a failure to write `path` as V0903."""
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        reason, help = os.strerror(number), ""
        if number in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST) and path.is_dir():
            reason, help = "a folder is in its place", "name another file"
        elif not path.parent.is_dir():
            help = f"there is no folder `{path.parent}`: create it first"
        raise DiagnosticError(
            (CannotWrite.at(_COMMAND_LINE, path=path, reason=reason, help=(help,) if help else ()),)
        ) from error


def check_place(path: Path) -> None:
    """V0903 where no file can be written at `path`, before what it is to hold is computed: its folder does not exist, a
    folder is in its place, or the system allows no such name."""
    with writing(path):
        path.absolute().parent.stat()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def flush(path: Path) -> None:
    """Wait until a file, or the list of a folder's entries, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _error_number(error: Exception) -> int | None:
    """The system's number of an error in writing; safetensors has it in its message only."""
    if isinstance(error, OSError):
        return error.errno
    numbered = _OS_ERROR.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(numbered[1]) if numbered else None


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _json_fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _kind(value: object) -> str:
    kinds: list[tuple[type, str]] = [(list, "a list"), (str, "a text"), (bool, "a truth value"), (type(None), "null")]
    return next((name for kind, name in kinds if isinstance(value, kind)), "a number")
