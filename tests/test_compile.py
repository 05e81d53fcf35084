"""Compiled networks: one graph a way, never made again, the same numbers, the same names, and clear refusals."""
import os
import shutil
from copy import deepcopy
from functools import partial

import pytest
import torch
from safetensors import safe_open
from torch._dynamo.utils import counters
from torch._inductor import metrics

from dpgan.config import ConfigError
from dpgan.generator import GeneratorBlock
from dpgan.inference import FastGenerator
from dpgan.training import Callback, TrainingError, build_networks, compile_networks
from browser import missing
from tiny import tiny_config, tiny_trainer


def need_compiler():
    "Skip (or fail, see `browser.missing`) where there is no C++ compiler to make machine code with."
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))): missing("there is no C++ compiler", "apt-get install -y g++")


class Record(Callback):
    "Losses of every step, and how many graphs there were after it."

    def __init__(self): self.losses, self.graphs = [], []

    def on_log(self, trainer, record): self.losses.append([v for k, v in record.items() if k.startswith("loss")])

    def after_step(self, trainer): self.graphs.append(counters["stats"]["unique_graphs"])


def close(a, b): torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-4, atol=1e-5)


def test_a_compiled_run_is_the_same_run(tmp_path, monkeypatch):
    "Six graphs and no seventh over later steps and samples; the losses of a plain run; a plain run goes on from its checkpoint."
    monkeypatch.setattr("dpgan.training.compile_networks", partial(compile_networks, backend="eager"))
    torch._dynamo.reset(); counters.clear()
    plain, fast, rest = Record(), Record(), Record()
    tiny_trainer(tmp_path, [plain], steps=4).fit()
    trainer = tiny_trainer(tmp_path, [fast], steps=3, compile="default")
    assert deepcopy(trainer.G)._compiled_call_impl is None and trainer.ema.net._compiled_call_impl is None, "copies are plain networks"
    before = counters["stats"]["unique_graphs"]
    trainer.fit()
    assert [n - before for n in fast.graphs] == [5, 5, 5] and not counters["graph_break"]
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    first, again = trainer.G.sample(label), trainer.G.sample(label, seed=1)
    assert counters["stats"]["unique_graphs"] - before == 6 and trainer.G.training and not torch.equal(first, again)
    close(fast.losses, plain.losses[:3])

    trainer.save(tmp_path / "saved")
    for name in ("generator", "discriminator", "ema"):
        with safe_open(tmp_path / "saved" / f"{name}.safetensors", "pt") as f: assert not any("_orig_mod" in key for key in f.keys())
    resumed = tiny_trainer(tmp_path, [rest], steps=4)
    resumed.load(tmp_path / "saved")
    resumed.fit()
    close(rest.losses, plain.losses[3:])

    wrong = {"label": torch.full((2, 64, 64), 15), "image": torch.zeros(2, 3, 64, 64)}
    with pytest.raises(ValueError, match="class ids must be 0..14"): trainer.train_step([wrong])


def test_machine_code_computes_the_same():
    "A generator block through inductor: values, gradients, and the vectors and statistics that a pass moves."
    need_compiler()
    torch.manual_seed(0)
    plain = GeneratorBlock(8, 4, 6)
    fast = deepcopy(plain)
    compile_networks(fast)
    x, cond = torch.randn(2, 8, 4, 4), torch.randn(2, 6, 8, 8)
    twice = [(plain(x, cond, True), fast(x, cond, True)) for _ in range(2)]  # both before a backward pass, as in a D step
    for a, b in twice: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for outputs in zip(*twice): sum(t.square().sum() for t in outputs).backward()
    for (name, p), q in zip(plain.named_parameters(), fast.parameters()): torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-3, msg=name)
    for (name, p), q in zip(plain.named_buffers(), fast.buffers()): torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=name)


def test_normalise_modulate_activate_is_one_pass_over_memory():
    need_compiler()
    def chain(x, mean, rstd, gamma, beta): return torch.nn.functional.leaky_relu((x - mean) * rstd * (1 + gamma) + beta, 0.2)
    args = [torch.randn(2, 4, 8, 8), torch.randn(4, 1, 1), torch.rand(4, 1, 1), torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)]
    metrics.reset()
    torch.testing.assert_close(torch.compile(chain, fullgraph=True)(*args), chain(*args))
    assert metrics.generated_kernel_count == 1


def test_where_nothing_can_be_compiled(monkeypatch):
    nets = build_networks(tiny_config(norm="sync_batch"))
    monkeypatch.setattr("dpgan.training.several_processes", lambda: True)
    with pytest.raises(TrainingError, match="norm to batch, or train.compile=off"): compile_networks(*nets)
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="does not work here.*compile=off"): compile_networks(*nets, backend="no_such_backend")
    with pytest.raises(ConfigError, match="exclude each other"): tiny_config(compile="default", checkpointing=True)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_drawing_gives_the_same_pictures(mode):
    "To rounding; pictures drawn before stay as they are, and a copy draws with its own weights."
    need_compiler()
    G = build_networks(tiny_config(init_gain=1.0))[0].eval()
    label = torch.randint(0, G.num_classes, (1, 8, 8), generator=torch.Generator().manual_seed(0)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    plain, fast = FastGenerator(G), FastGenerator(G, compile=mode)
    wanted, drawn = [[net.sample(label, seed=seed) for seed in (0, 1)] for net in (plain, fast)]
    for a, b in zip(wanted, drawn): assert (a - b).abs().max() < 1e-5
    assert (wanted[0] - wanted[1]).abs().max() > 1e-2
    other = deepcopy(fast)
    with torch.no_grad(): other.head.bias += 1
    assert (other.sample(label, seed=0) - drawn[0]).abs().max() > 1e-2 and torch.equal(fast.sample(label, seed=0), drawn[0])
