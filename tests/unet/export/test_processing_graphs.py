"""ONNX graphs against OpenCV, scikit-image and the code used in training."""

from functools import cache
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxscript import DOUBLE, FLOAT
from skimage.morphology import reconstruction

from dataset_rules.artifacts.dataset import DatasetClass
from dataset_rules.formatting.image_form import convert_image
from dataset_rules.rules.rules import Rules
from unet.export import graph_parts as parts
from unet.export.processing_graphs import as_model, before_graph, normalised_graph
from unet.network.preprocessing import normalized, rescaled
from unet.objects.targets import distance_to_border
from unet.planning.intensity_levels import levels_of
from unet.planning.plan import Plan, make_schedule

few = settings(max_examples=10, deadline=None)
side = st.integers(1, 40)
SEED = st.integers(0, 99)


@cache
def part_session(name: str) -> onnxruntime.InferenceSession:
    """A session of one of the graph parts."""
    kind = {"spread": DOUBLE["H", "W"], "resized": FLOAT["C", "h", "w"]}.get(name, FLOAT["H", "W"])
    return session_of(as_model(getattr(parts, name), [kind]))


def session_of(model: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString())


def run(name: str, **inputs: Any) -> np.ndarray:
    return part_session(name).run(None, {key: np.asarray(value) for key, value in inputs.items()})[
        0
    ]


@few
@given(side, side, side, side, st.booleans(), SEED)
def test_resizing_equals_opencv(h, w, height, width, is_cubic: bool, seed) -> None:
    image = np.random.default_rng(seed).random((h, w, 2)).astype(np.float32)
    found = run("resized", x=image.transpose(2, 0, 1), size=[height, width], is_cubic=is_cubic)
    grown = cv2.INTER_CUBIC if is_cubic else cv2.INTER_LINEAR
    method = cv2.INTER_AREA if height <= h and width <= w else grown
    expected = cv2.resize(image, (width, height), interpolation=method)
    assert found.transpose(1, 2, 0) == pytest.approx(expected, abs=2e-4)


@few
@given(st.integers(1, 25), st.integers(1, 25), st.booleans(), SEED)
def test_reconstruction_equals_scikit_image(h, w, is_diagonal: bool, seed) -> None:
    top = np.random.default_rng(seed).random((h, w))
    near = np.ones((3, 3)) if is_diagonal else np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    found = run("spread", seed=top - 0.3, limit=top, is_diagonal=is_diagonal)
    assert (found == reconstruction(top - 0.3, top, footprint=near)).all()


@few
@given(st.integers(3, 40), st.integers(3, 40), st.floats(0.2, 1.0), SEED)
def test_distance_to_the_border_equals_training(h, w, share, seed) -> None:
    inside = np.random.default_rng(seed).random((h, w)) < share
    inside = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3))).astype(bool)
    found = run("border_distance", inside=inside)
    assert found == pytest.approx(distance_to_border(inside), abs=2e-3)


@few
@given(side, side, SEED)
def test_smoothing_equals_opencv(h, w, seed) -> None:
    image = np.random.default_rng(seed).random((h, w)).astype(np.float32)
    assert run("blurred", x=image) == pytest.approx(cv2.GaussianBlur(image, (0, 0), 1.0), abs=1e-5)


def plan_of(**changes: Any) -> Plan:
    classes = tuple(DatasetClass(id=i, name=str(i)) for i in range(2))
    return Plan.model_validate({
        "channels": 3, "classes": classes, "scale": 1, "patch_px": 32, "widths": (4, 8),
        "batch": 2, "learning_rate": 1e-3, "weight_decay": 0, "class_weights": (1, 1),
        "distance_weight": 1, "zoom_min": 1, "zoom_max": 1, "colour_jitter": 0, "tile_px": 64,
        "overlap_px": 16, **make_schedule(2).__dict__, **changes,
    })  # fmt: skip


RULES = {
    "kept": Rules(),
    "stretched": Rules(height=48, width=80, fit="stretch"),
    "padded": Rules(height=40, width=40, fit="pad"),
    "grey": Rules(color_model="grayscale"),
    "shallow": Rules(image_format="jpg"),
    "own range": Rules(depth="range"),
}


@pytest.mark.parametrize(("kind", "scale"), [("kept", 1.0), *((kind, 0.457) for kind in RULES)])
def test_preprocessing_equals_training(kind: str, scale: float) -> None:
    graph = session_of(before_graph(plan_of(scale=scale), RULES[kind]))
    rng = np.random.default_rng(0)
    for size in ((31, 45), (100, 81)):
        smooth = cv2.GaussianBlur(rng.random((*size, 3)), (0, 0), 2)
        image = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
        for pixels in (image, image[..., 0], image[..., 1].astype(np.uint16) * 200):
            floor = np.array(8 if pixels.dtype == np.uint8 else 64, np.float32)
            feed = {"image": pixels.astype(np.float32).reshape(*size, -1), "floor": floor}
            found, limits, small, seen = graph.run(None, feed)
            expected = convert_image(pixels, RULES[kind])
            assert tuple(seen) == expected.shape[:2]
            expected = rescaled(expected, scale)
            assert tuple(small) == expected.shape[:2]
            depth = 256 if expected.dtype == np.uint16 else 1
            expected = expected.reshape(*expected.shape[:2], -1).astype(np.float32)
            difference = np.abs(found[: small[0], : small[1]] - expected)
            assert difference.max() <= depth  # a rounding in each of two resizings
            assert (difference > depth / 2).mean() < 0.02
            low, high = np.percentile(expected[::2, ::2], [0.5, 99.8])
            assert limits == pytest.approx([low, high - low], abs=depth)
            assert not any(n % 2 for n in found.shape[:2])
            assert max(found.shape[:2]) <= 64 or min(found.shape[:2]) >= 64


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("deep", [False, True])
def test_normalisation_equals_training(channels: int, deep: bool) -> None:
    graph = session_of(normalised_graph(channels))
    rng = np.random.default_rng(0)
    for colours in (1, 3):
        image = rng.integers(10, 200, (34, 50, colours)).astype(np.uint16 if deep else np.uint8)
        image = np.pad(image * (300 if deep else 1), [(4, 3), (2, 0), (0, 0)])
        expected = normalized(image, channels=channels)
        feed = {"image": image.astype(np.float32), "limits": np.zeros(2, np.float32)}
        assert graph.run(None, feed)[0] == pytest.approx(expected, abs=1e-5)
        feed["limits"] = np.array(levels_of([image]), np.float32)
        assert graph.run(None, feed)[0] == pytest.approx(expected, abs=1e-5)


def test_a_uniform_image_does_not_become_noise() -> None:
    image = np.full((16, 16, 1), 100, np.float32)
    image[::3] += 1
    feed = {"image": image, "limits": np.zeros(2, np.float32)}
    assert np.ptp(session_of(normalised_graph(1)).run(None, feed)[0]) == pytest.approx(1 / 8)
