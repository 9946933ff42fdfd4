"""Pictures of a training: curves as an SVG that every browser opens, and VisualDL's panels."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from metrics import SELECTION
from portraitnet.effects import overlay
from portraitnet.geometry import letterbox
from portraitnet.predictor import Predictor
from training.checkpoints import runner

PANEL_PHOTOS, PANEL_SIDE = 8, 224  # photos in VisualDL's rows, and their side in pixels
WIDTH, HEIGHT, LEFT, TOP = 480, 180, 64, 40  # pixels: a panel, its axis and its title
LEGEND = 170  # width of the legend, pixels
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def draw_curves(history: Sequence[dict]) -> str:
    """Loss and person IoU of every epoch, one panel above the other.

    Args:
        history: the lines of log.jsonl.

    Returns:
        SVG.
    """
    epochs = [line["epoch"] + 1 for line in history]  # readers count from one
    loss = {"training": [line["loss"].get("total", math.nan) for line in history]}
    names = dict.fromkeys(name for line in history for name in line["val"])
    iou = {
        name: [line["val"].get(name, {}).get(SELECTION, math.nan) for line in history]
        for name in names
    }
    if len(names) > 1:
        iou["mean"] = [line["mean_person_iou"] for line in history]
    step = TOP + HEIGHT + 20
    size = f'width="{LEFT + WIDTH + LEGEND}" height="{2 * step + 20}"'
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>']
    parts.append('<rect width="100%" height="100%" fill="#fff"/>')
    parts += _panel("loss", epochs, loss, TOP) + _panel("person IoU", epochs, iou, step + TOP)
    parts.append(f'<text x="{LEFT + WIDTH / 2}" y="{2 * step + 12}">epoch</text></svg>')
    return "\n".join(parts) + "\n"


def _panel(title, epochs, curves, top):
    """The SVG elements of one panel: title, axes, a line and a name for each curve."""
    values = [value for curve in curves.values() for value in curve if math.isfinite(value)] or [0]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.01, high + 0.01
    first, last = epochs[0], max(epochs[-1], epochs[0] + 1)

    def x(epoch):
        return LEFT + WIDTH * (epoch - first) / (last - first)

    def y(value):
        return top + HEIGHT * (high - value) / (high - low)

    parts = [f'<text x="{LEFT}" y="{top - 12}" font-weight="bold">{title}</text>']
    for value in _ticks(low, high):
        line = f'x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"'
        parts.append(f'<line {line} stroke="#ddd"/>')
        place = f'x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end"'
        parts.append(f"<text {place}>{value:.4g}</text>")
    for epoch in _ticks(first, last):
        if epoch == int(epoch):
            place = f'x="{x(epoch):.1f}" y="{top + HEIGHT + 16}" text-anchor="middle"'
            parts.append(f"<text {place}>{epoch:.0f}</text>")
    for i, (name, curve) in enumerate(curves.items()):
        color = COLORS[i % len(COLORS)]
        points = [(x(e), y(v)) for e, v in zip(epochs, curve) if math.isfinite(v)]
        message = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(
            f'<polyline points="{message}" fill="none" stroke="{color}" stroke-width="2"/>'
        )
        parts += [
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" fill="{color}"/>' for px, py in points
        ]
        place = f'x="{LEFT + WIDTH + 12}" y="{top + 16 * i + 12}" fill="{color}"'
        parts.append(f"<text {place}>{escape(name[-20:])} {curve[-1]:.4f}</text>")
    return parts


def _ticks(low, high, count=5):
    """About `count` round numbers from `low` to `high`."""
    unit = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(unit * n for n in (1, 2, 5, 10) if unit * n * count >= high - low)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def open_writer(output: Path):
    """VisualDL's LogWriter in a folder of its own: of several files in one VisualDL shows the last.

    `visualdl --logdir output/visualdl` shows a training and its continuations as runs side by side.
    """
    from visualdl import LogWriter

    folder = output / "visualdl"
    part = 1 + sum(path.is_dir() for path in folder.glob("part_*"))
    return LogWriter(str(folder / f"part_{part}"))


def log_epoch(writer, state, dataset):
    """Write an epoch's scores, and its masks above the true ones, to VisualDL."""
    for name, summary in state.history[-1]["val"].items():
        for score_name in ("accuracy", "miou_raw", SELECTION, "boundary_iou"):
            writer.add_scalar(f"{name}/{score_name}", summary[score_name], state.epoch)
    writer.add_image("val/masks", draw_panel(state.evaluated, dataset), state.epoch)


def draw_panel(model, dataset):
    """The first validation photos side by side: the network's masks above the true ones.

    Returns:
        (2 * PANEL_SIDE, W, 3) uint8 RGB.
    """
    photos = [dataset.photo(i) for i in range(min(PANEL_PHOTOS, len(dataset)))]
    images, truths = zip(*photos)
    probabilities = Predictor.of(runner(model), refine=False).probabilities(list(images))
    rows = [
        np.hstack([letterbox(overlay(*each), PANEL_SIDE)[0] for each in zip(images, masks)])
        for masks in (probabilities, [truth.astype(np.float32) for truth in truths])
    ]
    return np.vstack(rows)[:, :, ::-1]
