"""The group of a sample, which no split cuts in two, and its name in the dataset."""

from collections import Counter
from collections.abc import Sequence

from dataset_rules.rules import Rules
from dataset_rules.template import Template


def group_template(rules: Rules) -> Template | None:
    """The template of groups that the rules state."""
    return None if rules.split.group is None else Template(rules.split.group)


def group_of(image: str, name: str, template: Template | None) -> str:
    """The group of an image: the parts that the template names, else the sample's own name.

    Args:
        image: path in the source.
        name: of the sample in the dataset.
        template: fits the path, the file name or the file name without its suffix.
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
    """A name for each image: its stem, and where stems are equal as many folders as tell apart.

    Upper and lower case count as equal, since some disks take them so.

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
