"""A wheel built from the source distribution works in an empty place, and holds what it should and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]  # one process, so one build


@dataclass(frozen=True)
class Installed:
    """A wheel and the empty environment it was installed into."""

    wheel: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`vlmdsl ARGUMENTS` of that environment, in a folder without anything."""
        place = self.folder / "empty"
        place.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.folder / "environment" / "bin" / "vlmdsl"), *arguments]
        return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Source distribution, wheel from it, and an environment that borrows only the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)
    (packages,) = (folder / "environment" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(wheel, folder)


def contents(wheel: Path) -> dict[str, str]:
    """Every file of the wheel and its digest."""
    with ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_the_wheel_holds_code_types_grammar_and_recipes(installed: Installed) -> None:
    packed = contents(installed.wheel)
    assert {name.split("/")[0] for name in packed} == {"vlmdsl", "vlmdsl_cli", "vlmdsl-0.1.0.dist-info"}
    assert {"vlmdsl/py.typed", "vlmdsl_cli/py.typed"} <= set(packed)
    for kind in ("grammar", "recipes"):
        files = [path for path in (ROOT / kind).rglob("*") if path.is_file()]
        assert files
        for path in files:
            packaged = f"vlmdsl/_data/{path.relative_to(ROOT).as_posix()}"
            assert packed.get(packaged) == hashlib.sha256(path.read_bytes()).hexdigest(), packaged


def test_the_installed_command_is_the_wheel_s(installed: Installed) -> None:
    python = installed.folder / "environment" / "bin" / "python"
    place = subprocess.run(
        [python, "-I", "-c", "import vlmdsl; print(vlmdsl.__file__)"], capture_output=True, text=True, cwd=installed.folder
    )
    assert Path(place.stdout.strip()).is_relative_to(installed.folder / "environment")
    assert installed.run("--version").stdout == "vlmdsl 0.1.0\n"


def test_every_packaged_recipe_checks_in_an_empty_folder(installed: Installed) -> None:
    listed = installed.run("recipes", "--json")
    assert listed.returncode == 0, listed.stderr
    names = [card["name"] for card in json.loads(listed.stdout)]
    assert {"clip", "filip", "siglip"} <= set(names)
    checked = installed.run("check", "--json", *names)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["diagnostics"] == []
