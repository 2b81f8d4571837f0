"""Draws the panels of the dashboard from what Prometheus answers to their queries, for where there is no Grafana."""

import io
import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot
from matplotlib.ticker import FuncFormatter
from PIL import Image

COLUMNS = 24
UNIT = 0.62  # inches of a grid cell's height
FOREGROUND, BACKGROUND, FRAME = "#d8d9da", "#111217", "#181b1f"
COLORS = {
    "red": "#f2495c",
    "orange": "#ff9830",
    "yellow": "#fade2a",
    "green": "#73bf69",
    "blue": "#5794f2",
    "gray": "#8e8e8e",
}


def scaled(value, steps):
    """A number with the largest unit that leaves something before the point."""
    for factor, unit in steps:
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value / steps[-1][0]:.3g}{steps[-1][1]}"


def shown(value, unit):
    if unit == "s":
        return scaled(value, [(1, " s"), (1e-3, " ms"), (1e-6, " µs")]) if value else "0 s"
    if unit == "ms":
        return f"{value:.3g} ms"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit in ("bytes", "Bps"):
        per = "/s" if unit == "Bps" else ""
        return scaled(value, [(2**30, " GiB" + per), (2**20, " MiB" + per), (2**10, " KiB" + per), (1, " B" + per)])
    own = unit.removeprefix("suffix:") if unit.startswith("suffix:") else ""
    return f"{value:.4g}" + {"reqps": " req/s", "ops": " /s"}.get(unit, own)


def mapped(value, panel):
    """The text and colour that a panel gives a value, or none."""
    for mapping in panel["fieldConfig"]["defaults"]["mappings"]:
        option = mapping["options"].get(f"{value:.0f}")
        if option:
            return option["text"], COLORS[option["color"]]
    return None


def color_of(value, panel):
    color = "green"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return COLORS[color]


def series_of(panel, filled, prometheus, span):
    """Legend and points of each series."""
    start, end = span
    for target in panel["targets"]:
        answer = prometheus.api("query_range", query=filled(target["expr"]), start=start, end=end, step=1)
        for series in answer["result"]:
            legend = target["legendFormat"]
            for label, text in series["metric"].items():
                # One server needs no name.
                legend = legend.replace(f"{{{{{label}}}}}", "" if label == "instance" else text)
            points = [(float(at) - start, float(value)) for at, value in series["values"]]
            points = [(at, value) for at, value in points if math.isfinite(value)]
            if points:
                yield legend.strip(), points


def draw_stat(axes, panel, unit, series):
    axes.set_axis_off()
    for at, (legend, points) in enumerate(series):
        value = points[-1][1]
        text, color = mapped(value, panel) or (shown(value, unit), color_of(value, panel))
        where = (at + 0.5) / len(series)
        axes.text(where, 0.5, text, color=color, fontsize=17 if len(series) == 1 else 14, ha="center", va="center")
        if len(series) > 1:
            axes.text(where, 0.12, legend.split(" ")[0], color=FOREGROUND, fontsize=7, ha="center")


def draw_states(axes, panel, series, span):
    for at, (_, points) in enumerate(series):
        for begin, value in points:
            axes.barh(at, 1, left=begin, color=(mapped(value, panel) or ("", COLORS["gray"]))[1], height=0.7)
    axes.set_yticks(range(len(series)), [legend.split(" ")[0] for legend, _ in series])
    axes.set_xlim(0, span[1] - span[0])


def draw_lines(axes, panel, unit, series, span):
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    if stacked and series:
        times = sorted({at for _, points in series for at, _ in points})
        rows = [[dict(points).get(at, 0) for at in times] for _, points in series]
        axes.stackplot(times, rows, labels=[legend for legend, _ in series], alpha=0.6)
    else:
        for legend, points in series:
            axes.plot(*zip(*points), label=legend, linewidth=1.2)
    low, high = axes.get_ylim()
    axes.set_ylim(defaults.get("min", low), defaults.get("max", high if high > 0 else 1))
    if defaults["custom"]["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and step["value"] <= axes.get_ylim()[1]:
                axes.axhline(step["value"], color=COLORS[step["color"]], linewidth=0.7, linestyle="--")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.set_xlim(0, span[1] - span[0])
    axes.grid(color="#2c3235", linewidth=0.5)
    if series:
        axes.legend(fontsize=5.5, loc="upper left", frameon=False, labelcolor=FOREGROUND, ncols=2)


def draw(dashboard, filled, prometheus, span, path):
    """Draws what the dashboard shows between two moments into a PNG file."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    rows = max(place["y"] + place["h"] for place in places)
    figure = pyplot.figure(figsize=(16, rows * UNIT * 0.5), facecolor=BACKGROUND)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        left, width = place["x"] / COLUMNS, place["w"] / COLUMNS
        bottom, height = 1 - (place["y"] + place["h"]) / rows, place["h"] / rows
        if panel["type"] == "row":
            where = (left + 0.005, bottom + height * 0.3)
            figure.text(*where, panel["title"], color=FOREGROUND, fontsize=11, weight="bold")
            continue
        cell = 1 / rows
        axes = figure.add_axes(
            (left + 0.042, bottom + 0.9 * cell, width - 0.052, height - 2.0 * cell), facecolor=FRAME
        )
        axes.set_title(panel["title"], color=FOREGROUND, fontsize=8, loc="left", pad=3)
        axes.tick_params(colors=FOREGROUND, labelsize=6, length=2)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        series = list(series_of(panel, filled, prometheus, span))
        if panel["type"] == "stat":
            draw_stat(axes, panel, unit, series)
        elif panel["type"] == "state-timeline":
            draw_states(axes, panel, series, span)
        else:
            draw_lines(axes, panel, unit, series, span)
    drawn = io.BytesIO()
    figure.savefig(drawn, facecolor=BACKGROUND, dpi=70, format="png")
    pyplot.close(figure)
    # Few colours are a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)
