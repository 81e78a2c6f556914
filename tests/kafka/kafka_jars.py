"""Apache Kafka's jars, resolved with Maven from the pom.xml beside this file."""

import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

POM = Path(__file__).with_name("pom.xml")
OLDEST_JAVA = 17
MAVEN_DEADLINE_S = 900


def version() -> str:
    """Kafka's release as pom.xml names it, such as "4.3.1"."""
    found = ET.parse(POM).findtext("{*}properties/{*}kafka.version")
    if not found:
        raise RuntimeError(f"{POM} has no property kafka.version")
    return found


@functools.cache
def missing() -> str | None:
    """Why no Apache Kafka can run on this machine, or None where it can."""
    absent = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if absent:
        return f"{' and '.join(absent)} not on PATH"
    answer = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    said = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    if said is None:
        return "`java -version` names no version"
    if int(said[1]) < OLDEST_JAVA:
        return f"java is {said[1]}, and Kafka {version()} needs {OLDEST_JAVA} or later"
    return None


def resolve(cache: Path) -> Path:
    """The folder under `cache` that holds the jars; Maven fills it once for each content of pom.xml.

    Raises RuntimeError with Maven's own words when it cannot resolve them.
    """
    # Maven takes a relative folder for one beside its pom.xml.
    cache = cache.resolve()
    jars = cache / f"kafka-{version()}-{hashlib.sha256(POM.read_bytes()).hexdigest()[:8]}"
    if jars.is_dir():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    # Filled under another name, then renamed: a folder of that name is complete, whoever was interrupted or ran too.
    filling = Path(tempfile.mkdtemp(prefix="filling-", dir=cache))
    try:
        command = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={filling}"]
        maven = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=MAVEN_DEADLINE_S
        )
        if maven.returncode != 0:
            raise RuntimeError(
                f"Maven could not fetch Kafka {version()}; see to its network access, set KAFKA_BOOTSTRAP to a broker "
                f"that you run, or KAFKA_BOOTSTRAP=mock to do without.\n{maven.stdout}{maven.stderr}"
            )
        try:
            filling.rename(jars)
        except OSError:
            if not jars.is_dir():  # else another run was quicker, with the same jars
                raise
    finally:
        shutil.rmtree(filling, ignore_errors=True)
    return jars
