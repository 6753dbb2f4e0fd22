# SPDX-License-Identifier: BSD-3-Clause
"""Pictures in characters of where the memory is."""
import sys
import time

from side import BUDGET, GUESTS

WIDTH = 44


class Live:
    """Bars of what each store holds; redrawn on a terminal, else now and then."""

    def __init__(self, zram, tmem):
        self.zram, self.tmem = zram, tmem
        self.lines, self.start, self.last = 0, time.monotonic(), 0
        self.tty = sys.stdout.isatty()

    def rows(self):
        yield (f"{time.monotonic() - self.start:5.0f} s   host memory in the stores "
               f"(#), and what they may take (.): {BUDGET} MiB move")
        for n in range(GUESTS):
            held = round(WIDTH * self.tmem.held[n] / BUDGET)
            limit = round(WIDTH * self.tmem.limit[n] / BUDGET)
            bar = "#" * held + "." * max(0, limit - held)
            yield (f"  tmem VM {n + 1} |{bar:<{WIDTH}.{WIDTH}}| {self.tmem.held[n]:5.1f} MiB  "
                   f"{self.tmem.state[n]}")
        yield "  zram, " + ", ".join(f"VM {n + 1} {s}" for n, s in enumerate(self.zram.state))

    def draw(self, every=8):
        """@every: seconds between pictures where they cannot be redrawn."""
        if not self.tty:
            if time.monotonic() - self.last < every:
                return
            self.last = time.monotonic()
        rows = list(self.rows())
        if self.tty:
            if self.lines:
                print(f"\033[{self.lines}A", end="")
            self.lines = len(rows)
            rows = [f"\033[2K{row}" for row in rows]
        print("\n".join(rows), flush=True)


def history(samples, columns=60):
    """The same over time: a row a guest, a column some seconds; darker: more."""
    levels = " .:-=+*#%@"
    if not samples:
        return ""
    end = samples[-1][0] or 1
    out = []
    for number in range(GUESTS):
        most = [0.0] * columns
        for seconds, *held in samples:
            column = min(columns - 1, int(seconds / end * columns))
            most[column] = max(most[column], held[number])
        row = "".join(levels[min(len(levels) - 1, round(m / BUDGET * (len(levels) - 1)))]
                      for m in most)
        out.append(f"  VM {number + 1} |{row}|")
    out.append(f"        0 s{f'{end:.0f} s':>{columns - 4}}")
    return "\n".join(out)
