# SPDX-License-Identifier: BSD-3-Clause
"""Pictures in characters of where the memory is."""
import sys
import time

from side import BUDGET, GUESTS

WIDTH = 44


class Live:
    """Bars of what each store holds and what is leased to it; redrawn on a terminal, else now and
    then."""

    def __init__(self, zram, tmem):
        self.zram, self.tmem = zram, tmem
        self.lines, self.start, self.last = 0, time.monotonic(), 0
        self.tty = sys.stdout.isatty()

    def rows(self):
        yield (f"{time.monotonic() - self.start:5.0f} s   host memory in the stores "
               f"(#), and leased to them beyond that (.): {BUDGET} MiB move")
        for n in range(GUESTS):
            held = round(WIDTH * self.tmem.held[n] / BUDGET)
            leased = round(WIDTH * self.tmem.leased[n] / BUDGET)
            bar = "#" * held + "." * max(0, leased - held)
            yield (f"  tmem VM {n + 1} |{bar:<{WIDTH}.{WIDTH}}| {self.tmem.held[n]:5.1f} of "
                   f"{self.tmem.leased[n]:5.1f} MiB  {self.tmem.state[n]}")
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
    """The same over time: two rows a guest, a column some seconds; darker: more.  @samples:
    (seconds, MiB held of each guest, MiB leased to each)."""
    levels = " .:-=+*#%@"
    if not samples:
        return ""
    end = samples[-1][0] or 1
    out = []
    for number in range(GUESTS):
        for what, index in (("leased", GUESTS + number), ("held", number)):
            most = [0.0] * columns
            for seconds, *values in samples:
                column = min(columns - 1, int(seconds / end * columns))
                most[column] = max(most[column], values[index])
            row = "".join(levels[min(len(levels) - 1, round(m / BUDGET * (len(levels) - 1)))]
                          for m in most)
            name = f"VM {number + 1}" if what == "leased" else ""
            out.append(f"  {name:<4} {what:<6} |{row}|")
    out.append(f"               0 s{f'{end:.0f} s':>{columns - 4}}")
    return "\n".join(out)
