"""A model that is loaded once and predicts images of any size.

Shape suffixes: C channels, K classes, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.dataset import DatasetClass
from dataset_rules.artifacts.manifest import read_intact
from dataset_rules.formatting.image_form import convert_image, convert_rows
from dataset_rules.pixels.images import Pixels
from dataset_rules.pixels.row_scaling import downscale_rows
from dataset_rules.pixels.rows import WHOLE_PIXELS, Rows, rows_of
from unet.network.backend import Backend, BackendChoice, Forward, fastest_backend, make_forward
from unet.network.model import UNet
from unet.network.preprocessing import normalized, rescaled
from unet.network.tiles import blended_rows
from unet.objects.object_rows import LabelRows, StreamingSplitter
from unet.planning.intensity_levels import levels_of
from unet.prediction.decoding import Prediction, decoded
from unet.prediction.model_files import ModelCard, load_net, model_folder, read_card, weights_name
from unet.prediction.own_size import at_own_size
from unet.prediction.planes import upscaled_planes

Floats = NDArray[np.float32]
OnPlanes = Callable[[Floats], None]  # called with class probabilities of the next rows, (K, H, W)

ORIENTATIONS = tuple(
    (quarters, is_flipped) for is_flipped in (False, True) for quarters in range(4)
)


@dataclass(frozen=True)
class ScaledImage:
    """An image as the network sees it: rows at the plan's scale, and its sizes before."""

    rows: Rows
    dataset_px: tuple[int, int]  # height and width in the dataset's form
    own_px: tuple[int, int]


class Networks:
    """Trained networks that predict together: the members of a model.

    Args:
        nets: whose probabilities are averaged.
        card: of the model.
        backend: that runs them; default: torch in the plan's precision.
        tta: test-time augmentation: average over 8 rotations and flips of each tile.
    """

    def __init__(
        self,
        nets: Sequence[UNet],
        card: ModelCard,
        *,
        backend: Backend | None = None,
        tta: bool = False,
    ) -> None:
        self.nets = nets
        self.card = card
        self.backend = backend or Backend(card.plan.at(card.plan.steps).precision)
        self.tta = tta
        self._forwards: list[Forward] = []  # created on first use

    @property
    def classes(self) -> tuple[DatasetClass, ...]:
        """Classes of the masks."""
        return self.card.plan.classes

    def predict(self, image: Pixels) -> Prediction:
        """Label mask and instance map of an image (HW or HW3, uint8 or uint16), at its size."""
        return _joined(self.predict_rows(rows_of(image)))

    def predict_with_probabilities(self, image: Pixels) -> tuple[Prediction, Floats]:
        """The same, and the class probabilities (K, H, W), at the image's size."""
        planes: list[Floats] = []
        found = _joined(self.predict_rows(rows_of(image), on_planes=planes.append))
        return found, np.concatenate(planes, axis=1)

    def predict_rows(
        self, image: Rows, *, on_planes: OnPlanes | None = None
    ) -> Iterator[LabelRows]:
        """Label mask and instance map from top to bottom, in the memory of a few rows."""
        scaled = self._scaled(image)
        if scaled.dataset_px == scaled.own_px:
            yield from self._streamed(scaled, on_planes)
            return
        # Rules with a size make the image small, so its probabilities are kept whole.
        prob_CHW = np.concatenate(list(self._planes(scaled)), axis=1)
        small = decoded(prob_CHW, self.card.split, scaled.dataset_px)
        for found, planes in at_own_size(small, prob_CHW, self.card.split, size_px=scaled.own_px):
            if on_planes:
                on_planes(planes[:-1])
            yield found

    def _scaled(self, image: Rows) -> ScaledImage:
        """The image in the dataset's form and at the plan's scale; a small one is read at once."""
        rules, scale = self.card.rules, self.card.plan.scale
        if image.height_px * image.width_px <= WHOLE_PIXELS:
            pixels = convert_image(image.to_array(), rules)
            height, width = pixels.shape[:2]
            return ScaledImage(rows_of(rescaled(pixels, scale)), (height, width), image.size_px)
        rows = convert_rows(image, rules)
        height, width = (max(1, round(side * scale)) for side in rows.size_px)
        small = rows if scale == 1 else downscale_rows(rows, (height, width))
        return ScaledImage(small, rows.size_px, image.size_px)

    def _planes(self, scaled: ScaledImage) -> Iterator[Floats]:
        """Class probabilities and distance at the plan's scale, (K + 1, H, W), by rows."""
        plan, levels = self.card.plan, levels_of(scaled.rows.blocks())

        def forward(tile: Pixels) -> Floats:
            return self._averaged(normalized(tile, channels=plan.channels, levels=levels))

        return blended_rows(
            scaled.rows.blocks(), forward, size_px=scaled.rows.size_px, multiple=plan.stride,
            tile_px=plan.tile_px, overlap_px=plan.overlap_px,
        )  # fmt: skip

    def _streamed(self, scaled: ScaledImage, on_planes: OnPlanes | None) -> Iterator[LabelRows]:
        split, splitter = self.card.split, StreamingSplitter(self.card.split, scaled.own_px)
        for planes in upscaled_planes(self._planes(scaled), scaled.rows.size_px, scaled.own_px):
            if on_planes:
                on_planes(planes[:-1])
            foreground = planes[0] <= 1 - split.foreground
            yield splitter.push(foreground, planes[-1], _most_likely(planes[1:-1]))

    def _averaged(self, tile_HWC: Floats) -> Floats:
        """Mean over the networks and, with test-time augmentation, the orientations."""
        self._forwards = self._forwards or [make_forward(net, self.backend) for net in self.nets]
        orientations = ORIENTATIONS if self.tta else ORIENTATIONS[:1]
        found = [
            _restored(forward(_oriented(tile_HWC, orientation)), orientation)
            for forward in self._forwards for orientation in orientations
        ]  # fmt: skip
        return found[0] if len(found) == 1 else np.mean(found, axis=0, dtype=np.float32)


def _most_likely(prob_KHW: Floats) -> NDArray[np.uint8]:
    """Id of the most likely class (HW), from 1."""
    if len(prob_KHW) == 1:  # the usual case, without the 8 bytes per pixel that argmax takes
        return np.ones(prob_KHW.shape[1:], np.uint8)
    return np.asarray(prob_KHW.argmax(0) + 1, np.uint8)


def _oriented(tile_HWC: Floats, orientation: tuple[int, bool]) -> Floats:
    quarters, is_flipped = orientation
    return np.rot90(tile_HWC[:, ::-1] if is_flipped else tile_HWC, quarters)


def _restored(planes_CHW: Floats, orientation: tuple[int, bool]) -> Floats:
    quarters, is_flipped = orientation
    upright = np.rot90(planes_CHW, -quarters, axes=(1, 2))
    return upright[:, :, ::-1] if is_flipped else upright


def _joined(found: Iterator[LabelRows]) -> Prediction:
    parts = list(found)
    return Prediction(
        np.concatenate([part.mask for part in parts]),
        np.concatenate([part.instances for part in parts]),
    )


class Predictor(Networks):
    """The networks of a model folder (or of the model in a run)."""

    def __init__(self, folder: Path, *, backend: Backend | None = None, tta: bool = False) -> None:
        self.folder = model_folder(folder)
        self.artifact = read_intact(self.folder, "model")
        card = read_card(self.folder)
        nets = [load_net(self.folder / weights_name(i), card.plan) for i in range(card.members)]
        super().__init__(nets, card, backend=backend, tta=tta)

    def choose_backend(self, notes: Path | None = None) -> BackendChoice:
        """Use the fastest backend on this machine; the choice is saved in `notes` and reused."""
        choice = fastest_backend(self.nets[0], model_id=self.artifact.id, choices_file=notes)
        self.backend, self._forwards = choice.backend, []
        return choice
