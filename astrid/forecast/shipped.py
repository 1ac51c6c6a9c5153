"""A trained forecast in one file of plain arrays: written, read, and asked for forecasts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

from astrid.errors import ConfigError
from astrid.forecast.features import DayFeatures, FeatureWalk
from astrid.forecast.model import VERSION, HorizonModel, Quantiles
from astrid.forecast.trees import Trees, export, from_arrays

F64 = npt.NDArray[np.float64]

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Shipped:
    """Models by horizon, the quantiles of their scaled errors, and the last day whose counts they learned from."""

    vintage: np.datetime64
    models: Mapping[int, HorizonModel]
    errors: Mapping[int, F64]

    @property
    def name(self) -> str:
        """Name the model and its vintage."""
        return f"forecast {VERSION}, shipped, trained on counts up to {self.vintage}"

    def forecast(self, day: DayFeatures, names: tuple[str, ...]) -> dict[int, Quantiles]:
        """Return the forecasts of a day's repositories; features that the model knows and the day lacks are NaN."""
        found = {}
        for horizon, model in self.models.items():
            place = {name: i for i, name in enumerate(names)}
            values = np.full((len(day.values), len(model.names)), np.nan, np.float32)
            for i, name in enumerate(model.names):
                if name in place:
                    values[:, i] = day.values[:, place[name]]
            found[horizon] = model.forecast(values, self.errors[horizon])
        return found


def forecast_rows(shipped: Shipped, walk: FeatureWalk, row: int) -> tuple[DayFeatures, dict[int, Quantiles]]:
    """Return the features of a row, asked for in ascending order, and the forecasts of its repositories."""
    day = walk.at(row)
    return day, shipped.forecast(day, walk.names)


def save(shipped: Shipped, path: Path) -> None:
    """Write a model; equal models give files that read back equal."""
    arrays: dict[str, Any] = {}
    about: dict[str, Any] = {"format": FORMAT, "version": VERSION, "vintage": str(shipped.vintage), "horizons": {}}
    for horizon, model in shipped.models.items():
        about["horizons"][str(horizon)] = {
            "names": model.names,
            "floor": model.floor,
            "vintage": model.vintage,
            "pairs": model.pairs,
        }
        arrays[f"{horizon}/used"] = model.used
        arrays[f"{horizon}/errors"] = shipped.errors[horizon]
        for part in ("location", "scale"):
            fitted = getattr(model, part)
            trees = export(fitted) if isinstance(fitted, HistGradientBoostingRegressor) else fitted
            arrays |= {f"{horizon}/{part}/{name}": a for name, a in trees.arrays().items()}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load(path: Path) -> Shipped:
    """Read a model that :func:`save` wrote; nothing in the file is executed.

    Raises
    ------
    ConfigError
        If the file is not there, is no such model, or one of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays["about"].tobytes())
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise ConfigError(
                f"{path} holds forecast {about['version']} in format {about['format']}, this is {VERSION} "
                f"in format {FORMAT}: take the model of this version"
            )
        models, errors = {}, {}
        for key, said in about["horizons"].items():
            location, scale = (_trees(arrays, f"{key}/{part}/") for part in ("location", "scale"))
            models[int(key)] = HorizonModel(
                int(key), tuple(said["names"]), arrays[f"{key}/used"], location, scale,
                said["floor"], said["vintage"], said["pairs"],
            )  # fmt: skip
            errors[int(key)] = arrays[f"{key}/errors"]
        return Shipped(np.datetime64(about["vintage"], "D"), models, errors)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as exc:
        raise ConfigError(f"{path} is no model of the forecast ({exc}): give the file that came with it") from exc


def _trees(arrays: Mapping[str, npt.NDArray[Any]], begin: str) -> Trees:
    return from_arrays({name.removeprefix(begin): a for name, a in arrays.items() if name.startswith(begin)})
