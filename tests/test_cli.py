"""The command line on real folders: what it writes, its exit codes, its messages."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image

from dpgan.checkpoint import load_pretrained, save_pretrained
from dpgan.cli import main
from dpgan.config import PRESETS, from_json
from dpgan.data import SCENES
from dpgan.editing import ExplorerState, recipe, write_recipe
from dpgan.features import weights_digest
from dpgan.generator import Generator
from dpgan.inference import FastGenerator
from dpgan.labels import image_to_uint8
from dpgan.scenes import draw_scene
from test_checkpoint import released_file
from tiny import set_arguments


def run(*args):
    "Exit code of a command in this process."
    with pytest.raises(SystemExit) as e: main([str(a) for a in args])
    return e.value.code or 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A run of two steps on drawn scenes."
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert run("train", "--preset", "scenes", "--out", out, "--steps", 2, *without_steps()) == 0
    return out


def without_steps():
    words = set_arguments()
    return [w for pair in zip(words[::2], words[1::2]) for w in pair if not pair[1].startswith("train.steps")]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    "Drawn scenes as a folder of pairs."
    out = tmp_path_factory.mktemp("scenes")
    assert run("draw-scenes", "--out", out, "--count", 3, "--width", 64, "--split", "train", "--split", "val") == 0
    return out


def test_train_leaves_a_whole_run(trained):
    assert {"config.json", "run.json", "metrics.jsonl", "samples", "checkpoints"} <= {p.name for p in trained.iterdir()}
    config = from_json((trained / "config.json").read_text())
    assert config.train.steps == 2 and config.generator.base_channels == 4 and config.data.num_classes == 15
    assert sorted(p.name for p in (trained / "samples").iterdir()) == ["step_000000.png", "step_000002.png"]
    names = {p.name for p in (trained / "checkpoints" / "step_00000002").iterdir()}
    assert {"generator.safetensors", "discriminator.safetensors", "ema.safetensors", "optimizer_g.safetensors", "optimizer_d.safetensors", "state.json", "config.json"} <= names
    assert not [n for n in names if n.endswith((".pt", ".pth", ".pkl"))]


def test_train_does_not_overwrite_a_run(trained, capsys):
    assert run("train", "--preset", "scenes", "--out", trained) == 2
    assert "--resume" in capsys.readouterr().err


def test_resume_goes_on_and_knows_its_settings(trained, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(trained, out)
    assert run("train", "--out", out, "--resume", "--steps", 3) == 0
    assert [json.loads(l)["step"] for l in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert run("train", "--out", out, "--resume", "--set", "generator.base_channels=8") == 2
    assert run("train", "--out", out, "--resume", "--preset", "camvid") == 2
    assert "trained with --preset scenes" in capsys.readouterr().err


@pytest.mark.parametrize("args, message", [
    (["--preset", "senes"], "did you mean 'scenes'"), ([], "--preset"), (["--preset", "scenes", "--set", "lr_q=1"], "did you mean"), (["--preset", "scenes", "--set", "lr_g"], "NAME=VALUE"),
    (["--preset", "scenes", "--set", "optim.lr_g=fast"], "optim.lr_g"), (["--preset", "scenes", "--set", "data.height=100"], "divisible by 64"), (["--preset", "camvid"], "--data"),
    (["--preset", "scenes", "--steps", "0"], "train.steps"), (["--preset", "scenes", "--set", "generator.norm=bach"], "did you mean 'batch'"),
    (["--preset", "scenes", "--set", "train.batch_size=1"], "batch"), (["--preset", "scenes", "--steps", "many"], "--steps")])
def test_wrong_use_is_refused_before_anything_is_written(tmp_path, capsys, args, message):
    assert run("train", "--out", tmp_path / "run", *args) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_train_on_a_folder_of_pairs(scenes, tmp_path):
    out = tmp_path / "run"
    assert run("train", "--preset", "folder", "--data", scenes, "--out", out, "--steps", 1, *without_steps()) == 0
    assert from_json((out / "config.json").read_text()).data.num_classes == 15


def test_bad_data_is_refused_before_training(scenes, tmp_path, capsys):
    bad = tmp_path / "bad"
    shutil.copytree(scenes, bad)
    next((bad / "train" / "labels").iterdir()).unlink()
    assert run("train", "--preset", "folder", "--data", bad, "--out", tmp_path / "run", *set_arguments()) == 1
    err = capsys.readouterr().err
    assert "images" in err and "Traceback" not in err and not (tmp_path / "run").exists()
    assert run("train", "--preset", "folder", "--data", tmp_path / "nowhere", "--out", tmp_path / "run") == 1
    assert "nowhere" in capsys.readouterr().err


def pixels(folder): return {p.name: np.asarray(Image.open(p)) for p in sorted(folder.iterdir())}


def test_generate_draws_every_label_map(trained, scenes, tmp_path, capsys):
    labels = scenes / "val" / "labels"
    assert run("generate", "--checkpoint", trained, "--labels", labels, "--out", tmp_path / "a", "--samples", 2, "--batch", 2) == 0
    assert "6 images" in capsys.readouterr().out
    a = pixels(tmp_path / "a")
    stems = [p.stem for p in sorted(labels.iterdir())]
    assert list(a) == [f"{s}_{k}.png" for s in stems for k in range(2)] and all(x.shape == (64, 64, 3) for x in a.values())
    assert not np.array_equal(a[f"{stems[0]}_0.png"], a[f"{stems[0]}_1.png"]), "two noises must give two images"
    assert run("generate", "--checkpoint", trained, "--labels", labels, "--out", tmp_path / "b", "--samples", 2, "--batch", 2) == 0
    assert all(np.array_equal(a[k], x) for k, x in pixels(tmp_path / "b").items()), "the same seed must give the same images"
    assert run("generate", "--checkpoint", trained, "--labels", labels, "--out", tmp_path / "c", "--seed", 1, "--width", 128) == 0
    c = pixels(tmp_path / "c")
    assert list(c) == [f"{s}.png" for s in stems] and c[f"{stems[0]}.png"].shape == (64, 128, 3)


def test_generate_refuses_what_is_not_there(trained, tmp_path, capsys):
    for args, code, message in ((["--checkpoint", tmp_path, "--labels", tmp_path], 1, "no checkpoint"), (["--checkpoint", trained, "--labels", tmp_path / "x"], 1, "x"),
                                (["--checkpoint", trained, "--labels", tmp_path, "--device", "tpu9"], 2, "tpu9"), (["--checkpoint", trained, "--labels", tmp_path, "--samples", "0"], 2, "samples")):
        assert run("generate", *args, "--out", tmp_path / "out") == code
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_generate_refuses_colour_label_maps(trained, tmp_path, capsys):
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (64, 64), (10, 20, 30)).save(tmp_path / "labels" / "colour.png")
    assert run("generate", "--checkpoint", trained, "--labels", tmp_path / "labels", "--out", tmp_path / "out") == 1
    assert "colour.png" in capsys.readouterr().err


def test_check_data_passes_and_fails(scenes, tmp_path, capsys):
    assert run("check-data", "--data", scenes, "--set", "data.height=64", "--set", "data.width=64") == 0
    bad = tmp_path / "bad"
    shutil.copytree(scenes, bad)
    victim = sorted((bad / "train" / "images").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    assert run("check-data", "--data", bad, "--set", "data.height=64", "--set", "data.width=64") == 1
    assert victim.name in capsys.readouterr().out


def test_import_released_gives_a_checkpoint_that_generates(tmp_path, scenes):
    G = Generator(35, base_channels=4)
    released_file(tmp_path / "G.pth", G)
    out = tmp_path / "imported"
    assert run("import-released", "--preset", "cityscapes", "--generator", tmp_path / "G.pth", "--out", out, "--set", "generator.base_channels=4") == 0
    assert run("generate", "--checkpoint", out, "--labels", scenes / "val" / "labels", "--out", tmp_path / "images", "--height", 64, "--width", 64) == 0
    label = torch.from_numpy(np.array(Image.open(sorted((scenes / "val" / "labels").iterdir())[0])))[None]
    assert len(pixels(tmp_path / "images")) == 3 and label.shape == (1, 64, 64)


def test_import_released_names_what_does_not_fit(tmp_path, capsys):
    released_file(tmp_path / "G.pth", Generator(35, base_channels=4))
    assert run("import-released", "--preset", "cityscapes", "--generator", tmp_path / "G.pth", "--out", tmp_path / "o") == 1
    assert "shape" in capsys.readouterr().err
    assert run("import-released", "--preset", "cityscapes", "--generator", tmp_path / "none.pth", "--out", tmp_path / "o") == 1
    assert "none.pth" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_settings_lists_every_setting(capsys):
    assert run("settings", "--preset", "cityscapes") == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("lambda_labelmix", "base_channels", "precision", "ema_decay"))


def test_help_names_commands_and_presets():
    shown = subprocess.run([sys.executable, "-m", "dpgan.cli", "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert shown.returncode == 0 and all(c in shown.stdout for c in ("train", "generate", "evaluate", "train-judge", "check-data", "import-released"))
    shown = subprocess.run([sys.executable, "-m", "dpgan.cli", "train", "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "400"})
    assert shown.returncode == 0 and all(p in shown.stdout for p in PRESETS)
    assert subprocess.run([sys.executable, "-m", "dpgan.cli", "trian"], capture_output=True).returncode == 2


# ---- scores

def test_evaluate_writes_scores_and_every_choice(trained, tmp_path, capsys):
    assert run("evaluate", "--checkpoint", trained, "--images", 12, "--samples", 2, "--out", tmp_path / "a.json", "--cache", tmp_path / "cache", "--batch", 5) == 0
    said = capsys.readouterr().out
    a = json.loads((tmp_path / "a.json").read_text())
    assert "FD-scenes" in said and "of real ones" in said and a["step"] == 2 and a["preset"] == "scenes" and a["data"]["images"] == 12
    assert 0 <= a["judges"]["scenes"]["generated"]["miou"] < a["judges"]["scenes"]["real"]["miou"] <= 1 and a["diversity"]["pixels"]["mean"] > 0
    assert run("evaluate", "--checkpoint", trained, "--images", 12, "--samples", 2, "--out", tmp_path / "b.json", "--cache", tmp_path / "cache", "--batch", 12, "--judge", "none") == 0
    b = json.loads((tmp_path / "b.json").read_text())
    assert "judges" not in b and b["distances"]["FD-scenes"]["FD-scenes"] == pytest.approx(a["distances"]["FD-scenes"]["FD-scenes"], rel=1e-3)
    assert run("evaluate", "--checkpoint", trained, "--images", 12, "--cache", tmp_path / "cache") == 0
    assert run("evaluate", "--checkpoint", trained, "--images", 12, "--cache", tmp_path / "cache", "--split", "test", "--judge", "scenes@64x128", "--features", "FD-scenes") == 0
    assert (trained / "evaluation.json").is_file(), "beside the checkpoint by default"
    other = json.loads((trained / "evaluation-test.json").read_text())
    assert list(other["judges"]) == ["scenes@64x128"] and other["data"]["split"] == "test" and other["checkpoint"].endswith("step_00000002")


def test_evaluate_a_small_file_that_says_nothing_of_its_training(tmp_path):
    G, config, classes = load_pretrained("scenes")
    save_pretrained(tmp_path / "mine_generator.safetensors", G, config, classes)
    assert run("evaluate", "--checkpoint", tmp_path / "mine_generator.safetensors", "--images", 8, "--judge", "none", "--cache", tmp_path / "cache", "--out", tmp_path / "e.json") == 0
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["step"] is None and found["preset"] == config.name and found["distances"]["FD-scenes"]["FD-scenes"] > 0


def test_train_as_accelerate_starts_it(tmp_path):
    "The line of the README: on a CPU, accelerate launch starts one process, which trains like any other."
    words = ["--preset", "scenes", "--out", tmp_path / "run", "--steps", 1, *without_steps()]
    done = subprocess.run([sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "dpgan.cli", "train", *map(str, words)],
                          capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "step_00000001" / "state.json").is_file()


def test_evaluate_in_two_processes(trained, tmp_path):
    "torchrun on the command itself: two real processes, the same scores, one file."
    for count, name in ((2, "two"), (1, "one")):
        words = ["--checkpoint", trained, "--images", 11, "--out", tmp_path / f"{name}.json", "--cache", tmp_path / name, "--batch", 3]
        done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count), "-m", "dpgan.cli", "evaluate", *map(str, words)],
                              capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}, timeout=300)
        assert done.returncode == 0, done.stderr
    two, one = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("two", "one"))
    assert (two["setup"]["processes"], one["setup"]["processes"]) == (2, 1)
    assert two["distances"]["FD-scenes"]["FD-scenes"] == pytest.approx(one["distances"]["FD-scenes"]["FD-scenes"], rel=1e-4)
    assert two["judges"]["scenes"]["generated"]["miou"] == pytest.approx(one["judges"]["scenes"]["generated"]["miou"], abs=1e-6)


def test_a_judge_of_one_s_own(trained, scenes, tmp_path, capsys):
    "train-judge on a folder of pairs, then evaluate with it: as judge and as features."
    out, judge = tmp_path / "run", tmp_path / "judge"
    small = ["--set", "data.height=64", "--set", "data.width=64", "--set", "data.workers=0"]
    assert run("draw-scenes", "--out", tmp_path / "pairs", "--count", 9, "--width", 64, "--split", "train", "--split", "val") == 0
    assert run("train", "--preset", "folder", "--data", tmp_path / "pairs", "--out", out, "--steps", 1, *without_steps()) == 0
    assert run("train-judge", "--data", tmp_path / "pairs", "--out", judge, "--steps", 4, "--batch", 2, *small) == 0
    assert "mIoU" in capsys.readouterr().out and {p.name for p in judge.iterdir()} == {"judge.safetensors", "judge.json"}
    assert run("evaluate", "--checkpoint", out, "--judge", judge, "--features", judge, "--cache", tmp_path / "cache") == 0   # the data's folder is known from the run
    scores = json.loads((out / "evaluation.json").read_text())
    [name] = scores["distances"]
    assert name.startswith("FD-") and name != "FD-scenes" and list(scores["judges"]) == [json.loads((judge / "judge.json").read_text())["name"]]
    assert run("train-judge", "--data", tmp_path / "pairs", "--out", judge, "--steps", 4, *small) == 2 and "not empty" in capsys.readouterr().err


@pytest.mark.parametrize("args, code, words", [
    (["--features", "fjd"], 2, "neither one of"), (["--judge", "scene"], 2, "did you mean 'scenes'"), (["--weights", "fit=x"], 2, "did you mean 'fid'"), (["--weights", "fid"], 2, "NAME=FILE"),
    (["--features", "fid", "--weights", "fid=nowhere.pth"], 1, "--weights fid=FILE"), (["--judge", "drn-d-105"], 1, "--weights drn-d-105=FILE"),
    (["--judge", "upernet101", "--weights", "upernet101-encoder=nowhere.pth"], 1, "nowhere.pth"), (["--images", "3"], 1, "too few"), (["--images", "501"], 1, "choose 1 to 500"),
    (["--split", "vla"], 1, "did you mean 'val'"), (["--judge", "scenes@256"], 2, "HEIGHTxWIDTH"), (["--judge", "scenes@100x100"], 2, "divisible by 16"), (["--judge", "scenes", "--judge", "scenes"], 1, "two results"),
    (["--weights", "drn-d-105=x.pth"], 2, "would not be used"), (["--weights", "fid=nowhere.pth"], 1, "nowhere.pth"), (["--out", "."], 2, "is a folder"), (["--device", "mps"], 2, "use cpu or cuda"), (["--lpips"], 2, "--samples 2"), (["--features", "none", "--judge", "none"], 1, "nothing to score"),
    (["--judge", "hf:nowhere/at-all"], 1, "nowhere/at-all")])
def test_evaluate_refuses(trained, tmp_path, monkeypatch, capsys, args, code, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run("evaluate", "--checkpoint", trained, *([] if "--out" in args else ["--out", tmp_path / "e.json"]), "--cache", tmp_path / "cache", *args) == code
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err and not (tmp_path / "e.json").exists()


def test_evaluate_needs_the_data_that_the_checkpoint_knows(trained, scenes, tmp_path, capsys):
    assert run("train", "--preset", "folder", "--data", scenes, "--out", tmp_path / "run", "--steps", 1, *without_steps()) == 0
    (tmp_path / "run" / "run.json").unlink()
    assert run("evaluate", "--checkpoint", tmp_path / "run") == 2 and "--data" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(scenes, other)
    record = json.loads((other / "classes.json").read_text())
    record["classes"][3]["name"] = "house"
    (other / "classes.json").write_text(json.dumps(record))
    assert run("evaluate", "--checkpoint", tmp_path / "run", "--data", other, "--judge", "none") == 1 and "'house'" in capsys.readouterr().err
    record["classes"][3].update(name="building", color=[1, 2, 3])
    (other / "classes.json").write_text(json.dumps(record))
    assert run("evaluate", "--checkpoint", tmp_path / "run", "--data", other, "--judge", "none", "--features", "scenes") == 1 and "too few" in capsys.readouterr().err, "colours do not matter"
    shutil.rmtree(other / "val" / "labels")
    assert run("evaluate", "--checkpoint", tmp_path / "run", "--data", other, "--judge", "none", "--features", "scenes") == 1 and "its label maps are not" in capsys.readouterr().err


def test_training_keeps_the_best(tmp_path, capsys):
    words = set_arguments(**{"train.steps": 2, "train.evaluate_every": 1, "train.evaluate_images": 8})
    assert run("train", "--preset", "scenes", "--out", tmp_path / "run", *words) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["FD-scenes"])
    assert [line["step"] for line in lines] == [1, 2] and json.loads((tmp_path / "run" / "best" / "state.json").read_text())["step"] == best["step"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["scored_by"] == "FD-scenes"
    assert run("evaluate", "--checkpoint", tmp_path / "run" / "best", "--images", 8, "--cache", tmp_path / "cache") == 0 and f"step {best['step']}" in capsys.readouterr().out


def test_training_goes_on_without_scores_where_there_is_no_ruler(test_data, tmp_path, monkeypatch, capsys):
    "Cityscapes asks for FID every 2,500 steps; a validation split of one pair cannot give it, and the run says so."
    args = ["--set", "generator.base_channels=4", "--set", "generator.pyramid_channels=8", "--set", "discriminator.base_channels=4", "--set", "train.batch_size=1", "--set", "data.workers=0",
            "--set", "train.evaluate_every=1", "--set", "optim.ema_bn_batches=1"]
    assert run("train", "--preset", "cityscapes", "--data", test_data / "cityscapes_layout", "--out", tmp_path / "run", "--steps", 1, *args) == 0
    assert "without scores" in capsys.readouterr().err and not (tmp_path / "run" / "scores.jsonl").exists()


def test_check_data_misses_a_training_split(scenes, tmp_path, capsys):
    only = tmp_path / "only"
    shutil.copytree(scenes, only)
    shutil.rmtree(only / "train")
    small = ["--set", "data.height=64", "--set", "data.width=64"]
    assert run("check-data", "--data", only, *small) == 1 and "no split 'train'" in capsys.readouterr().out
    assert run("check-data", "--data", only, "--split", "val", *small) == 0


# ---- the shipped generator, recipes, the explorer

def a_state(size=(64, 128)):
    "A street in which somebody has painted and resampled."
    label = draw_scene(10_000, 3, *size)[1]
    state = ExplorerState.start(SCENES, 8, label, seed=4).select_class("sky").resample_selection(11).select_class("road").interpolate(5, 0.4)
    return state.paint([[30, 20], [40, 60]], SCENES.names.index("building"), 9)


@pytest.mark.parametrize("precision", ["off", "bf16"])
def test_a_recipe_is_drawn_again_to_the_same_pixels_by_another_process(tmp_path, precision):
    G, _, _ = load_pretrained("scenes")
    state, file = a_state(), tmp_path / "street.json"
    write_recipe(file, recipe(state, name="scenes", digest=weights_digest(G), precision=precision))
    done = subprocess.run([sys.executable, "-m", "dpgan.cli", "generate", "--recipe", str(file), "--out", str(tmp_path / "again")], capture_output=True, text=True, timeout=120,
                          cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())})
    assert done.returncode == 0, done.stderr
    here = image_to_uint8(FastGenerator(G, precision).sample(torch.from_numpy(state.label.astype(int))[None], state.noise.tensor(8)))[0]
    assert np.array_equal(pixels(tmp_path / "again")["street.png"], here)


def test_a_recipe_of_another_generator_is_refused(tmp_path, trained, capsys):
    write_recipe(tmp_path / "street.json", recipe(a_state(), name="mine", digest="0" * 16))
    assert run("generate", "--recipe", tmp_path / "street.json", "--out", tmp_path / "x") == 1 and "drawn by mine with weights 0000" in capsys.readouterr().err
    assert run("generate", "--checkpoint", trained, "--recipe", tmp_path / "street.json", "--out", tmp_path / "x") == 1 and "noise of 8 channels" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("{")
    assert run("generate", "--recipe", tmp_path / "bad.json", "--out", tmp_path / "x") == 1 and "not valid JSON" in capsys.readouterr().err
    assert run("generate", "--recipe", tmp_path / "none.json", "--out", tmp_path / "x") == 1 and run("generate", "--out", tmp_path / "x") == 2
    assert not (tmp_path / "x").exists()


def test_the_shipped_generator_by_name(tmp_path, scenes, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes").mkdir()  # a folder of that name without a checkpoint does not hide it
    assert run("generate", "--checkpoint", "scenes", "--labels", scenes / "val" / "labels", "--out", tmp_path / "out", "--width", 64) == 0
    assert len(pixels(tmp_path / "out")) == 3
    assert run("evaluate", "--checkpoint", "scenes", "--images", 16, "--features", "none", "--cache", tmp_path / "cache") == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["judges"]["scenes"]["share_of_real_miou"] > 0.5
    assert run("generate", "--checkpoint", "scene", "--labels", scenes, "--out", tmp_path / "out") == 1 and "scenes" in capsys.readouterr().err


def test_explore_serves_a_notebook(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {**os.environ, "JUPYTER_TOKEN": "secret"}
    (tmp_path / "explore.ipynb").write_text("mine")
    call = [sys.executable, "-m", "dpgan.cli", "explore", "--no-browser", "--port", str(port), "--seed", "7"]
    process = subprocess.Popen(call, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        content = None
        for _ in range(120):
            time.sleep(0.5)
            assert process.poll() is None, process.communicate()[0]
            try: content = urlopen(f"http://127.0.0.1:{port}/api/contents/explore-2.ipynb?token=secret", timeout=5).read(); break
            except OSError: pass
        assert "explore('scenes', seed=7)" in "".join(json.loads(content)["content"]["cells"][1]["source"]) and (tmp_path / "explore.ipynb").read_text() == "mine"
        process.terminate()
        assert process.wait(30) is not None, "a signal reaches the server"
    finally:
        if process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def test_two_recipes_of_one_name_are_refused(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_recipe(tmp_path / folder / "recipe.json", recipe(a_state()))
    assert run("generate", "--recipe", tmp_path / "a/recipe.json", "--recipe", tmp_path / "b/recipe.json", "--out", tmp_path / "x") == 2
    assert "two recipes are called recipe.json" in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize("about, words", [({"precision": "fp8"}, "'fp8'"), ({"precision": [1]}, "neither off nor bf16"), ({"threads": 0}, "threads = 0"), ({"threads": "two"}, "threads = 'two'")])
def test_recipes_edited_by_hand_end_in_a_message(tmp_path, capsys, about, words):
    write_recipe(tmp_path / "street.json", recipe(a_state(), **about))
    assert run("generate", "--recipe", tmp_path / "street.json", "--out", tmp_path / "x") == 1 and words in capsys.readouterr().err


def test_a_recipe_is_drawn_with_its_number_of_threads(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(FastGenerator, "sample", lambda self, label, z: seen.append(torch.get_num_threads()) or torch.zeros(1, 3, 64, 128))
    before = torch.get_num_threads()
    write_recipe(tmp_path / "street.json", recipe(a_state(), threads=before + 1))
    assert run("generate", "--recipe", tmp_path / "street.json", "--out", tmp_path / "x") == 0 and seen == [before + 1] and torch.get_num_threads() == before


def test_explore_looks_before_it_starts_anything(tmp_path, capsys, trained):
    assert run("explore", "--checkpoint", tmp_path / "none") == 1 and "no checkpoint" in capsys.readouterr().err
