"""Medians and ratios of a run, as text, JSON and SVG."""

from statistics import median

from .systems import LIMITS, PEERS
from .workloads import FIGURES

#: MiB that an idle daemon may have at most.
IDLE_MIB = 40


def medians(rounds):
    """{system: {figure: median}} of [{system: {figure: value}}]."""
    found = {}
    for one in rounds:
        for system, figures in one.items():
            for name, value in figures.items():
                found.setdefault(system, {}).setdefault(name, []).append(value)
    return {system: {name: median(values) for name, values in figures.items()} for system, figures in found.items()}


def ratio(table, system, others, name):
    """How many times better `system` is than the best of `others`."""
    figure, mine = FIGURES[name], table.get(system, {}).get(name)
    theirs = [table[other][name] for other in others if name in table.get(other, {})]
    if not mine or not theirs or min(theirs) <= 0:
        return None
    return mine / max(theirs) if figure.more_is_better else min(theirs) / mine


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def aims(own, figure):
    """With whom LetheFS is compared, and how many times as good it is to be."""
    return [(PEERS, figure.target), ([LIMITS[own]], figure.floor)]


def cell(value, aim):
    return "-" if not value else f"{value:.2f} (≥{aim:g})" if aim else f"{value:.2f}"


def short(table):
    """A line for each aim that is not reached."""
    lines = []
    for own in (name for name in LIMITS if name in table):
        for name, figure in FIGURES.items():
            for others, aim in aims(own, figure):
                value = ratio(table, own, others, name)
                if value and aim and value < aim:
                    lines.append(f"short of the aim: {own}: {figure.title}: {value:.2f} of {' or '.join(others)}, not {aim:g}")
        for name in ("idle_memory", "later_memory"):
            if table[own].get(name, 0) > IDLE_MIB:
                lines.append(f"short of the aim: {own}: {FIGURES[name].title}: more than {IDLE_MIB} MiB")
    return lines


def text(table, order):
    ours = [name for name in LIMITS if name in table]
    heads = ["", *order] + [f"{own} / {other}" for own in ours for other in ("best peer", LIMITS[own])]
    rows = [heads]
    for name, figure in FIGURES.items():
        if not any(name in figures for figures in table.values()):
            continue
        row = [f"{figure.title}, {figure.unit}"] + [number(table.get(system, {}).get(name)) for system in order]
        for own in ours:
            row += [cell(ratio(table, own, others, name), aim) for others, aim in aims(own, figure)]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) if index else cell.ljust(width)
                               for index, (cell, width) in enumerate(zip(row, widths))) for row in rows)


COLOURS = ["#1b6ca8", "#4fb0c6", "#7a7a7a", "#c9c9c9", "#d97b29", "#b5487a", "#7f9f3f", "#8c6bb1", "#a0522d", "#2f4f4f", "#e0b000",
           "#9ad0a0"]
LEGEND_COLUMNS = 6


def svg(table, order):
    """Bars for each figure: how many times better or worse than LetheFS each system is, capped at 2.5."""
    shown = [name for name in FIGURES if ratio(table, "lethefs", ["lethefs"], name)]
    systems = [name for name in order if name in table]
    bar, gap, left, width, cap = 9, 14, 210, 620, 2.5
    top = 40 + 16 * -(-len(systems) // LEGEND_COLUMNS)
    height = top + 4 + len(shown) * (len(systems) * bar + gap)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}" font-family="sans-serif" font-size="11">',
             f'<rect width="900" height="{height}" fill="white"/>',
             '<text x="12" y="20" font-size="14">Speed relative to LetheFS (1.0); longer is faster</text>']
    for index, system in enumerate(systems):
        x, y = 12 + index % LEGEND_COLUMNS * 146, 30 + index // LEGEND_COLUMNS * 16
        parts.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{COLOURS[index]}"/>'
                     f'<text x="{x + 14}" y="{y + 9}">{system}</text>')
    y = top
    for name in shown:
        parts.append(f'<text x="{left - 8}" y="{y + len(systems) * bar / 2 + 4}" text-anchor="end">'
                     f'{FIGURES[name].title}</text>')
        for index, system in enumerate(systems):
            value = ratio(table, system, ["lethefs"], name)
            if value:
                length = min(value, cap) / cap * width
                more = " →" if value > cap else ""
                parts.append(f'<rect x="{left}" y="{y + index * bar}" width="{length:.1f}" height="{bar - 1}" '
                             f'fill="{COLOURS[index]}"/><text x="{left + length + 4:.1f}" '
                             f'y="{y + index * bar + bar - 1}" font-size="8">{value:.2f}{more}</text>')
        y += len(systems) * bar + gap
    one = left + width / cap
    parts.append(f'<line x1="{one}" y1="{top - 8}" x2="{one}" y2="{y}" stroke="black" stroke-dasharray="2 3"/></svg>')
    return "\n".join(parts)
