"""The documentation covers every command and setting, and mentions no others."""

import re
from dataclasses import fields
from pathlib import Path

import typer
from click import Group
from typer.main import get_command

from app.cli import app
from app.ground.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = {
    path: path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if path.name != "CHANGELOG.md"
}  # fmt: skip
ALL = "\n\n".join(DOCS.values())
OF_PROVENANCE = {f"UNETOPS_{name}" for name in ("COMMIT", "PROJECT", "STACK", "DROPLET")}


def commands(group: Group | None = None, before: str = "") -> set[str]:
    """Every command as it is typed: "train", "token create"."""
    found: set[str] = set()
    for name, command in (group or get_command(app)).commands.items():
        inner = hasattr(command, "commands")
        found |= commands(command, f"{before}{name} ") if inner else {f"{before}{name}"}
    return found


def undocumented(text: str) -> set[str]:
    """Commands missing from a text; `export-dataset` does not count as `export`."""
    return {name for name in commands() if not re.search(rf"unetops {name}(?![\w-])", text)}


def unknown(text: str) -> set[str]:
    """Words after `unetops` in code spans and blocks that are not a complete command."""
    code = [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^    (.*)$", text, re.M)]
    called = re.findall(r"(?<![:\w])unetops ([a-z][a-z-]*)(?: +([a-z][a-z-]*))?", "\n".join(code))
    known = commands()
    return {f"{one} {two}".strip() for one, two in called if not {one, f"{one} {two}"} & known}


def test_every_command_is_in_the_readme_or_the_docs() -> None:
    assert undocumented(ALL) == set()


def test_a_command_that_the_docs_lose_is_noticed() -> None:
    for name in commands():
        assert undocumented(re.sub(rf"unetops {name}(?![\w-])", "", ALL)) == {name}


def test_the_docs_name_no_command_that_does_not_exist() -> None:
    assert {path.name: unknown(text) for path, text in DOCS.items() if unknown(text)} == {}


def test_a_command_that_does_not_exist_is_noticed() -> None:
    for wrong in ("`unetops export-data`", "    unetops trian", "`unetops token crate`"):
        assert unknown(f"{ALL}\n\n{wrong}\n"), wrong


def settings_of(text: str) -> set[str]:
    """Variables documented in a table: those in the first cell of each row."""
    cells = re.findall(r"^\| (`UNETOPS_[^|]+) \|", text, re.M)
    return {name for cell in cells for name in re.findall(r"`(UNETOPS_\w+)`", cell)}


def test_the_table_of_settings_tells_those_that_are_read_and_no_others() -> None:
    fields_of_settings = {f"UNETOPS_{field.name.upper()}" for field in fields(Settings)}
    assert settings_of(DOCS[ROOT / "docs" / "service.md"]) == fields_of_settings | OF_PROVENANCE


def test_every_setting_is_read_from_the_environment(tmp_path: Path) -> None:
    """Set each variable by its documented name to a value other than the default."""
    plain = Settings.from_environment({"UNETOPS_HOME": str(tmp_path)})
    for field in fields(Settings):
        name = f"UNETOPS_{field.name.upper()}"
        value = str(tmp_path / "other") if field.name == "home" else "1"
        given = {"UNETOPS_HOME": str(tmp_path), name: value}
        assert getattr(Settings.from_environment(given), field.name) != getattr(plain, field.name)


def test_every_variable_that_the_docs_name_is_read_somewhere() -> None:
    kinds = {".py", ".sh"}
    code = "\n".join(
        path.read_text() for package in ("app", "dataset_rules", "infra")
        for path in (ROOT / package).rglob("*") if path.suffix in kinds
    )  # fmt: skip
    for name in set(re.findall(r"UNETOPS_[A-Z_]+", ALL)):
        stated = name.removeprefix("UNETOPS_").lower()
        assert name in code or f'"{stated}"' in code, name


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
