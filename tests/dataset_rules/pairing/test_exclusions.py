import time

import numpy as np
import tifffile

from dataset_rules.masks.profile import Damage
from dataset_rules.pairing.exclusions import set_aside
from dataset_rules.pairing.pairs import Pair, Pairing
from dataset_rules.rules.rules import Rules


def pairing(*images: str) -> Pairing:
    pairs = tuple(Pair(image, (f"m/{number}.png",), (None,)) for number, image in enumerate(images))
    return Pairing(pairs, (), (), (), ())


def aside(folder, *images):
    return set_aside(folder, pairing(*images), lambda _: Damage("not looked at"), Rules())


def test_pairs_with_a_stack_are_left_out_and_the_others_stay(tmp_path):
    pages = np.zeros((3, 8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    made = aside(tmp_path, "a.tif", "b.png")
    assert made.stacks == ("a.tif", "m/0.png")
    assert [pair.image for pair in made.pairing.pairs] == ["b.png"]


def test_time_grows_with_the_pairs_and_not_with_their_square(tmp_path):
    begun = time.process_time()
    made = aside(tmp_path, *(f"i/{number}.png" for number in range(20_000)))
    assert len(made.pairing.pairs) == 20_000
    assert time.process_time() - begun < 3
