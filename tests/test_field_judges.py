"""The field's judges: the official files' tensors by name and shape, networks equal to independent assemblies, protocols, Hugging Face checkpoints, errors."""
import inspect
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpgan.features import WeightsError
from dpgan.field_judges import (CITYSCAPES_TRAIN, UPERNET_SIDES, Bottleneck, DRNSeg, MultiScale, UperNetDecoder, UperNetEncoder, bilinear_kernel,
                                drn_judge, filled, looking_size, match_classes, transformers_judge, upernet_judge)
from dpgan.judges import JudgeError, check_judge
from dpgan.labels import ADE20K, CITYSCAPES, ClassSet

few = settings(max_examples=25, deadline=None, derandomize=True)


def draw(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
def pictures(*shape, seed=0): return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
def shapes(net): return {k: tuple(t.shape) for k, t in net.state_dict().items()}


def on_meta(make, *args, **kwargs):
    "A network's shapes without its numbers."
    with torch.device("meta"): return make(*args, **kwargs)


@torch.no_grad()
def lively(net, seed=0):
    "Random weights that keep signals alive, and batch norms with statistics of their own."
    rng = torch.Generator().manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.Conv2d): m.weight.copy_(torch.randn(m.weight.shape, generator=rng) * (2 / m.weight[0].numel()) ** 0.5)
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.running_mean, m.bias): t.copy_(torch.randn(t.shape, generator=rng) * 0.1)
            for t in (m.running_var, m.weight): t.copy_(torch.rand(t.shape, generator=rng) + 0.5)
    return net.eval()


# what the official files hold, written down from the public sources in their own terms, not from our modules

def batch_norm(name, n, counter=True):
    "A batch norm's five tensors; files from before 2018 lack the counter."
    return {**{f"{name}.{k}": (n,) for k in ("weight", "bias", "running_mean", "running_var")}, **({f"{name}.num_batches_tracked": ()} if counter else {})}


def unit(name, out, inn, k): return {f"{name}.0.weight": (out, inn, k, k), **batch_norm(f"{name}.1", out)}


def residual_stage(name, inn, planes, depth, projected):
    "A stage of bottlenecks as torchvision names it; the first block has a projection beside it."
    found = {}
    for i in range(depth):
        block, source = f"{name}.{i}", inn if i == 0 else 4 * planes
        for j, (out, into, k) in enumerate(((planes, source, 1), (planes, planes, 3), (4 * planes, planes, 1)), 1):
            found |= {f"{block}.conv{j}.weight": (out, into, k, k), **batch_norm(f"{block}.bn{j}", out)}
        if i == 0 and projected: found |= {f"{block}.downsample.0.weight": (4 * planes, source, 1, 1), **batch_norm(f"{block}.downsample.1", 4 * planes)}
    return found


OFFICIAL_DRN = {
    **unit("base.0", 16, 3, 7), **unit("base.1", 16, 16, 3), **unit("base.2", 32, 16, 3),
    **residual_stage("base.3", 32, 64, 3, True), **residual_stage("base.4", 256, 128, 4, True), **residual_stage("base.5", 512, 256, 23, True),
    **residual_stage("base.6", 1024, 512, 3, True), **unit("base.7", 512, 2048, 3), **unit("base.8", 512, 512, 3),
    "seg.weight": (19, 512, 1, 1), "seg.bias": (19,), "up.weight": (19, 1, 16, 16)}
OFFICIAL_DECODER = {
    **{k: v for i in range(4) for k, v in unit(f"ppm_conv.{i}", 512, 2048, 1).items()}, **unit("ppm_last_conv", 512, 2048 + 4 * 512, 3),
    **{k: v for i, c in enumerate((256, 512, 1024)) for k, v in unit(f"fpn_in.{i}", 512, c, 1).items()},
    **{k: v for i in range(3) for k, v in unit(f"fpn_out.{i}.0", 512, 512, 3).items()},
    **unit("conv_last.0", 512, 4 * 512, 3), "conv_last.1.weight": (150, 512, 1, 1), "conv_last.1.bias": (150,)}


def official_encoder():
    "torchvision's ResNet-101 without its classifier, with the deep stem's three convolutions and a first block that gets 128 channels."
    found = {k: v for k, v in shapes(on_meta(torchvision.models.resnet101)).items() if not k.startswith("fc.")}
    for i, (out, inn) in enumerate(((64, 3), (64, 64), (128, 64)), 1): found |= {f"conv{i}.weight": (out, inn, 3, 3), **batch_norm(f"bn{i}", out)}
    return found | {"layer1.0.conv1.weight": (64, 128, 1, 1), "layer1.0.downsample.0.weight": (256, 128, 1, 1)}


def test_drn_has_the_official_tensors(): assert shapes(on_meta(DRNSeg)) == OFFICIAL_DRN
def test_upernet_has_the_official_encoder(): assert shapes(on_meta(UperNetEncoder)) == official_encoder()
def test_upernet_has_the_official_decoder(): assert shapes(on_meta(UperNetDecoder)) == OFFICIAL_DECODER


def test_drn_has_the_parameters_its_authors_count():
    base = sum(p.numel() for p in on_meta(DRNSeg).base.parameters())
    assert round((base + 512 * 1000 + 1000) / 1e6, 1) == 54.8   # README of fyu/drn: 54.8M with its ImageNet classifier
    assert sum("downsample" not in n for n, m in on_meta(DRNSeg).named_modules() if isinstance(m, nn.Conv2d)) == 105


def test_drn_dilates_where_the_official_one_does():
    convs = {n: m for n, m in on_meta(DRNSeg).named_modules() if isinstance(m, nn.Conv2d)}
    strided = {n for n, m in convs.items() if m.stride != (1, 1)}
    assert strided == {"base.2.0", "base.3.0.conv2", "base.3.0.downsample.0", "base.4.0.conv2", "base.4.0.downsample.0"}
    for part, dilation in (("base.3.", 1), ("base.4.", 1), ("base.5.", 2), ("base.6.", 4), ("base.7.", 2), ("base.8.", 1)):
        assert {m.dilation for n, m in convs.items() if n.startswith(part) and m.kernel_size == (3, 3)} == {(dilation, dilation)}
    assert all(m.padding == m.dilation for m in convs.values() if m.kernel_size == (3, 3))


# networks equal to independent assemblies

@pytest.mark.parametrize("channels, width, stride, dilation", [(16, 4, 1, 1), (16, 4, 1, 4), (16, 8, 1, 2), (16, 8, 2, 1), (32, 8, 2, 1)])
def test_block_is_torchvisions(channels, width, stride, dilation):
    ours = lively(Bottleneck(channels, width, stride, dilation))
    project = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)) if "downsample.0.weight" in ours.state_dict() else None
    assert (project is None) == (stride == 1 and channels == 4 * width)
    theirs = torchvision.models.resnet.Bottleneck(channels, width, stride, project, dilation=dilation).eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(draw(2, channels, 13, 9)), theirs(draw(2, channels, 13, 9)), rtol=0, atol=0)


def plain_unit(state, name, x, stride=1, dilation=1, keys=("0", "1")):
    "Convolution, batch norm and ReLU by torch's functions alone."
    w, bn = state[f"{name}.{keys[0]}.weight"], f"{name}.{keys[1]}"
    x = F.conv2d(x, w, stride=stride, padding=dilation * (w.shape[-1] // 2), dilation=dilation)
    return F.relu(F.batch_norm(x, state[f"{bn}.running_mean"], state[f"{bn}.running_var"], state[f"{bn}.weight"], state[f"{bn}.bias"]))


def plain_block(state, name, x, stride, dilation):
    "A bottleneck by torch's functions alone."
    def norm(bn, y): return F.batch_norm(y, state[f"{bn}.running_mean"], state[f"{bn}.running_var"], state[f"{bn}.weight"], state[f"{bn}.bias"])
    y = F.relu(norm(f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])))
    y = F.relu(norm(f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=dilation, dilation=dilation)))
    y = norm(f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in state: x = norm(f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride))
    return F.relu(y + x)


def test_drn_is_its_layers_in_order():
    net = lively(DRNSeg(7, width=2, depths=(2, 1, 2, 1)))
    s, x = net.state_dict(), draw(2, 3, 40, 56)
    ours = net(x)
    for i, stride in ((0, 1), (1, 1), (2, 2)): x = plain_unit(s, f"base.{i}", x, stride)
    for i, depth, stride, dilation in ((3, 2, 2, 1), (4, 1, 2, 1), (5, 2, 1, 2), (6, 1, 1, 4)):
        for j in range(depth): x = plain_block(s, f"base.{i}.{j}", x, stride if j == 0 else 1, dilation)
    x = plain_unit(s, "base.8", plain_unit(s, "base.7", x, dilation=2))
    x = F.conv_transpose2d(F.conv2d(x, s["seg.weight"], s["seg.bias"]), s["up.weight"], stride=8, padding=4, groups=7)
    assert ours.shape == (2, 7, 40, 56) and ours.std() > 1e-3
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


def test_upernet_is_its_layers_in_order():
    encoder, decoder = lively(UperNetEncoder(width=2, depths=(1, 2, 1, 1)), 1), lively(UperNetDecoder(5, width=8, inputs=(8, 16, 32, 64)), 2)
    x, maps = draw(1, 3, 64, 96), []
    ours, s = decoder(encoder(x)), encoder.state_dict()
    for i, stride in ((1, 2), (2, 1), (3, 1)): x = plain_unit({f"u.{k}": t for k, t in s.items()}, "u", x, stride, keys=(f"conv{i}", f"bn{i}"))
    x = F.max_pool2d(x, 3, 2, 1)
    for i, depth, stride in ((1, 1, 1), (2, 2, 2), (3, 1, 2), (4, 1, 2)):
        for j in range(depth): x = plain_block(s, f"layer{i}.{j}", x, stride if j == 0 else 1, 1)
        maps.append(x)
    s, grow = decoder.state_dict(), lambda t, like: F.interpolate(t, like.shape[2:], mode="bilinear", align_corners=False)
    pools = [plain_unit(s, f"ppm_conv.{i}", grow(F.adaptive_avg_pool2d(x, n), x)) for i, n in enumerate((1, 2, 3, 6))]
    p5 = plain_unit(s, "ppm_last_conv", torch.cat([x, *pools], 1))
    p4 = plain_unit(s, "fpn_in.2", maps[2]) + grow(p5, maps[2])
    p3 = plain_unit(s, "fpn_in.1", maps[1]) + grow(p4, maps[1])
    p2 = plain_unit(s, "fpn_in.0", maps[0]) + grow(p3, maps[0])
    levels = [plain_unit(s, f"fpn_out.{i}.0", p) for i, p in enumerate((p2, p3, p4))] + [p5]
    y = plain_unit(s, "conv_last.0", torch.cat([grow(t, p2) for t in levels], 1))
    y = F.conv2d(y, s["conv_last.1.weight"], s["conv_last.1.bias"])
    assert ours.shape == (1, 5, 16, 24) and ours.std() > 1e-3
    torch.testing.assert_close(ours, y, rtol=1e-4, atol=1e-5)


def test_kernel_is_the_formula_of_the_official_code():
    f, side = 8, 16
    c = (2 * f - 1 - f % 2) / (2 * f)
    w = torch.tensor([[(1 - abs(i / f - c)) * (1 - abs(j / f - c)) for j in range(side)] for i in range(side)])
    torch.testing.assert_close(bilinear_kernel(8), w)
    assert bilinear_kernel(2).tolist() == [[a * b for b in (0.25, 0.75, 0.75, 0.25)] for a in (0.25, 0.75, 0.75, 0.25)]


@few
@given(h=st.integers(1, 6), w=st.integers(1, 6), seed=st.integers(0, 999))
def test_own_upsampling_names_the_same_classes(h, w, seed):
    up, logits = DRNSeg(5, width=1, depths=(1,) * 4).up, draw(1, 5, h, w, seed=seed)
    own, outside = up(logits), F.interpolate(logits, scale_factor=8.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(own[..., 4:-4, 4:-4], outside[..., 4:-4, 4:-4], rtol=1e-4, atol=1e-5)
    best = outside.topk(2, 1).values
    clear = (best[:, 0] - best[:, 1]) > 1e-4
    assert torch.equal(own.argmax(1)[clear], outside.argmax(1)[clear])


@few
@given(h=st.integers(1, 40), w=st.integers(1, 40))
def test_drn_answers_at_the_images_size(h, w):
    assert DRNSeg(3, width=1, depths=(1,) * 4).eval()(torch.zeros(1, 3, h, w)).shape == (1, 3, h, w)


# classes

OFFICIAL_TRAIN_IDS = {"road": 0, "sidewalk": 1, "building": 2, "wall": 3, "fence": 4, "pole": 5, "traffic light": 6, "traffic sign": 7, "vegetation": 8, "terrain": 9,
                      "sky": 10, "person": 11, "rider": 12, "car": 13, "truck": 14, "bus": 15, "train": 16, "motorcycle": 17, "bicycle": 18}
# ADE20K in detectron2's spelling, as checkpoints of MaskFormer and Mask2Former have it
ADE20K_LONG = """wall|building|sky|floor|tree|ceiling|road, route|bed|window |grass|cabinet|sidewalk, pavement|person|earth, ground|door|table|mountain, mount|plant|curtain|chair|car|water
|painting, picture|sofa|shelf|house|sea|mirror|rug|field|armchair|seat|fence|desk|rock, stone|wardrobe, closet, press|lamp|tub|rail|cushion|base, pedestal, stand|box|column, pillar
|signboard, sign|chest of drawers, chest, bureau, dresser|counter|sand|sink|skyscraper|fireplace|refrigerator, icebox|grandstand, covered stand|path|stairs|runway
|case, display case, showcase, vitrine|pool table, billiard table, snooker table|pillow|screen door, screen|stairway, staircase|river|bridge, span|bookcase|blind, screen|coffee table
|toilet, can, commode, crapper, pot, potty, stool, throne|flower|book|hill|bench|countertop|stove|palm, palm tree|kitchen island|computer|swivel chair|boat|bar|arcade machine
|hovel, hut, hutch, shack, shanty|bus|towel|light|truck|tower|chandelier|awning, sunshade, sunblind|street lamp|booth|tv|plane|dirt track|clothes|pole|land, ground, soil
|bannister, banister, balustrade, balusters, handrail|escalator, moving staircase, moving stairway|ottoman, pouf, pouffe, puff, hassock|bottle|buffet, counter, sideboard
|poster, posting, placard, notice, bill, card|stage|van|ship|fountain|conveyer belt, conveyor belt, conveyer, conveyor, transporter|canopy|washer, automatic washer, washing machine
|plaything, toy|pool|stool|barrel, cask|basket, handbasket|falls|tent|bag|minibike, motorbike|cradle|oven|ball|food, solid food|step, stair|tank, storage tank|trade name|microwave|pot
|animal|bicycle|lake|dishwasher|screen|blanket, cover|sculpture|hood, exhaust hood|sconce|vase|traffic light|tray|trash can|fan|pier|crt screen|plate|monitor|bulletin board|shower|radiator
|glass, drinking glass|clock|flag""".replace("\n", "").split("|")


def test_cityscapes_classes_become_train_ids():
    _, remap = match_classes(CITYSCAPES, CITYSCAPES_TRAIN)
    assert remap == tuple(OFFICIAL_TRAIN_IDS.get(name, -1) for name in CITYSCAPES.names)
    raw = {i: remap[k] for k, ids in enumerate(CITYSCAPES.raw_ids) for i in ids}
    assert [raw[i] for i in (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)] == list(range(19)) and sum(v >= 0 for v in raw.values()) == 19


@pytest.mark.parametrize("names", [ADE20K.names[1:], ADE20K_LONG, ["bed ", "television receiver", *(n for n in ADE20K.names[1:] if n not in ("bed", "television"))]], ids=["own", "long", "hub"])
def test_ade20k_in_every_spelling(names):
    spelled, remap = match_classes(ADE20K, names)
    assert len(names) == 150 and remap[0] == -1 and all(spelled[j] == ADE20K.names[i] for i, j in enumerate(remap) if i)
    if names[0] == "wall": assert remap == (-1, *range(150))


def class_set(*names, dont_care=True): return ClassSet("mine", names, ((0, 0, 0),) * len(names), dont_care, tuple((i,) for i in range(len(names))))


def test_index_0_is_scored_only_where_it_is_a_class():
    assert match_classes(class_set("other", "car"), ["other", "car"], partial=True)[1] == (-1, 1)
    assert match_classes(class_set("other", "car", dont_care=False), ["other", "car"])[1] == (0, 1)
    with pytest.raises(JudgeError, match="no 'other'"): match_classes(class_set("other", "car"), ["other", "car"])


def test_own_names_come_before_other_spellings(): assert match_classes(class_set("void", "window", "door"), ["door", "window"])[1] == (-1, 1, 0)


def test_missing_classes_are_refused_unless_told():
    with pytest.raises(JudgeError, match="136 of the judge's 150 classes"): match_classes(CITYSCAPES, ADE20K.names[1:])
    spelled, remap = match_classes(CITYSCAPES, ADE20K.names[1:], partial=True)
    assert {CITYSCAPES.names[i] for i, j in enumerate(remap) if j >= 0} == set(CITYSCAPES.names) & set(ADE20K.names)
    with pytest.raises(JudgeError): match_classes(class_set("void", "dragon"), CITYSCAPES_TRAIN, partial=True)


# files in the official form

def save(net, file, prefix="module.", counters=False, **more):
    "A state dict as data-parallel training of those years wrote it."
    torch.save({prefix + k: t for k, t in net.state_dict().items() if counters or not k.endswith("num_batches_tracked")} | {prefix + k: t for k, t in more.items()}, file)
    return file


def small_drn(): return DRNSeg(19, width=1, depths=(1, 1, 2, 1))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counters", [False, True])
def test_official_form_loads(tmp_path, prefix, counters):
    net = lively(small_drn())
    bookkeeping = {"base.0.1._tmp_running_mean": torch.zeros(1), "base.0.1._tmp_running_var": torch.ones(1), "base.0.1._running_iter": torch.ones(1)}
    before = torch.get_rng_state()
    copy = filled(small_drn, save(net, tmp_path / "drn.pth", prefix, counters, **bookkeeping))
    assert torch.equal(torch.get_rng_state(), before) and not copy.training and not any(p.requires_grad for p in copy.parameters())
    assert copy.state_dict().keys() == net.state_dict().keys() and torch.equal(copy(draw(1, 3, 16, 24)), net(draw(1, 3, 16, 24)))


def test_files_that_do_not_fit(tmp_path):
    deeper, wider = DRNSeg(19, width=1, depths=(1, 1, 3, 1)), DRNSeg(19, width=2, depths=(1, 1, 2, 1))
    for name, net, message in (("deeper", deeper, "no place for, among them base.5.2"), ("wider", wider, "has shape")):
        with pytest.raises(WeightsError, match=message): filled(small_drn, save(net, tmp_path / f"{name}.pth"))
    with pytest.raises(WeightsError, match="lacks"): filled(lambda: deeper, save(small_drn(), tmp_path / "shallower.pth"))
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(WeightsError, match="cannot be read"): filled(small_drn, tmp_path / "text.pth")


def official(expected, seed=0):
    "A random state dict of the official names and shapes, in half precision."
    rng = torch.Generator().manual_seed(seed)
    return {k: torch.zeros((), dtype=torch.long) if k.endswith("tracked") else torch.ones(v).half() if k.endswith(("running_var", "bn.weight")) else (torch.randn(v, generator=rng) * 0.02).half()
            for k, v in expected.items()}


def test_drn_judge_reads_the_official_file(tmp_path):
    file = tmp_path / "drn-d-105_ms_cityscapes.pth"
    torch.save({"module." + k: t for k, t in official(OFFICIAL_DRN).items() if not k.endswith("tracked")}, file)
    judge = drn_judge(file, CITYSCAPES, size=(32, 64))
    check_judge(judge, CITYSCAPES)
    record = judge.record()
    assert judge.classes == CITYSCAPES_TRAIN and record["size"] == [32, 64] and record["settings"]["file"] == file.name and judge.name == "DRN-D-105"
    assert [round(v, 3) for v in record["mean"]] == [0.290, 0.328, 0.287] and [round(v, 3) for v in record["std"]] == [0.183, 0.187, 0.184]
    image, label = pictures(2, 3, 64, 128), torch.randint(0, 35, (2, 64, 128))
    seen = judge(image)
    assert seen.shape == judge.truth(label).shape == (2, 32, 64) and 0 <= seen.min() <= seen.max() < 19
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.290101, 0.328081, 0.286964], [0.182954, 0.186566, 0.184475]))
    x = (F.interpolate((image + 1) / 2, (32, 64), mode="bilinear", align_corners=False) - mean) / std
    with torch.no_grad(): assert (judge.net(x).argmax(1) == seen).double().mean() > 0.999


def test_the_field_looks_at_512_by_256():
    assert inspect.signature(drn_judge).parameters["size"].default == (256, 512) and inspect.signature(upernet_judge).parameters["size"].default is None


def test_missing_files_say_which_and_where_from(tmp_path):
    for make, words in ((lambda: drn_judge(tmp_path / "gone.pth", CITYSCAPES), ("gone.pth", "drn-d-105_ms_cityscapes.pth", "github.com/fyu/drn", "drn_judge(weights=...)")),
                        (lambda: drn_judge(None, CITYSCAPES), ("no weights file was given", "fyu/drn")),
                        (lambda: upernet_judge(tmp_path / "gone.pth", None, ADE20K), ("gone.pth", "encoder_epoch_50.pth", "sceneparsing.csail.mit.edu", "upernet_judge(encoder=...)"))):
        with pytest.raises(WeightsError) as e: make()
        assert all(word in str(e.value) for word in words), str(e.value)


def test_wrong_data_is_refused_before_the_file_is_read(tmp_path):
    (tmp_path / "x.pth").write_text("never read")
    with pytest.raises(JudgeError, match="ADE20K has no"): drn_judge(tmp_path / "x.pth", ADE20K)
    with pytest.raises(JudgeError, match="Cityscapes has no"): upernet_judge(tmp_path / "x.pth", tmp_path / "x.pth", CITYSCAPES)


@pytest.fixture(scope="module")
def upernet_files(tmp_path_factory):
    "Encoder and decoder in the official form, with the bookkeeping of the synchronised batch norm."
    folder = tmp_path_factory.mktemp("upernet")
    for part, expected in (("encoder", official_encoder()), ("decoder", OFFICIAL_DECODER)):
        state = official(expected)
        more = {f"{k.removesuffix('running_mean')}{n}": torch.zeros(1) for k in expected if k.endswith("running_mean") for n in ("_tmp_running_mean", "_tmp_running_var", "_running_iter")}
        torch.save(state | more, folder / f"{part}_epoch_50.pth")
    yield folder / "encoder_epoch_50.pth", folder / "decoder_epoch_50.pth"
    for file in folder.iterdir(): file.unlink()


def test_upernet_judge_reads_the_official_files(upernet_files):
    judge = upernet_judge(*upernet_files, ADE20K)
    check_judge(judge, ADE20K)
    seen = judge(pictures(1, 3, 64, 64))
    assert seen.shape == (1, 64, 64) and judge.remap == (-1, *range(150)) and judge.truth(torch.tensor([[[0, 1, 150]]])).tolist() == [[[-1, 0, 149]]]
    assert judge.record()["mean"] == [0.485, 0.456, 0.406] and judge.record()["settings"]["sides"] == [] and judge.name == "UperNet101"
    with pytest.raises(WeightsError, match="another network's file"): upernet_judge(upernet_files[1], upernet_files[1], ADE20K)

    old = upernet_judge(*upernet_files, ADE20K, sides=UPERNET_SIDES, bgr=True)
    assert old.record() != judge.record() and old.record()["settings"]["sides"] == [300, 375, 450, 525, 600] and old.net.sides == UPERNET_SIDES
    image = pictures(1, 3, 32, 48)
    as_bytes = ((image + 1) * 127.5).flip(1) - torch.tensor([102.9801, 115.9465, 122.7717])[:, None, None]   # blue first, less blue's mean first
    with torch.no_grad(): ours, theirs = old.net.net[0].conv1(((image + 1) / 2 - old.mean) / old.std), judge.net.net[0].conv1(as_bytes)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)


# looks

def test_released_sizes():
    assert MultiScale(nn.Identity(), UPERNET_SIDES).sizes(256, 256) == [(320, 320), (384, 384), (480, 480), (544, 544), (608, 608)]
    assert MultiScale(nn.Identity(), [600]).sizes(100, 400) == [(256, 1024)] and MultiScale(nn.Identity()).sizes(250, 257) == [(256, 288)]


@few
@given(h=st.integers(20, 900), w=st.integers(20, 900), side=st.sampled_from(UPERNET_SIDES))
def test_sizes_are_those_of_the_official_loader(h, w, side):
    scale = min(side / float(min(h, w)), 1000 / float(max(h, w)))
    expected = tuple(((int(n * scale) - 1) // 32 + 1) * 32 for n in (h, w))
    assert MultiScale(nn.Identity(), [side]).sizes(h, w) == [expected]


def test_looks_are_averaged_as_probabilities():
    net, x = lively(nn.Conv2d(3, 4, 3, padding=1)), draw(2, 3, 20, 28)
    net.weight.data *= 3
    many = MultiScale(net, (24, 40), multiple=8)
    assert many.sizes(20, 28) == [(24, 40), (40, 56)]
    grow = lambda t, size: F.interpolate(t, size, mode="bilinear", align_corners=False)
    expected = (grow(net(grow(x, (24, 40))), (20, 28)).softmax(1) + grow(net(grow(x, (40, 56))), (20, 28)).softmax(1)) / 2
    torch.testing.assert_close(many(x), expected)
    of_logits = (grow(net(grow(x, (24, 40))), (20, 28)) + grow(net(grow(x, (40, 56))), (20, 28))) / 2
    assert (of_logits.argmax(1) != expected.argmax(1)).any()   # so the test could tell the two apart
    torch.testing.assert_close(MultiScale(net, multiple=4)(x), net(x))


# Hugging Face

def make_checkpoint(folder, kind="segformer", names=CITYSCAPES_TRAIN, size=dict(height=64, width=128), **processor):
    "A checkpoint with random weights, saved as any is."
    import transformers as tf
    torch.manual_seed(1)
    labels = dict(id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    swin = dict(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, image_size=64, out_features=["stage1", "stage2", "stage3", "stage4"])
    read = tf.SegformerImageProcessor
    if kind in ("segformer", "bare"):
        config = tf.SegformerConfig(depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16, **labels)
        model = tf.SegformerModel(config) if kind == "bare" else tf.SegformerForSemanticSegmentation(config)
    elif kind == "upernet":
        backbone = tf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=["stage1", "stage2", "stage3", "stage4"])
        model = tf.UperNetForSemanticSegmentation(tf.UperNetConfig(backbone_config=backbone, hidden_size=16, pool_scales=[1, 2], use_auxiliary_head=False, **labels))
    else:
        model = tf.Mask2FormerForUniversalSegmentation(tf.Mask2FormerConfig(
            backbone_config=tf.SwinConfig(**swin), hidden_dim=32, feature_size=32, mask_feature_size=32, encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
            num_attention_heads=2, num_queries=5, **labels))
        read = tf.Mask2FormerImageProcessor
    with torch.no_grad():
        for n, p in model.named_parameters(): p.add_((3 if "class_predictor" in n else 0.02 if "mask_embedder.2" in n else 0.2) * draw(*p.shape, seed=p.numel()))   # so that more than one class wins
    model.save_pretrained(folder)
    read(size=size, **processor).save_pretrained(folder)
    return folder


def as_transformers_does(folder, photo, target):
    "Class map of a photo (3, H, W) of bytes, by the package's own processor before and after."
    import transformers as tf
    mask2former = tf.AutoConfig.from_pretrained(folder).model_type == "mask2former"
    model = (tf.AutoModelForUniversalSegmentation if mask2former else tf.AutoModelForSemanticSegmentation).from_pretrained(folder).eval()
    read = tf.AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad(): out = model(pixel_values=read(images=photo, return_tensors="pt")["pixel_values"])
    return read.post_process_semantic_segmentation(out, target_sizes=[target])[0]


def photos(h, w, seed=0): return torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["segformer", "upernet", "mask2former"])
def test_checkpoint_answers_as_in_transformers(tmp_path, kind):
    pytest.importorskip("transformers")
    judge, photo = transformers_judge(make_checkpoint(tmp_path / kind, kind), CITYSCAPES), photos(64, 128)
    check_judge(judge, CITYSCAPES)
    ours, theirs = judge(photo[None].float() / 127.5 - 1)[0], as_transformers_does(tmp_path / kind, photo, (64, 128))
    assert len(theirs.unique()) > 1 and (ours == theirs).double().mean() > 0.999
    assert judge.name == kind and judge.record()["settings"]["type"] == kind and judge.record()["settings"]["checkpoint"] == kind


@pytest.mark.parametrize("processor", [{}, dict(do_normalize=False), dict(image_mean=[0.1, 0.5, 0.7], image_std=[0.3, 0.2, 0.1]), dict(rescale_factor=1 / 127.5), dict(do_resize=False), dict(resample=3)],
                         ids=lambda p: "-".join(p) or "as it is")
def test_processor_is_imitated(tmp_path, processor):
    pytest.importorskip("transformers")
    judge, photo = transformers_judge(make_checkpoint(tmp_path / "c", **processor), CITYSCAPES), photos(48, 96)
    low = F.interpolate(photo[None, :, ::8, ::8].float(), (48, 96), mode="bilinear").round().byte()[0]   # smooth, so that rounding to bytes hardly matters
    ours, theirs = judge(low[None].float() / 127.5 - 1)[0], as_transformers_does(tmp_path / "c", low, (48, 96))
    assert len(theirs.unique()) > 1 and (ours == theirs).double().mean() > 0.98
    assert judge.record()["settings"]["resize"] == ("bicubic" if processor.get("resample") == 3 else "bilinear")


def test_shrinking_averages_as_the_processor_does(tmp_path):
    pytest.importorskip("transformers")
    folder, photo = make_checkpoint(tmp_path / "c", "upernet", size=dict(height=32, width=64)), photos(128, 256)   # noise: what is skipped makes a difference
    judge, theirs = transformers_judge(folder, CITYSCAPES), as_transformers_does(folder, photo, (128, 256))
    image = photo[None].float() / 127.5 - 1
    assert len(theirs.unique()) > 1 and (judge(image)[0] == theirs).double().mean() > 0.98
    skipped = judge(F.interpolate(image, (32, 64), mode="bilinear", align_corners=False))[0].repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert (skipped == theirs).double().mean() < 0.9


def test_size_given_is_where_it_looks_and_is_scored(tmp_path):
    pytest.importorskip("transformers")
    folder = make_checkpoint(tmp_path / "c")
    free, fixed = transformers_judge(folder, CITYSCAPES), transformers_judge(folder, CITYSCAPES, size=(32, 64))
    image, seen = pictures(1, 3, 48, 80), []
    for judge in (free, fixed): judge.net.model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(tuple(kwargs["pixel_values"].shape[2:])), with_kwargs=True)
    assert free(image).shape == (1, 48, 80) and fixed(image).shape == (1, 32, 64) and seen == [(64, 128), (32, 64)]


@few
@given(h=st.integers(8, 600), w=st.integers(8, 600), short=st.integers(16, 700), multiple=st.sampled_from([1, 32]))
def test_looking_size(h, w, short, multiple):
    assert looking_size({}, h, w) == (h, w) and looking_size(dict(height=64, width=96), h, w, 32) == (64, 96)
    a, b = looking_size(dict(shortest_edge=short), h, w, multiple)
    assert 0 <= min(a, b) - short < multiple and a % multiple == b % multiple == 0
    assert max(looking_size(dict(shortest_edge=short, longest_edge=800), h, w)) <= max(800, short if h == w else 800)


def test_checkpoints_that_are_no_judges(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    make_checkpoint(tmp_path / "bare", "bare"), make_checkpoint(tmp_path / "good")
    with pytest.raises(WeightsError, match="not trained for segmentation"): transformers_judge(tmp_path / "bare", CITYSCAPES)
    with pytest.raises(JudgeError, match="ADE20K has no"): transformers_judge(tmp_path / "good", ADE20K)
    with pytest.raises(WeightsError, match="hf download nobody/nothing --local-dir"): transformers_judge("nobody/nothing", CITYSCAPES)
    (tmp_path / "good" / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="is it whole"): transformers_judge(tmp_path / "good", CITYSCAPES)


def test_other_models_and_processors_are_refused(tmp_path):
    tf = pytest.importorskip("transformers")
    tf.BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8).save_pretrained(tmp_path / "bert")
    with pytest.raises(JudgeError, match="bert model"): transformers_judge(tmp_path / "bert", CITYSCAPES)
    make_checkpoint(tmp_path / "crop", do_center_crop=True)
    text = (tmp_path / "crop" / "preprocessor_config.json").read_text()
    if "do_center_crop" not in text: (tmp_path / "crop" / "preprocessor_config.json").write_text(text.replace("{", '{\n  "do_flip_channel_order": true,', 1))
    with pytest.raises(JudgeError, match="does not imitate"): transformers_judge(tmp_path / "crop", CITYSCAPES)


def test_without_transformers_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r'pip install "dpgan\[evaluate\]"'): transformers_judge("anything", CITYSCAPES)


def test_importing_needs_no_transformers():
    code = "import sys; sys.modules['transformers'] = None; import dpgan.field_judges"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
