"""The converter of MoveNet's encoder on a made-up graph with random weights."""

import json

import cv2
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from models import PortraitNet, movenet, weights
from models.imagenet import encoder_state
from models.mobilenetv2 import STAGES, scaled_channels
from models.weights import load_pretrained, load_state, read_state
from portraitnet.predictor import MEAN, to_batch

FIRST = "Call/model_1/model/"


def made_up_graph(seed=0, width=1.0):
    """name -> float16 array: random weights with the names and shapes of the graph model."""
    rng, graph = np.random.default_rng(seed), {}

    def layer(name, *shape):
        channels = shape[2] if "depthwise" in name else shape[3]
        fan_in = shape[0] * shape[1] * (1 if "depthwise" in name else shape[2])
        graph[f"{FIRST}{name}_weights"] = rng.normal(0, (2 / fan_in) ** 0.5, shape)
        graph[f"{FIRST}{name}_bn_offset"] = rng.normal(0, 0.5, channels)

    input_c, number = int(32 * width), 0
    layer("Conv1/Conv2D", 3, 3, 3, input_c)
    for output_c, repeats, _, bn_scale in STAGES:
        for _ in range(repeats):
            block = f"block_{number}" if number else "expanded_conv"
            hidden = input_c * bn_scale
            if number:
                layer(f"{block}_expand/Conv2D", 1, 1, input_c, hidden)
            layer(f"{block}_depthwise/depthwise", 3, 3, hidden, 1)
            input_c, number = scaled_channels(output_c, width), number + 1
            layer(f"{block}_project/Conv2D", 1, 1, hidden, input_c)
    graph["Call/model_1/conv2d_3/Conv2D/ReadVariableOp"] = rng.normal(0, 1, (1, 1, 24, 24))
    return {name: array.astype(np.float16) for name, array in graph.items()}


def write_graph(folder, graph, name="movenet-lightning"):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"Call/Reshape/shape": np.array([1, -1], np.int32), **graph}
    entries = [{"name": name, "shape": list(a.shape)} for name, a in arrays.items()]
    for entry, array in zip(entries, arrays.values()):
        half = array.dtype == np.float16
        entry["dtype"] = "float32" if half else "int32"
        if half:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
    manifest = [{"paths": [f"{name}.bin"], "weights": entries}]
    (folder / f"{name}.json").write_text(json.dumps({"weightsManifest": manifest}))
    data = b"".join(array.tobytes() for array in arrays.values())
    (folder / f"{name}.bin").write_bytes(data)
    return folder


def tensorflow_features(graph, image):
    """The four features as TensorFlow computes them, for a (S, S, 3) uint8 BGR image.

    One difference: TensorFlow pads the image with 127.5 and this with MEAN, as our batch does.
    """

    def convolve(x, name, stride=1):
        weight, offset = (
            graph[f"{FIRST}{name}{end}"].astype(np.float32) for end in ("_weights", "_bn_offset")
        )
        depthwise = "depthwise" in name
        weight = weight.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        if weight.shape[2] == 3:  # "SAME" on an even grid
            x = F.pad(x, [1, 1, 1, 1] if stride == 1 else [0, 1, 0, 1])
        groups = x.shape[1] if depthwise else 1
        args = map(paddle.to_tensor, (np.ascontiguousarray(weight), offset))
        return F.conv2d(x, *args, stride=stride, groups=groups)

    border = np.array(MEAN[::-1], np.float32).reshape(3, 1, 1) / 127.5 - 1
    picture = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1), np.float32) / 127.5 - 1
    picture = np.pad(picture - border, ((0, 0), (0, 1), (0, 1))) + border
    weight, offset = (
        graph[f"{FIRST}Conv1/Conv2D{end}"].astype(np.float32) for end in ("_weights", "_bn_offset")
    )
    weight = np.ascontiguousarray(weight.transpose(3, 2, 0, 1))
    x = F.conv2d(*map(paddle.to_tensor, (picture[None], weight, offset)), stride=2)
    x, features, number = F.relu6(x), [], 0
    for _, repeats, first_stride, _ in STAGES:
        for repeat in range(repeats):
            block, start = f"block_{number}" if number else "expanded_conv", x
            if number:
                x = F.relu6(convolve(x, f"{block}_expand/Conv2D"))
            stride = first_stride if repeat == 0 else 1
            x = F.relu6(convolve(x, f"{block}_depthwise/depthwise", stride))
            x = convolve(x, f"{block}_project/Conv2D")
            x = x + start if repeat else x
            number += 1
        features.append(x.numpy())
    return [features[i] for i in (1, 2, 4, 6)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(3).integers(0, 256, (2, 12, 10, 3), dtype=np.uint8)
    for i, image in enumerate(noise):
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(image, (movenet.SIZE, movenet.SIZE)))
    return folder


def turn(array, axes):
    return np.ascontiguousarray(np.flip(array, axes))


def test_the_encoder_gives_what_the_graph_gives(tmp_path, photos):
    """TensorFlow's padding is ours on a picture turned by 180 degrees, with turned kernels."""
    graph = made_up_graph()
    turned = {k: turn(v, (0, 1)) if k.endswith("_weights") else v for k, v in graph.items()}
    folder, path = write_graph(tmp_path / "graph", turned), tmp_path / "person.pdparams"
    assert movenet.main([str(folder), "--photos", str(photos), "--output", str(path)]) == 0
    model = PortraitNet()
    assert "MobileNetV2 weights" in load_pretrained(model, str(path))
    model.eval()
    image = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    ours = model.encoder(paddle.to_tensor(to_batch([turn(image, (0, 1))])))
    for feature, expected in zip(ours, tensorflow_features(graph, image), strict=True):
        assert np.abs(turn(feature.numpy(), (2, 3)) - expected).max() < 1e-4 * expected.std()


def test_the_file_has_paddles_names_and_keeps_float16(tmp_path, photos):
    folder, path = write_graph(tmp_path, made_up_graph()), tmp_path / "person.pdparams"
    assert movenet.main([str(folder), "--photos", str(photos), "--output", str(path)]) == 0
    state, theirs = read_state(path), paddle.vision.models.mobilenet_v2().state_dict()
    kept = {k for k in theirs if not k.startswith(("features.18", "classifier"))}
    assert set(state) == kept
    assert all(state[name].shape == theirs[name].shape for name in kept)
    assert state["features.5.conv.2.weight"].dtype == paddle.float16
    assert state["features.0.0.weight"].dtype == paddle.float32


def test_thunder_is_the_encoder_of_width_1_75(tmp_path, photos, capsys, monkeypatch):
    graph = made_up_graph(width=1.75)
    folder = write_graph(tmp_path, graph, "movenet-thunder")
    monkeypatch.chdir(tmp_path)
    assert movenet.main([str(folder), "--photos", str(photos), "--variant", "thunder"]) == 0
    path = tmp_path / "mobilenetv2_person_175.pdparams"
    monkeypatch.setitem(weights.PERSONS, 1.75, path)
    model = PortraitNet(width=1.75)
    assert str(path) in load_pretrained(model, "person")
    stored = graph[f"{FIRST}block_16_project/Conv2D_weights"]
    loaded = model.encoder.stages[6][0].project.conv.weight.numpy()
    assert np.array_equal(loaded[:, :, 0, 0], stored[0, 0].T.astype(np.float32))
    (tmp_path / "movenet-thunder.json").rename(tmp_path / "movenet-lightning.json")
    assert movenet.main([str(folder), "--photos", str(photos)]) == 1  # a renamed graph
    assert "the converted graph does not fit this network" in capsys.readouterr().err


def test_training_on_the_photos_changes_nothing():
    """BatchNorm's scale and shift are the moments that a training batch takes out."""
    state = movenet.convert(made_up_graph(), "a made-up graph")
    side = movenet.SIZE
    images = np.random.default_rng(2).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    movenet.unfold(state, images)
    model = PortraitNet()
    tensors = {k: paddle.to_tensor(np.ascontiguousarray(v)) for k, v in state.items()}
    load_state(model.encoder, encoder_state(tensors, "a made-up graph"))
    batch, found = paddle.to_tensor(to_batch(images)), []
    for training in (False, True):
        model.encoder.train() if training else model.encoder.eval()
        model.encoder.stages[0][0].expand.eval()  # its moments are estimates, it is tested apart
        found.append([feature.numpy() for feature in model.encoder(batch)])
    for resting, working in zip(*found):
        # The statistics were taken with another grey beyond the frame (models/imagenet.py).
        assert np.abs(resting - working).mean() < 0.01 * resting.std()


def test_every_photo_counts(monkeypatch):
    """The moments do not depend on the order, so no photo falls between two groups."""
    monkeypatch.setattr(movenet, "BATCH", 2)
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    states = [movenet.convert(made_up_graph(), "x") for _ in range(2)]
    movenet.unfold(states[0], images)
    movenet.unfold(states[1], np.roll(images, 1, axis=0))
    for name, array in states[0].items():
        assert np.allclose(array, states[1][name], rtol=1e-3, atol=1e-5), name


def test_a_wrong_graph_is_one_sentence(tmp_path, photos, capsys):
    def message(folder):
        output = str(tmp_path / "person.pdparams")
        assert movenet.main([str(folder), "--photos", str(photos), "--output", output]) == 1
        return capsys.readouterr().err

    assert "There is no" in message(tmp_path) and "movenet-lightning.json" in message(tmp_path)
    graph = made_up_graph()
    cut = write_graph(tmp_path / "cut", graph) / "movenet-lightning.bin"
    cut.write_bytes(cut.read_bytes()[:-100])
    assert "unpack the package again" in message(tmp_path / "cut")
    cut.write_bytes(cut.read_bytes() + bytes(1000))
    assert "unpack the package again" in message(tmp_path / "cut")
    listing = write_graph(tmp_path / "small", graph) / "movenet-lightning.json"
    eight_bit = listing.read_text().replace('"original_dtype"', '"scale": 0.1, "min": 0, "x"')
    listing.write_text(eight_bit)
    assert "is quantised to float16" in message(tmp_path / "small")
    del graph[f"{FIRST}block_7_expand/Conv2D_weights"]
    assert "lacks the layer /model/block_7_expand" in message(write_graph(tmp_path / "less", graph))
    assert not (tmp_path / "person.pdparams").exists()


def test_a_folder_without_photos_and_wrong_usage_are_reported(tmp_path, capsys):
    folder = write_graph(tmp_path / "graph", made_up_graph())
    output = ["--output", str(tmp_path / "person.pdparams")]
    assert movenet.main([str(folder), "--photos", str(tmp_path), *output]) == 1
    assert "No photo in" in capsys.readouterr().err
    for wrong in ([], ["--photos", str(tmp_path), "--count", "0"]):
        with pytest.raises(SystemExit) as stop:
            movenet.parse_args([str(folder), *wrong])
        assert stop.value.code == 2


def test_person_is_the_file_in_weights(monkeypatch, tmp_path):
    model = PortraitNet()
    path = weights.PERSONS[1.0]
    assert str(path) in load_pretrained(model, "person")
    assert path.name in (path.parent / "SHA256SUMS").read_text()
    monkeypatch.setitem(weights.PERSONS, 1.0, tmp_path / "none.pdparams")
    with pytest.raises(FileNotFoundError, match="none.pdparams: restore it.*python -m models.mov"):
        load_pretrained(model, "person")
    monkeypatch.setitem(weights.PERSONS, 1.75, tmp_path / "wide.pdparams")
    with pytest.raises(
        FileNotFoundError, match="wide.pdparams: .*models.movenet --variant thunder"
    ):
        load_pretrained(PortraitNet(width=1.75), "person")
    with pytest.raises(ValueError, match="no encoder of width 0.5: use --width 1 or 1.75"):
        load_pretrained(PortraitNet(width=0.5), "person")
