"""Trace a file or folder back to its source and commit, offline, and report broken links.

An artifact contains the manifests and provenances of its ancestors. Each child vouches for its
ancestor: the child's manifest contains the ancestor's id (the hash of its manifest), and the
child's provenance its record (the hash of id and provenance). If the ancestor's folder is still
where the child found it, its files are also checked against its seal.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dataset_rules.artifacts.hashes import content_hash, file_hash
from dataset_rules.artifacts.manifest import (
    LINEAGE,
    MANIFEST,
    PROVENANCE,
    RECORD_KEY,
    Ancestor,
    contradictions,
    read_artifact,
)
from dataset_rules.artifacts.seal import SEAL, altered_files
from dataset_rules.ground.documents import canonical_json
from dataset_rules.ground.errors import ArtifactError, UserError
from dataset_rules.pixels.png import png_text

RULES = "rules.json"


class LinkState(StrEnum):
    """Result of checking a link."""

    OK = "ok"
    BROKEN = "broken"
    ABSENT = "absent"  # not recorded, but nothing contradicts it


@dataclass(frozen=True)
class Link:
    """A link of the chain from a mask to its source."""

    kind: str  # mask or file, prediction, model, run, dataset, rules, source, commit, ...
    id: str
    state: LinkState
    detail: str
    record: str | None = None

    def document(self) -> dict[str, str | None]:
        """The link as JSON."""
        return {"kind": self.kind, "id": self.id, "record": self.record,
                "state": str(self.state), "detail": self.detail}  # fmt: skip


def trace(target: Path, *, artifact: Path | None = None) -> list[Link]:
    """Trace the chain of a file or folder, nearest link first.

    Args:
        target: an artifact folder, a file in one, or a mask copied from one.
        artifact: the artifact of a copied file.

    Raises:
        ArtifactError: if the target does not exist or its artifact is unknown.
    """
    if not target.exists():
        raise ArtifactError("no such file or folder", where=str(target))
    folder = (artifact or _enclosing(target)).resolve()
    links = [_file_link(target, folder)] if target.is_file() else []
    try:
        top = read_artifact(folder)
        json.loads(top.provenance)
    except (ArtifactError, ValueError) as error:
        detail = f"{_altered_metadata(folder) or folder.name}: {error}"
        return [*links, Link(_kind_of(folder), "", LinkState.BROKEN, detail)]
    reported = _name_inside(target, folder) if target.is_file() else None
    return [*links, *_artifact_links(top, folder, reported), *_commit_links(top)]


def is_intact(links: list[Link]) -> bool:
    """True if no link is broken."""
    return all(link.state is not LinkState.BROKEN for link in links)


def _enclosing(target: Path) -> Path:
    start = target.resolve()
    for folder in [start, *start.parents]:
        if (folder / MANIFEST).is_file() and folder.parent.name != LINEAGE:
            return folder
    stated = _stated_record(target)
    raise ArtifactError(
        "the file is not in an artifact", where=str(target),
        found=f"a mask with record {stated}" if stated else "no record in it",
        remedy="give the artifact that it came from: unetops lineage FILE --artifact FOLDER",
    )  # fmt: skip


def _kind_of(folder: Path) -> str:
    """Kind of an artifact, even if its manifest is damaged."""
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return "artifact"


def _kind_of_file(file: Path) -> str:
    return "mask" if "mask" in file.name and file.suffix == ".png" else "file"


def _file_link(file: Path, folder: Path) -> Link:
    problems = []
    manifest = _json_or_empty((folder / MANIFEST).read_bytes()) if folder.is_dir() else {}
    files: dict[str, str] = manifest.get("files", {})
    try:
        digest = content_hash(file)
        stated = png_text(file.read_bytes(), RECORD_KEY) if file.suffix == ".png" else None
    except (UserError, ValueError, OSError) as error:
        return Link(_kind_of_file(file), "", LinkState.BROKEN, f"{file.name} was altered: {error}")
    inside = _name_inside(file, folder)
    if inside in files and files[inside] != digest:
        problems.append(f"{inside} does not match the manifest: it was altered")
    elif inside not in files and digest not in files.values():
        sealed = inside is not None and (folder / SEAL).is_file()
        if not sealed or str(inside) not in (folder / SEAL).read_text("utf-8", "replace"):
            problems.append(f"{file.name} is not among the files of {folder.name}")
    if inside is not None and not problems:
        problems += [found for found in altered_files(folder) if found.startswith(f"{inside} ")]
    own = _record_of(folder)
    if stated is not None and own is not None and stated != own and not _altered_metadata(folder):
        problems.append(f"{file.name} has record {stated[:12]}, but its {PROVENANCE} gives "
                        f"{own[:12]}: one of them was altered")  # fmt: skip
    state = LinkState.BROKEN if problems else LinkState.OK
    return Link(_kind_of_file(file), digest, state, "; ".join(problems) or file.name, stated)


def _artifact_links(top: Ancestor, folder: Path, reported: str | None) -> Iterator[Link]:
    """Links of an artifact and all its ancestors, each once."""
    problem = _altered_metadata(folder)
    queue = [_Node(top, folder, problem, carrier=folder, reported=reported)]
    visited = set()
    while queue:
        node = queue.pop(0)
        if node.artifact.id in visited:
            continue
        visited.add(node.artifact.id)
        yield from _links_of(node)
        queue += list(_inputs(node, visited))


@dataclass(frozen=True)
class _Node:
    """An ancestor, as recorded in the target's folder."""

    artifact: Ancestor
    folder: Path | None  # if it is still where its child found it
    problem: str | None  # contradiction with its child's record
    carrier: Path  # folder of the target, which contains the records
    kind: str = ""
    reported: str | None = None  # file with a separate link


def _altered_metadata(folder: Path) -> str | None:
    """Differences of manifest and provenance from the folder's seal."""
    found = [text for text in altered_files(folder) if text.startswith((MANIFEST, PROVENANCE))]
    return "; ".join(found) or None


def _inputs(node: _Node, visited: set[str]) -> Iterator[_Node]:
    stated = _json_or_empty(node.artifact.manifest).get("inputs", [])
    records = {
        item.get("id"): item for item in _json_or_empty(node.artifact.provenance).get("inputs", [])
    }
    for item in stated:
        if item["id"] in visited:
            continue
        entry = records.get(item["id"], {})
        folder = _find_folder(node, entry.get("folder"), item)
        record = entry.get("record") if node.problem is None else None
        yield _read_ancestor(node.carrier, item, record, folder)


def _find_folder(child: _Node, path: str | None, item: dict[str, str]) -> Path | None:
    """Folder of an input: where its child found it, or named by its id next to the child.

    Altered folders are accepted, but not those that now contain another artifact.
    """
    if child.folder is None:
        return None
    names = [item["id"]]
    if item["kind"] == "model":  # it is inside its run
        carried = child.carrier / LINEAGE / item["id"] / MANIFEST
        runs = _json_or_empty(carried.read_bytes() if carried.is_file() else b"").get("inputs", [])
        names += [f"{run['id']}/model" for run in runs]
    candidates = [(child.folder / path).resolve()] if path else []
    candidates += [
        parent / name
        for parent in (child.folder.parent, child.folder.parent.parent)
        for name in names
    ]
    return next((folder for folder in candidates if _may_be(folder, item["id"])), None)


def _may_be(folder: Path, artifact_id: str) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    if hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest() == artifact_id:
        return True
    return any(text.startswith(MANIFEST) for text in altered_files(folder))


def _read_ancestor(
    carrier: Path, item: dict[str, str], record: str | None, folder: Path | None
) -> _Node:
    """Read an ancestor's records; `record` is None if its child cannot be trusted."""
    records = carrier / LINEAGE / item["id"]
    try:
        artifact = Ancestor((records / MANIFEST).read_bytes(), (records / PROVENANCE).read_bytes())
    except OSError:
        missing = Ancestor(b"{}", b"{}")
        return _Node(missing, None, f"{LINEAGE}/{item['id'][:12]}… is missing", carrier,
                     item["kind"])  # fmt: skip
    problem = None
    if artifact.id != item["id"]:
        problem = f"its copied {MANIFEST} was altered: it gives id {artifact.id[:12]} instead " \
                  f"of {item['id'][:12]}"  # fmt: skip
    elif record is not None and record != artifact.record:
        problem = f"its copied {PROVENANCE} was altered: it gives record " \
                  f"{artifact.record[:12]} instead of {str(record)[:12]}"  # fmt: skip
    return _Node(artifact, folder, problem, carrier, item["kind"])


def _links_of(node: _Node) -> Iterator[Link]:
    manifest = _json_or_empty(node.artifact.manifest)
    kind = node.kind or str(manifest.get("kind", "artifact"))
    problems = [node.problem] if node.problem else []
    if node.folder is not None:
        found = _folder_problems(node, is_top=node.folder == node.carrier)
        problems += [
            text for text in found
            if text not in (node.problem or "")
            and not text.startswith(f"{node.reported} ")
            and not _has_separate_link(text)
        ]  # fmt: skip
    rules_problems = [text for text in problems if text.startswith(f"{RULES} ")]
    problems = [text for text in problems if text not in rules_problems]
    provenance = _json_or_empty(node.artifact.provenance)
    if kind == "source" and provenance.get("location"):
        problems += _source_problems(Path(provenance["location"]), manifest.get("files", {}))
    where = provenance.get("location") or (
        "its files are intact" if node.folder is not None else "its files are elsewhere"
    )
    yield Link(
        kind, node.artifact.id, LinkState.BROKEN if problems else LinkState.OK,
        "; ".join(problems) or str(where), node.artifact.record,
    )  # fmt: skip
    rules = manifest.get("parameters", {}).get("rules")
    if kind == "dataset" and rules is not None:
        yield _rules_link(rules, manifest.get("files", {}), rules_problems)


def _source_problems(folder: Path, files: dict[str, str]) -> list[str]:
    """Files of a source folder that have changed; empty if the folder does not exist."""
    if not folder.is_dir():
        return []
    altered = [name for name, digest in files.items() if _differs(folder / name, digest)]
    if len(altered) == len(files):
        return []  # another folder of the same name
    more = f" and {len(altered) - 3} more" if len(altered) > 3 else ""
    return [f"{', '.join(altered[:3])}{more} in {folder} changed since"] if altered else []


def _differs(path: Path, digest: str) -> bool:
    return not path.is_file() or file_hash(path) != digest


def _has_separate_link(text: str) -> bool:
    """True for an ancestor's altered records, which are reported by the ancestor's link."""
    return text.startswith(f"{LINEAGE}/") and text.endswith("was altered after it was sealed")


def _rules_link(rules: Any, files: dict[str, str], problems: list[str]) -> Link:
    digest = hashlib.sha256(canonical_json(rules)).hexdigest()
    if files.get(RULES) != digest:
        problems = [*problems, f"the manifest's rules have hash {digest[:12]}, its {RULES} "
                    f"{str(files.get(RULES))[:12]}"]  # fmt: skip
    state = LinkState.BROKEN if problems else LinkState.OK
    return Link("rules", digest, state, "; ".join(problems) or "as in the dataset's manifest")


def _folder_problems(node: _Node, *, is_top: bool) -> list[str]:
    assert node.folder is not None
    problems = altered_files(node.folder)
    if is_top and not problems:
        problems = contradictions(node.folder)
    return problems


def _commit_links(top: Ancestor) -> Iterator[Link]:
    provenance = _json_or_empty(top.provenance)
    commit = provenance.get("commit")
    libraries = ", ".join(f"{k} {v}" for k, v in provenance.get("libraries", {}).items() if v)
    if commit:
        yield Link("commit", commit, LinkState.OK, f"unetops {provenance['unetops']}, {libraries}")
    else:
        yield Link("commit", "", LinkState.ABSENT,
                   f"made by unetops {provenance.get('unetops')}, {libraries}")  # fmt: skip


def _name_inside(file: Path, folder: Path) -> str | None:
    try:
        return file.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return None


def _record_of(folder: Path) -> str | None:
    try:
        return read_artifact(folder).record
    except (ArtifactError, OSError):
        return None


def _stated_record(target: Path) -> str | None:
    try:
        return png_text(target.read_bytes(), RECORD_KEY) if target.suffix == ".png" else None
    except (OSError, ArtifactError):
        return None


def _json_or_empty(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
