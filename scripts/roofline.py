"""Draws the kernels of a step under the machine's limits, as SVG: work for each byte across, speed upwards, both logarithmic.

A kernel is a disc whose area is its share of the step's time; the lines are the peak of products and the bandwidth of memory.
"""
import html
import math

WIDTH, HEIGHT = 960, 600
LEFT, RIGHT, TOP, BOTTOM = 70, 250, 50, 60
COLOURS = {"matmul": "#2563a8", "attention": "#c2571a", "adamw": "#6b4fa0", "other": "#5d7a3a"}


def kind(name):
    return next((k for k in ("attention", "matmul", "adamw") if k in name), "other")


def draw(path, title, limits, dtype, kernels):
    kernels = [k for k in kernels if k["measured_seconds"] and k["flops"] and k["bytes"]]
    total = sum(k["measured_seconds"] for k in kernels)
    peak, bandwidth = limits[dtype], limits["bandwidth"]
    points = [(k["flops"] / k["bytes"], k["flops"] / k["measured_seconds"] * 1e-9, k) for k in kernels]
    x0, x1 = bounds([x for x, _, _ in points] + [peak / bandwidth])
    y0, y1 = bounds([y for _, y, _ in points] + [peak])
    across = lambda x: LEFT + (math.log10(x) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
    up = lambda y: HEIGHT - BOTTOM - (math.log10(y) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">']
    out.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="28" font-size="16">{html.escape(title)}</text>')
    for power in range(math.ceil(x0), math.floor(x1) + 1):
        x = across(10**power)
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10.0**power:g}</text>')
    for power in range(math.ceil(y0), math.floor(y1) + 1):
        y = up(10**power)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 18}" text-anchor="middle">FLOP for each byte of operands and results</text>')
    out.append(f'<text transform="translate(20 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">GFLOP/s</text>')

    ridge = peak / bandwidth
    start = max(10**x0, 10**y0 / bandwidth)
    line = [(start, start * bandwidth), (ridge, peak), (10**x1, peak)]
    out.append(f'<polyline points="{" ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)}" fill="none" stroke="#222" stroke-width="1.5"/>')
    out.append(f'<text x="{WIDTH - RIGHT - 6}" y="{up(peak) - 6:.1f}" text-anchor="end">{peak:.0f} GFLOP/s, {bandwidth:.0f} GB/s</text>')
    for x, y, k in sorted(points, key=lambda point: -point[2]["measured_seconds"]):
        share = k["measured_seconds"] / total
        hint = f'{k["kernel"]}: {share:.1%} of the step, {y:.0f} GFLOP/s, {k["runs"]} runs'
        radius = max(2.5, 60 * math.sqrt(share))
        colour = COLOURS[kind(k["kernel"])]
        out.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.45" stroke="{colour}"><title>{html.escape(hint)}</title></circle>')
    out += legend(kernels, total)
    path.write_text("\n".join([*out, "</svg>", ""]))


def legend(kernels, total):
    """Kinds by their share of the time, then the longest kernels."""
    x, y = WIDTH - RIGHT + 20, TOP + 10
    for name, colour in COLOURS.items():
        share = sum(k["measured_seconds"] for k in kernels if kind(k["kernel"]) == name) / total
        yield f'<circle cx="{x}" cy="{y - 4}" r="6" fill="{colour}" fill-opacity="0.6"/><text x="{x + 14}" y="{y}">{name}: {share:.1%} of the time</text>'
        y += 20
    y += 14
    for k in sorted(kernels, key=lambda k: -k["measured_seconds"])[:18]:
        share = "" if k["share_of_peak"] is None else f', {k["share_of_peak"]:.0%} of peak'
        label = k["kernel"].split("_", 1)[-1]
        label = label if len(label) <= 22 else label[:21] + "…"
        yield f'<text x="{x}" y="{y}" font-size="10">{html.escape(label)}: {k["measured_seconds"] / total:.1%}{share}</text>'
        y += 16


def bounds(values):
    """Powers of ten around the values, with some room."""
    logs = [math.log10(v) for v in values]
    return min(logs) - 0.15, max(logs) + 0.2
