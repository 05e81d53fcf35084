"""Write README.md from nbs/index.ipynb without Quarto: `python tools/readme.py`, or `--check` to see that it is in step.

Numbers come from benchmarks/results: where the notebook has `<!--speed training_step[shape=ade20k].rows[row=bf16].seconds .1f-->5.7<!--/-->`, the 5.7 is what speed.json says there,
written anew by this tool. In a path, `[key=value]` chooses an element of a list, `[key~part]` one whose value contains a part, `[~part]` a key; `*100` multiplies.

Prose stays as it is, with links made relative to the top folder and callouts turned into block quotes; code becomes fenced blocks, followed by its
saved output; pictures go into index_files/. The cell options `hide`, `echo: false`, `hide_input`, `output: false`, `hide_output` do what they do on the site.
"""
import argparse
import base64
import difflib
import json
import posixpath
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PICTURES = "index_files"
NOTE = "<!-- Written from nbs/index.ipynb by tools/readme.py (`make readme`): edit the notebook, not this file. -->"
PICTURE = re.compile(r'!\[([^\]]*)\]\(([^)\s]+)\)\{([^}]*)\}')
LINK = re.compile(r'(\]\(|(?:src|href)=")([^)"\s]+)')
FENCE = re.compile(r"^(```+|~~~+)")
DIV = re.compile(r"^:::+\s*(.*)$")
DIRECTIVE = re.compile(r"^#\s*\|\s*([\w.-]+):?\s*(.*?)\s*$")
NUMBER = re.compile(r"<!--(\w+) (\S.*?)(?: \*(\d+))? ([.,\d]*[dfs])-->(.*?)<!--/-->")
STEP = re.compile(r"\.?([^.\[\]]+)|\[([^\]=~]*)([=~])([^\]]*)\]")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def looked_up(record, path: str):
    "What stands at a path of a result file; a `KeyError` where there is nothing."
    for name, key, how, wanted in STEP.findall(path):
        if name: record = record[name]
        else:
            fits = wanted.__eq__ if how == "=" else lambda text: wanted in text
            found = [item for item in record if fits(str(item[key]))] if key else [record[name] for name in record if fits(name)]
            if not found: raise KeyError(f"nothing fits [{key}{how}{wanted}] in {path}")
            record = found[0]
    return record


def filled(text: str, results: Path) -> str:
    "A markdown cell with every marked number as the result files have it now."
    def number(match: re.Match) -> str:
        name, path, factor, form, old = match.groups()
        value = looked_up(json.loads((results / f"{name}.json").read_text(encoding="utf-8")), path)
        return match[0].replace(f"-->{old}<!--/-->", f"-->{format(value if form == 's' else value * int(factor or 1), form)}<!--/-->")
    return NUMBER.sub(number, text)


def fill(notebook: Path, results: Path, change: bool) -> list[str]:
    "Bring the numbers of a notebook up to date; which cells that concerns."
    nb, stale = nbformat.read(notebook, 4), []
    for cell in nb.cells:
        new = filled(cell.source, results) if cell.cell_type == "markdown" else cell.source
        if new != cell.source: stale, cell.source = [*stale, cell.id], new
    if stale and change: nbformat.write(nb, notebook)
    return stale


def move_link(match: re.Match) -> str:
    "A link as seen from the top folder instead of from nbs/."
    start, target = match.groups()
    if re.match(r"[a-z][a-z0-9+.-]*:|#|/", target, re.I): return match[0]
    return start + posixpath.normpath(posixpath.join("nbs", target))


def captioned(match: re.Match) -> str:
    "A picture with attributes as GitHub shows one: described by its fig-alt, its caption below."
    caption, target, attributes = match.groups()
    alt = re.search(r'fig-alt="([^"]*)"', attributes)
    return f"![{alt[1] if alt else caption}]({target})" + (f"\n\n*{caption}*" if alt and caption else "")


def callout_title(attributes: str) -> str | None:
    "The heading of a callout; None for any other kind of div."
    kind = re.search(r"\.callout-(\w+)", attributes)
    title = re.search(r'title="([^"]*)"', attributes)
    return (title[1] if title else kind[1].capitalize()) if kind else None


def prose(text: str) -> str:
    "A markdown cell for the README: links moved, callouts as block quotes, other divs unwrapped, code blocks untouched."
    lines, divs, fence = [], [], None
    for line in text.splitlines():
        mark = FENCE.match(line)
        div = None if fence or mark else DIV.match(line)
        if div and div[1]:
            title = callout_title(div[1])
            divs.append(title is not None)
            if title is not None: lines += ["> " * (sum(divs) - 1) + f"> **{title}**", "> " * (sum(divs) - 1) + ">"]
        elif div: divs and divs.pop()
        else:
            if mark: fence = None if fence == mark[1] else fence or mark[1]
            if not (fence or mark): line = LINK.sub(move_link, PICTURE.sub(captioned, NUMBER.sub(r"\5", line)))
            lines.append(("> " * sum(divs) + line).rstrip())
    return "\n".join(lines)


def split_directives(source: str) -> tuple[dict[str, str], str]:
    "The `#|` lines of a code cell as a dict, and the code without them."
    options, code = {}, []
    for line in source.splitlines():
        found = DIRECTIVE.match(line)
        if found: options[found[1]] = found[2].strip("\"'")
        else: code.append(line)
    return options, "\n".join(code).strip("\n")


def fenced(text: str, language: str = "") -> str:
    "A code block; its fence is longer than any inside."
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def clean_text(text: str) -> str:
    "Printed text without colours, and of a rewritten line only its last state."
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in ANSI.sub("", text).split("\n")).strip("\n")


def shown_output(output, name: str, alt: str, pictures: dict[str, bytes]) -> str:
    "One output of a cell; a picture is added to `pictures`."
    if output.output_type == "stream": return fenced(clean_text(output.text)) if output.name == "stdout" else ""
    if output.output_type == "error": return fenced(f"{output.ename}: {output.evalue}")
    data = output.data
    for kind, suffix in (("image/svg+xml", "svg"), ("image/png", "png"), ("image/jpeg", "jpg")):
        if kind in data:
            path = f"{PICTURES}/{name}.{suffix}"
            pictures[path] = data[kind].encode() if suffix == "svg" else base64.b64decode(data[kind])
            return f"![{alt}]({path})"
    if "text/markdown" in data: return prose(data["text/markdown"])
    return fenced(clean_text(data.get("text/plain", "")))


def code_cell(cell, pictures: dict[str, bytes]) -> list[str]:
    "A code cell and its output as blocks of markdown."
    options, code = split_directives(cell.source)
    if {"hide", "default_exp"} & options.keys() or options.get("include") == "false": return []
    blocks = []
    if code and not ("hide_input" in options or options.get("echo") == "false"): blocks.append(fenced(code, "sh" if code.startswith("%%bash") else "python"))
    if "hide_output" in options or options.get("output") == "false": return blocks
    alt = options.get("fig-alt") or options.get("fig-cap") or ""
    blocks += [shown_output(output, f"{cell.id}-{i}", alt, pictures) for i, output in enumerate(cell.outputs, 1)]
    return blocks + ([f"*{options['fig-cap']}*"] if options.get("fig-cap") and cell.outputs else [])


def render(notebook: Path) -> tuple[str, dict[str, bytes]]:
    "The README and its pictures, by path."
    pictures, blocks = {}, []
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type == "markdown": blocks.append(prose(cell.source))
        elif cell.cell_type == "code": blocks += code_cell(cell, pictures)
    blocks = [block for block in blocks if block.strip()]
    title, _, rest = blocks[0].partition("\n")
    return "\n\n".join([title, NOTE, rest.strip("\n"), *blocks[1:]]).replace("\n\n\n", "\n\n") + "\n", pictures


def differences(root: Path, text: str, pictures: dict[str, bytes]) -> list[str]:
    "What is out of step in a folder, as lines to print."
    readme = root / "README.md"
    old = readme.read_text(encoding="utf-8") if readme.exists() else ""
    lines = list(difflib.unified_diff(old.splitlines(), text.splitlines(), "README.md", "nbs/index.ipynb", lineterm="", n=1))
    there = {str(p.relative_to(root).as_posix()): p for p in (root / PICTURES).rglob("*") if p.is_file()}
    lines += [f"{name}: not a picture of the notebook" for name in sorted(there.keys() - pictures.keys())]
    return lines + [f"{name}: out of date or missing" for name, data in pictures.items() if name not in there or there[name].read_bytes() != data]


def save(root: Path, text: str, pictures: dict[str, bytes]) -> None:
    "Write the README and its pictures, and remove pictures that are no longer shown."
    (root / "README.md").write_text(text, encoding="utf-8")
    for old in (root / PICTURES).glob("*"):
        if f"{PICTURES}/{old.name}" not in pictures: old.unlink()
    for name, data in pictures.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write README.md from nbs/index.ipynb.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where README.md is out of step")
    check = parser.parse_args(argv).check
    notebook = ROOT / "nbs" / "index.ipynb"
    stale = [f"nbs/index.ipynb, {name}: numbers are not those of benchmarks/results" for name in fill(notebook, ROOT / "benchmarks" / "results", not check)]
    text, pictures = render(notebook)
    lines = stale if check else []
    lines += differences(ROOT, text, pictures)
    if check and lines: sys.exit("\n".join(lines[:40]) + "\nREADME.md is not what nbs/index.ipynb says: run `make readme` and commit it.")
    if lines: save(ROOT, text, pictures)
    print(f"README.md {'written' if lines else 'is in step'}: {len(text.splitlines())} lines, {len(pictures)} pictures")


if __name__ == "__main__": main()
