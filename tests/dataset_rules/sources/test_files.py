import gc
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.doctor.examine import examine
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.rules import Rules
from dataset_rules.sources.files import KEPT, open_files
from dataset_rules.sources.inventory import Kind, discover
from tests.messy import object_files, tree_of, two_folders
from tests.packing import KINDS, archive_of


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_report_on_an_archive_equals_that_on_its_folder(tmp_path, temporary, kind):
    folder = object_files(tmp_path / "source")
    archive = archive_of(tmp_path / f"a.{kind}", *sorted(tree_of(folder).items()))
    assert examine(archive).document() == examine(folder).document()
    assert not tree_of(temporary)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.zst"])
def test_dataset_from_an_archive_equals_that_from_its_folder(tmp_path, kind):
    folder = two_folders(tmp_path / "source", count=9)
    archive = archive_of(tmp_path / f"a.{kind}", *sorted(tree_of(folder).items(), reverse=True))
    by_folder = format_dataset(folder, tmp_path / "one", Rules(), jobs=1)
    by_archive = format_dataset(archive, tmp_path / "two", Rules(), jobs=2)
    assert read_artifact(by_archive).id == read_artifact(by_folder).id


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.zst"])
def test_file_is_in_the_spool_only_while_its_path_is_referenced(tmp_path, temporary, kind):
    contents = {f"{number}.bin": bytes([number]) * 1000 for number in range(20)}
    archive = archive_of(tmp_path / f"a.{kind}", *contents.items())
    with open_files(archive) as files:
        held = [files / name for name in contents]
        assert [path.read_bytes() for path in held] == list(contents.values())
        assert files / "3.bin" is held[3]
        del held
        gc.collect()
        spooled = [path for path in tree_of(temporary) if path.endswith(".bin")]
        assert len(spooled) == KEPT
    assert not tree_of(temporary)


def test_spool_of_a_compressed_tar_is_as_small_as_the_archive(tmp_path, temporary):
    flat = bytes(1_000_000)
    noise = np.random.default_rng(0).bytes(300_000)
    archive = archive_of(tmp_path / "a.tar.gz", ("a.bmp", flat + noise), ("b.png", noise))
    with open_files(archive) as files:
        assert (files / "a.bmp").stat().st_size == 1_300_000
        (repacked,) = temporary.rglob("repacked.zip")
        assert repacked.stat().st_size < 1.02 * archive.stat().st_size


def test_another_process_uses_a_separate_spool(tmp_path):
    archive = archive_of(tmp_path / "a.zip", ("a/b.png", b"1"))
    with open_files(archive) as files:
        sent = pickle.dumps(files)
        assert len(sent) < 1000  # sent with every task
        assert pickle.loads(sent) is pickle.loads(sent)
        assert (pickle.loads(sent) / "a/b.png").read_bytes() == b"1"


def test_absent_file_does_not_exist(tmp_path):
    with open_files(archive_of(tmp_path / "a.zip", ("a.png", b"1"))) as files:
        assert not (files / "b.png").exists()


@pytest.mark.parametrize("place", [40, 200])
def test_damaged_file_is_reported_by_its_path_in_the_archive(tmp_path, place):
    noise = np.random.default_rng(0).bytes(500)
    archive = archive_of(tmp_path / "a.zip", ("x/a.png", noise))
    data = bytearray(archive.read_bytes())
    data[place] ^= 0xFF
    archive.write_bytes(data)
    with (
        pytest.raises(RulesError, match=r"a\.zip/x/a\.png: the file is damaged in its archive"),
        open_files(archive) as files,
    ):
        _ = files / "x/a.png"


def test_damaged_image_in_an_archive_is_a_finding(tmp_path):
    members = dict(tree_of(two_folders(tmp_path / "source")))
    archive = archive_of(tmp_path / "a.zip", *members.items())
    data = bytearray(archive.read_bytes())
    damaged = ["images/2.png", "masks/3.png"]
    for name in damaged:
        data[data.index(name.encode()) + 40] ^= 0xFF
    archive.write_bytes(data)
    findings = examine(archive).findings
    assert {path for f in findings if "damaged" in f.message for path in f.paths} >= set(damaged)
    with pytest.raises(RulesError, match=r"(?s)2\.png.*3\.png|3\.png.*2\.png"):
        format_dataset(archive, tmp_path / "set", Rules(), jobs=1)


def test_our_own_datasets_in_an_archive_are_skipped(tmp_path):
    dataset = format_dataset(two_folders(tmp_path / "source"), tmp_path / "x/made", Rules(), jobs=1)
    members = tree_of(tmp_path / "source") | tree_of(dataset.parent)
    with open_files(archive_of(tmp_path / "a.zip", *members.items())) as files:
        found = {entry.path for entry in discover(files)}
    assert found == set(tree_of(tmp_path / "source"))


def test_pipes_and_folder_links_in_a_source_are_listed_but_never_opened(tmp_path):
    folder = two_folders(tmp_path / "source")
    elsewhere = two_folders(tmp_path / "elsewhere")
    os.mkfifo(folder / "images/pipe.png")
    (folder / "more").symlink_to(elsewhere, target_is_directory=True)
    (folder / "images/gone.png").symlink_to(tmp_path / "nothing")
    (folder / "images/7.png").symlink_to(elsewhere / "images/1.png")
    entries = {entry.path: entry for entry in discover(folder)}
    special = {path for path, entry in entries.items() if entry.kind is Kind.SPECIAL}
    assert special == {"images/pipe.png", "more", "images/gone.png"}
    size = (elsewhere / "images/1.png").stat().st_size
    assert entries["images/7.png"] == replace(
        entries["images/1.png"], path="images/7.png", size_bytes=size
    )
    assert examine(folder).pairing.pairs


def test_next_run_removes_only_the_folders_of_killed_processes(tmp_path, temporary):
    archive = archive_of(tmp_path / "a.tar.gz", ("a.png", bytes(1000)))
    code = (
        "import sys, time; from pathlib import Path\n"
        "from dataset_rules.sources.files import open_files\n"
        "with open_files(Path(sys.argv[1])): print('open', flush=True); time.sleep(60)"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(archive)], stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(temporary)},
        ) for _ in range(2)
    ]  # fmt: skip
    for other in others:
        with other.stdout as output:
            assert output.readline() == b"open\n"
    foreign = temporary / "unetops-source-of-somebody"
    foreign.mkdir()
    before = set(temporary.iterdir())
    others[0].kill()
    others[0].wait()
    with open_files(archive):
        left = before & set(temporary.iterdir())
        assert len(left) == 2  # that of the running process, and the one without a lock file
    others[1].kill()
    others[1].wait()
    with open_files(archive):
        assert before & set(temporary.iterdir()) == {foreign}


def test_missing_source_is_refused(tmp_path):
    shutil.rmtree(tmp_path)
    with pytest.raises(RulesError, match="no such folder or archive"):
        examine(tmp_path)
