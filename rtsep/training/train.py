"""The training: stages of a recipe, from mixtures to a model file, interrupted and resumed at will."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rtsep import __version__
from rtsep.config import ConfigError
from rtsep.estimators.enrolment import Voices, read_voices
from rtsep.estimators.model_file import Model, read_model
from rtsep.training.checkpoint import read_checkpoint, write_checkpoint
from rtsep.training.corpus import SR
from rtsep.training.curves import draw_curves
from rtsep.training.enrolment import ToldNetwork, export_told
from rtsep.training.framing import framing
from rtsep.training.losses import losses
from rtsep.training.mixer import Mixer
from rtsep.training.network import Network, export, set_weights, weights_for, with_weights
from rtsep.training.optimizer import optimizers_of, set_learning_rate
from rtsep.training.recipe import Recipe, Stage
from rtsep.training.validation import Scores, of_mixtures, validate

WARM_UP = 100  # steps from nothing to the full learning rate, in each stage
LAST = 0.05  # share of the learning rate that is left at the end of a stage
CLIP = 1.0  # norm of the gradient
EMA = 0.999  # of the weights that are validated and exported
CHUNK = 16 * SR  # samples of mixtures in one piece of the loss, so that it stays in the cache
SAVE_S = 60.0  # between checkpoints
MOST_MIXTURES = 4096  # in a batch


@dataclass
class Progress:
    """How far a training is.

    Attributes
    ----------
    step : int
        Updates done, of all stages.
    audio_s : float
        Seconds of mixtures so far.
    elapsed_s : float
        Seconds spent so far, over all runs.
    best : float
        Highest validation score.
    history : list of dict
        An entry for each validation; "best" in those whose model was written.
    """

    step: int = 0
    audio_s: float = 0.0
    elapsed_s: float = 0.0
    best: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)


class Training:
    """A training that can be interrupted after any step.

    Parameters
    ----------
    recipe : Recipe
    mixer, validation : Mixer
        Of recordings for training, and of others.
    output : Path
        The model file: after each validation, the best model so far (`Recipe.select`). Beside it a picture of
        the validations, *.png.
    data : dict
        What the recordings are, for the manifest.
    jobs : int
        Threads. On the CPU batches are split among them, so that another number gives other roundings; a resumed
        training keeps that of its start.
    start, teacher : Model, optional
        Weights to start from, `Voices` if the recipe has an enrolment, and a network to learn from.

    Raises
    ------
    ConfigError
        If all speech for validation is silent, or without other sounds.

    Notes
    -----
    Each thread makes its part of the batch, runs the network on it and gets its gradients, all on one core: a barrier
    in every matrix product, as PyTorch's own threads have it, costs more than these small products, and very much
    more where the cores have other work. Results depend on recipe, recordings, `jobs` and the machine's arithmetic
    alone.

    Where there is a GPU, threads make the mixtures and features of the next step meanwhile.
    """

    network_class: ClassVar[type[Network]] = Network  # experiments train others

    def __init__(
        self,
        recipe: Recipe,
        mixer: Mixer,
        validation: Mixer,
        output: Path,
        data: dict[str, Any],
        jobs: int = 2,
        start: Model | Voices | None = None,
        teacher: Model | None = None,
    ) -> None:
        torch.set_num_threads(1)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.recipe, self.mixer, self.output, self.data, self.jobs = recipe, mixer, output, data, jobs
        self.start = start.sha256 if start else None
        self._goes_on = isinstance(start, Voices if recipe.enrolment else Model)
        self.taught_by = teacher.sha256 if teacher else None
        torch.manual_seed(recipe.seed)
        network: Network
        if recipe.enrolment:
            network = ToldNetwork(recipe.network, recipe.enrolment, start)
        else:
            assert not isinstance(start, Voices)
            network = self.network_class(recipe.network)
            if start:
                set_weights(network, weights_for(start, recipe.network.n_src))
        self.network = network.to(self.device)
        self.average = deepcopy(self.network)
        self.before = deepcopy(self.network)  # what `keep` keeps
        self.teacher = with_weights(teacher.shape, teacher.weights).to(self.device) if teacher else None
        self.optimizers = optimizers_of(self.network)
        self.progress = Progress()
        self._begun: tuple[tuple[Stage, int], list[Future[tuple[Tensor, ...]]]] | None = None
        n = round(recipe.validation_s * SR)
        # The same ones every time.
        sources, _, enrolments = validation.batch(0, recipe.validation, n)
        self.held_out = torch.from_numpy(sources).to(self.device)
        self.held_out_voices = self._enrolled(enrolments).to(self.device)
        if not self.held_out[:, :-1].any():
            raise ConfigError("all speech for validation is silent")
        if not of_mixtures(self.held_out.sum(1), self.held_out[:, :-1])[1].any():
            raise ConfigError("in the mixtures for validation nothing can be improved: every talker is alone")

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept between runs."""
        return checkpoint_of(self.output)

    def save(self) -> None:
        """Write the checkpoint."""
        write_checkpoint(
            self.checkpoint,
            {
                "recipe": repr(self.recipe),
                "data": repr(self.data),
                "start": self.start,
                "taught_by": self.taught_by,
                "jobs": self.jobs,
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "progress": asdict(self.progress),
            },
        )

    def resume(self) -> bool:
        """Go on from the checkpoint; whether its model is there: if not, the next validation writes one, however good.

        Raises `ConfigError` if the checkpoint is damaged, or of another training.
        """
        content = read_checkpoint(self.checkpoint)
        for name, mine, what in (
            ("recipe", repr(self.recipe), "recipe, or with other folders"),
            ("data", repr(self.data), "set of recordings"),
            ("start", self.start, "model to adapt"),
            ("taught_by", self.taught_by, "teacher"),
        ):
            if content.get(name, mine) != mine:  # earlier versions kept less
                raise ConfigError(f"checkpoint {self.checkpoint}: is of another {what}; --overwrite starts again")
        self.network.load_state_dict(content["network"])
        self.average.load_state_dict(content["average"])
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.progress, self.jobs = Progress(**content["progress"]), content["jobs"]
        try:
            (read_voices if self.recipe.enrolment else read_model)(self.output)
        except ConfigError:  # gone, or damaged
            self.progress.best = -math.inf
            for entry in self.progress.history:
                entry.pop("best", None)
            return False
        return True

    def run(
        self,
        seconds: float = math.inf,
        report: Callable[[dict[str, Any]], None] = lambda entry: None,
        progress: Callable[[int, int], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until the end of the recipe, until the time is used up, or until it is stopped; keep the checkpoint.

        Parameters
        ----------
        seconds : float
            Of all runs together.
        report : callable
            Called after each validation with its entry of the history.
        progress : callable, optional
            Called with the steps done and those in all.
        stopped : callable
            Asked before each step.

        Returns
        -------
        bool
            Whether all steps are done.

        Raises
        ------
        ConfigError
            If the loss is no longer finite.
        """
        recipe, done = self.recipe, self.progress
        started, before = time.monotonic(), done.elapsed_s
        saved = started
        total: list[float] = []

        def score(entry: dict[str, Any]) -> None:
            entry["audio_h"] = done.audio_s / 3600
            self._validate(pool, entry)
            done.elapsed_s = before + time.monotonic() - started
            draw_curves(done.history, picture_of(self.output))
            report(entry | {"hours": done.elapsed_s / 3600})

        with ThreadPoolExecutor(self.jobs) as pool:
            if self._goes_on and not done.history:  # what is no better than this is not kept
                score({"step": 0, "stage": "before"})
            while done.step < recipe.steps and done.elapsed_s < seconds and not stopped():
                stage, local = stage_at(recipe, done.step)
                if local == 0:
                    total.clear()
                    if not self._goes_on:  # another loss has another best
                        done.best = -math.inf
                total.append(self._step(pool, stage, local))
                done.step += 1
                done.audio_s += stage.batch * stage.seconds
                done.elapsed_s = before + time.monotonic() - started
                if progress:
                    progress(done.step, recipe.steps)
                last = done.step == recipe.steps or done.elapsed_s >= seconds
                if done.step % recipe.epoch == 0 or last:
                    score({"step": done.step, "stage": stage.name, "loss": float(np.mean(total))})
                    total.clear()
                if time.monotonic() - saved > SAVE_S:
                    self.save()
                    saved = time.monotonic()
            if done.step == recipe.steps and done.best == -math.inf:  # resumed at the end, without its model
                score({"step": done.step, "stage": recipe.stages[-1].name})
            self.save()
        return done.step == recipe.steps

    def _step(self, pool: ThreadPoolExecutor, stage: Stage, local: int) -> float:
        """One update; the loss."""
        n = round(stage.seconds * SR)
        # No mixture comes twice: each step has indices of its own, whatever the batches before were.
        first = self.progress.step * MOST_MIXTURES
        parts = [len(part) for part in np.array_split(np.arange(stage.batch), self.jobs)]
        starts = first + np.cumsum([0, *parts[:-1]])
        if self.device.type == "cpu":
            results = list(
                pool.map(lambda s, k: self._gradients(self._make(stage, int(s), k, n), stage), starts, parts)
            )
        else:
            results = [self._gradients(self._made(pool, stage, starts, parts, n), stage)]
        value = sum(loss for loss, _ in results) / stage.batch
        if not math.isfinite(value):
            raise ConfigError(
                f"the loss is {value} at step {self.progress.step} of stage {stage.name!r}: "
                "with a lower lr in the recipe, or other recordings, start again"
            )
        for parameter, *gradients in zip(self.network.parameters(), *(g for _, g in results), strict=True):
            parameter.grad = torch.stack(gradients).sum(0) / stage.batch
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        set_learning_rate(self.optimizers, learning_rate(stage, local))
        list(pool.map(lambda optimizer: optimizer.step(), self.optimizers))
        self._follow()
        return value

    def _make(self, stage: Stage, first: int, size: int, n: int) -> tuple[Tensor, ...]:
        """Mixtures: sources, whether they are distinct, what enrols their talkers, spectra and features."""
        torch.set_num_threads(1)
        if not size:
            return ()
        sources, distinct, enrolments = self.mixer.batch(first, size, n)
        made = torch.from_numpy(sources), torch.from_numpy(distinct)
        spectrum = framing(stage.hop_ms).stft(made[0].sum(1))
        return *made, self._enrolled(enrolments), spectrum, self.network.hear(spectrum, self._streams(stage))

    def _enrolled(self, enrolments: np.ndarray) -> Tensor:
        """Features of enrolments (batch, n_samples) with the hop of the network; of none, (batch, 0)."""
        x = torch.from_numpy(enrolments)
        return self.network.features(framing(self.recipe.network.hop_ms).stft(x)) if self.recipe.enrolment else x

    def _made(
        self, pool: ThreadPoolExecutor, stage: Stage, starts: Any, parts: list[int], n: int
    ) -> tuple[Tensor, ...]:
        """The batch of this step, which was begun with the one before, on the device; that of the next is begun."""

        def begin(first: int) -> list[Future[tuple[Tensor, ...]]]:
            return [
                pool.submit(self._make, stage, first + int(s), k, n) for s, k in zip(starts, parts, strict=True) if k
            ]

        wanted = (stage, int(starts[0]))
        begun, futures = self._begun or (None, [])
        if begun != wanted:
            futures = begin(0)
        self._begun = ((stage, wanted[1] + MOST_MIXTURES), begin(MOST_MIXTURES))
        columns = zip(*(future.result() for future in futures), strict=True)
        return tuple(torch.cat(column).to(self.device) for column in columns)

    def _streams(self, stage: Stage) -> int:
        return self.recipe.network.hop_ms // stage.hop_ms

    def _gradients(self, made: tuple[Tensor, ...], stage: Stage) -> tuple[float, list[Tensor]]:
        """Loss and gradients of mixtures, as sums over them."""
        parameters = list(self.network.parameters())
        if not made:
            return 0.0, [torch.zeros_like(p) for p in parameters]
        sources, distinct, enrolled, spectrum, features = made
        n_streams, n_frames = self._streams(stage), spectrum.shape[1]
        # What a chunk needs fits into the cache. Recurrences with many weights want as many rows at once as there are.
        chunk = max(1, CHUNK // sources.shape[-1]) if self.device.type == "cpu" else len(sources)
        at_once = chunk if self.recipe.network.channels else len(sources)
        value, gradients = 0.0, [torch.zeros_like(p) for p in parameters]
        each = (enrolled, spectrum, sources, distinct)
        inputs = (features.split(at_once * n_streams), *(of.split(at_once) for of in each))
        for heard, voices, *of in zip(*inputs, strict=True):
            bands = self.network.say(heard, n_streams, voices if voices.numel() else None)[:, :n_frames]
            taught = self._taught(heard, n_streams)[:, :n_frames] if stage.distil else bands
            leaf = bands.detach().requires_grad_()
            chunks = (one.split(chunk) for one in (leaf, taught.detach(), *of))
            for part, example, x, s, kept in zip(*chunks, strict=True):
                loss = losses(self.network.expand(part), x, s, stage, kept).total.sum()
                if stage.distil:
                    loss = loss + stage.distil * (part - example).square().mean((1, 3)).sum()
                loss.backward()
                value += loss.item()
            for total, gradient in zip(gradients, torch.autograd.grad(bands, parameters, leaf.grad), strict=True):
                total += gradient
        return value, gradients

    def _taught(self, features: Tensor, n_streams: int) -> Tensor:
        assert self.teacher is not None
        with torch.no_grad():
            return self.teacher.say(features, n_streams)

    def _follow(self) -> None:
        """The running mean of the weights, over few steps at first."""
        step = self.progress.step + 1
        decay = min(EMA, step / (step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)

    def _validate(self, pool: ThreadPoolExecutor, entry: dict[str, Any]) -> None:
        network = self.average
        if self.recipe.keep and self.progress.step:
            network = deepcopy(network)
            with torch.no_grad():
                for mean, value in zip(network.parameters(), self.before.parameters(), strict=True):
                    mean.lerp_(value, self.recipe.keep)
        voices = self.held_out_voices if self.recipe.enrolment else None
        scores = validate(network, self.held_out, pool, self.recipe.select == "all", voices)
        entry.update(scores.measured)
        score = entry["score"] = getattr(scores, self.recipe.select)
        if score > self.progress.best:
            self.progress.best = score
            entry["best"] = True
            if isinstance(network, ToldNetwork):
                export_told(network, self.output, self.manifest(entry))
            else:
                export(network, self.output, self.manifest(entry), sources=self.recipe.mixtures.sources)
        self.progress.history.append(dict(entry))

    def manifest(self, entry: dict[str, Any]) -> dict[str, Any]:
        """How the model was made, for its file."""
        return {
            "rtsep": __version__,
            "torch": str(torch.__version__),
            "recipe": self.recipe.as_dict(),
            "recordings": self.data,
            "adapted_from": self.start,
            "taught_by": self.taught_by,
            "step": self.progress.step,
            "audio_h": round(self.progress.audio_s / 3600, 3),
            "hours": round(self.progress.elapsed_s / 3600, 3),
            "jobs": self.jobs,
            "validation": {name: round(float(entry[name]), 3) for name in Scores._fields if name in entry},
        }


def checkpoint_of(output: Path) -> Path:
    """The checkpoint of a training whose model is `output`."""
    return output.with_suffix(".checkpoint")


def picture_of(output: Path) -> Path:
    """The picture of the training whose model is `output`."""
    return output.with_suffix(".png")


def stage_at(recipe: Recipe, step: int) -> tuple[Stage, int]:
    """The stage that a step belongs to, and the steps of it before."""
    for stage in recipe.stages:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    raise IndexError(step)


def learning_rate(stage: Stage, local: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    warm = min(WARM_UP, stage.steps // 10)
    if local < warm:
        return stage.lr * (local + 1) / warm
    share = (local - warm) / max(1, stage.steps - warm)
    return stage.lr * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * share)))
