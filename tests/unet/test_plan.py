import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_rules.dataset import DatasetClass
from tests.goldens import assert_golden
from unet.errors import UnetError
from unet.fingerprint import Fingerprint
from unet.plan import Plan, make_plan, read_plan

CLASSES = (DatasetClass(id=0, name="background"), DatasetClass(id=1, name="nucleus"))
NUCLEI = Fingerprint(
    train=238, val=36, test=56, looked_at=238, channels=3, height_px=(256, 256, 520),
    width_px=(256, 256, 696), bit_depth=8, classes=CLASSES, class_share=(0.87, 0.13),
    ignored_share=0.0, objects_per_image=33.0, thickness_px=(6.0, 12.0, 24.0),
    touching_share=0.2, has_instances=True,
)  # fmt: skip
TINY = {"height_px": (10, 10, 10), "width_px": (10, 10, 10)}
EXAMPLES = {
    "nuclei": (NUCLEI, 8000),
    "one minute": (NUCLEI, 850),
    "large cells": (NUCLEI.model_copy(update={"thickness_px": (60.0, 96.0, 140.0)}), 8000),
    "rare class": (NUCLEI.model_copy(update={"class_share": (0.998, 0.002)}), 8000),
    "tiny images": (NUCLEI.model_copy(update=TINY), 8000),
    "grey": (NUCLEI.model_copy(update={"channels": 1}), 8000),
}


@pytest.mark.golden
def test_worked_examples() -> None:
    plans = {
        name: make_plan(facts, patches=patches).model_dump(mode="json")
        for name, (facts, patches) in EXAMPLES.items()
    }
    assert_golden("plans.json", plans)


@given(
    side=st.integers(1, 5000), other=st.integers(1, 5000), thickness=st.floats(0, 2000),
    share=st.floats(0, 1), train=st.integers(1, 10_000), patches=st.integers(1, 10**6),
)  # fmt: skip
def test_every_dataset_gets_a_plan_that_fits_the_network(
    side: int, other: int, thickness: float, share: float, train: int, patches: int
) -> None:
    facts = NUCLEI.model_copy(update={
        "height_px": (side, side, side), "width_px": (other, other, other), "train": train,
        "thickness_px": (thickness, thickness, thickness), "class_share": (1 - share, share),
    })  # fmt: skip
    plan = make_plan(facts, patches=patches)
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan
    assert plan.patch_px % plan.stride == plan.tile_px % plan.stride == 0
    assert plan.decay_from + plan.decay_steps == plan.steps
    assert max(plan.class_weights) <= 4
    assert set(plan.reasons) >= {"scale", "patch_px", "widths", "batch", "steps", "class_weights"}


@given(st.integers(1, 5000))
def test_the_rate_warms_up_holds_and_ends_near_zero(patches: int) -> None:
    plan = make_plan(NUCLEI, patches=patches)
    rates = [plan.rate(step) for step in range(plan.steps)]
    assert max(rates) <= plan.learning_rate
    assert rates[-1] <= plan.learning_rate / plan.decay_steps + 1e-12
    assert all(a <= b for a, b in pairwise(rates[: plan.warmup_steps]))
    assert plan.rate(plan.steps) == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [({"patch_px": 250}, "patch_px"), ({"overlap_px": 600}, "overlap_px"),
     ({"class_weights": [1.0]}, "class_weights"), ({"speed": 3}, "speed"), ({"steps": 0}, "steps")],
)  # fmt: skip
def test_a_wrong_plan_names_the_field(tmp_path: Path, change: dict, named: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**make_plan(NUCLEI).model_dump(mode="json"), **change}))
    with pytest.raises(UnetError, match=named):
        read_plan(path)


def test_a_plan_that_is_not_there_or_no_json_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnetError, match="no such plan"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UnetError, match="cannot be read"):
        read_plan(tmp_path / "plan.json")
