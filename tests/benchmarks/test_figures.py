"""The documents' figures come from one file."""

import json
import re

import pytest

from benchmarks import figures

GROUPS = {
    "speed": {
        "measured": {"processor": "A", "instructions": "AVX2", "cores": "2", "date": "2026-01-02"},
        "table": [["runtime", "threads", "ms"], ["fast", "1", "12.61"], ["fast", "2", "7.96"]],
    },
    "score": {"table": [["score", "a", "b"], ["iou", "96.94 (96.5-97.3)", "95.50"]]},
    "both": {"table": [["what", "a", "b"], ["IoU", "{score|iou|*:.1f}"],
                       ["ms", "{speed|fast, 2|ms}", ""]]},
}  # fmt: skip


def test_the_documents_have_the_figures_of_the_file(capsys):
    assert figures.main(["check"]) == 0, capsys.readouterr().out


def test_every_table_of_figures_is_filled_from_the_file():
    """A row with decimals in two cells is one of measured figures."""
    rows = re.compile(r"^\|(?:[^|\n]*\|)*?[^|\n]*\d\.\d[^|\n]*\|.*\d\.\d.*\|$", re.M)
    filled = 0
    for path in figures.documents():
        text, count = figures.BLOCK.subn("", path.read_text())
        filled += count
        theirs = path.name == "departures.md"  # numbers of other publications
        assert theirs or not rows.findall(text), path
    assert filled > 25


def test_a_changed_figure_is_found_and_filled(tmp_path, monkeypatch, capsys):
    document, file = tmp_path / "README.md", tmp_path / "figures.json"
    document.write_text("Takes\n13 ms.\n\n<!-- figures: speed -->\n| old |\n<!-- end -->\nafter\n")
    sentences = {"README.md": ["Takes {speed|fast, 1|ms:.0f} ms"]}
    file.write_text(json.dumps({"sentences": sentences, "groups": GROUPS}))
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "FILE", file)
    assert figures.main(["check"]) == 1
    assert "README.md has other figures" in capsys.readouterr().out
    assert figures.main(["fill"]) == 0
    assert document.read_text() == (
        "Takes\n13 ms.\n\n<!-- figures: speed -->\n| runtime | threads | ms |\n|---|---|---|\n"
        "| fast | 1 | 12.61 |\n| fast | 2 | 7.96 |\n<!-- end -->\nafter\n"
    )
    result = tmp_path / "result.txt"
    result.write_text("words\n| runtime | ms | threads |\n|---|---|---|\n| fast | 9.50 | 1 |\n\n")
    assert figures.main(["take", "speed", str(result), "--by", "python -m x"]) == 0
    speed = json.loads(file.read_text())["groups"]["speed"]
    assert speed["table"] == [["runtime", "threads", "ms"], ["fast", "1", "9.50"]]
    assert speed["measured"]["command"] == "python -m x" and speed["measured"]["processor"]
    assert figures.main(["fill"]) == 0
    assert document.read_text().startswith("Takes\n10 ms.\n")
    document.write_text("Lasts 13 ms.")
    assert figures.main(["fill"]) == 1
    assert "lacks this sentence" in capsys.readouterr().err


def test_a_cell_holds_cells_of_other_groups():
    assert figures.table(GROUPS, "both") == (
        "| what | a | b |\n|---|---|---|\n| IoU | 96.9 | 95.5 |\n| ms | 7.96 |  |\n"
    )
    assert figures.table(GROUPS, "speed", measured=True).startswith("A, 2 cores; AVX2; 2026-01-02:")
    for missing in ("{none|a|b}", "{speed|slow|ms}", "{speed|fast|MB}", "{score|processor}"):
        with pytest.raises(ValueError, match="figures.json has no"):
            figures.table({**GROUPS, "x": {"table": [["a"], [missing]]}}, "x")


def test_evaluates_json_becomes_a_table():
    values = {"photos": 7, "scores": {"iou": 0.96944}, "intervals": {"iou": [0.965, 0.9731]}}
    text = json.dumps({"lists": {"EG1800": values}})
    assert figures.taken(text) == [
        [["score", "EG1800"], ["iou", "96.94 (96.5-97.3)"], ["photos", "7"]]
    ]


def test_two_tables_go_into_two_groups():
    text = "| a |\n|---|\n| 1 |\n\nwords\n| b | c |\n|---|---|\n| 2 |  |\n"
    groups = {}
    figures.take(groups, ["-", "second"], text, "python -m x")
    assert list(groups) == ["second"] and groups["second"]["table"] == [["b", "c"], ["2", ""]]
    with pytest.raises(ValueError, match="2 tables for 3"):
        figures.take(groups, ["a", "b", "c"], text, "python -m x")
    with pytest.raises(ValueError, match="second has the columns"):
        figures.take(groups, ["second"], text, "python -m x")
