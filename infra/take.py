"""Import an object of the account into a stack's state, in place of the program's resource."""

import json
import tempfile
from pathlib import Path
from typing import Any

from infra.engine import Engine, EngineError
from infra.inventory import Thing

PROGRAM = "unetops"


def adoption_line(stack: str, volume_id: str, size_gib: int) -> str:
    """Message for a volume that has the stack's name but is not in its state."""
    return (
        f"volume {PROGRAM}-{stack} exists in the account ({volume_id}, {size_gib} GiB) and is not "
        "in the state; adopt it with its data: "
        f"unetops infra recover --stack {stack} --take volume/{volume_id}"
    )


class TakeError(Exception):
    """The import failed; one line, or the engine's own message."""


def take(engine: Engine, thing: Thing) -> None:
    """`pulumi import`, with the parent component that the program gives it.

    The file form also creates the component if the state has none yet: with `--parent` alone, a
    stack that was never up rejects its own volume ("unknown parent").
    """
    parent = f"unetops:infra:{thing.kind.component}"
    component = {"type": parent, "name": "parent", "logicalName": f"{PROGRAM}-{engine.stack}",
                 "component": True}  # fmt: skip
    child = {"type": thing.kind.type, "name": "child", "logicalName": thing.name, "id": thing.id,
             "parent": "parent"}  # fmt: skip
    # Protected until the next `pulumi up` decides: a volume contains data.
    protect = "true" if thing.kind.word == "volume" else "false"
    words = ("--yes", "--skip-preview", "--generate-code=false", f"--protect={protect}")
    _with_file(engine, {"resources": [component, child]}, "import", *words)


def exchange(engine: Engine, mark: dict[str, Any], id_: str) -> None:
    """Replace an old resource in the state by the new object created for it.

    `pulumi import` rejects an address that the state holds, even if that object was already
    deleted for the replacement. The next refresh reads the actual properties of the new resource.
    """
    exported = json.loads(engine.run("stack", "export"))
    deployment = exported["deployment"]
    for index, resource in enumerate(deployment["resources"]):
        if resource["urn"] == mark["urn"] and resource.get("pendingReplacement"):
            made = {**resource, **mark, "id": id_}
            made.pop("pendingReplacement")
            deployment["resources"][index] = made
    deployment["pending_operations"] = [
        operation
        for operation in deployment["pending_operations"]
        if operation["resource"]["urn"] != mark["urn"]
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
