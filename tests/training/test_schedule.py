"""The course of a training, in numbers computed by hand."""

import pytest

from portraitnet.geometry import input_shape
from training.schedule import ASPECTS, Schedule, epoch_sizes


def schedule(epochs, **settings):
    return Schedule(epochs=epochs, batch_size=4, sizes=(64,) * epochs, lr=1, **settings)


def test_the_learning_rate_warms_up_and_falls():
    course = schedule(10)
    rates = [course.learning_rate(epoch) for epoch in (0, 0.25, 0.5, 5.25, 10)]
    assert rates == pytest.approx([0.002, 0.502, 1, 0.5, 0], abs=1e-6)


def test_a_constant_learning_rate_only_warms_up():
    course = schedule(10, lr_schedule="constant")
    rates = [course.learning_rate(epoch) for epoch in (0.25, 0.5, 9)]
    assert rates == pytest.approx([0.502, 1, 1])


def test_the_papers_learning_rate_falls_by_a_twentieth_every_twenty_epochs():
    course = schedule(100, lr_schedule="step")
    rates = [course.learning_rate(epoch) for epoch in (0, 19.9, 20, 45)]
    assert rates == pytest.approx([1, 1, 0.95, 0.95**2])


def test_geometry_falls_evenly_to_its_final_strength():
    course = schedule(5, final_geometry=0.2)
    strengths = [course.geometry_strength(epoch) for epoch in range(5)]
    assert strengths == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert schedule(1, final_geometry=0.2).geometry_strength(0) == 1
    assert schedule(2, final_geometry=0.2).geometry_strength(1) == pytest.approx(0.2)
    assert [schedule(3).geometry_strength(epoch) for epoch in range(3)] == [1, 1, 1]


def test_every_epoch_sees_each_photo_once_in_another_order():
    course = schedule(2)

    def indices(steps):
        return sum((batch for _, batch in steps), [])

    first, second = (course.steps(12, epoch) for epoch in (0, 1))
    assert sorted(indices(first)) == sorted(indices(second)) == list(range(12))
    assert indices(first) != indices(second)
    assert indices(schedule(2, seed=1).steps(12, 0)) != indices(first)
    assert course.steps(12, 0) == first


def test_a_last_short_batch_is_dropped_unless_it_is_the_only_one():
    course = schedule(1)
    assert [len(batch) for _, batch in course.steps(11, 0)] == [4, 4]
    assert [len(batch) for _, batch in course.steps(3, 0)] == [3]


def test_each_aspect_is_drawn_as_often_as_it_is_listed():
    drawn = [shape for shape, _ in schedule(1).steps(3200, 0)]
    shapes = [input_shape(*aspect, 64) for aspect in ASPECTS]
    assert set(drawn) == set(shapes) and (64, 64) in shapes
    for shape in set(shapes):  # a hundred for each listing; four standard deviations
        expected = 100 * shapes.count(shape)
        assert abs(drawn.count(shape) - expected) < 4 * expected**0.5


def test_shapes_have_the_epochs_size():
    course = Schedule(epochs=2, batch_size=4, sizes=(64, 128), lr=1)
    for epoch, size in enumerate(course.sizes):
        allowed = {input_shape(*aspect, size) for aspect in ASPECTS}
        assert {shape for shape, _ in course.steps(400, epoch)} == allowed


@pytest.mark.parametrize(
    ("text", "epochs", "sizes"),
    [
        ("128:2,160:1,192", 5, (128, 128, 160, 192, 192)),
        ("224", 2, (224, 224)),
        ("128:1", 2, (128, 224)),
        ("128:9,224", 2, (128, 128)),
    ],
)
def test_sizes_of_the_epochs(text, epochs, sizes):
    assert epoch_sizes(text, epochs) == sizes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("128:x", "must be SIZE or SIZE:EPOCHS,...,SIZE, not '128:x'"),
        ("", "must be SIZE or SIZE:EPOCHS,...,SIZE, not ''"),
        ("100:2,224", "sizes must be multiples of 32, not 100"),
        ("0", "sizes must be multiples of 32, not 0"),
    ],
)
def test_a_wrong_size_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        epoch_sizes(text, 3)


def test_an_epoch_costs_its_pixels():
    course = Schedule(epochs=3, batch_size=4, sizes=(64, 64, 128), lr=1)
    assert course.epoch_costs == pytest.approx([1 / 6, 1 / 6, 4 / 6])
