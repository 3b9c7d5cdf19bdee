"""Follow a file or folder back to its source and commit, offline, and name the broken link.

An artifact carries the manifests and provenances of its ancestors. Each is held by its child:
the child's manifest names the ancestor's id (the hash of its manifest), the child's provenance
names its record (the hash of id and provenance). Where an ancestor's folder still lies where the
child found it, its files are compared with its seal as well.
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
    """What a look at a link showed."""

    OK = "ok"
    BROKEN = "broken"
    ABSENT = "absent"  # nothing contradicts it, but it is not stated


@dataclass(frozen=True)
class Link:
    """One link of a chain, from a mask towards the source."""

    kind: str  # mask or file, prediction, model, run, dataset, rules, source, commit, ...
    id: str
    state: LinkState
    detail: str
    record: str | None = None

    def document(self) -> dict[str, str | None]:
        """The machine-readable form."""
        return {"kind": self.kind, "id": self.id, "record": self.record,
                "state": str(self.state), "detail": self.detail}  # fmt: skip


def trace(target: Path, *, artifact: Path | None = None) -> list[Link]:
    """The chain of a file or folder, nearest link first.

    Args:
        target: an artifact's folder, a file in one, or a mask that was copied out of one.
        artifact: the artifact that a copied file belongs to.

    Raises:
        ArtifactError: if the target does not exist or no artifact is known for it.
    """
    if not target.exists():
        raise ArtifactError("no such file or folder", where=str(target))
    folder = (artifact or _enclosing(target)).resolve()
    links = [_file_link(target, folder)] if target.is_file() else []
    try:
        top = read_artifact(folder)
        json.loads(top.provenance)
    except (ArtifactError, ValueError) as error:
        named = f"{_own_papers_altered(folder) or folder.name}: {error}"
        return [*links, Link(_kind_of(folder), "", LinkState.BROKEN, named)]
    reported = _name_inside(target, folder) if target.is_file() else None
    return [*links, *_artifact_links(top, folder, reported), *_commit_links(top)]


def is_whole(links: list[Link]) -> bool:
    """True if no link is broken."""
    return all(link.state is not LinkState.BROKEN for link in links)


def _enclosing(target: Path) -> Path:
    start = target.resolve()
    for folder in [start, *start.parents]:
        if (folder / MANIFEST).is_file() and folder.parent.name != LINEAGE:
            return folder
    stated = _stated_record(target)
    raise ArtifactError(
        "the file lies in no artifact", where=str(target),
        found=f"a mask with record {stated}" if stated else "no record in it",
        remedy="name the artifact that it came from: unetops lineage FILE --artifact FOLDER",
    )  # fmt: skip


def _kind_of(folder: Path) -> str:
    """Kind of an artifact whose manifest may be damaged."""
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
        problems.append(f"{inside} does not hold what the manifest says: it was altered")
    elif inside not in files and digest not in files.values():
        sealed = inside is not None and (folder / SEAL).is_file()
        if not sealed or str(inside) not in (folder / SEAL).read_text("utf-8", "replace"):
            problems.append(f"{file.name} is not among the files of {folder.name}")
    if inside is not None and not problems:
        problems += [found for found in altered_files(folder) if found.startswith(f"{inside} ")]
    own = _record_of(folder)
    if stated is not None and own is not None and stated != own and not _own_papers_altered(folder):
        problems.append(f"{file.name} carries record {stated[:12]}, the {PROVENANCE} beside it "
                        f"makes {own[:12]}: one of them was altered")  # fmt: skip
    state = LinkState.BROKEN if problems else LinkState.OK
    return Link(_kind_of_file(file), digest, state, "; ".join(problems) or file.name, stated)


def _artifact_links(top: Ancestor, folder: Path, reported: str | None) -> Iterator[Link]:
    """Links of an artifact and of all that it was made of, each once."""
    trouble = _own_papers_altered(folder)
    queue = [_Held(top, folder, trouble, carrier=folder, reported=reported)]
    seen = set()
    while queue:
        held = queue.pop(0)
        if held.artifact.id in seen:
            continue
        seen.add(held.artifact.id)
        yield from _links_of(held)
        queue += list(_inputs(held, seen))


@dataclass(frozen=True)
class _Held:
    """An ancestor as the target's folder carries it."""

    artifact: Ancestor
    folder: Path | None  # where it lies, if it lies where its child found it
    trouble: str | None  # what its child's statement contradicts
    carrier: Path
    kind: str = ""
    reported: str | None = None  # the file that has a link of its own


def _own_papers_altered(folder: Path) -> str | None:
    """Which of the folder's own manifest and provenance the seal no longer covers."""
    found = [text for text in altered_files(folder) if text.startswith((MANIFEST, PROVENANCE))]
    return "; ".join(found) or None


def _inputs(held: _Held, seen: set[str]) -> Iterator[_Held]:
    stated = _json_or_empty(held.artifact.manifest).get("inputs", [])
    records = {
        item.get("id"): item for item in _json_or_empty(held.artifact.provenance).get("inputs", [])
    }
    for item in stated:
        if item["id"] in seen:
            continue
        entry = records.get(item["id"], {})
        here = _place_of(held, entry.get("folder"), item)
        record = entry.get("record") if held.trouble is None else None
        yield _carried(held.carrier, item, record, here)


def _place_of(child: _Held, way: str | None, item: dict[str, str]) -> Path | None:
    """Where an input lies: where its child found it, or beside the child under its id.

    A folder there that was altered is taken; one that holds another artifact by now is not.
    """
    if child.folder is None:
        return None
    names = [item["id"]]
    if item["kind"] == "model":  # it lies inside its run
        carried = child.carrier / LINEAGE / item["id"] / MANIFEST
        runs = _json_or_empty(carried.read_bytes() if carried.is_file() else b"").get("inputs", [])
        names += [f"{run['id']}/model" for run in runs]
    places = [(child.folder / way).resolve()] if way else []
    places += [
        up / name for up in (child.folder.parent, child.folder.parent.parent) for name in names
    ]
    return next((place for place in places if _may_be(place, item["id"])), None)


def _may_be(place: Path, artifact_id: str) -> bool:
    if not (place / MANIFEST).is_file():
        return False
    if hashlib.sha256((place / MANIFEST).read_bytes()).hexdigest() == artifact_id:
        return True
    return any(text.startswith(MANIFEST) for text in altered_files(place))


def _carried(carrier: Path, item: dict[str, str], record: str | None, here: Path | None) -> _Held:
    """An ancestor that the carrier holds; `record` is None where its child is not to be trusted."""
    place = carrier / LINEAGE / item["id"]
    try:
        artifact = Ancestor((place / MANIFEST).read_bytes(), (place / PROVENANCE).read_bytes())
    except OSError:
        missing = Ancestor(b"{}", b"{}")
        return _Held(missing, None, f"{LINEAGE}/{item['id'][:12]}… is missing", carrier,
                     item["kind"])  # fmt: skip
    trouble = None
    if artifact.id != item["id"]:
        trouble = f"its carried {MANIFEST} was altered: it makes id {artifact.id[:12]}, " \
                  f"stated is {item['id'][:12]}"  # fmt: skip
    elif record is not None and record != artifact.record:
        trouble = f"its carried {PROVENANCE} was altered: it makes record " \
                  f"{artifact.record[:12]}, stated is {str(record)[:12]}"  # fmt: skip
    return _Held(artifact, here, trouble, carrier, item["kind"])


def _links_of(held: _Held) -> Iterator[Link]:
    manifest = _json_or_empty(held.artifact.manifest)
    kind = held.kind or str(manifest.get("kind", "artifact"))
    problems = [held.trouble] if held.trouble else []
    if held.folder is not None:
        found = _folder_problems(held, is_top=held.folder == held.carrier)
        problems += [
            text for text in found
            if text not in (held.trouble or "")
            and not text.startswith(f"{held.reported} ")
            and not _has_its_own_link(text)
        ]  # fmt: skip
    about_rules = [text for text in problems if text.startswith(f"{RULES} ")]
    problems = [text for text in problems if text not in about_rules]
    provenance = _json_or_empty(held.artifact.provenance)
    if kind == "source" and provenance.get("location"):
        problems += _source_problems(Path(provenance["location"]), manifest.get("files", {}))
    where = provenance.get("location") or (
        "its files are intact" if held.folder is not None else "its files lie elsewhere"
    )
    yield Link(
        kind, held.artifact.id, LinkState.BROKEN if problems else LinkState.OK,
        "; ".join(problems) or str(where), held.artifact.record,
    )  # fmt: skip
    rules = manifest.get("parameters", {}).get("rules")
    if kind == "dataset" and rules is not None:
        yield _rules_link(rules, manifest.get("files", {}), about_rules)


def _source_problems(place: Path, files: dict[str, str]) -> list[str]:
    """Files of a source folder that changed since; nothing where the folder lies elsewhere."""
    if not place.is_dir():
        return []
    altered = [name for name, digest in files.items() if _differs(place / name, digest)]
    if len(altered) == len(files):
        return []  # another folder of the same name
    more = f" and {len(altered) - 3} more" if len(altered) > 3 else ""
    return [f"{', '.join(altered[:3])}{more} in {place} changed since"] if altered else []


def _differs(path: Path, digest: str) -> bool:
    return not path.is_file() or file_hash(path) != digest


def _has_its_own_link(text: str) -> bool:
    """True for altered papers of an ancestor: the ancestor's link tells of them."""
    return text.startswith(f"{LINEAGE}/") and text.endswith("was altered after it was sealed")


def _rules_link(rules: Any, files: dict[str, str], problems: list[str]) -> Link:
    digest = hashlib.sha256(canonical_json(rules)).hexdigest()
    if files.get(RULES) != digest:
        problems = [*problems, f"the manifest's rules make {digest[:12]}, its {RULES} "
                    f"{str(files.get(RULES))[:12]}"]  # fmt: skip
    state = LinkState.BROKEN if problems else LinkState.OK
    return Link("rules", digest, state, "; ".join(problems) or "as the dataset's manifest has them")


def _folder_problems(held: _Held, *, is_top: bool) -> list[str]:
    assert held.folder is not None
    problems = altered_files(held.folder)
    if is_top and not problems:
        problems = contradictions(held.folder)
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
