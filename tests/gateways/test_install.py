"""The distribution by itself: a wheel of it, installed where nothing else of ours is."""

import subprocess
import sys
from pathlib import Path

import pytest

GATEWAYS = Path(__file__).parents[2] / "gateways"
IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import tripswitch_gateway
assert tripswitch_gateway.__file__.startswith(sys.argv[1]), tripswitch_gateway.__file__
for name in tripswitch_gateway.__all__:
    getattr(tripswitch_gateway, name)
print(*{name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))
"""
# What the two dependencies bring along.
ALLOWED = {"tripswitch_gateway", "confluent_kafka", "joserfc", "cryptography", "_cffi_backend", "_openssl", "__main__"}


def test_installed_alone(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "wheels", GATEWAYS],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode and "hatchling" in made.stderr and "find" in made.stderr:
        pytest.skip("no package index to build with")
    assert made.returncode == 0, made.stderr
    [wheel] = (tmp_path / "wheels").glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    # -I: neither this folder nor PYTHONPATH; the dependencies come from where they are installed.
    run = [sys.executable, "-I", "-c", IMPORT, str(site)]
    loaded = set(subprocess.run(run, check=True, capture_output=True, text=True, cwd=tmp_path).stdout.split())
    # Modules that the interpreter's own start-up files bring in are not ours to judge.
    bare = subprocess.run(
        [sys.executable, "-I", "-c", 'import sys; print(*{name.partition(".")[0] for name in sys.modules})'],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert loaded - set(bare.stdout.split()) <= ALLOWED
