import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dataset_rules.artifacts.dataset import DATASET
from dataset_rules.artifacts.manifest import Step, begin, finish, make_source
from dataset_rules.ground.disk import write_json
from dataset_rules.rules.rules import Rules, rules_document
from unet.errors import UnetError
from unet.runs.folds import FoldRule, Folds, make_folds, read_fold_rule


def grouped(folder: Path, groups: dict[str, str], *, split: str | Callable[[str], str] = "train"):
    """A formatted dataset of samples without pixels: name -> group."""
    source = make_source({"a.png": "0" * 64}, location="drawn", started=datetime.now(UTC))
    step = Step("dataset", 1, (source,), {"rules": rules_document(Rules())})
    begin(folder, step)
    samples = [
        {"name": name, "split": split if isinstance(split, str) else split(name), "group": group,
         "image": {"path": "i.png", "source": "i.png"}, "mask": {"path": "m.png", "sources": []}}
        for name, group in groups.items()
    ]  # fmt: skip
    classes = [{"id": 0, "name": "background"}, {"id": 1, "name": "disc"}]
    write_json(folder / DATASET, {"samples": samples, "classes": classes})
    finish(folder, step, content={DATASET: None}, started=datetime.now(UTC))
    return folder


def held_out(folds: Folds) -> list[set[str]]:
    return [{sample.name for _, sample in fold.held_out} for fold in folds.folds]


def place_of(folds: Folds) -> dict[str, int]:
    return {name: number for number, names in enumerate(held_out(folds)) for name in names}


def many(count: int) -> dict[str, str]:
    return {f"s{i}": f"patient{i // 2}" for i in range(count)}


def test_every_sample_is_held_out_once_and_no_group_is_split(tmp_path: Path) -> None:
    folds = make_folds([grouped(tmp_path / "a", many(60))], FoldRule(count=5))
    assert sorted(name for names in held_out(folds) for name in names) == sorted(many(60))
    assert len(folds.folds) == 5
    for fold in folds.folds:
        inside, outside = ({s.group for _, s in side} for side in (fold.held_out, fold.training))
        assert inside
        assert not inside & outside
        assert len(fold.held_out) + len(fold.training) == 60


def test_adding_a_sample_moves_no_other(tmp_path: Path) -> None:
    before = place_of(make_folds([grouped(tmp_path / "a", many(60))], FoldRule(count=5)))
    more = many(60) | {"new": "patient 99", "again": "patient3"}
    after = place_of(make_folds([grouped(tmp_path / "b", more)], FoldRule(count=5)))
    assert {name: after[name] for name in before} == before
    assert after["again"] == before["s6"]


def test_a_group_of_equal_name_is_one_tissue_in_all_datasets(tmp_path: Path) -> None:
    whole = grouped(tmp_path / "whole", {f"w{i}": f"slide{i}" for i in range(8)})
    crops = grouped(tmp_path / "crops", {f"c{i}": f"slide{i % 8}" for i in range(24)})
    place = place_of(make_folds([whole, crops], FoldRule(count=3)))
    assert all(place[f"c{i}"] == place[f"w{i % 8}"] for i in range(24))


def test_groups_that_show_the_same_tissue_stay_together(tmp_path: Path) -> None:
    whole = grouped(tmp_path / "whole", {f"w{i}": f"w{i}" for i in range(4)})
    crops = grouped(tmp_path / "crops", {f"c{i}": f"c{i}" for i in range(8)})
    rule = FoldRule(count=4, same={"w0": ("c0", "c5"), "liver": ("c1", "c2", "c3")})
    place = place_of(make_folds([whole, crops], rule))
    assert place["w0"] == place["c0"] == place["c5"]
    assert place["c1"] == place["c2"] == place["c3"]


def test_listed_groups_keep_their_fold_and_others_are_assigned_by_hash(tmp_path: Path) -> None:
    dataset = grouped(tmp_path / "a", {name: name for name in "abcdefgh"})
    rule = FoldRule(count=3, groups=(("a", "b"), ("c",)), training=("h",))
    folds = make_folds([dataset], rule)
    place = place_of(folds)
    assert (place["a"], place["b"], place["c"]) == (0, 0, 1)
    assert "h" not in place
    assert all("h" in {s.name for _, s in fold.training} for fold in folds.folds)
    assert sorted(place) == list("abcdefg")


def test_held_out_samples_of_several_datasets_are_interleaved(tmp_path: Path) -> None:
    first = grouped(tmp_path / "a", {f"a{i}": f"a{i}" for i in range(3)})
    second = grouped(tmp_path / "b", {f"b{i}": f"b{i}" for i in range(5)})
    rule = FoldRule(count=2, groups=(("a0", "a1", "b0", "b1", "b2"), ("a2", "b3", "b4")))
    fold = make_folds([first, second], rule).folds[0]
    assert [sample.name for _, sample in fold.held_out] == ["a0", "b0", "a1", "b1", "b2"]


def test_the_test_split_is_in_no_fold_nor_is_its_tissue_from_another_dataset(tmp_path: Path):
    groups = {name: name for name in "abcdef"}
    first = grouped(tmp_path / "a", groups, split=lambda name: "test" if name == "a" else "val")
    second = grouped(tmp_path / "b", {"crop of a": "a", "crop of b": "b"})
    folds = make_folds([first, second], FoldRule(count=2))
    used = {s.name for fold in folds.folds for side in (fold.held_out, fold.training)
            for _, s in side}  # fmt: skip
    assert used == {*"bcdef", "crop of b"}
    assert [sample.name for _, sample in folds.left_out] == ["crop of a"]


@pytest.mark.parametrize("groups", range(4, 12))
def test_few_groups_leave_no_fold_empty(groups: int, tmp_path: Path) -> None:
    dataset = grouped(tmp_path / "a", {f"g{i}": f"g{i}" for i in range(groups)})
    assert [bool(names) for names in held_out(make_folds([dataset], FoldRule(count=4)))] == [
        True
    ] * 4


def test_more_folds_than_groups_are_refused(tmp_path: Path) -> None:
    dataset = grouped(tmp_path / "a", {f"s{i}": f"patient{i % 3}" for i in range(30)})
    with pytest.raises(UnetError, match=r"fewer groups than folds.*at least 4.*3: patient0"):
        make_folds([dataset], FoldRule(count=4))


def test_a_group_in_no_dataset_is_refused(tmp_path: Path) -> None:
    dataset = grouped(tmp_path / "a", {name: name for name in "abcd"})
    with pytest.raises(UnetError, match=r"in no dataset.*found aa"):
        make_folds([dataset], FoldRule(count=2, same={"liver": ("aa", "b")}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1", "count: Input should be greater than or equal to 2"),
        ("none.json", "cannot be read.*No such file"),
        ({"count": 2, "same": {"x": ["a"], "y": ["a"]}}, "more than once in same: a"),
        ({"count": 2, "groups": [["a"], ["a"]]}, "more than once in groups and training: a"),
        ({"count": 2, "groups": [[], [], []]}, "3 lists for 2 folds"),
        ({"folds": 2}, "count: Field required"),
    ],
)
def test_an_invalid_rule_is_explained(content: str | dict, message: str, tmp_path: Path):
    text = content
    if isinstance(content, dict):
        (tmp_path / "folds.json").write_text(json.dumps(content))
        text = str(tmp_path / "folds.json")
    with pytest.raises(UnetError, match=message):
        read_fold_rule(str(text))


def test_a_number_or_a_file_is_a_rule(tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text('{"count": 4, "same": {"x": ["a", "b"]}}')
    assert read_fold_rule("4") == FoldRule(count=4)
    assert read_fold_rule(str(tmp_path / "folds.json")).tissue_of("b") == "x"
