"""Golden files: rewritten only by `make golden`, reviewed as code."""

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, value: Any) -> None:
    """The value equals the golden file; with GOLDEN=1 the file is written instead."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path = FOLDER / name
    if os.environ.get("GOLDEN") == "1":
        path.write_text(text)
    assert path.read_text() == text, f"{name} differs: `make golden` rewrites it for review"
