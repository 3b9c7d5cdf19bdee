"""The host program packed as one executable zip file, since user_data carries files.

The bytes depend only on the sources. Entries are not compressed: user_data is compressed as a
whole, to half the size of modules compressed one by one.
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
    """`unetops-host`: the zipped modules, preceded by a shebang line."""
    buffer = io.BytesIO()
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in sorted(_sources().items()):
            archive.writestr(_entry(name), text)
    return buffer.getvalue()


def _sources() -> dict[str, str]:
    """Path in the zip -> text, with Unix line endings."""
    modules = resources.files("infra").joinpath("machine", "unetops_host").iterdir()
    found = {
        f"{PACKAGE}/{module.name}": _undocumented(module.read_text())
        for module in modules
        if module.name.endswith(".py")
    }
    return {"__main__.py": MAIN, "infra/__init__.py": "", "infra/machine/__init__.py": "", **found}


def _undocumented(text: str) -> str:
    """A module without the docstrings of its functions; line numbers are kept."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            doc = node.body[0]
            first, last = doc.lineno - 1, doc.end_lineno or doc.lineno
            lines[first:last] = [" " * doc.col_offset + '""', *[""] * (last - first - 1)]
    return "\n".join(lines) + "\n"


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # dated with the earliest time of the zip format
    entry.create_system = 3  # Unix, even when packed on Windows
    entry.external_attr = 0o644 << 16
    return entry
