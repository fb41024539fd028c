"""What is learned of the sources: the flows of DDS, or the frames of the NMF beside it; and the file it is kept in."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtsep.config import ConfigError, check_int
from rtsep.dds.flows import Flow, FlowShape
from rtsep.dds.spectra import Spectra
from rtsep.engine.registry import check_sources
from rtsep.models import checked_arrays, one_line, read_container, refusal, write_container

FORMAT = "rtsep-dds"
VERSION = 1
METHODS = ("nmf", "dds1", "dds2", "dds3")
SEARCHES = {"nmf": ("nmf",), "dds1": ("dds1", "dds2"), "dds2": ("dds2", "dds1"), "dds3": ("dds3",)}
MAX_BYTES = 2 << 30
LARGEST = {"n_features": 8192, "n_steps": 64, "depth": 8, "width": 4096}


@dataclass(frozen=True, eq=False)
class SourceModel:
    """What a model file holds.

    Attributes
    ----------
    method : str
        That it was learned for: "nmf", "dds1", "dds2" (which share their flows) or "dds3".
    spectra : Spectra
    sources : tuple of str
    flow : Flow or None
        For DDS-1 and DDS-2 as many flows as sources, for DDS-3 a single one, whose first codes name the source.
    frames : tuple of ndarray, float32, (n_bins, n)
        For NMF, levels of every source.
    manifest : dict
        How it was learned.
    """

    method: str
    spectra: Spectra
    sources: tuple[str, ...]
    flow: Flow | None
    frames: tuple[np.ndarray, ...]
    manifest: dict[str, Any]

    @property
    def n_free(self) -> int:
        """Codes that are searched for each atom: those that do not name the source."""
        return self.spectra.n_bins - (len(self.sources) if self.method == "dds3" else 0)

    def decode(self, codes: Tensor) -> Tensor:
        """Spectra from free codes.

        Parameters
        ----------
        codes : Tensor, (n_src, n, n_free)

        Returns
        -------
        Tensor, (n_src, n, n_bins)
            Levels, not below 0.
        """
        assert self.flow is not None
        if self.method != "dds3":
            return self.flow.inverse(codes).relu()
        n_src, n, _ = codes.shape
        names = torch.eye(n_src)[:, None].expand(n_src, n, n_src)
        whole = torch.cat([names, codes], 2).reshape(1, n_src * n, -1)
        return self.flow.inverse(whole).reshape(n_src, n, -1).relu()


def check_method(model: SourceModel, method: str | None, place: str = "the model") -> str:
    """What to search by. Raises `ConfigError` for what the model was not learned for."""
    if method is None:
        return model.method
    if method not in METHODS:
        raise ConfigError(f"{method=} is not one of {', '.join(METHODS)}")
    if method not in SEARCHES[model.method]:
        raise ConfigError(f"{method=}: {place} was learned for {' and '.join(SEARCHES[model.method])}")
    return method


def write_model(path: Path, model: SourceModel) -> None:
    """Write a model file at once. Raises `ConfigError` for what `read_model` refuses."""
    header = {
        "method": model.method,
        "spectra": asdict(model.spectra),
        "sources": list(model.sources),
        "shape": asdict(model.flow.shape) if model.flow else None,
        "manifest": model.manifest,
    }
    if model.flow:
        content = {name: value.numpy() for name, value in model.flow.state_dict().items()}
    else:
        content = {f"frames{i}": frames.astype(np.float16) for i, frames in enumerate(model.frames)}
    write_container(path, FORMAT, VERSION, header, content, check=read_model)


def read_model(path: Path | str) -> SourceModel:
    """Read a model file and check all of it. Raises `ConfigError`, one line."""
    header, content, _ = read_container(path, FORMAT, VERSION, max_bytes=MAX_BYTES)
    try:
        method, manifest = header["method"], header["manifest"]
        if method not in METHODS:
            raise ConfigError(f"{method=}")
        spectra = Spectra(**header["spectra"])
        sources = check_sources("the model", tuple(header["sources"]))
        shape = FlowShape(**header["shape"]) if method != "nmf" else None
        if shape is not None:
            for name, largest in LARGEST.items():
                check_int(name, getattr(shape, name), 1, largest)
            if shape.kind not in ("realnvp", "glow") or shape.n_features != spectra.n_bins:
                raise ConfigError(f"a {shape.kind} of {shape.n_features} features")
            if method == "dds3" and len(sources) >= spectra.n_bins:
                raise ConfigError(f"{len(sources)} sources in {spectra.n_bins} bins")
    except (ConfigError, KeyError, TypeError) as error:
        raise refusal(path, f"its header is wrong ({one_line(error)})") from None
    if shape is None:
        return SourceModel(method, spectra, sources, None, _frames(path, spectra, sources, content), manifest)
    flow = _flow(path, 1 if method == "dds3" else len(sources), shape, content)
    return SourceModel(method, spectra, sources, flow, (), manifest)


def _flow(path: Path | str, n_flows: int, shape: FlowShape, content: dict[str, np.ndarray]) -> Flow:
    with torch.device("meta"):  # nothing is drawn or computed for what the file replaces
        flow = Flow(n_flows, shape)
    expected = flow.state_dict()
    if set(expected) != set(content):
        raise refusal(path, f"it has other arrays: {', '.join(sorted(set(expected) ^ set(content)))}")
    for name, array in content.items():
        wanted, orders = expected[name], name.endswith(".order")
        if array.shape != tuple(wanted.shape) or array.dtype != (np.int64 if orders else np.float32):
            raise refusal(path, f"{name} is {array.dtype} of shape {array.shape}, not of shape {tuple(wanted.shape)}")
        if not np.isfinite(array).all():
            raise refusal(path, f"{name} is not finite")
        if orders and (np.sort(array, -1) != np.arange(array.shape[-1])).any():
            raise refusal(path, f"{name} is no permutation")
    flow.load_state_dict({name: torch.from_numpy(array) for name, array in content.items()}, assign=True)
    return flow.requires_grad_(False)


def _frames(
    path: Path | str, spectra: Spectra, sources: tuple[str, ...], content: dict[str, np.ndarray]
) -> tuple[np.ndarray, ...]:
    names = [f"frames{i}" for i in range(len(sources))]
    counts = {name: content[name].shape[1:2] for name in names if name in content}
    arrays = checked_arrays(path, content, {name: (spectra.n_bins, *counts.get(name, ())) for name in names})
    if min(array.min() for array in arrays.values()) < 0:
        raise refusal(path, "a frame is negative somewhere")
    return tuple(arrays[name] for name in names)
