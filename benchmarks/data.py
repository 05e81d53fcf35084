"""How many pairs a second the readers deliver, for each number of worker processes: `python benchmarks/data.py --data FOLDER [--seconds 8]`.

FOLDER holds the pack `ADE20K_layout` (JPEG photos) and `camvid_256x192`; Cityscapes photos cannot be shipped, so CamVid's are enlarged to 1024 x 2048 with a
little noise (so that the PNG decoder has as much to do as with a camera's), in the folder layout of Cityscapes' size. Rates are those of the training loader:
decoded, resized, cropped, mirrored, batched, as bytes; turning them into floats happens on the device. Beside them stands the time that cropping and mirroring alone take, for our windows (a function of
seed, epoch and index) and for torchvision's v2 transforms (which draw from torch's global stream).
"""
import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from dpgan.config import preset
from dpgan.data import PairDataset, apply_crop, sample_crop, training_loader
from environment import RESULTS, environment


def large_pairs(source, target, count=12):
    "Enlarge a few pairs of a folder to the size of a Cityscapes file."
    rng = np.random.default_rng(0)
    for kind, how in (("images", Image.Resampling.BICUBIC), ("labels", Image.Resampling.NEAREST)):
        (target / "train" / kind).mkdir(parents=True)
        for file in sorted((source / "train" / kind).iterdir())[:count]:
            array = np.asarray(Image.open(file).resize((2048, 1024), how))
            if kind == "images": array = np.clip(array.astype(int) + rng.normal(0, 3, array.shape).round().astype(int), 0, 255).astype(np.uint8)
            Image.fromarray(array).save(target / "train" / kind / f"{file.stem}.png")
    (target / "classes.json").write_text((source / "classes.json").read_text())


def rate(data, root, workers, seconds, batch=4):
    "Pairs a second after the first batches."
    loader = iter(training_loader(PairDataset(data, root, "train", train=True), batch, seed=0, workers=workers))
    for _ in range(2 + 2 * workers): next(loader)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds: done += len(next(loader)["label"])
    return round(done / (time.perf_counter() - start), 1)


def augmenting(load=286, size=256, rounds=2000):
    "Microseconds that a random window and mirroring take a pair, our way and with torchvision's transforms; medians over turns."
    image, label = np.zeros((load, load, 3), np.uint8), np.zeros((load, load), np.uint8)
    pair = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)), tv_tensors.Mask(torch.from_numpy(label))
    theirs = v2.Compose([v2.RandomCrop(size), v2.RandomHorizontalFlip()])
    tensor = lambda a: torch.from_numpy(np.array(a, order="C"))
    def ours(k):
        crop = sample_crop(np.random.default_rng([0, 0, k, 2]), (load, load), (size, size), True)
        return tensor(apply_crop(image, crop).transpose(2, 0, 1)), tensor(apply_crop(label, crop))
    ways, spent = {"ours": ours, "torchvision v2": lambda k: theirs(*pair)}, {}
    for k in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(k)
            spent.setdefault(name, []).append(time.perf_counter() - start)
    return {name: round(1e6 * statistics.median(s), 1) for name, s in spent.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "data.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large_pairs(args.data / "camvid_256x192", Path(folder))
        scenes, camvid = preset("scenes").data, preset("camvid").data
        cases = {"scenes, drawn, 64 x 128": (scenes, None), "CamVid, PNG 192 x 256 to 128 x 192": (replace(camvid, cache=False), args.data / "camvid_256x192"),
                 "CamVid, cached": (camvid, args.data / "camvid_256x192"), "PNG 1024 x 2048 to 256 x 512": (replace(camvid, cache=False, height=256, width=512), Path(folder)),
                 "ADE20K, JPEG to 286, crop 256": (preset("ade20k").data, args.data / "ADE20K_layout")}
        rows = {name: {str(w): rate(*case, w, args.seconds) for w in args.workers} for name, case in cases.items()}
    spent = augmenting()
    args.out.write_text(json.dumps({"environment": environment(), "pairs_per_second_by_workers": rows, "microseconds_to_augment_a_pair": spent}, indent=2) + "\n")
    print(f"{'pairs a second with ... workers':40}" + "".join(f"{w:>9}" for w in args.workers))
    for name, found in rows.items(): print(f"{name:40}" + "".join(f"{found[str(w)]:9.1f}" for w in args.workers))
    print(", ".join(f"{name}: {t} microseconds to crop and mirror a pair" for name, t in spent.items()))
