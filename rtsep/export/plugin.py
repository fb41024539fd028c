"""Plug-ins for hosts of LV2 and LADSPA, and a file with which PipeWire makes a virtual microphone of one."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rtsep.config import ConfigError, StreamConfig
from rtsep.export.interface import framing, header, title
from rtsep.export.library import compiled
from rtsep.export.target import Machine, Sizes, Target
from rtsep.separator import Separator
from rtsep.staging import StagedFiles

FORMATS = ("lv2", "ladspa")
STRENGTH_MAX = 60.0  # dB; from here on nothing of the other sources is left, as with infinity in Python
INPUT, OUTPUT, CONTROL, AUDIO = 1, 2, 4, 8  # kinds of ports, as LADSPA counts them
BELOW, ABOVE, TOGGLED, INTEGER = 1, 2, 4, 32  # hints about the values of a port, likewise
# Defaults that LADSPA can express, as shares of the range.
LADSPA_DEFAULTS = {0.0: 0x40, 0.25: 0x80, 0.5: 0xC0, 0.75: 0x100, 1.0: 0x140}
POSITIONS = {1: "MONO", 2: "FL FR"}


@dataclass(frozen=True)
class Port:
    """What a host connects.

    Parameters
    ----------
    symbol, name : str
        For programs, and for people.
    kind : int
        `INPUT` or `OUTPUT`, and `CONTROL` or `AUDIO`.
    default, upper : float
        Of a control; the lowest value is 0.
    turtle : str
        What LV2 says of it beyond that.
    hint : int
        What LADSPA says of it beyond that.
    """

    symbol: str
    name: str
    kind: int
    default: float = 0.0
    upper: float = 0.0
    turtle: str = ""
    hint: int = 0


@dataclass(frozen=True)
class Plugin:
    """A separator as a plug-in of a format: its names and ports."""

    separator: Separator
    format: str

    @property
    def label(self) -> str:
        """What distinguishes it, as a file name: estimator, phase recovery, windows and rate where they are others."""
        separator, config = self.separator, self.separator.config
        parts = ["rtsep", separator.estimator.name]
        parts += [separator.phase.name] * (separator.phase.name != "mixture")
        parts += [f"{1e3 * config.synthesis / config.sr:.4g} ms"] * (
            config.synthesis != StreamConfig(config.sr).synthesis
        )
        parts += [str(config.sr)] * (config.sr != 48_000)
        parts += [{1: "mono", 2: "stereo"}.get(config.n_channels, f"{config.n_channels}-channels")]
        return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(parts)).strip("-")

    @property
    def name(self) -> str:
        """For people."""
        return self.label.replace("-", " ")

    @property
    def uri(self) -> str:
        """For LV2."""
        return f"urn:rtsep:{self.label.removeprefix('rtsep-')}"

    def ports(self) -> list[Port]:
        """In the order of plugin.c."""
        separator = self.separator
        n_channels, sources = separator.config.n_channels, separator.sources
        suffixes = {1: [""], 2: [" left", " right"]}.get(n_channels, [f" {c + 1}" for c in range(n_channels)])
        audio = [
            Port(f"{symbol}{suffix.replace(' ', '_')}", name + suffix, kind | AUDIO)
            for symbol, name, kind in (("in", "In", INPUT), ("out", "Out", OUTPUT))
            for suffix in suffixes
        ]
        points = " , ".join(
            f"[ rdfs:label {json.dumps(s, ensure_ascii=False)} ; rdf:value {i} ]" for i, s in enumerate(sources)
        )
        strength = min(separator.output.strength_db, STRENGTH_MAX)
        # LV2 knows a switch by which hosts bypass a plug-in, the other way round.
        if self.format == "lv2":
            switch = Port(
                "enabled",
                "Enabled",
                INPUT | CONTROL,
                1,
                1,
                "lv2:portProperty lv2:toggled ; lv2:designation lv2:enabled",
            )
        else:
            switch = Port("bypass", "Bypass", INPUT | CONTROL, 0, 1, hint=TOGGLED)
        heard = "Source heard" + (
            f" ({', '.join(f'{i} {s}' for i, s in enumerate(sources))})" * (self.format == "ladspa")
        )
        return [
            *audio,
            Port("strength", "Strength (dB)", INPUT | CONTROL, strength, STRENGTH_MAX, "units:unit units:db"),
            Port(
                "source",
                heard,
                INPUT | CONTROL,
                0,
                len(sources) - 1,
                f"lv2:portProperty lv2:integer , lv2:enumeration ; lv2:scalePoint {points}",
                INTEGER,
            ),
            switch,
            Port(
                "latency",
                "latency",
                OUTPUT | CONTROL,
                separator.latency,
                max(separator.latency, 1),
                "lv2:portProperty lv2:reportsLatency , lv2:integer ; lv2:designation lv2:latency",
                INTEGER,
            ),
        ]

    def constants(self) -> str:
        """The text of plugin.h."""
        ports = self.ports()
        defines = {
            "LABEL": _quoted(self.label),
            "NAME": _quoted(self.name),
            "URI": _quoted(self.uri),
            # Registered ones are small; these are in the upper half of the range.
            "ID": str(0x800000 | zlib.crc32(self.label.encode()) & 0x7FFFFF),
            "STRENGTH_MAX": f"{STRENGTH_MAX}f",
            "BYPASSED_AT": "0" if self.format == "lv2" else "1",
            "HARD_REAL_TIME": "4",
            "PORT_KINDS": ", ".join(str(port.kind) for port in ports),
            "PORT_NAMES": ", ".join(_quoted(port.name) for port in ports),
            "PORT_RANGES": ", ".join(f"{{{_hint(port)}, 0.0f, {float(port.upper)}f}}" for port in ports),
        }
        lines = [f"#define RTSEP_{self.format.upper()}", *(f"#define RTSEP_{k} {v}" for k, v in defines.items())]
        return "\n".join(lines) + "\n"

    def binary(self, folder: Path) -> Path:
        """Where it lies, for hosts that look into a folder."""
        return folder / f"{self.label}.lv2" / "plugin.so" if self.format == "lv2" else folder / f"{self.label}.so"

    def texts(self, binary: Path, about: str = "") -> dict[Path, str]:
        """The files beside it, and what is in them; hosts look for the last."""
        if self.format == "ladspa":
            return {binary.with_suffix(".conf"): self.microphone(binary, about)}
        ports = " , ".join(
            f"[\n\ta lv2:{'Input' if port.kind & INPUT else 'Output'}Port , "
            f"lv2:{'Audio' if port.kind & AUDIO else 'Control'}Port ;\n"
            f'\tlv2:index {i} ;\n\tlv2:symbol "{port.symbol}" ;\n\tlv2:name {_quoted(port.name)}'
            + (
                f" ;\n\tlv2:default {port.default} ; lv2:minimum 0 ; lv2:maximum {port.upper}"
                * bool(port.kind & CONTROL)
            )
            + (f" ;\n\t{port.turtle}" * bool(port.turtle))
            + "\n]"
            for i, port in enumerate(self.ports())
        )
        plugin = PLUGIN.format(uri=self.uri, name=_quoted(self.name), about=_quoted(about), ports=ports)
        return {
            binary.with_name("virtual-microphone.conf"): self.microphone(binary, about),
            binary.with_name("plugin.ttl"): PREFIXES + plugin,
            binary.with_name("manifest.ttl"): PREFIXES + MANIFEST.format(uri=self.uri),
        }

    def microphone(self, binary: Path, about: str) -> str:
        """The file for PipeWire.

        Parameters
        ----------
        binary : path
            Where the plug-in is going to lie.
        """
        from rtsep import __version__

        config, source = self.separator.config, self.separator.sources[0]
        plugin, label = (self.uri, "") if self.format == "lv2" else (str(binary.absolute()), self.label)
        return MICROPHONE.format(
            version=__version__,
            about=about,
            description=_quoted(f"Microphone, {source} (rtsep)"),
            format=self.format,
            plugin=_quoted(plugin),
            label=_quoted(label),
            name=_quoted(self.label),
            capture=_quoted(f"{self.label}-in"),
            controls=" ".join(
                f"{_quoted(port.symbol if self.format == 'lv2' else port.name)} = {port.default}"
                for port in self.ports()
                if port.kind == INPUT | CONTROL
            ),
            rate=config.sr,
            n_channels=config.n_channels,
            positions=POSITIONS.get(config.n_channels, " ".join(f"AUX{c}" for c in range(config.n_channels))),
        )


def compiler(target: Target) -> list[str]:
    """The start of a command that makes plug-ins for a target.

    Raises
    ------
    ConfigError
        Without a C compiler, and for systems other than Linux.
    """
    if "linux" not in target.triple:
        raise ConfigError(f"plug-ins are made for Linux, not for {target.triple!r}")
    native = target.triple == Target().triple
    names = ("cc", "gcc", "clang") if native else (f"{target.gnu}-gcc",)
    if found := next(filter(None, map(shutil.which, names)), None):
        return [found]
    if importlib.util.find_spec("ziglang"):
        other = ["-target", re.sub("^i[3-6]86", "x86", target.gnu)]
        return [sys.executable, "-m", "ziglang", "cc", *([] if native else other)]
    raise ConfigError(
        f"a plug-in needs a C compiler: {names[0]} is not installed, and neither is one from PyPI "
        "(python -m pip install 'rtsep[export]')"
    )


def write_plugins(
    separators: list[Separator], target: Target, folder: Path, format: str, overwrite: bool = False
) -> list[tuple[Path, Sizes]]:
    """Write plug-ins where hosts look for them, and beside each the file for PipeWire.

    Parameters
    ----------
    separators : list of Separator
        One for each plug-in.
    target : Target
    folder : path
        Made if it does not exist, such as ~/.lv2 or ~/.ladspa. All is written, or nothing.
    format : {"lv2", "ladspa"}
    overwrite : bool
        Whether files of these names may be replaced.

    Returns
    -------
    written : list of (path, Sizes)
        The plug-ins, and their bytes.

    Raises
    ------
    ConfigError
        For a separator that cannot be exported, without a C compiler, and for files that are there already.
    OSError
        If the folder cannot be written.
    """
    command, plugins = compiler(target), [Plugin(separator, format) for separator in separators]
    binaries = [plugin.binary(folder) for plugin in plugins]
    files = [(binary, *plugin.texts(binary)) for plugin, binary in zip(plugins, binaries, strict=True)]
    sizes = []
    with StagedFiles([path for of_one in files for path in of_one], overwrite) as staged:
        for binary in binaries:
            staged.part(binary)  # what cannot be written is said before the work
        for plugin, binary in zip(plugins, binaries, strict=True):
            machine = compiled(plugin.separator, target)
            staged.write(binary, _linked(command, plugin, machine))
            for path, text in plugin.texts(binary, f"{title(machine.program)}; {framing(machine.program)}").items():
                staged.write(path, text.encode(errors="surrogateescape"))  # as names of files may be
            sizes.append(machine.sizes)
        staged.commit()
    return [(binary.parent if format == "lv2" else binary, size) for binary, size in zip(binaries, sizes, strict=True)]


def _linked(command: list[str], plugin: Plugin, machine: Machine) -> bytes:
    """A library that shows one function: plugin.c, compiled, and the program."""
    from rtsep import __version__

    with tempfile.TemporaryDirectory(prefix="rtsep") as name:
        work = Path(name)
        (work / "rtsep.o").write_bytes(machine.object)
        (work / "rtsep.h").write_text(header(machine.program, __version__))
        (work / "plugin.h").write_text(plugin.constants())
        (work / "plugin.c").write_text((resources.files("rtsep.export") / "plugin.c").read_text())
        (work / "shown").write_text(f"{{ global: {plugin.format}_descriptor; local: *; }};\n")
        options = ["-std=c99", "-O2", "-shared", "-fPIC", "-Wl,--version-script=shown"]
        files = ["plugin.c", "rtsep.o", "-lm", "-o", "plugin.so"]
        made = subprocess.run([*command, *options, *files], cwd=work, capture_output=True, text=True)
        if made.returncode:
            said = next((line for line in made.stderr.splitlines() if "error" in line), made.stderr.strip()[-200:])
            raise ConfigError(f"{' '.join(command)} cannot make the plug-in: {said.strip()}")
        return (work / "plugin.so").read_bytes()


def _quoted(text: str) -> str:
    """For C, Turtle and PipeWire alike."""
    return json.dumps(text, ensure_ascii=False)


def _hint(port: Port) -> int:
    """Bounds and the nearest default that LADSPA can express."""
    if port.kind != INPUT | CONTROL:
        return INTEGER if port.kind & CONTROL else 0
    share = port.default / port.upper if port.upper else 0.0
    default = LADSPA_DEFAULTS[min(LADSPA_DEFAULTS, key=lambda known: abs(known - share))]
    if port.hint & TOGGLED:
        return TOGGLED | (0x240 if port.default else 0x200)
    return BELOW | ABOVE | port.hint | default


PREFIXES = """\
@prefix doap: <http://usefulinc.com/ns/doap#> .
@prefix lv2: <http://lv2plug.in/ns/lv2core#> .
@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix units: <http://lv2plug.in/ns/extensions/units#> .

"""
MANIFEST = """\
<{uri}> a lv2:Plugin ;
\tlv2:binary <plugin.so> ;
\trdfs:seeAlso <plugin.ttl> .
"""
PLUGIN = """\
<{uri}> a lv2:Plugin , lv2:FilterPlugin ;
\tdoap:name {name} ;
\tdoap:license <https://opensource.org/licenses/MIT> ;
\trdfs:comment {about} ;
\tlv2:minorVersion 1 ;
\tlv2:microVersion 0 ;
\tlv2:optionalFeature lv2:hardRTCapable ;
\tlv2:port {ports} .
"""
MICROPHONE = """\
# A virtual microphone: what the default one hears, separated. Made by rtsep {version}.
# {about}
#
#     pipewire -c THIS_FILE           until Ctrl-C; the microphone appears in the sound settings and in every program
context.properties = {{ log.level = 2 }}
context.spa-libs = {{
    audio.convert.* = audioconvert/libspa-audioconvert
    support.* = support/libspa-support
}}
context.modules = [
    {{ name = libpipewire-module-rt args = {{ nice.level = -11 }} flags = [ ifexists nofail ] }}
    {{ name = libpipewire-module-protocol-native }}
    {{ name = libpipewire-module-client-node }}
    {{ name = libpipewire-module-adapter }}
    {{ name = libpipewire-module-filter-chain
        args = {{
            node.description = {description}
            audio.rate = {rate}
            audio.channels = {n_channels}
            audio.position = [ {positions} ]
            filter.graph = {{
                nodes = [
                    {{
                        type = {format}
                        name = rtsep
                        plugin = {plugin}
                        label = {label}
                        control = {{ {controls} }}
                    }}
                ]
            }}
            capture.props = {{ node.name = {capture} node.passive = true }}
            playback.props = {{ node.name = {name} media.class = Audio/Source }}
        }}
    }}
]
"""
