"""Separate an audio file block by block: python file_separate.py INPUT [FOLDER]

Writes speech.wav and residual.wav, aligned with the input. `rtsep separate` does the same and much more.
"""

import sys
from pathlib import Path

import soundfile as sf

from rtsep import Separator, StreamConfig

path, folder = Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else ".")

with sf.SoundFile(path) as file:
    separator = Separator(StreamConfig(file.samplerate, n_channels=file.channels))
    outputs = [
        sf.SoundFile(folder / f"{name}.wav", "w", file.samplerate, file.channels, "FLOAT") for name in separator.sources
    ]
    to_drop = separator.latency  # what comes out before the first sample that went in

    def write(separated):
        """Write the next samples of all sources: (n_src, n_samples) or (n_src, n_channels, n_samples)."""
        global to_drop
        dropped = min(to_drop, separated.shape[-1])
        to_drop -= dropped
        for output, source in zip(outputs, separated[..., dropped:], strict=True):
            output.write(source.T)

    for block in file.blocks(4096, dtype="float32"):
        write(separator.process(block.T))  # soundfile has channels last, rtsep has them first
    write(separator.flush())

for output in outputs:
    output.close()
