import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.rules import Rules, parse_rules, rules_document, rules_id, to_paper

KEYWORDS = st.text(
    st.characters(min_codepoint=32, exclude_characters="/\\", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
)

VALUES = st.lists(st.integers(100, 255), max_size=2)


@st.composite
def rules(draw):
    fit = draw(st.sampled_from(["keep", "stretch", "pad", "crop", "tile"]))
    sides = {} if fit == "keep" else {"height": draw(st.integers(16, 4096)), "width": 64}
    names = draw(st.lists(st.text(min_size=1, max_size=9), max_size=4))
    classes = [{"id": i, "name": name, "source_values": [i, [i, 0, 9]]} for i, name in
               enumerate(names)]  # fmt: skip
    return Rules.model_validate({
        "fit": fit, **sides, "overlap": draw(st.integers(0, 9)) if fit == "tile" else 0,
        "depth": draw(st.sampled_from([None, "divide", "range"])), "drop": draw(VALUES),
        "ignore_values": draw(st.just([[9, 9, 9]])),
        "image_format": draw(st.sampled_from(["png", "jpg", "bmp", "tiff"])),
        "color_model": draw(st.sampled_from(["rgb", "grayscale", "binary"])),
        "layout": draw(st.sampled_from(["separate", "together"])),
        "mask_keyword": draw(KEYWORDS),
        "classes": classes or None,
        "split": {"seed": draw(st.integers(0, 99)), "groups": {"val": draw(st.lists(st.text()))}},
        "source": draw(st.sampled_from([
            {}, {"image": "{n}.png", "mask": "{n}_a.png", "list": ["train.txt"]},
            {"mask_kind": "colors", "exclude": ["*.tif"]}, {"object_value": 0},
            {"image": "{n}.png", "panel": {"columns": 2, "image": 0, "mask": 1}},
        ])),
    })  # fmt: skip


@given(rules())
def test_rules_round_trip_through_json(document):
    again = parse_rules(json.dumps(rules_document(document)))
    assert again == document
    assert rules_id(again) == rules_id(document)


def test_lone_surrogate_is_refused():
    paper = {"height": "1", "width": "7", "image_type": "1", "color_model": "1",
             "description": "\ud800"}  # fmt: skip
    with pytest.raises(RulesError, match=r"lone surrogate; found '\\ud800'"):
        parse_rules(json.dumps(paper))


@given(
    st.sampled_from("123"), st.sampled_from("123"), st.booleans(), KEYWORDS, st.integers(1, 16384)
)
def test_rules_round_trip_through_the_papers_form(image_type, color_model, separate, keyword, side):
    paper = {"height": str(side), "width": "7", "image_type": image_type,
             "color_model": color_model, "description": keyword}  # fmt: skip
    paper |= {"separate_file_format": "on"} if separate else {}
    assert to_paper(parse_rules(json.dumps(paper))) == paper
    with_token = {"_token": "secret", **paper}
    assert to_paper(parse_rules(json.dumps(with_token))) == paper


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"version": 2, "hieght": 5}, "hieght"),
        ({"version": 2, "width": 0, "height": 5, "fit": "stretch"}, "width"),
        ({"version": 2, "width": 5}, "height and width belong together"),
        ({"version": 2, "fit": "pad"}, "needs height and width"),
        ({"version": 2, "split": {"train": 0.9}}, "must be 1"),
        ({"version": 2, "split": {"groups": {"train": ["a"], "test": ["a"]}}}, "more than one"),
        ({"version": 3}, "version"),
        ({"image_type": "9", "description": "_m"}, "image_type"),
        ({"image_type": "2", "description": "_m", "depth": "8"}, "depth: unknown key"),
        ([], "not a JSON object"),
    ],
)
def test_error_names_the_mistake(document, match):
    with pytest.raises(RulesError, match=match):
        parse_rules(json.dumps(document))


def test_duplicate_key_is_refused():
    with pytest.raises(RulesError, match="duplicate key"):
        parse_rules('{"version": 2, "version": 2}')


def test_rules_that_the_papers_form_cannot_express_are_refused():
    with pytest.raises(RulesError, match="cannot express"):
        to_paper(Rules())
