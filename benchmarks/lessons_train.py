"""Small training runs that differ in one part of the method each, for the lessons.

    python benchmarks/lessons_train.py OUT --only dual-0 [--steps 300] [--set NAME=VALUE ...]

Each run is a folder in OUT, as `dpgan train` writes it, and is gone on with where an interrupted one stood. All have the same data, sizes, budget and learning rates, and there are five seeds of each:

    dual-SEED         the method as described
    single-SEED       every block sees its own pyramid level twice, instead of that level and the coarsest one (the same number of parameters)
    patch-SEED        no segmentation with a fake class: only the patch heads, which never see the label map, train the networks
    no-labelmix-SEED  without LabelMix
    no-align-SEED     without the alignment of decoder features
"""
import argparse
import time
from pathlib import Path

import torch
from torch.nn import functional as F

import dpgan.training as training
from dpgan.checkpoint import checkpoints
from dpgan.config import override, preset
from dpgan.data import PairDataset
from dpgan.generator import Generator

PARTS = ("dual", "single", "patch", "no-labelmix", "no-align")
RUNS = [f"{part}-{seed}" for seed in range(5) for part in PARTS]
SETTINGS = {"batch_size": 8, "lr_g": 4e-4, "lr_d": 8e-4, "decay_share": 0.0, "ema_decay": 0.995, "precision": "bf16", "channels_last": True, "evaluate_every": 0, "log_every": 10}


class SinglePyramid(Generator):
    "The generator in which the coarsest level does not join the others."

    def forward(self, label, z=None):
        s0 = self.embed(label, z)
        levels, x = self.pyramid(s0), self.stem(s0[:, :, ::32, ::32])
        for i, block in enumerate(self.blocks): x = block(x, torch.cat([levels[6 - i]] * 2, 1), i > 0)
        return torch.tanh(self.head(F.leaky_relu(x, 0.2)))


def without_segmentation(terms):
    "An objective of which only the patch terms are left."
    def patch_terms(*args, **kwargs):
        found = terms(*args, **kwargs)
        kept = {k: t for k, t in found.items() if k.startswith("patch")}
        return {"total": sum(kept.values()), **kept}
    return patch_terms


def change_parts(part):
    "Replace what a run does without, in this process."
    if part == "single": training.Generator = SinglePyramid
    if part == "patch": training.generator_terms, training.discriminator_terms = map(without_segmentation, (training.generator_terms, training.discriminator_terms))


def run_config(name, steps, more):
    "Settings of a run."
    part, seed = name.rsplit("-", 1)
    off = {"no-labelmix": {"lambda_labelmix": 0.0}, "no-align": {"lambda_align": 0.0}, "patch": {"lambda_labelmix": 0.0, "lambda_align": 0.0}}.get(part, {})
    config = preset("scenes", seed=int(seed), steps=steps, checkpoint_every=max(1, min(150, steps // 2)), sample_every=steps, **SETTINGS, **off)
    return part, override(config, more)


def train(name, out, steps, more):
    "One run, from the start or from its newest checkpoint."
    part, config = run_config(name, steps, more)
    change_parts(part)
    (out / name).mkdir(parents=True, exist_ok=True)
    data = PairDataset(config.data, None, "train", train=True, seed=config.train.seed)
    run = training.Trainer(config, data, out / name, [training.ProgressBar(), training.MetricsLog(), training.Checkpoints()])
    if saved := checkpoints(out / name / "checkpoints"): run.load(saved[-1])
    if run.step < run.total_steps:
        print(f"{name}: step {run.step} of {run.total_steps}", flush=True)
        run.fit()
    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", required=True, choices=RUNS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    start = time.perf_counter()
    train(args.only, args.out, args.steps, dict(pair.split("=", 1) for pair in args.set))
    print(f"{args.only}: {(time.perf_counter() - start) / 60:.1f} minutes")
