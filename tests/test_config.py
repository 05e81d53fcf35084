"The settings: random valid ones survive JSON, everything else is refused with a helpful message."
import dataclasses
import json
import math
import subprocess
import sys
from types import NoneType

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dpgan.config import (PRESETS, SECTIONS, Config, ConfigError, DataConfig, TrainConfig, field_kinds, find_setting, from_dict, from_json, nearest,
                          override, preset, setting_names, settings_table, to_dict, to_json)

FIELDS = {f"{section}.{f.name}": f for section, cls in SECTIONS.items() for f in dataclasses.fields(cls)}
SIDES = st.integers(1, 16).map(lambda n: 64 * n)


def values(f):
    "Every kind of value that a field accepts."
    m, kinds = f.metadata, field_kinds(f)
    if m["choices"]: return st.sampled_from(m["choices"])
    if f.name in ("height", "width"): return SIDES
    low = m["low"] if m["above"] is None else m["above"]
    made = {bool: st.booleans(), NoneType: st.none(), int: st.integers(low, m["high"] or 10_000) if int in kinds else None,
            float: st.floats(low, m["high"] or 1e6, exclude_min=m["above"] is not None) if float in kinds else None}
    return st.one_of(*(made[kind] for kind in kinds))


@st.composite
def settings(draw):
    "A configuration with any number of settings changed to any valid value."
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True))
    changes = {name: draw(values(FIELDS[name])) for name in names}
    for side in ("height", "width"):
        if f"data.load_{side}" in changes and changes[f"data.load_{side}"]: changes[f"data.load_{side}"] += changes.get(f"data.{side}", 128)
    try: return changes, override(Config(), changes)
    except ConfigError as error:
        assume("patch" not in str(error) and "exclude each other" not in str(error))   # the rules between settings; tested below
        raise


@given(settings())
def test_json_round_trip(made):
    _, config = made
    assert from_json(to_json(config)) == config
    assert from_dict(to_dict(config)) == config
    assert json.loads(to_json(config)) == to_dict(config)


@given(settings())
def test_text_says_the_same_as_values(made):
    changes, config = made
    spoken = {name: str(value) for name, value in changes.items()}
    if "train.epochs" in spoken: spoken.setdefault("train.steps", "none")
    assert override(Config(), spoken) == config


@given(settings(), st.sampled_from(sorted(PRESETS)))
def test_an_override_changes_what_it_names_and_nothing_else(made, name):
    changes, _ = made
    before = preset(name)
    try: after = override(before, changes)
    except ConfigError: assume(False)
    for full in setting_names():
        section, leaf = full.split(".")
        old, new = (getattr(getattr(c, section), leaf) for c in (before, after))
        if full in changes: assert new == changes[full]
        elif not (full == "train.steps" and "train.epochs" in changes): assert new == old
    assert before == preset(name)


@given(st.sampled_from(sorted(FIELDS)), st.integers(0, 30), st.sampled_from("abcxyz"))
def test_a_misspelt_name_is_refused_with_the_right_one(name, place, letter):
    place = len(name.split(".")[0]) + 1 + place % len(name.split(".")[1])
    wrong = name[:place] + letter + name[place:]
    assume(wrong not in FIELDS)
    with pytest.raises(ConfigError, match="unknown setting .* did you mean"): override(Config(), {wrong: 1})
    section, leaf = wrong.split(".")
    with pytest.raises(ConfigError, match="unknown setting"): from_dict({section: {leaf: 1}})


@pytest.mark.parametrize("wrong, right", [("heigth", "height"), ("lamda_labelmix", "lambda_labelmix"), ("optim.lrg", "optim.lr_g"), ("data.dataste", "data.dataset"),
                                          ("train.step", "train.steps"), ("loss.patch_gradient", "loss.patch_grad")])
def test_the_nearest_name_is_the_one_meant(wrong, right):
    with pytest.raises(ConfigError) as error: override(Config(), {wrong: 1})
    assert f"did you mean {right!r}?" in str(error.value)


@given(st.sampled_from(sorted(FIELDS)), st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.booleans(), st.lists(st.integers())))
def test_any_value_is_used_or_refused(name, value):
    section, leaf = name.split(".")
    try: config = override(Config(), {name: value})
    except ConfigError as error:
        assert leaf in str(error) or "patch" in str(error)
        return
    kept = getattr(getattr(config, section), leaf)
    assert type(kept) in field_kinds(FIELDS[name]) or float in field_kinds(FIELDS[name]) and type(kept) is int
    assert not isinstance(kept, float) or math.isfinite(kept)


@given(st.sampled_from(["height", "width"]), st.integers(64, 4096).filter(lambda n: n % 64))
def test_sides_that_are_not_multiples_of_64_name_their_neighbours(side, size):
    with pytest.raises(ConfigError, match=f"data.{side} = {size} is not divisible by 64.* {size // 64 * 64} and {size // 64 * 64 + 64}"): DataConfig(**{side: size})


@pytest.mark.parametrize("change, words", [
    ({"lr_g": 0}, "above 0"), ({"lr_d": -1e-4}, "above 0"), ({"lr_g": "nan"}, "above 0"), ({"lr_g": "inf"}, "above 0"), ({"flip": 1.5}, "at most 1"),
    ({"ema_decay": 1}, "at most"), ({"batch_size": 0}, "at least 1"), ({"batch_size": 2.0}, "a whole number"), ({"batch_size": True}, "a whole number"),
    ({"steps": "1.5"}, "a whole number or none"), ({"seed": -1}, "at least 0"), ({"seed": 2**64}, "at most"), ({"workers": -1}, "at least 0"),
    ({"noise": "perhaps"}, "true or false"), ({"noise": 1}, "true or false"), ({"precision": "fp32"}, "one of off, bf16, fp16"),
    ({"precision": None}, "a name"), ({"dataset": "cityscape"}, "did you mean 'cityscapes'"), ({"generator.norm": "bach"}, "did you mean 'batch'"),
    ({"num_classes": 1}, "at least 2"), ({"num_classes": 300}, "at most 256"), ({"height": 0}, "at least 64"), ({"height": 64, "load_height": 63}, "at least 64"),
    ({"height": 256, "load_height": 192}, "smaller than the crop"), ({"batch_size": 1}, "batch_size=2"), ({"discriminator.norm": "instance"}, "1 x 1"),
    ({"compile": "default", "checkpointing": True}, "exclude each other"), ({"compile": "fast"}, "one of off, default"), ({"share_real": "perhaps"}, "true or false"),
    ({"data": 5}, "data is a section"), ({"name": "mine"}, "unknown setting 'name'")])
def test_impossible_values_are_refused(change, words):
    with pytest.raises(ConfigError) as error: override(Config(), change)
    assert words in str(error.value)


def test_batch_one_is_fine_where_the_patch_map_is_larger():
    assert override(Config(), {"height": 192, "batch_size": 1}).train.batch_size == 1
    assert override(Config(), {"height": 192, "discriminator.norm": "instance"}).data.height == 192


@pytest.mark.parametrize("text, value", [("true", True), ("No", False), ("ON", True), ("0", False)])
def test_words_for_switches(text, value): assert override(Config(), {"noise": text}).generator.noise is value


def test_short_names_set_both_networks():
    config = override(Config(), {"base_channels": "32"})
    assert (config.generator.base_channels, config.discriminator.base_channels) == (32, 32)
    assert {len(find_setting(n.split(".")[1])) for n in setting_names()} == {1, 2}


def test_the_later_of_two_names_counts():
    config = override(Config(), {"norm": "sync_batch", "generator.norm": "instance"})
    assert (config.generator.norm, config.discriminator.norm) == ("instance", "sync_batch")


def test_epochs_are_not_swallowed_by_steps():
    assert preset("scenes", steps=7).train.steps == 7
    assert preset("scenes", epochs=3).train.steps is None
    assert preset("scenes", epochs=3, steps=7).train.steps == 7


def test_nothing_can_be_changed_in_place():
    config = preset("scenes")
    with pytest.raises(dataclasses.FrozenInstanceError): config.name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError): config.train.steps = 1
    assert hash(config) == hash(preset("scenes"))


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = preset(name)
    assert config.name == name and from_json(to_json(config)) == config
    assert all(find_setting(full) == [full] for full in PRESETS[name]), "presets use full names"


def test_unknown_presets_and_sections():
    with pytest.raises(ConfigError, match="did you mean 'ade20k'"): preset("ade20")
    with pytest.raises(ConfigError, match="unknown section 'optimiser'; did you mean 'optim'"): from_dict({"optimiser": {}})
    with pytest.raises(ConfigError, match="loss is a section"): from_dict({"loss": 3})
    with pytest.raises(ConfigError, match="a configuration is a dict"): from_json("[1, 2]")
    with pytest.raises(ConfigError, match="name must be a str"): from_dict({"name": 3})
    with pytest.raises(ConfigError, match="not valid JSON"): from_json("{'data': {}}")
    with pytest.raises(ConfigError, match="train must be a TrainConfig"): Config(train={"steps": 3})


def test_the_papers_numbers():
    "Spec section 5, its table; the gain, the noise and Adam's decays are the same everywhere."
    table = {"cityscapes": (35, (256, 512), None, 2e-4, 2e-4, 5, 0.999, 200), "ade20k": (151, (256, 256), 286, 4e-4, 4e-4, 10, 0.9999, 200),
             "coco_stuff": (183, (256, 256), 286, 1e-4, 4e-4, 10, 0.9999, 100)}
    for name, row in table.items():
        c = preset(name)
        assert (c.data.num_classes, (c.data.height, c.data.width), c.data.load_height, c.optim.lr_g, c.optim.lr_d, c.loss.lambda_labelmix, c.optim.ema_decay,
                c.train.epochs) == row
        assert (c.optim.beta1, c.optim.beta2, c.data.flip, c.optim.ema_bn_batches, c.generator.z_dim) == (0, 0.999, 0.5, 50, 64)
        assert c.generator.init_gain == c.discriminator.init_gain == 0.02 and c.loss.patch_grad and c.train.steps is None


def test_every_setting_is_listed():
    lines = settings_table(preset("cityscapes")).splitlines()
    assert len(lines) == len(SECTIONS) + len(setting_names())
    assert all(any(f" {name} " in line for line in lines) for name in setting_names())
    starred = {line.split()[1] for line in lines if line.startswith("*")}
    changed = {name for name in setting_names() if getattr(getattr(preset("cityscapes"), name.split(".")[0]), name.split(".")[1]) != FIELDS[name].default}
    assert starred == changed


def test_every_setting_has_help():
    assert all(f.metadata["help"] and not f.metadata["help"].endswith(".") for f in FIELDS.values())


def test_nearest_is_silent_about_strangers(): assert nearest("colour", ["height", "flip"]) == ""


def test_config_needs_no_torch():
    code = "import sys, dpgan.config; print(sorted(m for m in ('torch', 'numpy', 'PIL', 'matplotlib') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_defaults_are_valid(): assert (Config(), TrainConfig()) == (override(Config(), {}), Config().train)
