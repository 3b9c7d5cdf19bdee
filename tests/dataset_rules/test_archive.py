import io
import tarfile
import zipfile

import pytest

from dataset_rules.archive import Limits, opened_source, unpack
from dataset_rules.doctor import examine
from dataset_rules.errors import RulesError
from tests.messy import tree_of, two_folders


def zip_of(path, *members):
    """A zip of (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def tar_of(path, *members):
    """A tar of TarInfo or (name, bytes)."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refused(archive, tmp_path, match, limits=None):
    place = tmp_path / "place"
    place.mkdir()
    before = tree_of(tmp_path)
    with pytest.raises(RulesError, match=match):
        unpack(archive, place / "target", limits or Limits())
    assert tree_of(tmp_path) == before
    assert not (place / "target").exists()


@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
def test_archive_is_read_like_its_folder(tmp_path, kind):
    folder = two_folders(tmp_path / "source")
    members = sorted(tree_of(folder).items())
    path = tmp_path / kind
    archive = zip_of(path, *members) if kind == "a.zip" else tar_of(path, *members)
    assert examine(archive).document() == examine(folder).document()
    with opened_source(archive) as place:
        assert tree_of(place) == tree_of(folder)
    assert not place.exists()


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png", "a\x01.png"]
)
@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_path_that_leaves_the_folder_is_refused(tmp_path, pack, name):
    archive = pack(
        tmp_path / ("a.zip" if pack is zip_of else "a.tar"), ("ok.png", b"1"), (name, b"2")
    )
    refused(archive, tmp_path, "leaves the folder")


@pytest.mark.parametrize(
    "member",
    [
        link("a", "/etc/passwd", tarfile.SYMTYPE),
        link("a", "b", tarfile.LNKTYPE),
        link("a", "", tarfile.FIFOTYPE),
        link("a", "", tarfile.CHRTYPE),
    ],
    ids=["symlink", "hardlink", "pipe", "device"],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, member):
    refused(tar_of(tmp_path / "a.tar", member), tmp_path, "a link or a device")


def test_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("a")
    info.external_attr = 0o120777 << 16
    refused(zip_of(tmp_path / "a.zip", (info, b"/etc/passwd")), tmp_path, "a link or a device")


def test_two_files_of_one_name_are_refused(tmp_path):
    archive = tar_of(tmp_path / "a.tar", ("a/B.png", b"1"), ("./a/b.png", b"2"))
    refused(archive, tmp_path, "two files of one name")


def test_too_many_files_are_refused(tmp_path):
    archive = zip_of(tmp_path / "a.zip", *((f"{n}", b"") for n in range(5)))
    refused(archive, tmp_path, "too many files", Limits(files=4))


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_bomb_is_refused_by_its_ratio(tmp_path, pack):
    path = tmp_path / ("a.zip" if pack is zip_of else "a.tar.gz")
    archive = pack(path, ("zeros", bytes(3_000_000)))
    refused(archive, tmp_path, "more bytes than its size explains", Limits(free_bytes=1_000_000))


def test_encrypted_file_is_refused(tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("a.png", b"secret"))
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flag in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    refused(archive, tmp_path, "an encrypted file")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_damaged_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no archive" * 100)
    refused(tmp_path / name, tmp_path, "no archive, or a damaged one")


def test_truncated_archive_leaves_nothing_behind(tmp_path):
    archive = tar_of(
        tmp_path / "a.tar.gz", *((f"{n}.png", bytes(range(256)) * 99) for n in range(9))
    )
    archive.write_bytes(archive.read_bytes()[:-40])
    refused(archive, tmp_path, "no archive, or a damaged one")
