"""The picture of an assembled prediction: sections of input, target, prediction and error, set by set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.cross_sections import Section, SetSections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

# Inches of a picture's column, of the highest picture, of what stands around pictures, of the row about colours;
# points an inch.
COLUMN, HIGHEST, AROUND, KEYS, DPI = 3.2, 3.6, 0.65, 0.3, 90
# Behind a picture: what counts for nothing (gaps, voxels without a class) is seen to be no number.
NOTHING = "0.8"
# Outliers would leave the rest of a window grey in grey.
PERCENTILES = (0.5, 99.5)
# As many classes as colours can be told apart.
MOST_CLASSES = 20
WRONG = "#e41a1c"
KINDS = ("input", "target", "prediction", "error")


def draw(sets: Sequence[SetSections], classes: int | None = None, names: Sequence[str] = ()) -> bytes:
    """A PNG with a block a set, in it a row a section and a column each for input, target, prediction and error, as
    far as there are such. `classes`: how many there are, `names` what they are called; None: values are shown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = [_heights(each) for each in sets]
    columns = max(len(_kinds(each)) for each in sets)
    heights = [sum(rows) + AROUND * len(rows) + KEYS + 0.7 for rows in blocks]
    figure = Figure(figsize=(COLUMN * columns + 0.6, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    parts = np.atleast_1d(figure.subfigures(len(sets), 1, height_ratios=heights))  # type: ignore[arg-type]
    for part, each, rows in zip(parts, sets, blocks, strict=True):
        _draw_set(part, each, rows, classes, names)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _kinds(each: SetSections) -> list[str]:
    return [kind for kind in KINDS if getattr(each.sections[0], kind) is not None]


def _heights(each: SetSections) -> list[float]:
    """Inches of each section's row."""
    if each.sections[0].input.ndim == 1:
        return [1.6] * len(each.sections)
    sizes = [[size * step for size, step in zip(_size(one), one.steps, strict=True)] for one in each.sections]
    inches = min(COLUMN / max(width for _, width in sizes), HIGHEST / max(height for height, _ in sizes))
    return [max(height * inches, 0.6) for height, _ in sizes]


def _size(section: Section) -> tuple[int, ...]:
    return section.input.shape


def _draw_set(part: SubFigure, each: SetSections, rows: list[float], classes: int | None, names: Sequence[str]) -> None:
    shape = " x ".join(map(str, each.shape))
    part.suptitle(f"{each.name}: {shape}", fontsize=11, fontweight="bold")
    kinds = _kinds(each)
    lines = each.sections[0].input.ndim == 1
    axes = part.subplots(
        len(rows) + (not lines), len(kinds), squeeze=False, height_ratios=[*rows, *([KEYS] * (not lines))]
    )
    windows = _windows(each, kinds, classes)
    for row, section in zip(axes, each.sections, strict=False):
        for axis, kind in zip(row, kinds, strict=True):
            if lines:
                _curve(axis, section, kind, windows[kind], classes)
            else:
                _picture(axis, section, kind, windows[kind])
            axis.set_title(_title(section, kind, each.channels, classes), fontsize=9)
            axis.set_xlabel(_axis_name(section, -1), fontsize=8)
            # What stands beside the first picture of a row holds for all of them.
            axis.tick_params(labelsize=7, labelleft=lines or axis is row[0])
            axis.locator_params(nbins=5)
        if not lines:
            row[0].set_ylabel(_axis_name(section, 0), fontsize=8)
    if not lines:
        _say_colours(axes[-1], kinds, windows, each, classes, names)


def _title(section: Section, kind: str, channels: dict[str, str], classes: int | None) -> str:
    title = f"{kind} {section.cut.place}" if kind == "input" else kind
    if kind in channels:
        title += f", {channels[kind]}"
    if kind == "error" and section.error is not None:
        known = section.error[np.isfinite(section.error)]
        if len(known):
            said = f"{100 * known.mean():.2g} % wrong" if classes else f"RMS {np.sqrt(np.square(known).mean()):.3g}"
            title += f": {said}"
    return title


def _axis_name(section: Section, which: int) -> str:
    return f"axis {section.cut.shown[which]}"


def _windows(each: SetSections, kinds: list[str], classes: int | None) -> dict[str, dict[str, Any]]:
    """How each kind of picture is coloured, in all sections of a set alike."""
    windows: dict[str, dict[str, Any]] = {}
    windows["input"] = {"cmap": "gray", **_limits(each, ["input"])}
    if classes is not None:
        from matplotlib.colors import ListedColormap

        colours = ListedColormap(_colours(classes))
        for kind in ("target", "prediction"):
            windows[kind] = {"cmap": colours, "vmin": -0.5, "vmax": classes - 0.5}
        windows["error"] = {"cmap": ListedColormap([WRONG]), "vmin": 0.5, "vmax": 1.5}
        return windows
    both = {"cmap": "viridis", **_limits(each, [kind for kind in ("target", "prediction") if kind in kinds])}
    windows |= {"target": both, "prediction": both}
    if "error" in kinds:
        limits = _limits(each, ["error"])
        most = max(abs(limits["vmin"]), abs(limits["vmax"]))
        windows["error"] = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    return windows


def _limits(each: SetSections, kinds: list[str]) -> dict[str, float]:
    return _window(np.concatenate([getattr(section, kind).ravel() for kind in kinds for section in each.sections]))


def _window(values: np.ndarray) -> dict[str, float]:
    """The values that are shown as darkest and as brightest."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"vmin": 0.0, "vmax": 1.0}
    low, high = map(float, np.percentile(values, PERCENTILES))
    if low == high:
        low, high = float(values.min()), float(values.max())
    return {"vmin": low, "vmax": high if high > low else low + 1.0}


def _colours(classes: int) -> list[Any]:
    """The first class, which mostly is the background, is dark."""
    import matplotlib

    if classes <= 10:
        others = [matplotlib.colormaps["Set1"](index) for index in (1, 4, 2, 3, 5, 6, 7, 8, 0)]
    elif classes <= MOST_CLASSES:
        others = [matplotlib.colormaps["tab20"](index) for index in range(20)]
    else:
        others = [matplotlib.colormaps["turbo"](index / (classes - 1)) for index in range(1, classes)]
    return [(0.08, 0.08, 0.12, 1.0), *others[: classes - 1]]


def _picture(axis: Axes, section: Section, kind: str, window: dict[str, Any]) -> None:
    """In voxels of the array, however many of them are shown; what counts for nothing is grey."""
    picture = getattr(section, kind)
    height, width = (size * step for size, step in zip(picture.shape, section.steps, strict=True))
    place: dict[str, Any] = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "nearest"}
    axis.set_facecolor(NOTHING)
    if window["cmap"] != "gray" and kind == "error" and window["vmin"] > 0:
        # Where it is wrong, over the input, so that one sees where that is.
        shown = np.where(np.isnan(picture), np.nan, section.input)
        low, high = _window(section.input).values()
        axis.imshow(shown, cmap="gray", alpha=0.6, vmin=low, vmax=high, **place)
        picture = np.where(picture > 0, picture, np.nan)
    axis.imshow(picture, **window, **place)


def _curve(axis: Axes, section: Section, kind: str, window: dict[str, Any], classes: int | None) -> None:
    values = getattr(section, kind)
    places = np.arange(len(values)) * section.steps[0]
    steps = "steps-mid" if classes is not None and kind != "input" else "default"
    colour = {"input": "0.2", "error": WRONG}.get(kind, "C0")
    axis.plot(places, values, linewidth=0.8, color=colour, drawstyle=steps)
    if kind in ("target", "prediction"):
        margin = 0.05 * (window["vmax"] - window["vmin"])
        axis.set_ylim(window["vmin"] - margin, window["vmax"] + margin)
    axis.grid(linewidth=0.3)


def _say_colours(
    row: Sequence[Axes],
    kinds: list[str],
    windows: dict[str, dict[str, Any]],
    each: SetSections,
    classes: int | None,
    names: Sequence[str],
) -> None:
    """What the colours of each column stand for, below it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    for axis, kind in zip(row, kinds, strict=True):
        axis.set_axis_off()
        window = windows[kind]
        if kind == "input" or classes is None:
            mappable = ScalarMappable(Normalize(window["vmin"], window["vmax"]), window["cmap"])
            place = axis.inset_axes((0.1, 0.6, 0.8, 0.35))
            axis.figure.colorbar(mappable, cax=place, orientation="horizontal")
            place.tick_params(labelsize=7)
            continue
        patches = []
        if kind == "error":
            patches.append(Patch(facecolor=WRONG, label="wrong"))
        else:
            colours = _colours(classes)
            for value in _present(each, kind)[:MOST_CLASSES]:
                name = names[value] if value < len(names) else f"class {value}"
                patches.append(Patch(facecolor=colours[value], edgecolor="0.4", label=name))
        left_out = {"target": "does not count", "prediction": "gap"}
        if kind in left_out and any(np.isnan(getattr(section, kind)).any() for section in each.sections):
            patches.append(Patch(facecolor=NOTHING, edgecolor="0.4", label=left_out[kind]))
        columns = min(len(patches), 3 if any(len(name) > 8 for name in names) else 4)
        axis.legend(handles=patches, loc="upper center", ncols=max(columns, 1), fontsize=7, frameon=False)


def _present(each: SetSections, kind: str) -> list[int]:
    pictures = [getattr(section, kind) for section in each.sections]
    return sorted({int(value) for picture in pictures for value in np.unique(picture[np.isfinite(picture)])})
