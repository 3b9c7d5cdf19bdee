import pytest

from dataset_rules.artifacts.dataset import Split
from dataset_rules.checks.split_leakage import (
    check_leaks,
    check_predefined_splits,
    predefined_split,
)

TRAIN, VAL, TEST = Split


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("CamVid/trainannot/1.png", TRAIN),
        ("data/train/image/1.png", TRAIN),
        ("Training_Images/1.png", TRAIN),
        ("set/validation/1.png", VAL),
        ("val2017/1.png", VAL),
        ("test_images/1.png", TEST),
        ("images/test_1.png", None),
        ("contest/1.png", None),
        ("tests/data/1.png", None),
        ("value/1.png", None),
    ],
)
def test_split_is_given_by_a_folder(path, split):
    assert predefined_split(path) is split


def test_predefined_splits_that_the_rules_mix_are_a_warning():
    splits = {"train/1.png": TRAIN, "train/2.png": TEST, "val/3.png": VAL}
    (finding,) = check_predefined_splits(splits)
    assert finding.paths == ("train/2.png",)
    assert "train 2, val 1" in finding.message


def test_predefined_splits_that_the_rules_keep_are_no_finding():
    assert check_predefined_splits({"train/1.png": TRAIN, "val/3.png": VAL}) == []


def test_single_split_is_no_finding():
    assert check_predefined_splits({"train/1.png": TRAIN, "train/3.png": VAL}) == []


def test_copies_in_two_predefined_splits_are_a_leak():
    (leak,) = check_leaks([("test/1.png", "train/1.png")], {"train/1.png": TRAIN})
    assert leak.paths == ("test/1.png", "train/1.png")
    assert "own splits" in leak.message


def test_copies_in_different_splits_by_the_rules_are_a_leak():
    (leak,) = check_leaks([("a.png", "b.png"), ("c.png", "d.png")],
                          {"a.png": TRAIN, "b.png": TEST, "c.png": VAL, "d.png": VAL})  # fmt: skip
    assert leak.paths == ("a.png", "b.png")
    assert leak.message.startswith("1 picture ")


def test_copies_within_one_split_are_no_leak():
    assert check_leaks([("a.png", "b.png")], {"a.png": TRAIN, "b.png": TRAIN}) == []
