"""A checkout that is on the path but not installed works: its version says so."""

from __future__ import annotations

import importlib.metadata
from typing import NoReturn

import pytest

import vlmdsl
from vlmdsl._resources import installed_version


def test_an_installed_package_has_the_version_of_its_metadata() -> None:
    assert vlmdsl.__version__ == installed_version() == importlib.metadata.version("vlmdsl")


def test_a_checkout_that_is_not_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert vlmdsl.__version__ == installed_version() == "0+checkout"
