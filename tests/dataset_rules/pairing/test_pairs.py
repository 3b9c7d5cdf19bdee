from hypothesis import given
from hypothesis import strategies as st

from dataset_rules.pairing.pairs import MaskSource, pair_paths
from dataset_rules.rules.template import Template


def pairing_of(paths, image, *masks):
    return pair_paths(paths, Template(image), [MaskSource(Template(mask)) for mask in masks])


def pairs_of(paths, image, *masks):
    return [(pair.image, pair.masks) for pair in pairing_of(paths, image, *masks).pairs]


def test_number_1_never_joins_10():
    paths = ["img_1.png", "img_10.png", "label_10.png", "label_100.png"]
    assert pairs_of(paths, "img_{n}.png", "label_{n}.png") == [("img_10.png", ("label_10.png",))]


def test_padded_numbers_join_as_numbers():
    paths = ["img_7.png", "mask_007.png", "mask_070.png"]
    assert pairs_of(paths, "img_{n:int}.png", "mask_{n:int}.png") == [
        ("img_7.png", ("mask_007.png",))
    ]


def test_file_that_matches_both_templates_goes_to_the_one_with_more_literal_text():
    assert pairs_of(["1.png", "1_mask.png"], "{n}.png", "{n}_mask.png") == [
        ("1.png", ("1_mask.png",))
    ]
    assert pairs_of(["1_raw.png", "1.png"], "{n}_raw.png", "{n}.png") == [("1_raw.png", ("1.png",))]


def test_all_files_in_an_object_folder_belong_to_its_image():
    paths = ["a/images/a.png", "a/masks/2.png", "a/masks/1.png", "b/images/b.png"]
    pairing = pairing_of(paths, "{id}/images/{id}.png", "{id}/masks/*.png")
    assert [p.masks for p in pairing.pairs] == [("a/masks/1.png", "a/masks/2.png")]
    assert pairing.unpaired_images == ("b/images/b.png",)


def test_two_masks_for_one_image_are_a_finding_and_no_pair():
    paths = ["images/1.png", "masks/1.png", "masks/1.tif"]
    pairing = pairing_of(paths, "images/{n}.{x}", "masks/{n}.{y}")
    assert not pairing.pairs
    assert [f.code for f in pairing.findings] == ["two_masks"]
    assert set(pairing.findings[0].paths) == set(paths)


def test_two_images_for_one_mask_are_a_finding_and_no_pair():
    pairing = pairing_of(["images/1.png", "images/1.jpg", "masks/1.png"], "images/{n}.{x}",
                         "masks/{n}.png")  # fmt: skip
    assert not pairing.pairs
    assert [f.code for f in pairing.findings] == ["two_images"]


def test_classes_in_separate_files_keep_their_class():
    masks = [MaskSource(Template("{n}_red.png"), 2), MaskSource(Template("{n}_blue.png"), 1)]
    pairing = pair_paths(["1.jpg", "1_red.png", "1_blue.png"], Template("{n}.jpg"), masks)
    assert pairing.pairs[0].masks == ("1_blue.png", "1_red.png")
    assert pairing.pairs[0].class_ids == (1, 2)


PATHS = st.lists(
    st.from_regex(r"(img|mask|other)/[0-9]{1,3}\.(png|jpg)", fullmatch=True), unique=True
)


@given(PATHS, st.randoms())
def test_every_path_occurs_once_regardless_of_order(paths, random):
    shuffled = random.sample(paths, len(paths))
    pairing = pairing_of(shuffled, "img/{n}.{x}", "mask/{n}.{y}")
    assert pairing == pairing_of(paths, "img/{n}.{x}", "mask/{n}.{y}")
    placed = [path for pair in pairing.pairs for path in (pair.image, *pair.masks)]
    placed += [*pairing.unpaired_images, *pairing.unpaired_masks, *pairing.others]
    assert sorted(placed) == sorted(paths)
