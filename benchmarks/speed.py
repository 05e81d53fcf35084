"""The training step, each saving added in turn: seconds, ratio, arithmetic, share of the machine's matrix rate. On a GPU also inference, the stages, and the largest batch.

    python benchmarks/speed.py [--device cpu|cuda] [--shape cityscapes --shape ade20k | --shape small] [--batch N] [--repeats 3] [--parts step inference stages memory] [--minutes 9.5] [--out FILE]

The first row performs the operations that the released code performs, its wasted backward passes included; every other row adds one saving to the row before, first the exact ones, then
bfloat16, then the options that are not exact; `bf16, channels_last` stands beside `bf16`. All rows take turns in one process, the eager ones of one memory layout on the same networks, and a row's seconds
are the median over its turns, so that a machine that slows down slows all of them. Weights and data are random: the time does not depend on them.

On a GPU (`--device cuda`) one call of under ten minutes measures everything: batch 20 of Cityscapes and 32 of ADE20K, rows for channels_last, for compiled networks and for CUDA graphs beside the
others, the time of 200 epochs, drawing at batch 1 and 16, every stage of an iteration (`stages.py` does that part alone), and the largest batch that fits for each precision. float32 runs with TF32 in every row there, a step is timed until the device has
finished, a row that does not fit is marked, parts that would begin after `--minutes` are left out, and the file is written after every part. `--parts` and `--compiled` run the same code on a CPU.
"""
import argparse
import gc
import json
import statistics
import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from environment import RESULTS, environment
from torch.utils.flop_counter import FlopCounterMode

from dpgan.config import preset
from dpgan.ema import EMA
from dpgan.generator import draw_noise
from dpgan.inference import FastGenerator
from dpgan.losses import class_loss, class_weights, labelmix_mask, patch_loss_generator
from dpgan.training import Update, adam, build_networks, compile_networks, d_step, discriminator_terms, frozen, full_precision, g_step, generator_terms, step_by_step

SMALL = {"data.num_classes": 15, "data.dont_care": True}
SHAPES = {"cityscapes": {}, "ade20k": {}, "small": {**SMALL, "generator.base_channels": 16, "discriminator.base_channels": 16},
          "tiny": {**SMALL, "base_channels": 4, "generator.pyramid_channels": 8, "data.width": 64}}
PARTS = ["step", "inference", "stages", "memory"]
BATCH, IMAGES = {"cityscapes": 20, "ade20k": 32}, {"cityscapes": 2975, "ade20k": 20210}  # on a GPU; in the training split
EXACT = {"plain": {}, "no gradient through D(real)": {"detach": True}, "D frozen in the G step": {"freeze": True}, "foreach EMA": {"foreach": True}, "fused Adam": {"fused": True}, "D: resampling inside convolutions": {"fold": True},
         "G: norms once, fewer passes, shortcut shift": {"once": True}, "G: stretched half at low resolution": {"stretch": True}, "first convolution looked up": {"lookup": True}}
HALF, NOT_EXACT = {"bf16": {"precision": "bf16"}}, {"share_real": {"share_real": True}, "batch_d": {"batch_d": True}, "reuse_fake": {"reuse_fake": True}}
BESIDE = {"bf16, channels_last": {"channels_last": True}, "bf16, compiled": {"compile": "default"}, "all options, compiled": {"compile": "default", "share_real": True, "batch_d": True, "reuse_fake": True},
          "bf16, compiled, CUDA graphs": {"compile": "reduce-overhead"}, "bf16, compiled, channels_last": {"compile": "default", "channels_last": True}}  # each beside `bf16`, not on top of one another
START = {"detach": False, "freeze": False, "foreach": False, "fused": False, "fold": False, "once": False, "stretch": False, "lookup": False, "precision": "off", "share_real": False, "batch_d": False, "reuse_fake": False,
         "channels_last": False, "compile": "off"}


def all_rows(device, compiled):
    "Name and way of every row."
    ways, way = {}, dict(START)
    for name, change in (EXACT | HALF | NOT_EXACT).items():
        if name == "first convolution looked up" and device == "cuda": continue  # look-ups lose there
        ways[name] = way = way | change
    beside = {name: change for name, change in BESIDE.items() if compiled or "compile" not in change}
    return ways | {name: ways["bf16"] | change for name, change in beside.items()}


def shape_config(shape): return preset("scenes" if shape in ("small", "tiny") else shape, **SHAPES[shape])


def random_batch(config, batch, device):
    "Label maps of blocks of 16 x 16 pixels, and noise for images."
    d, rng = config.data, torch.Generator().manual_seed(0)
    coarse = torch.randint(0, d.num_classes, (batch, d.height // 16, d.width // 16), generator=rng)
    return {"label": coarse.repeat_interleave(16, 1).repeat_interleave(16, 2).to(device), "image": (torch.rand(batch, 3, d.height, d.width, generator=rng) * 2 - 1).to(device)}


def set_ways(G, D, way):
    "Switch the networks to the ways of a row."
    step_by_step(G, D)
    for block in (*D.encoder, *D.decoder): block.fold = None if way["fold"] else False
    for block in G.blocks: block.fast = way["once"]
    G.fast, G.lookup = way["stretch"], None if way["lookup"] else False


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

    def __init__(self, shape, batch, device, backend="inductor"):
        self.config, self.device, self.backend, self.copies = shape_config(shape), device, backend, {}
        self.nets = tuple(net.to(device).train() for net in build_networks(self.config))
        self.ema = EMA(self.nets[0])
        self.rng = torch.Generator(device).manual_seed(0)
        self.noise = lambda label: draw_noise(len(label), self.nets[0].z_dim, self.rng, device)
        self.masks = lambda label: labelmix_mask(label, self.config.data.num_classes, self.rng)
        self.resize(batch)

    def resize(self, batch):
        "Go on with another batch size."
        self.batch = random_batch(self.config, batch, self.device)

    def made(self, way):
        "The networks of a way and their optimisers. One set for all eager ways, whose optimisers share what they remember; one for each layout and each way to compile."
        key = way["channels_last"], way["compile"]
        if key not in self.copies:
            nets = self.nets if key == (False, "off") else tuple(deepcopy(net) for net in self.nets)
            if way["channels_last"]: nets = tuple(net.to(memory_format=torch.channels_last) for net in nets)
            set_ways(*nets, way)
            if way["compile"] != "off": compile_networks(*nets, mode=way["compile"], backend=self.backend)
            self.copies[key] = nets, {}
        nets, updates = self.copies[key]
        kind = way["fused"], way["precision"]
        if kind not in updates:
            updates[kind] = [Update(net, 1e-4, precision=way["precision"]) for net in nets]
            for i, u in enumerate(updates[kind]): u.optimizer = updates[True, "off"][i].optimizer if way["fused"] and (True, "off") in updates else adam(u.params, 1e-4, fused=way["fused"])
        return nets, updates[kind]

    def iteration(self, way):
        "One G step, one D step, one average."
        torch.compiler.cudagraph_mark_step_begin()  # what the graphs of the last iteration gave may be overwritten
        (G, D), (update_g, update_d) = self.made(way)
        options = {k: way[k] for k in ("share_real", "batch_d", "reuse_fake")}
        config, kept = replace(self.config, train=replace(self.config.train, **options)), [{}]
        set_ways(G, D, way)
        if way["freeze"]: g_step(G, D, update_g, [self.batch], self.noise, config, kept=kept)
        else: update_g([partial(generator_terms if way["detach"] else wasteful_terms, G, D, self.batch, self.noise(self.batch["label"]), config)])
        d_step(G, D, update_d, [self.batch], self.noise, self.masks, config, kept)
        self.ema.update(G) if way["foreach"] else tensor_by_tensor(self.ema.net, G, 0.999)

    def forget(self, way):
        "Let go of what a failed row has left."
        for nets, _ in self.copies.values():
            for net in nets: net.zero_grad(set_to_none=True)
        tidy(self.device)


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


def settle(result, rates):
    "Keep the better of the matrix rates measured before and `rates`, and work out the shares with it: a busy moment at the start must not make every share too large."
    giga = result["matrix_rate_giga"]
    for kind, rate in rates.items(): giga[kind] = max(giga[kind], round(rate / 1e9, 1))
    for row in (row for part in result["training_step"] for row in part["rows"] if "seconds" in row):
        row["share_of_matrix_rate"] = round(row["giga_operations_per_second"] / giga["bf16" if "bf16" in row["row"] or row["row"] in NOT_EXACT or row["row"].startswith("all") else "float32"], 3)


def tera(shape, batch, way):
    "Operations of an iteration, counted without computing it, in millions of millions."
    config = shape_config(shape)
    config = replace(config, train=replace(config.train, **{k: way[k] for k in ("batch_d", "reuse_fake")}))
    with torch.device("meta"): G, D = build_networks(config)
    set_ways(G, D, way)
    b, z, kept = random_batch(config, batch, "meta"), torch.empty(batch, G.z_dim, device="meta"), {}
    mask = torch.empty(batch, 1, config.data.height, config.data.width, dtype=torch.bool, device="meta")
    with FlopCounterMode(display=False) as counter:
        if way["share_real"]: kept["real"] = full_precision(D(b["image"]))
        with frozen(D) if way["freeze"] else nullcontext(): (partial(generator_terms, kept=kept) if way["detach"] else wasteful_terms)(G, D, b, z, config)["total"].backward()
        discriminator_terms(G, D, b, z, mask, config, kept)["total"].backward()
    return counter.get_total_flops() / 1e12


def peak(run, device, compiled=False):
    "Seconds of a call and the most memory it held in GiB, or what was in the way: no room for it, or anything that a compiler said."
    if device == "cuda": torch.cuda.reset_peak_memory_stats()
    try: s = seconds(run, device)
    except Exception as error:
        full = "out of memory" in str(error).lower()
        if not full and not compiled: raise
        return "out of memory" if full else f"failed: {(str(error).strip() or type(error).__name__).splitlines()[0][:120]}"
    return s, torch.cuda.max_memory_allocated() / 2 ** 30 if device == "cuda" else 0.0


def tidy(device):
    "Give memory back that nothing refers to any more."
    gc.collect()
    if device == "cuda": torch.cuda.empty_cache()


def measure(shape, bench, repeats, device, rates, rows, save=lambda part: None, time_left=lambda: 1e9, plain=None):
    "All rows of a shape, in turns; rows that do not fit, or for whose compilation no time is left, are said so."
    batch, warm = len(bench.batch["label"]), device == "cuda" or shape in ("small", "tiny")
    times, notes, gib, first = {name: [] for name in rows}, {}, {}, {}
    part = {"shape": shape, "size": [bench.config.data.height, bench.config.data.width], "batch": batch, "turns": repeats, "rows": []}
    save(part)
    def once(name, way):
        "One iteration; None where it did not come to its end."
        found = peak(lambda: bench.iteration(way), device, way["compile"] != "off")
        if isinstance(found, tuple): return found
        notes[name] = found
        bench.forget(way)

    for name, way in rows.items():  # memory, algorithms and caches are found here, and networks compiled
        if time_left() < (90 if way["compile"] != "off" else 0): notes[name] = "no time left"
        elif (warm or name == "plain" or way["compile"] != "off") and (found := once(name, way)): first[name] = found[0]
    for turn in range(repeats):
        for name, way in rows.items():
            if name in notes or not (found := once(name, way)): continue
            times[name].append(found[0]); gib[name] = max(gib.get(name, 0), found[1])
            print(f"{shape}: turn {turn + 1} of {repeats}, {name}: {found[0]:.3f} s", flush=True)
        if time_left() < 0: break
    plain = statistics.median(times["plain"]) if times.get("plain") else plain
    for name, way in rows.items():
        if not times[name]: part["rows"].append({"row": name, "note": notes.get(name, "not run")}); continue
        runs = times[name]
        s, work, rate = statistics.median(runs), tera(shape, batch, way), rates["float32" if way["precision"] == "off" else "bf16"]
        row = {"row": name, "seconds": round(s, 4), "fastest": round(min(runs), 4), "slowest": round(max(runs), 4), "times_faster": round(plain / s, 3) if plain else None, "images_per_second": round(batch / s, 3),
               "tera_operations": round(work, 4), "giga_operations_per_second": round(1000 * work / s, 1), "share_of_matrix_rate": round(1e12 * work / s / rate, 3)}
        if device == "cuda": row["peak_gib"] = round(gib[name], 2)
        if shape in IMAGES and device == "cuda": row["hours_for_200_epochs"] = round(200 * IMAGES[shape] * s / batch / 3600, 2)
        if way["compile"] != "off": row["first_step_seconds"] = round(first[name], 1)
        part["rows"].append(row)
    save(part)
    return part


@torch.no_grad()
def drawing(shape, batch, repeats, device, compiled, backend="inductor", z_seed=0):
    "Seconds from noise to picture, each way to draw; on a GPU the median over `repeats` times ten calls."
    config = shape_config(shape)
    config = replace(config, generator=replace(config.generator, init_gain=1.0))
    G = build_networks(config)[0].to(device).eval()
    label, z = random_batch(config, batch, device)["label"], draw_noise(batch, G.z_dim, z_seed, device)
    slow = deepcopy(G)
    step_by_step(slow)
    kind = torch.device(device).type
    def half(net):
        def run():
            with torch.autocast(kind, torch.bfloat16): return net(label, z)
        return run
    prepared = lambda net: partial(net.draw, net.prepare(label), z)
    calls = {"plain": lambda: slow(label, z), "plain, bf16": half(slow), "as it trains, bf16": half(G), "fast": partial(FastGenerator(G), label, z), "fast, bf16": partial(FastGenerator(G, "bf16"), label, z),
             "fast, bf16, label map prepared": prepared(FastGenerator(G, "bf16"))}
    if compiled:
        for mode in ("default", *(["reduce-overhead"] if device == "cuda" else [])):
            net = deepcopy(G)
            compile_networks(net, mode=mode, backend=backend)
            calls[f"compiled, bf16, {mode}"] = half(net)
            fast = FastGenerator(G, "bf16", compile=mode)
            if backend != "inductor": fast.compiled_draw = torch.compile(FastGenerator._draw, fullgraph=True, dynamic=False, backend=backend)
            calls[f"compiled, fast, bf16, label map prepared, {mode}"] = prepared(fast)
    wanted, rows, inner = calls["plain"](), [], 10 if device == "cuda" else 1
    for name, call in calls.items():
        torch.compiler.cudagraph_mark_step_begin()
        first = peak(call, device, name.startswith("compiled"))
        if not isinstance(first, tuple): rows.append({"row": name, "note": first}); continue
        for _ in range(2): call()
        runs = [seconds(lambda: [call() for _ in range(inner)], device) / inner for _ in range(repeats)]
        s, off = statistics.median(runs), (call().float() - wanted).abs()
        rows.append({"row": name, "seconds": round(s, 5), "fastest": round(min(runs), 5), "images_per_second": round(batch / s, 2), "mean_grey_levels_off": round(float(off.mean()) * 127.5, 4)})
        print(f"{shape}: drawing {batch}, {name}: {1000 * s:.2f} ms", flush=True)
    for row in rows: row["times_faster"] = round(rows[0]["seconds"] / row["seconds"], 2) if "seconds" in row and "seconds" in rows[0] else None
    return {"shape": shape, "batch": batch, "rows": rows}


def largest(fits, limit, first=1):
    "The largest n from the first one to a limit for which fits(n) holds, by doubling and halving; first - 1 where not even the first does."
    good, bad = first - 1, None
    n = first
    while bad is None and good < limit:
        if fits(n): good, n = n, min(2 * n, limit)
        else: bad = n
    while bad is not None and bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle): good = middle
        else: bad = middle
    return good


def memory(shape, device, limit, time_left=lambda: 1e9):
    "The largest batch of an iteration, for each precision, with features kept and with features computed again."
    torch.backends.cudnn.benchmark = False  # each batch size would search for the fastest algorithms anew
    torch._dynamo.reset()  # graphs of earlier parts hold memory
    tidy(device)
    bench, rows = Bench(shape, 2, device), []
    total = torch.cuda.get_device_properties(0).total_memory / 2 ** 30 if device == "cuda" else None
    exact = {**START, **{k: v for change in EXACT.values() for k, v in change.items()}}
    for precision in ("off", "bf16"):
        for again in (False, True):
            if time_left() < 20: rows.append({"precision": precision, "checkpointing": again, "note": "no time left"}); continue
            way = {**exact, "precision": precision}
            (G, D), _ = bench.made(way)
            G.checkpointing = D.checkpointing = again
            def fits(n):
                bench.resize(n)
                found = peak(lambda: bench.iteration(way), device)
                bench.forget(way)
                print(f"{shape}: batch {n}, precision {precision}{', checkpointing' if again else ''}: {'does not fit' if isinstance(found, str) else f'{found[1]:.1f} GiB'}", flush=True)
                return isinstance(found, tuple)
            rows.append({"precision": precision, "checkpointing": again, "largest_batch": largest(fits, limit, 2 if shape in ("small", "tiny") else 1)})
            G.checkpointing = D.checkpointing = False
    return {"shape": shape, "device_gib": round(total, 1) if total else None, "limit": limit, "rows": rows}


def table(part):
    "Print the rows of a training step."
    print(f"\n{part['shape']}, batch {part['batch']}\n{'':46}{'s':>9} {'times':>7} {'img/s':>8} {'T op':>9} {'G op/s':>9} {'share':>6}")
    for r in part["rows"]:
        if "note" in r: print(f"{r['row']:46}{r['note']:>16}"); continue
        print(f"{r['row']:46}{r['seconds']:9.3f} {r['times_faster'] or 0:7.2f} {r['images_per_second']:8.2f} {r['tera_operations']:9.3f} {r['giga_operations_per_second']:9.0f} {r['share_of_matrix_rate']:6.2f}"
              + (f"  {r['peak_gib']} GiB" if "peak_gib" in r else "") + (f"  {r['hours_for_200_epochs']} h for 200 epochs" if "hours_for_200_epochs" in r else ""))


if __name__ == "__main__":
    import stages  # which reads this file
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--batch", type=int, help="1 on a CPU, 20 of Cityscapes and 32 of ADE20K on a GPU where not given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="step on a CPU, all on a GPU where not given")
    parser.add_argument("--rows", nargs="+", metavar="WORD", help="only rows whose name contains one of these words; plain always runs")
    parser.add_argument("--compiled", action="store_true", help="compiled rows on a CPU too")
    parser.add_argument("--backend", default="inductor", help="of torch.compile; eager tries the rest of the script quickly")
    parser.add_argument("--limit", type=int, default=256, help="of the largest batch to look for")
    parser.add_argument("--minutes", type=float, default=9.5, help="on a GPU: no part begins after that")
    parser.add_argument("--rate", action="store_true", help="only measure the matrix rate again, for a file that is there, and work out its shares with the better one")
    parser.add_argument("--out", help="benchmarks/results/speed.json, on a GPU speed_cuda.json where not given")
    args = parser.parse_args()
    began, gpu = time.perf_counter(), args.device == "cuda"
    time_left = (lambda: 60 * args.minutes - (time.perf_counter() - began)) if gpu else (lambda: 1e9)
    if gpu: torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.set_flush_denormal(True)
    parts, shapes, compiled = args.parts or (PARTS if gpu else ["step"]), args.shape or ["cityscapes", "ade20k"], gpu or args.compiled
    out = args.out or RESULTS / ("speed_cuda.json" if gpu else "speed.json")
    measured = lambda: {"float32": matrix_rate(torch.float32, args.device), "bf16": matrix_rate(torch.bfloat16, args.device)}
    if args.rate:
        with open(out) as f: result = json.load(f)
        settle(result, measured())
        with open(out, "w") as f: f.write(json.dumps(result, indent=2) + "\n")
        raise SystemExit(f"{result['matrix_rate_giga']} G operations a second")
    rates = measured()
    result = {"environment": environment(), "device": args.device, "threads": torch.get_num_threads(), "matrix_rate_giga": {k: round(v / 1e9, 1) for k, v in rates.items()}, "training_step": []}

    def save(kind, part):
        "Put a part in its place, the newest of its shape and batch, and write everything."
        result[kind] = [p for p in result.get(kind, []) if (p["shape"], p.get("batch")) != (part["shape"], part.get("batch"))] + [part]
        with open(out, "w") as f: f.write(json.dumps(result, indent=2) + "\n")

    rows = {name: way for name, way in all_rows(args.device, compiled).items() if not args.rows or name == "plain" or any(w in name for w in args.rows)}
    eager = {name: way for name, way in rows.items() if way["compile"] == "off"}
    def batch_of(shape): return max(2 if shape in ("small", "tiny") else 1, args.batch or (BATCH.get(shape, 2) if gpu else 1))
    def step(shape, rows, keep=()):
        torch._dynamo.reset()  # graphs of earlier parts hold memory
        tidy(args.device)
        bench = Bench(shape, batch_of(shape), args.device, args.backend)
        part = measure(shape, bench, args.repeats, args.device, rates, rows, lambda p: save("training_step", {**p, "rows": [*keep, *p["rows"]]}), time_left, keep[0].get("seconds") if keep else None)
        table(part)
        return part
    done = {}
    for shape in shapes if "step" in parts else []: done[shape] = step(shape, eager)
    for batch in (1, 16) if gpu else (1,):
        for shape in shapes if "inference" in parts else []:
            if time_left() > 30: save("inference", drawing(shape, batch, args.repeats, args.device, compiled, args.backend))
    for shape in shapes if "stages" in parts else []:
        if time_left() > 60: save("stages", stages.measure(shape, batch_of(shape), args.repeats, args.device, rates))
    for shape in shapes if "step" in parts and len(rows) > len(eager) else []:  # in turns with bf16
        if time_left() > 90:
            beside = {"bf16, once more": all_rows(args.device, compiled)["bf16"], **{name: way for name, way in rows.items() if name not in eager}}
            step(shape, beside, done[shape]["rows"])
    for shape in shapes if "memory" in parts else []:
        if time_left() > 30: save("memory", memory(shape, args.device, args.limit, time_left))
    settle(result, measured())
    with open(out, "w") as f: f.write(json.dumps(result, indent=2) + "\n")
    print(f"\n{time.perf_counter() - began:.0f} s; written to {out}")
