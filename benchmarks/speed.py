"""The training step, each exact saving added in turn: seconds, ratio, arithmetic, share of the machine's matrix rate.

    python benchmarks/speed.py [--shape cityscapes --shape ade20k | --shape small] [--batch 1] [--repeats 3] [--device cpu|cuda] [--out benchmarks/results/speed.json]

The first row performs the operations that the released code performs, its wasted backward passes included; every other row adds one saving to the row before. All rows
take turns on the same networks, in one process, and a row's seconds are the median over its turns, so that a machine that slows down slows all of them. Weights and
data are random: the time does not depend on them. On a GPU float32 runs with TF32 in every row, and a step is timed until the device has finished.
"""
import argparse
import json
import statistics
import time
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from environment import RESULTS, environment
from torch.utils.flop_counter import FlopCounterMode

from dpgan.config import preset
from dpgan.ema import EMA
from dpgan.generator import draw_noise
from dpgan.losses import class_loss, class_weights, labelmix_mask, patch_loss_generator
from dpgan.training import Update, adam, build_networks, d_step, discriminator_terms, frozen, full_precision, g_step, generator_terms, step_by_step

SHAPES = {"cityscapes": {}, "ade20k": {}, "small": {"data.num_classes": 15, "data.dont_care": True, "generator.base_channels": 16, "discriminator.base_channels": 16}}
ROWS = ["plain", "D frozen, no gradient through D(real)", "foreach EMA", "fused Adam", "D: resampling inside convolutions", "G: norms once, fewer passes, shortcut shift", "G: stretched half at low resolution",
        "bf16"]


def shape_config(shape): return preset("scenes" if shape == "small" else shape, **SHAPES[shape])


def random_batch(config, batch, device):
    "Label maps of blocks of 16 x 16 pixels, and noise for images."
    d, rng = config.data, torch.Generator().manual_seed(0)
    coarse = torch.randint(0, d.num_classes, (batch, d.height // 16, d.width // 16), generator=rng)
    return {"label": coarse.repeat_interleave(16, 1).repeat_interleave(16, 2).to(device), "image": (torch.rand(batch, 3, d.height, d.width, generator=rng) * 2 - 1).to(device)}


def set_ways(G, D, row):
    "Switch the networks to the ways of a row."
    step_by_step(G, D)
    if row >= 4:
        for block in (*D.encoder, *D.decoder): block.fold = None
    for block in G.blocks: block.fast = row >= 5
    G.fast = row >= 6


def wasteful_terms(G, D, batch, z, config):
    "The generator's objective as the released code forms it: D takes gradients, and the features of the real images are part of the graph."
    label, image = batch["label"], batch["image"]
    on_fake, on_real = full_precision(D(G(label, z))), full_precision(D(image))
    align = sum(F.mse_loss(a, b) for a, b in zip(on_fake.decoder_features, on_real.decoder_features))
    adv = class_loss(on_fake.class_logits, label, class_weights(label, config.data.num_classes, config.data.dont_care, image.dtype))
    return {"total": adv + patch_loss_generator(on_fake.patch_logits) + align}


def tensor_by_tensor(average, net, decay):
    "The moving average, a tensor at a time."
    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), net.state_dict().values()): mine.copy_(mine * decay + theirs * (1 - decay))


class Bench:
    "Networks, optimisers and data of one shape, and one iteration in the way of any row."

    def __init__(self, shape, batch, device):
        self.config = shape_config(shape)
        self.G, self.D = (net.to(device).train() for net in build_networks(self.config))
        self.batch, self.ema = random_batch(self.config, batch, device), EMA(self.G)
        self.updates = {}
        for fused, precision in ((False, "off"), (True, "off"), (True, "bf16")):  # one optimiser for each kind; bf16 shares the fused one's
            for name, net in (("G", self.G), ("D", self.D)):
                update = self.updates[fused, precision, name] = Update(net, 1e-4, precision=precision)
                update.optimizer = self.updates[True, "off", name].optimizer if precision == "bf16" else adam(update.params, 1e-4, fused=fused)
        self.rng = torch.Generator(device).manual_seed(0)
        self.noise = lambda label: draw_noise(len(label), self.G.z_dim, self.rng, device)
        self.masks = lambda label: labelmix_mask(label, self.config.data.num_classes, self.rng)

    def iteration(self, row):
        "One G step, one D step, one average."
        G, D, config = self.G, self.D, self.config
        set_ways(G, D, row)
        update_g, update_d = (self.updates[row >= 3, "bf16" if row >= 7 else "off", name] for name in "GD")
        if row >= 1: g_step(G, D, update_g, [self.batch], self.noise, config)
        else: update_g([partial(wasteful_terms, G, D, self.batch, self.noise(self.batch["label"]), config)])
        d_step(G, D, update_d, [self.batch], self.noise, self.masks, config)
        self.ema.update(G) if row >= 2 else tensor_by_tensor(self.ema.net, G, 0.999)


def seconds(run, device):
    "Of one call, until the device has finished."
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def matrix_rate(dtype, device):
    "Operations a second in a product of two square matrices, the best of a few."
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n ** 3 / min(seconds(lambda: a @ b, device) for _ in range(6))


def tera(shape, batch, row):
    "Operations of an iteration, counted without computing it, in millions of millions."
    config = shape_config(shape)
    with torch.device("meta"): G, D = build_networks(config)
    set_ways(G, D, row)
    b, z = random_batch(config, batch, "meta"), torch.empty(batch, G.z_dim, device="meta")
    mask = torch.empty(batch, 1, config.data.height, config.data.width, dtype=torch.bool, device="meta")
    with FlopCounterMode(display=False) as counter:
        with frozen(D) if row else nullcontext(): (generator_terms if row else wasteful_terms)(G, D, b, z, config)["total"].backward()
        discriminator_terms(G, D, b, z, mask, config)["total"].backward()
    return counter.get_total_flops() / 1e12


def measure(shape, batch, repeats, device, rates):
    "All rows of a shape, in turns."
    bench, times = Bench(shape, batch, device), {row: [] for row in range(len(ROWS))}
    for row in times if device == "cuda" or shape == "small" else [0]: bench.iteration(row)  # memory, algorithms and caches are found here
    for turn in range(repeats):
        for row in times:
            times[row].append(seconds(lambda: bench.iteration(row), device))
            print(f"{shape}: turn {turn + 1} of {repeats}, {ROWS[row]}: {times[row][-1]:.3f} s", flush=True)
    results, plain = [], statistics.median(times[0])
    for row, runs in times.items():
        s, work, rate = statistics.median(runs), tera(shape, batch, row), rates["bf16" if row >= 7 else "float32"]
        results.append({"row": ROWS[row], "seconds": round(s, 4), "fastest": round(min(runs), 4), "slowest": round(max(runs), 4), "times_faster": round(plain / s, 3), "images_per_second": round(batch / s, 3),
                        "tera_operations": round(work, 4), "giga_operations_per_second": round(1000 * work / s, 1), "share_of_matrix_rate": round(1e12 * work / s / rate, 3)})
    return {"shape": shape, "size": [bench.config.data.height, bench.config.data.width], "batch": batch, "turns": repeats, "rows": results,
            "peak_gib": round(torch.cuda.max_memory_allocated() / 2 ** 30, 2) if device == "cuda" else None}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", default=RESULTS / "speed.json")
    args = parser.parse_args()
    if args.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.set_flush_denormal(True)
    rates = {"float32": matrix_rate(torch.float32, args.device), "bf16": matrix_rate(torch.bfloat16, args.device)}
    result = {"environment": environment(), "device": args.device, "threads": torch.get_num_threads(), "matrix_rate_giga": {k: round(v / 1e9, 1) for k, v in rates.items()}, "training_step": []}
    for shape in args.shape or ["cityscapes", "ade20k"]:
        result["training_step"].append(measure(shape, args.batch if shape != "small" else max(2, args.batch), args.repeats, args.device, rates))
        with open(args.out, "w") as f: f.write(json.dumps(result, indent=2) + "\n")
        print(f"\n{shape}, {args.device}, batch {result['training_step'][-1]['batch']}\n{'':46}{'s':>9} {'times':>7} {'T op':>8} {'G op/s':>9} {'share':>6}")
        for r in result["training_step"][-1]["rows"]:
            print(f"{r['row']:46}{r['seconds']:9.3f} {r['times_faster']:7.2f} {r['tera_operations']:8.3f} {r['giga_operations_per_second']:9.0f} {r['share_of_matrix_rate']:6.2f}")
