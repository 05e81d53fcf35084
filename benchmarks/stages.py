"""Where the time of a training step goes: operations, seconds and achieved rate of each stage, plain, exact and in bf16.

    python benchmarks/stages.py [--shape cityscapes --shape ade20k | --shape small] [--batch 1] [--repeats 3] [--device cpu|cuda] [--out benchmarks/results/stages.json]

The stages of an iteration are run one after the other, in the order of `dpgan.training`, and each is timed until the device has finished; the ways take turns. Operations are
counted without computing (twice the multiply-adds). Besides, the arithmetic of a forward pass by part of each network.
"""
import argparse
import json
import statistics
from collections import defaultdict

import torch
from environment import RESULTS, environment
from speed import SHAPES, matrix_rate, random_batch, seconds, shape_config
from torch.utils.flop_counter import FlopCounterMode

from dpgan.ema import EMA
from dpgan.generator import draw_noise
from dpgan.losses import alignment_loss, class_loss, fake_loss, labelmix_loss, labelmix_mask, mix, patch_loss_fake, patch_loss_generator, patch_loss_real
from dpgan.training import Update, build_networks, frozen, full_precision, real_weights, step_by_step

WAYS = ["plain", "exact", "bf16"]  # step by step; every exact saving; the same in bf16


def networks(config, way, device):
    "Both networks in one of the ways."
    with torch.device(device): G, D = (net.train() for net in build_networks(config))
    if way == "plain": step_by_step(G, D)
    return G, D


def stages(G, D, config, batch, z, masks, updates, average):
    "Name and action of every stage of an iteration, in order; what one stage makes the next ones find in `held`."
    label, image, held = batch["label"], batch["image"], {}
    cast = updates["G"].autocast
    weights = lambda: real_weights(label, config, image.dtype)

    def run(name, net, *inputs):
        with cast(): held[name] = net(*inputs)

    def without_gradient(name, net, *inputs):
        with torch.no_grad(): run(name, net, *inputs)

    def g_loss():
        fake, real = full_precision(held["of fake"]), full_precision(held["of real"])
        held["loss"] = class_loss(fake.class_logits, label, weights()) + patch_loss_generator(fake.patch_logits) + alignment_loss(fake.decoder_features, real.decoder_features)

    def d_loss():
        real, fake, mixed = (full_precision(held[f"of {kind}"]) for kind in ("real", "fake", "mixed"))
        held["loss"] = (class_loss(real.class_logits, label, weights()) + fake_loss(fake.class_logits) + patch_loss_real(real.patch_logits) + patch_loss_fake(fake.patch_logits)
                        + config.loss.lambda_labelmix * labelmix_loss(mixed.class_logits, real.class_logits, fake.class_logits, masks))

    def step(name):
        updates[name].optimizer.step()
        updates[name].optimizer.zero_grad(set_to_none=True)

    return [("G step: draw", lambda: run("fake", G, label, z)),
            ("G step: D(fake)", lambda: run("of fake", D, held["fake"])),
            ("G step: D(real)", lambda: without_gradient("of real", D, image)),
            ("G step: losses", g_loss),
            ("G step: backward", lambda: held["loss"].backward()),
            ("G step: Adam", lambda: step("G")),
            ("D step: draw", lambda: without_gradient("fake", G, label, z)),
            ("D step: D(fake)", lambda: run("of fake", D, held["fake"])),
            ("D step: D(real)", lambda: run("of real", D, image)),
            ("D step: D(mixed)", lambda: run("of mixed", D, mix(image, held["fake"].to(image), masks))),
            ("D step: losses", d_loss),
            ("D step: backward", lambda: held["loss"].backward()),
            ("D step: Adam", lambda: step("D")),
            ("moving average", average)]


def each(actions, D, around):
    "Run all stages in order, each inside `around(name, action)`; D's weights are frozen in the G step."
    of_g = [a for a in actions if a[0].startswith("G step")]
    with frozen(D):
        for name, action in of_g: around(name, action)
    for name, action in actions[len(of_g):]: around(name, action)


def operations(config, batch, way):
    "Operations of every stage, and of a forward pass by part of each network, counted on tensors without numbers."
    G, D = networks(config, way, "meta")
    inputs, z = random_batch(config, batch, "meta"), torch.empty(batch, G.z_dim, device="meta")
    masks = torch.empty(batch, 1, config.data.height, config.data.width, dtype=torch.bool, device="meta")
    updates, counts = {"G": Update(G, 1e-4), "D": Update(D, 1e-4)}, {}

    def count(name, action):
        with FlopCounterMode(display=False) as counter:
            if "Adam" not in name: action()  # no matrix products there, and no fused Adam without numbers
        counts[name] = counter.get_total_flops()
    each(stages(G, D, config, inputs, z, masks, updates, lambda: None), D, count)
    return counts


def parts(config, way):
    "Operations of one image's forward pass, by part."
    G, D = networks(config, way, "meta")
    inputs, z, found = random_batch(config, 2, "meta"), torch.empty(2, G.z_dim, device="meta"), {}
    for net, args in ((G, (inputs["label"], z)), (D, (inputs["image"],))):
        with FlopCounterMode(display=False) as counter, torch.no_grad(): net(*args)
        for name, ops in counter.get_flop_counts().items():
            pieces = name.split(".")
            if pieces[0] == type(net).__name__ and 2 <= len(pieces) <= 3 and sum(ops.values()): found[name] = sum(ops.values()) / 2
    return found


class Way:
    "Networks, optimisers and average of one way, and the seconds of its stages."

    def __init__(self, config, way, batch, device):
        self.G, self.D = networks(config, way, device)
        precision = "bf16" if way == "bf16" else "off"
        self.updates = {name: Update(net, 1e-4, precision=precision) for name, net in (("G", self.G), ("D", self.D))}
        self.ema, self.times, self.device = EMA(self.G), defaultdict(list), device
        self.inputs, self.config, rng = batch, config, torch.Generator(device).manual_seed(0)
        self.masks, self.z = labelmix_mask(batch["label"], config.data.num_classes, rng), draw_noise(len(batch["label"]), self.G.z_dim, rng, device)

    def turn(self, keep=True):
        "One iteration, stage by stage."
        def timed(name, action):
            s = seconds(action, self.device)
            if keep: self.times[name].append(s)
        average = lambda: self.ema.update(self.G)
        each(stages(self.G, self.D, self.config, self.inputs, self.z, self.masks, self.updates, average), self.D, timed)


def measure(shape, batch, repeats, device, rates):
    "All ways of a shape, in turns."
    config = shape_config(shape)
    inputs = random_batch(config, batch, device)
    ways = {way: Way(config, way, inputs, device) for way in WAYS}
    for way in ways.values(): way.turn(keep=False)
    for turn in range(repeats):
        for name, way in ways.items():
            way.turn()
            print(f"{shape}: turn {turn + 1} of {repeats}, {name}: {sum(times[-1] for times in way.times.values()):.3f} s", flush=True)
    rows = []
    for name, way in ways.items():
        counts, rate = operations(config, batch, name), rates["bf16" if name == "bf16" else "float32"]
        for stage, times in way.times.items():
            s = statistics.median(times)
            rows.append({"way": name, "stage": stage, "seconds": round(s, 4), "giga_operations": round(counts[stage] / 1e9, 2), "giga_operations_per_second": round(counts[stage] / s / 1e9, 1),
                         "share_of_matrix_rate": round(counts[stage] / s / rate, 3)})
    forward = {way: {name: round(ops / 1e9, 3) for name, ops in parts(config, way).items()} for way in ("plain", "exact")}
    return {"shape": shape, "size": [config.data.height, config.data.width], "batch": batch, "turns": repeats, "rows": rows, "forward_giga_operations": forward}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", default=RESULTS / "stages.json")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    rates = {"float32": matrix_rate(torch.float32, args.device), "bf16": matrix_rate(torch.bfloat16, args.device)}
    result = {"environment": environment(), "device": args.device, "threads": torch.get_num_threads(), "matrix_rate_giga": {k: round(v / 1e9, 1) for k, v in rates.items()}, "training_step": []}
    for shape in args.shape or ["cityscapes", "ade20k"]:
        result["training_step"].append(measure(shape, args.batch if shape not in ("small", "tiny") else max(2, args.batch), args.repeats, args.device, rates))
        with open(args.out, "w") as f: f.write(json.dumps(result, indent=2) + "\n")
        print(f"\n{shape}\n{'':8}{'':20}{'s':>9}{'G op':>10}{'G op/s':>9}{'share':>7}")
        for r in result["training_step"][-1]["rows"]:
            print(f"{r['way']:8}{r['stage']:20}{r['seconds']:9.3f}{r['giga_operations']:10.1f}{r['giga_operations_per_second']:9.0f}{r['share_of_matrix_rate']:7.2f}")
