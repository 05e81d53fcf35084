"The lessons: what is measured, on inputs whose answer is known, and the whole script at the smallest size."
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import lessons  # noqa: E402
import lessons_train  # noqa: E402

TINY = {"generator.base_channels": 4, "generator.pyramid_channels": 8, "discriminator.base_channels": 4, "optim.ema_bn_batches": 1, "data.workers": 0, "train.batch_size": 2}


# ---- sizes

CLASSES = ["road", *lessons.OBJECTS]


def sized(seen, truth): return lessons.by_size(seen[None], lessons.objects(truth[None], CLASSES), CLASSES)


def test_iou_by_size_of_a_perfect_and_of_a_blind_reading():
    truth = np.zeros((16, 16), int)
    truth[2:4, 2:4], truth[6:14, 6:14] = CLASSES.index("car"), CLASSES.index("bus")
    assert sized(truth, truth) == {"mean_over_classes": {"1 to 15": 1.0, "64 to 255": 1.0}, "iou": {**{n: {} for n in lessons.OBJECTS}, "car": {"1 to 15": 1.0}, "bus": {"64 to 255": 1.0}},
                                   "regions": {"1 to 15": 1, "16 to 63": 0, "64 to 255": 1, "256 and more": 0}}
    assert set(sized(0 * truth, truth)["mean_over_classes"].values()) == {0.0}


def test_iou_by_size_counts_what_spills_over_and_ignores_what_is_elsewhere():
    truth, seen = np.zeros((16, 16), int), np.zeros((16, 16), int)
    truth[2:4, 2:4] = seen[2:4, 2:6] = CLASSES.index("car")   # twice as wide
    seen[12:14, 12:14] = CLASSES.index("car")                 # another car, which touches nothing
    assert sized(seen, truth)["iou"]["car"] == {"1 to 15": 0.5}


def test_bins_leave_no_area_out():
    edges = list(lessons.BINS.values())
    assert edges[0][0] == 1 and all(a[1] + 1 == b[0] for a, b in zip(edges, edges[1:]))


# ---- readings

def test_linear_reading_finds_what_is_there_and_nothing_else():
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat(200)
    told, noise = torch.eye(3)[y] + 0.1 * torch.randn(600, 3, generator=rng), torch.randn(600, 3, generator=rng)
    assert lessons.read_out(told[:300], y[:300], told[300:], y[300:], 3) > 0.99
    assert lessons.read_out(noise[:300], y[:300], noise[300:], y[300:], 3) < 0.5
    assert lessons.read_out(1e-6 * told[:300], y[:300], 1e-6 * told[300:], y[300:], 3) == pytest.approx(1 / 3)   # rounding is no information


def test_flat_maps_are_erased_and_written_back():
    found = lessons.flat_reading(5)
    assert found["chance"] == 0.2 and found["reading"]["circular"]["instance norm"] == pytest.approx(0.2) and found["reading"]["circular"]["spatially adaptive (instance)"] == 1


def test_plain_generator_knows_only_the_coarsest_pixels():
    G = lessons.build_networks(tiny_config(**{"data.num_classes": 15}))[0].eval()
    label = torch.zeros(1, 64, 64, dtype=torch.long)
    other, z = label.clone(), torch.zeros(1, G.z_dim)
    other[:, 5:20, 5:20] = 3   # no pixel of the grid of 32
    plain = lessons.plain(G)
    for m in plain.modules():
        if isinstance(m, lessons.Averaged): m.inner.gamma.weight.data.zero_(), m.inner.beta.weight.data.zero_()
    assert torch.equal(plain(label, z), plain(other, z)) and not torch.equal(G(label, z), G(other, z))


# ---- runs that lack a part

def test_single_pyramid_does_not_hear_the_coarsest_level():
    config = tiny_config(**{"data.num_classes": 15})
    G = lessons_train.SinglePyramid(15, **vars(config.generator)).eval()
    torch.manual_seed(0)
    label, z, seen = torch.randint(0, 15, (1, 64, 64)), torch.zeros(1, G.z_dim), []
    for block in G.blocks: block.register_forward_pre_hook(lambda m, args: seen.append(args[1]))
    G(label, z)
    levels = G.pyramid(G.embed(label, z))
    assert all(torch.equal(c, torch.cat([levels[6 - i]] * 2, 1)) for i, c in enumerate(seen))
    assert sum(p.numel() for p in G.parameters()) == sum(p.numel() for p in lessons.build_networks(config)[0].parameters())


def test_without_segmentation_only_patches_are_left():
    terms = {"total": torch.tensor(9.0), "adv": torch.tensor(4.0), "patch_real": torch.tensor(2.0), "patch_fake": torch.tensor(3.0)}
    found = lessons_train.without_segmentation(lambda: terms)()
    assert found["total"] == 5 and found.keys() == {"total", "patch_real", "patch_fake"}


def test_runs_differ_in_one_part():
    settings = {name: lessons_train.run_config(name, 3, {})[1] for name in lessons_train.RUNS}
    assert settings["no-labelmix-0"].loss.lambda_labelmix == 0 < settings["dual-0"].loss.lambda_labelmix
    assert settings["no-align-0"].loss.lambda_align == 0 < settings["dual-0"].loss.lambda_align
    assert settings["single-1"] == settings["dual-1"] != settings["dual-0"]
    assert len(settings) == len(set(lessons_train.RUNS)) == 25 and all(sum(name.startswith(f"{part}-") for name in settings) == 5 for part in lessons_train.PARTS)


# ---- the script

@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    "The result and the folder of the script at the smallest size."
    out = tmp_path_factory.mktemp("lessons")
    words = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "benchmarks/lessons.py", "--runs", out / "runs", "--out", out / "lessons.json", "--pictures", out, "--steps", "2", "--images", "8", "--train", "dual-0", "single-0", "patch-0", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((out / "lessons.json").read_text()), out


def test_script_measures_every_lesson(smallest):
    found, out = smallest
    assert found.keys() == {"long", *lessons.LESSONS} and found["runs"]["runs"].keys() == {"dual-0", "single-0", "patch-0"} and found["runs"]["step"] == 2
    assert {p.name for p in out.glob("*.png")} == {f"lessons_{name}.png" for name in ("norm", "runs", "labelmix", "align", "ema")}
    assert all(0 <= run["scores"]["2"]["miou"] <= 1 for run in found["runs"]["runs"].values()) and found["reach"]["regions"] > 0
    asked = found["labelmix"]["real_pixels_by_class"].values()
    short = json.loads((out / "lessons_seeds.json").read_text())
    assert {name: run["miou"] for name, run in short["runs"].items()} == {name: run["scores"]["2"]["miou"] for name, run in found["runs"]["runs"].items()}
    assert short["runs"]["dual-0"]["mixing_error"] == found["labelmix"]["discriminators"]["dual-0"]["relative_to_difference"] and "mixing_error" not in short["runs"]["patch-0"]
    assert "iou" in found["runs"]["runs"]["single-0"]["scores"]["2"]["by_size"] and "iou" not in found["runs"]["runs"]["patch-0"]["scores"]["2"]["by_size"]
    assert sum(c["pixels"] for c in asked) == 8 * 64 * 128 and all(0 <= c["called_fake"] <= 1 and c["weight"] >= 0 for c in asked)
    assert found["ema"]["runs"]["long"]["steps"].keys() == {"1", "2"} and found["long"]["step"] == 2   # the first small run stands in for the long one


def test_patch_run_kept_no_segmentation_loss(smallest):
    losses = smallest[0]["runs"]["runs"]
    assert "loss_g/adv" not in losses["patch-0"]["curve"] and "loss_g/adv" in losses["dual-0"]["curve"]


# ---- the committed record

def test_committed_record_is_small_and_names_no_machine():
    path = lessons.RESULTS / "lessons.json"
    text = path.read_text()
    record = json.loads(text)
    assert len(text) < 100_000 and record.keys() == {"long", *lessons.LESSONS} and "/tmp" not in text
    short = json.loads((lessons.RESULTS / "lessons_seeds.json").read_text())
    assert short.keys() == {"environment", "trained_with_revision", "step", "pictures", "runs", "real_pixels_by_class"} and len(short["runs"]) == 25 and {name.rsplit("-", 1)[0] for name in short["runs"]} == {"dual", "single", "patch", "no-labelmix", "no-align"}
