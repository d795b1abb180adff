"""What every bench result says of the machine, the yardstick it is read against, and the CPU time of processes."""

import os
import platform
import statistics
import sysconfig
import time
from pathlib import Path

from relay.atproto.keys import parse_did_key
from tests.world.keys import SigningKey

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def machine_facts() -> dict[str, object]:
    """Interpreter, CPU, cores, and whether the interpreter was built with profile guidance."""
    cpu_info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.partition(":")[2].strip() for line in cpu_info.splitlines() if line.startswith("model name")]
    return {
        "python": platform.python_version(),
        "profile_guided": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def k256_verification_us(key: SigningKey) -> float:
    """CPU time of one libsecp256k1 verification of a commit-sized message: the yardstick of measurements.md."""
    message = bytes(range(200))
    signature = key.sign(message)
    verify = parse_did_key(key.did_key).verify
    runs = []
    for _ in range(20):
        started = time.process_time()
        for _ in range(100):
            assert verify(message, signature)
        runs.append((time.process_time() - started) * 1e4)
    return statistics.median(runs)
