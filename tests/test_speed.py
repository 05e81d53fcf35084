"""The benchmark of the training step and the curves: every part runs at toy size, and what they conclude is right."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import curves  # noqa: E402
import speed  # noqa: E402


def run(script, *args):
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / script), *map(str, args)], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_parts_run_on_the_processor(tmp_path):
    out = tmp_path / "speed.json"
    printed = run("speed.py", "--shape", "tiny", "--parts", "step", "inference", "stages", "memory", "--rows", "D(real)", "D frozen", "share_real", "reuse_fake", "--repeats", 1, "--limit", 2, "--out", out)
    result = json.loads(out.read_text())
    [part], [drawing], [staged], [memory] = (result[kind] for kind in ("training_step", "inference", "stages", "memory"))
    rows = {r["row"]: r for r in part["rows"]}
    assert list(rows) == ["plain", "no gradient through D(real)", "D frozen in the G step", "share_real", "reuse_fake"] and all(row in printed for row in rows)
    work = [r["tera_operations"] for r in rows.values()]
    assert work == sorted(work, reverse=True) and all(r["seconds"] > 0 for r in rows.values()) and rows["plain"]["times_faster"] == 1
    assert [r["row"] for r in drawing["rows"]][-1] == "fast, bf16, label map prepared" and all(r["mean_grey_levels_off"] < 4 for r in drawing["rows"])
    ops = {way: sum(r["giga_operations"] for r in staged["rows"] if r["way"] == way) for way in ("plain", "exact", "bf16")}
    assert 0 < ops["exact"] == ops["bf16"] < ops["plain"] and all(r["seconds"] > 0 for r in staged["rows"]) and len(staged["rows"]) == 3 * 14
    assert sum(staged["forward_giga_operations"]["exact"].values()) < sum(staged["forward_giga_operations"]["plain"].values())
    assert [r["largest_batch"] for r in memory["rows"]] == [2] * 4 and [r["checkpointing"] for r in memory["rows"]] == [False, True, False, True]


def test_rows_are_added_one_at_a_time():
    "Each of the first rows differs from the one before in one thing; a GPU leaves the look-up out and gets compiled rows beside bf16."
    ways = [way for name, way in speed.all_rows("cpu", False).items() if name not in speed.BESIDE]
    for a, b in zip(ways, ways[1:]): assert sum(a[k] != b[k] for k in a) == 1
    names = list(speed.all_rows("cuda", True))
    assert "first convolution looked up" not in names and {"bf16, compiled", "all options, compiled", "bf16, compiled, CUDA graphs", "bf16, channels_last"} <= set(names)


@pytest.mark.parametrize("true", [0, 1, 2, 3, 5, 16, 37, 64])
def test_the_largest_batch_is_found(true):
    asked = []
    assert speed.largest(lambda n: asked.append(n) or n <= true, 64) == true
    assert len(asked) <= 14 and max(asked) <= 64


class Full:
    "A bench without room for one of its rows."
    batch, device = {"label": torch.zeros(2)}, "cpu"
    config = speed.shape_config("tiny")

    def iteration(self, way):
        if way["share_real"]: raise RuntimeError("CUDA out of memory. Tried to allocate")

    def forget(self, way): pass


def test_a_row_that_does_not_fit_is_said_so_and_other_errors_end_the_run():
    ways = speed.all_rows("cpu", False)
    rows = {name: ways[name] for name in ("plain", "share_real", "bf16")}
    part = speed.measure("tiny", Full(), 1, "cpu", {"float32": 1.0, "bf16": 1.0}, rows)
    assert [r.get("note") for r in part["rows"]] == [None, "out of memory", None]
    with pytest.raises(RuntimeError, match="something else"): speed.peak(lambda: (_ for _ in ()).throw(RuntimeError("something else")), "cpu")


def test_curves_of_tiny_runs_and_no_run_twice(tmp_path):
    how = ["--steps", 4, "--only", "plain, seed 0", "plain, seed 1", "share_real", "--work", tmp_path / "work", "--out", tmp_path / "c.json",
           *[w for s in ("base_channels=4", "data.width=64", "generator.pyramid_channels=8") for w in ("--set", s)]]
    run("curves.py", *how)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").iterdir()}
    result = json.loads((tmp_path / "c.json").read_text())
    assert list(result["curves"]) == ["plain, seed 0", "plain, seed 1", "share_real"] and set(result["distance_over_spread"]) == {"plain, seed 1", "share_real"}
    assert result["over_terms"]["plain, seed 1"]["mean"] == 1, "two plain runs: their distance is the spread"
    assert len(result["curves"]["share_real"]["loss_d/real"]) == 4
    run("curves.py", *how)
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "work").iterdir()}


def test_distance_over_spread():
    flat = lambda value: {"loss": [value] * 80}
    s = curves.summary({"plain, seed 0": flat(1.0), "plain, seed 1": flat(1.2), "bf16, seed 0": flat(1.1), "bf16, seed 1": flat(1.4), "share_real": flat(1.1)})
    assert s["spread_between_seeds"]["loss"] == pytest.approx(0.2) and s["distance_over_spread"]["share_real"]["loss"] == 0.5 and len(s["curves"]["share_real"]["loss"]) == 40
    assert s["ways_over_spread"] == {"bf16": {"loss": pytest.approx(1.25)}}, "the median of 1.0 to 1.4 and 1.2 to 1.1, over the spread; runs of one seed are not compared"
