"The habits of a project of notebooks, in real clones: what is committed is clean, and notebooks merge cell by cell. And that CONTRIBUTING.md says what is so."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from traitlets.config import PyFileConfigLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

NAME = "nbs/00_one.ipynb"


def git(folder, *arguments, status=0, **env):
    "Run git as somebody without any settings of their own; what it printed on both channels."
    env = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CEILING_DIRECTORIES": str(folder.parent),
           **{f"GIT_{who}_{what}": "me@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}, **env}
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def write(folder, *sources, count=None, **metadata):
    "A notebook of code cells; with a count it looks as if it had just been run."
    output = nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=count)
    cells = [nbformat.v4.new_code_cell(s, id=f"one-{i}", execution_count=count, outputs=[output]) for i, s in enumerate(sources)]
    (folder / "nbs").mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / NAME)


def committed(folder): return nbformat.reads(git(folder, "show", f"HEAD:{NAME}"), 4)
def counts(nb): return [c.execution_count for c in nb.cells]


@pytest.fixture
def clone(tmp_path):
    "A clone of a small project with the real hooks, installed twice, in step with git."
    origin, folder = tmp_path / "origin", tmp_path / "clone"
    shutil.copytree(ROOT / ".githooks", origin / ".githooks")
    (origin / "tools").mkdir()
    for name in ("tools/notebooks.py", "settings.ini", ".gitattributes"): shutil.copy(ROOT / name, origin / name)
    (origin / ".gitignore").write_text(".venv\n.last_checked\n")
    write(origin, "a = 1", "b = 2", "c = 3")
    subprocess.run([Path(sys.executable).parent / "nbdev_clean", "--fname", origin / "nbs"], cwd=origin, check=True)
    git(origin, "init", "-q", "-b", "main")
    git(origin, "add", ".")
    git(origin, "commit", "-q", "-m", "first")
    git(tmp_path, "clone", "-q", "origin", "clone")
    (folder / ".venv").symlink_to(sys.prefix)
    [said] = notebooks.install(folder, tmp_path / "prefix")
    assert "git hooks installed" in said and notebooks.install(folder, tmp_path / "prefix") == []
    assert not git(folder, "status", "--porcelain"), "the hooks change no file of the project"
    return folder


def test_a_dirty_notebook_is_cleaned_when_committed(clone):
    write(clone, "a = 1", "b = 20", "c = 3", count=7, vscode={"x": 1})
    assert f"cleaned {NAME}" in git(clone, "commit", "-qam", "b")
    nb = committed(clone)
    assert counts(nb) == [None] * 3 and "vscode" not in nb.metadata and nb.cells[1].source == "b = 20" and nb.cells[1].outputs[0].data["text/plain"] == "1"
    assert not git(clone, "status", "--porcelain"), "file, index and commit are the same"
    write(clone, "a = 1", "b = 30", "c = 3", count=8)
    git(clone, "add", NAME)
    assert "cleaned" in git(clone, "commit", "-qm", "b again") and counts(committed(clone)) == [None] * 3 and not git(clone, "status", "--porcelain")


def test_a_clean_notebook_and_other_files_are_left_alone(clone):
    write(clone, "a = 1", "b = 2")
    notebooks.clean(clone / "nbs", clone)
    (clone / "other.txt").write_text("x")
    git(clone, "add", ".")
    assert "cleaned" not in git(clone, "commit", "-qm", "less") and len(committed(clone).cells) == 2


def test_what_cannot_be_cleaned_is_refused_with_a_reason(clone):
    write(clone, "a = 1", count=1)
    git(clone, "add", NAME)
    write(clone, "a = 2", count=2)
    assert f"not committed: {NAME} is not clean" in git(clone, "commit", "-qm", "staged in part", status=1)
    assert "make clean-nbs" in git(clone, "commit", "-qm", "one file", NAME, status=1)
    git(clone, "commit", "-qm", "on purpose", "--no-verify", NAME)
    assert counts(committed(clone)) == [2]
    (clone / NAME).write_text("<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n")
    assert "is no notebook" in git(clone, "commit", "-qam", "marks", status=1)


def test_without_an_environment_commits_go_through(clone):
    (clone / ".venv").unlink()
    write(clone, "a = 5", count=1)
    assert "no .venv here" in git(clone, "commit", "-qam", "dirty") and counts(committed(clone)) == [1]


def branches(clone, ours, theirs):
    "Two branches that change the notebook, each run in its own order; the second is checked out."
    git(clone, "checkout", "-qb", "theirs")
    write(clone, *theirs, count=3)
    git(clone, "commit", "-qam", "theirs")
    git(clone, "checkout", "-q", "main")
    write(clone, *ours, count=9)
    git(clone, "commit", "-qam", "ours")


def test_notebooks_merge_cell_by_cell(clone):
    branches(clone, ["a = 10", "b = 2", "c = 3"], ["a = 1", "b = 2", "c = 30"])
    git(clone, "merge", "-q", "-m", "merged", "theirs")
    assert [c.source for c in committed(clone).cells] == ["a = 10", "b = 2", "c = 30"]


def test_a_conflict_leaves_a_notebook_that_opens(clone):
    branches(clone, ["a = 1", "b = 20", "c = 3"], ["a = 1", "b = 21", "c = 3"])
    assert "CONFLICT" in git(clone, "merge", "theirs", status=1)
    nb = json.loads((clone / NAME).read_text())
    assert ["".join(c["source"]).split()[0].strip("`") for c in nb["cells"]] == ["a", "<<<<<<<", "b", "=======", "b", ">>>>>>>", "c"]
    git(clone, "add", NAME)
    assert "not resolved" in git(clone, "commit", "-qm", "too early", status=1)
    write(clone, "a = 1", "b = 21", "c = 3")
    git(clone, "add", NAME)
    git(clone, "commit", "-qm", "resolved")
    assert [c.source for c in committed(clone).cells] == ["a = 1", "b = 21", "c = 3"]


def test_a_merge_without_an_environment_is_an_ordinary_one(clone):
    branches(clone, ["a = 10", "b = 2", "c = 3"], ["a = 1", "b = 2", "c = 30"])
    (clone / ".venv").unlink()
    git(clone, "merge", "-q", "-m", "merged", "theirs")
    assert [c.source for c in committed(clone).cells] == ["a = 10", "b = 2", "c = 30"]


def test_views_of_widgets_go_where_a_picture_stays(tmp_path):
    both = nbformat.v4.new_output("display_data", {notebooks.VIEW: {"model_id": "x"}, "image/png": "aa"})
    alone = nbformat.v4.new_output("display_data", {notebooks.VIEW: {"model_id": "y"}, "text/plain": "slider"})
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("w", id="one-w", outputs=[both, alone])]), tmp_path / "a.ipynb")
    notebooks.clean(tmp_path)
    first, second = nbformat.read(tmp_path / "a.ipynb", 4).cells[0].outputs
    assert list(first.data) == ["image/png"] and notebooks.VIEW in second.data


def test_kernels_draw_sharp(tmp_path):
    "The settings that are written are ones that the loader of a kernel's settings reads."
    notebooks.install(tmp_path, tmp_path)
    found = PyFileConfigLoader("ipython_kernel_config.py", path=str(tmp_path / "etc" / "ipython")).load_config()
    assert found.InlineBackend.figure_formats == {"retina"}


def test_what_is_already_there_stays(tmp_path):
    assert "no git hooks" in notebooks.install(tmp_path, tmp_path / "p")[0], "an unpacked source distribution"
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "inner").mkdir()
    assert "inside another checkout" in notebooks.install(tmp_path / "inner", tmp_path / "p")[0]
    hook = tmp_path / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\n")
    assert "your own git hooks stay (pre-push)" in notebooks.install(tmp_path, tmp_path / "p")[0]
    assert not notebooks.setting("core.hooksPath", tmp_path)
    hook.unlink()
    subprocess.run(["git", "config", "core.hooksPath", "mine"], cwd=tmp_path, check=True)
    assert "(mine)" in notebooks.install(tmp_path, tmp_path / "p")[0] and notebooks.setting("core.hooksPath", tmp_path) == "mine"
    settings = tmp_path / "p" / "etc" / "ipython" / "ipython_kernel_config.py"
    settings.write_text("c.mine = 1\n")
    assert "is your own" in notebooks.install(tmp_path, tmp_path / "p")[0] and settings.read_text() == "c.mine = 1\n"


def test_make_goes_on_without_git(tmp_path):
    "The command that make runs never fails."
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "notebooks.py", tmp_path / "tools")
    script = f"import sys; sys.prefix = {str(tmp_path)!r}; sys.argv = ['notebooks.py', 'hooks']; import runpy; runpy.run_path('tools/notebooks.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": "/nowhere"})
    assert done.returncode == 0 and "no git hooks installed" in done.stdout
    assert all(os.access(p, os.X_OK) for p in (ROOT / ".githooks").iterdir())


# ---- what is written about it

def test_contributing_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", " ".join(re.findall(r"`[^`]+`|```sh[^`]+```", text))))
    assert {"test", "export", "lab", "docs", "colab", "hooks", "clean-nbs"} <= named <= targets, named - targets
    paths = {p.split()[-1] for p in re.findall(r"`((?:[\w.]+/)+[\w.]*|[\w.]+\.(?:py|md|ini|txt|yml))`", text)} - {"classes.json"}
    there = {p for p in paths if (ROOT / p).exists() or list(ROOT.glob(f"nbs/{p}.ipynb"))}
    made_up = {p for p in paths if re.search("NAME|NN_|^loss_", p)} | {"dist/", "_docs/", ".git/config"}
    assert len(paths) > 20 and paths - there <= made_up, paths - there
    stems = {p.stem for p in (ROOT / "nbs").glob("*.ipynb")}
    assert set(re.findall(r"`(\d\d[a-z]?_\w+)`", text)) <= stems


def test_issue_forms_are_what_github_takes():
    forms = [yaml.safe_load(p.read_text()) for p in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[0-9]*.yml")]
    assert len(forms) == 3
    for form in forms:
        assert form["name"] and form["description"] and form["body"] and len({b["id"] for b in form["body"]}) == len(form["body"])
        assert all(b["type"] in ("textarea", "input", "dropdown", "checkboxes", "markdown") and b["attributes"]["label"] for b in form["body"])
        assert any(b.get("validations", {}).get("required") for b in form["body"])


def test_changelog_knows_the_version():
    version = re.search(r"^version = (\S+)", (ROOT / "settings.ini").read_text(), re.M)[1]
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## Unreleased$", text, re.M) and version in text
