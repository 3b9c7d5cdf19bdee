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
from dataset_rules.formatting.image_form import as_in_dataset, rows_as_in_dataset
from dataset_rules.pixels.images import Pixels
from dataset_rules.pixels.row_scaling import shrunk_rows
from dataset_rules.pixels.rows import WHOLE_PIXELS, Rows, rows_of
from unet.network.backend import Backend, Choice, Forward, fastest, make_forward
from unet.network.model import UNet
from unet.network.preprocessing import normalized, rescaled
from unet.network.tiles import blended_rows
from unet.objects.object_rows import LabelRows, StreamingSplitter
from unet.planning.intensity_levels import levels_of
from unet.prediction.decoding import Prediction, decoded
from unet.prediction.model_files import ModelCard, load_net, model_folder, read_card, weights_name
from unet.prediction.own_size import at_own_size
from unet.prediction.planes import grown_planes

Floats = NDArray[np.float32]
OnPlanes = Callable[[Floats], None]  # gets class probabilities of the next rows, (K, H, W)

TURNS = tuple((quarters, is_mirrored) for is_mirrored in (False, True) for quarters in range(4))


@dataclass(frozen=True)
class View:
    """An image as the network sees it: rows at the plan's scale, and where they come from."""

    rows: Rows
    dataset_px: tuple[int, int]  # height and width in the form of the dataset
    own_px: tuple[int, int]


class Networks:
    """Trained networks that predict together: the members of a model.

    Args:
        nets: whose probabilities are averaged.
        card: of the model.
        backend: that runs them; where absent torch, in the precision of the plan.
        is_turned: average over the eight turned and mirrored views of each tile as well.
    """

    def __init__(
        self,
        nets: Sequence[UNet],
        card: ModelCard,
        *,
        backend: Backend | None = None,
        is_turned: bool = False,
    ) -> None:
        self.nets = nets
        self.card = card
        self.backend = backend or Backend(card.plan.precision)
        self.is_turned = is_turned
        self._forwards: list[Forward] = []  # made at the first use

    @property
    def classes(self) -> tuple[DatasetClass, ...]:
        """Classes of the masks."""
        return self.card.plan.classes

    def predict(self, image: Pixels) -> Prediction:
        """Label mask and instance map of an image (HW or HW3, uint8 or uint16), at its size."""
        return _joined(self.find(rows_of(image)))

    def predict_with_probabilities(self, image: Pixels) -> tuple[Prediction, Floats]:
        """The same, and how probable each class is (K, H, W), at the image's size."""
        planes: list[Floats] = []
        found = _joined(self.find(rows_of(image), on_planes=planes.append))
        return found, np.concatenate(planes, axis=1)

    def find(self, image: Rows, *, on_planes: OnPlanes | None = None) -> Iterator[LabelRows]:
        """Label mask and instance map from top to bottom, in the memory of some rows."""
        view = self._view(image)
        if view.dataset_px == view.own_px:
            yield from self._found(view, on_planes)
            return
        # Rules that state a size make it small: what is found there is kept whole.
        prob_CHW = np.concatenate(list(self._planes(view)), axis=1)
        small = decoded(prob_CHW, self.card.split, view.dataset_px)
        for found, planes in at_own_size(small, prob_CHW, self.card.split, size_px=view.own_px):
            if on_planes:
                on_planes(planes[:-1])
            yield found

    def _view(self, image: Rows) -> View:
        """The image in the form of the dataset and at the plan's scale; a small one as a whole."""
        rules, scale = self.card.rules, self.card.plan.scale
        if image.height_px * image.width_px <= WHOLE_PIXELS:
            seen = as_in_dataset(image.gathered(), rules)
            height, width = seen.shape[:2]
            return View(rows_of(rescaled(seen, scale)), (height, width), image.size_px)
        rows = rows_as_in_dataset(image, rules)
        height, width = (max(1, round(side * scale)) for side in rows.size_px)
        small = rows if scale == 1 else shrunk_rows(rows, (height, width))
        return View(small, rows.size_px, image.size_px)

    def _planes(self, view: View) -> Iterator[Floats]:
        """Class probabilities and distance at the plan's scale, (K + 1, H, W), by rows."""
        plan, levels = self.card.plan, levels_of(view.rows.blocks())

        def forward(tile: Pixels) -> Floats:
            return self._averaged(normalized(tile, channels=plan.channels, levels=levels))

        return blended_rows(
            view.rows.blocks(), forward, size_px=view.rows.size_px, multiple=plan.stride,
            tile_px=plan.tile_px, overlap_px=plan.overlap_px,
        )  # fmt: skip

    def _found(self, view: View, on_planes: OnPlanes | None) -> Iterator[LabelRows]:
        split, objects = self.card.split, StreamingSplitter(self.card.split, view.own_px)
        for planes in grown_planes(self._planes(view), view.rows.size_px, view.own_px):
            if on_planes:
                on_planes(planes[:-1])
            foreground = planes[0] <= 1 - split.foreground
            yield objects.push(foreground, planes[-1], _likeliest(planes[1:-1]))

    def _averaged(self, tile_HWC: Floats) -> Floats:
        """Mean over the networks, and the turned views where asked for."""
        self._forwards = self._forwards or [make_forward(net, self.backend) for net in self.nets]
        views = TURNS if self.is_turned else TURNS[:1]
        found = [
            _turned_back(forward(_turned(tile_HWC, turn)), turn)
            for forward in self._forwards for turn in views
        ]  # fmt: skip
        return found[0] if len(found) == 1 else np.mean(found, axis=0, dtype=np.float32)


def _likeliest(prob_KHW: Floats) -> NDArray[np.uint8]:
    """Id of the likeliest class (HW) among those from 1 on."""
    if len(prob_KHW) == 1:  # the usual case, without the eight bytes a pixel that argmax takes
        return np.ones(prob_KHW.shape[1:], np.uint8)
    return np.asarray(prob_KHW.argmax(0) + 1, np.uint8)


def _turned(tile_HWC: Floats, turn: tuple[int, bool]) -> Floats:
    quarters, is_mirrored = turn
    return np.rot90(tile_HWC[:, ::-1] if is_mirrored else tile_HWC, quarters)


def _turned_back(planes_CHW: Floats, turn: tuple[int, bool]) -> Floats:
    quarters, is_mirrored = turn
    upright = np.rot90(planes_CHW, -quarters, axes=(1, 2))
    return upright[:, :, ::-1] if is_mirrored else upright


def _joined(found: Iterator[LabelRows]) -> Prediction:
    parts = list(found)
    return Prediction(
        np.concatenate([part.mask for part in parts]),
        np.concatenate([part.instances for part in parts]),
    )


class Predictor(Networks):
    """The networks of a model's folder (or of a run's)."""

    def __init__(
        self, folder: Path, *, backend: Backend | None = None, is_turned: bool = False
    ) -> None:
        self.folder = model_folder(folder)
        self.artifact = read_intact(self.folder, "model")
        card = read_card(self.folder)
        nets = [load_net(self.folder / weights_name(i), card.plan) for i in range(card.members)]
        super().__init__(nets, card, backend=backend, is_turned=is_turned)

    def choose_backend(self, notes: Path | None = None) -> Choice:
        """Take the backend that is fastest here; noted in a file, so that it stays the same."""
        choice = fastest(self.nets[0], model_id=self.artifact.id, notes=notes)
        self.backend, self._forwards = choice.backend, []
        return choice
