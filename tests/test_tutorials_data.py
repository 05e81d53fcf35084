"""What the tutorials plot: `recorded_runs.json` belongs to the runs that `demo.json` and `camvid.json` sum up."""
import json
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
def measured(name): return json.loads((RESULTS / f"{name}.json").read_text())
RECORDED = measured("recorded_runs")


@pytest.mark.parametrize("name, every, exact", [("demo", 10, True), ("camvid", 20, False)])
def test_recorded_losses_are_those_of_the_run(name, every, exact):
    records, run = RECORDED[name], measured(name)
    assert [r["step"] for r in records] == list(range(every, run["steps"] + 1, every))
    for term, value in run["losses_last_tenth"].items():
        found = mean(r[term] for r in records[-max(1, len(records) // 10):])
        assert abs(found - value) < (1e-3 if exact else 0.2), f"{term}: {found} and {value}"


@pytest.mark.parametrize("which", ["generated", "real"])
def test_recorded_confusion_gives_the_recorded_scores(which):
    scores = measured("camvid")["evaluation"]["judges"]["CamVid (SegNet 11-class variant)-judge"]
    c, names = np.array(RECORDED["camvid_confusion"][which]), RECORDED["camvid_confusion"]["classes"]
    iou = np.diag(c) / (c.sum(0) + c.sum(1) - np.diag(c))
    assert abs(iou.mean() - scores[which]["miou"]) < 1e-4 and abs(np.diag(c).sum() / c.sum() - scores[which]["pixel_accuracy"]) < 1e-4
    if which == "generated": assert {n: round(v, 3) for n, v in zip(names, iou.tolist())} == scores["iou"]


def test_both_confusions_count_the_same_pixels():
    c = {which: np.array(RECORDED["camvid_confusion"][which]) for which in ("generated", "real")}
    assert (c["generated"].sum(1) == c["real"].sum(1)).all()


def test_a_short_palette_cuts_ids_off(tmp_path):
    "The trap that the tutorial on your own pairs warns of: four colours are two bits a pixel, and 255 becomes 3."
    ids = np.array([[0, 3, 255, 255]], np.uint8)
    for colours, back in ((4, [[0, 3, 3, 3]]), (256, ids.tolist())):
        picture = Image.fromarray(ids)
        picture.putpalette(bytes(3 * colours))
        picture.save(tmp_path / "label.png")
        assert np.asarray(Image.open(tmp_path / "label.png")).tolist() == back
