import json

import cv2
import numpy as np
import pytest
from conftest import draw_data_root, save_random_weights

import evaluate
from benchmarks import robustness
from data.portraits import PortraitDataset
from metrics import PROTOCOLS
from portraitnet.effects import LABEL_HEIGHT, MARGIN
from portraitnet.predictor import Predictor
from transforms import degrade_photo


class ColorPredictor:
    """Calls red pixels person, which is right for drawn portraits; the interface of Predictor."""

    def prepare(self, image):
        return image

    def run(self, inputs, images=()):
        return [self.probability(image) for image in inputs]

    def restore(self, probability, image):
        return probability

    def probability(self, image):
        image = cv2.blur(image, (3, 3)).astype(np.float32)
        return (image[:, :, 2] > image[:, :, 0]).astype(np.float32)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = draw_data_root(tmp_path_factory.mktemp("drawn"), train=1, val=3, test=5)
    model = root / "net.pdparams"
    save_random_weights(model)
    return root, model


def test_right_masks_score_high_and_inverted_ones_low(drawn):
    dataset = PortraitDataset(str(drawn[0]), "test")
    scores, seconds, _, unrefined = evaluate.evaluate(ColorPredictor(), dataset, batch_size=2)
    assert unrefined is None
    values = scores.summary()
    assert len(scores.photo_scores) == 5 and seconds > 0
    assert values["miou_raw"] > 0.95 and values["boundary_iou"] > 0.8
    inverted = evaluate.evaluate(ColorPredictor(), dataset, vary=lambda image, i: 255 - image)[0]
    assert inverted.summary()["miou_raw"] < 0.1


def test_the_network_runs_once_for_refined_and_unrefined_scores(drawn):
    dataset, ran = PortraitDataset(str(drawn[0]), "test"), []

    def red(batch):
        ran.extend(batch)
        return np.float32(batch[:, 2] > batch[:, 0])

    refined = evaluate.evaluate(Predictor.of(red), dataset, batch_size=2, unrefined=True)
    assert len(ran) == 5
    plain = evaluate.evaluate(Predictor.of(red, refine=False), dataset).scores.summary()
    unrefined = refined.unrefined.summary()
    assert unrefined == {name: plain[name] for name in unrefined}
    assert unrefined["boundary_iou"] != refined.scores.summary()["boundary_iou"]


def test_batch_size_changes_nothing(drawn):
    dataset = PortraitDataset(str(drawn[0]), "test")
    one, all_ = (evaluate.evaluate(ColorPredictor(), dataset, n)[0].summary() for n in (1, 5))
    assert one == pytest.approx(all_, rel=1e-6)  # OpenCV rounds as memory lies


def test_command_prints_and_writes_every_score(drawn, tmp_path, capsys):
    root, model = drawn
    arguments = ["--data_root", str(root), "--model_path", str(model), "--batch_size", "2"]
    report, sheet = tmp_path / "scores.json", tmp_path / "sheets"
    more = ["--log_iter", "1", "--json", str(report), "--save_dir", str(sheet), "--worst", "2"]
    assert evaluate.main(arguments + more) == 0
    message = capsys.readouterr().out
    assert message.count("\niter ") == 3 and "eval: acc: " in message
    assert all(name in message for name in PROTOCOLS)
    scores = json.loads(report.read_text())
    (name, listed), side = scores["lists"].popitem(), evaluate.SHEET_SIDE
    assert name == root.name and listed["photos"] == 5
    assert list(listed["scores"]) == list(listed["intervals"]) == list(PROTOCOLS)
    assert all(low <= high for low, high in listed["intervals"].values())
    assert cv2.imread(str(sheet / f"worst_{name}_test.png")).shape == (
        2 * (side + MARGIN + LABEL_HEIGHT),
        4 * (side + 2 * MARGIN),
        3,
    )


def test_several_lists_are_scored_apart_with_their_mean(drawn, tmp_path, capsys):
    root, model = drawn
    other = draw_data_root(tmp_path / "other", train=1, val=0, test=2, seed=5)
    (other / "eg1800_val.txt").unlink()  # a root without the list is left out
    report = tmp_path / "scores.json"
    arguments = ["--data_root", str(root), str(other), str(root), "--model_path", str(model)]
    assert evaluate.main([*arguments, "--json", str(report)]) == 0
    scores = json.loads(report.read_text())
    assert {name: one["photos"] for name, one in scores["lists"].items()} == {
        root.name: 5,
        "other": 2,
    }
    each = [one["scores"]["person_iou_smoothed"] for one in scores["lists"].values()]
    assert scores["mean"] == pytest.approx(np.mean(each))
    assert "Mean of 2 lists" in capsys.readouterr().out
    assert evaluate.main([*arguments, "--split", "val", "--json", str(report)]) == 0
    assert list(json.loads(report.read_text())["lists"]) == [root.name]


def test_without_data_root_the_checkpoints_own_data_is_scored(drawn, tmp_path, capsys, monkeypatch):
    root, model = drawn
    beside = tmp_path / "model_0.pdparams"
    beside.write_bytes(model.read_bytes())
    (tmp_path / "args.json").write_text(json.dumps({"data_root": [str(root)]}))
    assert evaluate.main(["--model_path", str(beside), "--split", "val"]) == 0
    message = capsys.readouterr().out
    assert (
        f"--data_root {root}, from {tmp_path / 'args.json'}." in message and "3 photos" in message
    )
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["--model_path", str(model)]) == 1
    assert "No folder EG1800: give the folder" in capsys.readouterr().err


def test_degraded_photos_are_the_same_each_time_and_keep_their_size():
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    one, again, other = (degrade_photo(image, (0, i)) for i in (7, 7, 8))
    assert one.shape == image.shape
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_user_errors_are_one_line(drawn, tmp_path, capsys):
    root, model = drawn
    root = str(root)
    assert evaluate.main(["--data_root", root, "--model_path", str(tmp_path / "no.pdparams")]) == 1
    assert "no.pdparams" in capsys.readouterr().err
    (tmp_path / "test_list.txt").write_text("a.jpg b.png\n")
    arguments = ["--data_root", str(tmp_path), "--model_path", str(model), "--split", "val"]
    assert evaluate.main(arguments) == 1
    assert (message := capsys.readouterr().err).startswith("evaluate.py: ") and message.count(
        "\n"
    ) == 1


def test_every_robustness_condition_keeps_photo_and_mask_together(drawn):
    dataset = PortraitDataset(str(drawn[0]), "test")
    image, mask = dataset.photo(0)
    for name, condition in robustness.CONDITIONS.items():
        harder, truth = condition(image, mask, np.random.default_rng(0))
        assert harder.shape == (*truth.shape, 3) and harder.dtype == np.uint8, name
    scores = robustness.score_conditions(ColorPredictor(), dataset)
    assert all(scores[name][0] > 0.9 for name in ("as it is", "rotated +30", "turned by 90"))


def test_inventions_are_counted(tmp_path):
    empty = np.full((100, 100, 3), (200, 50, 50), np.uint8)
    invented = empty.copy()
    invented[:20, :20] = (50, 50, 200)
    paths = []
    for i, image in enumerate([empty, invented, empty, empty]):
        paths.append(tmp_path / f"{i}.png")
        cv2.imwrite(str(paths[-1]), image)
    scores = robustness.score_person_free(ColorPredictor(), paths)
    assert scores["pixels"] == pytest.approx(0.01, abs=0.001)
    assert scores["photos"] == 0.25
    assert scores["worst"][0][1] == str(paths[1])


def test_photos_that_cannot_be_read_are_named_and_the_others_scored(drawn, tmp_path, capsys):
    root = draw_data_root(tmp_path / "bad", train=1, val=0, test=5)
    arguments = ["--data_root", str(root), "--model_path", str(drawn[1]), "--batch_size", "2"]
    report = tmp_path / "scores.json"
    arguments += ["--json", str(report), "--save_dir", str(tmp_path / "sheets")]
    names = (root / "eg1800_test.txt").read_text().split()
    (root / "Images" / names[0]).write_bytes(b"no picture")
    cv2.imwrite(str(root / "Labels" / names[3]), np.zeros((9, 9), np.uint8))
    assert evaluate.main(arguments) == 1
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 3 and "2 photos failed" in message[2]
    assert names[0] in message[0] and "not a readable picture" in message[0]
    assert names[3] in message[1] and "give the mask the size of the photo" in message[1]
    listed = json.loads(report.read_text())["lists"]["bad"]
    assert (listed["photos"], listed["failed"]) == (3, 2)
    (root / "eg1800_test.txt").write_text("\n".join([names[1], names[2], names[4]]))
    assert evaluate.main(arguments) == 0  # without the two: the same scores, the same sheet
    alone = json.loads(report.read_text())["lists"]["bad"]
    assert alone["scores"] == listed["scores"] and alone["failed"] == 0
    for name in names:
        (root / "Images" / name).write_bytes(b"")
    assert evaluate.main(arguments) == 1
    assert "No photo of bad can be read" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--json", "/proc/x/y.json"], ["--save_dir", "/proc/x"]])
def test_outputs_are_checked_before_the_scoring(drawn, flags, capsys):
    arguments = ["--data_root", str(drawn[0]), "--model_path", str(drawn[1])]
    assert evaluate.main([*arguments, *flags]) == 1
    message = capsys.readouterr()
    assert "/proc/x" in message.err and message.err.count("\n") == 1 and "iter 0" not in message.out


def test_the_model_is_not_overwritten(drawn, tmp_path, capsys):
    model = tmp_path / "net.pdparams"
    model.write_bytes(drawn[1].read_bytes())
    arguments = ["--data_root", str(drawn[0]), "--model_path", str(model), "--json", str(model)]
    assert evaluate.main(arguments) == 1
    assert "is an input and is not overwritten" in capsys.readouterr().err
    assert model.read_bytes() == drawn[1].read_bytes()


def test_an_args_file_of_another_make_is_named(drawn, tmp_path, capsys):
    model = tmp_path / "net.pdparams"
    model.write_bytes(drawn[1].read_bytes())
    for content in ("{", "[]", "{}", '{"data_root": 3}'):
        (tmp_path / "args.json").write_text(content)
        assert evaluate.main(["--model_path", str(model)]) == 1
        assert "args.json has no valid data_root" in capsys.readouterr().err
