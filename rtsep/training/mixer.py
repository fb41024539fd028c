"""Mixtures for training, made while they are needed: every one from its own stream of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import gcd

import numpy as np
from scipy.signal import firwin, resample_poly

from rtsep.kernels.jit import kernel
from rtsep.training.corpus import SR, Clip, Pool
from rtsep.training.noises import synthetic
from rtsep.training.pitch import pitch_of
from rtsep.training.recipe import Mixtures
from rtsep.training.rooms import draw_response, draw_room, in_room

RESAMPLED = 50  # speeds are fractions of this
FRAME = SR // 50  # in which speech is active or not
ACTIVE_DB = -35.0  # below the loudest frames
SILENT = 1e-7  # mean power of a piece that is drawn again: -70 dBFS
RAMP = SR // 200  # 5 ms at cuts
SELF_NOISE_DB = (-90.0, -60.0)  # dBFS, of the microphone
SPREAD = 3 / 8  # of the coefficients of random filters (Valin, "A hybrid DSP/deep learning approach", 2018)
GAP_S = (0.1, 1.0)
BABBLE = (3, 9)  # talkers
BACKWARDS = 0.5  # share of recorded noises
SECOND_NOISE = 0.4  # share of noises that are two, and the second's level
SECOND_NOISE_DB = (-10.0, 0.0)
ABSENT = 0.05  # share of two-talker mixtures with one of them
CLIPPED_AT = (0.3, 0.8)  # of the peak
PEAK = 0.99
TRIES = 10
DISTINCT = 1.2  # pitch of the higher over that of the lower of two talkers whose order is heard
SECOND_VOICE = 0.15  # share of mixtures with another voice that have one more
NEAR = 0.6  # share of voices from the corpus of the one before: not microphones are to tell them apart
SHORTER = 0.3  # share of enrolments
ENROLLED_DB = (10.0, 45.0)  # speech over noise in enrolments
MEASURED = 4  # recordings of a speaker whose pitch is taken


class Mixer:
    """Makes mixtures.

    Parameters
    ----------
    mixtures : Mixtures
        What they are to be.
    speech, noise, music : Pool
        May be empty but for `speech`; what is missing is replaced by synthetic noise.
    seed : int

    enrol_s : float
        Seconds of other recordings of the talker that are made with every mixture.

    Attributes
    ----------
    known : list of str
        Of two talkers, the speakers that a model is adapted to, from the lowest voice to the highest.
    """

    def __init__(
        self, mixtures: Mixtures, speech: Pool, noise: Pool, music: Pool, seed: int, enrol_s: float = 0.0
    ) -> None:
        self.mixtures, self.speech, self.noise, self.music, self.seed = mixtures, speech, noise, music, seed
        self.n_enrol = round(enrol_s * SR)
        self._pitches = (
            {group[0].group: _pitch_of_speaker(group) for group in speech.groups} if mixtures.talkers == 2 else {}
        )
        self._own = [group[0].group for group in speech.groups if group[0].known]
        known = self._own if mixtures.talkers == 2 else []
        self.known = sorted(known, key=lambda voice: (np.nan_to_num(self._pitches[voice]), voice))

    def make(self, index: int, n: int) -> tuple[np.ndarray, bool, np.ndarray]:
        """One mixture, whether the order of its talkers can be heard, and what its talker is enrolled by.

        Parameters
        ----------
        index : int
            Which of them; the same one every time.
        n : int
            Samples.

        Returns
        -------
        sources : ndarray, float32, (n_src, n)
            The talkers, the lower voice first, and last the residual; their sum is the mixture.
        distinct : bool
            Whether there are two talkers, one clearly lower than the other, or all are known.
        enrolment : ndarray, float32, (n_enrol,)
            The talker, on another occasion.
        """
        rng, mixtures = np.random.default_rng((self.seed, index)), self.mixtures
        talkers = np.zeros((mixtures.talkers, n), np.float32)
        heard: list[str] = []
        pitches = np.full(mixtures.talkers, np.nan)
        noise_only = rng.random() < mixtures.noise_only
        absent = 1 if mixtures.talkers == 2 and rng.random() < ABSENT else None
        enrolment = np.zeros(self.n_enrol, np.float32)
        for j in range(mixtures.talkers):
            if (noise_only and not self.n_enrol) or j == absent:
                continue
            group, speed = self._speaker(rng, heard, near=bool(heard) and rng.random() < NEAR)
            if self.n_enrol:
                there, group = _occasions(rng, group, self.n_enrol)
                enrolment = self._enrolment(rng, there, speed)
                if noise_only:
                    continue
            talkers[j] = _normalised(self._talk(rng, n, group, speed))
            pitches[j] = self._pitches.get(group[0].group, np.nan) * speed / RESAMPLED
            if j:
                talkers[j] *= np.float32(10 ** (rng.uniform(*mixtures.talkers_db) / 20))
        others = self._others(rng, n, heard)
        rows = np.concatenate([talkers, others])
        if rng.random() < mixtures.rooms:
            t60 = draw_room(rng)
            for j in range(len(rows)):
                rows[j] = in_room(rows[j], draw_response(rng, t60))
        for j in range(len(rows)):
            if rng.random() < mixtures.pauses:
                rows[j] *= self._silence(rng, n)
        talkers, others = rows[: mixtures.talkers], rows[mixtures.talkers :]
        known = bool(heard) and set(heard) <= set(self.known)
        if known:  # they are told apart by who they are; who is absent is in the middle
            pitches[:] = (len(self.known) - 1) / 2
            pitches[: len(heard)] = [self.known.index(speaker) for speaker in heard]
        talkers, pitches = talkers[np.argsort(pitches)], np.sort(pitches)
        residual = others.sum(0)
        if (noise_only and not len(others)) or rng.random() < mixtures.noise:
            residual = residual + self._scaled_noise(rng, n, rows, heard)
        distinct = 2 in (len(heard), len(self.known)) if known else bool(pitches[-1] > DISTINCT * pitches[0])
        return self._through_microphone(rng, np.concatenate([talkers, residual[None]])), distinct, enrolment

    def batch(self, first: int, size: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mixtures `first` to `first + size - 1`.

        Returns
        -------
        sources : ndarray, float32, (size, n_src, n)
        distinct : ndarray, bool, (size,)
        enrolments : ndarray, float32, (size, n_enrol)
        """
        sources, distinct, enrolments = zip(*(self.make(index, n) for index in range(first, first + size)), strict=True)
        return np.stack(sources), np.array(distinct), np.stack(enrolments)

    def _speaker(self, rng: np.random.Generator, heard: list[str], near: bool = False) -> tuple[list[Clip], int]:
        """Recordings of a speaker who is not `heard` yet, if `near` of the corpus of the last who is; and a speed."""
        group = self.speech.draw(rng, heard, beside=heard[-1] if near else "")
        heard.append(group[0].group)
        steps = int(self.mixtures.speed * RESAMPLED + 0.5)
        return group, RESAMPLED + int(rng.integers(-steps, steps + 1))

    def _others(self, rng: np.random.Generator, n: int, heard: list[str]) -> np.ndarray:
        """Voices beside the talker, who is heard as loud as 1: (n_others, n)."""
        others: list[np.ndarray] = []
        for share in (self.mixtures.others, SECOND_VOICE) if self.mixtures.others else ():
            if rng.random() >= share or len(self.speech) <= len(heard):  # nobody else there
                break
            group, speed = self._speaker(rng, heard, near=bool(heard) and rng.random() < NEAR)
            level = np.float32(10 ** (rng.uniform(*self.mixtures.talkers_db) / 20))
            others.append(level * _normalised(self._talk(rng, n, group, speed)))
        return np.stack(others) if others else np.zeros((0, n), np.float32)

    def _enrolment(self, rng: np.random.Generator, group: list[Clip], speed: int) -> np.ndarray:
        """A speaker as enrolled: in another room than in the mixture, with little noise, some of the time shorter."""
        x = _normalised(self._talk(rng, self.n_enrol, group, speed))
        if rng.random() < self.mixtures.rooms:
            x = in_room(x, draw_response(rng, draw_room(rng)))
        if rng.random() < SHORTER:
            x[int(rng.uniform(0.4, 1) * x.size) :] = 0
        recorded = len(self.noise) and rng.random() < 0.5
        noise = self._recorded(rng, self.noise, x.size) if recorded else synthetic(rng, x.size)
        noise_db = rng.uniform(*ENROLLED_DB)
        return x + noise * np.float32(10 ** (-noise_db / 20) / np.sqrt(active_power(noise)))

    def _talk(self, rng: np.random.Generator, n: int, group: list[Clip], speed: int) -> np.ndarray:
        """A talker: pieces of one speaker, in random intervals where the recordings are short."""
        out = np.zeros(n, np.float32)
        at = int(rng.uniform(0, 0.5) * n) if rng.random() < 0.2 else 0
        while at < n:
            piece = _piece(rng, group, -(-(n - at) * speed // RESAMPLED))
            if speed != RESAMPLED:
                piece = resample_poly(piece, RESAMPLED, speed, window=_low_pass(speed))
            piece = piece[: n - at]
            out[at : at + piece.size] = piece
            at += piece.size + int(rng.uniform(*GAP_S) * SR)
        return _filtered(rng, out)

    def _silence(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """A gain that is zero for a stretch of a fifth to three fifths."""
        length = rng.uniform(0.2, 0.6) * n
        middle = rng.uniform(0, n)
        distance = np.abs(np.arange(n, dtype=np.float32) - np.float32(middle))
        return np.clip((distance - np.float32(length / 2)) / RAMP, 0, 1)

    def _noise(self, rng: np.random.Generator, n: int, heard: Sequence[str] = ()) -> np.ndarray:
        mixtures, drawn = self.mixtures, rng.random()
        but = [*self._own, *heard]  # known voices are not noise, and nobody is behind themselves
        if drawn < mixtures.babble and any(group[0].group not in but for group in self.speech.groups):
            x = np.zeros(n, np.float32)
            for _ in range(rng.integers(*BABBLE)):
                piece = _repeated(rng, self.speech.draw(rng, but), n)
                x += piece * np.float32(10 ** (rng.uniform(-6, 0) / 20) / (piece.std() + 1e-6))
        elif drawn < mixtures.babble + mixtures.music and len(self.music):
            x = self._recorded(rng, self.music, n)
        elif drawn < mixtures.babble + mixtures.music + mixtures.synthetic or not len(self.noise):
            x = synthetic(rng, n)
        else:
            x = self._recorded(rng, self.noise, n)
        x = _filtered(rng, x)
        return x / np.float32(np.sqrt(active_power(x)))

    def _recorded(self, rng: np.random.Generator, pool: Pool, n: int) -> np.ndarray:
        """A recording at another speed, and half of the time backwards: many from one."""
        most = self.mixtures.noise_speed
        speed = max(1, round(RESAMPLED * np.exp(rng.uniform(-np.log(most), np.log(most)))))
        x = _repeated(rng, pool.draw(rng), -(-n * speed // RESAMPLED))
        if speed != RESAMPLED:
            x = resample_poly(x, RESAMPLED, speed, window=_low_pass(speed))[:n]
        return x[::-1].copy() if rng.random() < BACKWARDS else x

    def _scaled_noise(self, rng: np.random.Generator, n: int, talkers: np.ndarray, heard: Sequence[str]) -> np.ndarray:
        """Noise at the SNR that was drawn, or of power one if there is no speech."""
        x = self._noise(rng, n, heard)
        if rng.random() < SECOND_NOISE:
            x = x + self._noise(rng, n, heard) * np.float32(10 ** (rng.uniform(*SECOND_NOISE_DB) / 20))
        if rng.random() < self.mixtures.pauses / 2:
            x = x * self._silence(rng, n)
        mean, deviation, low, high = self.mixtures.snr_db
        snr_db = np.clip(rng.normal(mean, deviation), low, high)
        speech = active_power(talkers.sum(0)) if talkers.any() else 1.0
        return x * np.float32(np.sqrt(speech / active_power(x)) * 10 ** (-snr_db / 20))

    def _through_microphone(self, rng: np.random.Generator, sources: np.ndarray) -> np.ndarray:
        """Filter, level, self-noise and clipping."""
        sources = _filtered(rng, sources)
        mixture = sources.sum(0)
        level_db = rng.uniform(*self.mixtures.level_db)
        gain = 10 ** (level_db / 20) / np.sqrt(np.mean(mixture**2) + 1e-12)
        gain = min(gain, PEAK / (np.abs(mixture).max() + 1e-9))
        sources *= np.float32(gain)
        noise_db = rng.uniform(*SELF_NOISE_DB)
        sources[-1] += np.float32(10 ** (noise_db / 20)) * rng.standard_normal(sources.shape[1], np.float32)
        if rng.random() < self.mixtures.clipping:
            mixture = sources.sum(0)
            limit = rng.uniform(*CLIPPED_AT) * np.abs(mixture).max()
            sources[-1] += np.clip(mixture, -limit, limit) - mixture
        return sources


def _occasions(rng: np.random.Generator, group: list[Clip], n: int) -> tuple[list[Clip], list[Clip]]:
    """The clips of a speaker in two parts: `n` samples at least, if there are, and others; of one clip, parts."""
    if len(group) == 1:
        clip = group[0]
        loud = np.abs(clip.samples.astype(np.int32)).cumsum(dtype=np.int64)
        at = int(np.searchsorted(loud, loud[-1] / 2))  # where half of what there is has been heard: none is silent
        halves = [[replace(clip, samples=clip.samples[:at])], [replace(clip, samples=clip.samples[at:])]]
        first = int(rng.integers(2))
        return halves[first], halves[1 - first]
    clips = [group[i] for i in rng.permutation(len(group))]
    sizes = np.cumsum([clip.samples.size for clip in clips])
    first = min(int(np.searchsorted(sizes, min(n, sizes[-1] // 2))) + 1, len(clips) - 1)
    return clips[:first], clips[first:]


def _normalised(x: np.ndarray) -> np.ndarray:
    """With an active power of one."""
    return x / np.float32(np.sqrt(active_power(x)))


def _pitch_of_speaker(group: Sequence[Clip]) -> float:
    pitches = np.array([pitch_of(clip.samples) for clip in group[:MEASURED]])
    return float(np.median(pitches[np.isfinite(pitches)])) if np.isfinite(pitches).any() else np.nan


def active_power(x: np.ndarray) -> float:
    """Mean power of the frames of 20 ms that are at most 35 dB below the loudest; at least 1e-12."""
    frames = x[: x.size // FRAME * FRAME].reshape(-1, FRAME)
    power = np.einsum("ij,ij->i", frames, frames) / FRAME if len(frames) else np.array([np.mean(x**2)])
    return max(float(power[power >= power.max() * 10 ** (ACTIVE_DB / 10)].mean()), 1e-12)


def _piece(rng: np.random.Generator, group: Sequence[Clip], n: int) -> np.ndarray:
    """At most `n` samples of a clip of the group, that are not silent; with ramps, float32."""
    for _ in range(TRIES):
        samples = group[int(rng.integers(len(group)))].samples
        start = int(rng.integers(samples.size - n + 1)) if samples.size > n else 0
        piece = samples[start : start + n].astype(np.float32) / np.float32(32768)
        if np.mean(piece**2) > SILENT:
            break
    ramp = min(RAMP, piece.size // 2)
    slope = np.arange(1, ramp + 1, dtype=np.float32) / ramp
    piece[:ramp] *= slope
    piece[piece.size - ramp :] *= slope[::-1]
    return piece


def _repeated(rng: np.random.Generator, group: Sequence[Clip], n: int) -> np.ndarray:
    """`n` samples: pieces one after the other, or with gaps."""
    out, at = np.zeros(n, np.float32), 0
    gap_s = rng.uniform(0, 1) if rng.random() < 0.3 else 0
    while at < n:
        piece = _piece(rng, group, n - at)
        out[at : at + piece.size] = piece
        at += piece.size + int(rng.uniform(0, gap_s) * SR)
    return out


def _filtered(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Through a random filter of second order, which is stable and within 17 dB of flat; float32."""
    b1, b2, a1, a2 = rng.uniform(-SPREAD, SPREAD, 4).astype(np.float32)
    out = np.empty(x.shape, np.float32)
    filter_rows(np.atleast_2d(x), b1, b2, a1, a2, np.atleast_2d(out))
    return out


@kernel
def filter_rows(x, b1, b2, a1, a2, out):
    """Filter rows (n_rows, n_samples) by (1 + b1 z^-1 + b2 z^-2) / (1 + a1 z^-1 + a2 z^-2), from rest."""
    zero = np.float32(0)
    for row in range(x.shape[0]):
        x1, x2, y1, y2 = zero, zero, zero, zero
        for i in range(x.shape[1]):
            x0 = x[row, i]
            y0 = x0 + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2
            out[row, i] = y0
            x1, x2, y1, y2 = x0, x1, y0, y1


@cache
def _low_pass(speed: int) -> np.ndarray:
    """Filter for `resample_poly`, as it would design it every time: for the ratio in its lowest terms."""
    most = max(RESAMPLED, speed) // gcd(RESAMPLED, speed)
    return firwin(20 * most + 1, 1 / most, window=("kaiser", 5.0)).astype(np.float32)
