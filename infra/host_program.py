"""The machine's own program as one file: a zip that Python runs, since user_data carries files.

The same sources give the same bytes, whoever packs them and when. Nothing is compressed here:
user_data does that to the whole, which is half as long as modules compressed one by one.
"""

import ast
import io
import zipfile
from importlib import resources

PACKAGE = "infra/machine/unetops_host"
MAIN = """\
import sys

from infra.machine.unetops_host.__main__ import main

sys.exit(main())
"""


def host_program() -> bytes:
    """`unetops-host`: its modules behind the line that names their interpreter."""
    made = io.BytesIO()
    made.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in sorted(_sources().items()):
            archive.writestr(_entry(name), text)
    return made.getvalue()


def _sources() -> dict[str, str]:
    """Path in the zip -> text; its line ends are those of Unix, whatever the checkout has."""
    modules = resources.files("infra").joinpath("machine", "unetops_host").iterdir()
    found = {
        f"{PACKAGE}/{module.name}": _undocumented(module.read_text())
        for module in modules
        if module.name.endswith(".py")
    }
    return {"__main__.py": MAIN, "infra/__init__.py": "", "infra/machine/__init__.py": "", **found}


def _undocumented(text: str) -> str:
    """A module without its functions' docstrings, which no machine reads; each line stays put."""
    lines = text.splitlines()
    for part in ast.walk(ast.parse(text)):
        if isinstance(part, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(part):
            said = part.body[0]
            first, last = said.lineno - 1, said.end_lineno or said.lineno
            lines[first:last] = [" " * said.col_offset + '""', *[""] * (last - first - 1)]
    return "\n".join(lines) + "\n"


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # its time is the first that a zip can hold
    entry.create_system = 3  # Unix, also where Windows packs it
    entry.external_attr = 0o644 << 16
    return entry
