"dpgan.ema: the average in closed form, what must not be blended, and statistics that fit."
import math
from copy import deepcopy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from dpgan.ema import EMA, reestimate_batch_norm, renormalise_spectral
from dpgan.generator import Generator, draw_noise
from dpgan.layers import SpectralConv2d, SyncBatchNorm2d


def seeded(make, seed=0):
    "Build a module from a seed and leave the global random state alone."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


class Net(nn.Module):
    "Every kind of state: a spectral convolution, a plain one, an affine batch norm and one without."
    def __init__(self):
        super().__init__()
        self.first, self.norm = SpectralConv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.last = nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)

    def forward(self, x, shift=0.0): return self.last(self.second(torch.relu(self.norm(self.first(x))) + shift))


def images(seed, batch=4): return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wander(net, seed):
    "Change all that training changes: parameters by some amount, buffers by a forward pass in training mode."
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters(): p += 0.3 * torch.randn(p.shape, generator=rng, dtype=p.dtype)
        net.train()(images(seed).to(next(net.parameters()).dtype))


def is_vector(key): return key.endswith((".u", ".v"))
def copy_of(net): return {k: t.clone() for k, t in net.state_dict().items()}


@pytest.fixture
def net(): return seeded(Net).double()


class TestEMA:
    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.0, 1.0), st.integers(1, 7))
    def test_closed_form(self, decay, k):
        "After k updates: d^k of the start and (1 - d) d^(k - s) of update s."
        net = seeded(Net).double()
        ema, start, seen = EMA(net, decay), copy_of(net), []
        for s in range(k):
            wander(net, s)
            ema.update(net)
            seen.append(copy_of(net))
        for key, t in ema.net.state_dict().items():
            if not t.is_floating_point() or is_vector(key): continue
            expected = decay ** k * start[key] + sum((1 - decay) * decay ** (k - s) * seen[s - 1][key] for s in range(1, k + 1))
            torch.testing.assert_close(t, expected, rtol=1e-12, atol=1e-13)
        assert ema.updates == k

    def test_spectral_vectors(self, net):
        "Each update blends and then restores the length."
        ema = EMA(net, 0.7)
        expected = {k: t.clone() for k, t in net.state_dict().items() if is_vector(k)}
        for s in range(5):
            wander(net, s)
            ema.update(net)
            for k in expected:
                blend = 0.7 * expected[k] + 0.3 * net.state_dict()[k]
                expected[k] = blend / blend.norm()
        for k, t in expected.items():
            torch.testing.assert_close(ema.net.state_dict()[k], t, rtol=1e-12, atol=1e-14)
            assert math.isclose(ema.net.state_dict()[k].norm(), 1, rel_tol=1e-12)

    def test_decay_0_follows(self, net):
        ema = EMA(net, 0.0)
        wander(net, 0)
        ema.update(net)
        for k, t in ema.net.state_dict().items(): torch.testing.assert_close(t, net.state_dict()[k], rtol=1e-14, atol=1e-15)

    def test_decay_1_stays(self, net):
        ema, start = EMA(net, 1.0), copy_of(net)
        wander(net, 0)
        ema.update(net)
        for k, t in ema.net.state_dict().items():
            if t.is_floating_point() and not is_vector(k): torch.testing.assert_close(t, start[k], rtol=1e-14, atol=1e-15)

    def test_decay_near_1_in_float32(self):
        "A thousand small steps are not lost to rounding."
        net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(net.weight)
        ema = EMA(net, 0.9999)
        nn.init.ones_(net.weight)
        for _ in range(1000): ema.update(net)
        assert math.isclose(ema.net.weight.item(), 1 - 0.9999 ** 1000, rel_tol=1e-4)

    def test_counters_are_copied(self, net):
        ema = EMA(net, 0.999)
        for s in range(3):
            wander(net, s)
            ema.update(net)
        assert ema.net.norm.num_batches_tracked == 3 == ema.net.last.num_batches_tracked
        assert ema.net.norm.num_batches_tracked.dtype == torch.long

    def test_running_statistics_are_blended(self, net):
        ema, before = EMA(net, 0.9), net.norm.running_mean.clone()
        wander(net, 0)
        ema.update(net)
        torch.testing.assert_close(ema.net.norm.running_mean, 0.9 * before + 0.1 * net.norm.running_mean)

    def test_warmup_schedule(self):
        net = nn.Linear(1, 1, bias=False).double()
        nn.init.ones_(net.weight)
        ema, say = EMA(net, 0.9, warmup=True), 1.0
        nn.init.zeros_(net.weight)
        for t in range(200):
            ema.update(net)
            say *= min(0.9, (1 + t) / (10 + t))
            assert math.isclose(ema.net.weight.item(), say, rel_tol=1e-12)
            if t == 19: assert math.isclose(say, 1 / math.comb(29, 9), rel_tol=1e-12)  # the cap of 0.9 is reached at t = 80
            if t >= 80: assert (1 + t) / (10 + t) >= 0.9

    def test_warmup_continues_from_the_counter(self):
        "A resumed run sets `updates` and gets the decay of that time."
        net = nn.Linear(1, 1, bias=False).double()
        nn.init.ones_(net.weight)
        ema = EMA(net, 0.9999, warmup=True)
        ema.updates = 90
        nn.init.zeros_(net.weight)
        ema.update(net)
        assert math.isclose(ema.net.weight.item(), 91 / 100, rel_tol=1e-12) and ema.updates == 91

    def test_ready_to_sample(self, net):
        net.train()
        ema = EMA(net)
        for _ in range(2):
            assert not any(m.training for m in ema.net.modules()) and not any(p.requires_grad for p in ema.net.parameters())
            assert not any(t.requires_grad for t in ema.net.state_dict(keep_vars=True).values())
            wander(net, 0)
            ema.update(net)
        state = copy_of(ema.net)
        assert not ema.net(images(0)).requires_grad
        for k, t in ema.net.state_dict().items(): assert torch.equal(t, state[k])

    def test_network_is_left_as_it_was(self, net):
        ema = EMA(net, 0.5)
        wander(net, 0)
        net(images(1)).square().mean().backward()
        state, grads = copy_of(net), {k: p.grad.clone() for k, p in net.named_parameters()}
        ema.update(net)
        assert net.training and all(p.requires_grad for p in net.parameters())
        for k, t in net.state_dict().items(): assert torch.equal(t, state[k]) and t.data_ptr() != ema.net.state_dict()[k].data_ptr()
        for k, p in net.named_parameters(): assert torch.equal(p.grad, grads[k])

    def test_backward_may_come_after_the_update(self, net):
        "The update writes into the average only, so a graph that is still needed stays valid."
        loss = net(images(0)).square().mean()
        EMA(net, 0.5).update(net)
        loss.backward()
        assert net.second.weight.grad is not None

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_precision_is_kept(self, dtype):
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).to(dtype)
        ema = EMA(net, 0.5)
        ema.update(net)
        assert all(t.dtype == net.state_dict()[k].dtype for k, t in ema.net.state_dict().items())

    @pytest.mark.parametrize("decay", [-0.1, 1.001, 99.9, math.nan])
    def test_impossible_decay(self, net, decay):
        with pytest.raises(ValueError, match="decay of an average must be 0..1"): EMA(net, decay)

    def test_another_network(self, net):
        ema = EMA(net)
        state = copy_of(ema.net)
        with pytest.raises(ValueError, match="not the network that is averaged"): ema.update(nn.Sequential(net))
        assert ema.updates == 0 and all(torch.equal(t, state[k]) for k, t in ema.net.state_dict().items())

    def test_on_the_generator(self):
        G = seeded(lambda: Generator(5, base_channels=4, z_dim=4, pyramid_channels=8, init_gain=1.0))
        ema, label, rng = EMA(G, 0.9), torch.randint(0, 5, (2, 64, 64), generator=torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
        adam = torch.optim.Adam(G.parameters(), 1e-2)
        for _ in range(3):
            adam.zero_grad()
            G(label, draw_noise(2, 4, rng)).square().mean().backward()
            adam.step()
            ema.update(G)
        vectors = [t for k, t in ema.net.state_dict().items() if is_vector(k)]
        assert len(vectors) == 2 * sum(isinstance(m, SpectralConv2d) for m in G.modules()) > 0
        for t in vectors: torch.testing.assert_close(t.norm(), torch.tensor(1.0))
        assert torch.isfinite(ema.net.sample(label, seed=0)).all()


class TestRenormalise:
    def test_direction_is_kept(self, net):
        u, v = net.first.u.clone(), net.first.v.clone()
        with torch.no_grad():
            net.first.u *= 0.3
            net.first.v *= 4
        before = {k: t for k, t in copy_of(net).items() if not is_vector(k)}
        renormalise_spectral(net)
        torch.testing.assert_close(net.first.u, u)
        torch.testing.assert_close(net.first.v, v)
        assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items() if k in before)

    def test_nothing_to_do(self):
        renormalise_spectral(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))


def first_norm_statistics(net, batches):
    "What the first batch norm must hold, computed directly; its input is one convolution whose vectors the passes refine."
    net, means, variances = deepcopy(net).train(), [], []
    with torch.no_grad():
        for x in batches:
            y = net.first(x)
            means.append(y.mean((0, 2, 3)))
            variances.append(y.var((0, 2, 3)))
    return torch.stack(means).mean(0), torch.stack(variances).mean(0)


class TestReestimate:
    batches = [images(s, batch=2 + s % 3) for s in range(7)]

    def test_exact_mean_of_the_batches_statistics(self, net):
        wander(net, 0)
        mean, var = first_norm_statistics(net, self.batches)
        reestimate_batch_norm(net, [(x,) for x in self.batches])
        torch.testing.assert_close(net.norm.running_mean, mean, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(net.norm.running_var, var, rtol=1e-12, atol=1e-13)

    def test_every_norm(self, net):
        wander(net, 0)
        seen, copy = {"norm": [], "last": []}, deepcopy(net).train()
        for name in seen: getattr(copy, name).register_forward_pre_hook(lambda m, a, name=name: seen[name].append((a[0].mean((0, 2, 3)), a[0].var((0, 2, 3)))))
        with torch.no_grad():
            for x in self.batches: copy(x)
        reestimate_batch_norm(net, [(x,) for x in self.batches])
        for name, pairs in seen.items():
            mean, var = (torch.stack(t).mean(0) for t in zip(*pairs))
            torch.testing.assert_close(getattr(net, name).running_mean, mean, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(getattr(net, name).running_var, var, rtol=1e-12, atol=1e-13)

    def test_what_was_stored_before_does_not_matter(self, net):
        other = deepcopy(net)
        other.norm.running_mean.fill_(100.0)
        other.last.running_var.fill_(1e6)
        for n in (net, other): reestimate_batch_norm(n, [(x,) for x in self.batches])
        for k, t in net.state_dict().items(): assert torch.equal(t, other.state_dict()[k]), k

    def test_leaves_everything_else(self, net):
        net.norm.momentum, net.last.momentum = 0.3, None
        parameters = {k: p.detach().clone() for k, p in net.named_parameters()}
        net.train()
        result = reestimate_batch_norm(net, ((x,) for x in self.batches))
        assert result is net and not any(m.training for m in net.modules())
        assert net.norm.momentum == 0.3 and net.last.momentum is None
        assert net.norm.num_batches_tracked == len(self.batches)
        assert all(torch.equal(p, parameters[k]) and p.requires_grad and p.grad is None for k, p in net.named_parameters())

    def test_statistics_fit(self, net):
        "On the batches it saw, the network does in evaluation mode nearly what it does in training mode."
        wander(net, 0)
        x = images(99, batch=64)
        reestimate_batch_norm(net, [(x,)] * 30)  # often enough for the singular vectors to stand still
        y = net(x)
        torch.testing.assert_close(y, net.train()(x), rtol=0.01, atol=0.01)

    def test_several_arguments(self, net):
        seen = []
        net.last.register_forward_pre_hook(lambda m, a: seen.append(a[0].mean((0, 2, 3))))
        reestimate_batch_norm(net, [(x, torch.tensor(float(i))) for i, x in enumerate(self.batches)])
        torch.testing.assert_close(net.last.running_mean, torch.stack(seen).mean(0), rtol=1e-12, atol=1e-13)

    def test_inputs_are_drawn_one_by_one(self, net):
        "A lazy source of batches is never gathered in memory."
        alive = []
        net.register_forward_hook(lambda *_: alive.append(drawn[0] - len(alive)))
        drawn = [0]
        def source():
            for x in self.batches:
                drawn[0] += 1
                yield (x,)
        reestimate_batch_norm(net, source())
        assert alive == [1] * len(self.batches)

    @pytest.mark.parametrize("inputs", [[], iter(())])
    def test_no_batches(self, net, inputs):
        wander(net, 0)
        state = copy_of(net)
        with pytest.raises(ValueError, match="there is no batch"): reestimate_batch_norm(net, inputs)
        assert net.training and net.norm.momentum == 0.1
        assert all(torch.equal(t, state[k]) for k, t in net.state_dict().items())

    def test_a_failing_batch_restores_momentum_and_mode(self, net):
        with pytest.raises(RuntimeError): reestimate_batch_norm(net, [(images(0),), (torch.zeros(1, 5, 8, 8, dtype=torch.float64),)])
        assert net.norm.momentum == 0.1 and not net.training

    def test_network_without_batch_norm(self):
        net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.InstanceNorm2d(3)).double()
        assert not reestimate_batch_norm(net, [(images(0),)]).training

    def test_sync_batch_norm_in_one_process(self, net):
        sync = deepcopy(net)
        sync.norm = SyncBatchNorm2d(6).double()
        sync.norm.load_state_dict(net.norm.state_dict())
        for n in (net, sync): reestimate_batch_norm(n, [(x,) for x in self.batches])
        torch.testing.assert_close(sync.norm.running_var, net.norm.running_var)

    def test_average_is_not_touched_through_a_copy(self, net):
        ema = EMA(net)
        state = copy_of(ema.net)
        reestimate_batch_norm(deepcopy(ema.net), [(images(0),)])
        assert all(torch.equal(t, state[k]) for k, t in ema.net.state_dict().items())
