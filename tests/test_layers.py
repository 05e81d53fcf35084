"""The layers every network is made of: spectral convolutions, norms within and across processes, residual blocks, initialisation."""
import copy
import os
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpgan import config, layers
from dpgan.layers import DownBlock, SpectralConv2d, SyncBatchNorm2d, UpBlock, boxed, conv, doubled_conv, folds, init_weights, norm, pooled_conv, power_iteration, spectral_weight

few = settings(max_examples=20, deadline=None, derandomize=True)
sizes = st.integers(1, 9)
seeds = st.integers(0, 2 ** 31)


def draw(*shape, seed=0, dtype=torch.float64):
    "Standard normal numbers that depend on the seed alone."
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def start(matrix, seed=1):
    "Singular vectors to begin with: a random u and any v."
    return F.normalize(draw(len(matrix), seed=seed), dim=0), torch.zeros(matrix.shape[1], dtype=matrix.dtype)


@pytest.fixture(autouse=True)
def seeded():
    "Every test builds its networks from the same random numbers and leaves the global generator as it was."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# the power method

@few
@given(rows=sizes, cols=sizes, seed=seeds)
def test_enough_iterations_give_the_spectral_norm(rows, cols, seed):
    m = draw(rows, cols, seed=seed)
    u, v = start(m)
    for _ in range(1000): u, v = power_iteration(m, u, v)
    exact = torch.linalg.matrix_norm(m, ord=2)
    # a small gap slows the vectors down, but then the values are close: from a fair start, k rounds leave about 1 / (4 e k) at worst
    assert torch.dot(u, m @ v) == pytest.approx(exact.item(), rel=2e-4)


@few
@given(rows=sizes, cols=sizes, seed=seeds)
def test_the_estimate_rises_and_never_exceeds_the_spectral_norm(rows, cols, seed):
    m = draw(rows, cols, seed=seed)
    u, v = start(m)
    exact, last = torch.linalg.matrix_norm(m, ord=2).item(), 0.0
    for _ in range(30):
        u, v = power_iteration(m, u, v)
        estimate = torch.dot(u, m @ v).item()
        assert last - 1e-12 <= estimate <= exact * (1 + 1e-12)
        last = estimate
    assert u.norm() == pytest.approx(1, abs=1e-12) and v.norm() == pytest.approx(1, abs=1e-12)


@few
@given(out=st.integers(2, 8), inn=st.integers(1, 5), kernel=st.sampled_from([1, 3]), seed=seeds)
def test_gradient_is_that_of_the_exact_expression(out, inn, kernel, seed):
    w, target = draw(out, inn, kernel, kernel, seed=seed).requires_grad_(), draw(out, inn, kernel, kernel, seed=seed + 1)
    left, _, right = torch.linalg.svd(w.detach().flatten(1), full_matrices=False)
    ours, = torch.autograd.grad((spectral_weight(w, left[:, 0], right[0]) * target).sum(), w)
    exact, = torch.autograd.grad((w / torch.linalg.matrix_norm(w.flatten(1), ord=2) * target).sum(), w)
    torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-10)
    assert (ours * w).sum().item() == pytest.approx(0, abs=1e-10)  # nothing pulls along the weight


# the spectral convolution

@pytest.mark.parametrize("inn, out, kernel", [(3, 8, 3), (8, 3, 3), (16, 16, 1)])
def test_weight_in_use_has_norm_one(inn, out, kernel):
    layer = SpectralConv2d(inn, out, kernel).double()
    layer.reset_spectral(1000)
    assert torch.linalg.matrix_norm(layer.eval().normalised_weight().flatten(1), ord=2).item() == pytest.approx(1, rel=2e-4)


def test_a_fresh_layer_is_close_to_norm_one():
    for width in (16, 128):
        used = SpectralConv2d(width, width).eval().normalised_weight()
        assert 1 - 1e-6 <= torch.linalg.matrix_norm(used.flatten(1), ord=2).item() < 1.1


@few
@given(scale=st.floats(1e-3, 1e3))
def test_scaling_the_weight_changes_nothing(scale):
    layer, x = SpectralConv2d(3, 5, padding=1).double().eval(), draw(1, 3, 6, 6)
    before = layer(x)
    with torch.no_grad(): layer.weight.mul_(scale)
    torch.testing.assert_close(layer(x), before)


def test_each_training_forward_refines_once_and_evaluation_never():
    layer, x = SpectralConv2d(6, 8), draw(1, 6, 5, 5, dtype=torch.float32)
    u, v, m = layer.u.clone(), layer.v.clone(), layer.weight.detach().flatten(1)
    for _ in range(3):
        u, v = power_iteration(m, u, v)
        layer(x)
        assert torch.equal(layer.u, u) and torch.equal(layer.v, v)
    with torch.no_grad(): layer(x)  # also without gradients, as long as the mode is training
    u, v = power_iteration(m, u, v)
    assert torch.equal(layer.u, u) and torch.equal(layer.v, v)
    layer.eval()
    first = layer(x)
    assert torch.equal(layer(x), first) and torch.equal(layer.u, u) and torch.equal(layer.v, v)


def test_two_forwards_before_one_backward():
    layer, x = SpectralConv2d(3, 4).double(), draw(2, 3, 6, 6)
    u, v, m = layer.u.clone(), layer.v.clone(), layer.weight
    total = 0
    for image in x:  # what the two forwards should compute, each with its own vectors
        u, v = power_iteration(m.detach().flatten(1), u, v)
        total = total + F.conv2d(image[None], spectral_weight(m, u, v), layer.bias).square().sum()
    expected, = torch.autograd.grad(total, m)
    (layer(x[:1]).square().sum() + layer(x[1:]).square().sum()).backward()
    torch.testing.assert_close(m.grad, expected)


@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (1, 1)])
def test_agrees_with_torch(kernel, stride):
    ours = conv(6, 10, kernel, stride, spectral=True)
    theirs = torch.nn.utils.spectral_norm(nn.Conv2d(6, 10, kernel, stride, kernel // 2))
    with torch.no_grad():
        for mine, other in [(ours.weight, theirs.weight_orig), (ours.bias, theirs.bias), (ours.u, theirs.weight_u)]: mine.copy_(other)
    ours, theirs, x = ours.double(), theirs.double(), draw(2, 6, 9, 9)
    for mode in (True, True, False):
        ours.train(mode), theirs.train(mode)
        for net in (ours, theirs):
            net.zero_grad()
            net(x).square().mean().backward()
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours.weight.grad, theirs.weight_orig.grad, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours.u, theirs.weight_u, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours.v, theirs.weight_v, rtol=1e-9, atol=1e-9)


def test_float64_throughout():
    layer = SpectralConv2d(3, 4).double()
    out = layer(draw(1, 3, 5, 5))
    assert {out.dtype, layer.normalised_weight().dtype, layer.u.dtype, layer.v.dtype} == {torch.float64}


def test_autocast_leaves_the_iteration_in_float32():
    layer, x = SpectralConv2d(16, 32, padding=1), draw(1, 16, 8, 8, dtype=torch.float32)
    exact = copy.deepcopy(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, used = layer(x), layer.normalised_weight()
    expected = exact(x)
    assert out.dtype == torch.bfloat16 and used.dtype == torch.float32
    assert torch.equal(used, exact.normalised_weight()) and torch.equal(layer.u, exact.u) and torch.equal(layer.v, exact.v)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32 and layer.weight.grad.isfinite().all()


def test_copy_and_state_dict_keep_the_function():
    layer, x = SpectralConv2d(3, 4), draw(1, 3, 5, 5, dtype=torch.float32)
    layer(x)
    other = SpectralConv2d(3, 4)
    other.load_state_dict(layer.state_dict())
    assert set(layer.state_dict()) == {"weight", "bias", "u", "v"}
    for net in (other, copy.deepcopy(layer)): assert torch.equal(net.eval()(x), layer.eval()(x))


def test_shapes_without_memory():
    with torch.device("meta"):
        block = DownBlock(3, 128, first=True)
        assert block(torch.empty(1, 3, 256, 512)).shape == (1, 128, 128, 256)


# the helper

@few
@given(height=st.integers(1, 9), width=st.integers(1, 9), kernel=st.sampled_from([1, 3, 5]), stride=st.sampled_from([1, 2]), spectral=st.booleans(), bias=st.booleans())
def test_conv_keeps_the_size_or_halves_it(height, width, kernel, stride, spectral, bias):
    layer = conv(2, 4, kernel, stride, bias, spectral)
    assert layer(torch.zeros(1, 2, height, width)).shape == (1, 4, -(-height // stride), -(-width // stride))
    assert isinstance(layer, SpectralConv2d) == spectral and (layer.bias is not None) == bias


# norms

@pytest.mark.parametrize("kind", layers.NORM_LAYERS)
@pytest.mark.parametrize("channels", [4, 7])
def test_norm_by_name(kind, channels):
    x = 3 * draw(2, channels, 6, 5, dtype=torch.float32) + 2
    axes = (2, 3) if kind == "instance" else (0, 2, 3)
    for affine in (True, False):
        layer = norm(kind, channels, affine)
        out = layer(x)
        assert out.mean(axes).abs().max() < 1e-5 and (out.std(axes, unbiased=False) - 1).abs().max() < 1e-4
        assert len(list(layer.parameters())) == 2 * affine
        assert isinstance(layer, layers.NORM_LAYERS[kind])


def test_norm_names_are_those_of_the_settings():
    assert set(layers.NORM_LAYERS) == set(config.NORMS)


def test_unknown_norm():
    with pytest.raises(ValueError, match="'group' is not known; choose from batch, sync_batch, instance"): norm("group", 4)


# batch norm across processes

BATCH, CHANNELS = 4, 3


def whole_batch(dtype, offset=0.0):
    "What all processes together see: images whose means differ, so that averaged statistics would be wrong."
    return (draw(BATCH, CHANNELS, 6, 5, seed=3) + offset + torch.arange(float(BATCH)).view(-1, 1, 1, 1)).to(dtype)


CASES = {  # dtype, constant added, affine, images of the first process
    "float64": (torch.float64, 0.0, True, 2),
    "unequal shares": (torch.float64, 0.0, True, 3),
    "no affine": (torch.float64, 0.0, False, 2),
    "float32 far from zero": (torch.float32, 1000.0, True, 2),
    "bfloat16": (torch.bfloat16, 0.0, True, 2)}


def two_steps(layer, shares, target):
    "Outputs and input gradients of two training steps, then an evaluation; the loss is the sum over all processes."
    outs = []
    for x in shares:
        x = x.clone().requires_grad_()
        out = layer(x)
        (out.double() * target).sum().backward()
        outs += [out.detach(), x.grad]
    return outs + [layer.eval()(shares[0]).detach()]


def build(kind, case):
    dtype, offset, affine, cut = CASES[case]
    layer = norm(kind, CHANNELS, affine)
    if affine:
        with torch.no_grad(): layer.weight.copy_(draw(CHANNELS, seed=4)), layer.bias.copy_(draw(CHANNELS, seed=5))
    x, target = whole_batch(dtype, offset), draw(BATCH, CHANNELS, 6, 5, seed=6)
    return layer.double() if dtype == torch.float64 else layer, [x, 2 * x], target, cut


def one_of_two(rank, folder):
    "What one of the two processes does: its share of the batch through the layer, its results to a file."
    torch.set_num_threads(1)
    if sys.platform == "linux": os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    results = {}
    for case in CASES:
        layer, batches, target, cut = build("sync_batch", case)
        mine = slice(cut) if rank == 0 else slice(cut, None)
        results[case] = two_steps(layer, [x[mine] for x in batches], target[mine]), dict(layer.named_buffers()), [p.grad for p in layer.parameters()]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may still be ending, and torch sometimes aborts when the interpreter goes down around them


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    "The results of two real processes that exchange their sums."
    if not (dist.is_available() and dist.is_gloo_available()): pytest.skip("this torch was built without gloo")
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_the_whole_batch(two_processes, case):
    layer, batches, target, _ = build("batch", case)
    expected = two_steps(layer, batches, target)
    tolerance = {torch.float64: dict(rtol=1e-10, atol=1e-10), torch.float32: dict(rtol=1e-3, atol=1e-3), torch.bfloat16: dict(rtol=0.03, atol=0.03)}[CASES[case][0]]
    (first, buffers, grads), (second, other_buffers, other_grads) = (result[case] for result in two_processes)
    names = [f"step {i}, {what}" for i in (1, 2) for what in ("output", "input gradient")] + ["evaluation"]
    for name, whole, *halves in zip(names, expected, first, second):
        assert halves[0].dtype == whole.dtype, name
        torch.testing.assert_close(torch.cat(halves), whole, **tolerance, msg=lambda m: f"{name}: {m}")
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffers[name], other_buffers[name]), f"{name} differs between the processes"
        torch.testing.assert_close(buffers[name], buffer, **tolerance)
    for parameter, *halves in zip(layer.parameters(), grads, other_grads):
        torch.testing.assert_close(sum(halves), parameter.grad, rtol=max(1e-2, tolerance["rtol"]) if case == "bfloat16" else tolerance["rtol"], atol=0.5 if case == "bfloat16" else 10 * tolerance["atol"])


def test_one_process_equals_batch_norm(tmp_path):
    ours, theirs, x = SyncBatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS), whole_batch(torch.float32)
    assert torch.equal(ours(x), theirs(x))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)  # a group of one: nobody to exchange with
    try: assert torch.equal(ours(x), theirs(x))
    finally: dist.destroy_process_group()
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers()))


# residual blocks

def by_hand(x, block, down, first=False):
    "The residual blocks as the description puts them, from the weights the layers use."
    def through(layer, x): return F.conv2d(x, layer.normalised_weight() if isinstance(layer, SpectralConv2d) else layer.weight, layer.bias, padding=layer.padding)
    def bend(x): return torch.where(x > 0, x, 0.2 * x)
    def pool(x): return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    def double(x): return x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    def skip(x): return x if isinstance(block.shortcut, nn.Identity) else through(block.shortcut, x)
    y = x if first else bend(x)
    y = through(block.conv_1, bend(through(block.conv_0, y if down else double(y))))
    if not down: return y + skip(double(x))
    return pool(y) + (skip(pool(x)) if first else pool(skip(x)))


@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("inn, out", [(3, 8), (8, 8), (16, 4)])
def test_blocks(inn, out, spectral):
    x = draw(2, inn, 6, 8)
    for first in (False, True):
        block = DownBlock(inn, out, first, spectral).double().eval()
        assert block(x).shape == (2, out, 3, 4)
        torch.testing.assert_close(block(x), by_hand(x, block, True, first))
    block = UpBlock(inn, out, spectral).double().eval()
    assert block(x).shape == (2, out, 12, 16)
    torch.testing.assert_close(block(x), by_hand(x, block, False))
    assert isinstance(block.shortcut, nn.Identity) == (inn == out)
    assert any(isinstance(m, SpectralConv2d) for m in block.modules()) == spectral


# resampling inside a convolution

TWO_STEPS = {pooled_conv: lambda x, weight, bias: F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2),
             doubled_conv: lambda x, weight, bias: F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)}


def value_and_gradients(f, *inputs):
    "Output, and the gradients of a weighted sum of it."
    inputs = [t.clone().requires_grad_() for t in inputs]
    y = f(*inputs)
    return [y.detach(), *torch.autograd.grad((y * draw(*y.shape, seed=9).to(y.dtype)).sum(), inputs)]


@few
@given(f=st.sampled_from([pooled_conv, doubled_conv]), batch=st.integers(1, 3), height=st.integers(1, 9), width=st.integers(1, 9), inn=st.integers(1, 4), out=st.integers(1, 4), seed=seeds)
def test_one_step_equals_two(f, batch, height, width, inn, out, seed):
    if f is pooled_conv: height, width = height + 1, width + 1  # odd sizes too: both leave the last row out
    given_ = draw(batch, inn, height, width, seed=seed), draw(out, inn, 3, 3, seed=seed + 1), draw(out, seed=seed + 2)
    for one, two in zip(value_and_gradients(f, *given_), value_and_gradients(TWO_STEPS[f], *given_)): torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("f", [pooled_conv, doubled_conv])
def test_one_step_in_lower_precision(f, dtype, tolerance, memory):
    given_ = draw(2, 32, 16, 16, dtype=torch.float32).contiguous(memory_format=memory), draw(16, 32, 3, 3, seed=1, dtype=torch.float32) / 17, draw(16, seed=2, dtype=torch.float32)
    exact = value_and_gradients(TWO_STEPS[f], *(t.double() for t in given_))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16): ours = value_and_gradients(lambda *a: f(*a).float(), *given_)
    for mine, theirs in zip(ours, exact): assert (mine - theirs).norm() <= tolerance * theirs.norm()


def test_without_bias():
    x, w = draw(1, 2, 4, 4), draw(3, 2, 3, 3, seed=1)
    for f in TWO_STEPS: assert torch.equal(f(x, w), f(x, w, torch.zeros(3, dtype=x.dtype)))


def test_boxed_kernel_is_the_kernel_of_the_box_applied_to_it():
    w = draw(2, 3, 3, 3)
    box = F.conv_transpose2d(w.flatten(0, 1)[:, None], torch.ones(1, 1, 2, 2, dtype=w.dtype))
    torch.testing.assert_close(boxed(w), box.view(2, 3, 4, 4))


@pytest.mark.parametrize("spectral", [True, False])
@pytest.mark.parametrize("build", [lambda **k: DownBlock(3, 8, first=True, **k), lambda **k: DownBlock(8, 4, **k), lambda **k: DownBlock(4, 4, **k), lambda **k: UpBlock(8, 4, **k), lambda **k: UpBlock(4, 4, **k)],
                         ids=["first", "down", "down same", "up", "up same"])
def test_folded_blocks_train_alike(build, spectral):
    "Output, gradients, and singular vectors after a training forward: all the same whether a block folds or not."
    plain = build(spectral=spectral, fold=False).double()
    x, results = draw(2, plain.conv_0.in_channels, 8, 12), []
    for fold in (False, True):
        block = copy.deepcopy(plain)
        block.fold = fold
        y = block(x := x.detach().requires_grad_())
        grads = torch.autograd.grad((y * draw(*y.shape, seed=3)).sum(), [x, *block.parameters()])
        results.append([y, *grads, *block.buffers()])
    for a, b in zip(*results): torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_blocks_fold_from_a_size_on(monkeypatch):
    seen = []
    for name in ("pooled_conv", "doubled_conv"): monkeypatch.setattr(layers, name, lambda *a, f=getattr(layers, name): seen.append(tuple(a[0].shape[-2:])) or f(*a))
    for batch, side in [(1, 8), (4, 8), (1, 16)]:
        for block, size in ((DownBlock(2, 2), 2 * side), (UpBlock(2, 2), side)): block(torch.zeros(batch, 2, size, size))
    assert seen == [(16, 16), (8, 8), (32, 32), (16, 16)]
    assert folds(None, torch.empty(1, 1, 16, 16)) and not folds(None, torch.empty(1, 99, 15, 17)) and folds(True, torch.empty(1, 1, 1, 1)) and not folds(False, torch.empty(9, 1, 99, 99))


# initialisation

@pytest.mark.parametrize("gain", [0.02, 1.0])
def test_init(gain):
    net = nn.Sequential(conv(32, 64), conv(64, 32, spectral=True), norm("batch", 512), norm("instance", 512), norm("batch", 4, affine=False), conv(64, 8, 1, bias=False))
    assert init_weights(net, gain) is net
    for i, fans in ((0, 9 * 96), (1, 9 * 96), (5, 72)):
        assert net[i].weight.std().item() == pytest.approx(gain * (2 / fans) ** 0.5, rel=0.1)
    for i in (2, 3):
        assert net[i].weight.mean().item() == pytest.approx(1, abs=0.005) and net[i].weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not any(net[i].bias.any() for i in (0, 1, 2, 3))
    used = net[1].eval().normalised_weight()  # the singular vectors belong to the new weight
    assert 1 - 1e-6 <= torch.linalg.matrix_norm(used.flatten(1), ord=2).item() < 1.1


def test_init_depends_on_the_seed_alone():
    def fresh(seed):
        torch.manual_seed(seed)
        return init_weights(DownBlock(3, 8)).state_dict()
    one, two, other = fresh(1), fresh(1), fresh(2)
    assert all(torch.equal(one[k], two[k]) for k in one) and not torch.equal(one["conv_0.weight"], other["conv_0.weight"])


def test_count_parameters():
    net = nn.Sequential(conv(3, 8, spectral=True), norm("batch", 8))
    assert layers.count_parameters(net) == 3 * 8 * 9 + 8 + 16
    net[0].bias.requires_grad_(False)
    assert layers.count_parameters(net) == 3 * 8 * 9 + 16
