"""A wider network starts with the narrow one's answers."""

import numpy as np
import paddle
import pytest
from conftest import lively

from models import PortraitNet, PortraitNetLite, widen
from models.weights import load_model, save_atomically


@pytest.fixture(scope="module")
def narrow():
    paddle.seed(0)
    return lively(PortraitNet())


def answers(model):
    paddle.seed(1)
    with paddle.no_grad():
        return model(paddle.randn([2, 3, 64, 96]))


def test_copies_divide_what_the_channel_gave():
    copies = widen.draw_copies(3, 8, np.random.default_rng(0))
    assert list(copies.source[:3]) == [0, 1, 2] and set(copies.source) == {0, 1, 2}
    assert sorted(np.bincount(copies.source)) == [2, 3, 3]
    np.testing.assert_allclose(np.bincount(copies.source, copies.fraction), 1, rtol=1e-6)
    assert list(copies.is_new) == [False] * 3 + [True] * 5


@pytest.mark.parametrize("width", [1.25, 1.75])
def test_without_noise_the_answers_stay(narrow, width):
    wide = widen.widen(narrow, width, noise=0)
    for ours, truth in zip(answers(wide), answers(narrow)):
        # float32 sums of other parts: relative error of 60 layers, far below a logit's spread
        assert (ours - truth).abs().max().item() < 1e-4 * truth.abs().max().item()


def test_noise_changes_the_copies_alone(narrow):
    plain, noisy = (widen.widen(narrow, 1.25, noise=noise).state_dict() for noise in (0, 0.5))
    name = "encoder.stages.3.1.expand.conv.weight"
    old = narrow.state_dict()[name].shape[0]
    assert (plain[name][:old] == noisy[name][:old]).all()
    assert (plain[name][old:] != noisy[name][old:]).any()
    up = "up8.weight"
    old = narrow.state_dict()[up].shape[1]
    assert (plain[up][:, :old] == noisy[up][:, :old]).all()
    assert (plain[up][:, old:] != noisy[up][:, old:]).any()


def test_the_command_writes_a_checkpoint(narrow, tmp_path, capsys):
    save_atomically(narrow.state_dict(), tmp_path / "narrow.pdparams")
    flags = ["--model_path", f"{tmp_path / 'narrow.pdparams'}", "--noise", "0"]
    assert widen.main([*flags, "--width", "1.5", "--output", f"{tmp_path / 'wide.pdparams'}"]) == 0
    assert load_model(tmp_path / "wide.pdparams").encoder.channels[-1] == 480
    assert widen.main([*flags, "--width", "0.5", "--output", f"{tmp_path / 'no.pdparams'}"]) == 1
    assert "wider than 0.5" in capsys.readouterr().err
    assert not (tmp_path / "no.pdparams").exists()


@pytest.mark.parametrize("model", [PortraitNetLite(), PortraitNet(width=0.5)])
def test_what_cannot_be_widened_is_refused(model):
    with pytest.raises(ValueError, match="cannot be widened"):
        widen.widen(model, 1.75)
