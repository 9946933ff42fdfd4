import numpy as np
import pytest

from portraitnet.images import mask_of
from transforms.edge import edge_of
from transforms.geometry import (
    fit_matrix,
    inside_of,
    rotation_matrix,
    stack,
    warp,
)


@pytest.mark.parametrize(("size", "width"), [(224, 4), (448, 8), (128, 2), (64, 2)])
def test_edge_is_a_band_on_the_contour_and_not_on_the_frame(size, width):
    mask = np.zeros((size, size), np.uint8)
    mask[:, size // 2 :] = 1  # a body cut by three sides of the frame
    edge = edge_of(mask)
    columns = np.flatnonzero(edge.any(axis=0))
    assert columns.tolist() == list(range(size // 2 - width // 2, size // 2 + width // 2))
    assert edge[:, columns].all()


def test_edge_of_an_empty_and_of_a_full_mask_is_empty():
    assert not edge_of(np.zeros((224, 224), np.uint8)).any()
    assert not edge_of(np.ones((224, 224), np.uint8)).any()


def test_edge_leaves_out_the_frame_of_a_letterboxed_photo():
    photo_mask = np.zeros((100, 60), np.uint8)
    photo_mask[40:] = 1  # cut by the left, lower and right frame
    for matrix in (np.eye(3), rotation_matrix(224, 224, 30, 0.7)):
        matrix = matrix @ fit_matrix((100, 60), (224, 224))
        photo = stack(np.zeros((100, 60, 3), np.uint8), photo_mask)
        mask = mask_of(warp(photo, matrix, 224, 224)[1])
        edge = edge_of(mask, inside_of((100, 60), matrix, (224, 224)))
        drawn = stack(np.repeat(edge[:, :, None], 3, axis=2) * np.uint8(255), edge)
        back, _ = warp(drawn, np.linalg.inv(matrix), 100, 60)
        rows = np.flatnonzero((back[:, 20:40, 0] > 127).any(axis=1))
        assert rows.min() >= 37 and rows.max() <= 42  # the top of the body alone
        assert edge.sum() > 0.8 * 4 * 60 * np.sqrt(np.linalg.det(matrix[:2, :2]))
