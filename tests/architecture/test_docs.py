"""What exists is documented, what is documented exists."""

import re
from dataclasses import fields
from pathlib import Path

import typer
from typer.main import get_command

from app.cli import app
from app.settings import Settings

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


def test_every_module_of_the_map_exists() -> None:
    text = DOCS[ROOT / "CONTRIBUTING.md"]
    for module in re.findall(r"`((?:dataset_rules|unet|app)/[\w/]+\.py)`", text):
        assert (ROOT / module).exists(), module


def test_every_module_is_on_the_map() -> None:
    text = DOCS[ROOT / "CONTRIBUTING.md"]
    for package in ("dataset_rules", "unet", "app"):
        for path in (ROOT / package).glob("*.py"):
            if path.name != "__init__.py":
                assert f"`{package}/{path.name}`" in text, f"{package}/{path.name}"
