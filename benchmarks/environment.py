"""What a measurement was made with."""
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def git(*args):
    "What git says; empty where there is no git."
    try: return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError: return ""


def processor():
    "The processor's name where the system tells it."
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []
    return names[0] if names else platform.processor()


def environment():
    "Device, versions, threads, arguments and revision."
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": processor(), "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), "gpu": gpu,
            "python": platform.python_version(), **{name: version(name) for name in ("torch", "torchvision", "numpy")},
            "threads": torch.get_num_threads(), "arguments": [Path(a).name if os.path.isabs(a) else a for a in sys.argv[1:]],
            "revision": git("rev-parse", "--short", "HEAD"), "uncommitted": bool(git("status", "--porcelain", "--", "nbs", "dpgan"))}
