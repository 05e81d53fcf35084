"""Train the judge of drawn scenes that ships with the package, and score it on real ones (about ten minutes on one core).

    python benchmarks/train_scenes_judge.py [--steps 3000] [--seed 0] [--weights dpgan/weights/scenes_judge.safetensors] [--out benchmarks/results/scenes_judge.json]

One thread, so that the weights depend on the seed and not on how many cores there are. The result file holds the score on the 500 validation scenes,
of each class too, and what becomes of it when the pictures are spoiled or belong to other label maps.
"""
import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from dpgan.config import preset
from dpgan.data import PairDataset, evaluation_loader, to_float
from dpgan.judges import blurred, load_judge, save_judge, train_judge
from dpgan.metrics import ConfusionMatrix
from environment import RESULTS, ROOT, environment

SPOILT = {
    "real": lambda x, rng: x, "blur of 1 pixel": lambda x, rng: blurred(x, 1.0), "blur of 2 pixels": lambda x, rng: blurred(x, 2.0),
    "noise of 25 grey levels": lambda x, rng: (x + 0.2 * torch.randn(x.shape, generator=rng)).clamp(-1, 1),
    "red and blue exchanged": lambda x, rng: x.flip(1), "pictures of other label maps": lambda x, rng: x.roll(1, 0)}


def scores(judge, dataset):
    "The judge's confusion matrix on each version of the pictures."
    tables, rng = {name: ConfusionMatrix(len(judge.classes)) for name in SPOILT}, torch.Generator().manual_seed(0)
    for batch in evaluation_loader(dataset, 25):
        batch = to_float(batch, "cpu")
        for name, spoil in SPOILT.items(): tables[name].update(judge(spoil(batch["image"], rng)), judge.truth(batch["label"]))
    return tables


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, default=ROOT / "dpgan" / "weights" / "scenes_judge.safetensors")
    parser.add_argument("--out", type=Path, default=RESULTS / "scenes_judge.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data, start = replace(preset("scenes").data, cache=True), time.perf_counter()
    train = PairDataset(data, None, "train", train=True, seed=args.seed)
    drawn = time.perf_counter()
    judge = train_judge(train, steps=args.steps, seed=args.seed, name="scenes", workers=0, progress=lambda steps: tqdm(steps, mininterval=10))
    trained = time.perf_counter()
    tables = scores(judge, PairDataset(replace(data, cache=False), None, "val"))
    real = tables["real"]
    judge.settings["real"] = {"split": "val", "images": 500, "miou": round(real.mean_iou(), 4), "pixel_accuracy": round(real.pixel_accuracy(), 4)}
    save_judge(judge, args.weights)
    assert load_judge(args.weights).record() == judge.record()
    result = {"environment": environment(), "threads": 1, "seconds": {"drawing": round(drawn - start, 1), "training": round(trained - drawn, 1)}, "judge": judge.record(),
              "parameters": sum(p.numel() for p in judge.net.parameters()), "bytes": args.weights.stat().st_size, "images": 500,
              "real": {"miou": real.mean_iou(), "pixel_accuracy": real.pixel_accuracy(), "iou": dict(zip(judge.classes, real.iou().tolist()))},
              "miou": {name: t.mean_iou() for name, t in tables.items()}}
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: result[k] for k in ("seconds", "bytes", "real", "miou")}, indent=2))
