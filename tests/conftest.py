"Shared by all tests: where the real data is, threads, and no state left behind."
import os
from pathlib import Path

import pytest

try: import torch
except ImportError: torch = None   # test_config and test_toolchain need none

try:
    from hypothesis import settings
    settings.register_profile("dpgan", deadline=None, database=None, derandomize=True, max_examples=100, print_blob=True)
    settings.load_profile("dpgan")
except ImportError: pass

UNSET = "DPGAN_TEST_DATA is not set: it names the folder of real data packs"


def pytest_configure(config):
    "Refuse a data folder that is not there, and its absence where DPGAN_REQUIRE_DATA=1 asks for it (.ci/run does), so that nothing is skipped unnoticed."
    folder, required = os.environ.get("DPGAN_TEST_DATA"), os.environ.get("DPGAN_REQUIRE_DATA", "0") not in ("", "0")
    if required and not folder: raise pytest.UsageError(f"{UNSET}, and DPGAN_REQUIRE_DATA asks for it")
    if folder and not Path(folder).is_dir(): raise pytest.UsageError(f"DPGAN_TEST_DATA = {folder} is no folder")
    if torch is not None: torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1)))


@pytest.fixture(scope="session")
def test_data() -> Path:
    "The folder of real data packs; skips where there is none."
    if not os.environ.get("DPGAN_TEST_DATA"): pytest.skip(UNSET)
    return Path(os.environ["DPGAN_TEST_DATA"]).resolve()


def torch_state() -> dict:
    "What a test may not change for the next one."
    device = getattr(torch, "get_default_device", lambda: None)()   # torch 2.3 and later
    return dict(dtype=torch.get_default_dtype(), grad=torch.is_grad_enabled(), threads=torch.get_num_threads(), device=device,
                deterministic=torch.are_deterministic_algorithms_enabled())


@pytest.fixture(autouse=True)
def nothing_left_behind():
    "Every test starts from the same seed and torch's defaults, and fails where it leaves other defaults behind."
    if torch is None: yield; return
    before = torch_state()
    torch.manual_seed(0)
    yield
    after = torch_state()
    torch.set_default_dtype(before["dtype"])
    torch.set_grad_enabled(before["grad"])
    torch.set_num_threads(before["threads"])
    torch.set_default_device(None)
    torch.use_deterministic_algorithms(before["deterministic"])
    torch.set_flush_denormal(False)   # has no getter; training turns it on
    assert after == before, f"left behind: {({k: v for k, v in after.items() if v != before[k]})}"
