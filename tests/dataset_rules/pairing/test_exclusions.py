import time

import numpy as np
import tifffile

from dataset_rules.masks.profile import Damage
from dataset_rules.pairing.exclusions import apply_exclusions
from dataset_rules.pairing.pairs import Pair, Pairing
from dataset_rules.rules.rules import Rules


def pairing(*images: str) -> Pairing:
    pairs = tuple(Pair(image, (f"m/{number}.png",), (None,)) for number, image in enumerate(images))
    return Pairing(pairs, (), (), (), ())


def aside(folder, *images):
    return apply_exclusions(folder, pairing(*images), lambda _: Damage("not read"), Rules())


def test_pairs_with_a_stack_are_excluded_and_the_others_kept(tmp_path):
    pages = np.zeros((3, 8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    result = aside(tmp_path, "a.tif", "b.png")
    assert result.stacks == ("a.tif", "m/0.png")
    assert [pair.image for pair in result.pairing.pairs] == ["b.png"]


def test_time_is_linear_in_the_number_of_pairs(tmp_path):
    started = time.process_time()
    result = aside(tmp_path, *(f"i/{number}.png" for number in range(20_000)))
    assert len(result.pairing.pairs) == 20_000
    assert time.process_time() - started < 3
