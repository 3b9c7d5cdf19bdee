"""Mutated image files: no crash, no hang, bounded memory, no stray writes."""

import io
import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import read_header, read_image
from dataset_rules.pixels.png import encode_png
from tests.messy import tissue, tree_of, two_folders

ROOT = Path(__file__).parents[3]

MAX_S, MAX_BYTES = 5.0, 1 << 30
EXTREMES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF]
DEEP = (np.arange(48 * 64) * 21).astype(np.uint16).reshape(48, 64)


def pillow_bytes(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tifffile_bytes(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def valid_files():
    """Suffix and bytes of files in every supported format."""
    color = Image.fromarray(tissue(1, size=64)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    modes = [
        pillow_bytes(color.convert(mode), "PNG") for mode in ("1", "L", "P", "LA", "RGBA", "RGB")
    ]
    pngs = [*modes, encode_png(DEEP), encode_png(np.dstack([DEEP] * 3))]
    jpegs = [pillow_bytes(color.convert(mode), "JPEG") for mode in ("L", "CMYK", "RGB")]
    jpegs += [pillow_bytes(color, "JPEG", exif=exif), pillow_bytes(color, "JPEG", progressive=True)]
    compressions = ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    tiffs = [pillow_bytes(color, "TIFF", compression=name) for name in compressions]
    tiffs += [tifffile_bytes(DEEP), tifffile_bytes(np.dstack([DEEP] * 3), tile=(16, 16)),
              tifffile_bytes(np.stack([DEEP] * 3), photometric="rgb", planarconfig="separate"),
              tifffile_bytes(DEEP.astype(np.float32)),
              tifffile_bytes(np.stack([DEEP] * 5), photometric="minisblack")]  # fmt: skip
    bmps = [pillow_bytes(color.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB")]
    kinds = ((".png", pngs), (".jpg", jpegs), (".tif", tiffs), (".bmp", bmps))
    return [(suffix, data) for suffix, files in kinds for data in files]


def mutated(data, suffix, rng):
    """The bytes with one to six mutations."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place = int(len(changed) * rng.random() ** rng.choice([1, 4]))  # biased towards the header
        match rng.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                order = rng.choice("<>") + rng.choice("HI")
                extreme = rng.choice(EXTREMES) & (0xFFFF if order[1] == "H" else 0xFFFFFFFF)
                struct.pack_into(order, changed, min(place, len(changed) - 4), extreme)
            case 2:
                del changed[place : place + rng.randint(1, 40)]
            case 3:
                changed[place:place] = changed[place : place + rng.randint(1, 40)]
            case 4:
                changed[place:place] = rng.randbytes(rng.randint(1, 40))
            case _ if rng.random() < 0.3:
                del changed[max(8, place) :]
        if len(changed) < 12:
            break
    return with_valid_checksums(bytes(changed)) if suffix == ".png" else bytes(changed)


def with_valid_checksums(data):
    """Fix the PNG's chunk checksums, so that the mutation reaches the decoder."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        parts.append(data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        at += 12 + length
    return b"".join([*parts, data[at:]])


READ_ALL = """
import json, sys, time
from pathlib import Path
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import read_header, read_image, read_mask
from tests.memory import peak_bytes

slowest, counts = ("", 0.0), {"read": 0, "refused": 0}
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, file=sys.stderr)  # after a crash, the last line is the offending file
    for read in (read_header, read_image, read_mask):
        started = time.process_time()
        try:
            read(path)
            counts["read"] += 1
        except RulesError:
            counts["refused"] += 1
        slowest = max(slowest, (path.name, time.process_time() - started), key=lambda item: item[1])
print(json.dumps({"slowest": slowest, "peak_bytes": peak_bytes(), **counts}))
"""


def read_mutants(folder, count, *, seed=0):
    """Write mutated files and read them in a subprocess."""
    folder.mkdir()
    rng, valid = random.Random(seed), valid_files()
    for number in range(count):
        suffix, data = valid[number % len(valid)]
        (folder / f"{number:05}{suffix}").write_bytes(mutated(data, suffix, rng))
    before = tree_of(folder)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", READ_ALL, str(folder)],
        cwd=ROOT,
        capture_output=True, text=True, timeout=MAX_S * count, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert tree_of(folder) == before
    return json.loads(done.stdout)


def check_mutants(folder, count):
    found = read_mutants(folder, count)
    assert found["slowest"][1] < MAX_S
    assert found["peak_bytes"] < MAX_BYTES
    assert found["read"] > count // 10 and found["refused"] > count // 10


def test_mutated_files_are_read_or_refused(tmp_path):
    check_mutants(tmp_path / "files", 100)


@pytest.mark.long
def test_five_thousand_mutated_files_are_read_or_refused(tmp_path):
    check_mutants(tmp_path / "files", 5_000)


def test_formatter_refuses_mutated_files_and_writes_nothing(tmp_path):
    source = two_folders(tmp_path / "source", 12)
    rng = random.Random(1)
    for path in sorted(source.rglob("*.png"))[::2]:
        path.write_bytes(mutated(path.read_bytes(), ".png", rng))
    before = tree_of(source)
    run = "import sys; from pathlib import Path\n"
    run += "from dataset_rules.formatting.format import format_dataset\n"
    run += "from dataset_rules.rules.rules import Rules\n"
    run += "format_dataset(Path(sys.argv[1]), Path(sys.argv[2]), Rules(), jobs=1)"
    done = subprocess.run(
        [sys.executable, "-c", run, str(source), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "RulesError: " in done.stderr
    assert tree_of(source) == before
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def png_head(width, height):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return encode_png(np.zeros((1, 1, 3), np.uint8)).replace(
        struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), head
    )


@pytest.mark.parametrize(
    ("size", "why"),
    [((2**31 - 1, 2**31 - 1), "too large"), ((40_000, 40_000), "too large"),
     ((30_000, 30_000), "more pixels than the file can hold")],
)  # fmt: skip
def test_implausible_size_in_the_header_is_refused(tmp_path, size, why):
    path = tmp_path / "a.png"
    path.write_bytes(with_valid_checksums(png_head(*size)))
    for read in (read_header, read_image):
        with pytest.raises(RulesError, match=why):
            read(path)


def test_large_blank_image_is_accepted(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(np.zeros((5000, 5000), np.uint8)))
    assert read_header(path).size_px == (5000, 5000)
