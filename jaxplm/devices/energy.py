"""Energy that the machine's own counters report: NVIDIA GPUs by NVML, processors by RAPL.

A counter counts the whole device, whoever uses it. Other parts of the machine (fans, disks, power supply) are in none.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")
_INTERVAL = 30.0  # seconds; a RAPL counter of a 500 W processor wraps around after about 9 minutes


@dataclass(frozen=True)
class Counter:
    """One counter of energy.

    Attributes:
      name: "gpu 0", "package-0".
      read: returns joules since some time in the past.
      range: joules at which it starts again at 0; None if it does not.
    """

    name: str
    read: Callable[[], float]
    range: float | None = None


class Energy:
    """Joules since it was made, over all counters of the machine.

    Args:
      counters: to be added up.
    """

    def __init__(self, counters: list[Counter]) -> None:
        self._counters = counters
        self._last = [counter.read() for counter in counters]
        self._total = 0.0
        self._lock = threading.Lock()

    @property
    def joules(self) -> float | None:
        """Joules up to now; None where the machine has no counter that can be read."""
        if not self._counters:
            return None
        with self._lock:
            for place, counter in enumerate(self._counters):
                now = counter.read()
                used = now - self._last[place]
                self._total += used if used >= 0 else used + (counter.range or 0.0)
                self._last[place] = now
            return self._total

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the counters."""
        return tuple(counter.name for counter in self._counters)


@contextmanager
def measured(counters: list[Counter] | None = None, interval: float = _INTERVAL) -> Iterator[Energy]:
    """Count the energy inside the block: `with measured() as energy: ...`, then `energy.joules`.

    A thread reads the counters now and then, so that none wraps around unseen.

    Args:
      counters: None for all that can be read here.
      interval: seconds between two readings.
    """
    energy = Energy(readable_counters() if counters is None else counters)
    if not energy.sources:
        yield energy
        return
    ending = threading.Event()

    def watch() -> None:
        while not ending.wait(interval):
            _ = energy.joules

    thread = threading.Thread(target=watch, name="energy", daemon=True)
    thread.start()
    try:
        yield energy
    finally:
        ending.set()
        thread.join()


def readable_counters() -> list[Counter]:
    """Return the counters of this machine that this process can read; processors' ones usually need the administrator."""
    return gpu_counters() + processor_counters()


def processor_counters(root: Path = _POWERCAP) -> list[Counter]:
    """Return RAPL's counters of processors and of the memory beside them.

    Zones within a processor (core, uncore) are part of it and are left out; so is "psys", which covers the processors too.
    """
    found = []
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text("ascii").strip()
            if not name.startswith("package") and name != "dram":
                continue
            read = _reader(zone / "energy_uj")
            read()
            found.append(Counter(name, read, int((zone / "max_energy_range_uj").read_text("ascii")) / 1e6))
        except (OSError, ValueError):
            continue
    return found


def _reader(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text("ascii")) / 1e6


def gpu_counters(environment: Mapping[str, str] | None = None) -> list[Counter]:
    """Return NVML's counters of the GPUs that CUDA_VISIBLE_DEVICES leaves, from Volta on; none where there is no driver."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    count = ctypes.c_uint()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    found = []
    for index in visible(count.value, (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")):
        handle, used = ctypes.c_void_p(), ctypes.c_ulonglong()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)):
            continue
        if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used)):
            continue
        found.append(Counter(f"gpu {index}", _gpu_reader(nvml, handle)))
    return found


def _gpu_reader(nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> Callable[[], float]:
    def read() -> float:
        used = ctypes.c_ulonglong()
        if status := nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(used)):
            raise OSError(f"NVML gave status {status} for the energy of a GPU")
        return used.value / 1e3

    return read


def visible(count: int, setting: str | None) -> list[int]:
    """Return the numbers of the GPUs that a value of CUDA_VISIBLE_DEVICES leaves of `count`; all where it has names instead."""
    if setting is None:
        return list(range(count))
    numbers = []
    for part in setting.split(","):
        if part.strip().startswith(("GPU-", "MIG-")):
            return list(range(count))
        try:
            number = int(part)
        except ValueError:
            break
        if not 0 <= number < count:  # CUDA sees none from there on
            break
        numbers.append(number)
    return numbers
