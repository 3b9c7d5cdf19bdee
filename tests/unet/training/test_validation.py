"""Expected cost, in pixels, of a validation and of choosing thresholds."""

from pathlib import Path

import numpy as np
import pytest

from dataset_rules.artifacts.dataset import read_dataset
from tests.drawn import write_dataset
from tests.unet.runs.test_train import small_plan
from unet.network.inference import make_net
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import Plan
from unet.training.patches import prepare
from unet.training.validation import Validation, default_split_settings

SIDE_PX = 128


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", train=1, val=12, size=SIDE_PX)


def validation(dataset: Path, *, scale: float, choice_px: int) -> tuple[Validation, Plan]:
    plan = small_plan(dataset).model_copy(update={"scale": scale, "choice_px": choice_px})
    held_out = [(dataset, s) for s in read_dataset(dataset).samples if s.split == "val"]
    return Validation(held_out, plan), plan


@pytest.mark.parametrize("scale", [0.125, 0.25, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("samples", [1, 5, 12, 40])
def test_the_expected_cost_of_the_choice_is_proportional_to_its_pixels(
    dataset: Path, scale: float, samples: int
) -> None:
    """Objects are split at the images' own size, independent of the plan's scale."""
    # The sample that exceeds the limit is still used.
    found, plan = validation(dataset, scale=scale, choice_px=samples * SIDE_PX**2 - 1)
    found.probabilities = [
        np.zeros((3, *prepare(dataset, sample, plan).mask.shape), np.float32)
        for _, sample in found.samples
    ]
    _, counts = found.objects_by_seeds(default_split_settings(fingerprint([dataset])), plan)
    looked_at = min(samples, 12)
    assert len(counts[0]) == looked_at
    rehearsal = found.rehearse(make_net(plan), plan, fingerprint([dataset]))
    assert rehearsal.own_px == min(looked_at, 10) * SIDE_PX**2  # 150,000 px of 16,384 each
    seconds = rehearsal.choice_s
    assert found.expected_s(rehearsal, plan)[1] == pytest.approx(
        seconds * looked_at / min(looked_at, 10)
    )


@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_the_expected_cost_of_a_validation_is_proportional_to_scaled_pixels(
    dataset: Path, scale: float
) -> None:
    found, plan = validation(dataset, scale=scale, choice_px=1)
    rehearsal = found.rehearse(make_net(plan), plan, fingerprint([dataset]))
    assert rehearsal.scaled_px == (SIDE_PX * scale) ** 2
    assert found.pixels == 12 * rehearsal.scaled_px
    assert found.expected_s(rehearsal, plan)[0] == pytest.approx(12 * rehearsal.validation_s)


def test_without_held_out_samples_neither_costs_anything(dataset: Path) -> None:
    plan = small_plan(dataset)
    nothing = Validation([], plan)
    rehearsal = nothing.rehearse(make_net(plan), plan, fingerprint([dataset]))
    assert nothing.expected_s(rehearsal, plan) == (0.0, 0.0)
