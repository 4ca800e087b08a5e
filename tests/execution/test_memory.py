"""Memory is counted where the answer is known."""

import torch

from sciffusion.execution.memory import free_bytes, microbatch, peak_bytes

CPU = torch.device("cpu")
MEGA = 2**20


def field(megabytes):
    return torch.ones(int(megabytes * MEGA / 4))


def test_the_peak_counts_what_lives_at_the_same_time():
    def chain():
        x = field(1)
        y = x * 2
        del x
        return y + 1

    def kept():
        x = field(1)
        return x, x * 2, x * 3

    assert peak_bytes(chain, CPU) == 2 * MEGA
    assert peak_bytes(kept, CPU) == 3 * MEGA


def test_views_and_what_existed_before_cost_nothing():
    x = field(1)
    assert peak_bytes(lambda: x.view(2, -1)[0][::2], CPU) == 0
    assert peak_bytes(lambda: (x * 2).view(2, -1)[0], CPU) == MEGA


def test_the_micro_batch_is_the_largest_power_of_two_that_fits(monkeypatch):
    def call(samples):
        return field(2), field(3 * samples)  # 2 to hold, 3 per sample

    monkeypatch.setattr("sciffusion.execution.memory.free_bytes", lambda device: 40 * MEGA)
    assert microbatch(call, CPU, most=64, share=0.5) == 4  # 2 + 4 * 3 = 14 <= 20 < 26
    assert microbatch(call, CPU, most=2, share=0.5) == 2
    assert microbatch(call, CPU, most=64, share=1e-3) == 1


def test_a_container_leaves_less_than_the_machine(tmp_path, monkeypatch):
    for name, value in (("memory.max", "3000"), ("memory.current", "1000")):
        (tmp_path / name).write_text(value)
    monkeypatch.setattr("sciffusion.memory.GROUPS", ((str(tmp_path), "memory.max", "memory.current"),))
    assert free_bytes(CPU) == 2000
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 600\n")
    assert free_bytes(CPU) == 2600  # what was read from files lately is given up where memory is asked for
    (tmp_path / "memory.stat").write_text("inactive_file 10\ntotal_inactive_file 600\n")  # version 1
    assert free_bytes(CPU) == 2600
    (tmp_path / "memory.max").write_text("max")
    assert free_bytes(CPU) > 2000


def test_free_memory_is_below_what_the_machine_has():
    with open("/proc/meminfo") as file:
        total = 1024 * int(file.readline().split()[1])
    assert 0 < free_bytes(CPU) <= total
