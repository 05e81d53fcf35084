"""The networks, losses, gradients and optimisation steps give the numbers of the released code, in float64.

`golden/*.npz` were made by running the released code on tensors that `golden/fill.py` rebuilds from names and shapes.
The steps and gradients run the same functions that training runs.
"""
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch

from dpgan import losses
from dpgan.checkpoint import convert_released_discriminator, convert_released_generator
from dpgan.config import preset
from dpgan.discriminator import Discriminator
from dpgan.ema import EMA
from dpgan.generator import Generator
from dpgan.training import Update, d_step, discriminator_terms, frozen, g_step, generator_terms
from golden import fill

FOLDER = Path(__file__).parent / "golden"
SALT = "public-1"
CONVERT = {"G": convert_released_generator, "D": convert_released_discriminator}
MARK = {"G": "conv_img.weight", "D": "layer_up_last.weight"}


def golden(name): return np.load(FOLDER / f"{name}.npz")


def double(array): return torch.tensor(array, dtype=torch.float64)


def network(net, kind, num_classes, base_channels=64):
    "Our network with the filled weights of the released one, in float64."
    shapes = fill.released_shapes((FOLDER / f"state_dict_keys_{kind}.txt").read_text(), num_classes, base_channels)
    state = {k: torch.tensor(v) for k, v in fill.fill(shapes, SALT, kind).items()}
    net.load_state_dict(CONVERT[kind](state), strict=True)
    return net.double()


def generator(num_classes=6, base_channels=8): return network(Generator(num_classes, base_channels), "G", num_classes, base_channels)


def discriminator(num_classes=6): return network(Discriminator(num_classes), "D", num_classes)


def our_key(kind, key):
    "Our name of a released tensor."
    return next(k for k, t in CONVERT[kind]({MARK[kind]: 0, key: 1}).items() if t == 1 or key == MARK[kind])


def assert_near(ours, theirs, tolerance, what):
    "Largest difference within the tolerance, relative to numbers above 1."
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    gap = np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs)))
    assert gap <= tolerance, f"{what}: off by {gap:.2e}, allowed {tolerance:.0e}"


def assert_tensors(kind, tensors, gold, prefix, tolerance, leave_out=()):
    "Norm and projection of every tensor, relative to its norm."
    for key, norm, proj in zip(gold[f"{kind}_keys"], gold[f"{prefix}_norm"], gold[f"{prefix}_proj"]):
        if key in leave_out: continue
        t = tensors[our_key(kind, key)]
        if np.isnan(norm):
            assert t is None, f"{prefix} {key} must have no gradient"
            continue
        flat = t.detach().numpy().ravel()
        ours = np.array([np.linalg.norm(flat), flat @ fill.direction(SALT, f"{kind}.{key}", flat.size)])
        gap = np.max(np.abs(ours - [norm, proj])) / norm
        assert gap <= tolerance, f"{prefix} {key}: off by {gap:.2e} of its norm, allowed {tolerance:.0e}"


def mean_std(t): return [t.mean().item(), t.std(correction=0).item()]


def record(modules):
    "Outputs of modules during the next forward pass."
    seen = {}
    for name, m in modules.items(): m.register_forward_hook(lambda m, args, out, name=name: seen.__setitem__(name, out.detach()))
    return seen


@pytest.fixture(params=["described", "released"])
def objective(request): return request.param


def config(objective):
    return preset("cityscapes", num_classes=6, lambda_labelmix=5, patch_grad=objective == "described")


def batch():
    return {"label": torch.tensor(fill.labels(SALT, 2, 64, 256, 6)), "image": double(fill.images(SALT, 2, 64, 256))}


def noise(name): return double(fill.latents(SALT, name, 2))


def mask(name, label): return torch.tensor(fill.mask(SALT, label.numpy(), 6, name)).bool()


def test_fill_rebuilds_the_inputs():
    gold = golden("fill_check")
    assert fill.uniform("public", "G.fc.weight", 3).tolist() == [0.7227186039090157, 0.7618723842315376, 0.30548096308484674]
    for kind, base in (("G", 8), ("D", 64)):
        shapes = fill.released_shapes((FOLDER / f"state_dict_keys_{kind}.txt").read_text(), 6, base)
        state = fill.fill(shapes, SALT, kind)
        state = [state[k] for k in gold[f"{kind}_keys"]]
        assert [str(v.shape) for v in state] == gold[f"{kind}_shapes"].tolist()
        assert_near([v.ravel()[0] for v in state], gold[f"{kind}_first"], 1e-7, f"first values of {kind}")
        assert_near([v.astype(np.float64).sum() for v in state], gold[f"{kind}_sum"], 1e-6, f"sums of {kind}")
    for w in (64, 128, 256):
        assert crc32(fill.labels(SALT, 2, 64, w, 6).astype(np.uint8).tobytes()) == gold[f"labels_64x{w}_crc32"]
        assert_near(fill.images(SALT, 2, 64, w).astype(np.float64).sum(), gold[f"image_64x{w}_sum"], 1e-6, f"sum of the images of width {w}")
    for name in ("eval", "g0", "d0", "g1", "d1"): assert np.array_equal(fill.latents(SALT, name, 2), gold[f"z_{name}"])


@pytest.mark.parametrize("name, num_classes, base, size, stride", [
    ("g_small_64x128", 6, 8, (2, 64, 128), 1), ("g_small_64x64", 6, 8, (2, 64, 64), 1),
    ("g_city_256x512", 35, 64, (1, 256, 512), 8), ("g_ade_256x256", 151, 64, (1, 256, 256), 8)])
def test_generator(name, num_classes, base, size, stride):
    gold, G = golden(name), generator(num_classes, base).eval()
    seen = record({"stem": G.stem, **{f"level{i}": m for i, m in enumerate(G.pyramid.stages)}, **{f"block{i}": m for i, m in enumerate(G.blocks)}})
    label = torch.tensor(fill.labels(SALT, *size, num_classes))
    assert np.bincount(label.flatten(), minlength=num_classes).tolist() == gold["label_hist"].tolist()
    with torch.no_grad(): image = G(label, double(fill.latents(SALT, "eval", size[0])))
    assert_near(image[..., ::stride, ::stride], gold["image"], 1e-7, "image")
    assert_near(mean_std(image), gold["image_mean_std"], 1e-9, "mean and deviation of the image")
    assert_near([mean_std(seen[f"level{i}"]) for i in range(7)], gold["pyramid_mean_std"], 1e-9, "pyramid")
    assert_near(mean_std(seen["stem"]), gold["fc_mean_std"], 1e-9, "stem")
    assert_near([mean_std(seen[f"block{i}"]) for i in range(6)], gold["block_mean_std"], 1e-9, "blocks")


def test_generator_in_training_mode():
    gold, G = golden("g_small_64x128_train"), generator().train()
    with torch.no_grad(): image = G(torch.tensor(fill.labels(SALT, 2, 64, 128, 6)), noise("eval"))
    assert_near(image, gold["image"], 1e-7, "image")
    assert_tensors("G", G.state_dict(), gold, "G", 1e-9)


@pytest.mark.parametrize("name, num_classes, size, stride", [("d_64x128", 6, (2, 64, 128), 1), ("d_city_256x512", 35, (1, 256, 512), 16)])
def test_discriminator(name, num_classes, size, stride):
    gold, D = golden(name), discriminator(num_classes).eval()
    seen = record({"up0": D.decoder[0], **{f"down{i}": m for i, m in enumerate(D.encoder)}})
    with torch.no_grad(): out = D(double(fill.images(SALT, *size)))
    assert_near(out.class_logits[..., ::stride, ::stride], gold["logits"], 1e-7, "class logits")
    assert_near(mean_std(out.class_logits), gold["logits_mean_std"], 1e-9, "mean and deviation of the class logits")
    for i in range(2): assert_near(out.patch_logits[i], gold[f"score{i}"], 1e-7, f"patch head {i}")
    assert [list(f.shape) for f in out.decoder_features] == gold["feat_shapes"].tolist()
    assert_near([mean_std(f) for f in out.decoder_features], gold["feat_mean_std"], 1e-9, "decoder features")
    assert_near([mean_std(seen[f"down{i}"]) for i in range(6)], gold["down_mean_std"], 1e-9, "encoder")
    assert_near(mean_std(seen["up0"]), gold["up0_mean_std"], 1e-9, "first decoder block")


def given(name, *shape): return double((2 * fill.uniform(SALT, name, int(np.prod(shape)))).astype(np.float32).reshape(shape))


@pytest.mark.parametrize("dont_care", [True, False], ids=["dontcare", "plain"])
@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
def test_cross_entropies(dont_care, balanced):
    gold, label = golden("losses"), torch.tensor(fill.labels(SALT, 2, 32, 64, 6))
    case = f"{'dontcare' if dont_care else 'plain'}_{'balanced' if balanced else 'unbalanced'}"
    weight = losses.class_weights(label, 6, dont_care, torch.float64) if balanced else None
    if balanced: assert_near(weight, gold[f"class_weight_{case.split('_')[0]}"], 1e-12, "class weights")
    for name, loss in (("real", lambda x: losses.class_loss(x, label, weight)), ("fake", losses.fake_loss)):
        logits = given("logits", 2, 7, 32, 64).requires_grad_()
        value = loss(logits)
        value.backward()
        assert_near(value, gold[f"ce_{name}_{case}"], 1e-12, name)
        assert_near(logits.grad.norm(), gold[f"ce_{name}_{case}_gradnorm"], 1e-12, f"gradient of {name}")


def test_cross_entropy_where_nothing_counts():
    label = torch.zeros(2, 32, 64, dtype=torch.long)
    weight = losses.class_weights(label, 6, True, torch.float64)
    assert losses.class_loss(given("logits", 2, 7, 32, 64), label, weight).item() == golden("losses")["ce_real_all_dontcare"] == 0


def test_other_loss_terms():
    gold = golden("losses")
    label = torch.tensor(fill.labels(SALT, 2, 32, 64, 6))
    scores = [given("score0", 2, 1, 8, 16), given("score1", 2, 1, 2, 4)]
    assert_near(losses.patch_loss_generator(scores), gold["hinge_G"], 1e-12, "hinge of G")
    assert_near(losses.patch_loss_real(scores), gold["hinge_D_real"], 1e-12, "hinge of D, real")
    assert_near(losses.patch_loss_fake(scores), gold["hinge_D_fake"], 1e-12, "hinge of D, fake")
    features = [[given(f"{name}{i}", 2, 4 + i, 4 * 2 ** i, 8 * 2 ** i) for i in range(3)] for name in ("feat", "feat_ref")]
    assert_near(losses.alignment_loss(*features), gold["align"], 1e-12, "alignment")
    coins = mask("mask", label)
    assert_near(coins.double().mean(), gold["mask_mean"], 1e-12, "mask")
    real, fake = double(fill.images(SALT, 2, 32, 64)), double(fill.images(SALT + "fake", 2, 32, 64))
    assert_near(mean_std(losses.mix(real, fake, coins)), gold["mixed_mean_std"], 1e-9, "mixed image")
    logits = [given(name, 2, 7, 32, 64) for name in ("d_mixed", "d_real", "d_fake")]
    assert_near(losses.labelmix_loss(*logits, coins), gold["labelmix_unscaled"], 1e-12, "LabelMix")


TERMS_G = {"total": "loss_G", "adv": "G_ce_real", "patch": "G_ms_G", "align": "G_align"}
TERMS_D = {"total": "loss_D", "fake": "D_ce_fake", "real": "D_ce_real", "patch_fake": "D_ms_fake", "patch_real": "D_ms_real", "labelmix": "D_labelmix_unscaled"}


def assert_terms(terms, names, gold, prefix, tolerance):
    for ours, theirs in names.items(): assert_near(terms[ours], gold[prefix + theirs], tolerance, prefix + theirs)


def gradients(net): return {k: p.grad for k, p in net.named_parameters()}


def test_gradients_of_the_generator(objective):
    gold, G, D = golden(f"grads_{objective}"), generator().train(), discriminator().train()
    with frozen(D): terms = generator_terms(G, D, batch(), noise("g0"), config(objective))
    terms["total"].backward()
    assert_terms(terms, TERMS_G, gold, "", 1e-9)
    assert_tensors("G", gradients(G), gold, "G", 1e-8, gold["null_G"])
    assert all(G.get_parameter(our_key("G", k)).grad.norm() < 1e-9 for k in gold["null_G"])
    assert all(p.grad is None for p in D.parameters())


def test_gradients_of_the_discriminator(objective):
    gold, G, D, b = golden(f"grads_{objective}"), generator().train(), discriminator().train(), batch()
    terms = discriminator_terms(G, D, b, noise("d0"), mask("mask0", b["label"]), config(objective))
    terms["total"].backward()
    assert_terms(terms, TERMS_D, gold, "", 1e-9)
    assert_tensors("D", gradients(D), gold, "D", 1e-8, [] if objective == "released" else gold["null_D"])
    assert all(p.grad is None for p in G.parameters())


def test_two_iterations(objective):
    "G step and D step, twice, from the filled weights: every loss term, every tensor of both networks, the average."
    gold, G, D, b, cfg = golden(f"steps_{objective}"), generator().train(), discriminator().train(), batch(), config(objective)
    nets, left_out = {"G": G, "D": D}, {k: gold[f"null_{k}"] for k in "GD"}
    update_g, update_d, ema = Update(G, 2e-4), Update(D, 2e-4), EMA(G, 0.999)
    for i in range(2):
        terms = g_step(G, D, update_g, [b], lambda label: noise(f"g{i}"), cfg)
        assert_terms(terms, TERMS_G, gold, f"step{i}_", 1e-9 if i == 0 else 1e-7)
        for k, net in nets.items(): assert_tensors(k, net.state_dict(), gold, f"step{i}_afterG_{k}", 1e-7, left_out[k])
        terms = d_step(G, D, update_d, [b], lambda label: noise(f"d{i}"), lambda label: mask(f"mask{i}", label), cfg)
        assert_terms(terms, TERMS_D, gold, f"step{i}_", 1e-9 if i == 0 else 1e-7)
        for k, net in nets.items(): assert_tensors(k, net.state_dict(), gold, f"step{i}_afterD_{k}", 1e-7, left_out[k])
        ema.update(G)
        # the released average shortens the singular vectors; ours keeps them at length 1, so they are compared by direction
        vectors = [k for k in gold["G_keys"] if k.endswith(("weight_u", "weight_v"))]
        assert_tensors("G", ema.net.state_dict(), gold, f"step{i}_EMA", 1e-7, {*vectors, *left_out["G"]})
        for key, norm, proj in zip(gold["G_keys"], gold[f"step{i}_EMA_norm"], gold[f"step{i}_EMA_proj"]):
            if key in vectors:
                u = ema.net.state_dict()[our_key("G", key)].numpy()
                assert abs(np.linalg.norm(u) - 1) < 1e-12
                assert abs(u @ fill.direction(SALT, f"G.{key}", u.size) - proj / norm) < 1e-7, key
    counters = {kind: [t.item() for k, t in net.state_dict().items() if k.endswith("num_batches_tracked")] for kind, net in nets.items()}
    assert set(counters["G"]) == {int(gold["nbt_G"])} and set(counters["D"]) == {int(gold["nbt_D"])}


@pytest.mark.parametrize("kind, wrong", [("G", {"head.weight": torch.zeros(1)}), ("D", {})])
def test_state_dicts_of_something_else_are_refused(kind, wrong):
    with pytest.raises(ValueError, match="no state dict of the released"): CONVERT[kind](wrong)


def test_data_parallel_prefix_is_dropped():
    assert list(convert_released_generator({"module.conv_img.weight": 0})) == ["head.weight"]
