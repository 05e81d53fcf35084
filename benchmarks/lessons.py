"""What each part of the method buys, measured on drawn scenes with the shipped judge.

    python benchmarks/lessons.py [--runs runs/lessons] [--long runs/scenes] [--only norm ...] [--train dual-0 ...] [--steps 300] [--images 200] [--pictures nbs/images]

Lessons, any of which `--only` picks; each is written into `results/lessons.json` as soon as it is done, and the others stay as they are. `results/lessons_seeds.json` holds the few numbers of
every run that a comparison of seeds needs.

    norm      how much of the class can be read off features before and after normalisation, plain and spatially adaptive
    levels    the same generator with one half of each condition hidden: the coarsest level, or the block's own
    runs      judge's mIoU, FD-scenes and IoU by object size of small runs that lack one part each (`lessons_train.py` says what they are)
    labelmix  how far the discriminator's reading of a mixture is from the mixture of its readings
    align     distance of the discriminator's decoder features between generated and real pictures
    reach     how far from a region its noise changes the picture
    ema       the generator as it stands, its average, and its average with batch norm statistics estimated anew, at several checkpoints

Runs that `--train` names and that are not there, or not finished, are trained first (one process each, gone on with where they stood). `--long` is a long run with all its files,
as `dpgan train` leaves it; without one the first small run stands in for it.
"""
import argparse
import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from environment import RESULTS, ROOT, environment
from lessons_train import SETTINGS, SinglePyramid, RUNS
from PIL import Image
from ship_generator import command
from torch import nn

from dpgan.checkpoint import checkpoints, load_generator, load_weights, read_record, read_tensors
from dpgan.config import from_dict
from dpgan.data import PairDataset, to_float, training_loader
from dpgan.discriminator import Discriminator
from dpgan.editing import difference, distance_to, heat, leak, segments
from dpgan.ema import reestimate_batch_norm
from dpgan.evaluate import image_noise
from dpgan.generator import Generator, draw_noise, resample_region
from dpgan.inference import reach
from dpgan.judges import judge_extractor, scenes_judge
from dpgan.labels import colourise, image_to_uint8, one_hot, tile, uint8_to_image
from dpgan.losses import alignment_loss, class_weights, labelmix_loss, labelmix_mask, mix
from dpgan.metrics import ConfusionMatrix, frechet_distance
from dpgan.scenes import SCENE_CLASSES, SCENE_COLOURS, draw_scene
from dpgan.training import build_networks, step_by_step

LESSONS = ("norm", "levels", "runs", "labelmix", "align", "reach", "ema")
OBJECTS = ("pole", "traffic light", "sign", "person", "cyclist", "car", "bus")
BINS = {"1 to 15": (1, 15), "16 to 63": (16, 63), "64 to 255": (64, 255), "256 and more": (256, 1 << 30)}  # pixels of a connected region, at 64 x 128
ROUNDING = 1e-4  # features that vary less are constant


def rounded(x):
    "Numbers of a record to four figures."
    if isinstance(x, dict): return {str(k): rounded(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)): return [rounded(v) for v in x]
    return float(f"{float(x):.4g}") if isinstance(x, (float, np.floating)) else x


# ---- networks of a run

def run_class(run): return SinglePyramid if run.name.startswith("single") else Generator
def at_steps(run): return {int(p.name.split("_")[1]): p for p in checkpoints(run / "checkpoints")}
def config_of(checkpoint): return from_dict(read_record(checkpoint / "config.json"))


def generator_at(checkpoint, file, statistics=None):
    "A generator of a checkpoint in evaluation mode: `generator` or `ema`, with the batch norm statistics it has or others."
    config = config_of(checkpoint)
    G = run_class(checkpoint.parent.parent)(config.data.num_classes, **vars(config.generator))
    load_weights(G, read_tensors(checkpoint / f"{file}.safetensors"), file)
    if statistics: load_weights(G, read_tensors(checkpoint / f"{statistics}.safetensors"), statistics, partial=True)
    return G.eval()


def sampler_at(checkpoint): return generator_at(checkpoint, "ema", "ema_bn")


def anew(G, config, batches):
    "A copy with statistics over training batches."
    loader = training_loader(PairDataset(config.data, None, "train", train=True, seed=config.train.seed), 8, config.train.seed + 1, 0, workers=0)
    rng = torch.Generator().manual_seed(config.train.seed)
    labels = (to_float(b, "cpu")["label"] for b, _ in zip(loader, range(batches)))
    return reestimate_batch_norm(deepcopy(G), ((label, draw_noise(len(label), G.z_dim, rng)) for label in labels))


def discriminator_at(checkpoint):
    "The discriminator of a checkpoint in evaluation mode."
    config = config_of(checkpoint)
    return load_weights(Discriminator(config.data.num_classes, **vars(config.discriminator)), read_tensors(checkpoint / "discriminator.safetensors"), "discriminator").eval()


# ---- scores

class Scenes:
    "Validation scenes in memory, and who reads them."

    def __init__(self, count):
        self.pairs = [draw_scene(0, 10_000 + i) for i in np.linspace(0, 499, count).round().astype(int)]
        self.image, self.label = uint8_to_image(np.stack([a for a, _ in self.pairs])), torch.from_numpy(np.stack([b for _, b in self.pairs])).long()
        self.judge = scenes_judge()
        self.eye = judge_extractor(self.judge)
        self.truth = self.judge.truth(self.label)
        self.objects = objects(self.truth.numpy(), self.judge.classes)
        self.real_features = torch.cat([self.eye(part) for part in self.image.split(50)])
        self.real = self.reading(self.image)

    def draw(self, G, count=None):
        "One sample of each label map, the same noise for everybody."
        places = list(range(count or len(self.label)))
        return torch.cat([G.sample(self.label[p], image_noise(p, 0, G.z_dim, 0)) for p in (places[i:i + 25] for i in range(0, len(places), 25))])

    def reading(self, image):
        "What the judge makes of pictures of all label maps."
        seen, table = torch.cat([self.judge(part) for part in image.split(50)]), ConfusionMatrix(len(self.judge.classes))
        table.update(seen, self.truth)
        iou = {name: None if np.isnan(v) else v for name, v in zip(self.judge.classes, table.iou().tolist())}
        return {"miou": table.mean_iou(), "pixel_accuracy": table.pixel_accuracy(), "iou": iou, "by_size": by_size(seen.numpy(), self.objects, self.judge.classes)}

    def score(self, G):
        "Everything about a generator."
        image = self.draw(G)
        return {**self.reading(image), "FD-scenes": frechet_distance(self.real_features, torch.cat([self.eye(part) for part in image.split(50)]))}


def objects(truth, classes):
    "Every connected region of an object's class: (picture, class, mask)."
    ids, found = [classes.index(name) for name in OBJECTS], []
    for place, one in enumerate(truth):
        number = segments(one)
        first = np.unique(number, return_index=True)[1]
        found += [(place, one.flat[i], number == n) for n, i in enumerate(first) if one.flat[i] in ids]
    return found


def by_size(seen, regions, classes):
    "IoU of objects by their area: each region against those regions of its class in the reading that touch it; intersections over unions, summed."
    both, either, count = ({(name, b): 0 for name in OBJECTS for b in BINS} for _ in range(3))
    numbers = {place: segments(seen[place]) for place, _, _ in regions}
    for place, k, mask in regions:
        hit = mask & (seen[place] == k)
        wider = np.isin(numbers[place], np.unique(numbers[place][hit])) if hit.any() else hit
        key = classes[k], next(b for b, (low, high) in BINS.items() if low <= mask.sum() <= high)
        both[key] += int(hit.sum())
        either[key] += int((mask | wider).sum())
        count[key] += 1
    iou = lambda keys: sum(both[k] for k in keys) / max(1, sum(either[k] for k in keys))
    table = {name: {b: iou([(name, b)]) for b in BINS if count[name, b]} for name in OBJECTS}
    mean = {b: float(np.mean([table[name][b] for name in OBJECTS if b in table[name]])) for b in BINS if any(b in table[name] for name in OBJECTS)}
    return {"mean_over_classes": mean, "iou": table, "regions": {b: sum(count[name, b] for name in OBJECTS) for b in BINS}}


# ---- a: normalisation

def read_out(x, y, tried, wanted, classes):
    "Balanced accuracy of a linear reading: least squares against one-hot classes, every class with the same weight, tried on other pixels."
    mean, std = x.mean(0), x.std(0)
    std[std < ROUNDING] = float("inf")  # a channel that is constant up to rounding says nothing, and must not be blown up until it does
    design = lambda t: torch.cat([(t - mean) / std, torch.ones(len(t), 1)], 1).double()
    weight = (1 / torch.bincount(y, minlength=classes).clamp(min=1)).double()[y][:, None]
    a = design(x)
    gram = (a * weight).T @ a
    solved = torch.linalg.solve(gram + 1e-4 * gram.diagonal().mean() * torch.eye(len(gram)).double(), (a * weight).T @ F.one_hot(y, classes).double())
    seen = (design(tried) @ solved).argmax(1)
    return float(np.mean([(seen[wanted == k] == k).double().mean().item() for k in wanted.unique()]))


def pixels(x, label, most, rng):
    "At most so many pixels of each class: features and classes. The label map is read at the middle of each pixel."
    k = label.shape[-1] // x.shape[-1]
    small = label[:, k // 2::k, k // 2::k].flatten()
    flat, keep = x.permute(0, 2, 3, 1).flatten(0, 2), []
    for c in small.unique():
        at = (small == c).nonzero().flatten()
        keep.append(at[torch.randperm(len(at), generator=rng)[:most]])
    keep = torch.cat(keep)
    return flat[keep].float(), small[keep]


def readable(x, label, classes, most=400):
    "How much of the class can be read off a feature map, fitted on one half of the pictures and tried on the other."
    rng, half = torch.Generator().manual_seed(0), len(x) // 2
    return read_out(*pixels(x[:half], label[:half], most, rng), *pixels(x[half:], label[half:], most, rng), classes)


class Averaged(nn.Module):
    "A spatially-adaptive norm whose maps are replaced by their mean over all pixels: a plain norm with scale and shift."

    def __init__(self, norm):
        super().__init__()
        self.inner = norm

    def forward(self, x, cond):
        gamma, beta = (conv(cond).mean((0, 2, 3), keepdim=True) for conv in (self.inner.gamma, self.inner.beta))
        return self.inner.norm(x) * (1 + gamma) + beta


def plain(G):
    "A generator whose norms are plain: only its first convolution sees the label map."
    G = deepcopy(G)
    step_by_step(G)
    for block in G.blocks:
        for name in ("norm_0", "norm_1", "norm_s"):
            if hasattr(block, name): setattr(block, name, Averaged(getattr(block, name)))
    return G


@torch.no_grad()
def flat_reading(classes):
    "Flat maps: one class a picture, other noise in each; what a convolution knows of the class in the middle of the picture, and what is left after a norm."
    found = {}
    for padding in ("circular", "zeros"):
        label, z = torch.arange(classes).repeat(8)[:, None, None].expand(-1, 16, 16), draw_noise(8 * classes, 8, seed=1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            first, gamma, beta = nn.Conv2d(classes + 8, 32, 3, padding=1, padding_mode=padding), *(nn.Conv2d(classes, 32, 3, padding=1, padding_mode=padding) for _ in range(2))
        onehot = one_hot(label, classes)
        x = first(torch.cat([z[:, :, None, None].expand(-1, -1, 16, 16), onehot], 1))
        alone = lambda t: torch.cat([F.batch_norm(part, None, None, training=True) for part in t.split(1)])
        versions = {"convolution": x, "batch norm, mixed batch": F.batch_norm(x, None, None, training=True), "batch norm, one picture": alone(x), "instance norm": F.instance_norm(x)}
        versions["spatially adaptive (instance)"] = F.instance_norm(x) * (1 + gamma(onehot)) + beta(onehot)
        versions["spatially adaptive (batch, one picture)"] = alone(x) * (1 + gamma(onehot)) + beta(onehot)
        middle = {k: v[:, :, 6:10, 6:10] for k, v in versions.items()}
        found[padding] = {k: readable(v, label[:, 6:10, 6:10], classes, 64) for k, v in middle.items()}
    return {"chance": 1 / classes, "reading": found}


@torch.no_grad()
def block_reading(G, label, z, classes):
    "For each block, what can be read off before the norm of its second convolution, after a plain norm, after an instance norm, and after the maps have been applied."
    G, caught = deepcopy(G).eval(), {}
    step_by_step(G)
    for i, block in enumerate(G.blocks):
        norm = block.norm_1
        norm.register_forward_pre_hook(lambda m, args, i=i: caught.setdefault(i, {}).setdefault("before", []).append(args[0]))
        norm.register_forward_hook(lambda m, args, out, i=i: caught[i].setdefault("after", []).append(out))
    for part in range(0, len(label), 25): G(label[part:part + 25], z[part:part + 25])
    rows = []
    for i in range(len(G.blocks)):
        before, after = (torch.cat(caught[i][k]) for k in ("before", "after"))
        rows.append({"block": i, "size": list(before.shape[2:]), "before": readable(before, label, classes), "plain instance norm": readable(F.instance_norm(before), label, classes),
                     "after the maps": readable(after, label, classes)})
    return rows


def lesson_norm(at):
    "a. What normalisation erases and what the maps write back."
    n, classes = min(80, len(at.scenes.label)), len(SCENE_CLASSES)
    label, z = at.scenes.label[:n], image_noise(range(n), 0, at.trained.z_dim, 0)
    config = config_of(at.long_checkpoint)
    with torch.no_grad(): fresh = anew(build_networks(config)[0], config, at.batches)
    nets = {"random weights": fresh, "trained": at.trained}
    found = {"flat maps": flat_reading(classes), "scenes": {"pictures": n, "chance": 1 / len(label.unique()), "networks": {}}, "drawn": {}}
    for name, G in nets.items():
        flat = anew(plain(G), config, at.batches)  # as batch norm would have it: statistics that fit
        found["scenes"]["networks"][name] = {"with the maps": block_reading(G, label, z, classes), "maps averaged": block_reading(flat, label, z, classes)}
    for name, G in (("with the maps", at.trained), ("maps averaged", flat)): found["drawn"][name] = at.scenes.score(G)
    at.picture("norm", [[colourise(l.numpy(), SCENE_COLOURS) for l in label[:4]], *([*image_to_uint8(G.sample(label[:4], z[:4]))] for G in (at.trained, flat))])
    return found


# ---- b: the two levels that a block sees

def hide(G, half):
    "A generator in which one half of the conditions (0: the coarsest level, 1: the block's own) is replaced by its mean over the picture, in all blocks but the first, where both are the same."
    G = deepcopy(G)
    step_by_step(G)
    def blur(block, args):
        x, cond, *more = args
        halves = list(cond.chunk(2, 1))
        halves[half] = halves[half].mean((2, 3), keepdim=True).expand_as(halves[half])
        return x, torch.cat(halves, 1), *more
    for block in G.blocks[1:]: block.register_forward_pre_hook(blur)
    return G


def lesson_levels(at):
    "b. What the trained generator uses: one level or the other hidden from it."
    nets = {"as trained": at.trained, "coarsest level hidden": hide(at.trained, 0), "own level hidden": hide(at.trained, 1)}
    return {"pictures": len(at.scenes.label), "scores": {name: at.scenes.score(G) for name, G in nets.items()}}


# ---- b and c: runs that lack a part

def common_step(at, names):
    "The last step at which all of the runs have a checkpoint."
    return max(set.intersection(*(set(at_steps(at.runs / name)) for name in names)), default=None)


def curve(run, count=20):
    "The losses of a run's metrics, thinned out."
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    chosen = records[::-1][::max(1, len(records) // count)][::-1]
    return {k: [r.get(k) for r in chosen] for k in ("step", "loss_g/adv", "loss_g/patch", "loss_g/align", "loss_d/real", "loss_d/fake", "loss_d/labelmix") if k in chosen[0]}


def lesson_runs(at):
    "b, c. The small runs, at the last step that all of them have, and each at its own last."
    names = at.finished()
    step, found = common_step(at, names), {}
    for name in names:
        run = at.runs / name
        config = read_record(run / "config.json") if (run / "config.json").is_file() else read_record(at_steps(run)[step] / "config.json")
        steps = [s for s in sorted(at_steps(run)) if s == step or s == max(at_steps(run))]
        found[name] = {"seed": config["train"]["seed"], "scores": {s: at.scenes.score(sampler_at(at_steps(run)[s])) for s in steps}, "curve": curve(run)}
        for score in found[name]["scores"].values() if name.split("-")[0] not in ("dual", "single") else ():
            score["by_size"] = {"mean_over_classes": score["by_size"]["mean_over_classes"]}  # single classes are compared with and without the dual pyramid only
        print(name, {s: (round(100 * v["miou"], 1), round(v["FD-scenes"], 2)) for s, v in found[name]["scores"].items()}, flush=True)
    shown, firsts = ([colourise(l.numpy(), SCENE_COLOURS) for l in at.scenes.label[:5]], list(image_to_uint8(at.scenes.image[:5]))), [name for name in names if name.endswith("-0")]
    at.picture("runs", [*shown, *([*image_to_uint8(at.scenes.draw(sampler_at(at_steps(at.runs / name)[step]), 5))] for name in firsts)])
    real = {k: v for k, v in at.scenes.real.items()}
    return {"step": step, "settings": SETTINGS, "pictures": len(at.scenes.label), "bins": {k: list(v) for k, v in BINS.items()}, "real": real, "runs": found, "rows_of_picture": ["label map", "photo", *firsts]}


# ---- d: LabelMix

@torch.no_grad()
def consistency(D, real, fake, label, masks):
    "Mean squared error between the reading of a mixture and the mixture of the readings, its size beside their spread and beside the difference of the two readings, and what is called fake."
    logits = lambda image: torch.cat([D(part).class_logits for part in image.split(25)])
    of_real, of_fake, of_mix = logits(real), logits(fake), logits(mix(real, fake, masks))
    target = mix(of_real, of_fake, masks)
    error, spread = labelmix_loss(of_mix, of_real, of_fake, masks).item(), target.var((0, 2, 3), unbiased=False).mean().item()
    says_fake, kept = of_mix.argmax(1) == 0, masks[:, 0]
    shares = lambda logits: F.softmax(logits, 1)[:, 0]  # of the fake class
    named = lambda logits, where: (logits[:, 1:].argmax(1) == label)[where].double().mean().item()
    return {"error": error, "spread": spread, "relative": error / spread, "difference": F.mse_loss(of_real, of_fake).item(), "relative_to_difference": error / F.mse_loss(of_real, of_fake).item(),
            "reading_changes": (of_mix.argmax(1) != target.argmax(1)).double().mean().item(),
            "called_fake": {"fake alone": (of_fake.argmax(1) == 0).double().mean().item(), "real alone": (of_real.argmax(1) == 0).double().mean().item(),
                            "fake in mixture": says_fake[~kept].double().mean().item(), "real in mixture": says_fake[kept].double().mean().item()},
            "fake_probability": {"fake alone": shares(of_fake).mean().item(), "real alone": shares(of_real).mean().item(),
                                 "fake in mixture": shares(of_mix)[~kept].mean().item(), "real in mixture": shares(of_mix)[kept].mean().item()},
            "class_right_on_real": {"alone": named(of_real, kept), "in mixture": named(of_mix, kept)}}


@torch.no_grad()
def called_fake_by_class(D, real, label, dont_care):
    "For each class, its mean weight in the loss on these real pictures, and the share of its pixels that D would rather call fake."
    fake = torch.cat([D(part).class_logits for part in real.split(25)]).argmax(1) == 0
    weight = torch.cat([class_weights(part, len(SCENE_CLASSES), dont_care)[part] for part in label.split(SETTINGS["batch_size"])])
    return {name: {"weight": weight[label == k].mean().item(), "called_fake": fake[label == k].double().mean().item(), "pixels": int((label == k).sum())} for k, name in enumerate(SCENE_CLASSES) if (label == k).any()}


def reading_picture(D, image):
    "What D reads: the class it would name if it could not say fake, and the probability of fake (white: 1)."
    with torch.no_grad(): logits = D(image).class_logits
    probability = (255 * F.softmax(logits, 1)[:, 0]).byte().numpy()
    return list(colourise(logits[:, 1:].argmax(1).numpy(), SCENE_COLOURS)), list(np.repeat(probability[..., None], 3, -1))


def lesson_labelmix(at):
    "d. Discriminators without training, with it, and with it but without LabelMix, each on the pictures of its own generator."
    n = min(100, len(at.scenes.label))
    real, label = at.scenes.image[:n], at.scenes.label[:n]
    masks = labelmix_mask(label, len(SCENE_CLASSES), torch.Generator().manual_seed(0))
    seen, shown = {}, []
    names = [name for name in at.finished() if name.split("-")[0] in ("dual", "no")]
    step = common_step(at, names)
    for name, checkpoint in [*((name, at_steps(at.runs / name)[step]) for name in names), ("long", at.long_checkpoint)]:
        fake, D = at.scenes.draw(sampler_at(checkpoint), n), discriminator_at(checkpoint)
        if name == names[0]: seen["untrained"] = consistency(build_networks(config_of(checkpoint))[1].eval(), real, fake, label, masks)
        seen[name] = consistency(D, real, fake, label, masks)
        if name in ("dual-0", "no-labelmix-0", "long"):
            mixed = mix(real[:3], fake[:3], masks[:3])
            shown += [list(image_to_uint8(mixed)), *reading_picture(D, mixed)]
    at.picture("labelmix", [[*colourise(label[:3].numpy(), SCENE_COLOURS)], [np.repeat(255 * m[0].numpy().astype(np.uint8)[..., None], 3, 2) for m in masks[:3]], *shown])
    return {"step": step, "pictures": n, "discriminators": seen, "real_pixels_by_class": called_fake_by_class(discriminator_at(at.long_checkpoint), real, label, config_of(at.long_checkpoint).data.dont_care)}


# ---- e: alignment

@torch.no_grad()
def feature_distance(D, one, other):
    "For each level of the decoder, the mean squared difference of two sets of pictures of the same label maps, by the variance of the first about its channels' means."
    rows = []
    for a, b in zip(one.split(25), other.split(25)):
        x, y = D(a).decoder_features, D(b).decoder_features
        rows.append([[F.mse_loss(p, q).item(), p.var((0, 2, 3)).mean().item()] for p, q in zip(x, y)] + [[alignment_loss(y, x).item(), 1.0]])
    total = np.array(rows).mean(0)
    return {"relative": list(total[:-1, 0] / total[:-1, 1]), "loss": float(total[-1, 0])}


@torch.no_grad()
def distance_picture(D, real, fake):
    "Where the features at a quarter of the size differ: black for not at all, pale for twice as much as those of another scene on average."
    x, y = D(real).decoder_features[2], D(fake).decoder_features[2]
    far = (x - y).pow(2).mean(1) / (x - x.roll(1, 0)).pow(2).mean()
    return [heat(np.kron(one.numpy(), np.ones((4, 4))), 2.0) for one in far]


def lesson_align(at):
    "e. Generated against real, and as a measure the real scene in another style against the real scene."
    n = min(100, len(at.scenes.label))
    real = at.scenes.image[:n]
    places = np.linspace(0, 499, len(at.scenes.label)).round().astype(int)[:n]
    other = uint8_to_image(np.stack([draw_scene(0, 10_000 + int(i), style=20_000 + int(i))[0] for i in places]))
    names, found, shown = [name for name in at.finished() if name.split("-")[0] in ("dual", "no")], {}, []
    step = common_step(at, names)
    for name, checkpoint in [*((name, at_steps(at.runs / name)[step]) for name in names), ("long", at.long_checkpoint)]:
        D, fake = discriminator_at(checkpoint), at.scenes.draw(sampler_at(checkpoint), n)
        if name in ("dual-0", "no-align-0", "long"): shown += [list(image_to_uint8(fake[:4])), distance_picture(D, real[:4], fake[:4])]
        found[name] = {"generated": feature_distance(D, real, fake), "other style": feature_distance(D, real, other), "other scene": feature_distance(D, real, real.roll(1, 0)),
                       "generated, judged by the long run": feature_distance(discriminator_at(at.long_checkpoint), real, fake)}
    at.picture("align", [list(image_to_uint8(real[:4])), *shown])
    return {"step": step, "pictures": n, "levels": ["1/16", "1/8", "1/4", "1/2", "1"], "discriminators": found}


# ---- f: noise as a map

def lesson_reach(at):
    "f. New noise for one region: how the change falls off with the distance from it."
    G, rng, rows = at.trained, np.random.default_rng(0), []
    for place in range(min(60, len(at.scenes.label))):
        label = at.scenes.label[place:place + 1]
        number = segments(label[0].numpy())
        size = np.bincount(number.ravel())
        many = [i for i in np.flatnonzero(size >= 60) if size[i] <= 3000]
        if not many: continue
        region = number == rng.choice(many)
        z, new = draw_noise(1, G.z_dim, 100 + place), draw_noise(1, G.z_dim, 900 + place)
        before, after = image_to_uint8(G.sample(label, z))[0], image_to_uint8(G.sample(label, resample_region(z, torch.from_numpy(region), new)))[0]
        everywhere = difference(before, image_to_uint8(G.sample(label, new))[0])
        change = difference(before, after)
        found, distance = leak(change, region), distance_to(region)
        rows.append({"class": SCENE_CLASSES[int(label[0].numpy()[region][0])], "area": int(region.sum()), "inside": found["inside"], "mean_inside": found["mean_inside"], "mean_outside": found["mean_outside"],
                     "mean_inside_where_all_changes": float(everywhere[region].mean()), "farthest": found["farthest"],
                     "by_distance": [float(change[distance == d].mean()) if (distance == d).any() else None for d in range(65)]})
    by_distance = [[r["by_distance"][d] for r in rows if r["by_distance"][d] is not None] for d in range(65)]
    mean = lambda key: float(np.mean([r[key] for r in rows]))
    return {"regions": len(rows), "reach": reach(G), "inside": mean("inside"), "mean_inside": mean("mean_inside"), "mean_outside": mean("mean_outside"), "farthest": max(r["farthest"] for r in rows),
            "mean_inside_where_all_changes": mean("mean_inside_where_all_changes"), "by_distance": [float(np.mean(v)) if v else None for v in by_distance],
            "each": [{k: v for k, v in r.items() if k != "by_distance"} for r in rows]}


# ---- g: the average

def lesson_ema(at):
    "g. Four generators from each checkpoint."
    found, shown = {}, []
    first = at.runs / at.finished()[0]
    for run in dict.fromkeys([first, at.long]):
        for step, checkpoint in sorted(at_steps(run).items()):
            raw, average, config = generator_at(checkpoint, "generator"), generator_at(checkpoint, "ema"), config_of(checkpoint)
            nets = {"generator": raw, "generator, statistics anew": anew(raw, config, config.optim.ema_bn_batches), "average, blended statistics": average,
                    "average, statistics anew": sampler_at(checkpoint)}
            run_name = "long" if run == at.long else run.name
            found.setdefault(run_name, {"ema_decay": config.optim.ema_decay, "steps": {}})["steps"][step] = {k: {m: v for m, v in at.scenes.score(G).items() if m in ("miou", "pixel_accuracy", "FD-scenes")} for k, G in nets.items()}
            print(run_name, step, {k: (round(100 * v["miou"], 1), round(v["FD-scenes"], 2)) for k, v in found[run_name]["steps"][step].items()}, flush=True)
            shown = [[*image_to_uint8(at.scenes.draw(G, 4))] for G in nets.values()]
    at.picture("ema", [list(image_to_uint8(at.scenes.image[:4])), *shown])
    return {"pictures": len(at.scenes.label), "runs": found}


# ---- the whole

class Place:
    "Where everything lies."

    def __init__(self, args):
        self.runs, self.long, self.pictures, self.wanted = args.runs, args.long or args.runs / args.train[0], args.pictures, args.train
        self.batches = 2 if args.images < 50 else 20
        steps = at_steps(self.long)
        best = self.long / "best"
        self.long_checkpoint = best if (best / "state.json").is_file() else steps[max(steps)]
        self.trained, self.scenes = sampler_at(self.long_checkpoint) if args.long is None else load_generator(self.long_checkpoint)[0], Scenes(args.images)

    def finished(self): return [name for name in self.wanted if at_steps(self.runs / name)]

    def picture(self, name, rows):
        if self.pictures: Image.fromarray(tile(rows)).quantize(192).save(self.pictures / f"lessons_{name}.png", optimize=True)


def seeds(record):
    "The few numbers of every run that a comparison of seeds needs; None where a part of the record is missing."
    if not {"runs", "labelmix"} <= set(record): return None
    runs, mixing = record["runs"], record["labelmix"]["discriminators"]
    last = {name: run["scores"].get(runs["step"]) or run["scores"][str(runs["step"])] for name, run in runs["runs"].items()}
    return {"environment": runs["environment"], "trained_with_revision": runs.get("trained_with_revision"), "step": runs["step"], "pictures": runs["pictures"],
            "runs": {name: {"miou": score["miou"], "FD-scenes": score["FD-scenes"], **({"mixing_error": mixing[name]["relative_to_difference"]} if name in mixing else {})} for name, score in last.items()},
            "real_pixels_by_class": record["labelmix"]["real_pixels_by_class"]}


def write(path, value):
    "A file, whole or not at all."
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "lessons")
    parser.add_argument("--long", type=Path)
    parser.add_argument("--only", nargs="*", choices=LESSONS, default=LESSONS)
    parser.add_argument("--train", nargs="*", choices=RUNS, default=RUNS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="further settings of the small runs")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS / "lessons.json")
    parser.add_argument("--revision", help="of the code that trained the runs, where it is not the present one")
    parser.add_argument("--measure", action="store_true", help="train nothing, measure the runs as far as they are")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    for name in args.train:
        done = at_steps(args.runs / name)
        if args.measure or max(done, default=0) >= args.steps: continue
        more = [word for pair in args.set for word in ("--set", pair)]
        subprocess.run([sys.executable, Path(__file__).with_name("lessons_train.py"), args.runs, "--only", name, "--steps", str(args.steps), *more], check=True)
    at = Place(args)
    result = json.loads(args.out.read_text()) if args.out.is_file() else {}
    long = read_record(at.long / "run.json") if (at.long / "run.json").is_file() else {}
    for name in args.only:
        found = rounded({"environment": environment(), "trained_with_revision": args.revision, **globals()[f"lesson_{name}"](at)})
        result[name] = {k: v for k, v in found.items() if v is not None}
        about = {"checkpoint": at.long_checkpoint.name, "step": read_record(at.long_checkpoint / "state.json")["step"], "device": long.get("device"), "command": command(config_of(at.long_checkpoint))}
        write(args.out, {"long": about, **{k: v for k, v in result.items() if k != "long"}})
        if found := seeds(result): write(args.out.with_name(f"{args.out.stem}_seeds.json"), found)
        print(f"{name}: done", flush=True)


if __name__ == "__main__": main()
