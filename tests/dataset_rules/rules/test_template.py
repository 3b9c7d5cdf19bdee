import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.template import Template, escape


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("img_{n}.png", "img_10.png", {"n": "10"}),
        ("img_{n}.png", "IMG_10.png", None),
        ("img_{n}.png", "a/img_10.png", None),
        ("{a}/img_{n}.png", "p/img_1.png", {"a": "p", "n": "1"}),
        ("{id}/images/{id}.png", "7/images/7.png", {"id": "7"}),
        ("{id}/images/{id}.png", "7/images/8.png", None),
        ("{id}/masks/*.png", "7/masks/x.y.png", {"id": "7"}),
        ("mask_{n:int}.png", "mask_007.png", {"n": "7"}),
        ("mask_{n:int}.png", "mask_a7.png", None),
        ("{folder:path}/{n}.png", "a/b/1.png", {"folder": "a/b", "n": "1"}),
        ("{folder:path}/{n}.png", "1.png", {"folder": "", "n": "1"}),
        ("{{x}}{*}.png", "{x}*.png", {}),
    ],
)
def test_template_matches(template, path, expected):
    assert Template(template).match(path) == expected


@pytest.mark.parametrize("text", ["{n.png", "n}.png", "{}.png", "{1a}.png", "{n:float}.png"])
def test_malformed_template_is_refused_and_named(text):
    with pytest.raises(RulesError, match="unmatched brace") as caught:
        Template(text)
    assert caught.value.where == text


def test_composed_and_decomposed_letters_match():
    assert Template("{name}_grün.png").match("a_gru\u0308n.png") == {"name": "a"}


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_escaped_text_matches_only_itself(text):
    template = Template(escape(text))
    assert template.match(text) == {}
    assert template.match(text + "x") is None


def test_template_with_more_literal_characters_is_heavier():
    assert Template("{n}_mask.png").weight > Template("{n}.png").weight
