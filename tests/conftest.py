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

WHERE = "DPGAN_TEST_DATA"


def missing_data(reason: str) -> None:
    "Skip a test that needs real data; fail it where the data has to be there (DPGAN_REQUIRE_DATA=1, as .ci/run sets it)."
    if os.environ.get("DPGAN_REQUIRE_DATA", "") not in ("", "0"): pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def test_data() -> Path:
    "The folder of real data packs."
    folder = os.environ.get(WHERE)
    if not folder: missing_data(f"{WHERE} is not set: it names the folder of real data packs")
    if not Path(folder).is_dir(): pytest.fail(f"{WHERE} = {folder} is no folder", pytrace=False)
    return Path(folder).resolve()


def pytest_configure(config):
    if torch is None: return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1)))


@pytest.fixture(autouse=True)
def nothing_left_behind():
    "A test gets torch's defaults, and fails where it leaves others to the next one."
    if torch is None: yield; return
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    torch.manual_seed(0)
    yield
    after = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    torch.set_default_dtype(before[0])
    torch.set_grad_enabled(before[1])
    torch.set_num_threads(before[2])
    assert after == before, f"left behind (dtype, gradients, threads): {after}, found {before}"
