import cv2
import numpy as np
import pytest
from conftest import draw_portrait

from apps.video.smoothing import FLOOR, Smoother

SIZE = 64


def portrait():
    image, mask = draw_portrait(np.random.default_rng(0), SIZE, SIZE)
    return image, mask.astype(np.float32)


def noisy(probability, rng):
    return np.clip(probability + rng.normal(0, 0.1, probability.shape), 0, 1).astype(np.float32)


def test_the_first_frame_stays_unchanged():
    image, mask = portrait()
    assert np.array_equal(Smoother()(image, mask), mask)


def test_flicker_on_a_still_frame_shrinks_to_the_weight_of_the_new_mask():
    image, mask = portrait()
    rng = np.random.default_rng(1)
    # So far from 0 and 1 that nothing is clipped.
    frames = [noisy(0.4 + 0.2 * mask, rng) for _ in range(60)]
    smoother = Smoother()
    smoothed = [smoother(image, frame) for frame in frames]
    before, after = (np.abs(np.diff(each[30:], axis=0)).mean() for each in (frames, smoothed))
    # white noise through x += FLOOR * (new - x) keeps FLOOR / sqrt(2 - FLOOR) of its steps
    assert after / before == pytest.approx(FLOOR / np.sqrt(2 - FLOOR), rel=0.15)
    truth = 0.4 + 0.2 * mask
    assert np.abs(smoothed[-1] - truth).mean() < 0.5 * np.abs(frames[-1] - truth).mean()


def test_the_mask_moves_with_a_moving_photo():
    """The person moves 2 pixels per frame; an average without motion would leave a long trail."""
    image, mask = portrait()
    smoother = Smoother()
    for step in range(12):
        moved = np.roll(mask, 2 * step, axis=1)
        smoothed = smoother(np.roll(image, 2 * step, axis=1), moved)
    trailing = np.roll(mask, 2 * 11 - 2, axis=1)
    differs = trailing != moved
    assert np.abs(smoothed - moved)[differs].mean() < 0.25
    assert np.abs(smoothed - moved).mean() < 0.02


def test_nothing_remains_after_a_cut():
    image, mask = portrait()
    other = np.random.default_rng(2).integers(0, 255, image.shape, np.uint8)
    smoother = Smoother()
    for _ in range(5):
        smoother(image, mask)
    assert smoother(other, np.zeros_like(mask)).max() < 0.5


def test_a_second_look_does_not_interrupt_the_smoothing():
    """Its answers are larger than the input; frames before and after it have those of one look."""
    image, mask = portrait()
    smoother = Smoother()
    for side in (SIZE, 109, SIZE):
        answer = cv2.resize(mask, (side, side))
        for _ in range(5):
            smoother(image, answer)
        flickering = 0.3 * answer
        smoothed = smoother(image, np.where(answer > 0.5, answer - flickering, answer))
        assert smoothed.shape == (side, side)
        expected = answer - FLOOR * flickering
        assert np.abs(smoothed - expected)[answer == 1].mean() < 0.05


def test_a_person_who_leaves_a_flat_scene_leaves_no_ghost():
    """Person and wall have one colour, so that only the mask shows a change."""
    image, mask = portrait()
    flat = np.full_like(image, 90)
    smoother = Smoother()
    for _ in range(5):
        smoother(flat, mask)
    assert (smoother(flat, np.zeros_like(mask)) > 0.5).mean() < 0.02


def test_results_are_probabilities_and_inputs_stay_unchanged():
    image, mask = portrait()
    rng = np.random.default_rng(3)
    smoother = Smoother()
    for step in range(6):
        frame = noisy(np.roll(mask, 5 * step, axis=0), rng)
        kept = frame.copy()
        smoothed = smoother(np.roll(image, 5 * step, axis=0), frame)
        assert smoothed.dtype == np.float32 and smoothed.shape == mask.shape
        assert smoothed.min() >= 0 and smoothed.max() <= 1
        assert np.array_equal(frame, kept)
