"""Training samples and data sets of drawn portraits."""

import shutil

import cv2
import numpy as np
import pytest

from data.lists import Pair, split_backgrounds
from data.portraits import PortraitDataset, TrainingSamples, validation_sets
from transforms import RandomHorizontalFlip, RandomRotation, RandomTranslate


class Augmented(TrainingSamples):
    """Samples of 64x64 pixels by their index alone."""

    input_shape, epoch = (64, 64), 0

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.sample(index, self.input_shape, self.epoch)


def augmented(root, backgrounds=None, **arguments):
    if backgrounds is not None:
        arguments["backgrounds"] = split_backgrounds(backgrounds)[0]
    return Augmented(PortraitDataset(root, "train").pairs, **arguments)


def no_deformation():
    """Deformations that move nothing."""
    rotation = RandomRotation(angle=0, scale=(1, 1))
    return RandomHorizontalFlip(0), rotation, RandomTranslate(shift=0)


def same(sample, other):
    return all(map(np.array_equal, sample, other))


def test_a_sample_without_deformation_is_the_photo_in_its_network_input(data_root):
    samples = augmented(data_root, deformation=no_deformation(), photometric_prob=0)
    for i in range(4):
        image, photometric, mask, edge = samples.sample(i, (96, 80))
        photo, photo_mask = PortraitDataset(data_root, "train").photo(i)
        assert photo.shape == (96, 80, 3) and photo_mask.shape == (96, 80)
        assert np.array_equal(image, photo) and np.array_equal(photometric, image)
        assert (mask != photo_mask).mean() < 0.01  # speckles are removed
        assert edge.any() and edge[:, [0, -1]].sum() == 0
        assert not edge[-1, 20:44].any()  # the body is cut by the lower frame


def test_no_edge_along_the_frame_of_a_photo_with_bars(list_root):
    samples = augmented(list_root, deformation=no_deformation(), photometric_prob=0)
    for i in range(4):
        _, _, mask, edge = samples.sample(i, (128, 64))  # the photos are 80x120
        rows = np.flatnonzero(mask.any(axis=1))
        last = rows[-1]  # of the photo, above a bar; the body is cut there
        if last > 120:
            continue
        columns = np.flatnonzero(mask[last])
        assert not edge[last - 2 : last + 3, columns[6] : columns[-6]].any() and edge.any()


def test_an_augmented_sample(data_root):
    dataset = augmented(data_root)
    agreement = []
    for i in range(len(dataset)):
        image, photometric, mask, edge = dataset[i]
        assert image.shape == photometric.shape == (64, 64, 3)
        assert mask.shape == edge.shape == (64, 64)
        assert image.dtype == photometric.dtype == edge.dtype == np.uint8
        assert mask.dtype == np.float32 and set(np.unique(mask)) <= {0, 1} and edge.max() <= 1
        # a drawn person is red: the mask must follow the pixels
        red = image[:, :, 2].astype(int) - image[:, :, 0] > 30
        agreement.append(np.mean(red == mask))
        inner = cv2.erode(mask, np.ones((7, 7)), borderValue=1)
        assert not (edge * inner).any()
    assert np.mean(agreement) > 0.98
    assert any(not np.array_equal(image, photometric) for image, photometric, _, _ in dataset)


def test_a_sample_depends_on_seed_epoch_and_index_only(data_root, backgrounds):
    options = {"backgrounds": backgrounds, "background_prob": 0.5, "negative_prob": 0.2}
    dataset, other = augmented(data_root, **options), augmented(data_root, **options)
    forward = [dataset[i] for i in range(12)]
    assert all(same(forward[i], other[i]) for i in reversed(range(12)))
    dataset.epoch = 1
    assert not any(same(forward[i], dataset[i]) for i in range(12))
    dataset.epoch = 0
    assert same(forward[3], dataset[3])
    assert not any(same(forward[i], augmented(data_root, seed=1, **options)[i]) for i in range(12))


def test_the_draw_does_not_depend_on_the_input_size(data_root):
    dataset = augmented(data_root)
    small = dataset[0]
    image, _, mask, _ = dataset.sample(0, (128, 128))
    assert image.shape == (128, 128, 3)
    halved = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(halved.astype(int) - small[0]).mean() < 6  # the same draw, larger
    assert mask.mean() == pytest.approx(small[2].mean(), abs=0.02)


def test_photometric_prob_is_the_fraction_of_changed_copies(data_root):
    def varied(prob):
        samples = augmented(data_root, photometric_prob=prob)
        drawn = [samples.sample(i, (64, 64), epoch) for epoch in range(3) for i in range(12)]
        return np.mean([(image != photometric).any() for image, photometric, _, _ in drawn])

    assert varied(0) == 0 and 0.2 < varied(0.5) < 0.8 and varied(1) > 0.8


def test_strength_zero_moves_nothing(data_root):
    deformation = (RandomRotation(angle=40, scale=(0.5, 1.5)), RandomTranslate(shift=0.2))
    samples = augmented(data_root, deformation=deformation)
    photo_mask = PortraitDataset(data_root, "train").photo(0)[1]
    assert (samples.sample(0, (96, 80), strength=0.0)[2] != photo_mask).mean() < 0.01
    assert (samples.sample(0, (96, 80), strength=1.0)[2] != photo_mask).mean() > 0.05


def test_soft_masks_stay_soft_and_hard_ones_hard(soft_root):
    files = str(soft_root / "photo.png"), str(soft_root / "mask.png")
    soft = Augmented([Pair(*files, soft=True)], deformation=no_deformation()).sample(0, (96, 96))
    assert soft[2].dtype == np.float32
    assert soft[2][10, 5] == 0 and soft[2][48, 5] == pytest.approx(0.4) and soft[2][90, 5] == 1
    # the boundary is where half of a pixel is person: between the lower thirds
    assert np.flatnonzero(soft[3][:, 48]).tolist() == pytest.approx(range(63, 65), abs=2)
    hard = Augmented([Pair(*files)], deformation=no_deformation())
    assert set(np.unique(hard.sample(0, (96, 96))[2])) == {0, 1}


def test_occluders_and_backgrounds_are_used_as_often_as_asked(data_root, backgrounds):
    def differing(part, **options):
        same = {"deformation": no_deformation(), "photometric_prob": 0, "backgrounds": backgrounds}
        plain, other = augmented(data_root, **same), augmented(data_root, **same, **options)
        return [bool((plain[i][part] != other[i][part]).any()) for i in range(12)]

    image, mask = 0, 2
    assert not any(differing(mask, occlusion_prob=1.0))  # an occluder changes no mask
    assert all(differing(image, occlusion_prob=1.0))
    assert 0 < sum(differing(image, occlusion_prob=0.5)) < 12
    assert 0 < sum(differing(image, background_prob=0.5)) < 12
    assert 0 < sum(differing(mask, negative_prob=0.5)) < 12


@pytest.mark.parametrize("name", ["background_prob", "negative_prob", "occlusion_prob"])
def test_probabilities_of_backgrounds_without_backgrounds_are_an_error(data_root, name):
    with pytest.raises(ValueError, match="give their folder as backgrounds"):
        augmented(data_root, **{name: 0.5})


def test_validation_lists_stay_apart(data_root, list_root, tmp_path):
    other = shutil.copytree(data_root, tmp_path / "other" / "drawn")
    sets = validation_sets([data_root, list_root, data_root])
    assert {name: len(each) for name, each in sets.items()} == {"drawn": 4}
    sets = validation_sets([data_root, other], "test")
    assert {name: len(each) for name, each in sets.items()} == {str(data_root): 4, str(other): 4}
    assert {name: len(each) for name, each in validation_sets([list_root]).items()} == {"val": 2}


def test_a_data_set_has_its_pairs_notes_and_photos(data_root, soft_root):
    shutil.copy(soft_root / "soft_list.txt", data_root)
    for name in ("photo.png", "mask.png"):
        shutil.copy(soft_root / name, data_root)
    dataset = PortraitDataset(data_root, "train")
    assert len(dataset) == len(dataset.pairs) == 13 and dataset.notes == []
    image, mask = dataset.photo(0)
    assert image.shape == (96, 80, 3) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
    _, mask = dataset.photo(12)
    assert mask.dtype == np.float32 and mask[45, 45] == pytest.approx(0.4)


def test_negative_samples_have_no_person(data_root, backgrounds):
    dataset = augmented(data_root, backgrounds=backgrounds, negative_prob=1.0)
    for i in range(12):
        image, _, mask, edge = dataset[i]
        assert not mask.any() and not edge.any()
        assert (image[:, :, 1].astype(int) - image[:, :, 2] > 60).mean() > 0.05  # green it is
    none = augmented(data_root, backgrounds=backgrounds, negative_prob=0.0)
    assert all(none[i][2].any() for i in range(12))


def test_background_prob(data_root, backgrounds):
    def green_fraction(probability):
        options = {"backgrounds": backgrounds, "background_prob": probability}
        images = [augmented(data_root, **options)[i][0].astype(int) for i in range(12)]
        return np.mean(
            [np.any(i[:, :, 1] - np.maximum(i[:, :, 0], i[:, :, 2]) > 60) for i in images]
        )

    assert green_fraction(0.0) == 0
    assert green_fraction(1.0) == 1


def test_the_cache_changes_no_sample(data_root, backgrounds, tmp_path):
    options = {"backgrounds": backgrounds, "background_prob": 0.5, "negative_prob": 0.1}
    plain = augmented(data_root, **options)
    cached = augmented(data_root, cache_dir=tmp_path / "cache", **options)
    for _ in range(2):
        assert all(same(plain[i], cached[i]) for i in range(12))
    assert 12 <= len(list((tmp_path / "cache").glob("*.npy"))) <= 12 + 18


def test_an_impossible_cache_folder_is_noted(data_root, tmp_path):
    (tmp_path / "file").write_text("")
    dataset = augmented(data_root, cache_dir=tmp_path / "file" / "cache")
    assert "No cache (" in dataset.notes[0]
    assert len(dataset[0]) == 4
