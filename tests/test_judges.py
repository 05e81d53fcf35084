"dpgan.judges: what a judge sees and is asked, remaps, training, files, and the judge that ships with the package."
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from dpgan.config import DataConfig, preset
from dpgan.data import SCENES, PairDataset
from dpgan.features import ImageError
from dpgan.judges import (Judge, JudgeError, JudgeNet, blurred, ceiling, check_judge, class_shares, jitter, judge_extractor, judge_files, judge_loss, load_judge,
                          remap_by_name, save_judge, scenes_judge, train_judge)
from dpgan.labels import CITYSCAPES, ClassSet, colourise, uint8_to_image
from dpgan.layers import count_parameters
from dpgan.metrics import ConfusionMatrix, frechet_distance

NAMES = ("sky", "road", "car")


def rng(seed=0): return torch.Generator().manual_seed(seed)


class Eye(nn.Module):
    "Class 0, 1 or 2 where red, green or blue is the largest colour; remembers what it was shown."
    def forward(self, x):
        self.shown = x
        return x


def judge(remap=(-1, 0, 1, 2), classes=NAMES, net=None, **kw): return Judge("eye", net or Eye(), classes, remap, **kw)


def pure(ids):
    "An image whose pixels are pure red, green or blue."
    return F.one_hot(ids, 3).movedim(-1, 1).float() * 2 - 1


def small_data(split="train", train=True, **changes): return PairDataset(replace(preset("scenes").data, height=64, width=64, **changes), None, split, train=train)


def folder_of_pairs(root, labels, void=None, names=("a", "b", "c"), split="train"):
    "A data set on disk: pictures whose grey level is the class, and label maps."
    for kind in ("images", "labels"): (root / split / kind).mkdir(parents=True)
    for i, label in enumerate(labels):
        Image.fromarray(label.astype(np.uint8)).save(root / split / "labels" / f"{i}.png")
        Image.fromarray(np.repeat(60 * (label % 4).astype(np.uint8)[..., None], 3, 2)).save(root / split / "images" / f"{i}.png")
    (root / "classes.json").write_text(json.dumps({"name": "grey", "void_id": void, "classes": [{"id": i, "name": n} for i, n in enumerate(names)]}))
    return DataConfig(dataset="folder", height=64, width=64, workers=0)


@pytest.fixture(scope="module")
def shipped(): return scenes_judge()


@pytest.fixture(scope="module")
def scenes():
    "100 validation scenes: images in [-1, 1] and label maps."
    pairs = [p for dataset in [PairDataset(preset("scenes").data, None, "val")] for p in map(dataset.__getitem__, range(100))]
    return torch.stack([p["image"] for p in pairs]).float() / 127.5 - 1, torch.stack([p["label"] for p in pairs])


@pytest.fixture(scope="module")
def trained(): return train_judge(small_data(), steps=20, batch_size=4, width=16, workers=0)


def miou(judge, images, labels):
    table = ConfusionMatrix(len(judge.classes))
    for x, y in zip(images.split(50), labels.split(50)): table.update(judge(x), judge.truth(y))
    return table.mean_iou()


class TestJudge:
    def test_sees_what_is_there(self):
        ids = torch.randint(0, 3, (2, 6, 8), generator=rng())
        seen = judge()(pure(ids))
        assert torch.equal(seen, ids) and seen.dtype == torch.int64

    def test_truth_is_remapped(self):
        label = torch.tensor([[[0, 1], [2, 3]]])
        for dtype in (torch.uint8, torch.int16, torch.int64): assert judge((-1, 2, -1, 0)).truth(label.to(dtype)).tolist() == [[[-1, 2], [-1, 0]]]

    def test_normalisation_is_of_colours_in_0_1(self):
        j, image = judge(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)), torch.rand(2, 3, 4, 4, generator=rng()) * 2 - 1
        j(image)
        expected = ((image + 1) / 2 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
        torch.testing.assert_close(j.net.shown, expected)

    @pytest.mark.parametrize("size", [(4, 6), (16, 24), (5, 7)])
    def test_size(self, size):
        "Bilinear without antialiasing for the image, the nearest pixel for the label, one shape for both."
        j, image, label = judge(size=size), torch.rand(2, 3, 8, 12, generator=rng()) * 2 - 1, torch.randint(0, 4, (2, 8, 12), generator=rng())
        seen, truth = j(image), j.truth(label)
        torch.testing.assert_close(j.net.shown, F.interpolate((image + 1) / 2, size, mode="bilinear", align_corners=False))
        rows, columns = ([math.floor((i + 0.5) * n / m) for i in range(m)] for n, m in ((8, size[0]), (12, size[1])))
        assert seen.shape == truth.shape == (2, *size) and torch.equal(truth, label[:, rows][:, :, columns] - 1)

    def test_nearest_agrees_with_pillow(self):
        label = torch.randint(0, 4, (1, 12, 20), generator=rng())
        resized = np.asarray(Image.fromarray(label[0].numpy().astype(np.uint8)).resize((10, 6), Image.Resampling.NEAREST))
        assert np.array_equal(judge(size=(6, 10)).truth(label)[0].numpy(), resized.astype(int) - 1)

    def test_logits_are_enlarged_before_the_choice(self):
        "The largest of interpolated logits, not the nearest of the largest."
        coarse = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 3, 1))
        j, image = judge(net=coarse), torch.rand(1, 3, 16, 16, generator=rng()) * 2 - 1
        with torch.no_grad(): logits = coarse((image + 1) / 2)
        assert torch.equal(j(image), F.interpolate(logits, (16, 16), mode="bilinear", align_corners=False).argmax(1))

    def test_always_in_evaluation_mode_and_frozen(self):
        j = judge(net=nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
        wrapper = nn.ModuleList([j]).train()
        assert wrapper.training and not any(m.training for m in j.modules()) and not any(p.requires_grad for p in j.parameters())
        before = {k: t.clone() for k, t in j.state_dict().items()}
        assert not j(torch.rand(2, 3, 4, 4).requires_grad_()).requires_grad and all(torch.equal(t, before[k]) for k, t in j.state_dict().items())

    def test_batch_size_does_not_matter(self, shipped, scenes):
        whole = shipped(scenes[0][:12])
        assert torch.equal(torch.cat([shipped(x) for x in scenes[0][:12].split(5)]), whole)

    def test_record_tells_judges_apart(self):
        conv = lambda seed: (torch.manual_seed(seed), nn.Conv2d(3, 3, 1))[1]
        base = lambda **kw: Judge(**{**dict(name="a", net=conv(0), classes=NAMES, remap=(-1, 0, 1, 2), size=(4, 4)), **kw}).record()
        others = [base(name="b"), base(net=conv(1)), base(classes=("x", "y", "z")), base(remap=(0, 0, 1, 2)), base(size=None), base(mean=(0.1,) * 3), base(std=(2.0,) * 3), base(settings={"s": 1})]
        assert base() == base() and all(json.loads(json.dumps(r)) != base() for r in others)

    def test_state_is_the_network_alone(self): assert judge(net=nn.Conv2d(3, 3, 1)).state_dict().keys() == {"net.weight", "net.bias"}

    @pytest.mark.parametrize("kw, words", [
        (dict(remap=(-1, 3)), "sends class 1 of the data set to 3"), (dict(remap=(-2, 0)), "sends class 0 of the data set to -2"), (dict(remap=(-1, -1)), "leaves no class to score"),
        (dict(remap=()), "leaves no class to score"), (dict(size=(4,)), "size is"), (dict(size=(0, 4)), "size is"), (dict(std=(1.0, 0.0, 1.0)), "std above 0"), (dict(mean=(0.0,)), "three numbers each")])
    def test_impossible(self, kw, words):
        with pytest.raises(JudgeError, match=words): judge(**kw)

    def test_wrong_number_of_outputs(self):
        with pytest.raises(JudgeError, match="has 3 outputs for 2 classes"): judge((0, 1), NAMES[:2])(torch.zeros(1, 3, 4, 4))

    @pytest.mark.parametrize("image", [torch.full((2, 3, 4, 4), math.nan), torch.full((1, 3, 4, 4), 255.0), torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, 3, 4, 4)])
    def test_no_image(self, image):
        with pytest.raises(ImageError): judge()(image)

    @pytest.mark.parametrize("label, words", [(torch.full((1, 2, 2), 4), "indices 4..4 do not fit"), (torch.full((1, 2, 2), -1), "do not fit"), (torch.zeros(2, 2, dtype=torch.long), r"integers \(B, H, W\)"),
                                              (torch.zeros(1, 2, 2), "integers")])
    def test_no_label(self, label, words):
        with pytest.raises(JudgeError, match=words): judge().truth(label)


class TestRemap:
    def test_by_name(self):
        assert remap_by_name(("void", "Road", "TRAFFIC-light", "sky"), ("sky", "traffic light", "road")) == (-1, 2, 1, 0)

    def test_aliases(self):
        assert remap_by_name(("void", "human", "sky"), ("sky", "person"), {"human": "Person"}) == (-1, 1, 0)

    def test_cityscapes_train_ids(self):
        "The nineteen classes of the field's judge, found by name at their official ids."
        trained = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
        remap = remap_by_name(CITYSCAPES.names, trained)
        assert [i for i, j in enumerate(remap) if j >= 0] == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33] and max(remap) == 18

    @given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=8), st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=8))
    def test_every_entry_is_right(self, names, classes):
        if not set(names) & set(classes):
            with pytest.raises(JudgeError, match="no class of the data set"): remap_by_name(names, classes)
            return
        for name, j in zip(names, remap_by_name(names, classes)): assert classes[j] == name if j >= 0 else name not in classes

    @pytest.mark.parametrize("aliases, words", [({"cat": "sky"}, "'cat' is no class of the data set"), ({"sky": "cat"}, "'cat' is no class of the judge")])
    def test_unknown_alias(self, aliases, words):
        with pytest.raises(JudgeError, match=words): remap_by_name(("sky",), ("sky",), aliases)


class TestCheck:
    CLASSES = ClassSet("toy", ("void", *NAMES), ((0, 0, 0),) * 4, True, ((0,), (1,), (2,), (3,)))

    def test_fits(self): check_judge(judge(), self.CLASSES)
    def test_a_class_may_be_left_out(self): check_judge(judge((-1, 0, -1, 2)), self.CLASSES)
    def test_scenes(self, shipped): check_judge(shipped, SCENES)

    @pytest.mark.parametrize("remap, words", [((-1, 0, 1), "made for 3 classes, but toy has 4"), ((0, 0, 1, 2), "scores 'void' as 'sky'"), ((-1, 1, 0, 2), "takes 'sky' of toy for 'road'")])
    def test_does_not_fit(self, remap, words):
        with pytest.raises(JudgeError, match=words): check_judge(judge(remap), self.CLASSES)


class TestNet:
    @pytest.mark.parametrize("size", [(16, 16), (64, 128), (48, 80)])
    def test_shapes(self, size):
        net, x = JudgeNet(5, 16).eval(), torch.zeros(2, 3, *size)
        assert net(x).shape == (2, 5, *size) and net.features(x).shape == (2, net.num_features)

    def test_small_enough_to_ship(self): assert 2 * count_parameters(JudgeNet(14)) < 2e6

    def test_size_that_cannot_be_halved(self):
        with pytest.raises(ValueError, match="not divisible by 16"): JudgeNet(5, 16)(torch.zeros(1, 3, 64, 60))


class TestLoss:
    @settings(max_examples=30)
    @given(st.integers(0, 999), st.integers(2, 6))
    def test_written_out(self, seed, k):
        g = rng(seed)
        truth, logits, weight = torch.randint(-1, k, (2, 4, 4), generator=g), torch.randn(2, k, 4, 4, generator=g), torch.rand(k, generator=g) + 0.1
        truth[0, 0, 0] = 0
        p, dice = logits.softmax(1), []
        for c in truth[truth >= 0].unique().tolist():
            mine = truth == c
            dice.append((2 * p[:, c][mine].sum() + 1) / (p[:, c][truth >= 0].sum() + mine.sum() + 1))
        torch.testing.assert_close(judge_loss(logits, truth, weight), F.cross_entropy(logits, truth, weight, ignore_index=-1) + 1 - torch.stack(dice).mean(), rtol=1e-4, atol=1e-5)

    def test_pixels_without_class_have_no_say(self):
        truth, logits = torch.randint(-1, 3, (2, 4, 4), generator=rng()), torch.randn(2, 3, 4, 4, generator=rng()).requires_grad_()
        judge_loss(logits, truth, torch.ones(3)).backward()
        assert not logits.grad.movedim(1, -1)[truth < 0].any() and logits.grad.movedim(1, -1)[truth >= 0].any()

    def test_nothing_to_score(self):
        logits = torch.randn(1, 3, 4, 4, generator=rng()).requires_grad_()
        judge_loss(logits, torch.full((1, 4, 4), -1), torch.ones(3)).backward()
        assert not logits.grad.any()


class TestJitter:
    def test_amount_0(self, scenes): torch.testing.assert_close(jitter(scenes[0][:4], rng(), 0.0), scenes[0][:4])

    def test_same_seed(self, scenes):
        x = scenes[0][:4]
        assert torch.equal(jitter(x, rng(3)), jitter(x, rng(3))) and not torch.equal(jitter(x, rng(3)), jitter(x, rng(4)))
        assert (jitter(x, rng(), 5.0).abs() <= 1).all()

    @pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
    def test_blur_of_a_point(self, sigma):
        x = torch.zeros(1, 2, 31, 31, dtype=torch.float64)
        x[:, :, 15, 15] = 1
        y, d = blurred(x, sigma), torch.arange(-15, 16, dtype=torch.float64)
        assert math.isclose(y[0, 0].sum().item(), 1, rel_tol=1e-6) and torch.equal(y[0, 0], y[0, 1])
        torch.testing.assert_close(y[0, 0], y[0, 0].T)
        if sigma >= 1: assert abs((y[0, 0].sum(0) * d ** 2).sum().item() / sigma ** 2 - 1) < 0.05


class TestTraining:
    def test_same_seed_same_judge(self, trained):
        again, other = (train_judge(small_data(), steps=20, batch_size=4, width=16, workers=0, seed=s) for s in (0, 1))
        assert again.record() == trained.record() and other.record()["weights"] != trained.record()["weights"]

    def test_reading_processes_do_not_matter(self):
        a, b = (train_judge(small_data(), steps=2, batch_size=2, width=16, workers=w) for w in (0, 1))
        assert a.record() == b.record()

    def test_loss_falls(self, trained): assert trained.settings["loss"][1] < 0.95 * trained.settings["loss"][0]

    def test_is_of_the_data_set(self, trained):
        assert trained.classes == SCENES.names[1:] and trained.remap == tuple(range(-1, 14)) and trained.size == (64, 64) and trained.name == "scenes-judge"
        assert trained.settings["data"] == "scenes" and trained.settings["steps"] == 20 and not trained.net.training
        check_judge(trained, SCENES)

    def test_leaves_random_numbers_alone(self):
        before = torch.get_rng_state()
        train_judge(small_data(), steps=1, batch_size=1, width=16, workers=0)
        assert torch.equal(torch.get_rng_state(), before)

    def test_progress(self):
        seen = []
        train_judge(small_data(), steps=3, batch_size=1, width=16, workers=0, progress=lambda steps: (seen.append(s) or s for s in steps))
        assert seen == [0, 1, 2]

    @pytest.mark.parametrize("void, names, used", [(None, ("a", "b", "c"), (0, 1, 2)), (0, ("void", "b", "c"), (0, 1, 2)), (0, ("void", "b", "c", "never seen"), (1, 2))])
    def test_folder(self, tmp_path, void, names, used):
        "With and without don't care, with a class that no pixel has, fewer pairs than a batch; grey levels are quickly learned."
        maps = np.random.default_rng(0).choice(used, (5, 4, 4)).repeat(16, 1).repeat(16, 2)
        data = folder_of_pairs(tmp_path, maps, void, names)
        j = train_judge(PairDataset(data, tmp_path, "train", train=True), steps=25, width=16, amount=0.0)
        table = ceiling(j, PairDataset(data, tmp_path, "train"))
        assert j.classes == names[void is not None:] and table.pixel_accuracy() > 0.8 and table.counts.sum() == (maps != void).sum() if void is not None else maps.size

    def test_no_labels(self, tmp_path):
        data = folder_of_pairs(tmp_path, np.zeros((2, 64, 64)), void=0)
        with pytest.raises(JudgeError, match="split 'train' has no labels: every pixel is 'a'"): train_judge(PairDataset(data, tmp_path, "train"), steps=1)

    def test_no_pairs(self):
        empty = small_data()
        empty.pairs = ()
        with pytest.raises(JudgeError, match="has no pairs"): train_judge(empty, steps=1)

    def test_loss_that_explodes(self):
        with pytest.raises(JudgeError, match=r"NaN or infinite at step \d+; lower the learning rate"): train_judge(small_data(), steps=4, batch_size=2, width=16, lr=1e30, workers=0)

    @pytest.mark.parametrize("kw", [dict(steps=0), dict(batch_size=0)])
    def test_impossible(self, kw):
        with pytest.raises(JudgeError, match="1 or more"): train_judge(small_data(), **kw)

    def test_shares(self):
        shares = class_shares(small_data("val", train=False), most=20)
        assert shares[0] == 0 and math.isclose(shares.sum(), 1, rel_tol=1e-5) and shares[SCENES.names.index("road")] > 0.2


class TestFiles:
    def test_round_trip(self, trained, scenes, tmp_path):
        weights = save_judge(trained, tmp_path / "new")
        again = load_judge(tmp_path / "new")
        assert again.record() == trained.record() and torch.equal(again(scenes[0][:4]), trained(scenes[0][:4]))
        assert all(torch.equal(t, again.net.state_dict()[k]) and t.dtype == again.net.state_dict()[k].dtype for k, t in trained.net.state_dict().items())
        assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["judge.json", "judge.safetensors"] and weights == tmp_path / "new" / "judge.safetensors"

    def test_nothing_is_lost_where_half_precision_would_lose(self, tmp_path):
        j = Judge("x", JudgeNet(3, 16), NAMES, (0, 1, 2))  # fresh weights are no half precision numbers
        save_judge(j, tmp_path)
        assert load_judge(tmp_path).record() == j.record()

    def test_names(self, tmp_path):
        for name in ("a.safetensors", "a.json"): assert judge_files(tmp_path / name) == (tmp_path / "a.safetensors", tmp_path / "a.json")
        assert judge_files(str(tmp_path)) == (tmp_path / "judge.safetensors", tmp_path / "judge.json")

    @pytest.fixture
    def saved(self, trained, tmp_path):
        save_judge(trained, tmp_path)
        return tmp_path

    @pytest.mark.parametrize("name", ["judge.safetensors", "judge.json"])
    def test_missing(self, saved, name):
        (saved / name).unlink()
        with pytest.raises(JudgeError, match=rf"{name} is missing; train one with `dpgan train-judge`"): load_judge(saved)

    @pytest.mark.parametrize("name", ["judge.safetensors", "judge.json"])
    def test_cut_short(self, saved, name):
        (saved / name).write_bytes((saved / name).read_bytes()[:-40])
        with pytest.raises(JudgeError, match=rf"{name} is damaged.*train it anew"): load_judge(saved)

    @pytest.mark.parametrize("change", [dict(classes=["a"]), dict(net={"depth": 3}), dict(remap=None), dict(net={"num_classes": 3, "width": 16}), dict(std=[0, 0, 0])])
    def test_record_that_does_not_fit(self, saved, change):
        record = json.loads((saved / "judge.json").read_text())
        (saved / "judge.json").write_text(json.dumps(record | change))
        with pytest.raises(JudgeError, match="is damaged"): load_judge(saved)

    def test_files_of_two_judges(self, saved, tmp_path):
        save_judge(train_judge(small_data(), steps=1, batch_size=1, width=16, workers=0), tmp_path / "other")
        shutil.copy(tmp_path / "other" / "judge.safetensors", saved)
        with pytest.raises(JudgeError, match="does not hold the weights that judge.json describes"): load_judge(saved)

    def test_a_network_of_another_kind(self, tmp_path):
        with pytest.raises(JudgeError, match="Eye"): save_judge(judge(), tmp_path)
        with pytest.raises(JudgeError, match="Eye"): judge_extractor(judge())
        assert not any(tmp_path.iterdir())


class TestShipped:
    def test_reads_real_scenes(self, shipped, scenes):
        score = miou(shipped, *scenes)
        assert score > 0.6 and abs(score - shipped.settings["real"]["miou"]) < 0.05

    def test_files(self):
        from importlib import resources
        files = sorted((p.name, p.stat().st_size) for p in (resources.files("dpgan") / "weights").iterdir() if p.name.startswith("scenes_judge"))
        assert [name for name, _ in files] == ["scenes_judge.json", "scenes_judge.safetensors"] and sum(size for _, size in files) < 2 * 2 ** 20

    def test_result_file_is_of_this_judge(self, shipped):
        from test_house import ROOT
        result = json.loads((ROOT / "benchmarks" / "results" / "scenes_judge.json").read_text())
        assert result["judge"] == shipped.record() and round(result["real"]["miou"], 4) == shipped.settings["real"]["miou"] and result["images"] == 500

    def test_falls_with_damage(self, shipped, scenes):
        images, labels = scenes
        noise = torch.randn(images.shape, generator=rng())
        real = miou(shipped, images, labels)
        for damaged in ([blurred(images, s) for s in (1.0, 2.0, 4.0)], [(images + s * noise).clamp(-1, 1) for s in (0.2, 0.4, 0.8)]):
            scores = [real] + [miou(shipped, x, labels) for x in damaged]
            assert all(a > b + 0.02 for a, b in zip(scores, scores[1:])), scores

    def test_wrong_layout(self, shipped, scenes): assert miou(shipped, scenes[0], scenes[1].roll(1, 0)) < 0.25

    def test_painted_label_maps_are_no_photos(self, shipped, scenes):
        assert miou(shipped, uint8_to_image(colourise(scenes[1], SCENES)), scenes[1]) < 0.5

    def test_ceiling(self, shipped, scenes):
        table = ceiling(shipped, PairDataset(preset("scenes").data, None, "val"), limit=100, batch_size=33)
        assert math.isclose(table.mean_iou(), miou(shipped, *scenes), abs_tol=1e-12) and table.counts.sum() == (scenes[1] > 0).sum()

    def test_ceiling_of_another_data_set(self, shipped, tmp_path):
        data = folder_of_pairs(tmp_path, np.ones((1, 64, 64)))
        with pytest.raises(JudgeError, match="made for 15 classes, but grey has 3"): ceiling(shipped, PairDataset(data, tmp_path, "train"))


class TestExtractor:
    def test_name_and_settings(self, shipped, trained):
        eye = judge_extractor(shipped)
        assert eye.name == "FD-scenes" and judge_extractor(trained).name == "FD-scenes-judge" and json.loads(json.dumps(eye.settings)) == eye.settings
        assert eye.settings["weights"] != judge_extractor(trained).settings["weights"] and eye.size == (64, 128)

    def test_same_for_any_batch_size(self, shipped, scenes):
        eye, x = judge_extractor(shipped), scenes[0][:12]
        assert eye(x).shape == (12, shipped.net.num_features)
        torch.testing.assert_close(torch.cat([eye(part) for part in x.split(5)]), eye(x), rtol=1e-4, atol=1e-5)

    def test_distance(self, shipped, scenes):
        "0 on the same set in any order; rises with blur, noise and wrong colours."
        eye, x = judge_extractor(shipped), scenes[0]
        noise, tint = torch.randn(x.shape, generator=rng()), torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
        real = eye(x)
        assert abs(frechet_distance(real, real)) < 1e-6 and abs(frechet_distance(real, real.flip(0))) < 1e-6
        for damaged in ([blurred(x, s) for s in (0.5, 1.0, 2.0, 4.0)], [(x + s * noise).clamp(-1, 1) for s in (0.1, 0.2, 0.4, 0.8)], [(x + s * tint).clamp(-1, 1) for s in (0.1, 0.2, 0.4, 0.8)]):
            d = [frechet_distance(real, eye(y)) for y in damaged]
            assert all(0 < a < b for a, b in zip(d, d[1:])), d
