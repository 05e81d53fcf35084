"""Checkpoints are whole or not there, hold every tensor under its name, and refuse what does not fit."""
import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpgan import checkpoint as cp
from dpgan.checkpoint import CheckpointError, load_pretrained, pretrained_file, save_pretrained
from dpgan.config import preset
from dpgan.data import SCENES
from dpgan.generator import Generator
from dpgan.scenes import draw_scene


def small_net(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def trained(net, steps=3):
    "The network's optimiser after a few steps."
    optimizer = torch.optim.Adam(net.parameters(), 1e-2, betas=(0.0, 0.999))
    for i in range(steps):
        optimizer.zero_grad()
        net(torch.full((2, 3, 5, 5), float(i))).square().sum().backward()
        optimizer.step()
    return optimizer


def test_optimisers_go_on_after_a_round_trip(tmp_path):
    a, b = small_net(), small_net()
    first = trained(a)
    b.load_state_dict(a.state_dict())
    second = torch.optim.Adam(b.parameters(), 1e-2, betas=(0.0, 0.999))
    cp.write_folder(tmp_path / "c", {"optimizer": cp.flatten_optimizer(first, a)}, {"state": {}})
    cp.restore_optimizer(second, b, cp.read_tensors(tmp_path / "c" / "optimizer.safetensors"))
    for net, optimizer in ((a, first), (b, second)):
        optimizer.zero_grad()
        net(torch.ones(2, 3, 5, 5)).square().sum().backward()
        optimizer.step()
    for k, t in a.state_dict().items(): assert torch.equal(t, b.state_dict()[k]), k


def draws(): return random.random(), np.random.rand(), torch.rand(1).item()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2 ** 31))
def test_random_states_survive_json(seed):
    before = json.loads(json.dumps(cp.random_state()))
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    np.random.normal()  # leaves half a Gaussian in the cache
    state = json.loads(json.dumps(cp.random_state()))
    wanted = draws()
    draws()
    cp.restore_random_state(state)
    assert draws() == wanted
    cp.restore_random_state(before)


def test_folders_are_replaced_whole(tmp_path):
    for value in (1.0, 2.0): cp.write_folder(tmp_path / "step_1", {"net": {"w": torch.tensor([value])}}, {"state": {"step": value}})
    assert cp.read_tensors(tmp_path / "step_1" / "net.safetensors")["w"].item() == 2
    assert [p.name for p in tmp_path.iterdir()] == ["step_1"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    cp.write_folder(tmp_path / "step_1", {}, {"state": {"step": 1}})
    with pytest.raises(TypeError): cp.write_folder(tmp_path / "step_1", {}, {"state": {"step": object()}})
    assert cp.read_record(tmp_path / "step_1" / "state.json") == {"step": 1}
    assert cp.find_checkpoint(tmp_path).name == "step_1"


def test_non_contiguous_and_shared_tensors_are_saved(tmp_path):
    t = torch.arange(12.0).view(3, 4)
    cp.write_folder(tmp_path / "c", {"net": {"a": t.T, "b": t}}, {})
    back = cp.read_tensors(tmp_path / "c" / "net.safetensors")
    assert torch.equal(back["a"], t.T) and torch.equal(back["b"], t)


def test_find_checkpoint_takes_the_newest_whole_one(tmp_path):
    for step in (2, 10): cp.write_folder(tmp_path / "checkpoints" / f"step_{step:08d}", {}, {"state": {}})
    (tmp_path / "checkpoints" / "step_00000099").mkdir()  # no state.json: not whole
    newest = tmp_path / "checkpoints" / "step_00000010"
    assert cp.find_checkpoint(tmp_path) == cp.find_checkpoint(tmp_path / "checkpoints") == cp.find_checkpoint(newest) == newest
    with pytest.raises(cp.CheckpointError, match="no checkpoint in"): cp.find_checkpoint(tmp_path / "elsewhere")


@pytest.mark.parametrize("spoil, message", [(lambda f: f.unlink(), "missing"), (lambda f: f.write_bytes(f.read_bytes()[:-7]), "damaged"), (lambda f: f.write_bytes(b""), "damaged")])
@pytest.mark.parametrize("name, read", [("net.safetensors", cp.read_tensors), ("state.json", cp.read_record)])
def test_damaged_files_are_named(tmp_path, spoil, message, name, read):
    cp.write_folder(tmp_path / "c", {"net": {"w": torch.ones(4)}}, {"state": {"step": 1}})
    spoil(tmp_path / "c" / name)
    with pytest.raises(cp.CheckpointError, match=message) as e: read(tmp_path / "c" / name)
    assert name in str(e.value)


def test_weights_that_do_not_fit_are_named():
    net = small_net()
    state = net.state_dict()
    with pytest.raises(cp.CheckpointError, match="lacks '0.bias'"): cp.load_weights(net, {k: t for k, t in state.items() if k != "0.bias"}, "file")
    with pytest.raises(cp.CheckpointError, match="'extra'"): cp.load_weights(net, {**state, "extra": torch.ones(1)}, "file")
    with pytest.raises(cp.CheckpointError, match=r"2.weight has shape \(9,\)"): cp.load_weights(net, {**state, "2.weight": torch.ones(9)}, "file")
    cp.load_weights(net, {"0.bias": torch.full((4,), 7.0)}, "file", partial=True)
    assert net[0].bias.tolist() == [7] * 4


def released_file(path, G):
    "Our generator under the released names, in a .pth file."
    back = (("head.", "conv_img."), ("stem.", "fc."), ("pyramid.stages.", "seg_pyrmid."), ("blocks.", "body."), (".norm.", ".first_norm."), (".gamma.", ".mlp_gamma."), (".beta.", ".mlp_beta."))
    state, spectral = {}, {k[:-2] for k in G.state_dict() if k.endswith(".u")}
    for key, t in G.state_dict().items():
        stem, leaf = key.rsplit(".", 1)
        name = key if stem not in spectral else f"{stem}.{ {'weight': 'weight_orig', 'u': 'weight_u', 'v': 'weight_v'}.get(leaf, leaf)}"
        for ours, theirs in back: name = name.replace(ours, theirs)
        state[f"module.{name}"] = t
    torch.save(state, path)


def test_released_files_load_and_compute_the_same(tmp_path):
    G = Generator(6, base_channels=4).eval()
    for p in (*G.parameters(), *(b for b in G.buffers() if b.is_floating_point())): p.data = torch.rand_like(p) * 0.5 + 0.1
    released_file(tmp_path / "best_EMA.pth", G)
    other = Generator(6, base_channels=4).eval()
    cp.load_weights(other, cp.convert_released_generator(cp.read_released(tmp_path / "best_EMA.pth")), "file")
    label = torch.randint(0, 6, (1, 64, 64), generator=torch.Generator().manual_seed(0))
    assert torch.equal(other.sample(label), G.sample(label))


def test_files_that_are_no_state_dicts_are_refused(tmp_path):
    with pytest.raises(cp.CheckpointError, match="missing"): cp.read_released(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(cp.CheckpointError, match="cannot be read"): cp.read_released(tmp_path / "text.pth")
    torch.save({"state": 1}, tmp_path / "other.pth")
    with pytest.raises(cp.CheckpointError, match="no state dict"): cp.read_released(tmp_path / "other.pth")
    torch.save(small_net().state_dict(), tmp_path / "net.pth")
    with pytest.raises(cp.CheckpointError, match="conv_img.weight"): cp.convert_released_generator(cp.read_released(tmp_path / "net.pth"))


class Evil:
    def __reduce__(self): return (print, ("code from a file ran",))


def test_files_that_carry_code_are_refused(tmp_path, capsys):
    torch.save({"w": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(cp.CheckpointError, match="cannot be read"): cp.read_released(tmp_path / "evil.pth")
    assert "ran" not in capsys.readouterr().out


# ---- small generators

def test_a_pretrained_file_keeps_statistics_whole(tmp_path):
    config = preset("scenes", **{"generator.base_channels": 4, "generator.pyramid_channels": 8, "generator.init_gain": 1.0})
    G = Generator(15, **vars(config.generator)).eval()
    G.pyramid.stages[0][1].running_var.fill_(1e6)  # half precision ends at 65,504
    save_pretrained(tmp_path / "more" / "x_generator.safetensors", G, config, SCENES, steps=3)
    again, same, classes = load_pretrained(tmp_path / "more" / "x_generator.safetensors")
    assert same == config and classes == SCENES and not again.training and again.pyramid.stages[0][1].running_var[0] == 1e6
    for name, p in again.named_parameters(): assert p.dtype == torch.float32 and torch.allclose(p, G.state_dict()[name], rtol=1e-3, atol=1e-7), name
    assert sorted(p.name for p in (tmp_path / "more").iterdir()) == ["x_generator.json", "x_generator.safetensors"]


def test_pretrained_errors(tmp_path):
    with pytest.raises(CheckpointError, match="did you mean 'scenes'"): load_pretrained("scene")
    with pytest.raises(CheckpointError, match="is missing"): load_pretrained(tmp_path / "no_generator.safetensors")
    (tmp_path / "bad_generator.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "bad_generator.json").write_text(pretrained_file("scenes").with_suffix(".json").read_text())
    with pytest.raises(CheckpointError, match="damaged"): load_pretrained(tmp_path / "bad_generator.safetensors")


def test_what_is_no_pretrained_file_is_said(tmp_path):
    G, config, classes = load_pretrained("scenes")
    judge = pretrained_file("scenes").with_name("scenes_judge.safetensors")
    with pytest.raises(CheckpointError, match="no record of a generator"): load_pretrained(judge)
    with pytest.raises(CheckpointError, match="ends in .safetensors"): save_pretrained(tmp_path / "plain", G, config, classes)
    save_pretrained(tmp_path / "x.safetensors", G, config, classes)
    record = json.loads((tmp_path / "x.json").read_text())
    record["config"]["data"]["num_classes"] = 14
    (tmp_path / "x.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="15 classes"): load_pretrained(tmp_path / "x.safetensors")
    with torch.no_grad(): G.head.weight[0, 0, 0, 0] = 1e5
    with pytest.raises(CheckpointError, match="beyond half precision"): save_pretrained(tmp_path / "y.safetensors", G, config, classes)
    assert not (tmp_path / "y.safetensors").exists()


def test_the_shipped_generator_is_small_and_says_what_it_is():
    file = pretrained_file("scenes")
    record = json.loads(file.with_suffix(".json").read_text())
    assert file.stat().st_size <= 10e6 and record["training"]["command"].startswith("dpgan train --preset scenes")
    assert {"seed", "steps", "images"} <= record["training"].keys() and 0 < record["scores"]["miou"] < record["scores"]["real_miou"] < 1


def test_the_shipped_generator_follows_label_map_and_noise():
    G, config, classes = load_pretrained()
    label = torch.from_numpy(draw_scene(10_000, 1)[1]).long()[None]
    one, two = (G.sample(label, seed=s) for s in (0, 1))
    assert one.shape == (1, 3, 64, 128) and torch.equal(one, G.sample(label, seed=0)) and (one - two).abs().mean() > 0.02
    assert (G.sample(label.flip(2), seed=0) - one).abs().mean() > 0.05
