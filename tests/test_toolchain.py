"What is outside the notebooks: the package's metadata, the wheel, the README, the Makefile and the scripts it calls."
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import readme  # noqa: E402


@pytest.fixture(scope="module")
def settings():
    ini = configparser.ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini")
    return ini["DEFAULT"]


@pytest.fixture(scope="module")
def pins():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel, built from a copy of what git would hold, without network."
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "settings.ini", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt"): shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "dpgan", source / "dpgan", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = out.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel):
    [name] = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


# ---- the package

def test_wheel_holds_every_module_and_nothing_else(wheel):
    inside = {n for n in wheel.namelist() if ".dist-info/" not in n}
    modules = {f"dpgan/{p.name}" for p in (ROOT / "dpgan").glob("*.py")}
    weights = {f"dpgan/weights/{p.name}" for p in (ROOT / "dpgan" / "weights").iterdir()}
    assert weights >= {"dpgan/weights/scenes_judge.safetensors", "dpgan/weights/scenes_judge.json"}
    assert inside >= modules | weights and all(name.startswith("dpgan/") for name in inside) and not [name for name in inside if "__pycache__" in name]
    assert any(n.endswith("/LICENSE") for n in wheel.namelist())


def test_wheel_has_the_command(wheel):
    [name] = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    assert "dpgan = dpgan.cli:main" in wheel.read(name).decode()


def test_metadata(metadata, settings):
    assert (metadata["Name"], metadata["Version"], metadata["Requires-Python"]) == ("dpgan", settings["version"], ">=3.10")
    assert "Apache-2.0" in (metadata["License-Expression"] or metadata["License"])
    assert "make demo" in metadata.get_payload(), "the README is the long description"


def test_users_get_ranges_and_no_notebook_tools(metadata):
    needs = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    runtime = {canonicalize_name(r.name): r for r in needs if not r.marker}
    assert {"torch", "torchvision", "numpy", "pillow", "matplotlib", "ipywidgets", "safetensors", "tqdm"} <= runtime.keys()
    assert not runtime.keys() & {"nbdev", "fastcore", "execnb", "ghapi", "jupyterlab", "pytest", "setuptools"}
    assert not [r for r in runtime.values() if "==" in str(r.specifier) or "<" in str(r.specifier)], "ranges without an upper end: Colab brings its own versions"
    assert "2.2" in runtime["torch"].specifier and "0.17" in runtime["torchvision"].specifier and "7.7.1" in runtime["ipywidgets"].specifier
    assert {canonicalize_name(r.name) for r in needs if r.marker} >= {"nbdev", "execnb", "fastcore", "ghapi", "pytest"}


def test_every_import_is_a_requirement(settings):
    "A package that the modules import at the top is one that pip installs."
    of = {"PIL": "pillow", "yaml": "pyyaml"}
    wanted = set()
    for path in (ROOT / "dpgan").glob("*.py"):
        wanted |= {m for m in re.findall(r"^(?:import|from) ([A-Za-z_]\w*)", path.read_text(), re.M) if m not in sys.stdlib_module_names}
    declared = {canonicalize_name(Requirement(r).name) for r in settings["requirements"].split()} | {"dpgan"}
    missing = {canonicalize_name(of.get(m, m)) for m in wanted} - declared
    assert not missing, f"imported, but not in settings.ini: {missing}"


def test_version_is_written_once(settings):
    assert f'__version__ = "{settings["version"]}"' in (ROOT / "dpgan" / "__init__.py").read_text()


# ---- the development environment

def test_constraints_agree_with_settings(settings, pins):
    for line in " ".join(settings[k] for k in ("requirements", "evaluate_requirements", "explore_requirements", "export_requirements", "dev_requirements")).split():
        r = Requirement(line)
        if r.name in ("setuptools", "wheel"): continue
        pin = pins.get(canonicalize_name(r.name))
        assert pin, f"{r.name} is not pinned"
        [version] = [s.version for s in pin.specifier]
        assert r.specifier.contains(version), f"{pin} is outside {r}"


def test_constraints_are_exact_and_public(pins):
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"://|@ ", text) and all([s.operator for s in p.specifier] == ["=="] for p in pins.values())
    assert {"torch": "2.14.1", "torchvision": "0.29.1", "nbdev": "2.4.14"}.items() <= {n: next(iter(p.specifier)).version for n, p in pins.items()}.items()
    assert Version(next(iter(pins["fastcore"].specifier)).version) < Version("2")


def test_gpu_libraries_are_pinned_for_their_platform_only(pins):
    mac = {"sys_platform": "darwin", "platform_machine": "arm64", "python_full_version": "3.12.1"}
    assert not [n for n, p in pins.items() if n.startswith(("nvidia-", "cuda-", "triton")) and (p.marker is None or p.marker.evaluate(mac))]


def test_nbdev_settings(settings):
    expected = dict(lib_name="dpgan", lib_path="dpgan", nbs_path="nbs", doc_path="_docs", license="apache2", min_python="3.10", black_formatting="False",
                    tst_flags="notest cuda slow", update_pyproject="False", put_version_in_init="True", recursive="True", console_scripts="dpgan=dpgan.cli:main")
    assert {k: settings[k] for k in expected} == expected
    assert not (ROOT / "pyproject.toml").exists()


def test_one_site_configuration():
    link = ROOT / "nbs" / "_quarto.yml"
    assert link.is_symlink() and link.readlink() == Path("../_quarto.yml")
    text = (ROOT / "_quarto.yml").read_text()
    assert "metadata-files: [nbdev.yml, sidebar.yml]" in text and (ROOT / "nbs" / re.search(r"css: (\S+)", text)[1]).is_file()


def test_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "dpgan contributors" in text and "[yyyy]" not in text


# ---- README

def write_notebook(path, *cells):
    nb = nbformat.v4.new_notebook(cells=list(cells))
    for i, cell in enumerate(nb.cells): cell["id"] = f"cell-{i}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


def code(source, *outputs): return nbformat.v4.new_code_cell(source, outputs=list(outputs))
def prose(source): return nbformat.v4.new_markdown_cell(source)


def test_readme_is_in_step():
    text, pictures = readme.render(ROOT / "nbs" / "index.ipynb")
    assert not readme.differences(ROOT, text, pictures), "run make readme"


def test_readme_shows_what_the_site_shows(tmp_path):
    png = "iVBORw0KGgo="
    picture = nbformat.v4.new_output("display_data", {"image/png": png, "text/plain": "<Figure>"})
    nb = write_notebook(tmp_path / "index.ipynb", prose("# Title\n\n> Subtitle\n\nText with a [link](01_labels.ipynb) and [another](https://example.org)."),
                        code("#| hide\nsecret = 1"), code("#| echo: false\n#| fig-cap: A caption\nhidden_source()", picture),
                        code("print(1)", nbformat.v4.new_output("stream", text="0%\r100%\n\x1b[31mred\x1b[0m\n")), code("#| output: false\nquiet()", picture),
                        prose('::: {.callout-note title="Why"}\nBecause.\n:::\n\n```\n::: [kept](x.md)\n```'))
    text, pictures = readme.render(nb)
    assert text.startswith("# Title\n\n<!-- Written from") and "> Subtitle" in text
    assert "[link](nbs/01_labels.ipynb) and [another](https://example.org)" in text
    assert "secret" not in text and "hidden_source" not in text and "#|" not in text
    assert "![A caption](index_files/cell-2-1.png)\n\n*A caption*" in text and "```python\nprint(1)\n```\n\n```\n100%\nred\n```" in text
    assert "> **Why**\n>\n> Because.\n" in text and "::: [kept](x.md)" in text
    assert list(pictures) == ["index_files/cell-2-1.png"] and "quiet()" in text


def test_readme_check_notices_every_difference(tmp_path):
    picture = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    text, pictures = readme.render(write_notebook(tmp_path / "nbs" / "index.ipynb", prose("# T\n\n> s"), code("draw()", picture)))
    assert readme.differences(tmp_path, text, pictures), "nothing written yet"
    readme.save(tmp_path, text, pictures)
    assert not readme.differences(tmp_path, text, pictures)
    (tmp_path / "index_files" / "old.png").write_bytes(b"x")
    assert readme.differences(tmp_path, text, pictures) == ["index_files/old.png: not a picture of the notebook"]
    readme.save(tmp_path, text + "more\n", pictures)
    assert not (tmp_path / "index_files" / "old.png").exists() and any("more" in line for line in readme.differences(tmp_path, text, pictures))


# ---- export in step

@pytest.fixture
def project(tmp_path):
    "A small nbdev project with the real check, in step."
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "in_sync.py", tmp_path / "tools")
    shutil.copy(ROOT / "settings.ini", tmp_path)
    write_notebook(tmp_path / "nbs" / "00_one.ipynb", prose("# One\n\n> Two"), code("#| default_exp one"), code('#| export\ndef one():\n    "One."\n    return 1'))
    assert run_check(tmp_path).returncode == 1, "dpgan/ was missing"
    assert run_check(tmp_path).returncode == 0
    return tmp_path


def run_check(folder, **env):
    env = {k: v for k, v in os.environ.items() if k != "CI"} | {"GIT_CEILING_DIRECTORIES": str(folder.parent)} | env
    return subprocess.run([sys.executable, "tools/in_sync.py"], cwd=folder, capture_output=True, text=True, env=env)


def test_a_hand_edited_module_is_noticed_and_kept(project):
    module = project / "dpgan" / "one.py"
    module.write_text(module.read_text().replace("return 1", "return 2"))
    done = run_check(project)
    assert done.returncode == 1 and "dpgan/one.py: differs from its notebook" in done.stdout and "-    return 2" in done.stdout and "make export" in done.stderr
    assert "return 1" in module.read_text() and "return 2" in (project / "build" / "before-export" / "dpgan" / "one.py").read_text()
    assert run_check(project).returncode == 0


def test_a_module_without_notebook_is_noticed(project):
    (project / "dpgan" / "stray.py").write_text("x = 1\n")
    done = run_check(project)
    assert done.returncode == 1 and "dpgan/stray.py: no notebook exports it" in done.stdout and not (project / "dpgan" / "stray.py").exists()
    assert (project / "build" / "before-export" / "dpgan" / "stray.py").exists()


@pytest.mark.parametrize("folder", ["weights", "static"])
def test_files_that_no_notebook_exports_are_left_alone(project, folder):
    (project / "dpgan" / folder).mkdir()
    (project / "dpgan" / folder / "file.bin").write_bytes(b"kept")
    (project / "dpgan" / "stray").mkdir()
    (project / "dpgan" / "stray" / "x.py").write_text("x = 1\n")
    done = run_check(project)
    assert done.returncode == 1 and "dpgan/stray/x.py: no notebook exports it" in done.stdout and folder not in done.stdout
    assert run_check(project).returncode == 0 and (project / "dpgan" / folder / "file.bin").read_bytes() == b"kept" and not (project / "dpgan" / "stray").exists()


def test_a_notebook_that_was_not_cleaned_is_noticed(project):
    path = project / "nbs" / "00_one.ipynb"
    nb = nbformat.read(path, 4)
    nb.cells[1].execution_count = 7
    nbformat.write(nb, path)
    done = run_check(project)
    assert done.returncode == 1 and "00_one.ipynb: nbdev_clean changed it" in done.stdout


def test_a_failing_export_leaves_the_package(project):
    before = (project / "dpgan" / "one.py").read_text()
    (project / "nbs" / "01_bad.ipynb").write_text("not a notebook")
    done = run_check(project)
    assert done.returncode == 1 and "dpgan/ is as it was" in done.stderr
    assert (project / "dpgan" / "one.py").read_text() == before


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_ci_wants_it_committed(project):
    subprocess.run(["git", "init", "-q", project], check=True)
    local, ci = run_check(project), run_check(project, CI="true")
    assert local.returncode == 0 and "not committed yet" in local.stdout
    assert ci.returncode == 1 and "commit them" in ci.stderr


# ---- make

@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("python, words", [("no-such-python", "was not found"), ("old", "needs Python 3.10 or newer, and ./old is Python 3.8.1"),
                                           ("bare", "sudo apt-get install python3-venv")])
def test_make_says_what_is_missing(tmp_path, python, words):
    for name in ("Makefile", "settings.ini", "setup.py", "constraints.txt"): shutil.copy(ROOT / name, tmp_path)
    scripts = {"old": 'case "$1" in -V) echo Python 3.8.1;; *) exit 1;; esac', "bare": 'case "$2" in venv) mkdir -p .venv/bin; exit 1;; *) exit 0;; esac'}
    for name, body in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(["make", "demo", f"PYTHON={python if python.startswith('no') else './' + python}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stdout + done.stderr and not (tmp_path / ".venv").exists()


def test_stage_reports_time_and_keeps_the_exit_status(tmp_path):
    log = tmp_path / "log"
    for command, status, word in (("true", 0, "passed"), ("exit 3", 3, "FAILED (exit 3)")):
        done = subprocess.run([ROOT / "tools" / "stage", "a stage", "bash", "-c", command], capture_output=True, text=True, env={"STAGE_LOG": str(log), "PATH": "/usr/bin:/bin"})
        assert done.returncode == status and f"== a stage: {word} in" in done.stdout
    assert len(log.read_text().splitlines()) == 2


def test_scripts_can_be_started():
    assert all(os.access(ROOT / name, os.X_OK) for name in ("tools/stage", ".ci/run"))
