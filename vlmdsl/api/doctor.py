"""`doctor`: what this environment has for vlmdsl, and what it lacks. Torch is imported when it is called."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from vlmdsl._resources import installed_version
from vlmdsl.diagnostics.cells import displayed

__all__ = ["Checkup", "Finding", "doctor"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what is `lacking` keeps vlmdsl from working, what is `optional` is absent and only
    needed for some uses. `remedy` says what to do."""

    name: str
    value: str
    state: Literal["fine", "lacking", "optional"] = "fine"
    remedy: str = ""


@dataclass(frozen=True)
class Checkup:
    """All that was looked at."""

    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is lacking that is needed."""
        return all(finding.state != "lacking" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        return {"sound": self.sound, "findings": [vars(finding) for finding in self.findings]}

    def to_text(self) -> str:
        """A line for each, with what to do below it."""
        marks = {"fine": "ok", "lacking": "LACKING", "optional": "absent"}
        width = max(len(finding.name) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"{marks[finding.state]:7}  {finding.name:{width}}  {displayed(finding.value)}".rstrip())
            lines += [f"{'':7}  {'':{width}}  {finding.remedy}"] if finding.remedy else []
        return "\n".join(lines)


def doctor(*, compile: bool = True) -> Checkup:
    """Look at versions, devices, the compiler, memory, and the packages of every extra.

    Args:
        compile: whether to compile a function with `torch.compile`, which takes some seconds.

    >>> checkup = doctor(compile=False)
    >>> checkup.sound, checkup.findings[0].name
    (True, 'vlmdsl')
    """
    return Checkup((*_versions(), *_packages(), *_devices(), *(_compiler() if compile else ()), *_room()))


def _versions() -> Iterator[Finding]:
    yield Finding("vlmdsl", installed_version())
    fine = sys.version_info >= (3, 11)
    remedy = "" if fine else "vlmdsl needs Python 3.11 or newer"
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}", "fine" if fine else "lacking", remedy)


def _packages() -> Iterator[Finding]:
    """What vlmdsl requires, and what each of its extras does."""
    try:
        requirements = metadata.requires("vlmdsl") or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", "vlmdsl is on the path and not installed", "optional", "python -m pip install vlmdsl")
        return
    for requirement in requirements:
        match, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        assert match is not None, "a requirement begins with the name of a package"
        name = match[0]
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            needed = requirement.partition(";")[0].strip()
            install = f"vlmdsl[{extra[1]}]" if extra else needed
            state: Literal["lacking", "optional"] = "optional" if extra else "lacking"
            yield Finding(name, f"{needed}, of the extra {extra[1]}" if extra else needed, state, f"pip install '{install}'")
        else:
            yield Finding(name, version)


def _devices() -> Iterator[Finding]:
    torch = import_module("torch")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cpu", f"{cores} cores, {torch.get_num_threads()} threads of torch")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device, (free, total) = torch.cuda.get_device_properties(number), torch.cuda.mem_get_info(number)
            kind = f"{device.name}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free, CUDA {torch.version.cuda}"
            yield Finding(f"cuda:{number}", kind)
        return
    built = torch.version.cuda is not None
    value = "torch sees no device" if built else "this torch is built for the CPU"
    yield Finding("cuda", value, "optional", "check the driver with nvidia-smi" if built else "")


def _compiler() -> Iterator[Finding]:
    """Whether torch can compile: it needs a C++ compiler on a CPU, and Triton on a GPU."""
    torch = import_module("torch")
    start = time.perf_counter()
    try:
        result = torch.compile(lambda x: (2 * x).exp().sum(), fullgraph=True)(torch.ones(3))
        assert abs(result.item() - 22.1671682968) < 1e-3
    except Exception as fault:
        # Whatever a tool chain raises: the answer is what it says, and the way around.
        reason = str(fault).strip().partition("\n")[0][:200]
        remedy = "install a C++ compiler (g++ or clang++), or train with `--set train.compile=false`"
        yield Finding("compiler", f"torch.compile fails: {type(fault).__name__}: {reason}", "lacking", remedy)
        return
    yield Finding("compiler", f"torch.compile works, {time.perf_counter() - start:.1f} s for the first function")


def _room() -> Iterator[Finding]:
    memory = _available_memory()
    if memory is not None:
        yield Finding("memory", f"{memory / _GIB:.1f} GiB available")
    free = shutil.disk_usage(Path.cwd()).free
    low = free < _GIB
    remedy = "checkpoints may not fit: `--out` names a folder elsewhere" if low else ""
    yield Finding("disk", f"{free / _GIB:.1f} GiB free in the working folder", "optional" if low else "fine", remedy)


def _available_memory() -> int | None:
    """Bytes of memory that programs can take; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kibibytes is None else int(kibibytes) * 1024
