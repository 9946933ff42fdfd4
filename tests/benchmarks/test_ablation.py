import json
from pathlib import Path

import pytest

from benchmarks import ablation

ROOT = Path(__file__).parents[2]
FLAGS = "-- --size 64 --width 0.25 --batch_size 4".split()


@pytest.mark.slow
def test_every_arm_is_trained_scored_and_kept(data_root, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = ["--data_root", str(data_root), "--output", str(tmp_path / "runs"), "--epoch", "1"]
    command += [*FLAGS, str(tmp_path / "cache")]
    ablation.main(command)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model_0.pdparams")}
    assert len(written) == len(ablation.ARMS)
    results = json.loads((tmp_path / "runs" / "ablation.json").read_text())
    losses = {result["arm"]: result["history"][0]["loss"] for result in results}
    assert losses["mask"]["edge"] == losses["mask"]["consistency"] == 0
    assert losses["mask + boundary"]["edge"] > 0 == losses["mask + boundary"]["consistency"]
    assert losses["mask + boundary + consistency"]["consistency"] > 0
    message = capsys.readouterr().out
    assert all(f"| {arm} | 0 |" in message for arm in ablation.ARMS)
    ablation.main(command)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert (tmp_path / "runs" / "ablation.svg").stat().st_size > 0
