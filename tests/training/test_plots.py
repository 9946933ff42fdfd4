import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from conftest import draw_data_root

from data.portraits import PortraitDataset
from metrics import SELECTION
from models import PortraitNet
from portraitnet.effects import overlay
from portraitnet.geometry import letterbox
from portraitnet.predictor import Predictor
from training.checkpoints import runner
from training.plots import PANEL_SIDE, _ticks, draw_curves, draw_panel

SVG = "{http://www.w3.org/2000/svg}"


def line(epoch, loss, **val):
    lists = {name: {SELECTION: iou} for name, iou in val.items()}
    return {"epoch": epoch, "loss": loss, "val": lists, "mean_person_iou": sum(val.values()) / 2}


def points(svg):
    lines = ElementTree.fromstring(svg).iter(f"{SVG}polyline")
    return [[tuple(map(float, p.split(","))) for p in each.get("points").split()] for each in lines]


def test_each_curve_goes_where_its_figures_go():
    history = [line(e, {"total": t}, a=0.8 + e / 10, b=0.9) for e, t in enumerate((3, 1, 2))]
    loss, a, b, mean = points(draw_curves(history))
    assert [x for x, _ in loss] == [64, 304, 544]
    assert [y for _, y in loss] == [40, 220, 130], "3 is on top, 1 below, 2 in the middle"
    assert a[0][1] > a[1][1] > a[2][1] and b[0][1] == b[2][1] == a[1][1]
    assert mean[1] == a[1]
    lines = ElementTree.fromstring(draw_curves(history)).iter(f"{SVG}line")
    assert {(each.get("x1"), each.get("x2")) for each in lines} == {("64", "544")}


def test_one_epoch_a_missing_figure_and_an_odd_name_are_drawn_too():
    history = [line(7, {"total": 1.0}, **{"a<b&c": 0.9})]
    svg = draw_curves(history)
    assert len(points(svg)[0]) == 1 and "a&lt;b&amp;c 0.9000" in svg
    history = [line(0, {}, a=0.8), line(1, {"total": 1.0}, b=0.9)]
    assert [len(each) for each in points(draw_curves(history))] == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.93, 0.95, [0.93, 0.935, 0.94, 0.945, 0.95]), (3, 4, None)],
)
def test_ticks_are_round(low, high, ticks):
    found = _ticks(low, high)
    assert found == pytest.approx(ticks or [3, 3.2, 3.4, 3.6, 3.8, 4])


def test_the_panel_shows_the_truth_below_the_masks(tmp_path):
    dataset = PortraitDataset(draw_data_root(tmp_path / "drawn", val=3), "val")
    model = PortraitNet(width=0.25)
    panel = draw_panel(model, dataset)
    assert panel.shape == (2 * PANEL_SIDE, 3 * PANEL_SIDE, 3)
    image, truth = dataset.photo(1)
    expected = letterbox(overlay(image, truth.astype(np.float32)), PANEL_SIDE)[0][:, :, ::-1]
    assert np.array_equal(panel[PANEL_SIDE:, PANEL_SIDE : 2 * PANEL_SIDE], expected)
    assert not np.array_equal(panel[:PANEL_SIDE], panel[PANEL_SIDE:])
    images = [dataset.photo(i)[0] for i in range(3)]
    plain = Predictor.of(runner(model), refine=False).probabilities(images)
    expected = letterbox(overlay(image, plain[1]), PANEL_SIDE)[0][:, :, ::-1]
    assert np.array_equal(panel[:PANEL_SIDE, PANEL_SIDE : 2 * PANEL_SIDE], expected)
