"""Decoded photos on disk: what is kept, what is decoded again."""

import multiprocessing
import os
import shutil

import cv2
import numpy as np
import pytest

from data import cache as cache_module
from data.cache import PhotoCache, cache_name, decode, default_cache_dir, read_pair
from data.lists import find_pairs
from portraitnet.images import read_image


def test_the_cache_is_read_and_follows_changes(data_root, tmp_path, monkeypatch):
    pair = find_pairs(data_root, "train")[0][0]
    cache = PhotoCache(tmp_path, 1e9)
    first = cache.photo(*pair)
    image = read_image(pair[0])
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "decode", None)  # not called if the file is there
        assert np.array_equal(cache.photo(*pair), first)
    cv2.imwrite(pair[0], 255 - image)
    os.utime(pair[0], (1, 1))  # another time, however coarse the disk's clock; and an earlier one
    assert np.array_equal(cache.photo(*pair)[:, :, :3], 255 - image)


def test_a_broken_cache_file_is_replaced(data_root, tmp_path):
    pair = find_pairs(data_root, "train")[0][0]
    whole = PhotoCache(tmp_path, 1e9).photo(*pair)
    path = tmp_path / cache_name(*pair)
    for content in (b"", path.read_bytes()[:1000], b"not an array"):
        path.write_bytes(content)
        assert np.array_equal(PhotoCache(tmp_path, 1e9).photo(*pair), whole)
        assert np.array_equal(np.load(path), whole)


def test_the_cache_is_bounded(data_root, tmp_path):
    pairs = find_pairs(data_root, "train")[0]
    size = decode(*pairs[0]).nbytes
    cache = PhotoCache(tmp_path, 3.5 * size)
    assert all(np.array_equal(cache.photo(*pair), decode(*pair)) for pair in pairs)
    assert len(list(tmp_path.glob("*.npy"))) == 3
    other = PhotoCache(tmp_path, 3.5 * size)  # another process sees what is there
    assert all(np.array_equal(other.photo(*pair), decode(*pair)) for pair in pairs)
    assert len(list(tmp_path.glob("*.npy"))) == 3


def test_a_vanished_cache_folder_only_costs_time(data_root, tmp_path):
    pairs = find_pairs(data_root, "train")[0]
    cache = PhotoCache(tmp_path / "cache", 1e9)
    cache.photo(*pairs[0])
    shutil.rmtree(tmp_path / "cache")
    assert all(np.array_equal(cache.photo(*pair), decode(*pair)) for pair in pairs)


def fill(folder, pairs):
    cache = PhotoCache(folder, 1e9)
    for pair in pairs:
        cache.photo(*pair)


def test_processes_may_use_one_cache(data_root, tmp_path):
    pairs = find_pairs(data_root, "train")[0]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill, args=(tmp_path / "cache", pairs)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    files = list((tmp_path / "cache").glob("*.npy"))
    assert len(files) == 12
    assert {np.load(path).shape for path in files} == {(96, 80, 4)}


def test_decode_reduces_large_photos_and_cleans_masks(tmp_path):
    image = np.full((1000, 600, 3), 50, np.uint8)
    mask = np.zeros((1000, 600), np.uint8)
    mask[500:] = 255
    mask[100, 100] = 255  # a speckle
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    photo = decode(tmp_path / "photo.png", tmp_path / "mask.png")
    assert photo.shape == (336, 202, 4) and photo.dtype == np.uint8
    assert photo[:166, :, 3].max() == 0 and photo[170:, :, 3].min() == 255
    assert decode(tmp_path / "photo.png")[:, :, 3].max() == 0


def test_the_majority_vote_is_for_hard_masks_only(tmp_path):
    """A hair, one pixel wide, is lost in a hard mask and stays in a soft one."""
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20] = 200
    paths = [str(tmp_path / name) for name in ("photo.png", "mask.png")]
    cv2.imwrite(paths[0], np.full((40, 40, 3), 90, np.uint8))
    cv2.imwrite(paths[1], mask)
    assert np.array_equal(decode(*paths, soft=True)[:, :, 3], mask)
    assert not decode(*paths)[:, :, 3].any()


def test_hard_and_soft_masks_of_a_photo_have_different_names(tmp_path):
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    photo.write_bytes(b"1"), mask.write_bytes(b"1")
    names = {cache_name(photo), cache_name(photo, mask), cache_name(photo, mask, soft=True)}
    mask.write_bytes(b"12")
    names.add(cache_name(photo, mask))
    assert len(names) == 4 and all(name.endswith(".npy") for name in names)


def test_the_folder_is_in_the_users_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "portraitnet" / "photos"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert default_cache_dir() == tmp_path / "user" / ".cache" / "portraitnet" / "photos"


def test_different_sizes_of_photo_and_mask_are_an_error(data_root):
    paths = [str(data_root / folder / "00000.png") for folder in ("Images", "Labels")]
    cv2.imwrite(paths[1], np.ones((10, 12), np.uint8))
    message = r"has 80x96 pixels and its mask .*00000\.png 12x10: give the mask"
    for read in (read_pair, decode):
        with pytest.raises(ValueError, match=message):
            read(*paths)


def test_a_mask_is_hard_unless_it_is_called_soft(soft_root):
    paths = soft_root / "photo.png", soft_root / "mask.png"
    _, hard = read_pair(*paths)
    _, soft = read_pair(*paths, soft=True)
    assert hard.dtype == np.uint8 and set(np.unique(hard)) == {0, 1}
    assert soft.dtype == np.float32 and np.unique(soft) == pytest.approx([0, 0.4, 1])
