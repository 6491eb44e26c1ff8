"""`explain settings`: every setting with its default and what it is."""

from __future__ import annotations

import yaml

from vlmdsl.api.explain import explain
from vlmdsl.api.settings import settings_of
from vlmdsl.diagnostics import catalogue
from vlmdsl.schema import RunConfig, setting_names


def test_every_setting_is_reported_and_its_default_reads_back() -> None:
    settings = settings_of("settings")
    assert [setting.full_name for setting in settings] == setting_names()
    assert all(setting.description for setting in settings)
    defaults = {setting.full_name: yaml.safe_load(setting.default) for setting in settings}
    assert defaults == {name: _plain(_default(name)) for name in setting_names()}


def test_codes_that_a_description_names_exist_and_say_more() -> None:
    descriptions = {setting.full_name: setting.description for setting in settings_of("data")}
    assert "single_template" in catalogue()["V0808"].explanation
    assert "V0808" in descriptions["data.train"]
    assert "summarize" in catalogue()["V0827"].explanation
    assert "V0827" in descriptions["data.map"]


def test_a_section_or_one_setting_is_a_page_of_its_own() -> None:
    page = explain("schedule").to_text()
    assert "  warmup_steps: 20\n      steps over which the learning rate rises to its peak" in page
    assert "batch" not in page
    assert "  batch: 128\n" in explain("train.batch").to_text()
    assert "  batch: 256\n" not in explain("train.batch").to_text()


def _default(name: str) -> object:
    value: object = RunConfig()
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
