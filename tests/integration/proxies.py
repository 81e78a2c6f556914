"""nginx, Envoy and Caddy with the configurations of deploy/, each with a guard of its own, before one tiny LLM API."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import proxy_programs
from kafka_node import ends_with_us, free_port

ROOT = Path(__file__).parents[2]
Process = subprocess.Popen[bytes]
PROXIES = ("nginx", "envoy", "caddy")
_START_S = 60.0
# What Debian's nginx.conf has around conf.d, but in a folder of the test's own, and in the foreground.
_NGINX_MAIN = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {conf};
}}
"""


class Proxies:
    """What runs: `ports` are what clients call, by proxy, `guards` those of each one's guard."""

    def __init__(self) -> None:
        self.ports = {name: free_port() for name in PROXIES}
        self.guards = {name: free_port() for name in PROXIES}
        self.upstream = free_port()
        self.running: dict[str, Process] = {}

    def stop_guard(self, proxy: str) -> int:
        """Asks the guard of a proxy to end; returns its exit code."""
        guard = self.running.pop(f"guard-{proxy}")
        guard.terminate()
        return guard.wait(20)


@contextmanager
def proxies(folder: Path, environment: Mapping[str, str], owners: Mapping[str, str]) -> Iterator[Proxies]:
    """All of it, up and ready. `owners` are the identities of tenant acme, by API key."""
    table = {
        hashlib.sha256(key.encode()).hexdigest(): {"identity": who, "tenant": "acme"} for key, who in owners.items()
    }
    (folder / "keys.json").write_text(json.dumps(table))
    at = Proxies()
    with ExitStack() as stack:

        def start(name: str, *command: str, **more: str) -> None:
            at.running[name] = stack.enter_context(_process(folder, name, {**environment, **more}, *command))

        start("upstream", sys.executable, str(Path(__file__).with_name("llm_upstream.py")), str(at.upstream))
        for name, port in at.guards.items():
            start(f"guard-{name}", sys.executable, "-m", "tripswitch_gateway.guard", "--listen", f"127.0.0.1:{port}",
                  "--name", f"{name}-1", TRIPSWITCH_GUARD_KEYS=str(folder / "keys.json"))  # fmt: skip
        conf = _substituted(folder, "nginx.conf", {
            "127.0.0.1:9191": f"127.0.0.1:{at.guards['nginx']}", "127.0.0.1:4000": f"127.0.0.1:{at.upstream}",
            "127.0.0.1:8080": f"127.0.0.1:{at.ports['nginx']}",
        })  # fmt: skip
        main = folder / "nginx-main.conf"
        main.write_text(_NGINX_MAIN.format(conf=conf))
        start("nginx", str(proxy_programs.nginx()), "-p", str(folder), "-c", str(main), "-e", "stderr")
        conf = _substituted(folder, "envoy.yaml", {
            "127.0.0.1:9191": f"127.0.0.1:{at.guards['envoy']}",
            "port_value: 9191": f"port_value: {at.guards['envoy']}",
            "port_value: 4000": f"port_value: {at.upstream}", "port_value: 8081": f"port_value: {at.ports['envoy']}",
        })  # fmt: skip
        start("envoy", str(proxy_programs.envoy()), "-c", str(conf), "--concurrency", "1", "--disable-hot-restart",
              "--log-level", "warning")  # fmt: skip
        conf = _substituted(folder, "Caddyfile", {
            "127.0.0.1:9191": f"127.0.0.1:{at.guards['caddy']}", "127.0.0.1:4000": f"127.0.0.1:{at.upstream}",
            "127.0.0.1:8082": f"127.0.0.1:{at.ports['caddy']}",
        })  # fmt: skip
        start("caddy", str(proxy_programs.caddy()), "run", "--config", str(conf), "--adapter", "caddyfile",
              XDG_DATA_HOME=str(folder), XDG_CONFIG_HOME=str(folder))  # fmt: skip
        for port in (at.upstream, *at.ports.values(), *at.guards.values()):
            _wait_listening(port, folder, at.running)
        yield at
        _check_alive(folder, at.running)


def _substituted(folder: Path, name: str, changes: Mapping[str, str]) -> Path:
    """The file of deploy/ with other addresses; each must stand in it."""
    text = (ROOT / "deploy" / name).read_text()
    for old, new in changes.items():
        assert old in text, f"deploy/{name} does not have {old}"
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


@contextmanager
def _process(folder: Path, name: str, environment: Mapping[str, str], *command: str) -> Iterator[Process]:
    """Its output goes to NAME.log."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*ends_with_us(), *command], env={**os.environ, **environment}, cwd=folder, stdout=log,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_listening(port: int, folder: Path, started: Mapping[str, Process]) -> None:
    end = time.monotonic() + _START_S
    while True:
        _check_alive(folder, started)
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            assert time.monotonic() < end, f"nobody listens on {port}"
            time.sleep(0.05)
        else:
            return


def _check_alive(folder: Path, started: Mapping[str, Process]) -> None:
    for name, process in started.items():
        assert process.poll() is None, f"{name} ended by itself:\n{(folder / f'{name}.log').read_text()[-4000:]}"
