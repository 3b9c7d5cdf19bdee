"""Report every file of a source that is in no pair, with the reason."""

from collections.abc import Iterable

from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.pairing.keywords import Role, roles_in
from dataset_rules.pairing.pairs import Pairing
from dataset_rules.sources.headers import Survey
from dataset_rules.sources.inventory import IGNORE_REASONS, Entry, Kind

IGNORED = {
    Kind.JUNK: ("junk", "nothing to do: they are never read"),
    Kind.OTHER: ("other_files", ""),
    Kind.ARCHIVE: ("archives_inside", "unpack them if they belong to the set"),
    Kind.SLIDE: ("whole_slides", "pip install 'unetops[slides]'"),
    Kind.SPECIAL: ("special_files", "put the files themselves there"),
    Kind.EXCLUDED: ("excluded", ""),
}


def check_unpaired(pairing: Pairing, survey: Survey, *, is_open: bool) -> list[Finding]:
    """Unpaired images and masks, and images that match no template.

    Args:
        pairing: of the images.
        survey: headers of the images.
        is_open: it is an open question which files are the masks: nothing is left out yet.
    """
    found = [
        _orphans("unpaired_images", "image", "mask", pairing.unpaired_images),
        _orphans("unpaired_masks", "mask", "image", pairing.unpaired_masks),
        _unreadable(pairing, survey),
        _not_matching(() if is_open or not pairing.pairs else pairing.others, survey),
    ]
    return [finding for finding in found if finding.paths]


def is_derived(path: str) -> bool:
    """True if the name says prediction, overlay or preview."""
    return Role.DERIVED in roles_in(path.rpartition("/")[2])


def _orphans(code: str, noun: str, partner: str, paths: tuple[str, ...]) -> Finding:
    return Finding(
        code=code, severity=Severity.WARNING, paths=paths,
        message=f"{counted(len(paths), noun)} without {partner}",
        remedy="add the partners, or list the files in source.exclude",
    )  # fmt: skip


def _unreadable(pairing: Pairing, survey: Survey) -> Finding:
    alone = [*pairing.unpaired_images, *pairing.unpaired_masks, *pairing.others]
    paths = tuple(sorted(path for path in alone if path in survey.damage))
    return Finding(
        code="unreadable", severity=Severity.WARNING, paths=paths,
        message=f"{counted(len(paths), 'file')} without partner cannot be read as images",
        remedy="mend the file or list it in source.exclude",
        looked_at=len(survey.headers) + len(survey.damage),
        of=len(survey.headers) + len(survey.damage),
    )  # fmt: skip


def _not_matching(paths: Iterable[str], survey: Survey) -> Finding:
    """Images that match no template, except derived files."""
    left_out = tuple(p for p in paths if not is_derived(p) and p not in survey.damage)
    return Finding(
        code="left_out", severity=Severity.WARNING, paths=left_out,
        message=f"{counted(len(left_out), 'image')} left out: neither template fits",
        remedy="widen source.image and source.mask, or list them in source.exclude",
    )  # fmt: skip


def check_ignored(entries: Iterable[Entry], pairing: Pairing, *, is_open: bool) -> list[Finding]:
    """One finding per reason for ignoring files; these findings are in no dataset."""
    found = [_of_kind(kind, tuple(e.path for e in entries if e.kind is kind)) for kind in IGNORED]
    rest = () if is_open or not pairing.pairs else pairing.others
    derived = tuple(path for path in rest if is_derived(path))
    note = Finding(
        code="derived_files", severity=Severity.INFO, paths=derived,
        message=f"{counted(len(derived), 'image')} ignored: by their names they are predictions, "
        "overlays or previews, not truth",
        remedy="state source.mask if they are the masks",
    )  # fmt: skip
    return [finding for finding in [*found, note] if finding.paths]


def _of_kind(kind: Kind, paths: tuple[str, ...]) -> Finding:
    code, remedy = IGNORED[kind]
    severity = Severity.WARNING if kind is Kind.SLIDE else Severity.INFO
    return Finding(
        code=code, severity=severity, paths=paths,
        message=f"{counted(len(paths), 'file')} ignored: {IGNORE_REASONS[kind]}", remedy=remedy,
    )  # fmt: skip
