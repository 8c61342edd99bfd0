"""inference.py --by_expert and --map: what each expert of a detector reaches alone."""

import json

import pytest
from sklearn.metrics import roc_auc_score

import inference
from data.samples import InputError
from models.experts import EXPERTS
from tests.test_experts import rows
from utils.presets import parse
from utils.runs import Run


def run_inference(*argv) -> int:
    return inference.main(parse(inference.get_parser(), [*map(str, argv), "--device", "cpu"]))


def results(run: Run) -> list[dict]:
    """Return every image's result, without the time that it took."""
    return [{**row, "seconds": None} for row in rows(run)]


def test_a_table_of_each_expert_follows_that_of_all(fused, capsys):
    before = results(fused)
    assert run_inference(fused.output, "--by_expert", "--no_maps") == 0
    shown = capsys.readouterr().out
    assert run_inference(fused.output, "--by_expert", "--no_maps", "--format", "json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [record.get("map") for record in records if record["category"] == "bolt"] == [
        None,
        *EXPERTS,
    ]
    heads = [f"folder, {name} map" for name in EXPERTS]
    positions = [shown.index(head) for head in heads]
    assert positions == sorted(positions)
    assert results(fused) == before
    for name in EXPERTS:
        assert run_inference(fused.output, "--map", name, "--format", "json") == 0
        row = json.loads(capsys.readouterr().out)[0]
        of = [(r["defect"] != "good", float(r[name])) for r in rows(fused)]
        assert row["AUROC"] == pytest.approx(roc_auc_score(*zip(*of, strict=True)))


def test_an_expert_that_a_detector_lacks_is_named(alone, capsys):
    assert run_inference(alone.output, "--map", "student") == 2
    shown = capsys.readouterr()
    assert "has position and composition" in shown.err
    assert "--experts student" in shown.err
    assert run_inference(alone.output, "--by_expert") == 0
    assert "student map" not in capsys.readouterr().out


def test_experts_are_not_asked_for_of_maps_made_elsewhere(alone, tmp_path):
    with pytest.raises(InputError, match="--by_expert"):
        run_inference(alone.output, "--by_expert", "--maps_dir", tmp_path)
    with pytest.raises(InputError, match="--by_expert"):
        run_inference(alone.output, "--by_expert", "--map", "position")
