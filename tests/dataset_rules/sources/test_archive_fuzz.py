"""Mutated archives: no crash, no hang, no file outside the target, bounded memory.

`python THIS_FILE FIRST COUNT FOLDER` runs some of the cases and prints time and memory. Each test
runs it in a separate process to measure its memory.
"""

import json
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))  # when run as a script, without pytest

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.archive import unpack
from dataset_rules.sources.files import ArchiveFiles, open_files
from tests.memory import peak_bytes
from tests.messy import tree_of, two_folders
from tests.packing import KINDS, SQUEEZE, tar_bytes, zip_bytes

MAX_S = 5.0
MAX_RESIDENT_MIB = 300  # libraries alone take about 80
EXTREMES = [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"../../", b"/etc/", b"\0"]
FIELDS = [
    (0, 100),
    (124, 136),
    (156, 157),
    (157, 257),
    (257, 265),
    (345, 500),
]  # byte ranges of a tar header


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with random mutations."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 40])):
        at = rng.randrange(max(len(found), 1))
        match rng.randrange(6):
            case 0:
                found[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del found[at : at + rng.randrange(1, 600)]
            case 2:
                found[at:at] = rng.randbytes(rng.randrange(1, 600))
            case 3:
                other = rng.randrange(max(len(found), 1))
                found[at:at] = found[other : other + rng.randrange(1, 2000)]
            case 4:
                extreme = rng.choice(EXTREMES)
                found[at : at + len(extreme)] = extreme
            case 5 if rng.random() < 0.2:
                del found[at:]
    return bytes(found)


def hostile_tar(data: bytes, rng: random.Random) -> bytes:
    """A tar with mutated header fields but valid header checksums."""
    found = bytearray(data)
    starts = [n for n in range(0, len(found) - 512, 512) if found[n + 257 : n + 262] == b"ustar"]
    for start in rng.sample(starts, min(len(starts), rng.choice([1, 1, 3]))):
        first, end = rng.choice(FIELDS)
        at = start + rng.randrange(first, end)
        content = rng.choice(
            [*EXTREMES, b"x", b"L", b"K", b"2", b"3", b"S", b"g", rng.randbytes(4)]
        )
        found[at : at + len(content)] = content
        header = found[start : start + 512]
        header[148:156] = b" " * 8
        found[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(found)


def hostile_zip(data: bytes, rng: random.Random) -> bytes:
    """A zip with mutated fields in its central directory."""
    found = bytearray(data)
    starts = [
        n for n in range(len(found) - 4) if found[n : n + 4] in (b"PK\x01\x02", b"PK\x05\x06")
    ]
    for start in rng.sample(starts, min(len(starts), rng.choice([1, 1, 3]))):
        at = start + rng.randrange(4, 60)
        content = rng.choice([*EXTREMES, rng.randbytes(2)])
        found[at : at + len(content)] = content
    return bytes(found)


def hostile(kind: str, members: list[tuple[str, bytes]], rng: random.Random) -> bytes:
    """A malicious or damaged archive."""
    mutation = rng.randrange(3)
    if kind == "zip":
        whole = zip_bytes(*members)
        return hostile_zip(whole, rng) if mutation else mutated(whole, rng)
    whole = tar_bytes(*members)
    if mutation == 0:
        return mutated(SQUEEZE[kind](whole), rng)
    return SQUEEZE[kind](hostile_tar(whole, rng) if mutation == 1 else mutated(whole, rng))


def read_both_ways(archive: Path, target: Path) -> int:
    """Number of reading methods that accept the archive; the others must raise `RulesError`."""
    accepted = 0
    try:
        unpack(archive, target)
        accepted += 1
    except RulesError:
        assert not target.exists()
    try:
        with open_files(archive) as files:
            assert isinstance(files, ArchiveFiles)
            for path in files.sizes:
                try:
                    (files / path).read_bytes()
                except RulesError as error:
                    assert "damaged" in error.what  # noqa: PT017  one file of many
        accepted += 1
    except RulesError:
        pass
    return accepted


def run(first: int, count: int, folder: Path) -> dict[str, float]:
    """Read the archives with these seeds; return maximum time and memory."""
    members = sorted(tree_of(two_folders(folder / "source", count=2)).items())
    members.append(("a/notes " + "long " * 30 + ".txt", b"text" * 100))
    sandbox = folder / "sandbox"
    sandbox.mkdir()
    slowest = accepted = 0.0
    for number in range(first, first + count):
        rng = random.Random(number)
        kind = KINDS[number % len(KINDS)]
        archive = sandbox / f"a.{kind}"
        archive.write_bytes(hostile(kind, members, rng))
        started = time.monotonic()
        accepted += read_both_ways(archive, sandbox / "target")
        slowest = max(slowest, time.monotonic() - started)
        shutil.rmtree(sandbox / "target", ignore_errors=True)
        archive.unlink()
        assert not list(sandbox.iterdir()), number
    assert {path.name for path in folder.iterdir()} == {"source", "sandbox"}
    return {"slowest_s": slowest, "resident_mib": peak_bytes() >> 20, "accepted": accepted}


def fuzz(first: int, count: int, folder: Path) -> dict[str, float]:
    place = folder / "temporary"
    place.mkdir()
    work = folder / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, __file__, str(first), str(count), str(work)], capture_output=True,
        text=True, check=False, timeout=MAX_S * count, env={"TMPDIR": str(place)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(place.iterdir())
    found = json.loads(done.stdout)
    assert found["slowest_s"] < MAX_S, found
    assert found["resident_mib"] < MAX_RESIDENT_MIB, found
    assert 0 < found["accepted"] < 2 * count, found  # some are barely changed, most are refused
    return found


def test_60_mutated_archives_do_no_harm(tmp_path):
    fuzz(0, 60, tmp_path)


@pytest.mark.long
def test_500_mutated_archives_do_no_harm(tmp_path):
    fuzz(60, 500, tmp_path)


def test_mutated_headers_have_valid_checksums():
    """tarfile accepts headers with mutated fields."""
    whole = tar_bytes(*[(f"{n}", b"x") for n in range(5)])
    reached = 0
    for seed in range(40):
        try:
            info = tarfile.TarInfo.frombuf(
                hostile_tar(whole, random.Random(seed))[:512], "utf-8", "surrogateescape"
            )
        except tarfile.HeaderError:
            continue
        reached += info.name != "0" or info.size != 1 or not info.isreg()
    assert reached


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
