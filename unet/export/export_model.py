"""The step `export`: model -> a folder that predicts with only numpy and onnxruntime."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onnx import ModelProto

from dataset_rules.artifacts.manifest import Ancestor, Step, begin, finish, remove_on_error
from dataset_rules.ground.disk import write_file, write_json
from dataset_rules.pixels.images import Pixels
from unet.errors import UnetError
from unet.export.graph_parts import FLOORS, PERCENTILES
from unet.export.network_graph import network_graph
from unet.export.parity import parity_report
from unet.export.processing_graphs import after_graph, before_graph
from unet.prediction.model_card import CARD
from unet.prediction.model_files import ModelCard
from unet.prediction.predictor import Predictor

KIND, VERSION = "exported model", 1
BEFORE, NETWORK, AFTER = "before.onnx", "model.onnx", "after.onnx"
FACTS, RUN, PARITY = "export.json", "run.py", "parity.json"
RUNNER = Path(__file__).with_name("runner.py")
MIN_WEIGHT = 1e-3  # of `unet.network.tiles.blending_weights`


def export(model: Path, out: Path, *, images: Sequence[Pixels] = ()) -> Path:
    """The model as an artifact in `out`: ONNX graphs, their settings, a runner, a parity report.

    Args:
        model: folder of a model or a run.
        out: new, or started or finished by the same export.
        images: on which torch and the exported folder are compared; default: synthetic images.

    Raises:
        UnetError: if the model cannot be exported.
    """
    started = datetime.now(UTC)
    predictor = Predictor(model)
    _refuse_binary(predictor)
    step = Step(KIND, VERSION, (predictor.artifact,))
    if begin(out, step):
        return out
    with remove_on_error(out):
        write_exported(
            out, predictor.card, predictor.artifact,
            network=network_graph(predictor.nets, predictor.card.plan),
        )  # fmt: skip
        if (card := predictor.folder / CARD).is_file():  # old models have none
            write_file(out / CARD, card.read_bytes())
        write_json(out / PARITY, parity_report(out / RUN, predictor, images))
    content = dict.fromkeys([BEFORE, NETWORK, AFTER, FACTS, RUN])
    finish(out, step, started=started, content=content)
    return out


def write_exported(out: Path, card: ModelCard, model: Ancestor, *, network: ModelProto) -> None:
    """Write the files that predict: the network and two graphs around it, settings, the runner."""
    graphs = {BEFORE: before_graph(card.plan, card.rules), NETWORK: network,
              AFTER: after_graph(card.split)}  # fmt: skip
    for name, graph in graphs.items():
        write_file(out / name, _with_model_id(graph, model).SerializeToString())
    write_json(out / FACTS, facts_of(card, model))
    write_file(out / RUN, RUNNER.read_bytes())


def facts_of(card: ModelCard, model: Ancestor) -> dict[str, Any]:
    """Settings for the program that runs the graphs, and facts for people."""
    plan, split = card.plan, card.split
    return {
        "graphs": [BEFORE, NETWORK, AFTER],
        "classes": [c.model_dump() for c in plan.classes],
        "outputs": len(plan.classes) + 1,  # probabilities of the classes, and the distance
        "channels": plan.channels,
        "colour_model": str(card.rules.color_model),
        "fit": {"kind": str(card.rules.fit), "height": card.rules.height,
                "width": card.rules.width},
        "scale": plan.scale,
        "normalisation": {"percentiles": PERCENTILES},
        "least_span": dict(zip(("uint8", "uint16"), FLOORS, strict=True)),
        "tile_px": plan.tile_px,
        "stride_px": plan.tile_px - plan.overlap_px,
        "sides_are_multiples_of": plan.stride,
        "blending": "gaussian, sigma an eighth of the tile's side",
        "least_weight": MIN_WEIGHT,
        "foreground_from": split.foreground,
        "seeds": {"kind": str(split.seeds), "level": split.level},
        "min_area_px": split.min_area_px,
        "networks_averaged": card.members,
        "lineage": {"model": model.id, "record": model.record},
    }  # fmt: skip


def _with_model_id(graph: ModelProto, model: Ancestor) -> ModelProto:
    """The graph with the model's id in its metadata, so that each file is traceable."""
    signed = ModelProto()
    signed.CopyFrom(graph)
    signed.producer_name = "unetops"
    signed.metadata_props.add(key="unetops:model", value=model.id)
    return signed


def _refuse_binary(predictor: Predictor) -> None:
    if predictor.card.rules.color_model == "binary":
        raise UnetError(
            "models of black-and-white images cannot be exported", where=str(predictor.folder),
            expected="rules with color_model rgb or grayscale",
            found="binary, whose threshold is chosen per image",
            remedy="train on a dataset in grayscale; the network needs no threshold",
        )  # fmt: skip
