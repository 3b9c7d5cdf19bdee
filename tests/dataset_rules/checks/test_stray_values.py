import pytest

from dataset_rules.checks.stray_values import check_stray_values
from dataset_rules.masks.profile import FileProfile
from dataset_rules.rules.rules import rules_from_mapping
from tests.messy import fake_profile


def profile(values, *, is_color=False):
    like = fake_profile(is_mask=True)
    return FileProfile(like.header, "uint8", values, len(values), is_color=is_color, flatness=0.9)


def rules(kind, *values):
    classes = [{"id": i, "name": str(i), "source_values": [v]} for i, v in enumerate(values)]
    return rules_from_mapping({"version": 2, "classes": classes, "source": {"mask_kind": kind}})


@pytest.mark.parametrize(
    ("value", "is_stray"), [(128, True), (70, True), (40, False), (250, False)]
)
def test_frequent_grey_value_far_from_both_classes_is_stray(value, is_stray):
    profiles = {"m.png": profile({0: 3000, 255: 900, value: 196})}
    found = check_stray_values(profiles, rules("binary", 0, 255), of=7)
    assert [(f.paths, f.looked_at, f.of) for f in found] == [(("m.png",), 1, 7)] * is_stray


def test_rare_values_at_blended_edges_are_not_stray():
    values = {0: 3000, 255: 1000} | dict.fromkeys(range(100, 150), 2)
    assert check_stray_values({"m.png": profile(values)}, rules("binary", 0, 255), of=1) == []


def test_colour_of_no_class_is_reported():
    (finding,) = check_stray_values(
        {"m.png": profile({0: 3000, 0xFF0000: 900, 0x00FFFF: 196}, is_color=True)},
        rules("colors", [0, 0, 0], [255, 0, 0]), of=1,
    )  # fmt: skip
    assert "#00ffff" in finding.message


def test_label_masks_are_not_checked():
    assert (
        check_stray_values({"m.png": profile({0: 3000, 9: 1000})}, rules("label", 0, 1), of=1) == []
    )
