"""A smooth image and the mask of a disc in it, both 60x40."""

import cv2
import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def image(rng):
    clouds = cv2.GaussianBlur(rng.normal(size=(60, 40, 3)), (0, 0), 1.5)
    return cv2.normalize(clouds, None, 10, 245, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture
def mask():
    mask = np.zeros((60, 40), np.uint8)
    cv2.circle(mask, (15, 25), 10, 1, -1)
    return mask
