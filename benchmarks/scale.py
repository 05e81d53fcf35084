"""What a full-size run needs and what it exchanges: arithmetic, memory, messages, and from them batch sizes, hours and the cost of several GPUs.

    python benchmarks/scale.py [--shape cityscapes --shape ade20k --shape coco_stuff | --shape small] [--out benchmarks/results/scale.json]

Nothing here is timed, and no GPU is needed. Arithmetic, memory and messages are counted on torch's `meta` device, where tensors have shapes but no numbers, by running the
two objectives of the training step at full size, forward and backward. Memory counts every tensor from the operation that makes it until its last owner lets go; what a
GPU's libraries take besides (context, convolution work space, fragments of the allocator) is allowed for by RESERVE and USABLE. Hours and shares of the time follow from the
counts and the rates in ASSUMED, so they are derived, not measured. One check is measured, on the CPU: the tensors of a small step as this count sees them, and as torch's profiler does.
"""
import argparse
import json
import math
import weakref
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from functools import cache
from unittest import mock

import torch
import torch.nn.functional as F
from environment import RESULTS, environment
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dpgan.config import override, preset
from dpgan.layers import SyncBatchNorm2d
from dpgan.training import build_networks, discriminator_terms, frozen, generator_terms, step_by_step

SMALL = {"generator.base_channels": 16, "discriminator.base_channels": 16, "generator.norm": "sync_batch", "discriminator.norm": "sync_batch"}
SHAPES = {"cityscapes": {}, "ade20k": {}, "coco_stuff": {}, "small": SMALL}
IMAGES = {"cityscapes": 2975, "ade20k": 20210, "coco_stuff": 118287, "small": 2000}  # of the training splits
PRECISIONS, GIB = ("off", "bf16"), 2 ** 30
MEMORY_GB = (16, 24, 40, 80, 141)  # of GPUs, in 10 ** 9 bytes
USABLE, RESERVE = 0.92, 1.5 * 10 ** 9  # share of that memory that tensors can fill without holes, and bytes that the libraries take
RATES = {"H200, 80 % of its data sheet": 790, "H100, data sheet": 989, "A100, data sheet": 312, "L4, data sheet": 121}  # T operations a second, bf16 in, float32 sums
EFFICIENCIES = (0.2, 0.3, 0.5)  # shares of that rate that a whole step reaches
LINKS = {"NVLink of an H200": (450.0, 5e-6), "PCIe 4.0 x16": (32.0, 10e-6), "InfiniBand 400 Gbit/s": (50.0, 10e-6), "InfiniBand 200 Gbit/s": (25.0, 10e-6),
         "Ethernet 100 Gbit/s": (12.5, 50e-6), "Ethernet 10 Gbit/s": (1.25, 50e-6)}  # G bytes a second in each direction, seconds until a small message is through
LINK_SHARE = 0.8  # of that rate that a large message reaches
ASSUMED = {"usable_share_of_memory": USABLE, "reserved_bytes": RESERVE, "tera_operations_per_second": RATES, "efficiencies": EFFICIENCIES, "efficiency_for_exchange": 0.3,
           "links": {k: {"giga_bytes_per_second": r, "latency_seconds": s} for k, (r, s) in LINKS.items()}, "link_share": LINK_SHARE}


# ---- counting

class Live(TorchDispatchMode):
    "The bytes of all tensors made inside that somebody still holds, now and at most."

    def __init__(self, counted):
        super().__init__()
        self.now = self.peak = 0
        existing = [t for net in (counted.G, counted.D) for t in (*net.parameters(), *net.buffers())] + [*counted.batch.values(), counted.z, counted.mask]
        self.known = {t.untyped_storage()._cdata: 0 for t in existing}  # views of these are nothing new

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if not isinstance(t, torch.Tensor): continue
            storage = t.untyped_storage()
            if (key := storage._cdata) in self.known: continue
            self.known[key] = storage.nbytes()
            self.now += self.known[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, key)
        return out

    def forget(self, key): self.now -= self.known.pop(key)


@contextmanager
def half_convolutions():
    "What autocast does, for devices that have none: convolutions and matrix products of feature maps in bf16, all else in the type of its inputs."
    half = lambda t: t.bfloat16() if isinstance(t, torch.Tensor) and t.is_floating_point() else t
    lowered = lambda f: lambda *args, **kwargs: f(*map(half, args), **{k: half(v) for k, v in kwargs.items()})
    with ExitStack() as stack:
        for place, name in ((F, "conv2d"), (F, "conv_transpose2d"), (torch, "mm"), (torch, "bmm"), (torch, "baddbmm")):
            stack.enter_context(mock.patch.object(place, name, lowered(getattr(place, name))))
        yield


def shape_config(shape): return override(preset("scenes" if shape == "small" else shape), SHAPES[shape])


@cache
def shapes_of(config):
    "Both networks without numbers."
    with torch.device("meta"): return build_networks(config)


class Counted:
    "The networks of a shape and what the two objectives take, on a device without numbers or on another one."

    def __init__(self, config, batch, checkpointing=False, precision="off", device="meta"):
        d, self.config = config.data, config
        self.G, self.D = (net.train() for net in (deepcopy(shapes_of(config)) if device == "meta" else build_networks(config)))
        self.G.checkpointing = self.D.checkpointing = checkpointing
        label = torch.zeros(batch, d.height, d.width, dtype=torch.long, device=device)
        self.batch = {"image": torch.zeros(batch, 3, d.height, d.width, device=device), "label": label}
        self.z, self.mask = torch.zeros(batch, self.G.z_dim, device=device), torch.zeros(batch, 1, d.height, d.width, dtype=torch.bool, device=device)
        self.lower = lambda: half_convolutions() if precision == "bf16" else nullcontext()

    def g_step(self):
        with frozen(self.D), self.lower(): generator_terms(self.G, self.D, self.batch, self.z, self.config)["total"].backward()

    def d_step(self):
        with self.lower(): discriminator_terms(self.G, self.D, self.batch, self.z, self.mask, self.config)["total"].backward()


def numbers(net): return sum(p.numel() for p in net.parameters())
def buffers(net): return sum(b.numel() * b.element_size() for b in net.buffers())


def states(counted):
    "Bytes that do not depend on the batch: 4 a parameter, as often as something keeps one."
    g, d = numbers(counted.G), numbers(counted.D)
    return {"parameters": 4 * (g + d) + buffers(counted.G) + buffers(counted.D), "gradients": 4 * (g + d), "adam": 8 * (g + d), "ema": 4 * g + buffers(counted.G)}


def step_peak(counted):
    "The most that lives during the second iteration, without the states: features, their gradients, and what comes and goes between."
    with Live(counted) as live:
        for p in counted.D.parameters(): p.grad = torch.empty_like(p)  # left by the iteration before; G's own are gone, as `Update` has it
        kept, peaks = live.now, []
        for step, net in ((counted.g_step, None), (counted.d_step, counted.D)):
            if net: net.zero_grad(set_to_none=True)
            live.peak = live.now
            step()
            peaks.append(live.peak - live.now)
        return max(peaks)


def features(config, checkpointing, precision):
    "Bytes an image, and bytes however many images, from two batches."
    two, four = (step_peak(Counted(config, b, checkpointing, precision)) for b in (2, 4))
    return {"bytes_per_image": (four - two) / 2, "bytes_once": 2 * two - four}


def tera(config, batch, stepwise=False):
    "Operations of an iteration for one image, in millions of millions; a multiplication and an addition are two."
    counted = Counted(config, batch)
    if stepwise: step_by_step(counted.G, counted.D)
    with FlopCounterMode(display=False) as counter: counted.g_step(), counted.d_step()
    return counter.get_total_flops() / batch / 1e12


def exchanges(config):
    "What one iteration sends: two messages of gradients, two of class counts, and those of batch norm over all processes (two numbers a channel and a count forward, two a channel back)."
    counted, calls = Counted(config, 2), []
    for m in (m for net in (counted.G, counted.D) for m in net.modules() if isinstance(m, SyncBatchNorm2d)):
        m.register_forward_hook(lambda m, args, out: calls.append((m.num_features, out.requires_grad)))
    counted.g_step(), counted.d_step()
    forward, back = [4 * (2 * c + 1) for c, _ in calls], [8 * c for c, grad in calls if grad]
    g, d = numbers(counted.G), numbers(counted.D)
    return {"gradients": {"generator": 4 * g, "discriminator": 4 * d, "messages": 2}, "sync_batch": {"bytes": sum(forward) + sum(back), "messages": len(forward) + len(back)},
            "class_counts": {"bytes": 2 * 8 * config.data.num_classes, "messages": 2}}


# ---- deriving

def largest_batch(gigabytes, state_bytes, feature):
    "Images in a batch that fit, 0 where not even two do (the deepest patch map needs them)."
    room = USABLE * gigabytes * 10 ** 9 - RESERVE - state_bytes - feature["bytes_once"]
    count = math.floor(room / feature["bytes_per_image"])
    return count if count > 1 else 0


def exchange_seconds(sent, processes, link):
    "Of one iteration: a ring moves 2 (n - 1) / n of the gradients through every link, and a small message takes a latency for each doubling of the processes."
    rate, latency = LINKS[link]
    large = sent["gradients"]["generator"] + sent["gradients"]["discriminator"]
    small = sent["gradients"]["messages"] + sent["sync_batch"]["messages"] + sent["class_counts"]["messages"]
    return 2 * (processes - 1) / processes * large / (LINK_SHARE * rate * 1e9) + small * latency * math.log2(processes)


def compute_seconds(tera_per_image, batch, rate=790, efficiency=0.3): return batch * tera_per_image / (rate * efficiency)


def hours(tera_per_image, images, epochs, rate, efficiency): return images * epochs * tera_per_image / (rate * efficiency) / 3600


def scaled(tera_per_image, sent):
    "For each link: the batch per GPU from which exchange is at most a tenth of the iteration, and the share of the time that is left for computing."
    found = {}
    for link in LINKS:
        for n in (2, 8, 64) if link != "NVLink of an H200" else (2, 8):
            seconds = exchange_seconds(sent, n, link)
            share = {b: round(compute_seconds(tera_per_image, b) / (compute_seconds(tera_per_image, b) + seconds), 4) for b in (1, 2, 4, 8, 16, 32, 64)}
            found.setdefault(link, {})[n] = {"milliseconds": round(1000 * seconds, 3), "batch_for_nine_tenths": math.ceil(9 * seconds / compute_seconds(tera_per_image, 1)), "computing": share}
    return found


def derive(shape):
    "Everything about one shape."
    config = shape_config(shape)
    counted, batch = Counted(config, 2), config.train.batch_size
    kept = states(counted)
    taken = {f"{p}{', checkpointing' if c else ''}": features(config, c, p) for p in PRECISIONS for c in (False, True)}
    work = {"step_by_step": round(tera(config, batch, True), 6), "ours": round(tera(config, batch), 6), "checkpointing": None}
    again = Counted(config, batch, checkpointing=True)
    with FlopCounterMode(display=False) as counter: again.g_step(), again.d_step()
    work["checkpointing"] = round(counter.get_total_flops() / batch / 1e12, 6)
    sent, images = exchanges(config), IMAGES[shape]
    return {"shape": shape, "size": [config.data.height, config.data.width], "classes": config.data.num_classes, "batch": batch, "images": images, "epochs": config.train.epochs,
            "parameters": {"generator": numbers(counted.G), "discriminator": numbers(counted.D)}, "tera_operations_per_image": work, "state_bytes": kept,
            "features": {k: {n: round(v) for n, v in f.items()} for k, f in taken.items()},
            "largest_batch": {k: {g: largest_batch(g, sum(kept.values()), f) for g in MEMORY_GB} for k, f in taken.items()},
            "steps": math.ceil(images * config.train.epochs / batch),
            "hours": {name: {e: round(hours(work["ours"], images, config.train.epochs, rate, e), 2) for e in EFFICIENCIES} for name, rate in RATES.items()},
            "images_per_second": {name: {e: round(rate * e / work["ours"], 1) for e in EFFICIENCIES} for name, rate in RATES.items()},
            "exchange": sent, "links": scaled(work["ours"], sent)}


# ---- one thing that can be measured on a CPU

def profiled_peak(counted):
    "The most that torch's own record of allocations sees in a step of the generator."
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p: counted.g_step()
    now = peak = 0
    for e in p.profiler.kineto_results.events():
        if e.name() == "[memory]":
            now += e.nbytes()
            peak = max(peak, now)
    return peak


def check():
    "The same small step of the generator: counted without numbers, and as torch's profiler saw it on this CPU, in float32 and with torch's own autocast."
    found = {}
    for precision in PRECISIONS:
        counted, real = Counted(shape_config("small"), 4, precision=precision), Counted(shape_config("small"), 4, device="cpu")
        if precision == "bf16": real.lower = lambda: torch.autocast("cpu", torch.bfloat16)
        with Live(counted) as live: counted.g_step()
        measured = profiled_peak(real)
        found[precision] = {"counted_bytes": live.peak, "profiled_bytes": measured, "ratio": round(live.peak / measured, 4)}
    return found


def show(r):
    "The tables of one shape."
    print(f"\n{r['shape']}: {r['size'][0]} x {r['size'][1]}, {r['classes']} classes, {r['parameters']['generator']:,} + {r['parameters']['discriminator']:,} parameters, "
          f"{r['tera_operations_per_image']['ours']} T operations an image ({r['tera_operations_per_image']['step_by_step']} step by step, {r['tera_operations_per_image']['checkpointing']} with checkpointing)")
    print("states, GiB: " + ", ".join(f"{k} {v / GIB:.2f}" for k, v in r["state_bytes"].items()))
    print(f"{'features':22}{'GiB an image':>13}{'GiB once':>10}   largest batch at " + "".join(f"{g:>6} GB" for g in MEMORY_GB))
    for k, f in r["features"].items():
        print(f"{k:22}{f['bytes_per_image'] / GIB:13.2f}{f['bytes_once'] / GIB:10.2f}{'':20}" + "".join(f"{r['largest_batch'][k][g]:9}" for g in MEMORY_GB))
    print(f"hours of {r['epochs']} epochs of {r['images']} images at a share of the rate of " + ", ".join(f"{e:.0%}" for e in EFFICIENCIES))
    for name, h in r["hours"].items(): print(f"  {name:36}" + "".join(f"{v:9.1f}" for v in h.values()))
    s = r["exchange"]
    print(f"an iteration sends {s['gradients']['generator'] / 1e6:.0f} + {s['gradients']['discriminator'] / 1e6:.0f} MB of gradients, {s['sync_batch']['bytes'] / 1e6:.2f} MB in "
          f"{s['sync_batch']['messages']} messages of batch norm, {s['class_counts']['bytes']} bytes of class counts")
    for link, by in r["links"].items():
        print(f"  {link:24}" + "   ".join(f"{n} GPUs {v['milliseconds']:8.1f} ms, 90 % from batch {v['batch_for_nine_tenths']:4}" for n, v in by.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--out", default=RESULTS / "scale.json")
    args = parser.parse_args()
    result = {"environment": environment(), "device": "meta (counted, not timed)", "assumed": ASSUMED, "check": check(), "shapes": []}
    for k, c in result["check"].items(): print(f"a small step, {k}: counted {c['ratio']:.3f} of the bytes that the profiler sees")
    for shape in args.shape or ["cityscapes", "ade20k", "coco_stuff"]:
        result["shapes"].append(derive(shape))
        show(result["shapes"][-1])
    with open(args.out, "w") as f: f.write(json.dumps(result, indent=2) + "\n")
