# SPDX-License-Identifier: BSD-3-Clause
"""Bars with quartiles, as SVG: what benchmarks draw."""
import html

COLOURS = ["#1b6ca8", "#8ecae6", "#d1495b", "#f2b5bd", "#5c946e", "#b9d8c2", "#8d8d8d"]
BAR, GAP, LABEL, WIDTH, TOP = 13, 14, 150, 420, 64


def text(x, y, what, anchor="start", size=11, weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{html.escape(what)}</text>')


def bar(y, colour, q, scale):
    """One bar, its quartiles as a line, its median as a number."""
    length = q["median"] * scale
    low, high = LABEL + q["q1"] * scale, min(LABEL + q["q3"] * scale, LABEL + WIDTH)
    middle = y + BAR / 2
    return [f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR - 2}" fill="{colour}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle - 1}" y2="{middle - 1}" '
            'stroke="black"/>',
            text(max(high, LABEL + length) + 6, middle + 3, f"{q['median']:.3g}", size=10)]


def chart(title, unit, names, groups, better="less"):
    """@groups: {label: {name: quartiles}}; @names: {name: what it is}, in the order of bars.
    Bars of a group are of one scale, and so are all groups."""
    longest = max(q["q3"] for bars in groups.values() for q in bars.values())
    scale = WIDTH / longest
    height = TOP + 16 * len(names) + sum(len(b) * BAR + GAP for b in groups.values())
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 80}" '
           f'height="{height}" font-family="sans-serif">',
           f'<rect width="100%" height="{height}" fill="white"/>',
           text(12, 24, title, size=15, weight="bold"), text(12, 42, f"{unit}; {better} is better")]
    y = TOP
    for index, what in enumerate(names.values()):
        out.append(f'<rect x="12" y="{y - 9}" width="10" height="10" fill="{COLOURS[index]}"/>')
        out.append(text(28, y, what))
        y += 16
    for label, bars in groups.items():
        out.append(text(LABEL - 8, y + len(bars) * BAR / 2 + 3, label, "end"))
        for index, name in enumerate(names):
            if name in bars:
                out += bar(y, COLOURS[index], bars[name], scale)
                y += BAR
        y += GAP
    return "\n".join(out + ["</svg>", ""])
