"""Seconds from noise to picture, plain against each rewrite of dpgan.inference, and from a click to the PNG, in one run.

    python benchmarks/latency.py [--size scenes full ade20k] [--rounds N] [--clicks N] [--threads N] [--out benchmarks/results/latency.json]

`scenes` is the generator that comes with the package, 64 x 128; `full` is the paper's Cityscapes generator at 256 x 512 with random weights,
and `ade20k` its ADE20K generator at 256 x 256. Calls take turns, so
that other work hits all of them alike; the median is reported, and beside it the fewest seconds and the processor's time, which other work disturbs less. The savings are added one after the other. A click is an event that
changes the state, the noise map made from it, the picture, and its PNG; a stroke of the brush prepares the new label map as well.
"""
import argparse
import io
import json
import statistics
import time
from copy import deepcopy
from pathlib import Path

import torch
from environment import RESULTS, environment
from PIL import Image

from dpgan.checkpoint import load_pretrained
from dpgan.config import preset
from dpgan.editing import ExplorerState, apply_event
from dpgan.generator import Generator, draw_noise
from dpgan.inference import SAVINGS, FastGenerator, FixedConv, bf16_pays
from dpgan.labels import ADE20K, CITYSCAPES, image_to_uint8
from dpgan.scenes import draw_scene
from dpgan.training import step_by_step

SIZES, ROUNDS, CLICKS = {"scenes": (64, 128), "full": (256, 512), "ade20k": (256, 256)}, {"scenes": 15, "full": 5, "ade20k": 5}, {"scenes": 20, "full": 5, "ade20k": 5}


def subject(size):
    "A generator, its classes, and a label map (H, W)."
    height, width = SIZES[size]
    label = torch.from_numpy(draw_scene(0, 95, height=height, width=width)[1]).long()
    if size == "scenes": return *load_pretrained("scenes")[::2], label
    config = preset("ade20k" if size == "ade20k" else "cityscapes")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G = Generator(config.data.num_classes, **{**vars(config.generator), "init_gain": 1.0}).eval()
    return G, ADE20K if size == "ade20k" else CITYSCAPES, label


def products(net, *args):
    "Billions of multiplications in a network's convolutions."
    total = []
    hooks = [m.register_forward_hook(lambda m, args, out: total.append(out.numel() * m.weight[0].numel())) for m in net.modules() if isinstance(m, (torch.nn.Conv2d, FixedConv))]
    net(*args)
    for hook in hooks: hook.remove()
    return round(sum(total) / 1e9, 2)


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def race(calls, rounds):
    "Seconds of each call, in turns, after one call each that does not count: median, fewest, and median of the processor's time over all threads."
    seconds, work = {name: [] for name in calls}, {name: [] for name in calls}
    for call in calls.values(): call()
    for _ in range(rounds):
        for name, call in calls.items():
            before = time.process_time()
            seconds[name].append(timed(call))
            work[name].append(time.process_time() - before)
    return {name: (statistics.median(s), min(s), statistics.median(work[name])) for name, s in seconds.items()}


def cast(G, label, z):
    with torch.autocast("cpu", torch.bfloat16): return G(label, z)


def drawing(G, label, rounds, bf16):
    "One row for each way to draw a picture."
    trains, G, label, z = G, deepcopy(G), label[None], draw_noise(1, G.z_dim, seed=0)
    step_by_step(G)  # layer by layer, as the released code does
    steps = {"folded and merged": ()} | {f"+ {name}": SAVINGS[:i + 1] for i, name in enumerate(SAVINGS)}
    nets = {name: FastGenerator(G, savings=savings) for name, savings in steps.items()}
    calls = {"plain": lambda: G(label, z), **({"as it trains": lambda: trains(label, z)} if hasattr(G, "fast") else {}), **{name: lambda net=net: net(label, z) for name, net in nets.items()}}
    last = nets[f"+ {SAVINGS[-1]}"]
    calls["fast, label map prepared"] = lambda ready=last.prepare(label): last.draw(ready, z)
    if bf16:
        half = FastGenerator(G, "bf16")
        calls |= {"plain, autocast to bf16": lambda: cast(G, label, z), "fast, bf16, label map prepared": lambda ready=half.prepare(label): half.draw(ready, z)}
    plain, rows = G(label, z), []
    for name, (middle, fewest, work) in race(calls, rounds).items():
        row = {"name": name, "seconds": round(middle, 4), "fewest": round(fewest, 4), "processor_seconds": round(work, 4)}
        row["grey_levels_off"] = {"mean": round(float((calls[name]() - plain).abs().mean()) * 127.5, 4), "largest": round(float((calls[name]() - plain).abs().max()) * 127.5, 4)}
        if name in nets: row["billion_products"] = products(nets[name], label, z)
        if name == "plain": row["billion_products"] = products(G, label, z)
        rows.append(row)
    for row in rows: row["times_faster"] = round(rows[0]["seconds"] / row["seconds"], 2)
    return rows


def clicks(G, classes, label, count, precision):
    "Median seconds from an event to the PNG: a region's new noise, and a stroke of the brush."
    net, height, width = FastGenerator(G, precision), *label.shape
    state = apply_event(ExplorerState.start(classes, G.z_dim, label.numpy()), {"kind": "select_region", "row": height - 4, "col": width // 2})
    ready, spent = {"label": None}, {"resample_selection": [], "paint": []}
    def click(event):
        nonlocal state
        state = apply_event(state, event)
        if ready["label"] is not state.label: ready.update(label=state.label, made=net.prepare(torch.from_numpy(state.label.astype("int64"))[None]))
        Image.fromarray(image_to_uint8(net.draw(ready["made"], state.noise.tensor(G.z_dim)))[0]).save(io.BytesIO(), "PNG", compress_level=1)
    for i in range(count + 1):
        points = [(height // 3 + i, width // 4), (height // 3 + i, width // 2)]
        for event in ({"kind": "resample_selection", "seed": i + 1}, {"kind": "paint", "points": points, "class_id": 3 + i % 8, "size": 5}): spent[event["kind"]].append(timed(lambda: click(event)))
    return {kind: round(statistics.median(s[1:]), 4) for kind, s in spent.items()}


def report(size, rounds, count):
    "Everything about one size."
    G, classes, label = subject(size)
    bf16 = bf16_pays()
    row = {"size": size, "picture": list(label.shape), "rows": drawing(G, label, rounds, bf16)}
    row["click_to_png_seconds"] = {name: clicks(G, classes, label, count, name) for name in ("off", *(["bf16"] if bf16 else []))}
    print(f"\n{size}, {label.shape[0]} x {label.shape[1]}")
    for r in row["rows"]: print(f"{r['name']:32} {r['seconds']:8.4f} s  {r['times_faster']:5.2f} times faster  {r['processor_seconds']:8.4f} s of the processor  {r['grey_levels_off']['mean']:.4f} grey levels off")
    for name, c in row["click_to_png_seconds"].items(): print(f"click to PNG, precision {name:5}   " + ", ".join(f"{kind} {s:.3f} s" for kind, s in c.items()))
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["scenes", "full"])
    parser.add_argument("--rounds", type=int, help="of all calls, for each size; 15 for scenes and 5 for full where not given")
    parser.add_argument("--clicks", type=int, help="of each kind, for each size; 20 and 5 where not given")
    parser.add_argument("--threads", type=int, help="of torch; its own choice where not given")
    parser.add_argument("--out", type=Path, default=RESULTS / "latency.json")
    args = parser.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    with torch.no_grad(): sizes = [report(size, args.rounds or ROUNDS[size], args.clicks or CLICKS[size]) for size in args.size]
    result = {"environment": {**environment(), "threads": torch.get_num_threads()}, "sizes": sizes}
    args.out.write_text(json.dumps(result, indent=2) + "\n")
