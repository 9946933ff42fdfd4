import numpy as np

import transforms
from portraitnet.geometry import letterbox
from transforms import color, geometry


def test_degrade_depends_on_its_generator_alone(image):
    np.random.seed(0)
    first = transforms.degrade(image, np.random.default_rng(5))
    np.random.seed(1)
    assert np.array_equal(first, transforms.degrade(image, np.random.default_rng(5)))
    others = [transforms.degrade(image, np.random.default_rng(i)) for i in range(8)]
    assert sum(not np.array_equal(first, other) for other in others) >= 7


def test_degrade_keeps_the_bars_of_a_letterbox(image, rng):
    square, (top, left, height, width) = letterbox(image, 64)
    inside = np.zeros((64, 64), np.uint8)
    inside[top : top + height, left : left + width] = 1
    changed = 0
    for _ in range(10):
        photometric = transforms.degrade(square, rng, inside)
        assert (photometric[inside == 0] == 128).all()
        changed += not np.array_equal(photometric, square)
    assert changed >= 8


def test_every_class_is_exported():
    names = [name for name in (*vars(color), *vars(geometry)) if name.startswith("Random")]
    assert len(names) == 13 and {*names} <= {*transforms.__all__}
