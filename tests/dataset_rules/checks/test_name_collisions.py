import unicodedata

from dataset_rules.checks.name_collisions import check_names
from dataset_rules.pairing.pairs import MaskSource, pair_paths
from dataset_rules.rules.template import Template


def found(paths):
    pairing = pair_paths(paths, Template("i/{n}.png"), (MaskSource(Template("m/{n}.png")),))
    return {finding.code: finding for finding in check_names(paths, pairing)}


def test_names_that_differ_only_in_case_collide():
    clash = found(["i/a.png", "i/A.png", "i/b.png"])["name_clash"]
    assert clash.paths == ("i/A.png", "i/a.png")
    assert clash.severity == "warning"
    assert clash.remedy


def test_names_with_differently_encoded_accents_collide():
    names = [unicodedata.normalize(form, "i/é.png") for form in ("NFC", "NFD")]
    assert set(found(names)["name_clash"].paths) == set(names)


def test_near_match_that_differs_only_in_case_is_reported():
    nearly = found(["i/a.png", "m/a.png", "i/B.png", "m/b.png"])["nearly_partners"]
    assert nearly.paths == ("i/B.png", "m/b.png")


def test_near_match_with_an_extra_word_is_reported():
    assert found(["i/a.png", "m/a.png", "i/b.png", "m/B_mask.png"])["nearly_partners"].paths == (
        "i/b.png", "m/B_mask.png",
    )  # fmt: skip


def test_names_that_start_with_another_name_are_counted():
    paths = [f"{kind}/{n}.png" for kind in "im" for n in (1, 2, 10, 11)]
    clash = found(paths)["prefix_names"]
    assert clash.message.startswith("2 names of images begin with the whole name of another (1 ")
    assert clash.severity == "info"


def test_names_of_equal_length_do_not_clash():
    assert found([f"{kind}/{n:03d}.png" for kind in "im" for n in range(200)]) == {}
