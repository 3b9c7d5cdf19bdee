"""Golden files: rewritten only by `make golden`, and reviewed like code."""

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, value: Any) -> None:
    """Assert that the value equals the golden file; GOLDEN=1 rewrites the file first."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path = FOLDER / name
    if os.environ.get("GOLDEN") == "1":
        path.write_text(text)
    assert path.read_text() == text, (
        f"{name} differs: rewrite it with `make golden` and review the diff"
    )
