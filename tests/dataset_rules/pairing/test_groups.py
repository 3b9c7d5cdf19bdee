from hypothesis import given
from hypothesis import strategies as st

from dataset_rules.pairing.groups import group_of, sample_names
from dataset_rules.rules.template import Template

PATHS = st.lists(
    st.from_regex(r"([abAB]/){0,3}[xyX1]{1,2}\.(png|jpg)", fullmatch=True), unique=True
)


def test_equal_stems_get_the_shortest_path_that_distinguishes_them():
    assert sample_names(["p/a/1.png", "p/b/1.png", "q/b/2.png"]) == {
        "p/a/1.png": "a__1", "p/b/1.png": "b__1", "q/b/2.png": "2",
    }  # fmt: skip


def test_paths_that_differ_only_in_the_suffix_keep_it():
    assert sample_names(["1.png", "1.jpg"]) == {"1.png": "1.png", "1.jpg": "1.jpg"}


@given(PATHS)
def test_names_are_unique_case_insensitively(paths):
    paths = list({path.casefold(): path for path in paths}.values())
    names = sample_names(paths)
    assert len({name.casefold() for name in names.values()}) == len(paths)


def test_group_is_the_template_value_or_else_the_sample():
    template = Template("{patient}_*")
    assert group_of("x/p7_3.png", "p7_3", template) == "p7"
    assert group_of("x/other.png", "other", template) == "other"
    assert group_of("x/p7_3.png", "p7_3", None) == "p7_3"
