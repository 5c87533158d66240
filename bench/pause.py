"""How long a machine stands still for a snapshot: the longest silence of a program in it that speaks every millisecond.

Beside it the longest silence of as long a time in which nothing happens, since a busy host keeps guests waiting too.
"""

from __future__ import annotations

import statistics
import threading
import time
from itertools import pairwise

from firkin.agent.process import Process
from firkin.manager import snapshots
from firkin.manager.firkin import Firkin
from firkin.spec import MachineSpec

RUNS = 20
SPEC = MachineSpec(image="busybox", memory_mib=128)
TICKER = "while :; do echo; usleep 1000; done"


class Listener:
    """Notes when the ticker spoke."""

    def __init__(self, ticker: Process) -> None:
        self._times: list[float] = []
        self._thread = threading.Thread(target=lambda: self._times.extend(time.perf_counter() for _ in ticker))
        self._thread.start()

    def longest_silence_ms(self, began: float, ended: float) -> float:
        """Between two moments, and a little around them."""
        times = [began, *(at for at in list(self._times) if began <= at <= ended), ended]
        return max(later - earlier for earlier, later in pairwise(times)) * 1000

    def join(self) -> None:
        self._thread.join()


def main() -> None:
    pauses, idle, whole = [], [], []
    with Firkin() as firkin, firkin.run(SPEC) as machine, machine.start("sh", "-c", TICKER) as ticker:
        listener = Listener(ticker)
        for _ in range(RUNS):
            began = time.perf_counter()
            time.sleep(0.2)
            middle = time.perf_counter()
            record = snapshots.create(firkin.context, machine, seal=False)
            whole.append((time.perf_counter() - middle) * 1000)
            ended = middle + max(0.2, whole[-1] / 1000 + 0.05)
            time.sleep(max(0.0, ended - time.perf_counter()))
            idle.append(listener.longest_silence_ms(began, middle))
            pauses.append(listener.longest_silence_ms(middle, ended))
            snapshots.remove(firkin.context, record)
        ticker.kill()
        listener.join()
    print(f"{'snapshot of a 128 MiB busybox, ' + str(RUNS) + ' times':40} {'median ms':>10} {'least':>8} {'most':>8}")
    for name, values in (("the guest stands still", pauses), ("longest silence without", idle), ("create", whole)):
        print(f"{name:40} {statistics.median(values):10.1f} {min(values):8.1f} {max(values):8.1f}")


if __name__ == "__main__":
    main()
