"dpgan.inference: the rewritten generator draws the same pictures, whichever rewrites it uses."
import math
from copy import deepcopy
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from dpgan.checkpoint import load_pretrained
from dpgan.generator import Generator, draw_noise, resample_region
from dpgan.inference import (SAVINGS, Condition, ConditionConv, FastGenerator, FixedConv, FixedModulation, FixedShortcut, FixedStage, PlaneConv, bf16_pays, cell_values, cells, fold_conv, fold_norm,
                             fold_stage, hearing, instance_norm, lines_of, merge_modulation, merge_shortcut, reach, stretch_rows)
from dpgan.labels import image_to_uint8
from dpgan.layers import SpectralConv2d, conv, norm
from dpgan.norm import SpatialNorm
from dpgan.pyramid import PyramidStage, condition
from dpgan.scenes import draw_scene

N, Z = 7, 5
NETS = {"batch": {}, "sync_batch": {"norm": "sync_batch"}, "instance": {"norm": "instance"}, "no noise": {"noise": False}, "no spectral norm": {"spectral_norm": False}}


def random(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
def nhwc(x): return x.permute(0, 2, 3, 1).contiguous()
def close(a, b, rtol=1e-9): torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)


def step_by_step(net):
    "The same network, computing layer by layer where it could take short cuts."
    for m in net.modules():
        if hasattr(m, "fast"): m.fast = False
    return net


@torch.no_grad()
def trained(**settings):
    "A small generator in double precision in which nothing is trivial: norms have seen pictures, biases are not zero, u and v have turned."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G = Generator(N, **{"base_channels": 4, "z_dim": Z, "pyramid_channels": 8, "init_gain": 1.0, **settings}).double()
        for _ in range(2): G.train()(torch.randint(0, N, (2, 64, 64)), torch.randn(2, G.z_dim))
        for p in G.parameters():
            if p.dim() == 1: p += 0.3 * torch.randn_like(p)
        for m in G.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm):
                m.running_mean += 0.3 * torch.randn_like(m.running_mean)
                m.running_var *= 1 + torch.rand_like(m.running_var)
    return step_by_step(G).eval()


@pytest.fixture(scope="module", params=NETS)
def net(request): return trained(**NETS[request.param])


@pytest.fixture(scope="module")
def plain_net(): return trained()


def label_map(batch=1, height=64, width=128, seed=0): return torch.randint(0, N, (batch, height, width), generator=torch.Generator().manual_seed(seed))


def noises(net, batch=1, height=64, width=128, seed=0):
    "A vector, a map that is different at each pixel; or None."
    if not net.z_dim: return [None]
    return [random(batch, Z, seed=seed), random(batch, Z, height, width, seed=seed + 1)]


class TestFolding:
    @pytest.mark.parametrize("spectral", [True, False])
    @pytest.mark.parametrize("bias", [True, False])
    def test_conv(self, spectral, bias):
        layer = conv(3, 4, bias=bias, spectral=spectral).double().eval()
        if bias: nn.init.normal_(layer.bias)
        x = random(2, 3, 6, 5)
        close(F.conv2d(x, *fold_conv(layer), padding=1), layer(x))

    def test_conv_in_training_mode_is_left_alone(self):
        layer = conv(3, 4, spectral=True).train()
        u = layer.u.clone()
        fold_conv(layer)
        assert torch.equal(layer.u, u) and layer.training

    @pytest.mark.parametrize("kind", ["batch", "sync_batch"])
    @pytest.mark.parametrize("affine", [True, False])
    def test_norm(self, kind, affine):
        layer = norm(kind, 4, affine=affine).double().eval()
        layer.running_mean.copy_(random(4)); layer.running_var.copy_(random(4).exp())
        if affine: nn.init.normal_(layer.weight); nn.init.normal_(layer.bias)
        scale, shift = fold_norm(layer)
        x = random(2, 4, 3, 3)
        close(x * scale[:, None, None] + shift[:, None, None], layer(x))

    def test_results_are_copies(self, plain_net):
        before = {k: t.clone() for k, t in plain_net.state_dict().items()}
        for t in (*fold_conv(plain_net.head), *fold_conv(plain_net.blocks[0].conv_0), *fold_norm(plain_net.pyramid.stages[0][1])): t.zero_()
        assert all(torch.equal(t, before[k]) for k, t in plain_net.state_dict().items())

    def test_modulation(self, plain_net):
        layer = plain_net.blocks[3].norm_0
        wg, bg, wb, bb = merge_modulation(layer)
        x, c = random(2, len(wg), 8, 8), random(2, wg.shape[1], 8, 8, seed=1)
        with torch.no_grad(): close(F.conv2d(c, wg, bg, padding=1) * x + F.conv2d(c, wb, bb, padding=1), layer(x, c))

    @pytest.mark.parametrize("compose", [True, False])
    def test_shortcut(self, plain_net, compose):
        block = plain_net.blocks[4]
        weight, bias, mix = merge_shortcut(block, compose)
        n = mix.shape[0]
        x, c = random(2, n, 8, 8), random(2, weight.shape[1], 8, 8, seed=1)
        maps = F.conv2d(c, weight, bias, padding=1)
        got = torch.einsum("bchw,co->bohw", maps[:, :n] * x, mix) + maps[:, n:] if compose else torch.einsum("bchw,co->bohw", maps[:, :n] * x + maps[:, n:], mix)
        with torch.no_grad(): close(got, block.conv_s(block.norm_s(x, c)))

    @pytest.mark.parametrize("kind", ["batch", "instance"])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_stage(self, kind, stride):
        stage = PyramidStage(3, 4, stride, kind).double().eval()
        for t in (*stage.parameters(), *stage.buffers()):
            if t.is_floating_point(): nn.init.uniform_(t, 0.5, 1.5)
        x = random(2, 3, 8, 6)
        with torch.no_grad():
            close(FixedStage(stage, torch.float64)(nhwc(x)), nhwc(stage(x)))
            folded = F.conv2d(x, *fold_stage(stage), stride=stride, padding=1)
            close(FixedStage(stage, torch.float64, convolve=False)(nhwc(folded)), nhwc(stage(x)))


class TestParts:
    @settings(max_examples=25)
    @given(st.integers(1, 5), st.integers(0, 5))
    def test_stretched_rows(self, small, doublings):
        "For any kernel row: the same as stretching first, with zeros beyond the border."
        large, x = small << doublings, random(1, 1, small)
        stretched = F.pad(F.interpolate(x, size=large, mode="linear", align_corners=False), (1, 1))[0, 0]
        for k in range(3): close(stretch_rows(small, large)[:, :, k] @ x[0, 0], stretched[k:k + large])

    @settings(max_examples=25)
    @given(st.integers(1, 9), st.data())
    def test_lines(self, height, data):
        top = data.draw(st.integers(0, height - 1))
        bottom = data.draw(st.integers(top + 1, height))
        x = random(2, height, 3, 2)
        assert torch.equal(lines_of(x, top, bottom), F.pad(x, (0, 0, 0, 0, 1, 1))[:, top:bottom + 2])

    @pytest.mark.parametrize("savings", [(), ("coarse",), ("strips",), SAVINGS])
    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize("doublings", [1, 2, 5])
    def test_condition_conv(self, savings, batch, doublings):
        "With strips of 2, 4 and many lines, one picture or several."
        p, h, w = 4, 2, 3
        level, coarsest, weight, bias = random(batch, p, h << doublings, w << doublings), random(batch, p, h, w, seed=1), random(6, 2 * p, 3, 3, seed=2), random(6, seed=3)
        wanted = nhwc(F.conv2d(condition(level, coarsest), weight, bias, padding=1))
        layer, cond = ConditionConv(weight, bias, False, savings, torch.float64), Condition(nhwc(level), nhwc(coarsest), stretch_rows(h, h << doublings))
        for lines in (1, 4, 1000):
            if "strips" in savings: layer.strip_bytes = lines * batch * level.shape[3] * 6 * 8
            pieces = list(layer.strips(cond))
            assert [top for top, _, _ in pieces] == [0, *(bottom for _, bottom, _ in pieces[:-1])] and pieces[-1][1] == level.shape[2]
            assert len(pieces) == (-(-level.shape[2] // max(lines, 2)) if "strips" in savings else 1)
            close(torch.cat([out for _, _, out in pieces], 1), wanted)

    @pytest.mark.parametrize("savings", [(), SAVINGS])
    def test_first_block_sees_one_level_twice(self, savings):
        level, weight, bias = random(2, 4, 2, 4), random(6, 8, 3, 3, seed=1), random(6, seed=2)
        [(_, _, out)] = ConditionConv(weight, bias, True, savings, torch.float64).strips(Condition(nhwc(level), nhwc(level), None))
        close(out, nhwc(F.conv2d(condition(level, level), weight, bias, padding=1)))

    def test_cells(self):
        x, values = random(2, 4, 6, 3), random(2, 2, 3, 3, seed=1)
        repeated = nhwc(F.interpolate(values.permute(0, 3, 1, 2), scale_factor=2, mode="nearest"))
        product = torch.empty_like(x)
        torch.mul(cells(x, 2), cell_values(values, 2), out=cells(product, 2))
        assert torch.equal(product, x * repeated)
        assert cells(x, 1) is x and cell_values(x, 1) is x

    def test_instance_norm(self):
        x = random(2, 3, 5, 4) * 3 + 1
        close(instance_norm(nhwc(x), 1e-3), nhwc(F.instance_norm(x, eps=1e-3)))
        assert instance_norm(nhwc(x).bfloat16()).dtype == torch.bfloat16

    @pytest.mark.parametrize("kind", ["batch", "instance"])
    def test_in_place(self, kind):
        "Writing the result over the input gives the same."
        layer = SpatialNorm(6, 8, kind).double().eval()
        seen, x = Condition(random(1, 8, 16, 4), random(1, 2, 4, 4, seed=1), stretch_rows(2, 8)), random(1, 8, 16, 6, seed=2)
        fixed = FixedModulation(layer, first=False, savings=SAVINGS, dtype=torch.float64)
        wanted = fixed(x, seen)
        assert torch.equal(fixed(x, seen, out=x), wanted) and torch.equal(x, wanted)

    @pytest.mark.parametrize("savings", [(), ("lookup",)])
    @pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (2, 5), (3, 3), (7, 4)])
    @pytest.mark.parametrize("z_dim", [0, 3])
    def test_planes(self, savings, size, z_dim):
        "Corners and edges of pictures of any size; noise as a vector and as a map."
        label, weight, bias = torch.randint(0, 4, (2, *size), generator=torch.Generator().manual_seed(0)), random(5, z_dim + 4, 3, 3), random(5, seed=1)
        planes = PlaneConv(weight, bias, z_dim, savings, torch.float64)
        onehot = F.one_hot(label, 4).permute(0, 3, 1, 2).double()
        close(planes.of_label(label), nhwc(F.conv2d(onehot, weight[:, z_dim:], bias, padding=1)))
        if not z_dim: return
        z = random(2, z_dim, seed=2)
        wide = z[:, :, None, None].expand(-1, -1, *size)
        for noise in (z, nhwc(wide)): close(planes.of_noise(noise, *size), nhwc(F.conv2d(wide, weight[:, :z_dim], padding=1)))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
    def test_look_up_takes_any_integers(self, dtype):
        label = label_map(1, 4, 4)
        planes = PlaneConv(random(5, N, 3, 3), random(5), 0, dtype=torch.float64)
        assert torch.equal(planes.of_label(label.to(dtype)), planes.of_label(label))

    def test_look_up_of_many_classes(self):
        "Table rows beyond the range of a byte."
        label, weight = torch.arange(200).view(1, 10, 20), random(2, 200, 3, 3)
        close(PlaneConv(weight, torch.zeros(2), 0, dtype=torch.float64).of_label(label.to(torch.uint8)), nhwc(F.conv2d(F.one_hot(label, 200).permute(0, 3, 1, 2).double(), weight, padding=1)))


class TestSamePictures:
    @pytest.mark.parametrize("savings", [(), SAVINGS], ids="+".join)
    def test_float64(self, net, savings):
        fast = FastGenerator(net, savings=savings)
        with torch.no_grad():
            for z in noises(net): close(fast(label_map(), z), net(label_map(), z))

    @pytest.mark.parametrize("name", SAVINGS)
    def test_each_saving_alone(self, plain_net, name):
        fast = FastGenerator(plain_net, savings=(name,))
        with torch.no_grad():
            for z in noises(plain_net): close(fast(label_map(), z), plain_net(label_map(), z))

    def test_float32(self, net):
        G = deepcopy(net).float()
        fast = FastGenerator(G)
        with torch.no_grad():
            for z in noises(net, batch=2):
                z = z if z is None else z.float()
                got, wanted = fast(label_map(2), z), G(label_map(2), z)
                assert got.dtype == torch.float32 and got.shape == (2, 3, 64, 128) and (got - wanted).abs().max() < 1e-4 and wanted.std() > 0.1

    @pytest.mark.parametrize("size", [(64, 64), (128, 64), (64, 192)])
    def test_sizes(self, plain_net, size):
        fast, label = FastGenerator(plain_net), label_map(1, *size)
        with torch.no_grad():
            for z in noises(plain_net, 1, *size): close(fast(label, z), plain_net(label, z))

    def test_batches(self, net):
        fast, label = FastGenerator(net), label_map(3, 64, 64)
        with torch.no_grad():
            for z in noises(net, 3, 64, 64): close(fast(label, z), net(label, z))

    def test_strips_have_no_seams(self, net):
        fast = FastGenerator(net)
        for m in fast.modules():
            if isinstance(m, ConditionConv): m.strip_bytes = 1
        with torch.no_grad():
            for z in noises(net, batch=2): close(fast(label_map(2), z), net(label_map(2), z))

    def test_one_label_map_many_pictures(self, plain_net):
        fast, label, z = FastGenerator(plain_net), label_map(), random(4, Z)
        prepared = fast.prepare(label)
        with torch.no_grad(): wanted = plain_net(label.expand(4, -1, -1), z)
        close(fast.draw(prepared, z), wanted)
        close(torch.cat([fast.draw(prepared, z[i:i + 1]) for i in (3, 1)]), wanted[[3, 1]])
        maps = random(3, Z, 64, 128, seed=5)
        with torch.no_grad(): close(fast.draw(prepared, maps), plain_net(label.expand(3, -1, -1), maps))
        close(fast.draw(prepared, z[:1]), wanted[:1])

    def test_drawing_leaves_the_preparation(self, net):
        fast = FastGenerator(net)
        prepared = fast.prepare(label_map())
        before = [t.clone() for t in (prepared.planes, prepared.seed, *prepared.rows)]
        z = noises(net)[0]
        first = fast.draw(prepared, z)
        assert torch.equal(fast.draw(prepared, z), first)
        assert all(torch.equal(a, b) for a, b in zip(before, (prepared.planes, prepared.seed, *prepared.rows)))

    def test_noise_is_left(self, plain_net):
        fast = FastGenerator(plain_net)
        for z in noises(plain_net):
            copy = z.clone()
            fast.sample(label_map(), z)
            assert torch.equal(z, copy)

    def test_regions(self, plain_net):
        label = label_map()
        z = resample_region(random(1, Z), label == 2, random(1, Z, seed=1))
        with torch.no_grad(): close(FastGenerator(plain_net)(label, z), plain_net(label, z))

    def test_memory_layout_of_inputs_does_not_matter(self, plain_net):
        fast, label, z = FastGenerator(plain_net), label_map(2), random(2, Z, 64, 128)
        wanted = fast(label, z)
        close(fast(label.transpose(1, 2).contiguous().transpose(1, 2), z.contiguous(memory_format=torch.channels_last)), wanted)
        close(fast(label, random(2, Z)[:, :, None, None].expand(-1, -1, 64, 128)), fast(label, random(2, Z)))

    def test_shipped_weights(self):
        G, _, _ = load_pretrained("scenes")
        fast = FastGenerator(G)
        label = torch.from_numpy(np.stack([draw_scene(0, i)[1] for i in (3, 4)]))
        assert (fast.sample(label, seed=1) - G.sample(label, seed=1)).abs().max() < 1e-4
        assert np.abs(image_to_uint8(fast.sample(label, seed=1)).astype(int) - image_to_uint8(G.sample(label, seed=1))).max() <= 1

    def test_no_dependence_on_the_batch(self, net):
        fast, label, z = FastGenerator(net), label_map(2), noises(net, 2)[0]
        close(fast(label, z)[1:], fast(label[1:], z if z is None else z[1:]))


class TestGenerator:
    def test_generator_is_left_alone(self, plain_net):
        G = deepcopy(plain_net).train()
        state, grads = {k: t.clone() for k, t in G.state_dict().items()}, [p.requires_grad for p in G.parameters()]
        fast = FastGenerator(G)
        picture = fast.sample(label_map(), seed=0)
        assert G.training and all(torch.equal(t, state[k]) for k, t in G.state_dict().items()) and grads == [p.requires_grad for p in G.parameters()]
        with torch.no_grad():
            for p in G.parameters(): p.zero_()
        assert torch.equal(fast.sample(label_map(), seed=0), picture), "its numbers are copies"

    def test_no_gradients(self, plain_net):
        fast = FastGenerator(plain_net)
        assert not any(p.requires_grad for p in fast.parameters()) and not fast.training
        assert not fast(label_map(), random(1, Z).requires_grad_()).requires_grad
        picture = fast.sample(label_map())
        picture += 1  # an ordinary tensor, not one of inference mode

    def test_sample_is_that_of_the_generator(self, plain_net):
        G = deepcopy(plain_net).float()
        fast = FastGenerator(G)
        assert (fast.sample(label_map(), seed=3) - G.sample(label_map(), seed=3)).abs().max() < 1e-4
        assert torch.equal(fast.sample(label_map(), seed=3), fast.draw(fast.prepare(label_map()), draw_noise(1, Z, seed=3)))

    def test_random_state_is_left_alone(self, plain_net):
        before = torch.get_rng_state()
        FastGenerator(plain_net).sample(label_map(), seed=0)
        assert torch.equal(before, torch.get_rng_state())

    def test_moves_with_its_module(self, plain_net):
        assert {p.device.type for p in FastGenerator(plain_net).to("meta").parameters()} == {"meta"} and next(FastGenerator(plain_net).parameters()).dtype == torch.float64

    def test_bf16(self):
        G, _, _ = load_pretrained("scenes")
        half, label = FastGenerator(G, "bf16"), torch.from_numpy(draw_scene(0, 95)[1]).long()[None]
        wanted, z = G.sample(label, seed=0), draw_noise(2, G.z_dim, seed=1)
        got = half.sample(label, seed=0)
        assert got.dtype == torch.float32 and got.abs().max() <= 1 and 0 < (got - wanted).abs().mean() * 127.5 < 1
        assert half.draw(half.prepare(label), z).shape == (2, 3, 64, 128)
        assert next(half.blocks.parameters()).dtype == torch.bfloat16

    @pytest.mark.parametrize("kind", ["instance", "batch"])
    def test_bf16_of_every_norm(self, kind):
        G = trained(norm=kind).float()
        z = draw_noise(1, Z, seed=0)
        assert (FastGenerator(G, "bf16")(label_map(), z) - G(label_map(), z)).abs().mean() < 0.03

    def test_bf16_pays(self):
        assert type(bf16_pays()) is bool and bf16_pays("cpu") == bf16_pays(torch.device("cpu")) and not bf16_pays("meta")

    @pytest.mark.parametrize("change, says", [({"precision": "fp16"}, "off or bf16, not 'fp16'"), ({"savings": ("coarse", "magic")}, "no saving 'magic'; there are coarse"), ({"compile": "fast"}, "no mode 'fast' of compile; there are off, default")])
    def test_bad_settings(self, plain_net, change, says):
        with pytest.raises(ValueError, match=says): FastGenerator(plain_net, **change)

    def test_bad_label_maps(self, plain_net):
        fast = FastGenerator(plain_net)
        with pytest.raises(ValueError, match="divisible by 64"): fast.prepare(label_map(1, 60, 64))
        with pytest.raises(ValueError, match="must be 0..6"): fast.prepare(label_map() + N)
        with pytest.raises(TypeError, match="holds integers"): fast.prepare(label_map().float())
        with pytest.raises(ValueError, match=r"\(B, H, W\)"): fast.prepare(label_map()[0])

    @pytest.mark.parametrize("shape", [(2, Z), (3, Z), (1, Z + 1), (1, Z, 64, 64), (1, Z, 1, 1)])
    def test_bad_noise(self, plain_net, shape):
        fast = FastGenerator(plain_net)
        prepared = fast.prepare(label_map(2))
        if shape == (2, Z): assert len(fast.draw(prepared, random(*shape))) == 2
        else:
            with pytest.raises(ValueError, match="z must have shape"): fast.draw(prepared, random(*shape))
        with pytest.raises(ValueError, match="needs noise"): fast.draw(prepared)

    def test_convolutions_are_gone(self, plain_net):
        "Nothing of the training network is left inside."
        assert not any(isinstance(m, (nn.Conv2d, SpectralConv2d, nn.BatchNorm2d)) for m in FastGenerator(plain_net).modules())

    def test_fewer_products(self, plain_net):
        "At the paper's proportions, the convolutions of the last block do about half the work."
        def products(net, kind, *args):
            total = []
            hooks = [m.register_forward_hook(lambda m, args, out: total.append(out.numel() * m.weight[0].numel())) for m in net.modules() if isinstance(m, kind)]
            net(*args)
            for hook in hooks: hook.remove()
            return sum(total)
        G = trained(pyramid_channels=16, base_channels=16)
        before, after = products(G, nn.Conv2d, label_map(), random(1, Z)), products(FastGenerator(G), FixedConv, label_map(), random(1, Z))
        assert after < 0.75 * before
        assert products(FastGenerator(G, savings=()), FixedConv, label_map(), random(1, Z)) > 0.95 * before


class TestShortcut:
    @pytest.mark.parametrize("savings", [(), SAVINGS])
    @pytest.mark.parametrize("batch", [1, 2])
    def test_is_added_in_place(self, plain_net, savings, batch):
        block = plain_net.blocks[5]
        x, out, level, coarsest = random(batch, 8, 8, 8), random(batch, 4, 16, 16, seed=1), random(batch, 8, 16, 16, seed=2), random(batch, 8, 2, 2, seed=3)
        large = F.interpolate(x, scale_factor=2, mode="nearest")
        with torch.no_grad(): wanted = nhwc(out + block.conv_s(block.norm_s(large, condition(level, coarsest))))
        got = nhwc(out)
        assert FixedShortcut(block, savings, torch.float64)(got, nhwc(x), Condition(nhwc(level), nhwc(coarsest), stretch_rows(2, 16))) is got
        close(got, wanted)


class TestReach:
    def test_equals_the_gradient(self):
        "A pixel's picture depends on exactly the columns that the wiring names, at the border and inside."
        G = trained(base_channels=2, z_dim=2, pyramid_channels=4)
        label, z = label_map(1, 64, 512), random(1, 2, 64, 512).requires_grad_()
        picture, spans = G(label, z), hearing(G, 512)
        for column in (0, 31, 200, 255, 256, 301, 511):
            heard = torch.autograd.grad(picture[..., column].sum(), z, retain_graph=True)[0].abs().amax((0, 1, 2)).nonzero()
            assert [heard.min(), heard.max()] == spans[:, column].tolist()

    def test_nothing_changes_beyond(self):
        G = trained(base_channels=2, z_dim=Z, pyramid_channels=4)
        fast, label, here = FastGenerator(G), label_map(1, 64, 1024), torch.zeros(1, 64, 1024, dtype=torch.bool)
        here[:, :, 512] = True
        prepared, z = fast.prepare(label), random(1, Z)
        moved = (fast.draw(prepared, resample_region(z, here, random(1, Z, seed=1))) - fast.draw(prepared, resample_region(z, here, z))).abs().amax((0, 1, 2))
        distance = (torch.arange(1024) - 512).abs()
        assert moved[distance > reach(G)].max() == 0 and moved[512] > 0 and moved[(distance > reach(G) // 2) & (distance <= reach(G))].max() > 0

    def test_value(self, plain_net):
        assert type(reach(plain_net)) is int and 200 < reach(plain_net) < 300 and reach(plain_net) == reach(trained(base_channels=2, pyramid_channels=16))
        spans, here = hearing(plain_net, 2048), torch.arange(2048)
        assert (spans[0] <= here).all() and (spans[1] >= here).all() and spans.min() == 0 and spans.max() == 2047

    def test_special_cases(self):
        assert reach(trained(norm="instance")) == math.inf and reach(trained(noise=False)) == 0
