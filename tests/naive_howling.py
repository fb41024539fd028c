"""Slow, obvious twin of the howling detector: float64 and plain NumPy."""

from __future__ import annotations

import numpy as np

RULES = ((14, 8, 6, 0.5), (20, 60, 6, 1.2), (40, 60, 6, 1.5), (12, 60, 20, 1.2))


def db(power):
    return 10 * np.log10(max(power, 1e-20))


class NaiveHowling:
    """To `watch` and `turn_down` blocks of (n_channels, n)."""

    def __init__(self, sr, n_fft):
        self.size = max(1, sr // 20_000)
        rate = sr / self.size
        self.step, self.n_fft, self.bin_hz = round(0.016 * rate), n_fft, rate / n_fft
        self.window = np.hanning(n_fft + 1)[:-1]
        self.window *= 2 / self.window.sum() / np.sqrt(1.5)
        self.samples, self.waiting = np.zeros(n_fft), np.zeros(0)
        self.frames = []  # (level, centre, total, tonal, loud)
        self.down, self.recovery, self.pardon = (10 ** (r / 20 / sr) for r in (-300, 6, 60))
        self.gain, self.goal_db, self.up = 1.0, 0.0, 1.0
        self.limit_db, self.phase, self.since, self.patience = 0.0, "calm", 0, 500
        self.alarms, self.pardons, self.pardoned = 0, 0, 0

    def watch(self, block):
        mono = np.asarray(block, np.float64).sum(0)
        self.waiting = np.append(self.waiting, np.where(np.abs(mono) <= 1e6, mono, 0))
        n = len(self.waiting) // self.size
        means = self.waiting[: n * self.size].reshape(n, self.size).mean(1) / len(block)
        self.waiting = self.waiting[n * self.size :]
        self.samples = np.append(self.samples, means)
        while len(self.samples) >= self.n_fft + self.step:
            self.samples = self.samples[self.step :]
            self.judge()

    def turn_down(self, block):
        goal, t = 10 ** (self.goal_db / 20), np.arange(1, block.shape[1] + 1)
        if self.gain > goal:
            gains = np.maximum(goal, self.gain * self.down**t)
        else:
            gains = np.minimum(goal, self.gain * self.up**t)
        self.gain = gains[-1]
        return block * gains

    def band(self, centre, half):
        k = np.arange(len(self.power))
        first, last = int((centre - half) / self.bin_hz + 0.5), int((centre + half) / self.bin_hz + 0.5)
        chosen = np.where((k >= max(first, 1)) & (k <= last), self.power, 0)
        return chosen.sum(), (chosen * k).sum() / max(chosen.sum(), 1e-20) * self.bin_hz

    def analyse(self):
        self.power = np.abs(np.fft.rfft(self.samples[: self.n_fft] * self.window)) ** 2
        first = int(np.ceil(150 / self.bin_hz))
        blocks = [self.power[k : k + 8].sum() for k in range(first, len(self.power) - 7, 8)]
        pairs = [b + a for a, b in zip([0.0, *blocks], blocks, strict=False)]
        total = sum(blocks)
        middle = (first + 8 * int(np.argmax(pairs))) * self.bin_hz
        level, centre = self.band(self.band(middle, 8 * self.bin_hz)[1], 100)
        harmonic = max(self.band(2 * centre, 50)[0], self.band(3 * centre, 50)[0])
        sub = self.band(centre / 2, 50)[0] if centre / 2 >= 150 else 0
        tonal = centre >= 150 and level >= 0.4 * total and db(level) >= max(-50, db(harmonic) + 15, db(sub) + 6)
        loud = centre >= 150 and db(total) >= -4 and level >= 0.2 * total and db(level) >= db(harmonic) + 6
        self.frames.append((db(level), centre, db(total), tonal, loud))

    def grows(self):
        for n, spread, rise, deviation in RULES:
            last = self.frames[-n:]
            levels, centres = [f[0] for f in last], [f[1] for f in last]
            if len(last) == n and all(f[3] for f in last):
                line = np.polyfit(np.arange(n), levels, 1)
                off = np.sqrt(np.mean((np.polyval(line, np.arange(n)) - levels) ** 2))
                quarters = np.reshape(levels[-(n // 4 * 4) :], (4, -1)).mean(1)
                if np.diff(quarters).min() < rise / 8:
                    continue
                if np.ptp(centres) <= spread and rise / (n - 1) <= line[0] <= 6 and off <= deviation:
                    return True
        return False

    def saturated(self):
        last = self.frames[-9:]
        return len(last) == 9 and all(f[4] for f in last) and np.ptp([f[2] for f in last]) <= 2

    def judge(self):
        self.analyse()
        level, centre, total, tonal, loud = self.frames[-1]
        self.since += 1
        if self.phase == "fight":
            self.fight(total)
            return
        may_saturate = self.pardoned == 0
        excused = self.pardoned > 0 and abs(centre - self.excused[0]) <= 100 and level < self.excused[1]
        if self.pardoned:
            self.pardoned = 62 if loud or (excused and tonal) else self.pardoned - 1
        if (may_saturate and self.saturated()) or (not excused and self.grows()):
            now_db = max(20 * np.log10(self.gain), -36)
            if self.alarms > self.pardons and self.phase == "calm" and self.since - 1 < self.patience:
                self.limit_db = max(min(self.limit_db, now_db - 6), -36)
                self.patience = min(2 * self.patience, 32_000)
            self.alarms += 1
            self.phase, self.centre, self.taken, self.goal_db = "fight", centre, 0, now_db
            self.range = [level, level]
            self.step_down(level)
        elif self.phase == "held" and self.since >= 31:
            self.phase, self.since = "calm", 0
            self.goal_db, self.up = self.limit_db, self.recovery
        elif self.phase == "calm" and self.since >= self.patience:
            self.since = 0
            if self.limit_db < 0:
                self.limit_db = min(self.limit_db + 6, 0)
                self.goal_db, self.up = self.limit_db, self.recovery
            else:
                self.patience = 500

    def step_down(self, level):
        self.taken, self.since, self.mark = self.taken + 1, 0, level
        self.goal_db, self.up = max(self.goal_db - 6, -36), self.recovery

    def fight(self, total):
        band = self.band(self.centre, 100)[0]
        level = db(band)
        self.range = [min(self.range[0], level), max(self.range[1], level)]
        lowest = self.goal_db <= -36
        loud = total >= -4 and not lowest
        if level <= self.range[1] - 20 or level < -56 or band < 0.05 * 10 ** (total / 10):
            self.phase, self.since = "held", 0
        elif self.since >= (3 if loud else 8):
            if level <= self.mark - 2:
                self.since, self.mark = 0, level
            elif lowest or (self.range[1] - self.range[0] <= 2 and self.taken == 3 and not loud):
                self.pardons += 1
                self.phase, self.since, self.pardoned = "calm", 0, 62
                self.excused = self.centre, self.range[1] + 6
                self.goal_db, self.up = self.limit_db, self.pardon
            else:
                self.step_down(level)
