"""Commands whose arguments and settings say the same: refused where they disagree, before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import vlmdsl
from vlmdsl.api.data import check_data
from vlmdsl.api.plan import plan_flows
from vlmdsl.diagnostics import DiagnosticError

DATA = ["shapes:samples=16,size=16"]
TWICE: dict[str, Callable[[], object]] = {
    "train": lambda: vlmdsl.train("clip", data=DATA, overrides=["train.steps=5"], steps=10),
    "train, epochs": lambda: vlmdsl.train("clip", data=DATA, overrides=["train.epochs=1"], steps=10),
    "train, seed": lambda: vlmdsl.train("clip", data=DATA, overrides=["train.seed=1"], seed=2),
    "train, out": lambda: vlmdsl.train("clip", data=DATA, overrides=["out=runs/a"], out="runs/b"),
    "compare": lambda: vlmdsl.compare(["clip"], data=DATA, overrides=["out=runs/a"], out="runs/b"),
    "compare, device": lambda: vlmdsl.compare(["clip"], data=DATA, overrides=["train.device=cuda"], device="cpu"),
    "overfit": lambda: vlmdsl.overfit("clip", data=DATA, overrides=["train.steps=5"], steps=10),
    "overfit, epochs": lambda: vlmdsl.overfit("clip", data=DATA, overrides=["train.epochs=5"]),
    "verify": lambda: vlmdsl.verify("clip", data=DATA, overrides=["train.device=cuda"]),
    "verify, micro": lambda: vlmdsl.verify("clip", data=DATA, settings={"train.micro": 3}),
    "plan": lambda: plan_flows("clip", overrides=["train.batch=64"], batch=32),
    "plan, micro": lambda: plan_flows("clip", overrides=["train.micro=64"], micro=32),
    "plan, lowering": lambda: plan_flows("clip", overrides=["schedule.lowering=dense"], lowering="chunked"),
    "data check": lambda: check_data(DATA[0], overrides=["data.train=other.tar"]),
    "data check, map": lambda: check_data(DATA[0], map={"text": "caption"}, overrides=["data.map.text=clean_text"]),
}
CODES = {"train, epochs": "V0849", "overfit, epochs": "V0847", "verify": "V0869", "verify, micro": "V0869"}


@pytest.mark.parametrize("what", TWICE)
def test_two_values_are_refused(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DiagnosticError) as caught:
        TWICE[what]()
    (fault,) = caught.value.diagnostics
    assert fault.code == CODES.get(what, "V0848")
    assert fault.help
    assert not list(tmp_path.iterdir())


def test_a_plan_is_for_the_batch_of_the_settings_unless_another_one_is_given(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train: {batch: 64, micro: 16}\nschedule: {lowering: chunked}\n")

    def planned(**options: object) -> tuple[int, int | None, str]:
        ((_, plan),) = plan_flows("clip", **options).flows  # type: ignore[arg-type]
        return plan.batch, plan.micro, plan.regions[0].lowering

    assert planned() == (1024, None, "dense")
    assert planned(config=file) == (64, 16, "chunked")
    assert planned(config=file, batch=32, lowering="dense") == (32, 16, "dense")
    assert planned(overrides=["train.seed=1"]) == (128, None, "dense")


def test_a_stage_is_planned_with_its_own_batch() -> None:
    stages = "vlo 1\nrecipe r(image: Image, text: Text)\n" + "".join(
        f"stage {name} {{\n  minimize contrast(image, text)\n}}\n" for name in ("first", "second")
    )
    overrides = ["train.batch=64", "stages.second.train.batch=32"]
    assert [plan.batch for _, plan in plan_flows(stages, expression=True, overrides=overrides).flows] == [64, 32]
