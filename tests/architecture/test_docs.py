"""What exists is documented, what is documented exists."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from typer.main import get_command

from app.cli import app
from app.ground.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = {path: path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}


CODE = re.compile(r"`([^`\n]+)`|^ {4,}(.+)$", re.MULTILINE)
TYPED = re.compile(r"(?:^|[\s(;|&])unetops ([a-z][a-z-]*(?: [a-z][a-z-]*)?)")


def commands(group: Any = None, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its name as it is typed; a group is followed by its own."""
    for name, command in (group or get_command(app)).commands.items():
        yield before + name, command
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")


def code() -> list[str]:
    """What stands in the docs as code: spans and indented lines."""
    texts = [text for path, text in DOCS.items() if path.name != "CHANGELOG.md"]
    return [found[1] or found[2] for text in texts for found in CODE.finditer(text)]


def test_every_command_is_in_the_readme_or_the_docs() -> None:
    lines = code()
    patterns = {name: rf"(?:^|\bunetops ){re.escape(name)}(?![\w-])" for name, _ in commands()}
    assert [n for n, p in patterns.items() if not any(re.search(p, line) for line in lines)] == []


def test_the_docs_name_no_command_that_does_not_exist() -> None:
    known = dict(commands())
    typed = {found for line in code() for found in TYPED.findall(line)}
    # Behind a command that is no group stands an argument, whatever its word.
    asked = {
        name if hasattr(known.get(name.split()[0]), "commands") else name.split()[0]
        for name in typed
    }
    assert len(asked) > 10
    assert asked - known.keys() == set()


def test_every_setting_is_in_the_docs() -> None:
    text = DOCS[ROOT / "docs" / "service.md"]
    names = [f"`UNETOPS_{field.name.upper()}`" for field in fields(Settings)]
    assert [name for name in names if name not in text] == []


def test_every_command_has_a_help_text() -> None:
    assert [name for name, command in commands() if not command.help] == []


def test_every_link_inside_the_docs_leads_somewhere() -> None:
    links = [
        (path, target) for path, text in DOCS.items()
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    ]  # fmt: skip
    assert links
    assert [(path.name, to) for path, to in links if not (path.parent / to).exists()] == []


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
