"""Builds a run configuration from its layers: defaults, a YAML file, `--set` overrides, other flags; later ones win."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlmdsl.diagnostics import Diagnostic, Edit, Fix, closest
from vlmdsl.diagnostics.catalog.configuration import (
    BadOverride,
    BadSetting,
    ConfigurationMissing,
    ConfigurationSyntax,
    UnknownSetting,
)
from vlmdsl.diagnostics.catalog.evaluation import ClassNamesUnusable
from vlmdsl.schema.class_names import CLASSES_UNUSABLE, HOW_TO_NAME
from vlmdsl.schema.moved import MOVED, moved_name, moved_section
from vlmdsl.schema.origins import Layer, Origins, plain_value
from vlmdsl.schema.parts import Parts, unknown_parts
from vlmdsl.schema.python_values import as_setting, listed
from vlmdsl.schema.run import FlowConfig, RunConfig, StageConfig
from vlmdsl.schema.yaml_tree import Path, YamlTree, read_yaml
from vlmdsl.source import SourceMap, SourceText, Span, with_newlines
from vlmdsl.source.regular_files import BadFile, read_regular

__all__ = ["CONFIG_SEAL", "CallSettings", "Flags", "dump_config", "load_config", "schema_of_config", "setting_names"]


class CallSettings(NamedTuple):
    """The settings of a call in Python, by dotted name: those of its mapping `settings`, which its arguments replace.

    Values are as in YAML, where those of Python mean the same: `as_setting` says which.
    """

    settings: Mapping[str, object]
    arguments: Mapping[str, object]


Flags: TypeAlias = Mapping[str, object] | CallSettings
CONFIG_SEAL = "# SHA-256 of the lines above: "
"""What the last line of a configuration that a run has written begins with."""


def load_config(
    path: str | None = None,
    overrides: Iterable[str] = (),
    flags: Flags | None = None,
    sources: SourceMap | None = None,
    parts: Parts | None = None,
    fixed: Mapping[str, object] | None = None,
) -> tuple[RunConfig | None, list[Diagnostic]]:
    """Load the configuration; None and diagnostics if it has errors.

    `path` is a YAML file, `overrides` are texts `section.setting=value`, `flags` are values of Python by dotted name. Both
    come from one command line, on which a setting has one value (V0848). Texts that diagnostics point into are
    added to `sources`. With `parts`, settings of other stages and flows are errors. `fixed` are values that nothing changes:
    other ones on the command line are errors (V0869), those of a file and of its stages are replaced.

    >>> config, diagnostics = load_config(overrides=["optimizer.learning_rate=1e-4"], flags={"train.steps": 7})
    >>> config.optimizer.learning_rate, config.train.steps, diagnostics
    (0.0001, 7, [])
    """
    layers = _Layers(sources if sources is not None else SourceMap())
    if path is not None:
        layers.add_file(path)
    layers.add_overrides(overrides)
    call = flags if isinstance(flags, CallSettings) else CallSettings({}, flags or {})
    layers.add_flags(call.settings, "settings")
    layers.add_flags(call.arguments, "command")
    layers.decide_length()
    layers.fix(fixed or {})
    if parts is not None:
        layers.origins.check_stages(parts["stages"])
    diagnostics = layers.diagnostics + layers.origins.diagnostics
    try:
        config = RunConfig.model_validate(layers.values)
    except ValidationError as error:
        diagnostics.extend(_diagnostic(details, layers) for details in _own_faults(error.errors(include_url=False)))
    else:
        unknown = unknown_parts(config, parts) if parts is not None else {}
        for location, help in unknown.items():
            key, _ = layers.place_of(location)
            diagnostics.append(UnknownSetting.at(key, name=".".join(location), help=(help,)))
    return (None, diagnostics) if diagnostics else (config, [])


def dump_config(config: RunConfig) -> str:
    """The whole configuration as YAML, which `load_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def schema_of_config() -> dict[str, object]:
    """The JSON schema of the configuration file, for editors."""
    return RunConfig.model_json_schema()


def setting_names() -> list[str]:
    """Every setting with its section: `model.image_encoder`, ..., `out`."""
    names: list[str] = []
    for name, info in RunConfig.model_fields.items():
        section = _section(info.annotation)
        names.extend([name] if section is None else [f"{name}.{setting}" for setting in section.model_fields])
    return names


_PARTS: dict[str, type[BaseModel]] = {"stages": StageConfig, "flows": FlowConfig}
_DEEPEST_NAME = 8
"""How many parts a name of a setting may have, with room for misspelt names, which are then reported."""
_OR_ONE_FOR_ALL = frozenset({"lowering"})
"""Settings that are mappings, or one value for all of their keys."""
_NOWHERE = Span("the defaults", 0, 0)
_LARGEST = 2**20
"""Most bytes of a configuration file."""


@dataclass
class _Layers:
    """The merged values, and for every path the place that set it last."""

    sources: SourceMap
    values: dict[str, object] = field(default_factory=dict)
    places: dict[Path, tuple[Span, Span]] = field(default_factory=lambda: {(): (_NOWHERE, _NOWHERE)})
    diagnostics: list[Diagnostic] = field(default_factory=list)
    origins: Origins = field(default_factory=Origins)

    def place_of(self, location: Path) -> tuple[Span, Span]:
        """The key and the value of a setting, or of the section around it that was set as a whole."""
        prefixes = (location[:length] for length in range(len(location), -1, -1))
        return self.places[next(prefix for prefix in prefixes if prefix in self.places)]

    def add_file(self, path: str) -> None:
        try:
            text = with_newlines(read_regular(path, _LARGEST).decode("utf-8"))
        except (BadFile, UnicodeDecodeError) as error:
            place = self.sources.add(SourceText("--config", path))
            reason = error.reason if isinstance(error, BadFile) else "it is not text in UTF-8"
            self.diagnostics.append(ConfigurationMissing.at(Span(place.name, 0, len(path)), path=path, reason=reason))
            return
        tree = read_yaml(self.sources.add(SourceText(path, text)))
        if tree.value is not None and not isinstance(tree.value, dict):
            tree.diagnostics.append(ConfigurationSyntax.at(tree.places[()][1], problem="it is not a mapping of sections"))
        elif isinstance(tree.value, dict):
            # Checked before later layers are merged, which would hide errors in it.
            flat = {
                name for name, value in tree.value.items() if not isinstance(value, dict | None) and _section_called(name)
            }
            for name in sorted(flat):
                where, problem = tree.places[(name,)][1], "must be a mapping of settings"
                label = f"got {_shown(tree.value[name])}"
                tree.diagnostics.append(BadSetting.at(where, label, name=name, problem=problem))
            tree.diagnostics.extend(moved_section(tree, text))
            tree.value = {name: value for name, value in tree.value.items() if name not in flat and name != MOVED}
        self._merge(tree, (), "run" if CONFIG_SEAL in text else "file")

    def add_overrides(self, texts: Iterable[str]) -> None:
        overrides = [str(override) for override in listed(texts)]
        source = self.sources.add(SourceText("--set", "\n".join(overrides)))
        start = 0
        for override in overrides:
            name, equals, _ = override.partition("=")
            keys = tuple(name.strip().split("."))
            span = Span(source.name, start, start + len(name))
            if not equals or not all(keys) or len(keys) > _DEEPEST_NAME:
                self.diagnostics.append(BadOverride.at(span, given=override))
            elif keys[0] == MOVED:
                self.diagnostics.append(moved_name(keys, span))
            else:
                window = SourceText(source.name, source.text[: start + len(override)])
                tree = read_yaml(window, start + len(name) + 1)
                self._note_prefixes(keys, span)
                self._merge(tree, keys, "command", span)
            start += len(override) + 1

    def add_flags(self, flags: Mapping[str, object], layer: Layer) -> None:
        if not isinstance(flags, Mapping):
            place, help = self.sources.add(SourceText("<flags>", _shown(flags))), 'write `settings={"train.batch": 64}`'
            span = Span(place.name, 0, len(place.text))
            problem = "must be a mapping of values by dotted name"
            self.diagnostics.append(BadSetting.at(span, name="settings", problem=problem, help=(help,)))
            return
        if not flags:
            return
        values = {str(name): as_setting(value) for name, value in flags.items()}
        texts = [f"{name}={plain_value(value)}" for name, value in values.items()]
        source = self.sources.add(SourceText("<flags>", "\n".join(texts)))
        start = 0
        for (name, value), text in zip(values.items(), texts, strict=True):
            span = Span(source.name, start, start + len(text))
            keys = tuple(name.split("."))
            if not all(keys) or len(keys) > _DEEPEST_NAME:
                help = "a setting is written with its section, `train.batch`"
                self.diagnostics.append(UnknownSetting.at(span, name=name, help=(help,)))
            elif keys[0] == MOVED:
                self.diagnostics.append(moved_name(keys, Span(source.name, start, start + len(name))))
            else:
                self._note_prefixes(keys, span)
                self._merge(YamlTree(value, {(): (span, span)}), keys, layer, span)
            start += len(text) + 1

    def fix(self, fixed: Mapping[str, object]) -> None:
        """Replace settings of the run and of its stages."""
        self.origins.check_fixed(fixed)
        for name, value in fixed.items():
            keys = tuple(name.split("."))
            for at in (keys, *(path for path in self.places if path[:1] == ("stages",) and path[2:] == keys)):
                tree: object = value
                for key in reversed(at):
                    tree = {str(key): tree}
                assert isinstance(tree, dict)
                _merge_into(self.values, tree)

    def decide_length(self) -> None:
        """Leave out the length that a later layer replaces, in steps or in epochs."""
        for section, name in self.origins.length():
            settings = self.values[section]
            assert isinstance(settings, dict)
            del settings[name]

    def _note_prefixes(self, keys: tuple[str, ...], span: Span) -> None:
        for length in range(1, len(keys)):
            self.places.setdefault(keys[:length], (span, span))

    def _merge(self, tree: YamlTree, at: tuple[str, ...], layer: Layer, key_span: Span | None = None) -> None:
        self.diagnostics.extend(tree.diagnostics)
        if not tree.diagnostics:
            places = {(*at, *map(str, path)): place for path, (_, place) in tree.places.items()}
            self.origins.add(at, tree.value, places, layer)
        for path, (key, place) in tree.places.items():
            self.places[(*at, *path)] = (key_span if key_span is not None and not path else key, place)
        value = tree.value
        for name in reversed(at):
            value = {name: value}
        if isinstance(value, dict):
            _merge_into(self.values, value)


def _merge_into(target: dict[str, object], source: Mapping[str, object]) -> None:
    """Deep merge; a section that is empty in YAML (null) changes nothing. What one value says for all (`lowering: chunked`)
    holds for those that a mapping laid over it does not name."""
    for key, value in source.items():
        present = target.get(key)
        if isinstance(value, Mapping):
            merged = (
                dict(present) if isinstance(present, dict) else {"*": present} if key in _OR_ONE_FOR_ALL and present else {}
            )
            _merge_into(merged, value)
            target[key] = merged
        elif value is not None or _section_called(key) is None:
            target[key] = value


def _diagnostic(details: ErrorDetails, layers: _Layers) -> Diagnostic:
    location: Path = details["loc"]
    name = _dotted(location)
    key, value = layers.place_of(location)
    if details["type"] == "extra_forbidden":
        return _unknown(name, location, key)
    if details["type"] == CLASSES_UNUSABLE:
        return ClassNamesUnusable.at(value, classes=str(details["input"]), reason=_problem(details), help=(HOW_TO_NAME,))
    description = _description(location)
    notes = (f"`{_dotted(location[:2])}`: {description}",) if description else ()
    return BadSetting.at(value, f"got {_shown(details['input'])}", name=name, problem=_problem(details), notes=notes)


def _own_faults(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Without the lists that are too short only because items of them, which have faults of their own, do not count."""
    for details in errors:
        inside = (other["loc"] for other in errors if len(other["loc"]) > len(details["loc"]))
        if details["type"] != "too_short" or all(other[: len(details["loc"])] != details["loc"] for other in inside):
            yield details


_PROBLEMS = {
    "model_type": "must be a mapping of settings",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "missing": "is missing",
    "too_short": "must have at least {min_length}, and has {actual_length}",
    "too_long": "must have at most {max_length}, and has {actual_length}",
}
"""What pydantic calls a fault -> what is wrong in words of YAML."""


def _problem(details: ErrorDetails) -> str:
    if details["type"] in _PROBLEMS:
        return _PROBLEMS[details["type"]].format(**details.get("ctx", {}))
    message = details["msg"].removeprefix("Value error, ")
    return message.replace("Input should", "must", 1)


def _unknown(name: str, location: Path, key: Span) -> Diagnostic:
    section = _section_called(location[0]) if len(location) > 1 else None
    if location[0] in _PARTS and len(location) > 2:  # stages.NAME.section.setting
        section = _section_called(location[2]) if len(location) > 3 else _PARTS[str(location[0])]
    siblings = list((section or RunConfig).model_fields)
    last = str(location[-1])
    near = closest(last, siblings)
    if near is not None:
        suggestion = ".".join([*map(str, location[:-1]), near])
        # An override's place covers the dotted name, a file's only the key.
        replacement = suggestion if key.file in ("--set", "<flags>") else near
        fix = Fix(f"write `{suggestion}`", (Edit(key, replacement),), safe=False)
        return UnknownSetting.at(key, name=name, help=(f"did you mean `{suggestion}`?",), fix=fix)
    elsewhere = [setting for setting in setting_names() if setting.split(".")[-1] == last]
    if elsewhere:
        return UnknownSetting.at(key, name=name, help=(f"did you mean `{elsewhere[0]}`?",))
    where = f"in `{'.'.join(map(str, location[:-1]))}`" if section is not None else "at the top level"
    return UnknownSetting.at(key, name=name, help=(f"the settings {where}: {', '.join(siblings)}",))


def _section(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _section_called(name: object) -> type[BaseModel] | None:
    info = RunConfig.model_fields.get(str(name))
    return None if info is None else _section(info.annotation)


def _description(location: Path) -> str:
    section = _section_called(location[0]) if location else None
    fields = section.model_fields if section is not None and len(location) > 1 else RunConfig.model_fields
    key = location[1] if section is not None and len(location) > 1 else location[0] if location else ""
    info = fields.get(str(key))
    return "" if info is None or info.description is None else info.description


def _dotted(location: Path) -> str:
    words = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(words).removeprefix(".") or "the configuration"


def _shown(value: object) -> str:
    text = _spelt(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _spelt(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_spelt, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
