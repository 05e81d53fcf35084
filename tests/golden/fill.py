"""Deterministic weights and inputs for the golden tests: integer hashes of (salt, name, position), numpy only.

Any implementation can rebuild the same tensors from a name and a shape, so no weights travel with the tests. Hashes
are exact 32-bit arithmetic; one float64 formula turns them into numbers, which are cast to float32 at the end.
"""
import re
from math import prod, sqrt
from zlib import crc32

import numpy as np


def murmur(x):
    "Murmur3's 32-bit finaliser on an array of 32-bit words."
    x = x.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)): x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x


def uniform(salt, name, n):
    "n float64 numbers in [-1, 1) that depend on salt, name and position alone."
    start, key = crc32(name.encode()), crc32(f"{salt}|{name}".encode())
    i = np.arange(n, dtype=np.uint32) + np.uint32(start)
    return murmur(murmur(i) ^ np.uint32(key)) / 2.0 ** 31 - 1


def latents(salt, name, batch, dim=64):
    "(batch, dim) noise of unit variance."
    return (sqrt(3) * uniform(salt, f"z.{name}", batch * dim)).reshape(batch, dim).astype(np.float32)


def direction(salt, name, n):
    "The fixed direction on which a tensor of n numbers is projected."
    return sqrt(3) * uniform(salt, f"dir.{name}", n)


def labels(salt, b, h, w, num_classes):
    "(b, h, w) class ids in hashed cells; class 0 always occurs, the last class never."
    k = crc32(salt.encode()) % 97
    n, y, x = np.ogrid[:b, :h, :w]
    cell = 31 * (y // 7) + 17 * (x // 11) + 5 * ((x + 2 * y + k) // 23) + 101 * n + k
    r = murmur(cell).astype(np.int64)
    label = np.minimum(r % (num_classes - 1), (r // 65536) % (num_classes - 1))
    label[:, :3, :w // 4] = 0
    return label


def images(salt, b, h, w):
    "(b, 3, h, w) in (-1, 1): slow waves and a little noise."
    t = (crc32(salt.encode()) % 1000) / 1000
    n, c, y, x = np.ogrid[:b, :3, :h, :w]
    wave = np.sin(0.13 * y + 0.7 * c + 6.2 * t + n) * np.cos(0.07 * x - 1.1 * c + 3 * t * n)
    return (0.7 * wave + 0.2 * uniform(salt, "image", wave.size).reshape(wave.shape)).astype(np.float32)


def mask(salt, label, num_classes, name):
    "(b, 1, h, w) one coin a class, 1 = real; both sides occur."
    coin = (uniform(salt, name, num_classes) >= 0).astype(np.float32)
    present = np.unique(label)
    if len(set(coin[present])) == 1: coin[present[0]] = 1 - coin[present[0]]
    return coin[label][:, None]


def released_shapes(text, num_classes, base_channels=64):
    "{key: shape} of a released state dict, from its listing for 35 classes and width 64."
    shapes = {}
    for line in text.splitlines():
        if line.startswith("#"): continue
        key, shape = re.match(r"(\S+) \w+ \(([^)]*)\)", line).groups()
        shapes[key] = tuple(int(s) for s in shape.split(",") if s.strip())
    return {k: rescale(k, s, num_classes, base_channels) for k, s in shapes.items()}


def rescale(key, shape, num_classes, base):
    "The shape a tensor of the listing has with other classes and another generator width (the pyramid stays 64 wide)."
    swap = lambda n: n * base // 64
    if key.startswith(("seg_pyrmid.0.0.weight", "fc.weight")): shape = (shape[0], 64 + num_classes, *shape[2:])
    if key.startswith("layer_up_last"): shape = (num_classes + 1, *shape[1:])
    if key == "conv_img.weight": return (3, swap(shape[1]), 3, 3)
    if key.startswith("fc."): return (swap(shape[0]), *shape[1:])
    if re.match(r"body\.\d", key):
        if "mlp_" in key: return (swap(shape[0]), *shape[1:])
        if key.endswith("weight_orig"): return (swap(shape[0]), swap(shape[1]), *shape[2:])
        return tuple(swap(n) for n in shape)
    return shape


GAINS = {"": 1.4, "mlp_gamma": 0.5, "mlp_beta": 0.7, "conv_img": 1.0, "layer_up_last": 12.0, "dis.0.0": 16.0, "dis.1.0": 100.0}


def fill(shapes, salt, net):
    "{key: float32 array} for a released state dict of the network G or D."
    normed = {k.removesuffix("running_mean") for k in shapes if k.endswith("running_mean")}
    state = {}
    for key, shape in shapes.items():
        stem, leaf = re.match(r"(.*\.)(\w+)$", key).groups()
        u = uniform(salt, f"{net}.{key}", prod(shape)).reshape(shape)
        if leaf == "num_batches_tracked": state[key] = np.zeros((), np.int64)
        elif leaf == "running_mean": state[key] = 0.1 * u
        elif leaf == "running_var": state[key] = 1 + 0.5 * u
        elif leaf == "bias": state[key] = (0.01 if net == "D" and key.startswith("body_") else 0.1) * u
        elif stem in normed: state[key] = 1 + 0.2 * u
        elif leaf not in ("weight_u", "weight_v"):
            gain = [g for word, g in GAINS.items() if word in key][-1]
            state[key] = u * (sqrt(3 / prod(shape[1:])) * gain)
    for key in [k for k in shapes if k.endswith("weight_u")]:
        matrix = state[key[:-1] + "orig"].reshape(shapes[key][0], -1).astype(np.float32).astype(np.float64)
        u = uniform(salt, f"{net}.{key}", len(matrix))
        u /= np.linalg.norm(u)
        for _ in range(3):
            v = matrix.T @ u; v /= np.linalg.norm(v)
            u = matrix @ v; u /= np.linalg.norm(u)
        state[key], state[key[:-1] + "v"] = u, v
    return {k: v if v.dtype == np.int64 else v.astype(np.float32) for k, v in ((k, state[k]) for k in shapes)}
