import numpy as np
from conftest import draw_data_root, draw_portrait

from benchmarks import peers
from training.checkpoints import open_predictor


def test_the_mean_with_the_mirror_image_mirrors_with_the_photo(model_path):
    image, _ = draw_portrait(np.random.default_rng(0))
    network = open_predictor(model_path, refine=False)
    mean = peers.Mirrored(network)
    straight, mirrored = mean.probabilities([image, np.ascontiguousarray(image[:, ::-1])])
    assert np.allclose(straight, mirrored[:, ::-1], atol=1e-5)
    alone = network.probability(image), network.probability(image[:, ::-1].copy())[:, ::-1]
    assert np.abs(alone[0] - alone[1]).max() > 0.05, "they agree: the mean proves nothing"
    low, high = np.minimum(*alone), np.maximum(*alone)
    assert ((low - 2e-4 <= straight) & (straight <= high + 2e-4)).all()  # clipped at 1e-4


def test_every_network_gets_a_row_in_every_table(model_path, tmp_path, capsys):
    roots = [str(draw_data_root(tmp_path / name, val=3, seed=i)) for i, name in enumerate("ab")]
    assert peers.main(["--data_root", *roots, "--model_path", model_path]) == 0
    message = capsys.readouterr().out
    assert "a, 3 photos (val)" in message and "b, 3 photos (val)" in message
    rows = [line for line in message.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 * (1 + 3) and {row.count("|") for row in rows} == {9}
    assert sum("with mirror image" in row for row in rows) == 2


def test_a_missing_file_is_one_sentence(model_path, tmp_path, capsys):
    root = str(draw_data_root(tmp_path / "a"))
    flags = ["--data_root", root, "--model_path", model_path, "--mediapipe", "none.tflite"]
    assert peers.main(flags) == 1
    assert "There is no file none.tflite" in capsys.readouterr().err
    assert peers.main(["--data_root", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
