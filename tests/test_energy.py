"""Counters of energy on a made-up machine."""

import pytest

from jaxplm.devices import energy
from jaxplm.devices.energy import Counter, measured, processor_counters, visible


def zone(root, name, title, used, most=1000):
    path = root / name
    path.mkdir(parents=True)
    for file, value in (("name", title), ("energy_uj", used), ("max_energy_range_uj", most)):
        (path / file).write_text(f"{value}\n")
    return path / "energy_uj"


def test_processors(tmp_path):
    """The parts of a package are in it, and psys covers all; memory is beside it."""
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100_000_000, 262_000_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 0, 65_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    psys = zone(tmp_path, "intel-rapl:1", "psys", 0)
    counters = processor_counters(tmp_path)
    assert [counter.name for counter in counters] == ["package-0", "dram"]
    with measured(counters, interval=3600) as used:
        assert used.sources == ("package-0", "dram")
        for file, value in ((first, 250_000_000), (memory, 3_000_000), (core, 100_000_000), (psys, 900_000_000)):
            file.write_text(f"{value}\n")
        assert used.joules == pytest.approx(153.0)
        first.write_text("10000000\n")  # past 262 J: from the start again
    assert used.joules == pytest.approx(153.0 + 22.0)


def test_counters_that_cannot_be_read(tmp_path):
    (zone(tmp_path, "intel-rapl:0", "package-0", 1)).unlink()
    zone(tmp_path, "intel-rapl:1", "package-1", "none")
    assert processor_counters(tmp_path) == [] == processor_counters(tmp_path / "absent")
    with measured([]) as used:
        pass
    assert used.joules is None and used.sources == ()


def test_a_counter_is_read_before_it_wraps_twice():
    values = iter([0.0, *[90.0, 80.0, 70.0, 60.0], *[60.0] * 1000])  # each is 90 J after the one before, modulo 100 J
    counter = Counter("package-0", lambda: next(values), 100.0)
    with measured([counter], interval=0.01) as used:
        while used.joules != 360.0:
            pass


def test_no_driver(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(energy.ctypes, "CDLL", absent)
    assert energy.gpu_counters() == []


class Nvml:
    """Two GPUs; the second one is too old for a counter."""

    def __init__(self, name):
        assert name == "libnvidia-ml.so.1"
        self.used = 5_000

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, used):
        used._obj.value = self.used
        return 3 if handle.value == 2 else 0


def test_gpus(monkeypatch):
    made = []
    monkeypatch.setattr(energy.ctypes, "CDLL", lambda name: made.append(Nvml(name)) or made[-1])
    counters = energy.gpu_counters({})
    assert [counter.name for counter in counters] == ["gpu 0"]
    with measured(counters) as used:
        made[0].used = 12_500
    assert used.joules == pytest.approx(7.5)
    assert energy.gpu_counters({"CUDA_VISIBLE_DEVICES": "1"}) == []


@pytest.mark.parametrize(("setting", "left"), [(None, [0, 1, 2]), ("", []), ("2,0", [2, 0]), ("1,7,0", [1]), ("-1", []),
                                               ("GPU-1234", [0, 1, 2])])
def test_visible(setting, left):
    assert visible(3, setting) == left
