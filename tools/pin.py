"""Write constraints.txt: the exact version of every package in this environment.

A constraint only counts for what gets installed, so one file serves every platform. Two kinds of pins are marked: packages whose pinned version
needs a newer Python than 3.10, and the NVIDIA libraries, which exist for Linux on x86-64 only in these versions.
"""
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

TARGET = Path(__file__).resolve().parent.parent / "constraints.txt"
OURS = {"dpgan", "pip", "setuptools", "wheel"}
HEADER = """\
# The development environment, exactly: every package in it, direct or not. `make pin` writes this file from .venv.
# Used as `pip install -c constraints.txt -e ".[dev]"`. The ranges that users of the package get are in settings.ini.
"""


def pin(dist) -> str:
    "One line for an installed package."
    name, markers = dist.metadata["Name"], []
    if name.startswith(("nvidia-", "cuda-")) or name == "triton": markers.append('sys_platform == "linux" and platform_machine == "x86_64"')
    needs = SpecifierSet(dist.metadata.get("Requires-Python") or "")
    markers += [f'python_full_version >= "{s.version}"' for s in needs if s.operator == ">=" and Version(s.version) > Version("3.10")]
    return f"{name}=={dist.version}" + (f" ; {' and '.join(markers)}" if markers else "")


if __name__ == "__main__":
    found = {d.metadata["Name"].lower(): d for d in distributions()}
    lines = [pin(found[name]) for name in sorted(found) if name not in OURS]
    TARGET.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{len(lines)} packages pinned in {TARGET.name}")
