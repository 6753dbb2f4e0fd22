# SPDX-License-Identifier: BSD-3-Clause
"""What several had of something over time, a lane each, as SVG."""
from bars import COLOURS, text

LABEL, WIDTH, LANE, GAP, TOP = 60, 600, 56, 10, 84


def path(points, x_scale, y_scale, base):
    """Points (x, y) as stairs: a value holds until the next."""
    out, last = [], 0
    for x, y in points:
        x = LABEL + x * x_scale
        out += [f"{x:.1f},{base - last * y_scale:.1f}", f"{x:.1f},{base - y * y_scale:.1f}"]
        last = y
    return " ".join(out)


def lanes(title, what, unit, most, samples):
    """@samples: (seconds, [upper value of each lane], [lower one]); @what: (what is the upper one,
    the lower one), the first drawn as a line, the second as an area.  A lane is @most high."""
    number, end = len(samples[0][1]), samples[-1][0] or 1
    height = TOP + number * (LANE + GAP) + 24
    x_scale, y_scale = WIDTH / end, LANE / most
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 90}" '
           f'height="{height}" font-family="sans-serif">',
           f'<rect width="100%" height="{height}" fill="white"/>',
           text(12, 24, title, size=15, weight="bold"),
           f'<line x1="12" x2="28" y1="40" y2="40" stroke="{COLOURS[2]}" stroke-width="2"/>',
           text(34, 44, what[0]),
           f'<rect x="12" y="52" width="16" height="10" fill="{COLOURS[1]}"/>', text(34, 61, what[1])]
    for lane in range(number):
        base = TOP + lane * (LANE + GAP) + LANE
        upper = path([(s[0], s[1][lane]) for s in samples], x_scale, y_scale, base)
        lower = path([(s[0], s[2][lane]) for s in samples], x_scale, y_scale, base)
        first, last = LABEL + samples[0][0] * x_scale, LABEL + WIDTH
        out += [f'<rect x="{LABEL}" y="{base - LANE}" width="{WIDTH}" height="{LANE}" '
                'fill="#f4f4f4"/>',
                f'<polygon points="{first:.1f},{base} {lower} {last},{base}" fill="{COLOURS[1]}"/>',
                f'<polyline points="{upper}" fill="none" stroke="{COLOURS[2]}" stroke-width="1.5"/>',
                text(LABEL - 8, base - LANE / 2 + 4, f"VM {lane + 1}", "end"),
                text(last + 6, base - LANE + 10, f"{most:.0f} {unit}", size=10)]
    out += [text(LABEL, height - 8, "0 s"), text(LABEL + WIDTH, height - 8, f"{end:.0f} s", "end")]
    return "\n".join(out + ["</svg>", ""])
