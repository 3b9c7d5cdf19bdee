import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_rules.doctor.examine import examine
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.fields import SourceRule
from dataset_rules.rules.rules import Rules, parse_rules, rules_from_mapping
from tests.messy import object_files, put, tissue, tree_of, two_folders


def codes(report):
    return [finding.code for finding in report.findings]


def finding(report, code):
    (found,) = [finding for finding in report.findings if finding.code == code]
    return found


def test_document_lists_pairs_mask_kind_and_classes_and_proposes_rules(tmp_path):
    document = examine(two_folders(tmp_path)).document()
    assert document["pairs"][0] == {
        "image": "images/1.png", "masks": ["masks/1.png"], "group": "1",
    }  # fmt: skip
    assert document["mask_kind"] == "binary"
    assert document["classes"][1] == {"id": 1, "name": "object", "source_values": [255]}
    assert document["rules"]["source"]["image"] == "images/{name}.png"
    assert document["rules"]["fit"] == "keep"
    assert rules_from_mapping(document["rules"]).source.mask == "masks/{name}.png"


def test_examination_does_not_modify_the_source(tmp_path):
    before = tree_of(two_folders(tmp_path))
    examine(tmp_path)
    assert tree_of(tmp_path) == before


def test_proposed_rules_give_the_same_report(tmp_path):
    first = examine(object_files(tmp_path))
    again = examine(tmp_path, first.rules)
    assert (again.pairing, again.rules) == (first.pairing, first.rules)


def test_unpaired_file_is_reported(tmp_path):
    two_folders(tmp_path)
    (tmp_path / "masks/2.png").unlink()
    (tmp_path / "images/3.png").unlink()
    document = examine(tmp_path).document()
    assert document["unpaired_images"] == ["images/2.png"]
    assert document["unpaired_masks"] == ["masks/3.png"]


def test_every_ignored_file_has_a_reason(tmp_path):
    two_folders(tmp_path)
    put(tmp_path, "logo.png", tissue(9)[0])
    put(tmp_path, "1_overlay.png", tissue(1)[0])
    for path in ("notes.txt", "__MACOSX/images/._1.png", ".DS_Store", "images/Thumbs.db"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    rules = Rules(source=SourceRule(exclude=("images/4.png", "masks/4*")))
    why = {item["path"]: item["why"] for item in examine(tmp_path, rules).document()["ignored"]}
    assert why == {
        ".DS_Store": "left behind by an operating system or hidden",
        "1_overlay.png": "its name indicates a prediction, overlay or preview, not ground truth",
        "__MACOSX/images/._1.png": "left behind by an operating system or hidden",
        "images/4.png": "excluded by the rules",
        "images/Thumbs.db": "left behind by an operating system or hidden",
        "logo.png": "its name matches neither the images nor the masks",
        "masks/4.png": "excluded by the rules",
        "notes.txt": "no image file",
    }


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.from_regex(r"(images|masks|x)/[1-5](_pred|_b)?\.(png|jpg|txt)", fullmatch=True),
        unique=True,
    )
)
def test_each_file_is_paired_reported_or_ignored(tmp_path_factory, extra):
    folder = two_folders(tmp_path_factory.mktemp("source"), 3)
    for path in extra:
        if path.endswith("txt"):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text("x")
        elif not (folder / path).exists():
            put(folder, path, tissue(len(path))[0])
    document = examine(folder).document()
    placed = [path for pair in document["pairs"] for path in (pair["image"], *pair["masks"])]
    placed += document["unpaired_images"] + document["unpaired_masks"]
    placed += [item["path"] for item in document["ignored"]]
    assert sorted(placed) == sorted(tree_of(folder))


def test_missing_folder_is_rejected(tmp_path):
    with pytest.raises(RulesError, match="no such folder"):
        examine(tmp_path / "none")


def test_file_that_is_not_an_archive_is_rejected(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("x")
    with pytest.raises(RulesError, match="no archive, or a damaged one"):
        examine(file)


def test_empty_folder_is_rejected(tmp_path):
    with pytest.raises(RulesError, match="the source is empty"):
        examine(tmp_path)


def test_folder_without_images_is_rejected(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(RulesError, match="no image in the folder"):
        examine(tmp_path)


def test_folder_without_masks_is_an_error_that_counts_the_images(tmp_path):
    for number in range(3):
        put(tmp_path, f"{number}.png", tissue(number)[0])
    report = examine(tmp_path)
    assert finding(report, "no_masks").message == "no mask was found for 3 image files"
    assert report.pairing.others == ("0.png", "1.png", "2.png")


def test_keyword_that_matches_nothing_is_only_a_hint(tmp_path):
    report = examine(two_folders(tmp_path), Rules(mask_keyword="_zzz"))
    assert len(report.pairing.pairs) == 4
    assert "'_zzz'" in finding(report, "keyword_unused").message
    assert finding(report, "keyword_unused").severity == "info"


def test_keyword_that_matches_nothing_is_an_error_if_nothing_pairs(tmp_path):
    put(tmp_path, "1.png", tissue(1)[0])
    report = examine(tmp_path, Rules(mask_keyword="_zzz"))
    assert "'_zzz' matches no file" in finding(report, "keyword_pairs_nothing").message


def test_given_templates_that_match_nothing_are_an_error(tmp_path):
    rules = Rules(source=SourceRule(image="a/{n}.png", mask="b/{n}.png"))
    report = examine(two_folders(tmp_path), rules)
    assert finding(report, "templates_match_nothing").severity == "error"


def test_classes_by_template_are_paired_and_numbered(tmp_path):
    for number in range(3):
        image, instances = tissue(number)
        put(tmp_path, f"{number}.jpg", image)
        put(tmp_path, f"{number}_red.png", (instances == 1).astype(np.uint8) * 255)
        put(tmp_path, f"{number}_blue.png", (instances > 1).astype(np.uint8) * 255)
    masks = '[{"template": "{n}_blue.png", "class": 1}, {"template": "{n}_red.png", "class": 2}]'
    rules = parse_rules(
        '{"version": 2, "source": {"image": "{n}.jpg", "mask": ' + masks + "}}"
    )  # fmt: skip
    document = examine(tmp_path, rules).document()
    assert document["pairs"][0]["masks"] == ["0_blue.png", "0_red.png"]
    assert [rule["id"] for rule in document["classes"]] == [0, 1, 2]
    assert parse_rules(__import__("json").dumps(document["rules"])).source.mask == rules.source.mask


def test_truncated_image_and_text_named_png_are_errors_with_their_paths(tmp_path):
    two_folders(tmp_path)
    image = tmp_path / "images/1.png"
    image.write_bytes(image.read_bytes()[:-200])
    (tmp_path / "masks/3.png").write_text("no pixels here")
    damaged = [f for f in examine(tmp_path).findings if f.code == "damaged"]
    assert {path for f in damaged for path in f.paths} == {"images/1.png", "masks/3.png"}
    assert all(f.severity == "error" and f.remedy for f in damaged)


def test_pair_of_different_sizes_is_an_error(tmp_path):
    two_folders(tmp_path)
    put(tmp_path, "masks/2.png", np.zeros((9, 9), np.uint8))
    assert finding(examine(tmp_path), "size_mismatch").paths == ("images/2.png", "masks/2.png")


def test_equal_images_are_a_warning(tmp_path):
    two_folders(tmp_path)
    (tmp_path / "images/2.png").write_bytes((tmp_path / "images/1.png").read_bytes())
    assert finding(examine(tmp_path), "equal_images").paths == ("images/1.png", "images/2.png")


def test_group_is_given_by_the_template_in_the_rules(tmp_path):
    for number in range(4):
        image, instances = tissue(number)
        put(tmp_path, f"images/p{number // 2}_{number}.png", image)
        put(tmp_path, f"masks/p{number // 2}_{number}.png", (instances > 0).astype(np.uint8))
    rules = rules_from_mapping({"version": 2, "split": {"group": "{patient}_*"}})
    pairs = examine(tmp_path, rules).document()["pairs"]
    assert [pair["group"] for pair in pairs] == ["p0", "p0", "p1", "p1"]


def test_class_names_given_by_the_user_are_kept(tmp_path):
    rules = rules_from_mapping({
        "version": 2, "classes": [{"id": 0, "name": "glass"}, {"id": 1, "name": "nucleus"}],
    })  # fmt: skip
    classes = examine(two_folders(tmp_path), rules).document()["classes"]
    assert classes == [
        {"id": 0, "name": "glass", "source_values": [0]},
        {"id": 1, "name": "nucleus", "source_values": [255]},
    ]


def test_open_question_about_the_masks_leaves_no_pairs(tmp_path):
    two_folders(tmp_path)
    for number in range(1, 5):
        mask = (tissue(number + 50)[1] > 0).astype(np.uint8) * 255
        put(tmp_path, f"manual/{number}.png", mask)
    document = examine(tmp_path).document()
    assert document["pairs"] == []
    assert document["rules"]["source"]["mask"] is None
    (question,) = document["questions"]
    assert question["field"] == "source.mask"
    assert {option["mask"] for option in question["options"]} == {
        "manual/{name}.png", "masks/{name}.png",
    }  # fmt: skip
    rules = rules_from_mapping({"version": 2, "source": question["options"][0]})
    assert len(examine(tmp_path, rules).pairing.pairs) == 4


def test_group_template_that_matches_no_image_is_a_warning(tmp_path):
    rules = rules_from_mapping({"version": 2, "split": {"group": "{patient}-*"}})
    assert len(finding(examine(two_folders(tmp_path), rules), "group_unmatched").paths) == 4


def test_two_photographs_are_not_a_pair_even_if_one_is_flat(tmp_path):
    photograph, _ = tissue(1)
    even = photograph.copy()
    even[:20] = 236  # half of it is empty background of the slide
    put(tmp_path, "cells/a.png", photograph)
    put(tmp_path, "cells/b.png", even)
    document = examine(tmp_path).document()
    assert document["pairs"] == []
    assert [f["code"] for f in document["findings"] if f["severity"] == "error"] == ["no_masks"]
