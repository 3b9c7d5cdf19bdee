"""Groups (samples of one patient, case or slide, kept in one split), and sample names."""

import re
from collections import Counter
from collections.abc import Sequence

from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.rules.fields import SplitRule
from dataset_rules.rules.rules import Rules
from dataset_rules.rules.template import Template, escape

# Coarser words first: two slides of one patient belong together.
GROUP_WORDS = ("patient", "pat", "subject", "subj", "donor", "animal", "mouse", "case", "specimen",
               "slide", "wsi")  # fmt: skip

_TCGA = re.compile(r"TCGA-[A-Za-z0-9]{2}-[A-Za-z0-9]{4}-.+")
_TCGA_TEMPLATE = "TCGA-{site}-{patient}-*"


def inferred_group(images: Sequence[str]) -> str | None:
    """The group template inferred from the names; None if they show no groups of several images.

    Args:
        images: paths of the paired images.
    """
    for text in _candidates(images):
        groups = Counter(group_of(image, "", Template(text)) for image in images)
        if "" not in groups and 1 < len(groups) < len(images):
            return text
    return None


def group_note(template: str, images: Sequence[str]) -> Finding:
    """A note on the inferred groups, and how to override them."""
    groups = {group_of(image, "", Template(template)) for image in images}
    return Finding(
        code="group_inferred", severity=Severity.INFO,
        message=f"the names tell {len(groups)} groups in {counted(len(images), 'image')} by "
        f"{template}: no split cuts one in two",
        remedy="correct split.group; '{name}' makes each file name a group of its own",
    )  # fmt: skip


def unknown_groups(groups: set[str], rule: SplitRule) -> list[Finding]:
    """Groups in split.groups without any image: a typo, or a missing image."""
    named = {group for stated in rule.groups.values() for group in stated}
    unknown = sorted(named - groups)
    if not unknown:
        return []
    return [
        Finding(
            code="groups_unknown", severity=Severity.WARNING,
            message=f"split.groups names {counted(len(unknown), 'group')} that no image has: "
            + ", ".join(unknown[:10]),
            remedy="correct the names; groups are, for example, " + ", ".join(sorted(groups)[:3]),
        )
    ]  # fmt: skip


def _candidates(images: Sequence[str]) -> list[str]:
    stems = [image.rpartition("/")[2].rpartition(".")[0] for image in images]
    found = [_TCGA_TEMPLATE] if all(_TCGA.fullmatch(stem) for stem in stems) else []
    for word in GROUP_WORDS:
        found += [_in_folders(images, word), _in_names(stems, word)]
    return [text for text in found if text]


def _in_names(stems: Sequence[str], word: str) -> str:
    """`case7_1` -> `case{case:int}_*`, if all names have the same form."""
    form = re.compile(rf"(.*?)({word})([-_ ]?)([0-9]+)([-_ .])(.+)", re.IGNORECASE)
    return _written([form.fullmatch(stem) for stem in stems], word)


def _written(found: Sequence[re.Match[str] | None], word: str) -> str:
    forms = {m.group(1, 2, 3, 5) if m else None for m in found}
    if len(forms) != 1 or None in forms:
        return ""
    before, name, sign, behind = forms.pop() or ("", "", "", "")
    if before and before[-1].isalpha():
        return ""  # `showcase1` is not a case
    return f"{escape(before + name + sign)}{{{word}:int}}{escape(behind)}*"


def _in_folders(images: Sequence[str], word: str) -> str:
    """`p/case_7/images/1.png` -> `p/case_{case}/*/*`, if all paths have it at the same level."""
    rows = [image.split("/") for image in images]
    if len({len(row) for row in rows}) != 1:
        return ""
    form = re.compile(rf"({word}[-_ ]?)(.+)", re.IGNORECASE)
    columns = list(zip(*rows, strict=True))[:-1]
    for place, column in enumerate(columns):
        found = [form.fullmatch(folder) for folder in column]
        heads = {match[1] for match in found if match}
        if all(found) and len(heads) == 1 and len(set(column)) > 1:
            head = f"{escape(heads.pop())}{{{word}}}"
            parts = ["*"] * place + [head] + ["*"] * (len(columns) - place)
            return "/".join(parts)
    return ""


def group_template(rules: Rules) -> Template | None:
    """The group template in the rules."""
    return None if rules.split.group is None else Template(rules.split.group)


def group_of(image: str, name: str, template: Template | None) -> str:
    """The group of an image: the template's placeholder values, else the sample name.

    Args:
        image: path in the source.
        name: of the sample in the dataset.
        template: matched against the path, the file name, then the stem.
    """
    if template is None:
        return name
    for text in (image, image.rpartition("/")[2], stem_of(image)):
        values = template.match(text)
        if values:
            return "/".join(values.values())
    return name


def stem_of(path: str) -> str:
    """The file name without its last suffix."""
    file = path.rpartition("/")[2]
    return file.rpartition(".")[0] or file


def sample_names(images: Sequence[str]) -> dict[str, str]:
    """A unique name per image: its stem, prefixed by as many folders as needed.

    Names are compared case-insensitively, as some file systems do.

        >>> sample_names(["a/1.png", "b/1.png", "b/2.png"])
        {'a/1.png': 'a__1', 'b/1.png': 'b__1', 'b/2.png': '2'}
    """
    deepest = max((path.count("/") for path in images), default=0)
    names: dict[str, str] = {}
    open_paths = list(images)
    for depth in range(deepest + 1):
        names.update((path, _named(path, depth)) for path in open_paths)
        open_paths = _clashing(open_paths, names)
    names.update((path, path.replace("/", "__")) for path in open_paths)  # suffixes differ
    return names


def _named(path: str, depth: int) -> str:
    folders = path.split("/")[:-1]
    return "__".join([*folders[max(0, len(folders) - depth) :], stem_of(path)])


def _clashing(paths: Sequence[str], names: dict[str, str]) -> list[str]:
    counts = Counter(name.casefold() for name in names.values())
    return [path for path in paths if counts[names[path].casefold()] > 1]
