"""Slow, obvious NumPy twins of the learned estimators, in float64."""

from __future__ import annotations

import numpy as np

from rtsep import StreamConfig


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def centres(n_bands: int) -> np.ndarray:
    """Band centres by a fine search for the distance in ERB that ends at 8 kHz."""

    def walk(step: float) -> list[float]:
        found = [0.0]
        while len(found) < n_bands:
            found.append(found[-1] + max(62.5, step * 24.7 * (1 + 0.00437 * found[-1])))
        return found

    low, high = 0.0, 20.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (low, middle) if walk(middle)[-1] > 8000 else (middle, high)
    return np.array(walk(low)) * 8000 / walk(low)[-1]


def triangles(n_bands: int, frequencies: np.ndarray) -> np.ndarray:
    """Heights (n_bands, n) of the triangles at `frequencies` in Hz, zero above 8 kHz."""
    peaks = centres(n_bands)
    heights = [np.interp(frequencies, peaks, np.eye(n_bands)[b]) for b in range(n_bands)]
    return np.round(heights, 6) * (frequencies <= 8000)


def advances(spectra: np.ndarray, config) -> np.ndarray:
    """How phases of complex frames (n_frames, n_bins) advance, (n_frames, 96)."""
    k = np.arange(config.n_bins)
    stretch = np.floor(k * config.sr / config.n_fft / 62.5 + 1e-6)
    out, before = [], np.zeros(config.n_bins)
    for frame in spectra:
        turned = frame * np.conj(before * np.exp(2j * np.pi * k * config.hop / config.n_fft))
        values = []
        for i in range(48):
            here = stretch == i
            both = np.linalg.norm(frame[here]) * np.linalg.norm(before[here])
            values.append(turned[here].sum() / both if both > 1e-30 else 0)
        out.append(np.concatenate([np.real(values), np.imag(values)]))
        before = frame
    return np.array(out)


def features(frames: np.ndarray, shape, config) -> np.ndarray:
    """Features (n_frames, n_features) of spectra (n_frames, 2, n_bins)."""
    spectra = frames[:, 0] + 1j * frames[:, 1].astype(float)
    parts = np.split(levels(np.abs(spectra) ** 2, shape.bands_in, config), 2, axis=1)
    heard = [parts[0], *parts[1:][: shape.floor_cue], *([advances(spectra, config)] if shape.advance_cue else [])]
    return np.concatenate(heard, 1)


def levels(power: np.ndarray, n_bands: int, config) -> np.ndarray:
    """Band powers over their level and over their floor (n_frames, 2 * n_bands), of powers (n_frames, n_bins)."""
    hop_s = config.hop / config.sr
    weights = triangles(n_bands, np.arange(config.n_bins) * config.sr / config.n_fft)
    totals = weights.sum(1, keepdims=True)
    weights = np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
    silence = 1e-15 * (config.windows.analysis**2).sum()
    level, n_seen, out = 1e30, 0, []
    smoothed = floor = candidate = np.full(n_bands, 1e-30)
    for frame in power.astype(float):
        now = (weights @ frame).mean()
        bands = np.maximum(weights @ frame, 1e-30)
        if now > silence:
            n_seen += 1
            rate = max(1 - np.exp(-hop_s / 1.0), 1 / n_seen)
            if n_seen > 1 and now < level / 1000:
                rate /= 10
            level = now if n_seen == 1 else level + rate * (now - level)
            if n_seen <= config.analysis // config.hop:
                smoothed = floor = candidate = bands
            smoothed = smoothed + (1 - np.exp(-hop_s / 0.05)) * (bands - smoothed)
            candidate = np.minimum(candidate, smoothed)
            floor = np.minimum(floor, candidate)
            if n_seen % round(0.75 / hop_s) == 0:
                floor, candidate = candidate, smoothed
        over_level = np.clip(np.log10(bands / level), -6, 3) / 2
        out.append(np.concatenate([over_level, np.clip(np.log10(bands / floor), -1, 5) / 2]))
    return np.array(out)


def gru(x: np.ndarray, weights: dict[str, np.ndarray], layer: int) -> np.ndarray:
    """Outputs (n_frames, n) of one GRU for inputs (n_frames, n_in), weights as in a model file."""
    w, u, b, c = (
        weights[f"gru{layer}_{part}_{kind}"].astype(float)
        for kind in ("weight", "bias")
        for part in ("input", "hidden")
    )
    h, out = np.zeros(u.shape[1]), []
    for frame in x:
        (ir, iz, inew), (hr, hz, hnew) = np.split(w @ frame + b, 3), np.split(u @ h + c, 3)
        z = sigmoid(iz + hz)
        h = (1 - z) * np.tanh(inew + sigmoid(ir + hr) * hnew) + z * h
        out.append(h)
    return np.array(out)


def rows_gru(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Outputs (n_frames, n_rows, n) of a GRU that each row of x (n_frames, n_rows, n_in) has for itself."""
    parts = {
        f"gru0_{ours}_{kind}": weights[f"{name}.{kind}_{torchs}_l0"]
        for ours, torchs in (("input", "ih"), ("hidden", "hh"))
        for kind in ("weight", "bias")
    }
    return np.stack([gru(x[:, row], parts, 0) for row in range(x.shape[1])], 1)


def dual_path(heard: np.ndarray, shape, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Raw heads (n_frames, n_heads, n_bands) of features (n_frames, n_features), place by place."""
    n_frames, n_bands, n_places, n = len(heard), shape.bands_in, shape.bands_in // 2, shape.channels

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].astype(float).T + weights[f"{name}.bias"]

    def convolution(name: str, x: np.ndarray, width: int, step: int) -> np.ndarray:
        edge = np.zeros((n_frames, width // 2, x.shape[2]))
        padded = np.concatenate([edge, x, edge], 1)
        places = range(0, x.shape[1], step)
        return np.stack([dense(name, padded[:, at : at + width].reshape(n_frames, -1)) for at in places], 1)

    def leaky(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0.2 * x)

    stretches, peaks = (np.arange(48) + 0.5) * 62.5, centres(n_bands)
    cues = [heard[:, :n_bands], heard[:, n_bands : 2 * n_bands]]
    for part in (heard[:, 2 * n_bands : -48], heard[:, -48:]):
        in_bands = np.array([np.interp(peaks, stretches, frame) for frame in part])
        cues.append(np.where(peaks < stretches[-1], in_bands, 0))
    x = leaky(convolution("encoder", np.stack(cues, 2), 5, 2) + weights["encoder_place"].reshape(n_places, n))
    for block in (f"blocks.{i}" for i in range(shape.n_layers)):
        near = leaky(convolution(f"{block}.near", x, 3, 1))
        summary = dense(f"{block}.summary", near).reshape(n_frames, 1, -1)
        wide = dense(f"{block}.back", rows_gru(summary, weights, f"{block}.wide"))
        near = near + dense(f"{block}.lift", wide.reshape(n_frames, n_places, -1))
        x = x + rows_gru(near, weights, f"{block}.each")
    raw = dense("heads", leaky(convolution("decoder", x, 3, 1)))  # of both bands of a place
    raw = raw.reshape(n_frames, n_bands, -1) + weights["heads_place"].reshape(n_bands, -1)
    return raw.transpose(0, 2, 1)


def recurrent(heard: np.ndarray, shape, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Raw heads (n_frames, n_heads, bands_out) of features (n_frames, n_features)."""
    x = heard @ weights["dense_weight"].astype(float).T + weights["dense_bias"]
    x = y = np.where(x > 0, x, 0.2 * x)
    for layer in range(shape.n_layers):
        y = gru(y, weights, layer)
    raw = (x + y) @ weights["heads_weight"].astype(float).T + weights["heads_bias"]
    return raw.reshape(len(heard), shape.n_heads, shape.bands_out)


def heads(frames: np.ndarray, model, config) -> np.ndarray:
    """Masks, ratios and confidence of the bands, (n_frames, 2 * n_src + 1, bands_out)."""
    shape, weights = model.shape, model.weights
    raw = (dual_path if shape.channels else recurrent)(features(frames, shape, config), shape, weights)
    ratios = slice(shape.n_src, 2 * shape.n_src)
    out = sigmoid(raw)
    out[:, ratios] = 4 * sigmoid(raw[:, ratios] - 1.1)
    return out


def gains(frames: np.ndarray, model, config, target: str) -> np.ndarray:
    """Magnitudes over those of the mixture, (n_frames, n_src, n_bins)."""
    n_src, turns = model.shape.n_src, model.shape.hop_ms // 4
    slow = StreamConfig(config.sr, config.analysis, turns * config.hop, config.n_fft)
    bands = np.zeros((len(frames), model.shape.n_heads, model.shape.bands_out))
    for turn in range(turns):
        bands[turn::turns] = heads(frames[turn::turns], model, slow)
    masks, ratios, confidence = bands[:, :n_src], bands[:, n_src:-1], bands[:, -1:]
    bands = masks if target == "mask" else confidence * ratios + (1 - confidence) * masks
    frequencies = np.arange(config.n_bins) * config.sr / config.n_fft
    peaks = centres(model.shape.bands_out)
    peaks = np.append(peaks, 2 * peaks[-1] - peaks[-2])
    bands = np.concatenate([bands, bands[:, :, -4:].mean(2, keepdims=True)], 2)
    return np.apply_along_axis(lambda row: np.interp(frequencies, peaks, row), 2, bands)
