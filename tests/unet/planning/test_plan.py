import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_rules.artifacts.dataset import DatasetClass
from tests.goldens import assert_golden
from unet.errors import UnetError
from unet.planning.budget import Budget, parse_memory_size, training_bytes
from unet.planning.decisions import shrunk_sizes
from unet.planning.fingerprint import Fingerprint
from unet.planning.lr_schedule import Refit
from unet.planning.plan import Plan, make_plan, read_plan

CLASSES = (DatasetClass(id=0, name="background"), DatasetClass(id=1, name="nucleus"))
NUCLEI = Fingerprint(
    train=238, val=36, test=56, looked_at=238, channels=3, height_px=(256, 256, 520),
    width_px=(256, 256, 696), bit_depth=8, classes=CLASSES, class_share=(0.87, 0.13),
    ignored_share=0.0, objects_per_image=33.0, thickness_px=(6.0, 12.0, 24.0),
    touching_share=0.2, has_instances=True, light_spread=0.289,
)  # fmt: skip
TINY = {"height_px": (10, 10, 10), "width_px": (10, 10, 10)}
STAINED = {
    "bright_share": 1.0, "density": (0.4, 0.6, 0.2), "density_spread": 0.1, "light_spread": 0.082,
}  # fmt: skip
ANY = Budget()
MINUTE = Budget(seconds=60, patches_per_s=15.7, precision="bfloat16")
EXAMPLES = {
    "nuclei": (NUCLEI, ANY),
    "one minute": (NUCLEI, MINUTE),
    "large cells": (NUCLEI.model_copy(update={"thickness_px": (60.0, 96.0, 140.0)}), ANY),
    "rare class": (NUCLEI.model_copy(update={"class_share": (0.998, 0.002)}), ANY),
    "tiny images": (NUCLEI.model_copy(update=TINY), ANY),
    "grey": (NUCLEI.model_copy(update={"channels": 1}), ANY),
    "stained": (NUCLEI.model_copy(update=STAINED), ANY),
    "little memory": (NUCLEI, Budget(memory_bytes=1_200_000_000)),
    "an hour of a GPU": (NUCLEI, Budget(device="cuda", seconds=3600, patches_per_s=300)),
}


@pytest.mark.golden
def test_worked_examples() -> None:
    plans = {
        name: make_plan(facts, budget).model_dump(mode="json")
        for name, (facts, budget) in EXAMPLES.items()
    }
    assert_golden("plans.json", plans)


def test_colour_jitter_follows_the_spread_of_the_images() -> None:
    def jitter(**update: float) -> float:
        return make_plan(NUCLEI.model_copy(update=update)).colour_jitter

    assert jitter(light_spread=0.0) == jitter(light_spread=0.01) == 0.2
    assert jitter(light_spread=0.14) == 0.5
    assert jitter(light_spread=0.4) == jitter(light_spread=0.0, looked_at=3) == 1.0


@given(
    side=st.integers(1, 5000), other=st.integers(1, 5000), thickness=st.floats(0, 2000),
    share=st.floats(0, 1), train=st.integers(1, 10_000), patches=st.integers(1, 10**6),
)  # fmt: skip
def test_every_dataset_gets_a_valid_plan(
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
    assert set(plan.reasons) == Plan.model_fields.keys() - {"reasons", "switches"}  # written later
    assert all(plan.reasons.values())


@given(memory=st.integers(1_100_000_000, 10**10), side=st.integers(8, 3000))
def test_a_plan_fits_into_the_memory(memory: int, side: int) -> None:
    facts = NUCLEI.model_copy(update={"height_px": (side,) * 3, "width_px": (side,) * 3})
    plan = make_plan(facts, Budget(memory_bytes=memory))
    assert training_bytes(plan.widths, batch=plan.batch, patch_px=plan.patch_px) <= memory
    assert plan.patch_px % plan.stride == 0


def test_too_little_memory_is_an_error_with_the_minimum() -> None:
    with pytest.raises(UnetError, match=r"at least 1\.0 GB; found 0\.5 GB"):
        make_plan(NUCLEI, Budget(memory_bytes=500_000_000))


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([64, 128, 192, 256, 512]))
def test_shrinking_removes_pixels_each_time_and_ends(batch: int, patch: int) -> None:
    sizes = (batch, patch)
    while following := shrunk_sizes(*sizes, stride=16):
        assert following[0] * following[1] ** 2 < sizes[0] * sizes[1] ** 2
        assert following[1] % 16 == 0
        sizes = following
    assert sizes == (1, 64)


@pytest.mark.parametrize(("text", "size"), [("8GiB", 8 << 30), ("512MiB", 512 << 20),
                                            ("1.5GB", 1_500_000_000), ("1000", 1000)])  # fmt: skip
def test_memory_sizes_are_parsed(text: str, size: int) -> None:
    assert parse_memory_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "8 Gib", "nan"])
def test_invalid_memory_sizes_are_refused(text: str) -> None:
    with pytest.raises(UnetError, match="not a memory size"):
        parse_memory_size(text)


@given(st.integers(10, 3000), st.data())
def test_a_refitted_rate_decays_to_zero_without_a_jump(steps: int, data: st.DataObject) -> None:
    plan = make_plan(NUCLEI, patches=8 * steps)
    at = data.draw(st.integers(plan.decay_from, plan.steps - 1))
    left = data.draw(st.integers(1, 2 * steps))
    refit = Refit(step=at, level=plan.level(at), steps=left)
    other = plan.model_copy(update={"refits": (refit,), "steps": at + left})
    assert [other.rate(s) for s in range(at + 1)] == [plan.rate(s) for s in range(at + 1)]
    falling = [other.rate(s) for s in range(at, other.steps + 1)]
    drop = plan.rate(at) / left
    assert [a - b for a, b in pairwise(falling)] == pytest.approx([drop] * left)
    assert falling[-1] == 0


@given(st.integers(1, 5000))
def test_the_rate_warms_up_holds_and_ends_near_zero(patches: int) -> None:
    plan = make_plan(NUCLEI, patches=patches)
    rates = [plan.rate(step) for step in range(plan.steps)]
    assert max(rates) <= plan.learning_rate
    assert set(rates[plan.warmup_steps - 1 : plan.decay_from + 1]) == {plan.learning_rate}
    assert rates[-1] == pytest.approx(plan.learning_rate / plan.decay_steps)
    assert all(a < b for a, b in pairwise(rates[: plan.warmup_steps]))
    assert all(a > b for a, b in pairwise(rates[plan.decay_from :]))
    assert plan.rate(plan.steps) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"patch_px": 250}, "patch_px"), ({"overlap_px": 600}, "overlap_px"),
     ({"class_weights": [1.0]}, "class_weights"), ({"speed": 3}, "speed"),
     ({"deep_supervision": 9}, "deep_supervision: . stages allow"), ({"steps": 0}, "steps")],
)  # fmt: skip
def test_an_invalid_plan_is_an_error_that_names_the_field(
    tmp_path: Path, change: dict, message: str
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**make_plan(NUCLEI).model_dump(mode="json"), **change}))
    with pytest.raises(UnetError, match=message):
        read_plan(path)


def test_a_missing_or_damaged_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnetError, match="no such plan"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UnetError, match="cannot be read"):
        read_plan(tmp_path / "plan.json")
