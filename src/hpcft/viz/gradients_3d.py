"""Gradient norms in three dimensions: component, step and norm as a surface, a wireframe or bars. They are files alone:
no window is opened, on whatever machine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.errors import DataError, UsageError
from hpcft.runs.gradients import LAYERED, GradientLog
from hpcft.viz.gradient_axes import evenly_spaced
from hpcft.viz.style import GROUP_COLORS, picture
from hpcft.viz.texts import Lang, text

KINDS = ("surface", "wireframe", "bars")
MODULES = ("stacked", "attention", "mlp", "combined")

# Steps that each kind shows at most, evenly spaced: as many as the eye can tell apart.
_MOST_STEPS = {"surface": 60, "wireframe": 30, "bars": 10}
_LINES: dict[str, Any] = {"linewidth": 0.15, "edgecolor": "white", "rcount": 200, "ccount": 200}
_NAMED = 12  # layers named on their axis


@dataclass(frozen=True)
class _Sheet:
    """Norms over steps and components, and the heights that they stand on, if not on the ground."""

    label: str
    color: str
    rows: list[list[float]]
    base: list[list[float]] | None = None


def plot_gradients_3d(
    gradients: GradientLog,
    output_dir: Path | str,
    kinds: Iterable[str] = KINDS,
    module: str = "stacked",
    *,
    name: str = "",
    lang: Lang = "en",
) -> list[Path]:
    """Draw `gradient_3d_surface.png`, `gradient_3d_wireframe.png` and `gradient_3d_bars.png`.

    The components are the layers, of `stacked` and `combined` also the embedding and the head where they have a
    gradient. The bars show 10 steps.

    Args:
        gradients: of at least two steps, with layers.
        output_dir: folder of the pictures; is made.
        kinds: which of them.
        module: `attention` or `mlp` alone; `combined`, the sum of both norms; `stacked`, attention's and on top of it
            the MLP's.
        name: of the run, for the title.
        lang: of the texts.

    Raises:
        UsageError: no such kind or module.
        DataError: fewer than two steps, no layers, or no norm above 0.
    """
    wanted = list(kinds)
    for kind in wanted:
        _check(kind, KINDS, "kinds")
    _check(module, MODULES, "module")
    if len(gradients.steps) < 2:
        raise DataError(
            f"a picture in three dimensions needs at least two measured steps, not {len(gradients.steps)}",
            hint="train longer, or measure more often: gradients.log_frequency=1",
        )
    if not gradients.layers:
        raise DataError("the layers were not measured", hint="gradients.layer_norm=true measures them")
    heading = text("gradients_3d", lang) + (f": {name}" if name else "")
    return [
        _draw(gradients, Path(output_dir) / f"gradient_3d_{kind}.png", kind, module, heading, lang) for kind in wanted
    ]


def _check(given: str, known: tuple[str, ...], where: str) -> None:
    if given not in known:
        raise UsageError(f"'{given[:40]}' is not one of {', '.join(known)}", where=where)


def _draw(gradients: GradientLog, path: Path, kind: str, module: str, heading: str, lang: Lang) -> Path:
    places = evenly_spaced(len(gradients.steps), _MOST_STEPS[kind])
    steps = [gradients.steps[place] for place in places]
    sheets, components = _sheets(gradients, places, module, lang)
    if not any(any(map(any, sheet.rows)) for sheet in sheets):
        raise DataError(f"no norm of '{module}' is above 0", hint="it is not trained; choose another --module")
    with picture(path, size=(10, 7.5), projection="3d") as (figure, [panel]):
        # matplotlib's 3-D panels have methods that the others have not.
        axes: Any = panel
        drawn = {"surface": _surface, "wireframe": _wireframe, "bars": _bars}[kind](axes, sheets, steps)
        shown = _named(components, gradients.layers)
        axes.set_xticks(shown, [components[x] for x in shown], fontsize=8)
        axes.set_xlabel(text("layer" if len(components) == gradients.layers else "component", lang), labelpad=12)
        if kind == "bars":
            axes.set_yticks(range(len(steps)), [str(step) for step in steps], fontsize=8)
        axes.set_ylabel(text("step", lang), labelpad=12)
        axes.set_zlabel(text("norm", lang), labelpad=8)
        axes.set_zlim(bottom=0)
        axes.set_box_aspect((1.3, 1.2, 0.8), zoom=1.05)
        axes.view_init(elev=26, azim=-58)
        if len(sheets) > 1:
            handles = [_handle(sheet) for sheet in sheets]
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        elif drawn is not None:
            figure.colorbar(drawn, ax=axes, shrink=0.6, pad=0.08, label=text("norm", lang))
        low = sheets[0].label
        shown_groups = low if len(sheets) == 1 else text("stacked_3d", lang, low=low)
        figure.suptitle(f"{heading}\n{shown_groups}", fontsize=14, fontweight="bold")
    return path


def _named(components: list[str], layers: int) -> list[int]:
    """Places of the components that are named: the embedding and the head always, of many layers some that are not
    right beside them."""
    first = components.index("L0")
    every = math.ceil(layers / _NAMED)
    if every == 1:
        return list(range(len(components)))
    ends = [x for x in (0, len(components) - 1) if not first <= x < first + layers]
    return sorted([*ends, *(x for x in range(first, first + layers, every) if all(abs(x - end) > 1 for end in ends))])


def _sheets(gradients: GradientLog, places: list[int], module: str, lang: Lang) -> tuple[list[_Sheet], list[str]]:
    """What is drawn, from below, and the names of the components."""
    attention, mlp = ([_plain(gradients.layer_norms[group][place]) for place in places] for group in LAYERED)
    layers = [f"L{number}" for number in range(gradients.layers)]
    if module in LAYERED:
        return [_Sheet(text(module, lang), GROUP_COLORS[module], attention if module == "attention" else mlp)], layers
    embed, head = (_end(gradients, group, places) for group in ("embed", "lm_head"))
    ends = [text(group, lang) for group, rows in (("embed", embed), ("lm_head", head)) if rows[0]]
    components = [*ends[: len(embed[0])], *layers, *ends[len(embed[0]) :]]

    trained = [text(group, lang) for group, rows in zip(LAYERED, (attention, mlp), strict=True) if any(map(any, rows))]

    def beside_ends(rows: list[list[float]], height: float) -> list[list[float]]:
        return [
            [*(height * v for v in first), *row, *(height * v for v in last)]
            for first, row, last in zip(embed, rows, head, strict=True)
        ]

    if module == "combined":
        both = [[a + m for a, m in zip(*rows, strict=True)] for rows in zip(attention, mlp, strict=True)]
        label = text(module, lang) if len(trained) == 2 else " / ".join([*trained, *ends])
        return [_Sheet(label, GROUP_COLORS["total"], beside_ends(both, 1))], components
    low = beside_ends(attention, 1)
    sheets = [
        _Sheet(" / ".join([*(n for n in trained if n != text("mlp", lang)), *ends]), GROUP_COLORS["attention"], low),
        _Sheet(text("mlp", lang), GROUP_COLORS["mlp"], beside_ends(mlp, 0), low),
    ]
    # What is not trained would only lie on the other.
    return [sheet for sheet in sheets if any(map(any, sheet.rows))], components


def _end(gradients: GradientLog, group: str, places: list[int]) -> list[list[float]]:
    """The embedding or the head as a component: at each step its norm, or nothing where it has no gradient."""
    norms = _plain([gradients.group_norms[group][place] for place in places])
    return [[norm] if any(norms) else [] for norm in norms]


def _plain(norms: list[float]) -> list[float]:
    """The norms; what is not finite has no height."""
    return [norm if math.isfinite(norm) else 0.0 for norm in norms]


def _handle(sheet: _Sheet) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=sheet.color, label=sheet.label, alpha=0.85)


def _grid(sheet: _Sheet, steps: list[int]) -> tuple[Any, Any, Any]:
    """x, y and z of a sheet's upper side, each of shape (steps, components)."""
    import numpy as np

    z = np.array(sheet.rows) + np.array(sheet.base or 0.0)
    x, y = np.meshgrid(np.arange(z.shape[1]), np.array(steps))
    return x, y, z


def _surface(axes: Any, sheets: list[_Sheet], steps: list[int]) -> Any:
    if len(sheets) == 1:
        x, y, z = _grid(sheets[0], steps)
        # The axis's own scale: left to itself it would end at the largest mean of a face's corners.
        return axes.plot_surface(x, y, z, cmap="YlOrRd", vmin=0, vmax=z.max(), **_LINES)
    for sheet in sheets:
        axes.plot_surface(*_grid(sheet, steps), color=sheet.color, alpha=0.75, **_LINES)
    return None


def _wireframe(axes: Any, sheets: list[_Sheet], steps: list[int]) -> None:
    for sheet in sheets:
        x, y, z = _grid(sheet, steps)
        axes.plot_wireframe(x, y, z, color=sheet.color, linewidth=0.8, rcount=200, ccount=200)


def _bars(axes: Any, sheets: list[_Sheet], steps: list[int]) -> None:
    import numpy as np

    for sheet in sheets:
        heights = np.array(sheet.rows)
        bottoms = np.zeros_like(heights) if sheet.base is None else np.array(sheet.base)
        # Steps and components of the bars that have a height.
        y, x = np.nonzero(heights)
        axes.bar3d(x - 0.35, y - 0.3, bottoms[y, x], 0.7, 0.6, heights[y, x], color=sheet.color, shade=True)
