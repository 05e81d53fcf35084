"""An ONNX file draws what the generator draws, for any number of images, and says what it is."""
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from dpgan.config import preset
from dpgan.data import SCENES
from dpgan.export import ExportError, about_generator, check_onnx, export_onnx, need, onnx_session
from dpgan.generator import Generator

SMALL = dict(base_channels=2, pyramid_channels=4, z_dim=3, init_gain=1.0)


def labels(count, classes=5, seed=0): return torch.randint(0, classes, (count, 64, 64), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "A generator whose statistics are not those of a new one, and its file."
    torch.manual_seed(3)
    G = Generator(5, **SMALL).train()
    with torch.no_grad(): G(labels(4), torch.randn(4, 3))
    file = tmp_path_factory.mktemp("onnx") / "g.onnx"
    export_onnx(G.eval(), file, 64, 64, about=about_generator(preset("scenes"), SCENES))
    return G, file


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_images(exported, count):
    G, file = exported
    assert check_onnx(file, G, labels(count, seed=count), torch.randn(count, 3), tolerance=1e-4) < 1e-4


def test_changed_weights_are_noticed(exported):
    _, file = exported
    torch.manual_seed(4)
    with pytest.raises(ExportError, match="differs from the generator"): check_onnx(file, Generator(5, **SMALL).eval(), labels(1), torch.randn(1, 3))


def test_the_file_says_what_it_is(exported):
    about = json.loads({p.key: p.value for p in onnx.load(str(exported[1])).metadata_props}["dpgan"])
    assert about["classes"]["names"] == list(SCENES.names) and about["config"]["name"] == "scenes"
    session = onnx_session(exported[1], threads=1)
    assert [i.name for i in session.get_inputs()] == ["label", "z"] and [o.name for o in session.get_outputs()] == ["image"]


def test_noise_as_a_map(tmp_path):
    G = Generator(5, **SMALL).double().train()
    export_onnx(G, tmp_path / "map.onnx", 64, 64, noise="map")
    assert G.training and G.head.weight.dtype == torch.float64, "the generator stays as it was"
    G = G.float().eval()
    assert check_onnx(tmp_path / "map.onnx", G, labels(3), torch.randn(3, 3, 64, 64)) < 1e-4


def test_a_generator_without_noise(tmp_path):
    G = Generator(5, noise=False, **SMALL).eval()
    export_onnx(G, tmp_path / "still.onnx", 64, 64)
    assert [i.name for i in onnx_session(tmp_path / "still.onnx").get_inputs()] == ["label"] and check_onnx(tmp_path / "still.onnx", G, labels(2), None) < 1e-4


def test_ids_without_a_class_are_black_planes_not_errors(exported):
    [image] = onnx_session(exported[1]).run(None, {"label": np.full((1, 64, 64), 99), "z": np.zeros((1, 3), np.float32)})
    assert np.isfinite(image).all()


def test_errors_leave_nothing_behind(tmp_path):
    G = Generator(5, **SMALL).eval()
    with pytest.raises(ExportError, match="multiples of 64"): export_onnx(G, tmp_path / "x.onnx", 96, 64)
    with pytest.raises(ExportError, match="vector or map"): export_onnx(G, tmp_path / "x.onnx", 64, 64, noise="fog")
    with pytest.raises(ExportError, match=r"dpgan\[export\]"): need("onnx", "no_such_package")
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with pytest.raises(ExportError, match="cannot be opened"): onnx_session(tmp_path / "bad.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.onnx"]


def test_importing_needs_none_of_the_extra():
    blocked = "import sys; sys.modules.update(onnx=None, onnxruntime=None, onnxscript=None); import dpgan.export; import dpgan.cli"
    assert subprocess.run([sys.executable, "-c", blocked], timeout=120).returncode == 0


def test_the_command(tmp_path):
    file = tmp_path / "scenes.onnx"
    done = subprocess.run([sys.executable, "-m", "dpgan.cli", "export", "--out", str(file)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and file.is_file() and "differs by at most" in done.stdout, done.stderr
