import multiprocessing
import os
import shutil
import sys

import cv2
import numpy as np
import pytest
from conftest import draw_portrait

import check
from data import cache as cache_module
from data.cache import PhotoCache, cache_name, decode
from data.lists import Pair, find_pairs, read_lists, split_backgrounds
from data.loader import load_batches, worker_init
from data.portraits import PortraitDataset, TrainingSamples, validation_sets
from portraitnet.images import read_image, read_mask, write_image
from transforms import RandomHorizontalFlip, RandomRotation, RandomTranslate
from transforms.compose import swap_background


@pytest.fixture
def list_root(tmp_path):
    """A tree in the list layout: 20 training photos, JPEG, and no validation list."""
    rng, root = np.random.default_rng(7), tmp_path / "listed"
    (root / "my photos").mkdir(parents=True)
    lines = []
    for i in range(20):
        image, mask = draw_portrait(rng, 80, 120)
        cv2.imwrite(str(root / "my photos" / f"{i}.jpg"), image)
        cv2.imwrite(str(root / f"{i}_mask.png"), mask)
        lines.append(f"my photos/{i}.jpg\t{i}_mask.png\n")
    (root / "train_list.txt").write_text("".join(lines) + "\n")
    return root


@pytest.fixture
def backgrounds(tmp_path):
    """Twenty plain green photos."""
    folder = tmp_path / "backgrounds"
    folder.mkdir()
    for i in range(20):
        cv2.imwrite(str(folder / f"{i:02d}.png"), np.full((90, 130, 3), (0, 200 + i, 0), np.uint8))
    return folder


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


def still(flip=0.0):
    """A deformation that moves nothing."""
    return (
        RandomHorizontalFlip(flip),
        RandomRotation(angle=0, scale=(1, 1)),
        RandomTranslate(shift=0),
    )


def same(sample, other):
    return all(map(np.array_equal, sample, other))


# lists


def test_official_layout(data_root):
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        dataset = PortraitDataset(data_root, split)
        assert len(dataset) == len(dataset.pairs) == count and dataset.notes == []
    image_path, mask_path, _ = PortraitDataset(str(data_root), "val").pairs[0]
    assert mask_path.startswith(str(data_root)) and image_path == str(
        data_root / "Images" / "00012.png"
    )
    assert mask_path == str(data_root / "Labels" / "00012.png")


def test_listed_suffix_may_differ_from_the_file(data_root):
    image = cv2.imread(str(data_root / "Images" / "00000.png"))
    cv2.imwrite(str(data_root / "Images" / "00000.jpg"), image)
    (data_root / "Images" / "00000.png").unlink()  # listed as .png, lies there as .jpg
    text = (data_root / "eg1800_train.txt").read_text().replace("00001.png", "00001.jpg")
    (data_root / "eg1800_train.txt").write_text(text)  # and the other way round
    pairs = PortraitDataset(data_root, "train").pairs
    assert [pair[0][-9:] for pair in pairs[:2]] == ["00000.jpg", "00001.png"]
    assert [pair[1][-9:] for pair in pairs[:2]] == ["00000.png", "00001.png"]


def test_validation_photos_are_split_off_by_seed_and_said(list_root):
    train, val = (PortraitDataset(list_root, split) for split in ("train", "val"))
    assert len(train) == 18 and len(val) == 2
    assert set(train.pairs) | set(val.pairs) == set(read_lists(list_root)["train"])
    assert len(val.notes) == 1
    assert "2 of the 20 training photos are kept for validation (seed 0)" in val.notes[0]
    assert PortraitDataset(list_root, "val").pairs == val.pairs
    others = [PortraitDataset(list_root, "val", seed=seed).pairs for seed in range(1, 5)]
    assert any(other != val.pairs for other in others)


def test_a_root_without_validation_list_only_trains(data_root, list_root):
    both = [data_root, list_root]
    assert len(PortraitDataset(both, "train")) == 32
    assert PortraitDataset(both, "val").pairs == PortraitDataset(data_root, "val").pairs
    assert PortraitDataset(both, "val").notes == []


def test_errors_say_what_to_do(data_root, list_root, tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*nowhere: give the folder"):
        PortraitDataset(tmp_path / "nowhere", "train")
    with pytest.raises(FileNotFoundError, match="it needs eg1800_train.txt beside Images/"):
        PortraitDataset(data_root / "Images", "train")
    with pytest.raises(ValueError, match="no split 'valid': choose one of train, val, test"):
        PortraitDataset(data_root, "valid")
    with pytest.raises(FileNotFoundError, match="No test photos .* there are train and val photos"):
        PortraitDataset(list_root, "test")
    with pytest.raises(ValueError, match="give their folder as backgrounds"):
        augmented(data_root, background_prob=0.5)
    with pytest.raises(FileNotFoundError, match="has 0 photos: backgrounds need a folder"):
        augmented(data_root, backgrounds=tmp_path / "nowhere")
    (data_root / "Labels" / "00003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 listed files are missing.*00003\.png.*--data"):
        PortraitDataset(data_root, "train")
    (list_root / "train_list.txt").write_text("my photos/1.jpg 1_mask.png\n")
    with pytest.raises(ValueError, match="line 1 is .*: write `image mask`"):
        PortraitDataset(list_root, "train")


def test_every_wrong_line_of_every_list_is_named(list_root):
    (list_root / "train_list.txt").write_text("a.jpg a.png\nb.jpg\n\nc d e\n")
    (list_root / "val_list.txt").write_text("f.jpg\n" * 23)
    with pytest.raises(ValueError) as error:
        PortraitDataset(list_root, "train")
    train, val = str(error.value).splitlines()
    assert "train_list.txt line 2 is 'b.jpg', line 4 is 'c d e': write `image mask`" in train
    assert "val_list.txt line 1 is" in val and "line 20 is 'f.jpg' and 3 more: write" in val


# samples


def test_a_still_sample_is_the_photo_in_its_view(data_root):
    samples = augmented(data_root, deformation=still(), photometric_prob=0)
    for i in range(4):
        image, photometric, mask, edge = samples.sample(i, (96, 80))
        photo, photo_mask = PortraitDataset(data_root, "train").photo(i)
        assert photo.shape == (96, 80, 3) and photo_mask.shape == (96, 80)
        assert np.array_equal(image, photo) and np.array_equal(photometric, image)
        assert (mask != photo_mask).mean() < 0.01  # speckles go
        assert edge.any() and edge[:, [0, -1]].sum() == 0
        assert not edge[-1, 20:44].any()  # the body is cut by the lower frame


def test_no_edge_along_the_frame_of_a_photo_with_bars(list_root):
    samples = augmented(list_root, deformation=still(), photometric_prob=0)
    for i in range(4):
        _, _, mask, edge = samples.sample(i, (128, 64))  # the photos are 80x120
        rows = np.flatnonzero(mask.any(axis=1))
        last = rows[-1]  # of the photo, above a bar; the body is cut there
        if last > 120:
            continue
        columns = np.flatnonzero(mask[last])
        assert not edge[last - 2 : last + 3, columns[6] : columns[-6]].any() and edge.any()


def test_augmented_sample(data_root):
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


def test_sample_depends_on_seed_epoch_and_index_alone(data_root, backgrounds):
    options = {"backgrounds": backgrounds, "background_prob": 0.5, "negative_prob": 0.2}
    dataset, other = augmented(data_root, **options), augmented(data_root, **options)
    forward = [dataset[i] for i in range(12)]
    assert all(same(forward[i], other[i]) for i in reversed(range(12)))
    dataset.epoch = 1
    assert not any(same(forward[i], dataset[i]) for i in range(12))
    dataset.epoch = 0
    assert same(forward[3], dataset[3])
    assert not any(same(forward[i], augmented(data_root, seed=1, **options)[i]) for i in range(12))


def test_workers_give_the_same_samples(data_root):
    samples = augmented(data_root)
    steps = [((64, 32), [7, 0, 3]), ((32, 64), [11, 2, 5]), ((64, 64), [1, 4]), ((32, 32), [8])]
    batches = list(load_batches(samples, steps, epoch=2, strength=0.5, num_workers=2))
    assert len(batches) == len(steps)
    for (network_input, indices), batch in zip(steps, batches):
        for place, i in enumerate(indices):
            assert same([array[place] for array in batch], samples.sample(i, network_input, 2, 0.5))


def test_a_photo_that_a_worker_cannot_read_is_named(data_root):
    (data_root / "Images" / "00002.png").write_bytes(b"no picture")
    dataset = augmented(data_root)
    with pytest.raises(ValueError, match="00002.png is not a readable picture"):
        steps = [((64, 64), indices) for indices in ([0, 1], [2, 3], [4, 5])]
        list(load_batches(dataset, steps, 0, 1.0, num_workers=2))


def test_workers_end_with_an_interrupted_epoch(data_root):
    steps = [((64, 64), [0, 1])] * 20
    loader = load_batches(augmented(data_root), steps, 0, 1.0, num_workers=2)
    next(loader)
    loader.close()
    assert not multiprocessing.active_children()


def test_the_draw_does_not_depend_on_the_size_of_the_view(data_root):
    dataset = augmented(data_root)
    small = dataset[0]
    image, _, mask, _ = dataset.sample(0, (128, 128))
    assert image.shape == (128, 128, 3)
    halved = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(halved.astype(int) - small[0]).mean() < 6  # the same draw, larger
    assert mask.mean() == pytest.approx(small[2].mean(), abs=0.02)


def test_texture_prob_is_the_share_of_varied_samples(data_root):
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


# soft masks


@pytest.fixture
def soft_root(tmp_path):
    """One photo whose mask is a share: 0, 40 % or all of a pixel, each on a third."""
    root, share = tmp_path / "soft", np.zeros((90, 90), np.uint8)
    share[30:60], share[60:] = 102, 255
    write_image(root / "photo.png", np.full((90, 90, 3), 90, np.uint8))
    write_image(root / "mask.png", share)
    (root / "soft_list.txt").write_text("photo.png mask.png\n")
    return root


def test_soft_masks_stay_soft_and_hard_ones_hard(soft_root):
    files = str(soft_root / "photo.png"), str(soft_root / "mask.png")
    soft = Augmented([Pair(*files, soft=True)], deformation=still()).sample(0, (96, 96))
    assert soft[2].dtype == np.float32
    assert soft[2][10, 5] == 0 and soft[2][48, 5] == pytest.approx(0.4) and soft[2][90, 5] == 1
    # the boundary is where half of a pixel is person: between the lower thirds
    assert np.flatnonzero(soft[3][:, 48]).tolist() == pytest.approx(range(63, 65), abs=2)
    hard = Augmented([Pair(*files)], deformation=still())
    assert set(np.unique(hard.sample(0, (96, 96))[2])) == {0, 1}


def test_a_soft_list_adds_to_the_training_photos_alone(data_root, soft_root):
    for name in ("photo.png", "mask.png", "soft_list.txt"):
        shutil.copy(soft_root / name, data_root / name)
    train = PortraitDataset(data_root, "train")
    assert len(train) == 13 and [pair.soft for pair in train.pairs] == [False] * 12 + [True]
    assert not any(pair.soft for pair in PortraitDataset(data_root, "val").pairs)
    image, mask = train.photo(12)
    assert mask.dtype == np.float32 and mask[45, 45] == pytest.approx(0.4)


def test_check_names_a_soft_mask_that_is_none(soft_root, capsys):
    assert check.main(["--data_root", str(soft_root)]) == 0
    write_image(soft_root / "mask.png", np.eye(90, dtype=np.uint8))
    assert check.main(["--data_root", str(soft_root)]) == 1
    assert "no soft mask" in capsys.readouterr().out


def test_validation_photos_are_split_off_the_drawn_masks(list_root, soft_root):
    lines = "".join(f"{soft_root}/photo.png {soft_root}/mask.png\n" for _ in range(50))
    (list_root / "soft_list.txt").write_text(lines)
    val = PortraitDataset(list_root, "val")
    assert len(val) == 2 and not any(pair.soft for pair in val.pairs)
    assert len(PortraitDataset(list_root, "train")) == 68


# other persons and things


def test_pastes_are_used_as_often_as_asked(data_root, backgrounds):
    def differing(part, **options):
        same = {"deformation": still(), "photometric_prob": 0, "backgrounds": backgrounds}
        plain, other = augmented(data_root, **same), augmented(data_root, **same, **options)
        return [bool((plain[i][part] != other[i][part]).any()) for i in range(12)]

    image, mask = 0, 2
    assert not any(differing(mask, occlusion_prob=1.0))  # a thing changes no mask
    assert all(differing(image, occlusion_prob=1.0))
    assert 0 < sum(differing(image, occlusion_prob=0.5)) < 12
    assert 0 < sum(differing(image, background_prob=0.5)) < 12
    assert 0 < sum(differing(mask, negative_prob=0.5)) < 12
    with pytest.raises(ValueError, match="give their folder as backgrounds"):
        augmented(data_root, occlusion_prob=0.5)


# several lists


def test_validation_lists_stay_apart(data_root, list_root, tmp_path):
    other = shutil.copytree(data_root, tmp_path / "other" / "drawn")
    sets = validation_sets([data_root, list_root, data_root])
    assert {name: len(each) for name, each in sets.items()} == {"drawn": 4}
    sets = validation_sets([data_root, other], "test")
    assert {name: len(each) for name, each in sets.items()} == {str(data_root): 4, str(other): 4}
    assert {name: len(each) for name, each in validation_sets([list_root]).items()} == {"val": 2}


def test_different_sizes_of_photo_and_mask_are_an_error(data_root):
    path = data_root / "Labels" / "00000.png"
    cv2.imwrite(str(path), np.ones((10, 12), np.uint8))
    message = r"has 80x96 pixels and its mask .*00000\.png 12x10: give the mask"
    with pytest.raises(ValueError, match=message):
        augmented(data_root)[0]
    with pytest.raises(ValueError, match=message):
        PortraitDataset(data_root, "train").photo(0)


# backgrounds


def test_every_tenth_background_is_held_out(backgrounds, data_root):
    train, held_out = split_backgrounds(backgrounds)
    assert [path[-6:] for path in held_out] == ["00.png", "10.png"]
    assert len(train) == 18 and not set(train) & set(held_out)
    assert [
        p.image_path for p in augmented(data_root, backgrounds=backgrounds).backgrounds
    ] == train


def test_empty_share(data_root, backgrounds):
    dataset = augmented(data_root, backgrounds=backgrounds, negative_prob=1.0)
    for i in range(12):
        image, _, mask, edge = dataset[i]
        assert not mask.any() and not edge.any()
        assert (image[:, :, 1].astype(int) - image[:, :, 2] > 60).mean() > 0.05  # green it is
    none = augmented(data_root, backgrounds=backgrounds, negative_prob=0.0)
    assert all(none[i][2].any() for i in range(12))


def test_swapped_background_keeps_the_person():
    rng = np.random.default_rng(0)
    image, mask = draw_portrait(rng, 200, 160)
    photo = cv2.merge([image, mask * np.uint8(255)])
    green = cv2.merge([np.full((90, 130), value, np.uint8) for value in (0, 200, 0, 0)])
    swapped = swap_background(photo, green, rng)
    assert np.array_equal(swapped[:, :, 3], photo[:, :, 3])
    inner = cv2.erode(mask, np.ones((7, 7)), borderValue=1) == 1
    outer = cv2.dilate(mask, np.ones((7, 7))) == 0
    assert np.array_equal(swapped[:, :, :3][inner], image[inner])
    assert swapped[:, :, [0, 2]][outer].max() == 0 and swapped[:, :, 1][outer].min() > 100
    # feathered: the step from person to background is spread over several pixels
    step = np.abs(np.diff(swapped[150, :, 2].astype(int)))
    assert step.max() < 0.7 * image[150, :, 2].max()


def test_background_prob(data_root, backgrounds):
    def green_fraction(probability):
        options = {"backgrounds": backgrounds, "background_prob": probability}
        images = [augmented(data_root, **options)[i][0].astype(int) for i in range(12)]
        return np.mean(
            [np.any(i[:, :, 1] - np.maximum(i[:, :, 0], i[:, :, 2]) > 60) for i in images]
        )

    assert green_fraction(0.0) == 0
    assert green_fraction(1.0) == 1


# cache


def test_cache_changes_no_sample(data_root, backgrounds, tmp_path):
    options = {"backgrounds": backgrounds, "background_prob": 0.5, "negative_prob": 0.1}
    plain = augmented(data_root, **options)
    cached = augmented(data_root, cache_dir=tmp_path / "cache", **options)
    for _ in range(2):
        assert all(same(plain[i], cached[i]) for i in range(12))
    assert 12 <= len(list((tmp_path / "cache").glob("*.npy"))) <= 12 + 18


def test_cache_is_read_and_follows_changes(data_root, tmp_path, monkeypatch):
    pair = find_pairs(data_root, "train")[0][0]
    cache = PhotoCache(tmp_path, 1e9)
    first = cache.photo(*pair)
    image = read_image(pair[0])
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "decode", None)  # not called when the file is there
        assert np.array_equal(cache.photo(*pair), first)
    cv2.imwrite(pair[0], 255 - image)
    os.utime(pair[0], (1, 1))  # another time, however coarse the disk's clock; and an earlier one
    assert np.array_equal(cache.photo(*pair)[:, :, :3], 255 - image)


def test_broken_cache_file_is_replaced(data_root, tmp_path):
    pair = find_pairs(data_root, "train")[0][0]
    whole = PhotoCache(tmp_path, 1e9).photo(*pair)
    path = tmp_path / cache_name(*pair)
    for content in (b"", path.read_bytes()[:1000], b"not an array"):
        path.write_bytes(content)
        assert np.array_equal(PhotoCache(tmp_path, 1e9).photo(*pair), whole)
        assert np.array_equal(np.load(path), whole)


def test_cache_is_bounded(data_root, tmp_path):
    pairs = find_pairs(data_root, "train")[0]
    size = decode(*pairs[0]).nbytes
    cache = PhotoCache(tmp_path, 3.5 * size)
    assert all(np.array_equal(cache.photo(*pair), decode(*pair)) for pair in pairs)
    assert len(list(tmp_path.glob("*.npy"))) == 3
    other = PhotoCache(tmp_path, 3.5 * size)  # another process sees what is there
    assert all(np.array_equal(other.photo(*pair), decode(*pair)) for pair in pairs)
    assert len(list(tmp_path.glob("*.npy"))) == 3


def test_vanished_cache_folder_only_costs_time(data_root, tmp_path):
    pairs = find_pairs(data_root, "train")[0]
    cache = PhotoCache(tmp_path / "cache", 1e9)
    cache.photo(*pairs[0])
    shutil.rmtree(tmp_path / "cache")
    assert all(np.array_equal(cache.photo(*pair), decode(*pair)) for pair in pairs)


def test_impossible_cache_folder_is_noted(data_root, tmp_path):
    (tmp_path / "file").write_text("")
    dataset = augmented(data_root, cache_dir=tmp_path / "file" / "cache")
    assert "No cache (" in dataset.notes[0]
    assert len(dataset[0]) == 4


def fill(folder, pairs):
    cache = PhotoCache(folder, 1e9)
    for pair in pairs:
        cache.photo(*pair)


@pytest.mark.skipif(sys.platform != "linux", reason="no Linux")
def test_a_worker_without_its_training_ends():
    """The training may end after it has forked a worker, and before that asks for a signal."""
    context = multiprocessing.get_context("fork")
    codes = []
    for training in (os.getpid(), os.getppid()):  # its parent, and who is not
        worker = context.Process(target=worker_init, args=(None, training))
        worker.start()
        worker.join()
        codes.append(worker.exitcode)
    assert codes == [0, 1]


def test_processes_share_a_cache(data_root, tmp_path):
    pairs = find_pairs(data_root, "train")[0]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill, args=(tmp_path / "cache", pairs)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    files = list((tmp_path / "cache").iterdir())
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


# the check


def test_check_of_a_good_data_set(data_root, list_root, capsys):
    assert check.main(["--data_root", str(data_root), str(list_root)]) == 0
    output = capsys.readouterr().out
    assert f"{data_root} train: 12 pairs\n" in output
    assert "0 problems in 40 pairs" in output
    assert check.main(["--data_root", str(data_root), "--split", "val"]) == 0
    assert "0 problems in 4 pairs" in capsys.readouterr().out


def test_check_names_every_problem(data_root, capsys):
    images, labels = data_root / "Images", data_root / "Labels"
    (images / "00000.png").unlink()
    (labels / "00001.png").write_bytes(b"no picture")
    cv2.imwrite(str(labels / "00002.png"), np.ones((5, 6), np.uint8) * np.eye(5, 6, dtype=np.uint8))
    cv2.imwrite(str(labels / "00003.png"), np.zeros((96, 80), np.uint8))
    cv2.imwrite(str(labels / "00004.png"), np.full((96, 80), 255, np.uint8))
    shutil.copy(images / "00005.png", images / "00013.png")  # train and val
    cv2.imwrite(str(labels / "00013.png"), read_mask(labels / "00005.png") * 255)
    assert check.main(["--data_root", str(data_root)]) == 1
    output = capsys.readouterr().out
    for line in (
        f"missing: {images / '00000.png'}",
        f"unreadable: {labels / '00001.png'}",
        f"different sizes: {images / '00002.png'} and {labels / '00002.png'}, 80x96 and 6x5",
        f"empty mask: {labels / '00003.png'}",
        f"full mask: {labels / '00004.png'}",
        f"duplicate: {images / '00013.png'} (val) has the content of "
        f"{images / '00005.png'} (train)",
        "6 problems in 20 pairs",
    ):
        assert line in output


def test_check_names_inverted_masks_and_pairs_listed_twice(data_root, capsys):
    label, image = data_root / "Labels" / "00002.png", data_root / "Images" / "00013.png"
    cv2.imwrite(str(label), 255 - 255 * read_mask(label))
    with open(data_root / "eg1800_train.txt", "a") as file:
        file.write("00013.png\n")
    assert check.main(["--data_root", str(data_root), f"{data_root}"]) == 1
    message = capsys.readouterr().out
    assert f"inverted mask? {label}: the frame is mostly person" in message
    assert f"listed twice: {image} (val) and {image} (train)" in message
    assert "2 problems in 21 pairs" in message


def test_check_of_no_data_set_is_one_sentence(tmp_path, capsys):
    assert check.main(["--data_root", str(tmp_path)]) == 1
    assert "has no list of photos" in capsys.readouterr().err
