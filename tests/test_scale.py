"""The arithmetic of a full-size run: what is counted, what is derived from it, and the committed figures."""
import json
import math
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import scale  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "scale.json"


@pytest.fixture(scope="module")
def small(): return scale.override(scale.shape_config("small"), {"generator.base_channels": 4, "discriminator.base_channels": 4, "data.width": 64})


def test_live_counts_what_is_held(small):
    counted = scale.Counted(small, 2)
    with scale.Live(counted) as live:
        a = torch.empty(100, device="meta")
        b = a.view(10, 10)                  # the same storage
        c = torch.empty(50, device="meta")
        next(counted.G.parameters()).flatten()  # a view of what was there before
        assert live.now == live.peak == 600
        del a, c
        assert live.now == 400 and live.peak == 600
        del b
        assert live.now == 0


def test_a_shape_is_derived_whole(small, monkeypatch, capsys):
    "The one command at a small shape: everything counted, everything derived, everything printed."
    monkeypatch.setattr(scale, "shape_config", lambda shape: small)
    r = scale.derive("small")
    assert json.loads(json.dumps(r))["steps"] == r["steps"]
    each = {k: f["bytes_per_image"] for k, f in r["features"].items()}
    assert each["off"] > 1.5 * each["off, checkpointing"] > 0 and each["off"] > each["bf16"] > each["bf16, checkpointing"] > 0
    work = r["tera_operations_per_image"]
    assert work["step_by_step"] > work["checkpointing"] > work["ours"] > 0
    assert r["state_bytes"]["adam"] == 2 * r["state_bytes"]["gradients"] == 8 * sum(r["parameters"].values())
    assert all(a <= b for fits in r["largest_batch"].values() for a, b in zip(list(fits.values()), list(fits.values())[1:]))
    assert all(0 < share < 1 for by in r["links"].values() for v in by.values() for share in v["computing"].values())
    scale.show(r)
    assert "largest batch" in (said := capsys.readouterr().out) and "messages of batch norm" in said


def test_half_convolutions_lower_convolutions_alone():
    conv, x = torch.nn.Conv2d(3, 4, 3, device="meta"), torch.empty(1, 3, 8, 8, device="meta")
    with scale.half_convolutions(): assert conv(x).dtype == torch.bfloat16 and (x + x).dtype == torch.float32
    assert conv(x).dtype == torch.float32


def test_exchanges_are_exact(small):
    counted, sent = scale.Counted(small, 2), scale.exchanges(small)
    assert sent["gradients"] == {"generator": 4 * scale.numbers(counted.G), "discriminator": 4 * scale.numbers(counted.D), "messages": 2}
    assert sent["class_counts"]["bytes"] == 2 * 8 * 15 and sent["sync_batch"]["messages"] > 2 * len(counted.G.pyramid.stages)


def test_ring_and_largest_batch():
    sent = {"gradients": {"generator": 3e9, "discriminator": 1e9, "messages": 2}, "sync_batch": {"messages": 0}, "class_counts": {"messages": 0}}
    rate, latency = scale.LINKS["Ethernet 100 Gbit/s"]
    assert scale.exchange_seconds(sent, 2, "Ethernet 100 Gbit/s") == pytest.approx(4 / (0.8 * rate) + 2 * latency)
    assert scale.exchange_seconds(sent, 256, "Ethernet 100 Gbit/s") < 2.01 * 4 / (0.8 * rate) + 2 * 8 * latency
    feature = {"bytes_per_image": 1e9, "bytes_once": 0.5e9}
    assert scale.largest_batch(16, 2e9, feature) == math.floor(0.92 * 16 - 1.5 - 2 - 0.5) and scale.largest_batch(4, 2e9, feature) == 0
    assert scale.hours(2.0, 1000, 10, 100, 0.5) == pytest.approx(1000 * 10 * 2 / 50 / 3600)


def test_committed_results_are_of_these_networks():
    result = json.loads(RESULTS.read_text())
    assert [s["shape"] for s in result["shapes"]] == ["cityscapes", "ade20k", "coco_stuff"] and {"torch", "revision", "processor"} <= result["environment"].keys()
    assert json.loads(json.dumps(scale.ASSUMED)) == result["assumed"]
    G, D = scale.shapes_of(scale.shape_config("cityscapes"))
    assert result["shapes"][0]["parameters"] == {"generator": scale.numbers(G), "discriminator": scale.numbers(D)}, "run benchmarks/scale.py again"
    for s in result["shapes"]:
        for kind, fits in s["largest_batch"].items():
            for gigabytes, n in fits.items(): assert n == scale.largest_batch(int(gigabytes), sum(s["state_bytes"].values()), s["features"][kind])
    assert all(0.9 < c["ratio"] <= 1.05 for c in result["check"].values())


def test_profiled_step_holds_what_was_counted(small):
    "A step without numbers and the same step run for real take nearly the same memory."
    counted = scale.Counted(small, 2)
    with scale.Live(counted) as live: counted.g_step()
    assert 0.85 < live.peak / scale.profiled_peak(scale.Counted(small, 2, device="cpu")) < 1.1
