"""The trainer: what it updates, what it writes, how it resumes, how it fails, and how several processes agree."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import vgg19

from dpgan.checkpoint import CheckpointError, checkpoints, flatten_optimizer, restore_optimizer
from dpgan.config import ConfigError
from dpgan.ema import EMA
from dpgan.labels import sample_grid
from dpgan.layers import SpectralConv2d
from dpgan.losses import VGGLoss
from dpgan.training import (Callback, Checkpoints, MetricsLog, ProgressBar, SampleGrid, TensorBoard, TrainingError, Update, adam, average_gradients, build_networks,
                            d_step, discriminator_terms, g_step, generator_terms)
from tiny import set_arguments, tiny_config, tiny_trainer

TESTS = Path(__file__).parent


class Record(Callback):
    "Keeps every record."

    def __init__(self): self.records = []

    def on_log(self, trainer, record): self.records.append(record)


def losses(records): return [{k: v for k, v in r.items() if k.startswith("loss")} for r in records]


def weights(trainer): return {f"{n}.{k}": t.clone() for n, net in (("G", trainer.G), ("D", trainer.D), ("E", trainer.ema.net)) for k, t in net.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for k in a: assert torch.equal(a[k], b[k]), k


def batch(size=64, classes=15, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {"label": torch.randint(0, classes, (2, size, size), generator=rng), "image": torch.rand(2, 3, size, size, generator=rng) * 2 - 1}


def test_both_networks_and_the_average_change(tmp_path):
    trainer = tiny_trainer(tmp_path, steps=1)
    before = weights(trainer)
    trainer.fit()
    after = weights(trainer)
    for name in ("G.stem.weight", "G.blocks.0.norm_0.gamma.weight", "G.pyramid.stages.0.0.weight", "G.head.weight", "D.encoder.0.conv_0.weight", "D.classifier.weight",
                 "D.heads.3.0.weight", "D.heads.5.0.weight", "E.stem.weight"):
        assert not torch.equal(before[name], after[name]), name
    assert trainer.step == 1


def test_steps_touch_only_their_own_network():
    config = tiny_config()
    G, D = build_networks(config)
    noise = lambda label: torch.randn(len(label), 4, generator=torch.Generator().manual_seed(1))
    frozen_before = {k: p.clone() for k, p in D.named_parameters()}
    g_step(G, D, Update(G, 1e-3), [batch()], noise, config)
    for k, p in D.named_parameters(): assert torch.equal(frozen_before[k], p) and p.grad is None and p.requires_grad
    before = {k: p.clone() for k, p in G.named_parameters()}
    G.zero_grad(set_to_none=True)
    discriminator_terms(G, D, batch(), noise(batch()["label"]), None, config)["total"].backward()
    assert all(p.grad is None and torch.equal(before[k], p) for k, p in G.named_parameters())


def test_released_objective_leaves_the_heads_alone():
    for patch_grad in (True, False):
        config = tiny_config(patch_grad=patch_grad)
        G, D = build_networks(config)
        discriminator_terms(G, D, batch(), torch.zeros(2, 4), None, config)["total"].backward()
        heads = [p.grad is not None for k, p in D.named_parameters() if k.startswith("heads")]
        assert len(heads) == 32 and all(heads) == patch_grad and any(heads) == patch_grad


def test_total_is_the_weighted_sum():
    config = tiny_config(lambda_labelmix=3.0, lambda_patch=0.5, lambda_align=2.0)
    G, D = build_networks(config)
    mask = torch.rand(2, 1, 64, 64) < 0.5
    t = {k: v.item() for k, v in discriminator_terms(G, D, batch(), torch.zeros(2, 4), mask, config).items()}
    assert t["total"] == pytest.approx(t["real"] + t["fake"] + 0.5 * (t["patch_real"] + t["patch_fake"]) + 3 * t["labelmix"], rel=1e-5)
    t = {k: v.item() for k, v in generator_terms(G, D, batch(), torch.zeros(2, 4), config).items()}
    assert t["total"] == pytest.approx(t["adv"] + 0.5 * t["patch"] + 2 * t["align"], rel=1e-5)


def test_perceptual_loss_joins_the_objective(tmp_path):
    vgg = VGGLoss(vgg19(weights=None).features)
    with pytest.raises(TrainingError, match="lambda_vgg"): tiny_trainer(tmp_path, lambda_vgg=10.0)
    config = tiny_config(lambda_vgg=10.0)
    G, D = build_networks(config)
    t = generator_terms(G, D, batch(), torch.zeros(2, 4), config, vgg)
    assert t["total"].item() == pytest.approx((t["adv"] + t["patch"] + t["align"] + 10 * t["vgg"]).item(), rel=1e-5)


def test_accumulation_averages_gradients():
    "Without batch norm in the way, two half batches give the gradient of the mean of their objectives."
    net = nn.Conv2d(3, 2, 3)
    halves = [torch.randn(1, 3, 8, 8) for _ in range(2)]
    objective = lambda x: {"total": net(x).square().mean()}
    sum(objective(x)["total"] / 2 for x in halves).backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    means = Update(net, 1e-9)([lambda x=x: objective(x) for x in halves])
    for p, g in zip(net.parameters(), wanted): assert torch.allclose(p.grad, g, atol=1e-7)
    assert means["total"].item() == pytest.approx(sum(objective(x)["total"].item() for x in halves) / 2, rel=1e-4)


@pytest.mark.parametrize("changes", [{"grad_accum": 2}, {"precision": "bf16"}, {"generator.noise": False}, {"generator.norm": "sync_batch"}, {"generator.spectral_norm": False},
                                     {"lambda_labelmix": 0.0}, {"class_balance": False}, {"ema_warmup": True}, {"checkpointing": True}, {"discriminator.spectral_norm": False}, {"share_real": True, "grad_accum": 2}, {"batch_d": True, "precision": "bf16"},
                                     {"reuse_fake": True, "lambda_labelmix": 0.0}, {"share_real": True, "batch_d": True, "reuse_fake": True, "checkpointing": True, "precision": "bf16"}], ids=str)
def test_options_train(tmp_path, changes):
    record = Record()
    tiny_trainer(tmp_path, [record], **{"steps": 2, **changes}).fit()
    assert len(record.records) == 2 and all(v == v for r in losses(record.records) for v in r.values())
    assert ("loss_d/labelmix" in record.records[0]) == (changes.get("lambda_labelmix") != 0.0)


SHARING = [("share_real",), ("batch_d",), ("reuse_fake",), ("share_real", "batch_d", "reuse_fake")]


def iteration(config, batches, lr=1e-15):
    "Both steps in double precision, with the same noise and mask in both and with singular vectors that stand still: terms and gradients."
    G, D = (net.double().train() for net in build_networks(config))
    for m in (*G.modules(), *D.modules()):
        if isinstance(m, SpectralConv2d): m.eval()
    G.checkpointing = D.checkpointing = config.train.checkpointing
    batches = [{"label": b["label"], "image": b["image"].double()} for b in batches]
    z = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask, kept = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(2)) < 0.5, [{} for _ in batches]
    terms = [*g_step(G, D, Update(G, lr), batches, lambda label: z, config, kept=kept).values(), *d_step(G, D, Update(D, lr), batches, lambda label: z, lambda label: mask, config, kept).values()]
    return torch.stack(terms), torch.cat([p.grad.flatten() for net in (G, D) for p in net.parameters()])


@pytest.mark.parametrize("options", SHARING, ids="+".join)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_shared_passes_change_nothing_but_the_iterations_of_spectral_norm(options, checkpointing):
    "With singular vectors that stand still and a G step of no length, terms and gradients are those of the described step."
    two = [batch(seed=0), batch(seed=1)]
    terms, gradients = iteration(tiny_config(), two)
    others, changed = iteration(tiny_config(**dict.fromkeys(options, True), checkpointing=checkpointing), two)
    assert torch.allclose(terms, others, rtol=1e-9) and (gradients - changed).norm() < 1e-8 * gradients.norm()


@pytest.mark.parametrize("options, moves", list(zip([(), *SHARING], [(5, 2, 5, 2), (4, 2, 4, 2), (3, 2, 5, 2), (5, 1, 5, 1), (3, 1, 4, 1)])), ids=str)
def test_what_shared_passes_do_change(options, moves):
    "Refinements of D's and of G's singular vectors, updates of the statistics of a patch head and of the pyramid, in an iteration."
    config, seen = tiny_config(**dict.fromkeys(options, True)), {"D": 0, "G": 0}
    G, D = build_networks(config)
    for name, layer in (("D", D.encoder[1].conv_0), ("G", G.blocks[1].conv_0)): layer.register_forward_hook(lambda *a, name=name: seen.update({name: seen[name] + 1}))
    kept, z = [{}], torch.zeros(2, 4)
    g_step(G, D, Update(G, 1e-4), [batch()], lambda label: z, config, kept=kept)
    d_step(G, D, Update(D, 1e-4), [batch()], lambda label: z, lambda label: torch.ones(2, 1, 64, 64) > 0, config, kept)
    assert (*seen.values(), int(D.heads["3"][3].num_batches_tracked), int(G.pyramid.stages[0][1].num_batches_tracked)) == moves


def test_a_shared_answer_holds_no_gradient_of_the_generator_step():
    "The G step leaves the kept graph whole and D without gradients; after the D step the weights have them."
    config = tiny_config(share_real=True)
    (G, D), kept = build_networks(config), [{}]
    g_step(G, D, Update(G, 1e-3), [batch()], lambda label: torch.zeros(2, 4), config, kept=kept)
    assert kept[0]["real"].class_logits.requires_grad and all(p.grad is None and p.requires_grad for p in D.parameters())
    d_step(G, D, Update(D, 1e-3), [batch()], lambda label: torch.zeros(2, 4), lambda label: None, config, kept)
    assert all(p.grad is not None for p in D.parameters()) and "fake" not in kept[0]


def test_runs_repeat_themselves(tmp_path):
    first, second = Record(), Record()
    tiny_trainer(tmp_path / "a", [first]).fit()
    torch.rand(3)  # the global random state must not matter
    tiny_trainer(tmp_path / "b", [second]).fit()
    assert losses(first.records) == losses(second.records)


def test_checkpointing_trains_to_the_same_numbers(tmp_path):
    keeping, again = Record(), Record()
    first, second = tiny_trainer(tmp_path / "a", [keeping]), tiny_trainer(tmp_path / "b", [again], checkpointing=True)
    assert second.G.checkpointing and second.D.checkpointing and not first.G.checkpointing
    first.fit(), second.fit()
    assert losses(keeping.records) == losses(again.records)
    assert_same(weights(first), weights(second))


def test_a_step_does_not_wait_for_the_device():
    "On the meta device there are no numbers, so whatever asks for one (`item`, a condition, a boolean index) fails."
    config = tiny_config()
    with torch.device("meta"): (G, D), b = build_networks(config), {"image": torch.empty(2, 3, 64, 64), "label": torch.empty(2, 64, 64, dtype=torch.long)}
    noise, mask = torch.empty(2, 4, device="meta"), torch.empty(2, 1, 64, 64, dtype=torch.bool, device="meta")
    ema = EMA(G)
    generator_terms(G, D, b, noise, config)["total"].backward()
    discriminator_terms(G, D, b, noise, mask, config)["total"].backward()
    ema.update(G)
    with pytest.raises(RuntimeError): b["image"].mean().item()


def test_fused_adam_is_adam_and_takes_a_plain_ones_state():
    "The same steps to rounding; and a run that was saved by one goes on with the other."
    starts, results = torch.randn(5, 7), []
    for first, then in ((True, True), (False, False), (False, True), (True, False)):
        net = nn.Linear(7, 5, bias=False)
        with torch.no_grad(): net.weight.copy_(starts)
        saved = None
        for fused in (first, then):
            optimizer = adam(list(net.parameters()), 0.01, fused=fused)
            if saved: restore_optimizer(optimizer, net, saved)
            for _ in range(3):
                net.weight.grad = (3 * net.weight.detach()).cos()
                optimizer.step()
            saved = {k: t.clone() for k, t in flatten_optimizer(optimizer, net).items()}
        assert saved.keys() == {"step.weight", "exp_avg.weight", "exp_avg_sq.weight"} and saved["step.weight"] == 6
        results.append(net.weight.detach().clone())
    for other in results[1:]: torch.testing.assert_close(results[0], other)


@pytest.mark.parametrize("channels_last", [False, True])
def test_resuming_continues_exactly(tmp_path, channels_last):
    "In either memory layout: fused Adam walks through memory, so its moments must lie as the weights do."
    straight, way = Record(), dict(grad_accum=2, channels_last=channels_last)
    whole = tiny_trainer(tmp_path / "whole", [straight], steps=6, **way)
    whole.fit()
    tiny_trainer(tmp_path / "half", [Checkpoints()], steps=3, **way).fit()
    rest = Record()
    resumed = tiny_trainer(tmp_path / "half", [rest], steps=6, **way)
    resumed.load(checkpoints(tmp_path / "half" / "checkpoints")[-1])
    assert resumed.step == 3
    resumed.fit()
    assert losses(rest.records) == losses(straight.records[3:])
    assert_same(weights(resumed), weights(whole))
    for mine, theirs in ((resumed.update_g, whole.update_g), (resumed.update_d, whole.update_d)):
        for p, q in zip(mine.params, theirs.params):
            for k, t in mine.optimizer.state[p].items(): assert torch.equal(t, theirs.optimizer.state[q][k])


def test_a_run_without_a_scaler_goes_on_with_one(tmp_path):
    tiny_trainer(tmp_path, [Checkpoints()], steps=1).fit()
    resumed = tiny_trainer(tmp_path, steps=2, precision="fp16") if torch.cuda.is_available() else tiny_trainer(tmp_path, steps=2)
    for update in (resumed.update_g, resumed.update_d): update.scaler = torch.amp.GradScaler("cpu", enabled=True)
    resumed.load(checkpoints(tmp_path / "checkpoints")[-1])
    assert resumed.step == 1


def test_what_failed_is_not_saved(tmp_path):
    "A stop that is asked for in the step that fails leaves no checkpoint; the error is the one that was raised, and no bar that never began hides it."
    class Fails(Callback):
        def on_log(self, trainer, record): raise OSError("disk full")
    trainer = tiny_trainer(tmp_path / "new", [MetricsLog(), Fails(), Checkpoints()], steps=2, log_every=1)
    trainer.stop_requested = True
    with pytest.raises(OSError, match="disk full"): trainer.fit()
    assert not checkpoints(tmp_path / "new" / "checkpoints")
    class Early(Callback):
        def on_start(self, trainer): raise OSError("no folder")
    with pytest.raises(OSError, match="no folder"): tiny_trainer(tmp_path / "early", [Early(), ProgressBar(), TensorBoard()], steps=1).fit()


def test_sampling_and_saving_do_not_disturb_training(tmp_path):
    quiet, busy = Record(), Record()
    tiny_trainer(tmp_path / "a", [quiet]).fit()
    label, image = batch()["label"], batch()["image"]
    draw = lambda label, image, samples: sample_grid(label, image, samples, [(i, i, i) for i in range(15)])
    tiny_trainer(tmp_path / "b", [busy, SampleGrid(label, image, draw), Checkpoints()], sample_every=1, checkpoint_every=1).fit()
    assert losses(quiet.records) == losses(busy.records)


def test_callbacks_write_their_files(tmp_path):
    pytest.importorskip("tensorboard")
    label, image = batch()["label"], batch()["image"]
    draw = lambda label, image, samples: sample_grid(label, image, samples, [(i, i, i) for i in range(15)])
    tiny_trainer(tmp_path, [ProgressBar(), MetricsLog(), TensorBoard(), SampleGrid(label, image, draw), Checkpoints()], steps=5).fit()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5]
    assert {"epoch", "images_per_second", "seconds_per_step", "loss_g/adv", "loss_g/patch", "loss_g/align", "loss_d/real", "loss_d/fake", "loss_d/labelmix"} <= records[0].keys()
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [f"step_00000{k}.png" for k in (0, 2, 4, 5)]
    assert Image.open(tmp_path / "samples" / "step_000005.png").size == (4 * 64 + 3 * 2, 2 * 64 + 2)
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == [f"step_0000000{k}" for k in (2, 4, 5)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_only_the_newest_checkpoints_stay(tmp_path):
    tiny_trainer(tmp_path, [Checkpoints()], checkpoint_every=1, keep_checkpoints=2).fit()
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["step_00000003", "step_00000004"]


def test_metrics_of_a_continued_run_have_no_line_twice(tmp_path):
    tiny_trainer(tmp_path, [MetricsLog(), Checkpoints()], steps=3).fit()
    with (tmp_path / "metrics.jsonl").open("a") as f: f.write('{"step": 9}\n{"step": 1')  # beyond the checkpoint, and a torn line
    trainer = tiny_trainer(tmp_path, [MetricsLog()], steps=5)
    trainer.load(checkpoints(tmp_path / "checkpoints")[-1])
    trainer.fit()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    trainer = tiny_trainer(tmp_path, [Checkpoints()], checkpoint_every=1)
    with torch.no_grad(): trainer.D.classifier.weight[0] = float("nan")
    with pytest.raises(TrainingError, match="not finite at step 1.*lr"): trainer.fit()
    assert not checkpoints(tmp_path / "checkpoints"), "a broken state must not be saved"


def test_checkpoints_of_other_networks_are_refused(tmp_path):
    tiny_trainer(tmp_path, [Checkpoints()], steps=1).fit()
    other = tiny_trainer(tmp_path, **{"generator.base_channels": 8})
    with pytest.raises(CheckpointError, match="shape"): other.load(checkpoints(tmp_path / "checkpoints")[-1])


def test_sampler_has_fresh_statistics_and_leaves_the_average_alone(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.fit()
    before = weights(trainer)
    net = trainer.sampler()
    assert not net.training and net is trainer.sampler()
    assert_same(weights(trainer), before)
    assert not torch.equal(net.pyramid.stages[0][1].running_mean, trainer.ema.net.pyramid.stages[0][1].running_mean)
    assert torch.equal(net.stem.weight, trainer.ema.net.stem.weight)


def test_the_sampler_reads_as_many_batches_as_it_is_told(tmp_path):
    "However many batches a training step adds up."
    nets = [tiny_trainer(tmp_path, grad_accum=n).sampler() for n in (1, 3)]
    assert_same(*(net.state_dict() for net in nets))
    assert all(net.pyramid.stages[0][1].num_batches_tracked == 2 for net in nets)


def test_sync_batch_norm_needs_more_than_one_value_over_all_processes(tmp_path):
    with pytest.raises(ConfigError, match="batch 1 at 64 x 64"): tiny_trainer(tmp_path, **{"discriminator.norm": "sync_batch", "batch_size": 1})
    tiny_trainer(tmp_path, **{"discriminator.norm": "sync_batch", "batch_size": 2, "steps": 1}).fit()


def run_line(*args, **kw):
    "Start the command line in a process of its own."
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **kw.pop("env", {})}
    return subprocess.Popen([sys.executable, "-m", "dpgan.cli", *map(str, args)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)


def metrics(out): return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def wait_for(condition, process, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.time() < end, "waited too long"
        time.sleep(0.02)


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path):
    "SIGKILL in the middle, then --resume: the same losses as a run that nobody killed."
    args = ["train", "--preset", "scenes", *set_arguments(**{"train.steps": 8, "train.checkpoint_every": 1, "train.sample_every": 100})]
    straight = run_line(*args, "--out", tmp_path / "straight")
    assert straight.wait(300) == 0, straight.communicate()
    killed = run_line(*args, "--out", tmp_path / "killed")
    wait_for(lambda: len(checkpoints(tmp_path / "killed" / "checkpoints")) >= 2, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    assert len(metrics(tmp_path / "killed")) < 8
    resumed = run_line("train", "--out", tmp_path / "killed", "--resume")
    assert resumed.wait(300) == 0, resumed.communicate()
    assert losses(metrics(tmp_path / "killed")) == losses(metrics(tmp_path / "straight"))
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*partial")), "half-written folders stay behind"


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    process = run_line("train", "--preset", "scenes", "--out", tmp_path, *set_arguments(**{"train.steps": 10_000, "train.checkpoint_every": 10_000, "train.sample_every": 10_000}))
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and metrics(tmp_path), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "--resume" in err
    assert checkpoints(tmp_path / "checkpoints"), err


def test_sigterm_to_every_process_saves(tmp_path):
    "What a scheduler or `timeout` sends reaches the reading process too, which must not die of it before the run is saved."
    settings = set_arguments(**{"train.steps": 10_000, "train.checkpoint_every": 10_000, "train.sample_every": 10_000, "data.workers": 1})
    process = run_line("train", "--preset", "scenes", "--out", tmp_path, *settings, start_new_session=True)
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and metrics(tmp_path), process)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "--resume" in err, err
    assert checkpoints(tmp_path / "checkpoints"), err


AT_ONCE = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"  # gloo's threads may still be ending, and torch sometimes aborts when the interpreter goes down around them


def launch_two(script, *args):
    "Run a script in two real processes that talk over loopback; returns what rank 0 printed as JSON."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    ranks = []
    for rank in range(2):
        env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
               "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
        ranks.append(subprocess.Popen([sys.executable, "-c", script + AT_ONCE, *map(str, args)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    results = [p.communicate(timeout=300) for p in ranks]
    assert all(p.returncode == 0 for p in ranks), results
    return json.loads(results[0][0].splitlines()[-1])


TWO_PROCESS_RUN = """
import json, sys
import torch
from dpgan.training import Checkpoints, MetricsLog
from tiny import tiny_trainer
trainer = tiny_trainer(sys.argv[1], [MetricsLog(), Checkpoints()], **json.loads(sys.argv[2]))
if len(sys.argv) > 3: trainer.load(sys.argv[3])
trainer.fit()
total = torch.stack([p.detach().double().sum() for net in (trainer.G, trainer.D) for p in net.parameters()]).sum()
both = [torch.zeros_like(total) for _ in range(2)]
torch.distributed.all_gather(both, total)
print(json.dumps({"sums": [t.item() for t in both], "images": trainer.images_per_step, "step": trainer.step}))
torch.distributed.destroy_process_group()
"""


def test_two_processes_keep_equal_weights_and_resume(tmp_path):
    seen = launch_two(TWO_PROCESS_RUN, tmp_path, json.dumps({"steps": 2}))
    assert seen["sums"][0] == seen["sums"][1] and seen["images"] == 4
    again = launch_two(TWO_PROCESS_RUN, tmp_path, json.dumps({"steps": 3}), checkpoints(tmp_path / "checkpoints")[-1])
    assert again["step"] == 3 and again["sums"][0] == again["sums"][1]
    with pytest.raises(CheckpointError, match="2 processes"): tiny_trainer(tmp_path).load(checkpoints(tmp_path / "checkpoints")[-1])


SAME_AS_ONE = """
import json, sys
import torch
import torch.distributed as dist
from dpgan.losses import labelmix_mask
from dpgan.training import Update, build_networks, d_step, g_step, this_process
from tiny import tiny_config
balanced, processes = json.loads(sys.argv[1]), this_process()
rank, world = processes.process_index, processes.num_processes
config = tiny_config(norm="sync_batch", global_balance=balanced, batch_size=4 // world, init_gain=1.0, **dict.fromkeys(sys.argv[2:], True))
torch.set_default_dtype(torch.float64)
G, D = (net.double().train() for net in build_networks(config))
updates = [Update(net, 1e-3) for net in (G, D)]
rng, losses = torch.Generator().manual_seed(1), []
part = lambda t: t.chunk(world)[rank]
for step in range(3):
    label = torch.randint(0, 15, (4, 8, 8), generator=rng).repeat_interleave(8, 1).repeat_interleave(8, 2)
    label[:2] = label[:2] % 5  # the two halves do not hold the same classes
    image = torch.rand(4, 3, 64, 64, generator=rng) * 2 - 1
    zs, mask = [torch.randn(4, G.z_dim, generator=rng) for _ in range(2)], labelmix_mask(label, 15, rng)
    batch, kept = {"image": part(image), "label": part(label)}, [{}]
    terms = [*g_step(G, D, updates[0], [batch], lambda l: part(zs[0]), config, kept=kept).values(),
             *d_step(G, D, updates[1], [batch], lambda l: part(zs[1]), lambda l: part(mask), config, kept).values()]
    values = torch.stack([t.double() for t in terms])
    if world > 1: dist.all_reduce(values)
    losses.append((values / world).tolist())
print(json.dumps(losses))
if world > 1: dist.destroy_process_group()
"""


def one_process(script, *args):
    "What a script prints as JSON when it runs alone."
    env = {**{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", script, *map(str, args)], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.tensor(json.loads(done.stdout.splitlines()[-1]), dtype=torch.float64)


def test_two_processes_train_as_one_with_twice_the_batch():
    "Class weights, batch norm statistics and gradients over the global batch: three iterations, every loss term."
    one, two = one_process(SAME_AS_ONE, "true"), torch.tensor(launch_two(SAME_AS_ONE, "true"), dtype=torch.float64)
    assert torch.allclose(one, two, rtol=1e-8, atol=1e-10), (one - two).abs().max()
    apart = torch.tensor(launch_two(SAME_AS_ONE, "false"), dtype=torch.float64)
    assert (one - apart).abs().max() > 1e-2, "with class weights of each process alone it is another training"


def test_two_processes_train_as_one_with_shared_passes():
    one, two = one_process(SAME_AS_ONE, "true", *SHARING[3]), torch.tensor(launch_two(SAME_AS_ONE, "true", *SHARING[3]), dtype=torch.float64)
    assert torch.allclose(one, two, rtol=1e-8, atol=1e-10), (one - two).abs().max()


GRADIENTS = """
import json
import torch
from dpgan.training import average_gradients, this_process
rank = this_process().process_index
params = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(5)), torch.nn.Parameter(torch.zeros(1))]
for i, p in enumerate(params[:2]): p.grad = torch.full_like(p, float(10 * i + rank))
average_gradients(params)
print(json.dumps([params[0].grad.flatten().tolist(), params[1].grad.tolist(), params[2].grad]))
torch.distributed.destroy_process_group()
"""


def test_gradients_are_averaged():
    assert launch_two(GRADIENTS) == [[0.5] * 6, [10.5] * 5, None]


def test_averaging_alone_changes_nothing():
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.ones(2)
    average_gradients([p])
    assert p.grad.tolist() == [1, 1]
