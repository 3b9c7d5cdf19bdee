import io
import lzma
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from dataset_rules.doctor.examine import examine
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import encode
from dataset_rules.sources.archive import unpack
from dataset_rules.sources.files import open_files
from dataset_rules.sources.limits import Limits
from tests.messy import tree_of, two_folders
from tests.packing import KINDS, SQUEEZE, archive_of, link, packed_bytes, tar_bytes, zip_bytes

TARS = KINDS[1:]


def assert_refused(archive, tmp_path, match, limits=None):
    """Assert that unpacking and reading in place both fail and leave nothing behind."""
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    before = tree_of(tmp_path)
    with pytest.raises(RulesError, match=match):
        unpack(archive, place / "target", limits or Limits())
    with pytest.raises(RulesError, match=match), open_files(archive, limits or Limits()):
        pass
    assert tree_of(tmp_path) == before
    assert not (place / "target").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_unpacked_archive_equals_the_folder(tmp_path, kind):
    folder = two_folders(tmp_path / "source")
    archive = archive_of(tmp_path / f"a.{kind}", *sorted(tree_of(folder).items()))
    assert tree_of(unpack(archive, tmp_path / "target")) == tree_of(folder)


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png"]
)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.zst"])
def test_path_that_leaves_the_folder_is_refused(tmp_path, kind, name):
    archive = archive_of(tmp_path / f"a.{kind}", ("ok.png", b"1"), (name, b"2"))
    assert_refused(archive, tmp_path, "leaves the folder")


@pytest.mark.parametrize(
    ("name", "match"),
    [("a\x01.png", "control characters"), ("x" * 300, "too long"), ("a/" * 50 + "b", "too deep"),
     ("/".join(["y" * 200] * 6), "too long")],
    ids=["control", "long part", "deep", "long path"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_non_portable_name_is_refused(tmp_path, kind, name, match):
    assert_refused(archive_of(tmp_path / f"a.{kind}", (name, b"")), tmp_path, match)


def test_name_that_is_not_utf8_is_refused(tmp_path):
    archive = archive_of(tmp_path / "a.tar", (os.fsdecode(b"M\xfcller.png"), b"1"))
    assert_refused(archive, tmp_path, r"not UTF-8; found M\\udcfcller.png")


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
    assert_refused(archive_of(tmp_path / "a.tar", member), tmp_path, "a link or a device")


def test_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("a")
    info.external_attr = 0o120777 << 16
    assert_refused(
        archive_of(tmp_path / "a.zip", (info, b"/etc/passwd")), tmp_path, "a link or a device"
    )


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        ("a/B.png", "./a/b.png", "two files of the same name"),
        ("M\u00fc.png", "Mu\u0308.png", "two files of the same name"),
        ("a", "A/b.png", "a file and a folder of the same name"),
        ("a/b/c.png", "a/B", "a file and a folder of the same name"),
    ],
    ids=["case", "unicode form", "file, then folder", "folder, then file"],
)
def test_names_that_clash_on_some_file_systems_are_refused(tmp_path, kind, first, second, match):
    assert_refused(
        archive_of(tmp_path / f"a.{kind}", (first, b"1"), (second, b"2")), tmp_path, match
    )


def test_zip_folders_with_backslashes_are_unpacked_as_folders(tmp_path):
    archive = archive_of(tmp_path / "a.zip", ("a\\", b""), ("a\\b.png", b"1"))
    assert tree_of(unpack(archive, tmp_path / "target")) == {"a/b.png": b"1"}


def test_too_many_files_are_refused(tmp_path):
    archive = archive_of(tmp_path / "a.zip", *((f"{n}", b"") for n in range(5)))
    assert_refused(archive, tmp_path, "too many files", Limits(files=4))


def zip_of_directory(path, head, size, *, is_large=False):
    """A sparse file that declares a directory of `size` bytes starting with `head`.

    Args:
        path: of the file.
        head: first bytes of the directory.
        size: of the directory, in bytes.
        is_large: stated as archives of more than 4 GiB state it (zip64).
    """
    place = struct.pack("<QQ", size, 0) if is_large else struct.pack("<LL", size, 0)
    end = (
        struct.pack("<4s4H", b"PK\5\6", 0, 0, 1, 1) + (b"\xff" * 8 if is_large else place) + b"\0\0"
    )
    if is_large:
        record = struct.pack("<4sQ2H2L2Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1) + place
        end = record + struct.pack("<4sLQL", b"PK\6\7", 0, size, 1) + end
    with path.open("wb") as file:
        file.write(head)
        file.seek(size)
        file.write(end)
    return path


def entries(count, comment=b""):
    """Entries of a zip's directory, each with the shortest of names."""
    head = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *[0] * 18)
    head = head[:28] + struct.pack("<3H", 1, 0, len(comment)) + head[34:]
    return (head + b"x" + comment) * count


def taken_at_most(tmp_path, archive, match, limits):
    """Peak memory of a rejection, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(RulesError, match=match):
            unpack(archive, tmp_path / "target", limits)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_large", [False, True], ids=["zip", "zip64"])
def test_zip_that_states_a_directory_of_absurd_size_is_refused_unread(tmp_path, is_large):
    size = Limits().directory_bytes + 1
    archive = zip_of_directory(tmp_path / "a.zip", b"", size, is_large=is_large)
    said = f"too long a list of files; found {size} bytes"
    assert taken_at_most(tmp_path, archive, said, Limits()) < 2 << 20


@pytest.mark.parametrize("comment", [b"", b"c" * 1000], ids=["short", "commented"])
def test_zip_of_too_many_files_is_refused_before_its_directory_is_read(tmp_path, comment):
    directory = entries(10_000, comment)
    archive = zip_of_directory(tmp_path / "a.zip", directory, len(directory))
    limits = Limits(files=9_999)
    assert taken_at_most(tmp_path, archive, "too many files", limits) < 1 << 18


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.zst"])
def test_zip_bomb_is_refused_by_its_ratio(tmp_path, kind):
    archive = archive_of(tmp_path / f"a.{kind}", ("zeros", bytes(3_000_000)))
    assert_refused(archive, tmp_path, "more bytes than allowed", Limits(free_bytes=1_000_000))


def test_nested_archive_is_never_opened(tmp_path):
    inner = zip_bytes(("zeros", bytes(1 << 20)))
    folder = two_folders(tmp_path / "source")
    archive = archive_of(tmp_path / "a.zip", *tree_of(folder).items(), ("more.zip", inner))
    ignored = examine(archive).document()["ignored"]
    assert ignored == [{"path": "more.zip", "why": ignored[0]["why"]}]
    assert "not opened" in ignored[0]["why"]


def test_archive_larger_than_the_free_space_is_refused_before_unpacking(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_rules.sources.limits.RESERVE_BYTES", 1 << 60)
    archive = archive_of(tmp_path / "a.zip", ("a", b"1"))
    with pytest.raises(RulesError, match="not enough disk space"):
        unpack(archive, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_encrypted_file_is_refused(tmp_path):
    archive = archive_of(tmp_path / "a.zip", ("a.png", b"secret"))
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flag in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert_refused(archive, tmp_path, "an encrypted file")


def test_unsupported_zip_compression_method_is_refused(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a.png", b"1" * 1000)
    (tmp_path / "a.zip").write_bytes(data.getvalue())
    assert_refused(tmp_path / "a.zip", tmp_path, "unsupported compression method .number 14.")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.png"])
def test_file_that_is_not_an_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no archive" * 100)
    assert_refused(tmp_path / name, tmp_path, "no archive, or a damaged one")


@pytest.mark.parametrize(("head", "kind"), [(b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"Rar!\x1a", "RAR")])
def test_unsupported_archive_format_is_named_in_the_error(tmp_path, head, kind):
    (tmp_path / "a.zip").write_bytes(head + bytes(100))
    assert_refused(
        tmp_path / "a.zip", tmp_path, f"expected a folder, zip, .*; found a {kind} archive"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_archive_is_refused(tmp_path, kind):
    rng = np.random.default_rng(0)
    files = [(f"{n}.png", rng.bytes(900)) for n in range(6)]
    data = packed_bytes(kind, *files)
    archive = tmp_path / f"a.{kind}"
    # A tar ends with zeros and padding; truncating the padding loses nothing.
    ends = 6 * 1536 + 511 if kind == "tar" else len(data) - 1
    for end in np.linspace(20, ends, 12).astype(int):
        archive.write_bytes(data[:end])
        with pytest.raises(RulesError, match="damaged"):
            unpack(archive, tmp_path / "target")
        assert not (tmp_path / "target").exists()


def test_tar_truncated_between_two_files_is_refused(tmp_path):
    whole = tar_bytes(("1.png", b"1" * 512), ("2.png", b"2" * 512))
    for kind in TARS:
        (tmp_path / f"a.{kind}").write_bytes(SQUEEZE[kind](whole[:1024]))
        assert_refused(tmp_path / f"a.{kind}", tmp_path, "cut short or damaged")


def test_damaged_header_in_the_middle_of_a_tar_is_refused(tmp_path):
    whole = bytearray(tar_bytes(("1.png", b"1"), ("2.png", b"2"), ("3.png", b"3")))
    whole[1024 + 148] ^= 1  # checksum of the second header
    (tmp_path / "a.tar").write_bytes(whole)
    assert_refused(tmp_path / "a.tar", tmp_path, "cut short or damaged")


def crafted(kind: bytes, size: int, *, body: bytes = b"") -> bytes:
    """A tar whose header states an arbitrary size, possibly negative."""
    info = tarfile.TarInfo("x")
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = struct.pack(">I", 0xFFFFFFFF if size < 0 else 0x80000000) + struct.pack(
        ">q", size
    )
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + body


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [-512, -(1 << 40), 1 << 40, (1 << 62)])
def test_impossible_size_is_refused(tmp_path, kind, size):
    for pack in ("tar", "tar.gz"):
        archive = tmp_path / f"a.{pack}"
        archive.write_bytes(SQUEEZE[pack](crafted(kind, size, body=bytes(4096))))
        assert_refused(archive, tmp_path, "refused|damaged")


@pytest.mark.parametrize("kind", TARS)
def test_headers_of_a_whole_tar_are_not_heaped_up(tmp_path, kind):
    """One is what `git archive` writes; each file may bring more, and they stay in memory."""

    def tar(count):
        header = tarfile.TarInfo.create_pax_global_header
        files = (header({f"note{n}": "v" * 1000}) + tarfile.TarInfo(f"{n}").tobuf() for n in count)
        return SQUEEZE[kind](b"".join(files) + bytes(1024))

    archive = tmp_path / f"a.{kind}"
    archive.write_bytes(tar(range(3)))
    assert set(tree_of(unpack(archive, tmp_path / "target"))) == {"0", "1", "2"}
    archive.write_bytes(tar(range(101)))
    assert_refused(archive, tmp_path, "global headers")


def test_negative_size_in_an_extended_header_is_refused(tmp_path):
    """Following it would loop on the same header forever."""
    info = tarfile.TarInfo("a")
    info.pax_headers = {"size": "-1024"}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    (tmp_path / "a.tar").write_bytes(data.getvalue())
    assert_refused(tmp_path / "a.tar", tmp_path, "a negative size|damaged")


def test_xz_that_needs_excessive_memory_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(tar_bytes(("a", b"1")), filters=filters, check=lzma.CHECK_NONE))
    header = bytearray(data[12 : 12 + (data[12] + 1) * 4 - 4])
    header[header.index(b"\x21\x01") + 2] = 38  # a dictionary of 2 GiB
    data[12 : 12 + len(header)] = header
    data[12 + len(header) : 16 + len(header)] = struct.pack("<I", zlib.crc32(header))
    (tmp_path / "a.tar.xz").write_bytes(data)
    assert_refused(tmp_path / "a.tar.xz", tmp_path, "[Mm]emory")


def test_image_of_implausible_size_in_an_archive_is_reported(tmp_path):
    image = bytearray(encode(np.zeros((4, 4), np.uint8), ".png"))
    image[16:24] = struct.pack(">II", 60_000, 60_000)
    image[29:33] = struct.pack(">I", zlib.crc32(image[12:29]))
    folder = two_folders(tmp_path / "source")
    members = dict(tree_of(folder))
    members |= {"images/9.png": bytes(image), "masks/9.png": members["masks/1.png"]}
    report = examine(archive_of(tmp_path / "a.zip", *members.items()))
    found = [f for f in report.findings if "images/9.png" in f.paths]
    assert any("too large" in f.message for f in found), report.findings
