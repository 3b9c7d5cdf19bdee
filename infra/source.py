"""The code to release: its id and, for a working copy, the wheel built from it."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.catalog import WORKING_COPY
from infra.config import ConfigError

# Only what goes into the wheel: `pulumi config set` or an edited document makes no new release.
# Without setup.py nothing is compiled, so that a wheel built on any laptop runs on any droplet.
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "dataset_rules", "unet", "app", "infra")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A release with its id and either a wheel to upload or a URL for the host to fetch."""

    release_id: str
    wheel: Path | None = None
    address: str | None = None


def source_of(text: str, root: Path, cache: Path) -> Source:
    """The release specified by `source`: working-copy, git+https://...@COMMIT or a wheel's URL.

    Raises:
        ConfigError: if the working copy is not a git repository or its wheel cannot be built.
    """
    if text == WORKING_COPY:
        release_id = working_copy_id(root)
        return Source(release_id=release_id, wheel=build_wheel(root, cache / release_id))
    if text.startswith("git+"):
        return Source(release_id=text.rsplit("@", 1)[1][:12], address=text)
    return Source(release_id=hashlib.sha256(text.encode()).hexdigest()[:12], address=text)


def working_copy_id(root: Path) -> str:
    """First 12 digits of the commit, followed by `-` and a hash if files were changed."""
    commit = _git(root, "rev-parse", "HEAD").decode().strip()[:12]
    if not _git(root, "status", "--porcelain", "--", *_shipped(root)):
        return commit
    digest = hashlib.sha256()
    for name in _files(root):
        digest.update(name.encode() + b"\0" + (root / name).read_bytes())
    return f"{commit}-{digest.hexdigest()[:8]}"


def build_wheel(root: Path, folder: Path) -> Path:
    """Wheel of the working copy's files; an existing one is reused."""
    if found := sorted(folder.glob("*.whl")):
        return found[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        # Build in a copy: no build folder gets into the wheel or is left in the tree.
        copy, wheels = Path(work) / "tree", Path(work) / "wheels"
        for name in _files(root):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, copy / name)
        _pip_wheel(copy, wheels, when=_git(root, "log", "-1", "--format=%ct").decode().strip())
        wheels.replace(folder)
    return sorted(folder.glob("*.whl"))[0]


def _pip_wheel(tree: Path, wheels: Path, *, when: str) -> None:
    words = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(tree)]
    # The commit's time in the archive: the same files produce the same bytes.
    env = {**os.environ, "SOURCE_DATE_EPOCH": when}
    command = [sys.executable, "-m", "pip", "wheel", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-5:])
        raise ConfigError([f"source: no wheel could be built from the working copy:\n{last}"])


def _shipped(root: Path) -> list[str]:
    return [name for name in SHIPPED if (root / name).exists()]


def _files(root: Path) -> list[str]:
    words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_shipped(root))
    names = _git(root, *words).decode().split("\0")
    return sorted(name for name in set(names) if name and (root / name).is_file())


def _git(root: Path, *words: str) -> bytes:
    # Without optional locks: git, if killed, would leave its lock file behind.
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise ConfigError(
            [f"source: working-copy needs git ({message}); clone the repository or set a commit"]
        )
    return done.stdout
