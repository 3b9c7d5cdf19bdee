import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.ground.errors import ArtifactError
from tests.drawn import write_dataset
from tests.unet.runs.test_train import small_plan, weights_of
from unet.errors import Stopped, UnetError
from unet.network.checkpoint import load_tensors
from unet.network.inference import make_net
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import Plan, make_plan
from unet.runs.train import train
from unet.training.transfer import FINE_TUNING_RATE, read_pretrained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on discs."""
    folder = tmp_path_factory.mktemp("start")
    dataset = write_dataset(folder / "set")
    return train([dataset], folder / "run", plan=small_plan(dataset))


def with_classes(plan: Plan, *names: str) -> Plan:
    classes = [{"id": index, "name": name} for index, name in enumerate(("background", *names))]
    weights = (1.0,) * len(classes)
    return Plan.model_validate(plan.model_dump() | {"classes": classes, "class_weights": weights})


def test_scale_and_network_stay_the_models_and_the_rate_is_lower(model: Path, discs: Path):
    start = read_pretrained(model)
    fresh = make_plan(fingerprint([discs]), patches=80, seed=5)
    start = replace(start, plan=start.plan.model_copy(update={"scale": 0.5, "patch_px": 96}))
    plan = start.adapt_plan(fresh)
    assert (plan.scale, plan.patch_px, plan.widths) == (0.5, 96, (4, 8, 8))
    assert (plan.steps, plan.seed) == (fresh.steps, 5)
    assert plan.learning_rate == FINE_TUNING_RATE * fresh.learning_rate
    assert plan.reasons["scale"] != fresh.reasons["scale"]


def test_before_its_first_step_a_fine_tuned_network_equals_the_model(model: Path):
    start = read_pretrained(model)
    net, image_BCHW = make_net(start.plan).eval(), torch.rand(1, 3, 32, 32)
    before = net(image_BCHW)[1].clone()
    start.load_into(net, start.plan)
    known = make_net(start.plan).eval()
    known.load_state_dict(start.weights)
    for answer, wanted in zip(net(image_BCHW), known(image_BCHW), strict=True):
        assert torch.equal(answer, wanted)
    assert not torch.equal(net(image_BCHW)[1], before)


def test_fine_tuning_has_its_own_auxiliary_heads(model: Path) -> None:
    start = read_pretrained(model)
    deep = start.plan.model_copy(update={"deep_supervision": 1})
    net = make_net(deep).eval()
    start.load_into(net, deep)
    net.coarse[0].weight.data.fill_(1.0)
    back = make_net(start.plan).eval()
    replace(start, plan=deep, weights=net.state_dict()).load_into(back, start.plan)
    image_BCHW = torch.rand(1, 3, 32, 32)
    assert torch.equal(back(image_BCHW)[0], net(image_BCHW)[0])


def test_classes_keep_their_row_by_name_and_new_ones_start_at_zero(model: Path) -> None:
    start = read_pretrained(model)
    plan = with_classes(start.plan, "cell", "disc")
    net = make_net(plan)
    start.load_into(net, plan)
    rows, old = net.head.weight.detach(), start.weights["head.weight"]
    assert torch.equal(rows[0], old[0])
    assert torch.equal(rows[2], old[1])
    assert torch.equal(rows[3], old[2])  # of the object head
    assert not rows[1].any()


def test_a_grey_model_extended_to_colour_gives_equal_outputs_for_grey_images(tmp_path: Path):
    dataset = write_dataset(tmp_path / "set")
    grey = small_plan(dataset).model_copy(update={"channels": 1})
    start = read_pretrained(train([dataset], tmp_path / "run", plan=grey))
    colour = start.adapt_plan(make_plan(fingerprint([dataset])))
    assert colour.channels == 3
    nets = [make_net(plan).eval() for plan in (grey, colour)]
    for net, plan in zip(nets, (grey, colour), strict=True):
        start.load_into(net, plan)
    image_B1HW = torch.rand(1, 1, 32, 32)
    assert torch.equal(nets[0].head.weight, start.weights["head.weight"])
    assert nets[0].head.weight.any()
    answers = nets[0](image_B1HW)[0], nets[1](image_B1HW.expand(-1, 3, -1, -1))[0]
    assert torch.allclose(*answers, atol=1e-5)


def test_the_weights_come_from_the_model_which_is_an_input_of_the_run(model: Path, discs: Path):
    plan = small_plan(discs).model_copy(update={"learning_rate": 1e-9, "weight_decay": 0.0})
    run = train([discs], discs.parent / "run", plan=plan, start=model)
    old, _ = load_tensors(model / "best.safetensors")
    new, _ = load_tensors(run / "best.safetensors")
    assert np.allclose(old["encoder.1.conv1.weight"], new["encoder.1.conv1.weight"], atol=1e-6)
    inputs = json.loads((run / "manifest.json").read_text())["inputs"]
    assert [item["kind"] for item in inputs] == ["dataset", "model"]
    assert inputs[1]["id"] == read_artifact(model / "model", "model").id
    assert (run / "lineage" / inputs[1]["id"]).is_dir()


def test_fine_tuning_stopped_and_resumed_equals_uninterrupted(model: Path, discs: Path) -> None:
    plan, ways = small_plan(discs), [discs.parent / "a", discs.parent / "b"]
    began_at: list[int] = []

    def note(event: dict) -> None:
        if event["event"] == "plan":
            began_at.append(event["step"])

    train([discs], ways[0], plan=plan, start=model)
    with pytest.raises(Stopped):
        train([discs], ways[1], plan=plan, start=model, is_to_stop=lambda: True)
    train([discs], ways[1], plan=plan, start=model, resume=True, on_event=note)
    assert began_at == [1]
    assert weights_of(ways[0]) == weights_of(ways[1])


def test_a_plan_with_another_network_is_refused_and_leaves_no_folder(model: Path, discs: Path):
    plan = small_plan(discs).model_copy(update={"widths": (8, 16, 16)})
    with pytest.raises(
        UnetError, match=r"network differs from the plan's.*\(8, 16, 16\).*\(4, 8, 8\)"
    ):
        train([discs], discs.parent / "run", plan=plan, start=model)
    assert not (discs.parent / "run").exists()


def test_a_folder_without_model_is_refused(discs: Path) -> None:
    with pytest.raises(ArtifactError, match="this is no model"):
        train([discs], discs.parent / "run", start=discs)
    with pytest.raises(ArtifactError, match="no finished model here"):
        train([discs], discs.parent / "run", start=discs.parent)
