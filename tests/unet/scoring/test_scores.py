import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_rules.artifacts.dataset import DatasetClass, Split
from unet.prediction.decoding import Prediction
from unet.scoring.evaluate import image_scores
from unet.scoring.metrics import AP_THRESHOLDS
from unet.scoring.scores import ImageScores, Scores

CLASSES = tuple(DatasetClass(id=i, name=n) for i, n in enumerate(("background", "cell", "nucleus")))
TWO = CLASSES[:2]


def confident(mask: np.ndarray, classes: int) -> np.ndarray:
    """Confident class probabilities for `mask`."""
    return np.stack([np.where(mask == i, 0.9, 0.1 / (classes - 1)) for i in range(classes)]).astype(
        np.float32
    )


def scored(name: str, mask: np.ndarray, objects: np.ndarray, found: Prediction, *, classes=TWO):
    prob = confident(found.mask, len(classes))
    parts = image_scores(mask, objects, found, prob_KHW=prob, classes=classes)
    return ImageScores(name, name, *parts)


def drawn(seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, Prediction]:
    """Truth made of blocks, each an object of one class, and a partly wrong prediction."""
    rng = np.random.default_rng(seed)
    of_object = np.concatenate([[0], rng.integers(1, classes, 9)])
    objects = np.kron(np.arange(9).reshape(3, 3), np.ones((3, 3), int)).astype(np.int32)
    found = np.where(rng.random((9, 9)) < 0.15, np.roll(objects, 1, 0), objects).astype(np.int32)
    mask = of_object[objects].astype(np.uint8)
    if seed % 3:
        mask[0] = 255
    return mask, objects, Prediction(of_object[found].astype(np.uint8), found)


def loops(truth: np.ndarray, found: np.ndarray, known: np.ndarray) -> tuple[int, int, int]:
    tp = fp = fn = 0
    for t, f, k in zip(truth.ravel(), found.ravel(), known.ravel(), strict=True):
        tp, fp, fn = tp + (k and t and f), fp + (k and f and not t), fn + (k and t and not f)
    return int(tp), int(fp), int(fn)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=3, unique=True))
def test_all_pixel_scores_of_the_document_equal_loops_over_pixels(seeds: list[int]) -> None:
    data = [drawn(seed) for seed in seeds]
    images = tuple(
        scored(str(s), m, o, f, classes=CLASSES) for s, (m, o, f) in zip(seeds, data, strict=True)
    )
    document = Scores(Split.TEST, CLASSES, images).document()
    rows = {"": [], 1: [], 2: []}
    for mask, _, found in data:
        known = mask != 255
        rows[""].append(loops((mask > 0) & known, found.mask > 0, known))
        for c in (1, 2):
            rows[c].append(loops(mask == c, found.mask == c, known))

    def check(scores: dict, counts: list, names: tuple[str, ...]) -> None:
        def mean(values):
            defined = [a / b for a, b in values if b]
            return pytest.approx(sum(defined) / len(defined)) if defined else None

        tp, fp, fn = map(sum, zip(*counts, strict=True))
        dice, iou, precision, recall = (scores[name] for name in names)
        assert dice == mean((2 * a, 2 * a + b + c) for a, b, c in counts)
        assert iou == mean((a, a + b + c) for a, b, c in counts)
        assert precision == mean((a, a + b) for a, b, c in counts)
        assert recall == mean((a, a + c) for a, b, c in counts)
        assert scores["dice_pooled"] == mean([(2 * tp, 2 * tp + fp + fn)])
        assert scores["precision_pooled"] == mean([(tp, tp + fp)])
        assert scores["recall_pooled"] == mean([(tp, tp + fn)])

    check(document, rows[""], ("dice_mean", "iou_mean", "precision_mean", "recall_mean"))
    for c in (1, 2):
        check(document["classes"][c - 1], rows[c], ("dice", "iou", "precision", "recall"))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=3, unique=True))
def test_object_scores_of_a_class_use_only_its_objects(seeds: list[int]) -> None:
    data = [drawn(seed) for seed in seeds]
    images = tuple(
        scored(str(s), m, o, f, classes=CLASSES) for s, (m, o, f) in zip(seeds, data, strict=True)
    )
    document = Scores(Split.TEST, CLASSES, images).document()
    for c in (1, 2):
        per_threshold, errors = [[0, 0, 0] for _ in AP_THRESHOLDS], []
        for mask, objects, found in data:
            truths = [(objects == n) & (mask == c) for n in range(1, 10)]
            seen = [
                (found.instances == n) & (found.mask == c) & (mask != 255) for n in range(1, 10)
            ]
            truths, seen = ([a for a in part if a.any()] for part in (truths, seen))
            errors.append(len(seen) - len(truths))
            for counts, threshold in zip(per_threshold, AP_THRESHOLDS, strict=True):
                # Above an IoU of one half a pair is unique; at exactly one half it is a tie.
                hits = sum(
                    any((t & s).sum() / (t | s).sum() >= threshold - 1e-9 for s in seen)
                    for t in truths
                )
                counts[0] += hits
                counts[1] += len(seen) - hits
                counts[2] += len(truths) - hits
        scores = document["classes"][c - 1]
        aps = [tp / (tp + fp + fn) for tp, fp, fn in per_threshold if tp + fp + fn]
        expected = pytest.approx(sum(aps) / 10) if aps else None
        assert scores["ap_50_95"] == expected
        assert scores["count_bias_mean"] == pytest.approx(sum(errors) / len(errors))
        assert scores["count_error_mean"] == pytest.approx(sum(map(abs, errors)) / len(errors))


def squares() -> tuple[np.ndarray, np.ndarray]:
    objects = np.zeros((20, 20), np.int32)
    objects[2:8, 2:8], objects[10:18, 10:18] = 1, 2
    return (objects > 0).astype(np.uint8), objects


def test_scores_of_a_perfect_and_of_an_empty_prediction() -> None:
    mask, objects = squares()
    perfect = scored("a", mask, objects, Prediction(mask, objects)).foreground
    assert perfect.pixels.dice == perfect.panoptic.quality == 1
    assert [counts.dice for counts in perfect.objects] == [1.0] * 10
    nothing = Prediction(np.zeros_like(mask), np.zeros_like(objects))
    missed = scored("a", mask, objects, nothing).foreground
    assert missed.pixels.dice == missed.pixels.recall == missed.panoptic.quality == 0
    assert missed.pixels.precision is None
    assert missed.count_error == -missed.objects[0].fn == -2


def test_ignored_pixels_do_not_count() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[:5] = 255
    found = np.zeros((10, 10), np.int32)
    found[:5] = 1
    prediction = Prediction((found > 0).astype(np.uint8), found)
    scores = scored("a", mask, np.zeros((10, 10), np.int32), prediction).foreground
    assert scores.pixels.dice is None
    assert scores.objects[0].dice is None
    assert sum(scores.reliability.pixels) == 50


def test_the_document_has_the_public_keys_and_lists_the_worst_images_first() -> None:
    mask, objects = squares()
    half = np.where(np.arange(20)[:, None] < 9, mask, 0).astype(np.uint8)
    images = (
        scored("good", mask, objects, Prediction(mask, objects)),
        scored("empty", np.zeros_like(mask), np.zeros_like(objects),
               Prediction(np.zeros_like(mask), np.zeros_like(objects))),
        scored("bad", mask, objects, Prediction(half, np.where(half > 0, objects, 0))),
    )  # fmt: skip
    document = Scores(Split.TEST, TWO, images).document()
    assert {"n", "undefined", "dice_mean", "dice_pooled", "iou_mean", "object_f1_50", "ap_50_95",
            "classes", "images"} <= document.keys()  # fmt: skip
    assert (document["n"], document["undefined"], document["groups"]) == (3, 1, 3)
    assert [image["name"] for image in document["images"]] == ["bad", "good", "empty"]
    assert {"id", "name", "dice", "iou"} <= document["classes"][0].keys()
    assert document["object_f1_50"] == pytest.approx(2 * 3 / (2 * 3 + 0 + 1))
    low, high = document["intervals"]["dice_mean"]
    assert low <= document["dice_mean"] <= high == 1
