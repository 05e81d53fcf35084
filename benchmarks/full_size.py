"""One full-size training step of each paper preset, and full-width generation, on real files: seconds and peak memory.

    python benchmarks/full_size.py --data FOLDER [--batch 1] [--out benchmarks/results/full_size.json]

FOLDER holds the packs `cityscapes_layout`, `ADE20K_layout` and `cityscapes_labels_only` (a few pairs are enough). Every command runs in a process of its
own, so that its peak memory is its own; the step's seconds are those that the run itself logged.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import RESULTS, environment


def measure(*args):
    "Run `dpgan` and give seconds, peak resident memory in GiB, and what it printed."
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "dpgan.cli", *map(str, args)], stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status: raise SystemExit(f"dpgan {args[0]} failed with status {status}")
    return {"seconds": round(time.perf_counter() - start, 1), "peak_gib": round(usage.ru_maxrss / 2 ** 20, 2)}, out


def train_once(preset, data, out, batch):
    "One G step and one D step, with the checkpoint that follows."
    total, _ = measure("train", "--preset", preset, "--data", data, "--out", out, "--steps", 1, "--set", f"train.batch_size={batch}", "--set", "optim.ema_bn_batches=1",
                       "--set", "data.workers=0")
    record = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    return {"preset": preset, "batch": batch, "step_seconds": round(record["seconds_per_step"], 1), "whole_command": total,
            **{k: round(v, 4) for k, v in record.items() if k.endswith("total")}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "full_size.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        steps = [train_once("cityscapes", args.data / "cityscapes_layout", folder / "cityscapes", args.batch), train_once("ade20k", args.data / "ADE20K_layout", folder / "ade20k", args.batch)]
        whole, printed = measure("generate", "--checkpoint", folder / "cityscapes", "--labels", args.data / "cityscapes_labels_only", "--out", folder / "images", "--batch", 1)
        images, seconds = re.search(r"(\d+) images in ([\d.]+) s", printed).groups()
    result = {"environment": environment(), "training_step": steps, "generation": {"preset": "cityscapes", "images": int(images), "seconds_per_image": round(float(seconds) / int(images), 2), "whole_command": whole}}
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
