"""The network as an ONNX graph, including the normalisation of its input."""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence

import onnx
import onnx.compose
import torch
from torch import Tensor, nn

from unet.export.processing_graphs import OPSET, normalised_graph
from unet.network.model import UNet
from unet.planning.plan import Plan


class _Members(nn.Module):
    """Class probabilities and distance of a tile (H, W, C), averaged over the networks."""

    def __init__(self, nets: Sequence[UNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, tile_HWC: Tensor) -> tuple[Tensor, Tensor]:
        tile_BCHW = tile_HWC.permute(2, 0, 1)[None]
        found = [net(tile_BCHW) for net in self.nets]
        prob_KHW = torch.stack([logits[0].softmax(0) for logits, _ in found]).mean(0)
        distance_1HW = torch.stack([distance[0].sigmoid() for _, distance in found]).mean(0)
        return prob_KHW, distance_1HW


def network_graph(nets: Sequence[UNet], plan: Plan) -> onnx.ModelProto:
    """Graph of an image at the plan's scale -> `probabilities` (K, H, W), `distance` (1, H, W).

    Its inputs are `image` (H, W, C; values as in the file, C 1 or 3; sides are multiples of the
    plan's stride) and `limits` (low and span of the whole image; with a span of 0 they are
    computed from `image`).
    """
    before = normalised_graph(plan.channels)
    network = onnx.compose.add_prefix(
        _exported(_Members(nets).eval(), plan), "network.", rename_inputs=False,
        rename_outputs=False,
    )  # fmt: skip
    network.ir_version = before.ir_version
    seam = (before.graph.output[0].name, "tile")
    whole = onnx.compose.merge_models(before, network, io_map=[seam])
    del whole.opset_import[1:]  # both parts have the same one
    _remove_machine_details(whole)
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _exported(module: nn.Module, plan: Plan) -> onnx.ModelProto:
    """The module converted by torch's exporter, for all sizes that the network takes."""
    sides = {axis: plan.stride * torch.export.Dim(name) for axis, name in ((0, "h"), (1, "w"))}
    example = torch.zeros(2 * plan.stride, 3 * plan.stride, plan.channels)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
        warnings.simplefilter("ignore")  # torch's exporter uses deprecated torch functions
        program = torch.onnx.export(
            module, (example,), dynamo=True, dynamic_shapes=(sides,), opset_version=OPSET,
            input_names=["tile"], output_names=["probabilities", "distance"], verbose=False,
        )  # fmt: skip
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Silence torch's exporter, which logs missing libraries that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _remove_machine_details(model: onnx.ModelProto) -> None:
    """Remove details of this machine, so the same network gives the same bytes everywhere."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer,
                 graph, model):  # fmt: skip
        item.doc_string = ""
        del item.metadata_props[:]
