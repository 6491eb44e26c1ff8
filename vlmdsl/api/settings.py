"""The settings of a run in words, for `explain`: what `--set` and a configuration file take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vlmdsl.schema import RunConfig

__all__ = ["Setting", "names_of_settings", "settings_of", "settings_sections"]

_USE = "Change a setting with `--set optimizer.learning_rate=1e-4`, several with a YAML file: `--config run.yaml`."


@dataclass(frozen=True)
class Setting:
    """One setting: its name and section (none for `out`), its default as YAML, and its description."""

    section: str
    name: str
    default: str
    description: str

    def facts(self) -> Mapping[str, str]:
        return {"name": self.full_name, "default": self.default, "description": self.description}

    @property
    def full_name(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name


def settings_of(word: str) -> list[Setting]:
    """All settings for the word `settings`, those of a section, or the one of this name; empty if there is none.

    >>> [setting.full_name for setting in settings_of("schedule")]
    ['schedule.warmup_steps', 'schedule.final', 'schedule.lowering', 'schedule.lowering_budget']
    >>> settings_of("train.batch")[0].default
    '128'
    """
    return [setting for setting in _settings() if word in ("settings", setting.section, setting.full_name)]


def settings_sections(settings: list[Setting]) -> tuple[tuple[str, str], ...]:
    """The page of these settings: (heading, body) for each of their sections."""
    sections = [("", _USE)]
    for section in dict.fromkeys(setting.section for setting in settings):
        lines = [*_introduction(section)]
        for setting in settings:
            if setting.section == section:
                lines += [f"  {setting.name}: {setting.default}", f"      {setting.description}"]
        sections.append((section or "the run", "\n".join(lines)))
    return tuple(sections)


def names_of_settings() -> list[str]:
    """All that `settings_of` knows: `settings`, the sections, and each setting."""
    settings = _settings()
    names = [setting.full_name for setting in settings]
    return list(dict.fromkeys(["settings", *(setting.section for setting in settings if setting.section), *names]))


def _settings() -> list[Setting]:
    settings: list[Setting] = []
    for name, info in RunConfig.model_fields.items():
        section = _section(info)
        if section is None:
            settings.append(_setting("", name, info))
        else:
            settings += [_setting(name, key, setting) for key, setting in section.model_fields.items()]
    return settings


def _setting(section: str, name: str, info: FieldInfo) -> Setting:
    default = list(info.default) if isinstance(info.default, tuple) else info.default
    written = yaml.safe_dump(default, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    return Setting(section, name, written, info.description or "")


def _introduction(section: str) -> list[str]:
    model = _section(RunConfig.model_fields[section]) if section else None
    return [] if model is None or not model.__doc__ else [model.__doc__.strip(), ""]


def _section(info: FieldInfo) -> type[BaseModel] | None:
    annotation = info.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
