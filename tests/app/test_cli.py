import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.commands.console import BAD_INPUT, run, seconds
from dataset_rules.ground.errors import UserError
from tests.drawn import draw_discs

ROOT = Path(__file__).resolve().parents[2]


def unetops(*words: object, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person does."""
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refusal(*words: object) -> str:
    """The one message of a refused command."""
    done = unetops(*words)
    assert done.returncode == 2, (done.stdout, done.stderr)
    message = done.stderr.strip()
    assert message.startswith("error:"), message
    return message


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two directories of images and masks."""
    rng = np.random.default_rng(0)
    for index in range(12):
        image, instances = draw_discs(rng)
        for folder, pixels in (
            ("images", image),
            ("masks", (instances > 0).astype(np.uint8) * 255),
        ):
            path = tmp_path / "source" / folder / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "source"


@pytest.fixture
def rules(pairs: Path, tmp_path: Path) -> Path:
    path = tmp_path / "rules.json"
    assert unetops("doctor", pairs, "--rules", path).returncode in {0, 1}
    return path


def test_doctor_proposes_rules_by_which_format_works(
    pairs: Path, rules: Path, tmp_path: Path
) -> None:
    done = unetops("format", pairs, tmp_path / "set", "--rules", rules, "--json")
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["samples"].values()) == 12
    assert unetops("verify", tmp_path / "set").returncode == 0
    assert unetops("lineage", tmp_path / "set").returncode == 0


def test_format_tells_what_it_saw_in_all_pixels_and_in_no_colour_where_it_is_piped(
    pairs: Path, rules: Path, tmp_path: Path
) -> None:
    with Image.open(pairs / "masks/05.png") as mask:
        empty = Image.new("L", mask.size)
    empty.save(pairs / "masks/05.png")
    done = unetops("format", pairs, tmp_path / "set", "--rules", rules)
    assert "info: 1 mask without any object: masks/05.png" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_doctor_json_has_the_promised_keys(pairs: Path) -> None:
    document = json.loads(unetops("doctor", pairs, "--json").stdout)
    assert {"pairs", "unpaired_images", "unpaired_masks", "ignored", "mask_kind", "classes",
            "questions", "findings", "rules"} <= document.keys()  # fmt: skip
    assert document["pairs"][0] == {
        "image": "images/00.png", "masks": ["masks/00.png"], "group": "00",
    }  # fmt: skip
    for finding in document["findings"]:
        assert {"code", "severity", "paths", "message", "remedy"} <= finding.keys()


@pytest.mark.parametrize("command", ["doctor", "format"])
def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path, command: str, rules: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    words = [command, bare] if command == "doctor" else [command, bare, tmp_path / "o", "--rules",
                                                         rules]  # fmt: skip
    assert "empty" in refusal(*words)
    assert not (tmp_path / "o").exists()


def test_a_folder_without_masks_is_named(tmp_path: Path, pairs: Path, rules: Path) -> None:
    bare = tmp_path / "bare"
    (pairs / "images").rename(bare)
    assert unetops("doctor", bare).returncode in {1, 2}
    assert "mask" in refusal("format", bare, tmp_path / "o", "--rules", rules)


def test_a_truncated_png_is_named(pairs: Path, rules: Path, tmp_path: Path) -> None:
    path = pairs / "images" / "03.png"
    path.write_bytes(path.read_bytes()[:-300])
    assert "03.png" in refusal("format", pairs, tmp_path / "o", "--rules", rules)
    done = unetops("doctor", pairs, "--json")
    assert done.returncode == 1
    assert any("images/03.png" in f["paths"] for f in json.loads(done.stdout)["findings"])


def test_a_text_file_called_png_is_named(pairs: Path, rules: Path, tmp_path: Path) -> None:
    (pairs / "masks" / "05.png").write_text("not a picture")
    assert "05.png" in refusal("format", pairs, tmp_path / "o", "--rules", rules)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "rgb"}, "colour"),
        ({"width": 0, "height": 0, "fit": "stretch"}, "width"),
        ({"layout": "both"}, "layout"),
        ({"version": 3}, "version"),
    ],
)
def test_wrong_rules_name_the_key(rules: Path, change: dict, named: str) -> None:
    rules.write_text(json.dumps({**json.loads(rules.read_text()), **change}))
    assert named in refusal("rules", "check", rules)


def test_wrong_rules_in_the_papers_form_name_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "paper.json"
    path.write_text('{"height": "0x10", "width": "512", "image_type": "7", "color_model": "1", '
                    '"description": "_mask", "keyword": "x"}')  # fmt: skip
    message = refusal("rules", "check", path)
    assert all(key in message for key in ("height", "image_type", "keyword"))


def test_a_keyword_that_matches_nothing_is_an_error_where_nothing_pairs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tree.png", "house.png", "river.png"):
        Image.fromarray(draw_discs(np.random.default_rng(len(name)))[0]).save(source / name)
    path = tmp_path / "paper.json"
    path.write_text('{"height": "64", "width": "64", "image_type": "2", "color_model": "1", '
                    '"separate_file_format": "on", "description": "_maske"}')  # fmt: skip
    assert "_maske" in refusal("format", source, tmp_path / "o", "--rules", path)


def test_the_forms_of_the_rules_convert_into_each_other(tmp_path: Path) -> None:
    paper = {"height": "128", "width": "96", "image_type": "3", "color_model": "2",
             "separate_file_format": "on", "description": "_seg"}  # fmt: skip
    path = tmp_path / "paper.json"
    path.write_text(json.dumps({"_token": "x", **paper}))
    full = json.loads(unetops("rules", "convert", path, "--to", "2").stdout)
    assert (full["height"], full["width"], full["image_format"]) == (128, 96, "bmp")
    path.write_text(json.dumps(full))
    assert json.loads(unetops("rules", "convert", path, "--to", "paper").stdout) == paper


NO_MODEL = "error: nowhere: no finished model here; found no such folder"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("doctor nowhere", "error: nowhere: no such folder or archive"),
        ("verify .", "error: .: no finished artifact here"),
        ("evaluate nowhere nowhere", NO_MODEL),
        ("compare nowhere nowhere nowhere", NO_MODEL),
        ("export nowhere --out e --image nothing.png", "error: nothing.png: no such file"),
        ("train nowhere --out run", "error: nowhere: no finished dataset here"),
        ("train nowhere --out run --time-limit soon", "error: --time-limit: this is no duration"),
        ("predict nowhere nothing.png --out p", NO_MODEL),
        ("predict nowhere --out p", "Missing argument"),
        ("lineage nowhere", "error: nowhere: no such file or folder"),
        ("rules check nowhere.json", "error: nowhere.json: the rules cannot be read"),
        ("token create --role king", "expected viewer, annotator or admin"),
        ("measure one.png --out m", "error: images and masks do not come in equal numbers"),
    ],
)
def test_what_is_not_there_is_refused_in_words(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = unetops(*words.split())
    assert done.returncode == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_token_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    secret = unetops("token", "create", "--role", "admin", "--data", home).stdout.strip()
    assert len(secret) > 30
    listed = json.loads(unetops("token", "list", "--data", home, "--json").stdout)
    assert [(row["role"], row["state"]) for row in listed] == [("admin", "valid")]
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert secret.encode() not in stored
    assert unetops("token", "revoke", listed[0]["id"], "--data", home).returncode == 0
    assert "revoked" in unetops("token", "list", "--data", home).stdout


def test_rules_that_a_person_edited_are_kept(pairs: Path, rules: Path) -> None:
    edited = {**json.loads(rules.read_text()), "mask_keyword": "_mine"}
    rules.write_text(json.dumps(edited))
    assert unetops("doctor", pairs, "--rules", rules).returncode in {0, 1}
    assert json.loads(rules.with_name("rules.json.old").read_text()) == edited


@pytest.mark.parametrize("place", ["rules.json/x", "/proc/none/x"])
def test_a_place_that_cannot_be_written_is_refused(pairs: Path, rules: Path, place: str) -> None:
    target = rules.parent / place
    assert str(target.parent.name) in refusal("doctor", pairs, "--rules", target)
    refusal("format", pairs, target, "--rules", rules)


def test_an_open_question_counts_as_a_finding(tmp_path: Path) -> None:
    for index in range(4):
        image, instances = draw_discs(np.random.default_rng(index))
        mask = np.where(instances > 0, 0, 255).astype(np.uint8)  # most is white: which is meant?
        for folder, pixels in (("image", image), ("label", mask)):
            path = tmp_path / folder / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    done = unetops("doctor", tmp_path, "--json")
    assert json.loads(done.stdout)["questions"]
    assert done.returncode == 1


def test_version_names_the_commit_where_it_is_known_and_loads_nothing_large() -> None:
    code = "import sys; from app.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    env = {**os.environ, "UNETOPS_COMMIT": "0123abc"}
    words = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, env=env)
    said, loaded = done.stdout.splitlines()
    assert said == f"unetops {version('unetops')} (0123abc)"
    assert not {"torch", "fastapi", "sqlalchemy", "pulumi"} & set(loaded.split())


def test_version_without_a_commit_is_the_version_alone(tmp_path: Path) -> None:
    for package in ("app", "dataset_rules"):
        shutil.copytree(ROOT / package, tmp_path / package)
    env = {name: value for name, value in os.environ.items() if name != "UNETOPS_COMMIT"}
    words = [sys.executable, "-m", "app.cli", "--version"]
    done = subprocess.run(
        words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"unetops {version('unetops')}\n"


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), (None, None)]
)
def test_durations(text: str | None, expected: float | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "0", "-3m", "3 minutes"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no duration"):
        seconds(text)


def test_doctor_writes_a_page_that_stands_by_itself(pairs: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert unetops("doctor", pairs, "--html", page).returncode in {0, 1}
    assert page.read_text().startswith("<!doctype html>")
    assert 'src="data:image/jpeg;base64,' in page.read_text()


def test_full_examination_looks_at_every_file(pairs: Path) -> None:
    document = json.loads(unetops("doctor", pairs, "--full", "--json").stdout)
    looked = [(f["looked_at"], f["of"]) for f in document["findings"] if f["of"]]
    assert looked
    assert all(at == of for at, of in looked)


def test_doctor_goes_by_the_rules_that_are_given(pairs: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('{"version": 2, "split": {"group": "{case}-*"}}')
    document = json.loads(unetops("doctor", pairs, "--by", rules, "--json").stdout)
    assert "group_unmatched" in {finding["code"] for finding in document["findings"]}
    assert document["rules"]["split"]["group"] == "{case}-*"


def test_report_that_is_piped_has_no_colours(pairs: Path) -> None:
    assert "\x1b" not in unetops("doctor", pairs).stdout


@pytest.mark.parametrize(
    "ask", [lambda: np.empty(1 << 62, np.uint8), lambda: torch.empty(1 << 62, dtype=torch.uint8)]
)
def test_memory_that_is_refused_to_a_command_is_told_in_a_line(ask, capsys) -> None:
    assert run(ask) == BAD_INPUT
    told = capsys.readouterr().err
    assert "out of memory" in told
    assert "Traceback" not in told


def test_a_fault_of_the_program_is_not_taken_for_refused_memory() -> None:
    with pytest.raises(RuntimeError):
        run(lambda: torch.empty(2) @ torch.empty(3))
