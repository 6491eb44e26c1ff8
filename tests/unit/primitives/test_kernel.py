"""The table of contents of the kernel is that of its modules, and a family that a recipe does not use is not imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from vlmdsl.primitives import Primitive, register, registered
from vlmdsl.primitives.kernel import FAMILIES, HOMES

CONTENTS = """
import json, pkgutil, sys
from importlib import import_module
import vlmdsl.primitives
from vlmdsl.primitives import registry

contents = {}

def noting(primitive, original=registry.register):
    contents.setdefault(sys._getframe(1).f_globals["__name__"].rpartition(".")[2], []).append(primitive.name)
    return original(primitive)

registry.register = noting
for module in pkgutil.iter_modules(vlmdsl.primitives.__path__):
    import_module(f"vlmdsl.primitives.{module.name}")
json.dump(contents, sys.stdout)
"""

IMPORTED = """
import json, sys
import vlmdsl
assert vlmdsl.check(sys.argv[1]) == []
json.dump(sorted(name.rpartition(".")[2] for name in sys.modules if name.startswith("vlmdsl.primitives.")), sys.stdout)
"""


def output(program: str, *arguments: str) -> object:
    finished = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_the_table_lists_what_the_modules_register() -> None:
    contents = output(CONTENTS)
    assert isinstance(contents, dict)
    for family, names in contents.items():
        line = f'"{family}": {json.dumps(names)}'.replace("[", "(").replace("]", ")")
        assert sorted(FAMILIES.get(family, ())) == sorted(names), (
            f"the line of FAMILIES in vlmdsl/primitives/kernel.py should be {line}"
        )
    assert set(FAMILIES) == set(contents)


def test_no_two_families_have_a_name() -> None:
    assert len(HOMES) == sum(map(len, FAMILIES.values()))


def test_check_imports_the_families_of_the_recipe_only() -> None:
    plain = output(IMPORTED, "contrast(image, text)")
    assert isinstance(plain, list)
    assert "similarities" in plain
    unused = {"image_views", "pipelines", "masks", "mining", "ramps", "reconstruction", "reference", "draws", "plugins"}
    assert not unused & set(plain)
    masked = output(IMPORTED, "contrast(image, text) + mlm(mask(text, random(15%)))")
    assert isinstance(masked, list)
    assert "masks" in masked
    assert "mining" not in masked


def test_all_names_are_there_before_their_families() -> None:
    primitives = registered()
    assert set(HOMES) <= set(primitives)
    assert len(primitives) == len(list(primitives))
    assert "mlm" in primitives
    assert "mlmm" not in primitives
    assert primitives.get("mlmm") is None
    assert all(primitives[name].name == name for name in HOMES)


def test_a_name_of_the_kernel_is_taken_before_its_family_is_imported() -> None:
    with pytest.raises(ValueError, match="'mine' of elsewhere is already defined by vlmdsl"):
        register(Primitive(name="mine", family="mining", summary="", meaning=lambda *_: 0, origin="elsewhere"))
