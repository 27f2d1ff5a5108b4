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
from hpcft.viz.gradients import evenly_spaced
from hpcft.viz.style import GROUP_COLORS, picture
from hpcft.viz.texts import Lang, text

KINDS = ("surface", "wireframe", "bars")
MODULES = ("stacked", "attention", "mlp", "combined")

_BAR_STEPS = 10
# As many lines or cells along the steps as the eye can tell apart.
_MOST_STEPS = 120
_NAMED = 14  # components named on their axis


@dataclass(frozen=True)
class _Sheet:
    """Norms over steps and components, and the height that they stand on."""

    label: str
    color: str
    rows: list[list[float]]
    base: list[list[float]]


def plot_gradients_3d(
    gradients: GradientLog,
    output_dir: Path | str,
    kinds: Iterable[str] = KINDS,
    module: str = "stacked",
    *,
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
    return [_draw(gradients, Path(output_dir) / f"gradient_3d_{kind}.png", kind, module, lang) for kind in wanted]


def _check(given: str, known: tuple[str, ...], where: str) -> None:
    if given not in known:
        raise UsageError(f"'{given[:40]}' is not one of {', '.join(known)}", where=where)


def _draw(gradients: GradientLog, path: Path, kind: str, module: str, lang: Lang) -> Path:
    most = _BAR_STEPS if kind == "bars" else _MOST_STEPS
    places = evenly_spaced(len(gradients.steps), most)
    steps = [gradients.steps[place] for place in places]
    sheets, components = _sheets(gradients, places, module, lang)
    if not any(any(map(any, sheet.rows)) for sheet in sheets):
        raise DataError(f"no norm of '{module}' is above 0", hint="it is not trained; choose another --module")
    with picture(path, size=(11, 8.5), projection="3d") as (figure, [panel]):
        # matplotlib's 3-D panels have methods that the others have not.
        axes: Any = panel
        drawn = {"surface": _surface, "wireframe": _wireframe, "bars": _bars}[kind](axes, sheets, steps)
        every = max(1, math.ceil(len(components) / _NAMED))
        axes.set_xticks(range(0, len(components), every), components[::every], fontsize=8)
        axes.set_xlabel(text("component", lang), labelpad=14)
        if kind == "bars":
            axes.set_yticks(range(len(steps)), [str(step) for step in steps], fontsize=8)
        axes.set_ylabel(text("step", lang), labelpad=12)
        axes.set_zlabel(text("norm", lang), labelpad=8)
        axes.set_zlim(bottom=0)
        axes.set_box_aspect((1.3, 1.2, 0.8), zoom=0.9)
        axes.view_init(elev=26, azim=-58)
        if len(sheets) > 1:
            handles = [_handle(sheet) for sheet in sheets]
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        elif drawn is not None:
            figure.colorbar(drawn, ax=axes, shrink=0.6, pad=0.08, label=text("norm", lang))
        name = {"stacked": "stacked_3d", "combined": "combined"}.get(module, module)
        figure.suptitle(f"{text('gradients_3d', lang)}\n{text(name, lang)}", fontsize=14, fontweight="bold")
    return path


def _sheets(gradients: GradientLog, places: list[int], module: str, lang: Lang) -> tuple[list[_Sheet], list[str]]:
    """What is drawn, from below, and the names of the components."""
    attention, mlp = ([_finite(gradients.layer_norms[group][place]) for place in places] for group in LAYERED)
    components = [f"L{number}" for number in range(gradients.layers)]
    nothing = [[0.0] * gradients.layers for _ in places]
    if module in LAYERED:
        own = attention if module == "attention" else mlp
        return [_Sheet(text(module, lang), GROUP_COLORS[module], own, nothing)], components
    ends = {
        group: [_finite([gradients.group_norms[group][place]])[0] for place in places] for group in ("embed", "lm_head")
    }
    before, after = ({group: norms for group, norms in ends.items() if group == g and any(norms)} for g in ends)
    components = [*(text(g, lang) for g in before), *components, *(text(g, lang) for g in after)]

    def widened(rows: list[list[float]], *, ends_too: bool) -> list[list[float]]:
        left, right = (
            [[norms[place] if ends_too else 0.0 for norms in side.values()] for place in range(len(places))]
            for side in (before, after)
        )
        return [[*a, *row, *b] for a, row, b in zip(left, rows, right, strict=True)]

    if module == "combined":
        both = [[a + m for a, m in zip(*rows, strict=True)] for rows in zip(attention, mlp, strict=True)]
        whole = widened(both, ends_too=True)
        return [_Sheet(text(module, lang), GROUP_COLORS["total"], whole, widened(nothing, ends_too=False))], components
    low = widened(attention, ends_too=True)
    label = " / ".join([text("attention", lang), *(text(g, lang) for g in (*before, *after))])
    sheets = [
        _Sheet(label, GROUP_COLORS["attention"], low, widened(nothing, ends_too=False)),
        _Sheet(text("mlp", lang), GROUP_COLORS["mlp"], widened(mlp, ends_too=False), low),
    ]
    # What is not trained would only lie on the other.
    return [sheet for sheet in sheets if any(map(any, sheet.rows))], components


def _finite(norms: list[float]) -> list[float]:
    """The norms; what is not finite has no height."""
    return [norm if math.isfinite(norm) else 0.0 for norm in norms]


def _handle(sheet: _Sheet) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=sheet.color, label=sheet.label, alpha=0.85)


def _grid(sheet: _Sheet, steps: list[int]) -> tuple[Any, Any, Any]:
    """x, y and z of a sheet's upper side, each of shape (steps, components)."""
    import numpy as np

    z = np.array(sheet.rows) + np.array(sheet.base)
    x, y = np.meshgrid(np.arange(z.shape[1]), np.array(steps))
    return x, y, z


def _surface(axes: Any, sheets: list[_Sheet], steps: list[int]) -> Any:
    if len(sheets) == 1:
        return axes.plot_surface(*_grid(sheets[0], steps), cmap="YlOrRd", linewidth=0, rcount=200, ccount=200)
    for sheet in sheets:
        axes.plot_surface(*_grid(sheet, steps), color=sheet.color, alpha=0.75, linewidth=0, rcount=200, ccount=200)
    return None


def _wireframe(axes: Any, sheets: list[_Sheet], steps: list[int]) -> None:
    for sheet in sheets:
        x, y, z = _grid(sheet, steps)
        axes.plot_wireframe(x, y, z, color=sheet.color, linewidth=0.8, rcount=60, ccount=60)


def _bars(axes: Any, sheets: list[_Sheet], steps: list[int]) -> None:
    import numpy as np

    for sheet in sheets:
        heights, bottoms = np.array(sheet.rows), np.array(sheet.base)
        y, x = (found.ravel() for found in np.indices(heights.shape))
        seen = heights.ravel() > 0
        axes.bar3d(
            x[seen] - 0.35,
            y[seen] - 0.3,
            bottoms.ravel()[seen],
            0.7,
            0.6,
            heights.ravel()[seen],
            color=sheet.color,
            shade=True,
        )
