"dpgan.losses: every term against plain numpy, its invariants, and the errors a caller meets."
import math
from copy import deepcopy
from urllib.error import URLError
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file
from torch import nn
from dpgan.losses import (VGG_LAYERS, VGGLoss, alignment_loss, class_loss, class_weights, fake_loss, labelmix_loss, labelmix_mask, load_vgg, mix,
                          patch_loss_fake, patch_loss_generator, patch_loss_real)

quick = settings(max_examples=60, deadline=None)


@st.composite
def label_maps(draw, least=0):
    "A number of classes and a (B, H, W) map of their ids."
    n = draw(st.integers(2, 9))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)))
    return n, draw(hnp.arrays(np.int64, shape, elements=st.integers(least, n - 1)))


def weights_in_numpy(label, n, dont_care):
    count = np.bincount(label.ravel(), minlength=n).astype(float)
    if dont_care: count[0] = 0
    present = (count > 0).sum()
    return np.array([label.size / (present * c) if c else 0.0 for c in count])


def random_logits(b, n, h, w, seed=0, dtype=torch.float64):
    return torch.randn(b, n + 1, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class TestClassWeights:
    @quick
    @given(label_maps(), st.booleans())
    def test_matches_numpy(self, case, dont_care):
        n, label = case
        w = class_weights(torch.from_numpy(label), n, dont_care, torch.float64)
        np.testing.assert_allclose(w.numpy(), weights_in_numpy(label, n, dont_care), rtol=1e-14)

    @quick
    @given(label_maps(least=1))
    def test_sum_over_pixels_where_all_care(self, case):
        n, label = case
        label = torch.from_numpy(label)
        assert math.isclose(class_weights(label, n, dtype=torch.float64)[label].sum(), label.numel(), rel_tol=1e-12)

    @quick
    @given(label_maps())
    def test_sum_over_pixels_does_not_depend_on_dont_care(self, case):
        n, label = case
        label = torch.from_numpy(label)
        total = class_weights(label, n, dtype=torch.float64)[label].sum().item()
        assert math.isclose(total, label.numel() if (label > 0).any() else 0, rel_tol=1e-12)

    @quick
    @given(label_maps(), st.booleans())
    def test_zero_exactly_where_absent_or_dont_care(self, case, dont_care):
        n, label = case
        w = class_weights(torch.from_numpy(label), n, dont_care)
        present = [bool((label == k).any()) and not (dont_care and k == 0) for k in range(n)]
        assert (w > 0).tolist() == present and torch.isfinite(w).all()

    @quick
    @given(label_maps(), st.integers(0, 2**32 - 1))
    def test_pixels_may_change_places(self, case, seed):
        n, label = case
        shuffled = np.random.default_rng(seed).permutation(label.ravel()).reshape(label.shape)
        assert torch.equal(class_weights(torch.from_numpy(label), n), class_weights(torch.from_numpy(shuffled), n))

    @quick
    @given(label_maps(), st.integers(0, 2**32 - 1))
    def test_classes_may_change_names(self, case, seed):
        n, label = case
        names = np.random.default_rng(seed).permutation(n)
        a, b = (class_weights(torch.from_numpy(x), n, dont_care=False) for x in (label, names[label]))
        assert torch.equal(a, b[torch.from_numpy(names)])

    @quick
    @given(label_maps())
    def test_a_batch_twice_weighs_the_same(self, case):
        n, label = case
        label = torch.from_numpy(label)
        torch.testing.assert_close(class_weights(label, n), class_weights(torch.cat([label, label]), n))

    @pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.int64])
    def test_any_integer_label(self, kind):
        label = torch.tensor([[[0, 1, 1, 2]]])
        assert torch.equal(class_weights(label.to(kind), 4), class_weights(label, 4))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_precision(self, dtype):
        label = torch.zeros(4, 256, 256, dtype=torch.long)
        label[:, :128] = 1
        label[:, :2] = 2
        w = class_weights(label, 4, False, dtype)
        assert w.dtype == dtype
        reference = torch.from_numpy(weights_in_numpy(label.numpy(), 4, False)).to(dtype)
        torch.testing.assert_close(w, reference, rtol=torch.finfo(dtype).eps, atol=0)

    @pytest.mark.parametrize("bad", [-1, 4, 255])
    def test_ids_out_of_range(self, bad):
        label = torch.ones(1, 2, 2, dtype=torch.long)
        label[0, 0, 0] = bad
        with pytest.raises(ValueError, match=r"must be 0\.\.3.*-1" if bad < 0 else rf"must be 0\.\.3.*\.\.{bad}"): class_weights(label, 4)

    def test_no_gradient_and_no_global_state(self):
        before = torch.get_rng_state()
        assert not class_weights(torch.ones(1, 4, 4, dtype=torch.long), 3).requires_grad
        assert torch.equal(before, torch.get_rng_state())


class TestClassLoss:
    @quick
    @given(label_maps(), st.booleans(), st.booleans(), st.integers(0, 1000))
    def test_matches_numpy(self, case, balanced, dont_care, seed):
        n, label = case
        logits = random_logits(label.shape[0], n, *label.shape[1:], seed)
        w = weights_in_numpy(label, n, dont_care) if balanced else np.ones(n)
        x = logits.numpy()
        log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
        b, i, j = np.indices(label.shape)
        expected = -(w[label] * log_p[b, label + 1, i, j]).sum() / label.size  # over all pixels
        weight = class_weights(torch.from_numpy(label), n, dont_care, torch.float64) if balanced else None
        assert math.isclose(class_loss(logits, torch.from_numpy(label), weight), expected, rel_tol=1e-12, abs_tol=1e-15)

    def test_dont_care_stays_in_the_denominator(self):
        label = torch.tensor([[[0, 0, 0, 1]]])
        logits, weight = random_logits(1, 2, 1, 4), torch.tensor([0.0, 1.0], dtype=torch.float64)
        pixel = -F.log_softmax(logits, 1)[0, 2, 0, 3]
        torch.testing.assert_close(class_loss(logits, label, weight), pixel / 4)

    def test_no_gradient_at_dont_care(self):
        label = torch.tensor([[[0, 2, 1, 1]]])
        logits = random_logits(1, 3, 1, 4).requires_grad_()
        class_loss(logits, label, class_weights(label, 3)).backward()
        assert not logits.grad[..., 0].any() and logits.grad[..., 1:].abs().sum((0, 1, 2)).all()

    def test_nobody_cares(self):
        label = torch.zeros(2, 4, 4, dtype=torch.long)
        logits = random_logits(2, 3, 4, 4).requires_grad_()
        loss = class_loss(logits, label, class_weights(label, 3))
        loss.backward()
        assert loss == 0 and torch.equal(logits.grad, torch.zeros_like(logits))

    def test_fake_is_never_the_target(self):
        "Raising the fake logit can only make things worse."
        label = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(0))
        logits = random_logits(2, 4, 8, 8).requires_grad_()
        class_loss(logits, label).backward()
        assert (logits.grad[:, 0] > 0).all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_precision(self, dtype):
        label = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(0))
        exact = random_logits(2, 4, 8, 8)
        w = class_weights(label, 4)
        loss = class_loss(exact.to(dtype), label.to(torch.uint8), w)
        assert loss.dtype == dtype
        torch.testing.assert_close(loss.double(), class_loss(exact, label, w), rtol=4 * torch.finfo(dtype).eps + 1e-6, atol=0)

    def test_ids_out_of_range(self):
        with pytest.raises(ValueError, match="has -1..1"): class_loss(random_logits(1, 3, 1, 2), torch.tensor([[[-1, 1]]]))
        with pytest.raises(ValueError, match="has 1..3"): class_loss(random_logits(1, 3, 1, 2), torch.tensor([[[1, 3]]]))


def test_fake_loss():
    logits = random_logits(2, 5, 4, 6)
    torch.testing.assert_close(fake_loss(logits), F.cross_entropy(logits, torch.zeros(2, 4, 6, dtype=torch.long)))
    torch.testing.assert_close(fake_loss(torch.zeros(1, 6, 3, 3)), torch.tensor(math.log(6)))


class TestPatchHinge:
    scores = [torch.randn(2, 1, 8, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2,
              torch.randn(2, 1, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2]

    @pytest.mark.parametrize("loss, formula", [(patch_loss_real, lambda s: np.maximum(0, 1 - s)), (patch_loss_fake, lambda s: np.maximum(0, 1 + s)),
                                               (patch_loss_generator, lambda s: -s)])
    def test_mean_of_the_heads_means(self, loss, formula):
        expected = np.mean([formula(s.numpy()).mean() for s in self.scores])
        assert math.isclose(loss(self.scores), expected, rel_tol=1e-12)
        assert math.isclose(loss(self.scores[:1]), formula(self.scores[0].numpy()).mean(), rel_tol=1e-12)

    @pytest.mark.parametrize("loss", [patch_loss_real, patch_loss_fake, patch_loss_generator])
    def test_is_a_tensor_with_gradient(self, loss):
        scores = [s.clone().requires_grad_() for s in self.scores]
        value = loss(scores)
        assert isinstance(value, torch.Tensor) and value.shape == ()
        value.backward()
        assert all(s.grad is not None and s.grad.any() for s in scores)

    def test_margin(self):
        assert patch_loss_real([torch.tensor([1.0, 5.0])]) == 0 == patch_loss_fake([torch.tensor([-1.0, -5.0])])

    def test_sides_mirror(self):
        torch.testing.assert_close(patch_loss_real(self.scores), patch_loss_fake([-s for s in self.scores]))


class TestAlignment:
    def features(self, seed, dtype=torch.float64):
        rng = torch.Generator().manual_seed(seed)
        return [torch.randn(2, 4 + i, 4 * 2**i, 8 * 2**i, generator=rng, dtype=torch.float64).to(dtype).requires_grad_() for i in range(5)]

    def test_sum_of_mean_squares(self):
        a, b = self.features(0), self.features(1)
        expected = sum(((x - y) ** 2).mean().item() for x, y in zip(a, b))
        assert math.isclose(alignment_loss(a, b).item(), expected, rel_tol=1e-12)
        assert alignment_loss(a, a) == 0

    def test_real_side_is_a_constant(self):
        a, b = self.features(0), self.features(1)
        alignment_loss(a, b).backward()
        assert all(x.grad.any() for x in a) and all(y.grad is None for y in b)

    def test_levels_must_pair(self):
        with pytest.raises(ValueError): alignment_loss(self.features(0), self.features(1)[:4])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_precision(self, dtype):
        assert alignment_loss(self.features(0, dtype), self.features(1, dtype)).dtype == dtype


class TestLabelMixMask:
    label = torch.randint(0, 9, (6, 16, 16), generator=torch.Generator().manual_seed(0))

    def draw(self, seed, label=None): return labelmix_mask(self.label if label is None else label, 9, torch.Generator().manual_seed(seed))

    def test_shape(self):
        mask = self.draw(0)
        assert mask.shape == (6, 1, 16, 16) and mask.dtype == torch.bool

    @pytest.mark.parametrize("seed", range(5))
    def test_constant_on_each_class_of_each_image(self, seed):
        mask = self.draw(seed)[:, 0]
        for image, side in zip(self.label, mask):
            for k in image.unique(): assert side[image == k].unique().numel() == 1

    def test_images_differ(self):
        same = self.label[:1].expand(6, -1, -1)
        masks = self.draw(0, same).flatten(1)
        assert len({tuple(m.tolist()) for m in masks}) > 1

    def test_reproducible_and_independent_of_the_global_state(self):
        before = torch.get_rng_state()
        assert torch.equal(self.draw(3), self.draw(3)) and not torch.equal(self.draw(3), self.draw(4))
        assert torch.equal(before, torch.get_rng_state())

    def test_global_state_where_no_generator_is_given(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5); a = labelmix_mask(self.label, 9)
            torch.manual_seed(5); b = labelmix_mask(self.label, 9)
        assert torch.equal(a, b)

    def test_coins_are_fair_and_independent(self):
        "Classes 0 and 1 above all, which an in-place relabelling ties."
        draws, n = 20_000, 5
        coins = labelmix_mask(torch.arange(n).expand(draws, 1, n), n, torch.Generator().manual_seed(0)).flatten(1).double()
        assert (coins.mean(0) - 0.5).abs().max() < 5 * 0.5 / draws**0.5
        correlation = torch.corrcoef(coins.T).fill_diagonal_(0)
        assert correlation.abs().max() < 5 / draws**0.5

    @pytest.mark.parametrize("kind", [torch.uint8, torch.int32])
    def test_any_integer_label(self, kind):
        assert torch.equal(self.draw(0, self.label.to(kind)), self.draw(0))

    def test_layout_of_the_label_does_not_matter(self):
        turned = self.label.transpose(1, 2)
        assert torch.equal(self.draw(0, turned), self.draw(0).transpose(2, 3))

    def test_ids_out_of_range(self):
        with pytest.raises(ValueError, match="must be 0..4"): labelmix_mask(self.label, 5)


class TestMix:
    def test_takes_each_side(self):
        real, fake = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
        mask = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
        assert torch.equal(mix(real, fake, mask), mask.float().expand(-1, 3, -1, -1))
        assert torch.equal(mix(real, fake, mask.float()), mix(real, fake, mask))
        assert torch.equal(mix(real, fake, mask), mix(fake, real, ~mask))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_keeps_the_precision(self, dtype):
        assert mix(torch.ones(1, 3, 2, 2, dtype=dtype), torch.zeros(1, 3, 2, 2, dtype=dtype), torch.ones(1, 1, 2, 2)).dtype == dtype

    def test_what_is_covered_does_not_matter(self):
        "Not even where it is not finite."
        mask = torch.tensor([[[[True, False]]]])
        assert torch.isfinite(mix(torch.tensor([[[[1.0, math.nan]]]]), torch.tensor([[[[math.inf, 1.0]]]]), mask)).all()


class TestLabelMixLoss:
    label = torch.randint(0, 5, (2, 12, 12), generator=torch.Generator().manual_seed(0))
    mask = labelmix_mask(label, 5, torch.Generator().manual_seed(1))
    real, fake, mixed = (random_logits(2, 5, 12, 12, seed) for seed in range(3))

    def test_formula(self):
        m = self.mask.double()
        expected = (self.mixed - (m * self.real + (1 - m) * self.fake)).square().mean()
        torch.testing.assert_close(labelmix_loss(self.mixed, self.real, self.fake, self.mask), expected)

    def test_symmetric(self):
        assert torch.equal(labelmix_loss(self.mixed, self.real, self.fake, self.mask), labelmix_loss(self.mixed, self.fake, self.real, ~self.mask))

    def test_zero_for_a_pixelwise_judge_only(self):
        x, y = (torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (5, 6))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pixelwise = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1)).double()
            local = nn.Conv2d(3, 6, 3, padding=1).double()
        loss = {D: labelmix_loss(D(mix(x, y, self.mask)), D(x), D(y), self.mask).item() for D in (pixelwise, local)}
        assert loss[pixelwise] < 1e-28 and loss[local] > 1e-4

    def test_gradient_reaches_all_three(self):
        logits = [t.clone().requires_grad_() for t in (self.mixed, self.real, self.fake)]
        labelmix_loss(*logits, self.mask).backward()
        assert all(t.grad.any() for t in logits)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_precision(self, dtype):
        assert labelmix_loss(*(t.to(dtype) for t in (self.mixed, self.real, self.fake)), self.mask).dtype == dtype


def random_vgg(make=torchvision.models.vgg19):
    "The state dict of a VGG's convolutions, with random weights and the published names."
    with torch.device("meta"): shapes = make(weights=None).features.state_dict()
    rng = torch.Generator().manual_seed(0)
    return {f"features.{k}": torch.randn(t.shape, generator=rng) * (2 / max(1, t[0].numel())) ** 0.5 * (0.1 if t.dim() == 1 else 1) for k, t in shapes.items()}


@pytest.fixture(scope="module")
def vgg_state(): return random_vgg()


@pytest.fixture(scope="module")
def vgg_file(vgg_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({**vgg_state, "classifier.6.bias": torch.zeros(1000)}, path)
    return path


class TestLoadVGG:
    def test_published_names(self, vgg_file, vgg_state):
        before = torch.get_rng_state()
        features = load_vgg(vgg_file)
        assert torch.equal(before, torch.get_rng_state())
        assert len(features) == 30 and not features.training
        for k, t in features.state_dict().items(): assert torch.equal(t, vgg_state[f"features.{k}"]) and t.dtype == torch.float32 and t.device.type == "cpu"

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize("prefix", ["", "features."])
    def test_formats(self, vgg_state, tmp_path, suffix, prefix):
        "Files trimmed to the layers that are read, in half precision."
        state = {k.replace("features.", prefix): t.half() for k, t in vgg_state.items() if int(k.split(".")[1]) <= 28}
        path = tmp_path / f"vgg{suffix}"
        (save_file if suffix == ".safetensors" else torch.save)(state, path)
        features = load_vgg(str(path))
        assert features[28].weight.dtype == torch.float32 and torch.equal(features[28].weight, vgg_state["features.28.weight"].half().float())

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no file .*absent.pth"): load_vgg(tmp_path / "absent.pth")

    @pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors"])
    def test_not_weights(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"this is no state dict, whatever its name says" * 10)
        with pytest.raises(ValueError, match=f"{name} cannot be read"): load_vgg(tmp_path / name)

    def test_no_code_is_run(self, tmp_path):
        torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
        with pytest.raises(ValueError, match="module.pth cannot be read"): load_vgg(tmp_path / "module.pth")

    def test_not_a_dictionary(self, tmp_path):
        torch.save([torch.zeros(2)], tmp_path / "list.pth")
        with pytest.raises(ValueError, match="list.pth holds a list"): load_vgg(tmp_path / "list.pth")

    def test_lacking_tensors(self, vgg_state, tmp_path):
        path = tmp_path / "cut.pth"
        torch.save({k: t for k, t in vgg_state.items() if k != "features.10.bias"}, path)
        with pytest.raises(ValueError, match=r"cut.pth lacks 1 of the 26 tensors.*features\.10\.bias"): load_vgg(path)

    def test_other_vgg(self, tmp_path):
        path = tmp_path / "vgg16.pth"
        torch.save(random_vgg(torchvision.models.vgg16), path)
        with pytest.raises(ValueError, match=r"vgg16.pth lacks .*features\.16\.weight"): load_vgg(path)

    def test_wrong_shape(self, vgg_state, tmp_path):
        path = tmp_path / "odd.pth"
        torch.save({**vgg_state, "features.0.weight": torch.zeros(64, 1, 3, 3)}, path)
        with pytest.raises(ValueError, match=r"odd.pth: features\.0\.weight has shape \(64, 1, 3, 3\)"): load_vgg(path)

    def test_offline(self, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        def fail(*args, **kwargs): raise URLError("no route to host")
        monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
        with pytest.raises(ConnectionError, match=r"vgg19-dcbb9e9d\.pth.*no route to host.*load_vgg\('vgg19-dcbb9e9d\.pth'\)"): load_vgg()

    def test_downloads_once(self, vgg_file, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        calls = []
        def fetch(url, dst, hash_prefix=None, **kwargs):
            calls.append((url.split("/")[-1], hash_prefix))
            with open(dst, "wb") as f: f.write(vgg_file.read_bytes())
        monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
        for _ in range(2): assert len(load_vgg()) == 30
        assert calls == [("vgg19-dcbb9e9d.pth", "dcbb9e9d")]


@pytest.fixture(scope="module")
def narrow():
    "VGG19's layers in their order, with 4 channels: enough to test the arithmetic of the loss."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plan = [m if m == "M" else 4 for m in torchvision.models.vgg.cfgs["E"]]
        return torchvision.models.vgg.make_layers(plan)


def random_images(seed, dtype=torch.float32): return (torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1).to(dtype)


class TestVGGLoss:
    def test_layers_are_the_first_relu_of_each_stage(self):
        with torch.device("meta"): features = torchvision.models.vgg19(weights=None).features
        kinds = [type(m).__name__ for m in features]
        stages = [i for i in range(len(kinds)) if kinds[i] == "Conv2d" and (i == 0 or kinds[i - 1] == "MaxPool2d")]
        assert [i + 1 for i in stages] == list(VGG_LAYERS) and all(kinds[i] == "ReLU" for i in VGG_LAYERS)
        assert list(VGG_LAYERS.values()) == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0]

    @pytest.mark.parametrize("imagenet_norm", [True, False])
    def test_formula(self, narrow, imagenet_norm):
        loss, (a, b) = VGGLoss(narrow, imagenet_norm), (random_images(0), random_images(1))
        mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        x, y = (((t + 1) / 2 - mean) / std if imagenet_norm else t for t in (a, b))
        expected = 0
        for i, layer in enumerate(narrow[:30]):
            x, y = layer(x), layer(y)
            if i in VGG_LAYERS: expected += VGG_LAYERS[i] * (x - y).abs().mean()
        torch.testing.assert_close(loss(a, b), expected)
        assert loss(a, a) == 0 and loss(a, b) == loss(b, a)

    def test_gradient_goes_to_the_fake_only(self, narrow):
        loss, fake, real = VGGLoss(narrow), random_images(0).requires_grad_(), random_images(1).requires_grad_()
        loss(fake, real).backward()
        assert fake.grad.any() and real.grad is None
        assert all(p.grad is None and not p.requires_grad for p in loss.parameters())

    def test_levels(self, narrow):
        assert [tuple(t.shape) for t in VGGLoss(narrow).levels(random_images(0))] == [(2, 4, 32 // 2**i, 64 // 2**i) for i in range(5)]

    def test_precision(self, narrow):
        a, b = random_images(0), random_images(1)
        exact = VGGLoss(deepcopy(narrow)).double()(a.double(), b.double())
        assert exact.dtype == torch.float64
        torch.testing.assert_close(VGGLoss(narrow)(a, b).double(), exact, rtol=1e-5, atol=0)
        with torch.autocast("cpu", torch.bfloat16): half = VGGLoss(narrow)(a, b)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half.double(), exact, rtol=0.05, atol=0)

    @pytest.mark.parametrize("make", [torchvision.models.vgg16, torchvision.models.vgg19_bn, torchvision.models.vgg11])
    def test_other_networks_are_refused(self, make):
        with torch.device("meta"): features = make(weights=None).features
        with pytest.raises(ValueError, match="VGG19"): VGGLoss(features)

    def test_full_width(self, vgg_file):
        loss = VGGLoss(load_vgg(vgg_file))
        assert [t.shape[1] for t in loss.levels(random_images(0))] == [64, 128, 256, 512, 512]
        assert sum(p.numel() for p in loss.parameters()) == 12_944_960


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_on_a_gpu():
    label = torch.randint(0, 9, (2, 64, 64), generator=torch.Generator().manual_seed(0))
    logits = random_logits(2, 9, 64, 64)
    w = class_weights(label.cuda(), 9, dtype=torch.float64)
    assert torch.equal(w.cpu(), class_weights(label, 9, dtype=torch.float64))
    torch.testing.assert_close(class_loss(logits.cuda(), label.cuda(), w).cpu(), class_loss(logits, label, w.cpu()))
    a, b = (labelmix_mask(label.cuda(), 9, torch.Generator("cuda").manual_seed(0)) for _ in range(2))
    assert a.is_cuda and torch.equal(a, b)
