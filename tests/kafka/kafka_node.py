"""One Apache Kafka node (KRaft, broker and controller in one process) that a test can stop, kill and start again."""

import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

SHARED_SETTINGS = Path(__file__).with_name("node.properties")
CLUSTER_ID = "dHJpcHN3aXRjaC10ZXN0cw"
START_DEADLINE_S = 90.0
STOP_DEADLINE_S = 20.0
POLL_S = 0.05

# What suits tests only: with few internal partitions, the first join and the first transaction are quick.
TEST_SETTINGS = {
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    "log.cleaner.dedupe.buffer.size": "16777216",
}
# A node that was killed may register again only when its former session has run out, after 9 s unless told otherwise.
# Not for every node: on a busy machine, a short session can also run out while the node lives.
QUICK_RETURN = {"broker.heartbeat.interval.ms": "500", "broker.session.timeout.ms": "3000"}


class NodeFailed(RuntimeError):
    """The node did not come up; the message ends with the last lines that it wrote."""


def read_properties(file: Path) -> dict[str, str]:
    """The settings of a Java properties file of plain `name=value` lines."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def free_port() -> int:
    """A loopback port that nothing listens on, below the range from which systems serve outgoing connections.

    Within that range, a client that keeps dialling a stopped broker can be given the broker's own port.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class KafkaNode:
    """A node with its own folder and ports, which it keeps over restarts.

    `directory` receives server.properties, the records (`records/`) and everything that the process prints
    (`server.log`). `settings` are broker settings that go before the shared ones, and may be changed until the
    first start; `clients` are the options with which
    the node itself is asked whether it is up. Usable as a context manager.
    """

    def __init__(
        self,
        jars: Path,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        clients: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.server_log = directory / "server.log"
        self.started_in_s = 0.0
        self._records = directory / "records"
        self._properties = directory / "server.properties"
        self._java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
        self._java += ["-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS", "-cp", f"{jars}/*"]
        self._process: subprocess.Popen[bytes] | None = None
        self._clients = dict(clients or {})
        self._port, self.controller_port = free_port(), free_port()
        self.settings = {
            **read_properties(SHARED_SETTINGS),
            **TEST_SETTINGS,
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "log.dirs": str(self._records),
            **(settings or {}),
        }

    @property
    def bootstrap(self) -> str:
        """host:port, the same over restarts."""
        return f"127.0.0.1:{self._port}"

    @property
    def running(self) -> bool:
        """Whether the process that `start` began is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process and returns once it leads every partition that it knows. Raises NodeFailed."""
        if self.running:
            raise RuntimeError("this node runs already: stop() or kill9() it first")
        began = time.monotonic()
        if not (self._records / "meta.properties").exists():
            self._format()
        command = [*ends_with_us(), *self._java, "kafka.Kafka", str(self._properties)]
        with self.server_log.open("ab") as log:
            # A session of its own, or Ctrl-C would reach the broker before the tests had let go of it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._wait_until_it_answers(began + START_DEADLINE_S)
        except BaseException:
            self.kill9()
            raise
        self.started_in_s = time.monotonic() - began

    def stop(self) -> None:
        """SIGTERM, which lets the node close its files; SIGKILL if it has not ended within the deadline."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill9()
        self._process = None

    def kill9(self) -> None:
        """SIGKILL, as a lost machine would look; records stay in the folder for the next `start`."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _format(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        arguments = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._properties)]
        with self.server_log.open("ab") as log:
            code = subprocess.run(
                [*self._java, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
            ).returncode
        if code != 0:
            shutil.rmtree(self._records, ignore_errors=True)
            raise NodeFailed(self._with_last_lines(f"Kafka could not format {self._records} (exit {code})"))

    def _wait_until_it_answers(self, deadline: float) -> None:
        while not self._listens():
            self._check_alive(deadline)
            time.sleep(POLL_S)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, **self._clients})
        while not _leads_everything(admin):
            self._check_alive(deadline)
            time.sleep(POLL_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def _check_alive(self, deadline: float) -> None:
        if self._process is None or self._process.poll() is not None:
            code = None if self._process is None else self._process.returncode
            raise NodeFailed(self._with_last_lines(f"Kafka ended while starting (exit {code})"))
        if time.monotonic() > deadline:
            raise NodeFailed(self._with_last_lines(f"Kafka did not answer within {START_DEADLINE_S:.0f} s"))

    def _with_last_lines(self, message: str) -> str:
        lines = self.server_log.read_text(errors="replace").splitlines()[-40:]
        return "\n".join([f"{message}; the end of {self.server_log}:", *lines])


def _leads_everything(admin: AdminClient) -> bool:
    try:
        cluster = admin.list_topics(timeout=2.0)
    except KafkaException:
        return False
    partitions = (partition for topic in cluster.topics.values() for partition in topic.partitions.values())
    return bool(cluster.brokers) and all(partition.leader >= 0 for partition in partitions)


def ends_with_us() -> list[str]:
    """A prefix that has Linux end the broker when the tests are killed and can no longer do it themselves.

    Linux counts the thread that started the process, so this is only right from the main thread.
    """
    if shutil.which("setpriv") is None or threading.current_thread() is not threading.main_thread():
        return []
    return ["setpriv", "--pdeathsig", "TERM"]
