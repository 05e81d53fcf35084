"Scores of a split: the same for any batch size and number of processes, right at the ends, and refused where they would mean nothing."
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from dpgan.config import preset
from dpgan.data import PairDataset
from dpgan.evaluate import (EvaluationError, FeatureSet, KeepBest, cache_folder, chosen, data_record, digest, evaluate, image_noise, read_cached, summary, write_cached,
                            write_evaluation)
from dpgan.features import Extractor
from dpgan.generator import Generator
from dpgan.judges import Judge, JudgeError, judge_extractor, scenes_judge
from dpgan.metrics import MetricError, frechet_distance
from test_training import launch_two
from tiny import tiny_config, tiny_trainer


@pytest.fixture(scope="module")
def val(): return PairDataset(preset("scenes", workers=0, cache=True).data, None, "val")


@pytest.fixture(scope="module")
def judge(): return scenes_judge()


@pytest.fixture(scope="module")
def extractor(judge): return judge_extractor(judge)


class Copier(nn.Module):
    "A generator that returns the real image of a label map, changed by a function of image and noise."
    def __init__(self, data, change=lambda image, z: image, z_dim=4):
        super().__init__()
        self.change, self.z_dim = change, z_dim
        self.known = {item["label"].numpy().tobytes(): item["image"] for item in (data[i] for i in range(len(data)))}

    def sample(self, label, z):
        image = torch.stack([self.known[l.byte().numpy().tobytes()] for l in label]).float() / 127.5 - 1
        return self.change(image, z).clamp(-1, 1)


def brightness(image, z): return image + 0.2 * z[:, :1, None, None]
def fd(result): return result["distances"]["FD-scenes"]["FD-scenes"]
def miou(result, which="generated"): return next(iter(result["judges"].values()))[which]["miou"]


# ---- what may not change a score

def test_batch_size_order_and_random_state_do_not_matter(val, judge, extractor, tmp_path):
    results = []
    for batch_size in (7, 30):
        torch.manual_seed(batch_size)
        results.append(evaluate(Copier(val, brightness), val, [extractor], [judge], samples=2, images=30, batch_size=batch_size, cache=tmp_path))
    a, b = results
    assert fd(a) == pytest.approx(fd(b), rel=1e-4) and fd(a) > 0 and a["diversity"]["pixels"]["mean"] == pytest.approx(b["diversity"]["pixels"]["mean"], rel=1e-5)
    assert miou(a) == pytest.approx(miou(b), abs=2e-4) and miou(a, "real") == miou(b, "real")
    assert not a["real_from_cache"] and b["real_from_cache"] and a["data"] == b["data"] and a["generator"] == b["generator"]
    other = evaluate(Copier(val, brightness), val, [extractor], images=30, seed=1, cache=tmp_path)
    assert fd(other) != pytest.approx(fd(a), rel=1e-3), "another seed of the noise must give another number"


TWO_PROCESSES = """
import json, sys
import torch
from dpgan.config import preset
from dpgan.data import PairDataset
from dpgan.evaluate import evaluate
from dpgan.generator import Generator
from dpgan.judges import judge_extractor, scenes_judge
from dpgan.training import this_process
if len(sys.argv) > 2: this_process()
torch.manual_seed(0)
G = Generator(15, base_channels=4, pyramid_channels=8, z_dim=4, init_gain=1.0)
val = PairDataset(preset("scenes", workers=0).data, None, "val")
judge = scenes_judge()
found = [evaluate(G, val, [judge_extractor(judge)], [judge], samples=2, images=21, batch_size=4, full=full, cache=sys.argv[1]) for full in (True, True, False)]
print(json.dumps(found))
if len(sys.argv) > 2: torch.distributed.destroy_process_group()
"""


def test_two_processes_give_the_number_of_one(tmp_path):
    "Uneven shares (11 and 10 images), with features kept and with moments alone, first without and then with a cache."
    two = launch_two(TWO_PROCESSES, tmp_path / "two", "several")
    one = subprocess.run([sys.executable, "-c", TWO_PROCESSES, str(tmp_path / "one")], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one = json.loads(one.stdout.splitlines()[-1])
    for a, b in zip(one, two):
        assert b["setup"]["processes"] == 2 and a["setup"]["processes"] == 1
        assert fd(a) == pytest.approx(fd(b), rel=1e-4) and miou(a) == pytest.approx(miou(b), abs=1e-6) and miou(a, "real") == pytest.approx(miou(b, "real"), abs=1e-6)
        assert a["diversity"]["pixels"]["mean"] == pytest.approx(b["diversity"]["pixels"]["mean"], rel=1e-5)
    assert one[0]["distances"]["FD-scenes"]["kernel"] == pytest.approx(two[0]["distances"]["FD-scenes"]["kernel"], rel=1e-3)
    assert [r["real_from_cache"] for r in two] == [False, True, True]


# ---- right at the ends, worse in between

def test_real_images_score_as_real_images(val, judge, extractor, tmp_path):
    result = evaluate(Copier(val), val, [extractor], [judge], images=60, cache=tmp_path)
    scores = result["distances"]["FD-scenes"]
    assert fd(result) < 1e-4 and scores["precision"] == scores["recall"] == scores["coverage"] == 1 and scores["density"] > 1
    assert miou(result) == miou(result, "real") and result["judges"][judge.name]["share_of_real_miou"] == 1


@pytest.mark.parametrize("worse", [
    lambda s: lambda image, z: nn.functional.avg_pool2d(image, 2 * s + 1, 1, s, count_include_pad=False),
    lambda s: lambda image, z: image + 0.15 * s * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)),
    lambda s: lambda image, z: (1 - s / 3) * image + s / 3 * image.flip(1)], ids=["blur", "noise", "wrong colours"])
def test_scores_get_worse_as_images_do(val, judge, extractor, tmp_path_factory, worse):
    cache = tmp_path_factory.getbasetemp() / "cache-of-worse"
    results = [evaluate(Copier(val, worse(s)), val, [extractor], [judge], images=60, batch_size=30, full=False, cache=cache) for s in (0, 1, 2, 3)]
    distances, scores = [fd(r) for r in results], [miou(r) for r in results]
    assert distances == sorted(distances) and distances[3] > 2 * distances[1] > 0 and scores == sorted(scores, reverse=True) and scores[3] < 0.9 * scores[0]


def test_score_falls_in_training_and_the_best_is_kept(val, judge, extractor, tmp_path):
    "On drawn scenes, with real networks; then the run goes on from a checkpoint, and the best score is remembered."
    settings = {"steps": 24, "evaluate_every": 12, "evaluate_images": 24, "checkpoint_every": 12, "generator.base_channels": 8, "discriminator.base_channels": 8, "batch_size": 4,
                "optim.ema_decay": 0.9}
    keep = KeepBest(val, extractor, judge, cache=tmp_path / "cache")
    trainer = tiny_trainer(tmp_path / "run", [keep], **settings)
    keep.on_start(trainer)
    before = keep.score(trainer)
    trainer.fit()
    lines = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 12, 24] and lines[-1]["FD-scenes"] < before["FD-scenes"] and 0 <= lines[-1]["mIoU"] <= 1
    best = min(lines, key=lambda line: line["FD-scenes"])
    assert json.loads((tmp_path / "run" / "best" / "state.json").read_text())["step"] == best["step"] and keep.best == best["FD-scenes"]
    again = tiny_trainer(tmp_path / "run", [other := KeepBest(val, extractor, cache=tmp_path / "cache")], **settings)
    again.load(tmp_path / "run" / "best")
    other.on_start(again)
    assert other.best == min(line["FD-scenes"] for line in lines if line["step"] <= best["step"])


def test_best_is_forgotten_with_its_line(val, extractor, judge, tmp_path):
    "A ruler that changed, another number of images, or a best checkpoint of a discarded future: nothing to beat, and no crash."
    settings = {"steps": 2, "evaluate_every": 1, "evaluate_images": 8, "checkpoint_every": 1}
    keep = lambda **kw: KeepBest(val64(), cache=tmp_path / "cache", **kw)
    tiny_trainer(tmp_path / "run", [keep(extractor=extractor)], **settings).fit()
    step = json.loads((tmp_path / "run" / "best" / "state.json").read_text())["step"]
    text = (tmp_path / "run" / "scores.jsonl").read_text()

    def remembered(callback, at, **more):
        (tmp_path / "run" / "scores.jsonl").write_text(text)
        trainer = tiny_trainer(tmp_path / "run", [callback], **{**settings, **more})
        trainer.step = at
        callback.on_start(trainer)
        return callback.best
    assert remembered(keep(extractor=extractor), 2) == min(json.loads(line)["FD-scenes"] for line in text.splitlines())
    assert remembered(keep(extractor=extractor), 2, evaluate_images=9) is None
    assert remembered(keep(judge=judge), 2) is None, "an mIoU was never written"
    assert remembered(keep(extractor=extractor), step - 1) is None and "FD-scenes" not in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()[step - 1:]


def test_scoring_does_not_disturb_the_run(val, extractor, tmp_path):
    settings = {"steps": 4, "evaluate_images": 8}
    alone, scored = tiny_trainer(tmp_path / "a", **settings), tiny_trainer(tmp_path / "b", [KeepBest(val64(), extractor, cache=tmp_path)], evaluate_every=1, **settings)
    for trainer in (alone, scored): trainer.fit()
    assert all(torch.equal(a, b) for a, b in zip(alone.G.state_dict().values(), scored.G.state_dict().values())) and (tmp_path / "b" / "scores.jsonl").is_file()


def val64(): return PairDataset(tiny_config().data, None, "val")


def test_mean_iou_alone_can_decide(judge, tmp_path):
    keep = KeepBest(val64(), None, judge, cache=tmp_path)
    trainer = tiny_trainer(tmp_path / "run", [keep], steps=1, evaluate_every=1, evaluate_images=8)
    trainer.fit()
    assert keep.name == "mIoU" and 0 <= keep.best <= 1 and keep.cost(0.9) < keep.cost(0.1)


# ---- features and cache

def test_the_distance_is_that_of_the_features(val, extractor, tmp_path):
    result = evaluate(Copier(val, brightness), val, [extractor], images=30, cache=tmp_path)
    places = chosen(val, 30)
    real = torch.stack([val[i]["image"] for i in places]).float() / 127.5 - 1
    z = image_noise(places, 0, 4, 0)
    assert fd(result) == pytest.approx(frechet_distance(extractor(real), extractor(brightness(real, z).clamp(-1, 1))), rel=1e-4)
    streamed = evaluate(Copier(val, brightness), val, [half(extractor)], images=30, full=False, cache=tmp_path)
    assert "kernel" not in streamed["distances"]["half"] and streamed["distances"]["half"]["half"] > 0


def half(extractor, m=10):
    "An extractor with fewer features than images, so that moments alone are kept."
    class First(nn.Module):
        def __init__(self): super().__init__(); self.inner = extractor
        def forward(self, x): return self.inner(x.clamp(-1, 1))[:, :m]
    return Extractor("half", First(), m, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_cache_key_covers_everything(val, judge, extractor, tmp_path):
    "Another split, size, number of images, extractor or judge has a file of its own; a damaged file is made again."
    run = lambda data, **kw: evaluate(Copier(data), data, [extractor], [judge], images=12, cache=tmp_path, **kw)
    assert not run(val)["real_from_cache"] and run(val)["real_from_cache"]
    files = set(tmp_path.iterdir())
    test = PairDataset(val.data, None, "test")
    assert not run(test)["real_from_cache"] and len(set(tmp_path.iterdir())) == 2 * len(files)
    small = PairDataset(replace(val.data, height=64, width=64), None, "val")
    assert not run(small)["real_from_cache"]
    for file in files: file.write_bytes(file.read_bytes()[:50])
    first = run(val)
    assert not first["real_from_cache"] and run(val)["real_from_cache"] and fd(first) < 1e-4
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "half-written files stay behind"


def test_a_cache_that_cannot_be_written_is_no_end(val, extractor, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(UserWarning, match="could not be kept"): result = evaluate(Copier(val), val, [extractor], images=12, cache=tmp_path / "file")
    assert fd(result) < 1e-4


def test_data_record_notices_other_content(test_data, tmp_path):
    "A photo that was replaced changes the fingerprint; a folder that was moved does not."
    shutil.copytree(test_data / "camvid_tiny_256x192", tmp_path / "a")
    data = preset("camvid", workers=0, cache=False).data
    record = lambda root: data_record(PairDataset(data, root, "val"), range(16))
    here = record(tmp_path / "a")
    assert here == record(test_data / "camvid_tiny_256x192") and here["split"] == "val" and here["images"] == here["of"] == 16
    photos = sorted((tmp_path / "a" / "val" / "images").iterdir())
    shutil.copy(photos[0], photos[5])
    assert record(tmp_path / "a")["content"] != here["content"]
    shutil.copy(test_data / "camvid_tiny_256x192" / "val" / "images" / photos[5].name, photos[5])
    label = sorted((tmp_path / "a" / "val" / "labels").iterdir())[6]
    assert record(tmp_path / "a") == here
    label.write_bytes(label.read_bytes()[:-1] + b"x")
    assert record(tmp_path / "a")["content"] != here["content"], "any label map counts"
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dpgan" and cache_folder("x").name == "x"
    write_cached(tmp_path / "a" / "b.safetensors", {"t": torch.ones(2)}, {"what": "test"})
    assert read_cached(tmp_path / "a" / "b.safetensors")["t"].tolist() == [1, 1] and read_cached(tmp_path / "none") is None


def test_feature_sets_keep_the_order_of_the_split():
    rows = torch.arange(12.0).view(6, 2)
    made = FeatureSet(2)
    for part in ([4, 1], [0, 5, 3], [2]): made.update(part, rows[part])
    assert torch.equal(made.gather().features(), rows) and torch.equal(FeatureSet.of(made.gather().tensors()).features(), rows)


# ---- the record

def test_record_holds_every_choice_and_is_json(val, judge, extractor, tmp_path):
    result = evaluate(Copier(val), val, [extractor], [judge], images=12, cache=tmp_path)
    write_evaluation(result, tmp_path / "new" / "evaluation.json", checkpoint="runs/x", step=3)
    read = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert read["checkpoint"] == "runs/x" and read["data"]["split"] == "val" and read["data"]["height"] == 64 and read["generator"]["seed"] == 0
    assert read["distances"]["FD-scenes"]["features"]["weights"] == extractor.settings["weights"] and read["distances"]["FD-scenes"]["legacy_fp32"] is False
    scored = read["judges"][judge.name]
    assert scored["judge"]["weights"] and scored["judge"]["remap"][0] == -1 and set(scored["generated"]["iou"]) == set(judge.classes) and "don't care" not in scored["generated"]["iou"]
    assert {"reading", "generator", "features", "judge", "statistics"} <= read["seconds"].keys() and read["setup"]["torch"] == torch.__version__.split("+")[0]
    text = summary(result)
    assert "FD-scenes" in text and "of real ones" in text and "12 of 500 images" in text


# ---- what is refused

def constant(value): return lambda image, z: torch.full_like(image, value)


class Broken(Copier):
    def sample(self, label, z): return torch.full((len(label), 3, *label.shape[1:]), torch.nan)


@pytest.mark.parametrize("G, more, error, words", [
    (Copier, dict(images=3), EvaluationError, "too few"), (Copier, dict(images=501), EvaluationError, "choose 1 to 500"), (Copier, dict(extractors=[]), EvaluationError, "nothing to score"),
    (lambda d: Copier(d, z_dim=0), dict(samples=2), EvaluationError, "without noise"), (Broken, {}, EvaluationError, "scene-10000 holds NaN"),
    (Copier, dict(judges=[scenes_judge(), scenes_judge()]), EvaluationError, "two results"),
    (Copier, dict(judges=[Judge("tiny", nn.Identity(), ["a", "b"], [0, 1])]), JudgeError, "tiny")])
def test_refused(val, extractor, tmp_path, G, more, error, words):
    with pytest.raises(error, match=words): evaluate(G(val), val, **{"extractors": [extractor], "images": 12, "cache": tmp_path, **more})
    assert not list(tmp_path.iterdir()), "nothing is written before a failure"


def test_a_training_split_is_refused(val, extractor, tmp_path):
    train = PairDataset(replace(val.data, cache=False), None, "train", train=True)
    with pytest.raises(EvaluationError, match="train=False"): evaluate(Copier(val), train, [extractor], images=12, cache=tmp_path)


def test_a_judge_that_scores_nothing_is_refused(val, tmp_path):
    "Every pixel of a class that the judge maps away: no mIoU, rather than NaN."
    data = PairDataset(replace(val.data, height=64, width=64, cache=False), None, "test")
    seen = set(data[0]["label"].unique().tolist())
    absent = next(c for c in range(1, 15) if c not in seen)
    never = Judge("never", nn.Conv2d(3, 2, 1), ["x", "unused"], [0 if c == absent else -1 for c in range(15)])
    with pytest.raises(MetricError, match="no pixel was scored"): evaluate(Generator(15, 4, 4, 8), data, judges=[never], images=1, cache=tmp_path)


def test_noise_belongs_to_the_image():
    z = image_noise(range(5), 0, 3, 7)
    assert torch.equal(z[2:3], image_noise([2], 0, 3, 7)) and len({tuple(r.tolist()) for r in torch.cat([z, image_noise(range(5), 1, 3, 7), image_noise(range(5), 0, 3, 8)])}) == 15
    assert chosen(range_of(10), 4) == [0, 3, 6, 9] and chosen(range_of(3), None) == [0, 1, 2]


def range_of(n):
    class Split(list): split = "val"
    return Split(range(n))
