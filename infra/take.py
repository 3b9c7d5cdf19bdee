"""Bring an object of the account into a stack's state, where the program's own resource is."""

import json
import tempfile
from pathlib import Path
from typing import Any

from infra.engine import Engine, EngineError
from infra.inventory import Thing

PROGRAM = "unetops"


def adoption_line(stack: str, volume_id: str, size_gib: int) -> str:
    """What to say of a volume of the stack's name that its state does not hold."""
    return (
        f"volume {PROGRAM}-{stack} exists in the account ({volume_id}, {size_gib} GiB) and is not "
        "in the state; adopt it with its data: "
        f"unetops infra recover --stack {stack} --take volume/{volume_id}"
    )


class TakeError(Exception):
    """The object stays outside the state; one line, or the engine's own words."""


def take(engine: Engine, thing: Thing) -> None:
    """`pulumi import`, below the component that the program gives it as parent.

    The file form makes the component as well where the state has none yet: with `--parent` alone
    a stack that was never up refuses its own volume ("unknown parent").
    """
    parent = f"unetops:infra:{thing.kind.component}"
    component = {"type": parent, "name": "parent", "logicalName": f"{PROGRAM}-{engine.stack}",
                 "component": True}  # fmt: skip
    child = {"type": thing.kind.type, "name": "child", "logicalName": thing.name, "id": thing.id,
             "parent": "parent"}  # fmt: skip
    # Protected until the next `pulumi up` says otherwise: a volume is data.
    protect = "true" if thing.kind.word == "volume" else "false"
    words = ("--yes", "--skip-preview", "--generate-code=false", f"--protect={protect}")
    _with_file(engine, {"resources": [component, child]}, "import", *words)


def exchange(engine: Engine, mark: dict[str, Any], id_: str) -> None:
    """Put what was made in the place of what it replaces.

    `pulumi import` refuses an address that the state holds, though the object there was deleted
    for the new one's sake. The next refresh reads what the new one really is.
    """
    exported = json.loads(engine.run("stack", "export"))
    deployment = exported["deployment"]
    for place, one in enumerate(deployment["resources"]):
        if one["urn"] == mark["urn"] and one.get("pendingReplacement"):
            made = {**one, **mark, "id": id_}
            made.pop("pendingReplacement")
            deployment["resources"][place] = made
    deployment["pending_operations"] = [
        one for one in deployment["pending_operations"] if one["resource"]["urn"] != mark["urn"]
    ]
    _with_file(engine, exported, "stack", "import")


def _with_file(engine: Engine, document: dict[str, Any], *words: str) -> None:
    with tempfile.TemporaryDirectory(prefix="unetops-") as folder:
        path = Path(folder) / "document.json"
        path.write_text(json.dumps(document))
        try:
            engine.run(*words, "--file", str(path))
        except EngineError as e:
            raise TakeError(str(e)) from None
