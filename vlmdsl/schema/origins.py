"""Settings that say the same twice: which of them a user gave, and where; what is said where one would lose in silence.

A later layer replaces an earlier one: what is on the command line replaces what is in a file. On the command line itself
nothing is later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from vlmdsl.diagnostics import Diagnostic, Label
from vlmdsl.diagnostics.catalog.settings import LengthTwice, SettingFixed, SettingTwice, StageHasItsOwn
from vlmdsl.source import Span

__all__ = ["Layer", "Origins", "options_in_words", "plain_value"]

Layer: TypeAlias = Literal["run", "file", "settings", "command"]
"""Where a setting comes from: a file that a run wrote, one that a user wrote, the mapping `settings` of a call in Python, or
the command line (in Python the arguments of the call)."""

_OPTIONS = {
    "data.train": "--data", "data.val": "--val", "data.map": "--map", "train.steps": "--steps", "train.seed": "--seed",
    "train.device": "--device", "schedule.lowering": "--lowering", "out": "--out", "train.batch": "--batch",
    "train.micro": "--micro",
}  # fmt: skip
"""Options of commands, and arguments in Python, that set a setting."""
_STEPS, _EPOCHS = ("train", "steps"), ("train", "epochs")
_OF_STAGES = ("optimizer", "schedule", "train")
"""Sections of which a stage may have its own settings for the same thing. The data of a stage are others by design."""

_Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class _Leaf:
    """A setting that was given, without mappings in it."""

    path: _Path
    value: object
    place: Span
    layer: Layer


@dataclass
class Origins:
    """All settings that were given, in the order of the layers."""

    leaves: list[_Leaf] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def add(self, at: _Path, value: object, places: Mapping[_Path, Span], layer: Layer) -> None:
        """Note what one text sets; V0848 where that was set to something else on the same command line."""
        for path, leaf in _leaves(at, value):
            if not path:  # an empty file
                continue
            prefixes = (path[:length] for length in range(len(path), -1, -1))
            new = _Leaf(path, leaf, next(places[prefix] for prefix in prefixes if prefix in places), layer)
            if layer == "command":
                self._check_against_others(new)
            self.leaves.append(new)

    def _check_against_others(self, new: _Leaf) -> None:
        for old in self.leaves:
            replaced = _whole(old.path)[: len(_whole(new.path))] == _whole(new.path)
            if old.layer == "command" and replaced and _listed(old.value) != _listed(new.value):
                name, option = ".".join(old.path), options_in_words([new.path, old.path])
                self.diagnostics.append(
                    SettingTwice.at(
                        new.place,
                        f"{_shown(new.value)} here",
                        secondary=(Label(old.place, f"{_shown(old.value)} here"),),
                        notes=option,
                        help=("leave one of them out",),
                        name=name,
                        first=_shown(old.value),
                        second=_shown(new.value),
                    )
                )

    def check_fixed(self, fixed: Mapping[str, object]) -> None:
        """V0869 for another value of a setting that is fixed, on the command line; for a stage, too."""
        for leaf in self.leaves:
            name = ".".join(leaf.path[2:] if leaf.path[0] == "stages" else leaf.path)
            if leaf.layer in ("settings", "command") and name in fixed and leaf.value != fixed[name]:
                value = _shown(fixed[name])
                self.diagnostics.append(
                    SettingFixed.at(leaf.place, help=("leave it out",), name=".".join(leaf.path), value=value)
                )

    def length(self) -> tuple[_Path, ...]:
        """Of `train.steps` and `train.epochs`, those that a later layer replaces by the other; V0849 where neither does."""
        steps, epochs = (self._last(path) for path in (_STEPS, _EPOCHS))
        if steps is None or epochs is None or epochs.value is None:
            return ()
        if steps.layer != epochs.layer:
            if self.leaves.index(steps) > self.leaves.index(epochs):
                return (_EPOCHS,)
            written = [leaf.value for leaf in self.leaves if leaf.path == _EPOCHS and leaf.layer == "run"]
            return () if epochs.value in written else (_STEPS,)  # a resumed run may be given its epochs again
        if steps.layer != "run":  # a run writes how many steps its epochs are
            self.diagnostics.append(
                LengthTwice.at(
                    steps.place,
                    secondary=(Label(epochs.place, "another length here"),),
                    notes=options_in_words([_STEPS]) if steps.layer == "command" else (),
                    help=("leave one of them out",),
                    steps=_shown(steps.value),
                    epochs=_shown(epochs.value),
                )
            )
        return ()

    def check_stages(self, stages: Sequence[str]) -> None:
        """V0868 for a setting of the run, given on the command line, that the file replaces for a stage, or that all stages
        replace."""
        for leaf in self._general():
            own = {name: of_stage for name in stages if (of_stage := self._last(("stages", name, *leaf.path))) is not None}
            in_file = [name for name, of_stage in own.items() if of_stage.layer in ("file", "run")]
            if not (in_file or (own and len(own) == len(stages))):
                continue
            name = (in_file or list(own))[0]
            if leaf.value == own[name].value:
                continue
            setting = ".".join(leaf.path)
            help = (
                f"give it for the stage, too: `--set stages.{name}.{setting}={plain_value(leaf.value)}` to change it, or "
                f"`--set stages.{name}.{setting}={plain_value(own[name].value)}` to keep its own"
                if in_file
                else "leave it out, since every stage has its own"
            )
            self.diagnostics.append(
                StageHasItsOwn.at(
                    leaf.place,
                    secondary=(Label(own[name].place, f"{_shown(own[name].value)} for this stage"),),
                    notes=options_in_words([leaf.path]),
                    help=(help,),
                    name=setting,
                    value=_shown(leaf.value),
                    stage=name,
                )
            )

    def _general(self) -> Iterator[_Leaf]:
        """The last leaf of each setting of the run that stages may have their own of, given on the command line."""
        last = {leaf.path: leaf for leaf in self.leaves if leaf.path[0] in _OF_STAGES}
        yield from (leaf for leaf in last.values() if leaf.layer == "command")

    def _last(self, path: _Path) -> _Leaf | None:
        return next((leaf for leaf in reversed(self.leaves) if leaf.path == path), None)


def options_in_words(paths: Sequence[_Path]) -> tuple[str, ...]:
    """A note that says which options set these settings, if they have one."""
    names = (".".join(path[:length]) for path in paths for length in range(len(path), 0, -1))
    name = next((name for name in names if name in _OPTIONS), None)
    if name is None:
        return ()
    option = _OPTIONS[name]
    return (f"the option `{option}`, in Python the argument `{option.removeprefix('--')}=`, sets `{name}`",)


def _leaves(at: _Path, value: object) -> Iterator[tuple[_Path, object]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves((*at, str(name)), inner)
    else:
        yield at, value


def _whole(path: _Path) -> _Path:
    """The path of a mapping's `*`, which is for all keys, is that of the mapping."""
    return path[:-1] if path[-1] == "*" else path


def _listed(value: object) -> object:
    """A list for a list and for the only item of one, which may stand alone."""
    return list(value) if isinstance(value, list | tuple) else [value]


def plain_value(value: object) -> str:
    """A value of a setting as `--set` takes it, but for quotes."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plain_value, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: object) -> str:
    text = plain_value(value)
    return text if len(text) <= 60 else text[:57] + "..."
