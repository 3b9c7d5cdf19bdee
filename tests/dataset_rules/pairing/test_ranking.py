"""Layouts of file names alone: the content of the files is simulated."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_rules.pairing.ranking import Hints, choose_reading
from dataset_rules.rules.template import Template
from tests.messy import fake_profile, fake_profiler


def read(pairs, others=(), *, also_masks=(), hints=None):
    """The choice if the second file of each pair looks like a mask."""
    masks = [mask for _, mask in pairs]
    paths = [path for pair in pairs for path in pair] + list(others)
    return choose_reading(paths, fake_profiler([*masks, *also_masks]), hints or Hints())


def found(choice):
    assert choice.reading is not None
    return [(pair.image, *pair.masks) for pair in choice.reading.pairing.pairs]


def numbered(image, mask, numbers=(1, 2, 3, 10, 11, 100)):
    return [(image.format(n), mask.format(n)) for n in numbers]


@pytest.mark.parametrize(
    "pairs",
    [
        numbered("images/{}.png", "masks/{}.png"),
        numbered("a/{}.png", "b/{}.png"),
        numbered("data/x/images/{}.jpg", "data/x/masks/{}.png"),
        numbered("imgs/im{}.tif", "gt/im{}_gt.png"),
        numbered("{}.png", "{}_mask.png"),
        numbered("{}.png", "mask_{}.png"),
        numbered("img_{}.png", "label_{}.png"),
        numbered("s{}_image_a.png", "s{}_mask_a.png"),
        numbered("{}.bmp", "{}.png"),
        numbered("d/{}.jpg", "d/{}.png"),
        numbered("case{}/image.png", "case{}/mask.png"),
        numbered("img{}.png", "mask{:03d}.png"),
        numbered("image/{:04d}.png", "mask/{}.png"),
        numbered("train/{}.png", "trainannot/{}.png") + numbered("val/{}.png", "valannot/{}.png"),
        numbered("train/images/{}.png", "train/labels/{}.png")
        + numbered("test/images/{}.png", "test/labels/{}.png"),
        numbered("images/train/{}.png", "labels/train/{}.png")
        + numbered("images/val/{}.png", "labels/val/{}.png"),
        numbered("p/images/{}.png", "p/masks/{}.png")
        + numbered("p/q/images/{}.png", "p/q/masks/{}.png"),
        [("images/alice.png", "masks/alice.png"), ("images/bob.png", "masks/bob.png")],
        [("images/only.png", "masks/only.png")],
        [("only.png", "only_mask.png")],
        [("b{1}.png", "b{1}_mask.png"), ("b{2}.png", "b{2}_mask.png")],
    ],
    ids=lambda pairs: "+".join(pairs[0]),
)
def test_common_layout_is_paired_without_a_question(pairs):
    choice = read(pairs)
    assert not choice.questions
    assert sorted(found(choice)) == sorted(pairs)


def test_object_files_in_a_folder_next_to_the_image_are_its_masks():
    pairs = [(f"t/{n}/images/{n}.png", f"t/{n}/masks/{n}{k}.png") for n in "abc" for k in "xyz"]
    paths = {path for pair in pairs for path in pair}
    choice = choose_reading(sorted(paths), fake_profiler(mask for _, mask in pairs), Hints())
    assert choice.reading.image.text == "t/{folder}/images/{folder}.png"
    assert choice.reading.masks[0].template.text == "t/{folder}/masks/*.png"
    assert [len(pair.masks) for pair in choice.reading.pairing.pairs] == [3, 3, 3]


def test_object_files_in_a_folder_named_after_the_image_are_its_masks():
    pairs = [(f"images/{n}.png", f"masks/{n}/{k}.png") for n in ("i1", "i2") for k in "xyz"]
    paths = {path for pair in pairs for path in pair}
    choice = choose_reading(sorted(paths), fake_profiler(mask for _, mask in pairs), Hints())
    assert choice.reading.masks[0].template.text == "masks/{name}/*.png"


def test_predictions_are_not_ground_truth_although_they_look_like_masks():
    pairs = numbered("img_{}.png", "label_{}.png")
    predictions = [f"pred_{n}.png" for n in (1, 2, 3, 10, 11, 100)]
    choice = read(pairs, predictions, also_masks=predictions)
    assert not choice.questions
    assert sorted(found(choice)) == sorted(pairs)


def test_two_folders_that_look_like_masks_raise_a_question():
    pairs = numbered("x/{}.png", "y/{}.png")
    rivals = [f"z/{n}.png" for n in (1, 2, 3, 10, 11, 100)]
    choice = read(pairs, rivals, also_masks=rivals)
    assert [question.field for question in choice.questions] == ["source.mask"]
    assert {option["mask"] for option in choice.questions[0].options} == {
        "y/{name}.png", "z/{name}.png",
    }  # fmt: skip


def test_keyword_decides_between_rivals():
    pairs = numbered("x/{}.png", "y/{}.png")
    rivals = [f"z/{n}.png" for n in (1, 2, 3, 10, 11, 100)]
    choice = read(pairs, rivals, also_masks=rivals, hints=Hints(keyword="z"))
    assert not choice.questions
    assert choice.reading.masks[0].template.text == "z/{name}.png"


def test_one_given_template_decides_between_rivals():
    pairs = numbered("x/{}.png", "y/{}.png")
    rivals = [f"z/{n}.png" for n in (1, 2, 3, 10, 11, 100)]
    hints = Hints(mask=Template("y/{n}.png"))
    choice = read(pairs, rivals, also_masks=rivals, hints=hints)
    assert found(choice) == sorted(pairs)


def test_single_folder_of_photographs_has_no_reading():
    assert read([], [f"a/{n}.png" for n in range(20)]).reading is None


def test_two_folders_of_photographs_have_no_reading():
    others = [f"{folder}/{n}.png" for n in range(20) for folder in ("a", "b")]
    assert read([], others).reading is None


def test_candidate_with_equal_sizes_wins():
    pairs = numbered("test_cli/{}.png", "test_truth/{}.png")
    others = [image.replace("test_cli", "test") for image, _ in pairs]
    masks = {mask for _, mask in pairs}

    def look(path):
        wide = (64, 384) if path.startswith("test/") else (64, 64)
        return fake_profile(is_mask=path in masks, size_px=wide)

    choice = choose_reading([p for pair in pairs for p in pair] + others, look, Hints())
    assert not choice.questions
    assert found(choice) == sorted(pairs)


@dataclass(frozen=True)
class Layout:
    pairs: list[tuple[str, str]]
    others: list[str]
    look_like_masks: list[str]


IMAGE_WORDS = ["image", "images", "img", "raw", "tissue", "input", "x", "a", "photos"]
MASK_WORDS = ["mask", "masks", "label", "labels", "gt", "annot", "seg", "y", "b"]
NAMES = [
    lambda i: str(i + 1),
    lambda i: f"{i:03d}",
    lambda i: f"case{i // 3}_{i % 3}",
    lambda i: f"TCGA-{i:02d}-A{i}B",
    lambda i: ["alice", "bob", "carol", "dave", "eve", "frank", "grace", "heidi", "ivan", "judy",
               "karl", "leo"][i],
    lambda i: f"{(i * 7919 + 13) * 104729:x}",
]  # fmt: skip


@st.composite
def layouts(draw):
    count = draw(st.integers(2, 12))
    name = draw(st.sampled_from(NAMES))
    root = draw(st.sampled_from(["", "data/", "my data/v1/"]))
    image_word, mask_word = draw(st.sampled_from(IMAGE_WORDS)), draw(st.sampled_from(MASK_WORDS))
    types = draw(st.sampled_from([("png", "png"), ("jpg", "png"), ("tif", "png")]))
    shape = draw(st.sampled_from([
        "{r}{i}/{n}.{t}|{r}{m}/{n}.{u}",
        "{r}{i}/{n}.{t}|{r}{m}/{n}_{m}.{u}",
        "{r}{i}/{i}_{n}.{t}|{r}{m}/{m}_{n}.{u}",
        "{r}{n}_{i}.{t}|{r}{n}_{m}.{u}",
        "{r}{n}.{t}|{r}{n}_{m}.{u}",
        "{r}{i}_{n}.{t}|{r}{m}_{n}.{u}",
        "{r}{n}/{i}.{t}|{r}{n}/{m}.{u}",
        "{r}{n}/{i}/{n}.{t}|{r}{n}/{m}/{n}.{u}",
    ]))  # fmt: skip
    parts = {"r": root, "i": image_word, "m": mask_word, "t": types[0], "u": types[1]}
    pairs = [
        tuple(side.format(n=name(index), **parts) for side in shape.split("|"))
        for index in range(count)
    ]
    distractor = draw(st.sampled_from(["", "pred", "overlay", "predict", "prob"]))
    others = []
    if distractor:
        others = [f"{mask.rpartition('.')[0]}_{distractor}.png" for _, mask in pairs]
    stray = draw(st.sampled_from([[], ["notes.png"], ["logo.jpg", f"{root}map.png"]]))
    return Layout(pairs, others + stray, others if distractor != "overlay" else [])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layouts(), st.randoms(use_true_random=False))
def test_messy_layout_is_paired_correctly_regardless_of_order(layout, random):
    choice = read(layout.pairs, layout.others, also_masks=layout.look_like_masks)
    assert not choice.questions
    assert sorted(found(choice)) == sorted(layout.pairs)
    paths = [path for pair in layout.pairs for path in pair] + layout.others
    random.shuffle(paths)
    masks = [mask for _, mask in layout.pairs] + layout.look_like_masks
    again = choose_reading(paths, fake_profiler(masks), Hints())
    assert again.reading == choice.reading


@settings(max_examples=60, deadline=None)
@given(layouts(), st.from_regex(r"(extra/)?[a-z]{1,8}[0-9]{0,3}\.(png|jpg)", fullmatch=True))
def test_unrelated_file_changes_no_pair(layout, stray):
    masks = [mask for _, mask in layout.pairs] + layout.look_like_masks
    paths = [path for pair in layout.pairs for path in pair] + layout.others
    taken = {path.rpartition("/")[2].rpartition(".")[0] for path in paths}
    if any(stray.rpartition("/")[2].rpartition(".")[0] in stem for stem in taken):
        return  # it may be related
    before = choose_reading(paths, fake_profiler(masks), Hints())
    after = choose_reading([*paths, stray], fake_profiler(masks), Hints())
    assert found(after) == found(before)
