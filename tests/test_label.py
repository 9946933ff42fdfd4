import cv2
import numpy as np
import paddle
import pytest
from conftest import draw_portrait

import label
from data.alignment import inset
from data.drafts import draft_mask, log_odds
from data.lists import read_pairs
from models import PortraitNet
from portraitnet.geometry import SIZE, resize
from portraitnet.images import read_image
from portraitnet.predictor import to_batch
from training.checkpoints import open_predictor


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three networks: one calls about half of a drawing person, one the other half, one nothing."""
    paddle.seed(0)
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    model = PortraitNet(width=0.25)
    model.eval()
    image, _ = draw_portrait(np.random.default_rng(0), 60, 50)
    mean = model.features(paddle.to_tensor(to_batch([resize(image, SIZE, SIZE)]))).mean((0, 2, 3))
    mean = mean.numpy()[:, None, None]
    head = np.random.default_rng(0).normal(0, 1, model.mask_head.weight.shape).astype("float32")
    head[0] = 0
    head[1] -= mean * (head[1] * mean).sum() / (9 * (mean * mean).sum())  # logits 0 on average
    nobody = np.zeros_like(head)
    nobody[1] = -100 * mean
    for name, weight in (("one", 4 * head), ("negative", -4 * head), ("nobody", nobody)):
        model.mask_head.weight.set_value(weight)
        paths[name] = str(folder / f"{name}.pdparams")
        paddle.save(model.state_dict(), paths[name])
    return paths


def draw(path, seed=0, height=60, width=50):
    path.parent.mkdir(parents=True, exist_ok=True)
    image, _ = draw_portrait(np.random.default_rng(seed), height, width)
    path.write_bytes(cv2.imencode(path.suffix, image)[1])
    return path


def run(*arguments, model, min_agreement=0):
    models = [model] if isinstance(model, str) else model
    flags = ["--min_agreement", str(min_agreement), "--model_path", *models]
    return label.main([*map(str, arguments), *flags])


def mask_of(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_mask_is_the_mean_in_log_odds_of_networks_and_mirror_images(models, tmp_path):
    photo = draw(tmp_path / "me.jpg")
    assert run(photo, "--output", tmp_path / "out", model=[models["one"], models["nobody"]]) == 0
    image, total = read_image(photo), 0
    for name in ("one", "nobody"):
        predictor = open_predictor(models[name], refine=False)
        straight = predictor.probability(image)
        mirrored = predictor.probability(image[:, ::-1].copy())[:, ::-1]
        for probability in (straight, mirrored):
            probability = np.clip(probability.astype(np.float64), 1e-4, 1 - 1e-4)
            total = total + np.log(probability / (1 - probability)) / 4
    alpha, _ = draft_mask(
        [open_predictor(models[name], refine=False) for name in ("one", "nobody")], image
    )
    assert np.abs(alpha - 255 / (1 + np.exp(-total))).max() <= 0.51


def test_a_mirrored_photo_gets_the_mirrored_mask(models):
    image, _ = draw_portrait(np.random.default_rng(5), 60, 50)
    predictors = [open_predictor(models["one"])]
    alpha, agreement = draft_mask(predictors, image)
    mirrored, same = draft_mask(predictors, np.ascontiguousarray(image[:, ::-1]))
    assert np.abs(alpha.astype(int) - mirrored[:, ::-1]).max() <= 1
    assert agreement == pytest.approx(same, abs=0.01)
    assert alpha.std() > 20, "the drawing decides nothing: the test could not fail"


def test_contours_are_moved_where_inset_asks_for_it(models, tmp_path):
    draw(tmp_path / "photos" / "me.jpg")
    flags = [tmp_path / "photos", "--output"]
    for out, more in (("plain", []), ("moved", ["--inset", "0.7"])):
        assert run(*flags, tmp_path / out, *more, model=models["one"]) == 0
    plain, moved = (mask_of(tmp_path / out / "Labels" / "me.png") for out in ("plain", "moved"))
    assert (moved == inset(plain, 0.7)).all() and (moved != plain).any()


def test_a_given_mask_joins_with_its_weight(models):
    image, _ = draw_portrait(np.random.default_rng(5), 16, 16)
    predictors = [open_predictor(models["one"], refine=False)]
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    given = levels / np.float32(255)
    alone, _ = draft_mask(predictors, image)
    whole, _ = draft_mask(predictors, image, given, 1.0)
    assert np.array_equal(whole, levels), "a level of the given mask is lost"
    half, _ = draft_mask(predictors, image, given, 0.5)

    def odds(alpha):
        return log_odds(alpha.astype(np.float32) / 255)

    expected = 255 / (1 + np.exp(-(odds(alone) + odds(levels)) / 2))
    middle = (alone > 20) & (alone < 235)
    assert middle.sum() > 20 and np.abs(half - expected)[middle].max() < 2


class Says:
    """A network that gives one answer to every image, turned about for the mirror image or not."""

    def __init__(self, probability):
        self.answer = probability

    def probability(self, image):
        return self.answer

    def probabilities(self, images):
        return [self.answer, self.answer[:, ::-1]]


def test_a_salient_object_joins_where_it_is_the_person():
    image, person = np.zeros((40, 30, 3), np.uint8), np.full((40, 30), 0.2, np.float32)
    person[5:35, 5:25] = 0.8
    hand, chair = person.copy(), np.full((40, 30), 0.2, np.float32)
    hand[20:30, 25:28] = 0.99  # what the others have missed
    chair[30:, :] = 0.8
    alone, agreement = draft_mask([Says(person)], image)
    joined, same = draft_mask([Says(person)], image, isnet=Says(hand))
    assert agreement == same == 1, "what joins has a say in whether the others agree"
    assert (alone == draft_mask([Says(person)], image, isnet=Says(chair))[0]).all()
    odds = (np.log(0.2 / 0.8) + np.log(0.99 / 0.01)) / 2
    assert abs(int(joined[25, 26]) - 255 / (1 + np.exp(-odds))) <= 1
    assert joined[25, 26] > 127 > alone[25, 26] and joined[10, 10] == alone[10, 10]


def test_one_half_is_no_person_where_networks_are_compared():
    person = np.full((40, 30), 0.8, np.float32)
    both = [Says(person), Says(np.full_like(person, 0.5))]
    assert draft_mask(both, np.zeros((40, 30, 3), np.uint8)).agreement == 0


def test_a_folder_becomes_a_data_root(models, tmp_path, capsys):
    photos = [draw(tmp_path / "in" / name, i) for i, name in enumerate(["a.jpg", "sub/b 1.png"])]
    assert run(tmp_path / "in", "--output", tmp_path / "out", model=models["one"]) == 0
    assert files(tmp_path / "out") == ["Labels/a.png", "Labels/sub/b 1.png", "soft_list.txt"]
    message = capsys.readouterr()
    assert "2 masks, 0 of them from earlier runs" in message.out and "2/2" in message.err
    pairs = read_pairs(tmp_path / "out", tmp_path / "out" / "soft_list.txt")
    for photo, (image_path, mask_path, *_) in zip(photos, pairs, strict=True):
        assert np.array_equal(read_image(image_path), read_image(photo))
        assert mask_of(mask_path).shape == (60, 50) and mask_of(mask_path).dtype == np.uint8
    assert "../in/a.jpg Labels/a.png\n" in (tmp_path / "out" / "soft_list.txt").read_text()


def test_finished_masks_are_kept_and_stay_listed(models, tmp_path, capsys):
    draw(tmp_path / "in" / "a.png"), draw(tmp_path / "in" / "b.png", 1)
    assert run(tmp_path / "in" / "a.png", "--output", tmp_path / "in", model=models["one"]) == 0
    corrected = np.full((60, 50), 7, np.uint8)
    cv2.imwrite(str(tmp_path / "in" / "Labels" / "a.png"), corrected)
    for _ in range(2):  # the masks in the folder are no photos
        assert run(tmp_path / "in", "--output", tmp_path / "in", model=models["one"]) == 0
    assert np.array_equal(mask_of(tmp_path / "in" / "Labels" / "a.png"), corrected)
    assert run(tmp_path / "in" / "b.png", "--output", tmp_path / "in", model=models["one"]) == 0
    lines = (tmp_path / "in" / "soft_list.txt").read_text().splitlines()
    assert lines == ["a.png Labels/a.png", "b.png Labels/b.png"]
    assert "2 masks, 2 of them from earlier runs" in capsys.readouterr().out


def test_photos_that_would_teach_nothing_are_left_out(models, tmp_path, capsys):
    photo = draw(tmp_path / "a.png")
    three = [models["one"], models["one"], models["negative"]]
    where = ["--output", tmp_path / "out"]
    assert run(photo, *where, model=three, min_agreement=0.55) == 0
    message = capsys.readouterr().out
    assert "a.png: the answers disagree (IoU 0.00), left out" in message
    assert "0 masks" in message and "1 photos with too little agreement" in message
    assert run(photo, *where, model=models["nobody"]) == 0
    message = capsys.readouterr().out
    assert "a.png: no person found, left out" in message and "1 photos without a person" in message
    assert not (tmp_path / "out").exists()
    assert run(photo, *where, model=three) == 0
    assert files(tmp_path / "out") == ["Labels/a.png", "soft_list.txt"]


@pytest.fixture
def soft_root(models, tmp_path):
    for i in range(3):
        draw(tmp_path / "root" / "Images" / f"{i}.png", i)
    root = tmp_path / "root"
    assert run(root / "Images", "--output", root, model=models["one"]) == 0
    return root


def test_a_data_root_is_labelled_anew(models, soft_root, tmp_path):
    out = tmp_path / "out"
    assert run("--data_root", soft_root, "--output", out, model=models["one"]) == 0
    assert files(out) == ["Labels/0.png", "Labels/1.png", "Labels/2.png", "soft_list.txt"]
    assert np.array_equal(mask_of(out / "Labels/1.png"), mask_of(soft_root / "Labels/1.png"))
    lines = (out / "soft_list.txt").read_text().splitlines()
    assert lines[0] == "../root/Images/0.png Labels/0.png"
    given = np.full((60, 50), 255, np.uint8)
    cv2.imwrite(str(soft_root / "Labels" / "1.png"), given)
    kept = ["--data_root", soft_root, "--draft_weight", 1]
    assert run(*kept, "--output", tmp_path / "kept", model=models["one"]) == 0
    assert np.array_equal(mask_of(tmp_path / "kept" / "Labels" / "1.png"), given)


def test_an_input_is_never_overwritten(models, soft_root, capsys):
    before = (soft_root / "Labels" / "0.png").read_bytes()
    assert run("--data_root", soft_root, "--output", soft_root, model=models["negative"]) == 1
    assert (soft_root / "Labels" / "0.png").read_bytes() == before
    assert "Labels/0.png is an input and is kept: give another --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    "mask, named",
    [
        ("../../../away.png", "../../../away.png"),
        ("Labels/../../away.png", "../away.png"),
        ("Labels/..", "."),
    ],
)
def test_no_mask_is_written_outside_the_output(models, soft_root, tmp_path, capsys, mask, named):
    (soft_root / "soft_list.txt").write_text(f"Images/0.png {mask}\nImages/1.png Labels/1.png\n")
    before, out = files(tmp_path), tmp_path / "a" / "b" / "c"
    assert run("--data_root", soft_root, "--output", out, model=models["one"]) == 1
    message, photo = capsys.readouterr().err, soft_root / "Images" / "0.png"
    assert f"{photo}: {soft_root / 'soft_list.txt'}: the mask {named} is outside" in message
    assert "move the mask into that folder and correct the line, or delete the line" in message
    assert set(files(tmp_path)) - set(before) == {"a/b/c/Labels/1.png", "a/b/c/soft_list.txt"}


def test_each_bad_file_is_named_and_the_others_are_done(models, soft_root, tmp_path, capsys):
    (soft_root / "Images" / "0.png").write_bytes(b"no picture")
    cv2.imwrite(str(soft_root / "Labels" / "1.png"), np.zeros((9, 9), np.uint8))
    flags = ["--draft_weight", 0.5, "--output", tmp_path / "out"]
    assert run("--data_root", soft_root, *flags, model=models["one"]) == 1
    message = capsys.readouterr()
    assert "0.png is not a readable picture" in message.err
    assert "1.png has 50x60 pixels and its mask" in message.err and "9x9" in message.err
    assert "1 masks" in message.out and "2 failed" in message.out and "Traceback" not in message.err
    assert files(tmp_path / "out") == ["Labels/2.png", "soft_list.txt"]
    assert run(tmp_path / "gone.png", *flags[2:], model=models["one"]) == 1
    assert "There is no file" in capsys.readouterr().err


def test_two_photos_never_have_one_mask(models, tmp_path, capsys):
    draw(tmp_path / "in" / "a.png"), draw(tmp_path / "in" / "a.jpg", 1)
    assert run(tmp_path / "in", "--output", tmp_path / "out", model=models["one"]) == 1
    assert "a.png is already that of" in capsys.readouterr().err


def test_a_name_that_no_list_can_hold_is_named(models, tmp_path, capsys):
    draw(tmp_path / "a\tb.png")
    assert run(tmp_path / "a\tb.png", "--output", tmp_path / "out", model=models["one"]) == 1
    assert "has a tab or a line break in its path: rename it" in capsys.readouterr().err


def test_no_photo_no_list_and_no_model_are_one_sentence(models, soft_root, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", model=models["one"]) == 1
    assert "No photo in" in capsys.readouterr().err
    assert run("--data_root", tmp_path / "empty", model=models["one"]) == 1
    assert "soft_list.txt: give a folder with such a list" in capsys.readouterr().err
    assert run(soft_root / "Images", model=str(tmp_path / "none.pdparams")) == 1
    assert "There is no model file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["a.png", "--data_root", "x"],
        ["a.png", "--draft_weight", "0.5"],
        ["--data_root", "x", "--draft_weight", "1.5"],
        ["a.png", "--min_agreement", "-1"],
    ],
)
def test_wrong_usage_exits_with_2(wrong):
    with pytest.raises(SystemExit) as stop:
        label.parse_args(wrong)
    assert stop.value.code == 2
