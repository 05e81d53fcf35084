"""Generator and discriminator: shapes, settings, reach, gradients, reproducibility, messages, parameter counts."""
from copy import deepcopy
from math import ceil, floor
import pytest
import torch
import torch.nn.functional as F
from dpgan.discriminator import Discriminator, DiscriminatorOutput, PatchHead, check_image, check_patch_maps
from dpgan.generator import Generator, GeneratorBlock, LabelToImage, check_label, check_noise, draw_noise, looks_up, noise_map, resample_region
from dpgan.labels import one_hot
from dpgan.layers import SpectralConv2d, SyncBatchNorm2d, count_parameters
from dpgan.norm import Halves, SpatialNorm, convolve, halves, normalise, scale_and_shift, stretch_matrix
from dpgan.pyramid import condition

SIZES = [(64, 64), (64, 128), (128, 128), (192, 256)]


def seeded(make, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def generator(num_classes=6, base_channels=4, pyramid_channels=8, init_gain=1.0, **kw):
    return seeded(lambda: Generator(num_classes, base_channels, pyramid_channels=pyramid_channels, init_gain=init_gain, **kw))


def discriminator(num_classes=6, base_channels=4, init_gain=1.0, **kw):
    return seeded(lambda: Discriminator(num_classes, base_channels, init_gain=init_gain, **kw))


def labels(batch=2, height=64, width=128, num_classes=6, seed=0):
    "Random label maps of blocks of 8 x 8 pixels."
    coarse = torch.randint(0, num_classes, (batch, height // 8, width // 8), generator=torch.Generator().manual_seed(seed))
    return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)


def images(batch=2, height=64, width=128, seed=0, dtype=torch.float32):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


# noise

def test_noise_is_reproducible_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    z = draw_noise(3, 64, seed=5)
    assert z.shape == (3, 64) and torch.equal(z, draw_noise(3, 64, seed=5)) and not torch.equal(z, draw_noise(3, 64, seed=6))
    rng = torch.Generator().manual_seed(5)
    assert torch.equal(z, draw_noise(3, 64, rng)) and not torch.equal(z, draw_noise(3, 64, rng)), "a generator goes on"
    assert torch.equal(before, torch.get_rng_state())


def test_noise_without_a_seed_takes_the_global_generator():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        a = draw_noise(2, 8)
        torch.default_generator.manual_seed(1)
        assert torch.equal(a, draw_noise(2, 8)) and not torch.equal(a, draw_noise(2, 8))


def test_noise_takes_numpy_integers_as_seeds():
    np = pytest.importorskip("numpy")
    assert torch.equal(draw_noise(1, 8, np.int64(3)), draw_noise(1, 8, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_is_the_same_on_a_gpu():
    assert torch.equal(draw_noise(2, 64, 0, "cuda").cpu(), draw_noise(2, 64, 0))


def test_noise_is_standard_normal():
    z = draw_noise(2000, 64, seed=0)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


def test_noise_map():
    z = draw_noise(2, 5, 0)
    m = noise_map(z, 3, 4)
    assert m.shape == (2, 5, 3, 4) and (m == z[:, :, None, None]).all() and noise_map(m, 3, 4) is m


@pytest.mark.parametrize("shape", [(64, 128), (1, 64, 128), (2, 64, 128)])
def test_resample_region_changes_the_region_and_nothing_else(shape):
    z, new = draw_noise(2, 5, 0), draw_noise(2, 5, 1)
    region = torch.zeros(shape, dtype=torch.bool)
    region[..., 10:20, 30:40] = True
    m = resample_region(z, region, new)
    assert m.shape == (2, 5, 64, 128)
    assert (m[:, :, 10:20, 30:40] == new[:, :, None, None]).all()
    inside = region.expand(2, 64, 128)[:, None].expand_as(m)
    assert torch.equal(m[~inside], noise_map(z, 64, 128)[~inside])
    again = resample_region(m, region, new)
    assert torch.equal(again, m), "a map can be changed again"
    assert torch.equal(resample_region(z, region & False, new), noise_map(z, 64, 128)), "an empty region changes nothing"
    assert torch.equal(resample_region(z, region, new[:1])[:, :, 15, 35], new[:1].expand(2, -1)), "one vector serves the batch"


def test_resample_region_in_each_image_of_its_own():
    z, new = draw_noise(2, 5, 0), draw_noise(2, 5, 1)
    region = torch.zeros(2, 64, 64, dtype=torch.bool)
    region[0, :32], region[1, 32:] = True, True
    m = resample_region(z, region, new)
    assert torch.equal(m[:, :, 0, 0], torch.stack([new[0], z[1]])) and torch.equal(m[:, :, 63, 0], torch.stack([z[0], new[1]]))


# generator: shapes and settings

@pytest.mark.parametrize("size", SIZES)
def test_generator_sizes(size):
    image = generator()(labels(2, *size), draw_noise(2, 64, 0))
    assert image.shape == (2, 3, *size) and image.dtype == torch.float32
    assert image.isfinite().all() and image.abs().max() <= 1 and image.std() > 0.01


@pytest.mark.parametrize("setting", [{"num_classes": 2}, {"num_classes": 15}, {"num_classes": 35}, {"base_channels": 2}, {"base_channels": 16},
                                     {"pyramid_channels": 4}, {"pyramid_channels": 64}, {"z_dim": 1}, {"z_dim": 16}, {"noise": False},
                                     {"spectral_norm": False}, {"norm": "instance"}, {"norm": "sync_batch"}, {"init_gain": 0.02},
                                     {"noise": False, "spectral_norm": False, "norm": "instance"}], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_generator_settings(setting, training):
    G = generator(**setting).train(training)
    label, z = labels(num_classes=setting.get("num_classes", 6)), draw_noise(2, setting.get("z_dim", 64), 0) if setting.get("noise", True) else None
    image = G(label, z)
    assert image.shape == (2, 3, 64, 128) and image.isfinite().all() and image.abs().max() <= 1
    image.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in G.parameters())


def shapes(parts, run):
    "Output shapes of modules during a call, without the batch."
    seen, hooks = [], []
    for part in parts: hooks.append(part.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape[1:]))))
    run()
    for hook in hooks: hook.remove()
    return seen


@pytest.mark.parametrize("ch, p", [(4, 8), (8, 16)])
def test_generator_shapes_inside(ch, p):
    G = generator(base_channels=ch, pyramid_channels=p)
    seen = shapes([*G.pyramid.stages, G.stem, *G.blocks, G.head], lambda: G(labels(1, 64, 192), draw_noise(1, 64, 0)))
    assert seen[:7] == [(p // 2, 64, 192), (p, 64, 192), (p, 32, 96), (p, 16, 48), (p, 8, 24), (p, 4, 12), (p, 2, 6)]
    assert seen[7:] == [(16 * ch, 2, 6), (16 * ch, 2, 6), (16 * ch, 4, 12), (8 * ch, 8, 24), (4 * ch, 16, 48), (2 * ch, 32, 96), (ch, 64, 192), (3, 64, 192)]


def test_full_width_shapes():
    with torch.device("meta"):
        G, D = Generator(35, spectral_norm=False), Discriminator(35, spectral_norm=False)
        label, z = torch.zeros(1, 256, 512, dtype=torch.long), torch.zeros(1, 64)
    seen = shapes([*G.blocks], lambda: G(label, z))
    assert seen == [(1024, 8, 16), (1024, 16, 32), (512, 32, 64), (256, 64, 128), (128, 128, 256), (64, 256, 512)]
    out = D(G(label, z))
    assert out.class_logits.shape == (1, 36, 256, 512) and [tuple(s.shape) for s in out.patch_logits] == [(1, 1, 8, 16), (1, 1, 2, 4)]
    assert [tuple(f.shape[1:]) for f in out.decoder_features] == [(256, 16, 32), (256, 32, 64), (128, 64, 128), (128, 128, 256), (64, 256, 512)]


COUNTS = {35: (69_513_219, 22_917_350), 151: (70_615_683, 22_924_890), 183: (70_919_811, 22_926_970)}


@pytest.mark.parametrize("num_classes", COUNTS)
def test_parameter_counts_at_full_width(num_classes):
    "Cityscapes, ADE20K, COCO-Stuff; exact."
    with torch.device("meta"): counts = tuple(count_parameters(net(num_classes, spectral_norm=False)) for net in (Generator, Discriminator))
    assert counts == COUNTS[num_classes]


def test_spectral_norm_adds_no_parameters():
    for make in (generator, discriminator):
        on, off = make(), make(spectral_norm=False)
        assert {k: v.shape for k, v in on.named_parameters()} == {k: v.shape for k, v in off.named_parameters()}
        assert not any(isinstance(m, SpectralConv2d) for m in off.modules())


def test_where_spectral_norm_is():
    G = {n for n, m in generator().named_modules() if isinstance(m, SpectralConv2d)}
    assert G == {f"blocks.{i}.conv_{k}" for i in range(6) for k in ("0", "1", "s") if k != "s" or i >= 2}
    D = {n for n, m in discriminator().named_modules() if isinstance(m, SpectralConv2d)}
    convs = {n for n, m in discriminator().named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert convs - D == {"classifier"} | {f"heads.{j}.{k}" for j in (3, 5) for k in (0, 2, 5, 8, 11)}


def test_norm_kind_reaches_every_norm():
    kinds = (torch.nn.BatchNorm2d, SyncBatchNorm2d, torch.nn.InstanceNorm2d)
    for name, kind in zip(("batch", "sync_batch", "instance"), kinds):
        for net, count in ((generator(norm=name), 7 + 6 * 2 + 4), (discriminator(norm=name), 6)):
            norms = [type(m) for m in net.modules() if isinstance(m, kinds)]
            assert norms == [kind] * count


def test_init_gain_scales_the_plain_convolutions():
    for make in (generator, discriminator):
        one, three = make(init_gain=1.0).state_dict(), make(init_gain=3.0).state_dict()
        for key in one:
            if key.endswith("weight") and one[key].dim() == 4: assert torch.allclose(3 * one[key], three[key])


# generator: what it computes

@pytest.mark.parametrize("training", [True, False])
def test_a_constant_map_is_a_vector(training):
    G, label, z = generator().train(training), labels(), draw_noise(2, 64, 0)
    assert torch.equal(deepcopy(G)(label, z), deepcopy(G)(label, noise_map(z, 64, 128).contiguous()))


def test_label_and_noise_both_matter():
    G, label, z = generator().eval(), labels(), draw_noise(2, 64, 0)
    image = G(label, z)
    assert (G((label + 1) % 6, z) - image).abs().mean() > 0.01
    assert (G(label, draw_noise(2, 64, 1)) - image).abs().mean() > 0.01
    quiet = generator(noise=False).eval()
    assert torch.equal(quiet(label), quiet(label, None)) and quiet.z_dim == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integer_type_of_label(dtype):
    G, label, z = generator().eval(), labels(), draw_noise(2, 64, 0)
    assert torch.equal(G(label.to(dtype), z), G(label, z))


def test_stem_reads_every_32nd_pixel():
    G, label, z = generator(), labels(1), draw_noise(1, 64, 0)
    seen = []
    G.stem.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    G(label, z)
    assert torch.equal(seen[0], torch.cat([noise_map(z, 2, 4), one_hot(label[:, ::32, ::32], 6)], 1))


def test_block_is_a_plain_residual_block_where_the_condition_is_silent():
    block = seeded(lambda: GeneratorBlock(8, 4, 6)).eval()
    x, cond = images(2, 8, 8).repeat(1, 3, 1, 1)[:, :8], images(2, 8, 8, 1).repeat(1, 2, 1, 1)
    for n in (block.norm_0, block.norm_1, block.norm_s):
        for c in (n.gamma, n.beta): torch.nn.init.zeros_(c.weight), torch.nn.init.zeros_(c.bias)
    y = block.conv_1(F.leaky_relu(block.norm_1.norm(block.conv_0(F.leaky_relu(block.norm_0.norm(x), 0.2))), 0.2)) + block.conv_s(block.norm_s.norm(x))
    assert torch.equal(block(x, cond), y) and block.conv_s.bias is None and not GeneratorBlock(4, 4, 6).learned_shortcut


def reach(a, b, width):
    "Columns of the output that columns a..b of the input can reach in evaluation mode, by interval arithmetic."
    grow = lambda i: (i[0] - 1, i[1] + 1)
    halve = lambda i: (ceil((i[0] - 1) / 2), floor((i[1] + 1) / 2))
    join = lambda *intervals: (min(i[0] for i in intervals), max(i[1] for i in intervals))
    empty = (10 ** 9, -10 ** 9)
    levels = [grow((a, b))]
    levels.append(grow(levels[0]))
    for _ in range(5): levels.append(halve(levels[-1]))
    stem = (ceil(a / 32), floor(b / 32))
    x = grow(stem) if stem[0] <= stem[1] else empty
    for i in range(6):
        if i: x = (2 * x[0], 2 * x[1] + 1) if x != empty else x
        scale, (low, high) = 2 ** i, levels[6]
        reads = {o: {max(floor((o + 0.5) / scale - 0.5), 0), max(floor((o + 0.5) / scale - 0.5), 0) + (scale > 1)} for o in range(width // 32 * scale)}
        hit = [o for o, r in reads.items() if any(low <= c <= high for c in r)]
        modulation = grow(join((hit[0], hit[-1]), levels[6 - i]))
        x = grow(join(grow(join(x, modulation)), modulation))
    return max(grow(x)[0], 0), min(grow(x)[1], width - 1)


@pytest.mark.parametrize("first, last", [(320, 320), (303, 303), (290, 310)])
def test_a_region_reaches_as_far_as_the_convolutions_and_no_further(first, last):
    G, label, z = generator(base_channels=2, pyramid_channels=4).double(), labels(1, 64, 640), draw_noise(1, 64, 0)
    region = torch.zeros(64, 640, dtype=torch.bool)
    region[:, first:last + 1] = True
    still, moved = G.sample(label, z), G.sample(label, resample_region(z, region, draw_noise(1, 64, 1)))
    change = (moved - still).abs().amax((0, 1, 2))
    low, high = reach(first, last, 640)
    assert change[:low].max() == 0 and change[high + 1:].max() == 0, "beyond its reach a region changes nothing"
    columns = change.nonzero()
    assert columns.min() - low <= 2 and high - columns.max() <= 2, "up to its reach it does"
    assert change[first:last + 1].mean() > 100 * change[low:low + 20].mean(), "most at home"
    assert torch.equal(G.sample(label, resample_region(z, region & False, draw_noise(1, 64, 1))), still)


def test_images_of_a_batch_are_independent_in_evaluation_mode():
    G, label, z = generator().double().eval(), labels(3), draw_noise(3, 64, 0)
    together, alone = G(label, z), torch.cat([G(label[k:k + 1], z[k:k + 1]) for k in range(3)])
    assert (together - alone).abs().max() < 1e-10


# sample

def test_sample_is_reproducible_from_a_seed():
    G, label = generator(), labels()
    before = torch.get_rng_state()
    a = G.sample(label, seed=3)
    assert torch.equal(a, G.sample(label, seed=3)) and torch.equal(a, G.sample(label, draw_noise(2, 64, 3)))
    assert not torch.equal(a, G.sample(label, seed=4)) and torch.equal(before, torch.get_rng_state())
    assert torch.equal(a, deepcopy(G).sample(label, seed=3))
    assert torch.equal(generator(noise=False).sample(label, seed=1), generator(noise=False).sample(label, seed=2))


def test_sample_leaves_the_network_as_it_was():
    G, label = generator(), labels()
    state = deepcopy(G.state_dict())
    G.train()
    G.pyramid.eval()
    modes = [m.training for m in G.modules()]
    image = G.sample(label)
    assert not image.requires_grad and modes == [m.training for m in G.modules()] and True in modes and False in modes
    assert all(torch.equal(v, state[k]) for k, v in G.state_dict().items()), "no statistic moves"
    with pytest.raises(ValueError): G.sample(label[:, :60])
    assert modes == [m.training for m in G.modules()], "after an error, too"


def test_sample_equals_forward_in_evaluation_mode():
    G, label, z = generator(), labels(), draw_noise(2, 64, 0)
    sampled = G.train().sample(label, z)
    assert torch.equal(sampled, G.eval()(label, z))


def test_another_network_gets_input_and_sampling_from_the_base_class():
    class One(LabelToImage):
        def __init__(self):
            super().__init__(6, 8)
            self.head = torch.nn.Conv2d(14, 3, 1)

        def forward(self, label, z=None): return torch.tanh(self.head(self.embed(label, z)))

    net, label = One(), labels()
    assert torch.equal(net.sample(label, seed=1), net.sample(label, draw_noise(2, 8, 1))) and net.embed(label, draw_noise(2, 8, 1)).shape == (2, 14, 64, 128)


# the same functions with less work

def value_and_gradients(f, *inputs):
    "Output, and the gradients of a weighted sum of it."
    inputs = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in inputs]
    y = f(*inputs)
    return [y.detach(), *torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view(y.shape).to(y)).sum(), inputs)]


def assert_close(ours, plain, tolerance):
    "Every tensor within a share of the other's norm."
    for k, (a, b) in enumerate(zip(ours, plain, strict=True)):
        a, b = a.double(), b.double()
        assert (a - b).norm() <= tolerance * max(1.0, b.norm().item()), f"tensor {k}: off by {(a - b).norm():.1e} of {b.norm():.1e}"


def normal(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("small, large", [(1, 4), (2, 2), (3, 6), (2, 64), (8, 32)])
def test_stretch_matrix_is_what_the_kernel_sees_of_the_stretched_map(small, large):
    coarse = normal(1, 1, small, 1)
    fine = F.pad(F.interpolate(coarse, size=(large, 1), mode="bilinear", align_corners=False)[0, 0, :, 0], (1, 1))
    ours = stretch_matrix(small, large, coarse).view(large, 3, small) @ coarse[0, 0, :, 0]
    assert torch.allclose(ours, fine.unfold(0, 3, 1), atol=1e-12)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("coarse, scale", [((1, 1), 4), ((2, 4), 1), ((2, 3), 2), ((3, 2), 8)])
def test_a_stretched_condition_is_convolved_before_it_is_stretched(coarse, scale, memory):
    h, w = coarse
    given = (normal(2, 4, h * scale, w * scale).contiguous(memory_format=memory), normal(2, 4, h, w, seed=1).contiguous(memory_format=memory), normal(5, 8, 3, 3, seed=2), normal(5, seed=3))
    plain = value_and_gradients(lambda l, c, *wb: convolve(condition(l, c), *wb), *given)
    assert_close(value_and_gradients(lambda l, c, *wb: convolve(halves(l, c, always=True), *wb), *given), plain, 1e-11)
    single = [t.float() for t in given]
    assert_close(value_and_gradients(lambda l, c, *wb: convolve(halves(l, c, always=True), *wb), *single), plain, 1e-5)
    with torch.autocast("cpu", torch.bfloat16): assert_close(value_and_gradients(lambda l, c, *wb: convolve(halves(l, c, always=True), *wb).float(), *single), plain, 3e-2)


def test_halves_are_kept_apart_where_it_pays():
    for size, factor, expected in [((32, 32), 4, Halves), ((32, 32), 2, torch.Tensor), ((16, 16), 8, torch.Tensor), ((64, 128), 32, Halves)]:
        assert isinstance(halves(normal(1, 2, *size), normal(1, 2, size[0] // factor, size[1] // factor)), expected)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["batch", "sync_batch", "instance"])
def test_norms_that_share_statistics_keep_their_own_running_numbers(kind, double):
    from dpgan.layers import norm
    plain = [norm(kind, 3, affine=False).double() for _ in range(2)]
    if kind != "instance": plain[1](9 * normal(2, 3, 4, 4, seed=5))
    ours, larger = deepcopy(plain), lambda t: F.interpolate(t, scale_factor=2, mode="nearest") if double else t
    for step, (training, momentum) in enumerate([(True, 0.1), (True, 0.1), (False, 0.1), (True, None), (True, 0.3)]):
        x = normal(2, 3, 3, 4, seed=step) + step
        for m in plain + ours:
            m.train(training)
            if kind != "instance": m.momentum = momentum
        target = normal(2, *larger(x).shape, seed=9)
        results = [value_and_gradients(lambda x: torch.stack(f(x)) * target, x) for f in (lambda x: normalise(ours, x, double), lambda x: [m(larger(x)) for m in plain])]
        assert_close(*results, 1e-12)
        for a, b in zip(ours, plain): assert_close(list(a.buffers()), list(b.buffers()), 1e-13)


def test_equal_norms_stay_equal_to_the_last_bit():
    G = generator().train()
    for seed in range(3): G(labels(seed=seed), draw_noise(2, 64, seed))
    for block in G.blocks:
        if block.learned_shortcut: assert all(torch.equal(a, b) for a, b in zip(block.norm_0.norm.buffers(), block.norm_s.norm.buffers()))


def test_scale_and_shift_are_the_maps_of_the_norm():
    layer, level, coarse = seeded(lambda: SpatialNorm(3, 8)).double(), normal(2, 4, 32, 32), normal(2, 4, 4, 4, seed=1)
    x, (scale, shift) = normal(2, 3, 32, 32, seed=2), scale_and_shift(layer, halves(level, coarse))
    assert torch.allclose(layer(x, condition(level, coarse)), layer.norm(x) * scale + shift, atol=1e-12)


def one_pass(net, *inputs):
    "Outputs, gradients of all parameters, and buffers of a network after one pass."
    net = deepcopy(net)
    out = net(*inputs)
    out = [out] if isinstance(out, torch.Tensor) else [out.class_logits, *out.patch_logits, *out.decoder_features]
    loss = sum((t * torch.linspace(-1, 1, t.numel()).view(t.shape).to(t)).sum() / t.numel() for t in out)
    return [*(t.detach() for t in out), *torch.autograd.grad(loss, list(net.parameters())), *net.buffers()]


def set_ways(net, fast):
    "Every part of a network the fast way, also where it does not pay, or every part step by step."
    for m in net.modules():
        if hasattr(m, "fast"): m.fast = fast
        if hasattr(m, "fold"): m.fold = fast
    return net


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("changes", [{}, {"norm": "instance"}, {"norm": "sync_batch"}, {"spectral_norm": False}, {"noise": False}], ids=str)
def test_a_fast_generator_is_the_same_function(changes, training):
    G, label = generator(**changes).double().train(training), labels()
    z = None if changes.get("noise") is False else normal(2, 64)
    assert_close(one_pass(set_ways(G, True), label, z), one_pass(set_ways(G, False), label, z), 1e-10)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("changes", [{}, {"norm": "instance"}, {"spectral_norm": False}], ids=str)
def test_a_fast_discriminator_is_the_same_function(changes, training):
    D, image = discriminator(**changes).double().train(training), images(2, 64, 256, dtype=torch.float64)
    plain = one_pass(set_ways(D, False), image)
    for fold in (True, None):
        for m in D.modules():
            if hasattr(m, "fold"): m.fold = fold
        assert_close(one_pass(D, image), plain, 1e-10)


def test_fast_ways_in_float32():
    "The fast way is no further from the exact numbers than the plain one, up to a small factor."
    label, z, image = labels(), normal(2, 64).float(), images(2, 64, 256)
    for net, inputs in ((generator(), (label, z)), (discriminator(), (image,))):
        exact = one_pass(deepcopy(set_ways(net, False)).double(), *(t.double() if t.is_floating_point() else t for t in inputs))
        errors = []
        for fast in (True, False): errors.append(sum((a.double() - b.double()).norm().item() / max(1.0, b.double().norm().item()) for a, b in zip(one_pass(set_ways(net, fast), *inputs), exact)))
        assert errors[0] < 10 * errors[1] + 1e-5


@pytest.mark.parametrize("z_dim", [0, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_first_convolution_looked_up_is_the_convolution(z_dim, layout):
    G = generator(z_dim=z_dim, noise=z_dim > 0).double()
    label, z = labels(), draw_noise(2, 5, 0).double() if z_dim else None
    looked, multiplied = deepcopy(G).to(memory_format=layout), deepcopy(G)
    looked.lookup, multiplied.lookup = True, False
    for a, b in zip(one_pass(looked, label, z), one_pass(multiplied, label, z)): assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_when_the_first_convolution_is_looked_up():
    label, vector = labels(), draw_noise(2, 64, 0)
    assert looks_up(generator(), label, vector) and not looks_up(generator().eval(), label, vector) and not looks_up(generator(fast=False), label, vector)
    assert not looks_up(generator(), label, noise_map(vector, 64, 128)), "noise that differs from pixel to pixel is multiplied"


def test_fast_way_in_channels_last():
    G, label, z = generator().double(), labels(), normal(2, 64)
    plain = one_pass(set_ways(G, False), label, z)
    assert_close(one_pass(set_ways(G, True).to(memory_format=torch.channels_last), label, z), plain, 1e-10)


def test_arguments_choose_the_way():
    assert all(not m.fast for m in generator(fast=False).modules() if hasattr(m, "fast")) and generator().blocks[3].fast
    for fold in (None, True, False): assert all(m.fold is fold for m in discriminator(fold=fold).modules() if hasattr(m, "fold"))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_recomputed_features_change_nothing(training):
    "Two forwards before the backward pass, so that the singular vectors have moved on when a block is computed again."
    label, z, image = labels(), normal(2, 64), images(2, 64, 128, dtype=torch.float64)
    for net, inputs in ((generator(), [(label, z), (label, z + 1)]), (discriminator(), [(image,), (-image,)])):
        net, results = net.double().train(training), []
        for net.checkpointing in (False, True):
            copy = deepcopy(net)
            outs = [copy(*i) for i in inputs]
            outs = [o if isinstance(o, torch.Tensor) else o.class_logits + o.decoder_features[1].mean() + o.patch_logits[0].mean() + o.patch_logits[1].mean() for o in outs]
            grads = torch.autograd.grad(sum((k + 1) * o.square().mean() for k, o in enumerate(outs)), list(copy.parameters()))
            results.append([*outs, *grads, *copy.buffers()])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_recomputation_keeps_less():
    def kept(net, *inputs):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.setdefault(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()), t)[1], lambda t: t): out = net(*inputs)
        return sum(sizes.values()), out
    for make, inputs in ((lambda **k: generator(base_channels=8, **k), (labels(), normal(2, 64).float())), (lambda **k: discriminator(base_channels=8, **k), (images(),))):
        assert kept(make(checkpointing=True), *inputs)[0] < 0.8 * kept(make(), *inputs)[0]


# gradients

IDLE_G = {*(f"pyramid.stages.{k}.0.bias" for k in range(7)), "stem.bias", *(f"blocks.{i}.conv_0.bias" for i in range(6)),
          *(f"blocks.{i}.conv_1.bias" for i in range(5)), *(f"blocks.{i}.norm_s.beta.bias" for i in (2, 3, 4))}
IDLE_D = {f"heads.{j}.{k}.bias" for j in (3, 5) for k in (2, 5, 8)}


def idle(net, loss):
    "Names of the parameters that get no gradient, up to rounding in double precision."
    loss.backward()
    return {name for name, p in net.named_parameters() if p.grad is None or p.grad.norm() < 1e-12}


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_gradient_reaches_all_of_the_generator_but_biases_before_a_norm(norm):
    G = generator(norm=norm).double()
    assert len(IDLE_G) == 22
    assert idle(G, G(labels(), draw_noise(2, 64, 0)).sub(0.3).square().mean()) == IDLE_G


def test_all_biases_of_the_generator_matter_in_evaluation_mode():
    G = generator().double().eval()
    assert idle(G, G(labels(), draw_noise(2, 64, 0)).sub(0.3).square().mean()) == set()


def test_gradient_reaches_the_noise_and_the_image():
    z = draw_noise(2, 64, 0).requires_grad_()
    generator()(labels(), z).square().mean().backward()
    assert (z.grad.norm(dim=1) > 0).all()
    image = images().requires_grad_()
    out = discriminator()(image)
    for score in (out.class_logits, *out.patch_logits, *out.decoder_features):
        grad, = torch.autograd.grad(score.square().mean(), image, retain_graph=True)
        assert (grad.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("size, batch", [((64, 256), 2), ((192, 64), 3)])
def test_gradient_reaches_all_of_the_discriminator_but_biases_before_a_norm(size, batch):
    D = discriminator().double()
    out = D(images(batch, *size, dtype=torch.float64))
    loss = out.class_logits.sub(0.3).square().mean() + sum(s.sub(0.3).square().mean() for s in out.patch_logits)
    assert idle(D, loss) == IDLE_D and len(IDLE_D) == 6


def test_without_patch_loss_exactly_the_heads_stay_idle():
    D = discriminator()
    assert idle(D, D(images()).class_logits.square().mean()) == {n for n, _ in D.named_parameters() if n.startswith("heads.")}


# discriminator

@pytest.mark.parametrize("size", SIZES)
def test_discriminator_sizes(size):
    h, w = size
    out = discriminator()(images(2, h, w))
    assert isinstance(out, DiscriminatorOutput) and out._fields == ("class_logits", "patch_logits", "decoder_features")
    assert out.class_logits.shape == (2, 7, h, w)
    assert [tuple(s.shape) for s in out.patch_logits] == [(2, 1, h // 32, w // 32), (2, 1, ceil(h / 128), ceil(w / 128))]
    assert [tuple(f.shape) for f in out.decoder_features] == [(2, c, h // s, w // s) for c, s in ((16, 16), (16, 8), (8, 4), (8, 2), (4, 1))]
    assert all(t.isfinite().all() for t in (out.class_logits, *out.patch_logits, *out.decoder_features))


@pytest.mark.parametrize("setting", [{"num_classes": 2}, {"num_classes": 15}, {"num_classes": 35}, {"base_channels": 2}, {"base_channels": 16},
                                     {"spectral_norm": False}, {"norm": "sync_batch"}, {"norm": "instance"}, {"init_gain": 0.02}], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_discriminator_settings(setting, training):
    D = discriminator(**setting).train(training)
    width = 192 if setting.get("norm") == "instance" else 128
    out = D(images(2, 64, width))
    assert out.class_logits.shape == (2, setting.get("num_classes", 6) + 1, 64, width) and out.class_logits.isfinite().all()
    assert out.decoder_features[-1].shape[1] == setting.get("base_channels", 4)
    (out.class_logits.mean() + sum(s.mean() for s in out.patch_logits)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in D.parameters())


def test_the_bridges_come_in_front():
    D, x = discriminator().eval(), images()
    skips = []
    for block in D.encoder: skips.append(x := block(x))
    y, features = D.decoder[0](x), []
    for block, skip in zip(D.decoder[1:], (skips[4], skips[3], skips[2], skips[1], skips[0])): features.append(y := block(torch.cat([skip, y], 1)))
    out = D(images())
    assert all(torch.equal(a, b) for a, b in zip(features, out.decoder_features, strict=True)) and torch.equal(out.class_logits, D.classifier(y))
    assert torch.equal(out.patch_logits[0], D.heads["3"](skips[3])) and torch.equal(out.patch_logits[1], D.heads["5"](skips[5]))


@pytest.mark.parametrize("head, side", [(0, 364), (1, 1468)])
def test_area_behind_a_patch_logit(head, side):
    D = discriminator(2, 2).double().eval()
    image = images(1, 64, 2048, dtype=torch.float64).requires_grad_()
    scores = D(image).patch_logits[head]
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    columns = image.grad.abs().amax((0, 1, 2)).nonzero()
    assert columns.max() - columns.min() + 1 == side


def test_patch_head_halves_and_rounds_up():
    assert PatchHead(4, 8)(torch.zeros(2, 4, 3, 5)).shape == (2, 1, 2, 3)


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (128, 128)])
def test_one_value_per_channel(size):
    D = discriminator()
    with pytest.raises(ValueError, match="batch of 2 or more"): D(images(1, *size))
    assert D(images(2, *size)).patch_logits[1].shape == (2, 1, 1, 1)
    assert D.eval()(images(1, *size)).patch_logits[1].shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="at least 192"): discriminator(norm="instance").eval()(images(2, *size))
    with pytest.raises(ValueError): discriminator(norm="sync_batch")(images(1, *size))


@pytest.mark.parametrize("size", [(64, 192), (192, 64), (256, 512)])
def test_more_than_one_value_per_channel(size):
    for norm in ("batch", "instance", "sync_batch"): check_patch_maps(torch.zeros(1, 3, *size), norm, training=True)
    assert discriminator(base_channels=1)(images(1, *size)).patch_logits[1][0, 0].numel() > 1


# both

@pytest.mark.parametrize("training", [True, False])
def test_double_precision(training):
    G, D = generator().double().train(training), discriminator().double().train(training)
    image = G(labels(), draw_noise(2, 64, 0))  # single precision noise is widened
    out = D(image)
    assert image.dtype == out.class_logits.dtype == out.patch_logits[1].dtype == out.decoder_features[0].dtype == torch.float64
    if not training: assert (generator().eval()(labels(), draw_noise(2, 64, 0)) - image).abs().max() < 1e-3


def test_bfloat16_autocast():
    G, D = generator(), discriminator()
    with torch.autocast("cpu", torch.bfloat16):
        image = G(labels(), draw_noise(2, 64, 0))
        out = D(image)
    assert image.isfinite().all() and out.class_logits.isfinite().all()
    (image.float().mean() + out.class_logits.float().mean() + sum(s.float().mean() for s in out.patch_logits)).backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for net in (G, D) for p in net.parameters())


@pytest.mark.parametrize("setting", [{}, {"spectral_norm": False}, {"norm": "sync_batch"}, {"norm": "instance"}], ids=str)
def test_state_dict_round_trip(setting, tmp_path):
    label, z, x = labels(1, 64, 192), draw_noise(1, 64, 0), images(1, 64, 192)
    for make, run in ((generator, lambda net: net(label, z)), (discriminator, lambda net: net(x).class_logits)):
        net, other = make(**setting), seeded(lambda: type(make())(6, 4, **({"pyramid_channels": 8} if make is generator else {}), **setting), seed=9)
        run(net)  # moves the statistics
        torch.save(net.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
        assert torch.equal(run(net.eval()), run(other.eval()))


def test_same_seed_same_network():
    for make in (generator, discriminator):
        assert all(torch.equal(a, b) for a, b in zip(make().state_dict().values(), make().state_dict().values(), strict=True))


def test_names_in_the_state_dict():
    "Checkpoints depend on them."
    g, d = set(generator().state_dict()), set(discriminator().state_dict())
    assert {"pyramid.stages.0.0.weight", "pyramid.stages.6.1.running_mean", "stem.weight", "blocks.0.norm_0.gamma.weight", "blocks.5.norm_s.beta.bias",
            "blocks.2.conv_s.weight", "blocks.0.conv_0.u", "blocks.0.conv_1.v", "head.bias"} <= g
    assert {"encoder.0.conv_0.weight", "encoder.0.shortcut.u", "decoder.5.conv_1.v", "classifier.bias", "heads.3.0.weight", "heads.5.11.bias", "heads.5.3.running_var"} <= d
    assert len(g) == 225 and len(d) == 180


# messages

LABEL, Z = labels(1), draw_noise(1, 64, 0)
MESSAGES = {
    "size": (lambda: generator()(LABEL[:, :, :96], Z), ValueError, ["64 x 96", "divisible by 64", "resize", "pad"]),
    "floats": (lambda: generator()(LABEL.float(), Z), TypeError, ["float32", "label.long()"]),
    "bool": (lambda: generator()(LABEL > 2, Z), TypeError, ["bool", "label.long()"]),
    "one-hot": (lambda: generator()(one_hot(LABEL, 6), Z), ValueError, ["(1, 6, 64, 128)", "(B, H, W)", "argmax(1)"]),
    "single map": (lambda: generator()(LABEL[0], Z), ValueError, ["(64, 128)", "label[None]"]),
    "id too large": (lambda: generator()(LABEL + 1, Z), ValueError, ["0..5", "1..6", "dpgan.labels"]),
    "negative id": (lambda: generator()(LABEL - 1, Z), ValueError, ["0..5", "-1..4", "dpgan.labels"]),
    "no noise": (lambda: generator()(LABEL), ValueError, ["(1, 64)", "draw_noise(1, 64, seed=0)", "sample()"]),
    "noise of another batch": (lambda: generator()(LABEL, draw_noise(2, 64, 0)), ValueError, ["(1, 64)", "(2, 64)", "draw_noise"]),
    "noise of another width": (lambda: generator()(LABEL, draw_noise(1, 8, 0)), ValueError, ["(1, 64)", "(1, 8)", "draw_noise"]),
    "noise map of another size": (lambda: generator()(LABEL, noise_map(Z, 64, 64)), ValueError, ["(1, 64, 64, 128)", "(1, 64, 64, 64)", "draw_noise"]),
    "region of another size": (lambda: resample_region(noise_map(Z, 64, 128), LABEL[:, :, :64] > 2, Z), ValueError, ["(64, 64)", "(64, 128)", "label map"]),
    "region of another batch": (lambda: resample_region(Z, labels(2) > 2, Z), ValueError, ["(2, 64, 128)", "label =="]),
    "region one-hot": (lambda: resample_region(Z, one_hot(LABEL, 6), Z), ValueError, ["(1, 6, 64, 128)", "label =="]),
    "generator norm": (lambda: generator(norm="layer"), ValueError, ["'layer'", "batch, sync_batch, instance"]),
    "discriminator norm": (lambda: discriminator(norm="group"), ValueError, ["'group'", "batch, sync_batch, instance"]),
    "image without batch": (lambda: discriminator()(images()[0]), ValueError, ["(3, 64, 128)", "image[None]"]),
    "image channels last": (lambda: discriminator()(images().movedim(1, -1)), ValueError, ["(2, 64, 128, 3)", "movedim"]),
    "image of bytes": (lambda: discriminator()(images().byte()), TypeError, ["uint8", "image / 127.5 - 1"]),
    "image size": (lambda: discriminator()(images()[:, :, :, :100]), ValueError, ["64 x 100", "divisible by 64", "resize"]),
    "one value": (lambda: discriminator()(images(1)), ValueError, ["64 x 128", "batch of 2", "192", "eval()"]),
    "one value, instance": (lambda: discriminator(norm="instance")(images()), ValueError, ["64 x 128", "norm='batch'", "192"]),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_name_fault_and_remedy(name):
    call, kind, words = MESSAGES[name]
    with pytest.raises(kind) as caught: call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_checks_let_good_input_pass():
    check_label(LABEL, 6)
    check_noise(Z, LABEL, 64)
    check_noise(noise_map(Z, 64, 128), LABEL, 64)
    check_image(images())
