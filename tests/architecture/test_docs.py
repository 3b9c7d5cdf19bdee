"""What exists is documented, what is documented exists."""

import re
from dataclasses import fields
from pathlib import Path

import typer
from typer.main import get_command

from app.cli import app
from app.ground.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = {path: path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}


def commands() -> set[str]:
    return set(get_command(app).commands)


def test_every_command_is_in_the_readme_or_the_docs() -> None:
    text = "\n".join(DOCS.values())
    missing = {n for n in commands() if f"unetops {n}" not in text and f"`{n}" not in text}
    assert not missing


def test_the_docs_name_no_command_that_does_not_exist() -> None:
    named = {
        match for path, text in DOCS.items() if path.name != "CHANGELOG.md"
        for match in re.findall(r"unetops ([a-z]+)(?= )", re.sub(r"unetops/\w+", "", text))
    }  # fmt: skip
    assert not {word for word in named if word not in commands()} - {"is"}


def test_every_setting_is_in_the_docs() -> None:
    text = DOCS[ROOT / "docs" / "service.md"]
    assert all(f"`UNETOPS_{field.name.upper()}`" in text for field in fields(Settings))


def test_every_command_has_a_help_text() -> None:
    for name, command in get_command(app).commands.items():
        assert command.help, name
    assert isinstance(app, typer.Typer)


def test_every_link_inside_the_docs_leads_somewhere() -> None:
    for path, text in DOCS.items():
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def rooms_on_the_map() -> dict[str, set[str]]:
    """Folder -> the names in its row."""
    rows = re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", DOCS[ROOT / "CONTRIBUTING.md"], re.MULTILINE)
    return {folder: set(re.findall(r"`(\w+)`", text)) for folder, text in rows}


def rooms_of_the_tree() -> dict[str, set[str]]:
    """Folder -> its modules."""
    folders = [path.parent for package in ("dataset_rules", "unet", "app")
               for path in (ROOT / package).glob("*/__init__.py")]  # fmt: skip
    return {
        folder.relative_to(ROOT).as_posix(): {path.stem for path in folder.glob("[!_]*.py")}
        for folder in folders
    }


def test_the_map_has_one_row_for_each_room_and_none_for_another() -> None:
    tree = rooms_of_the_tree()
    assert len(tree) > 20
    assert {room for room in rooms_on_the_map() if not room.startswith("infra")} == set(tree)


def test_each_row_of_the_map_names_every_module_of_its_room() -> None:
    named = rooms_on_the_map()
    missing = {room: modules - named[room] for room, modules in rooms_of_the_tree().items()}
    assert not {room: modules for room, modules in missing.items() if modules}


def test_each_room_says_in_one_sentence_what_it_holds_and_exports_nothing() -> None:
    for room in rooms_of_the_tree():
        lines = (ROOT / room / "__init__.py").read_text().splitlines()
        assert len(lines) == 1, room
        assert re.fullmatch(r'"""[A-Z].*\."""', lines[0]), room
