"""ncnn and MNN files, made by the commands of docs/mobile.md, give the checkpoint's answers."""

from pathlib import Path

import numpy as np
import pytest
from conftest import draw_portrait

pytest.importorskip("onnx")

import export  # noqa: E402
from benchmarks import export_parity  # noqa: E402
from models.weights import load_model  # noqa: E402
from portraitnet.geometry import resize  # noqa: E402
from portraitnet.predictor import to_batch  # noqa: E402
from training.checkpoints import runner  # noqa: E402

DOCUMENT = Path(__file__).parents[2] / "docs" / "mobile.md"


def test_the_document_has_the_commands_that_are_run():
    lines = DOCUMENT.read_text().splitlines()
    assert export_parity.PNNX.format(height=224, width=224) in lines
    assert export_parity.MNN in lines


@pytest.mark.parametrize("runtime", export_parity.PACKAGES)
def test_a_converted_file_gives_the_checkpoints_answer(runtime, tmp_path):
    if not export_parity.is_installed(runtime):
        pytest.skip(f"needs {', '.join(export_parity.PACKAGES[runtime])}")
    flags = ["--formats", "onnx", "--output", str(tmp_path)]
    assert export.main(flags) == 0
    shape = 96, 64
    path = tmp_path / "portraitnet.onnx"
    run = (
        export_parity.load_ncnn(path, *shape) if runtime == "ncnn" else export_parity.load_mnn(path)
    )
    images = [draw_portrait(np.random.default_rng(seed))[0] for seed in range(2)]
    batch = to_batch([resize(image, *shape) for image in images])
    expected = runner(load_model(export.MODEL_PATH))(batch)
    assert np.ptp(expected) > 0.5, "a flat answer proves nothing"
    assert np.abs(run(batch) - expected).max() < export.FLOAT32_LIMIT


def test_every_format_with_a_limit_is_in_the_table():
    assert set(export_parity.FORMATS) == set(export.FORMATS) - {"int8"}
