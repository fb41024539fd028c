"""What a C program calls: the functions, and the header that declares them."""

from __future__ import annotations

from rtsep.export.program import INIT, RUN, Program
from rtsep.phase.omisi import MAX_ITERATIONS

SETTERS = {
    "strength_db": (
        "rtsep_set_strength",
        "float db",
        "Lower what does not belong to a source in its output by so many dB, 0 (the mixture) or more.",
    ),
    "ceiling_db": ("rtsep_set_ceiling", "float db", "No sample exceeds this level, -60 to 0 dBFS; others are ignored."),
    "n_iter": (
        "rtsep_set_iterations",
        "int n",
        f"Iterations of the phase recovery, 0 to {MAX_ITERATIONS}; others are ignored.",
    ),
}


def setters(program: Program) -> list[str]:
    """Settings of `SETTERS` that this program has."""
    return [name for name in SETTERS if name in program.offsets]


def public(program: Program) -> list[str]:
    """Names of the functions that can be called from outside."""
    numbers = [f"rtsep_{name}" for name in _numbers(program)]
    return [
        RUN,
        INIT,
        "rtsep_process",
        "rtsep_reset",
        "rtsep_source",
        *numbers,
        *(SETTERS[n][0] for n in setters(program)),
    ]


def _numbers(program: Program) -> dict[str, int]:
    separator = program.separator
    return {
        "latency": separator.latency,
        "sources": separator.n_src,
        "channels": separator.config.n_channels,
        "rate": separator.config.sr,
        "memory_bytes": program.memory_bytes,
    }


def interface(program: Program) -> str:
    """LLVM code of the functions of the header, on top of `RUN` and `INIT`."""
    names = program.separator.sources
    strings = ["".join(f"\\{byte:02x}" for byte in (*name.encode(), 0)) for name in names]
    text = [
        f"declare void @{RUN}(ptr, ptr, ptr, i64)",
        f"declare void @{INIT}(ptr)",
        "declare double @llvm.pow.f64(double, double)",
        *(
            f'@name{i} = internal constant [{len(name.encode()) + 1} x i8] c"{string}"'
            for i, (name, string) in enumerate(zip(names, strings, strict=True))
        ),
        f"@names = internal constant [{len(names)} x ptr] [{', '.join(f'ptr @name{i}' for i in range(len(names)))}]",
        "define void @rtsep_process(ptr %memory, ptr %in, ptr %out, i32 %n) {",
        "%some = icmp sgt i32 %n, 0",
        "br i1 %some, label %yes, label %no",
        "yes:",
        "%n_64 = zext i32 %n to i64",
        f"call void @{RUN}(ptr %memory, ptr %in, ptr %out, i64 %n_64)",
        "br label %no",
        "no:",
        "ret void",
        "}",
        f"define void @rtsep_reset(ptr %memory) {{\ncall void @{INIT}(ptr %memory)\nret void\n}}",
        "define ptr @rtsep_source(i32 %i) {",
        f"%known = icmp ult i32 %i, {len(names)}",
        "br i1 %known, label %yes, label %no",
        "yes:",
        "%place = getelementptr ptr, ptr @names, i32 %i",
        "%name = load ptr, ptr %place",
        "ret ptr %name",
        "no:",
        "ret ptr null",
        "}",
    ]
    for name, value in _numbers(program).items():
        text.append(f"define i32 @rtsep_{name}() {{\nret i32 {value}\n}}")
    for name in setters(program):
        text += _setter(name, program.offsets[name])
    return "\n".join(text)


def _setter(name: str, offset: int) -> list[str]:
    """A decibel value becomes a gain, by the formula of `Output.prepare`; a number of iterations is an int64."""
    function, argument, _ = SETTERS[name]
    if argument.startswith("int"):
        kind, stored = "i32", "i64"
        check = [f"%good = icmp ule i32 %value, {MAX_ITERATIONS}"]
        convert = ["%stored = zext i32 %value to i64"]
    else:
        kind, stored = "float", "float"
        sign = "-" if name == "strength_db" else ""
        ranges = {"strength_db": (0.0, float("inf")), "ceiling_db": (-60.0, 0.0)}[name]
        check = [
            f"%low = fcmp oge float %value, {_float(ranges[0])}",
            f"%high = fcmp ole float %value, {_float(ranges[1])}",
            "%good = and i1 %low, %high",
        ]
        convert = [
            "%wide = fpext float %value to double",
            f"%tenths = fdiv double %wide, {sign}20.0",
            "%gain = call double @llvm.pow.f64(double 10.0, double %tenths)",
            "%stored = fptrunc double %gain to float",
        ]
    return [
        f"define void @{function}(ptr %memory, {kind} %value) {{",
        *check,
        "br i1 %good, label %yes, label %no",
        "yes:",
        *convert,
        f"%place = getelementptr i8, ptr %memory, i64 {offset}",
        f"store {stored} %stored, ptr %place",
        "br label %no",
        "no:",
        "ret void",
        "}",
    ]


def _float(value: float) -> str:
    return "0x7FF0000000000000" if value == float("inf") else repr(value)


HEADER = """\
/* {title}
 *
 * Made by rtsep {version}. {framing}
 *
 *     static rtsep state;
 *     rtsep_init(&state);
 *     rtsep_process(&state, in, out, n);       any n, as often as there is sound
 *
 * Nothing here allocates, locks, or calls the system. Several instances may run at the same time, each in its own
 * `rtsep`; one instance is for one thread at a time.
 */
#ifndef RTSEP_H
#define RTSEP_H

#ifdef __cplusplus
extern "C" {{
#endif

#define RTSEP_RATE {rate}            /* Hz */
#define RTSEP_CHANNELS {channels}
#define RTSEP_SOURCES {sources}          /* {names} */
#define RTSEP_LATENCY {latency}         /* samples by which the output is behind the input */
#define RTSEP_MEMORY_BYTES {memory_bytes}

/* An instance: everything that changes. */
typedef union rtsep {{
    unsigned char memory[RTSEP_MEMORY_BYTES];
    long long alignment_of_integers;
    double alignment_of_numbers;
}} rtsep;

/* Before the first use; `rtsep_reset` goes back to this state, settings included. */
void rtsep_init(rtsep *state);
void rtsep_reset(rtsep *state);

/* Separate the next n samples, any number.
 *
 * in   float[RTSEP_CHANNELS][n], full scale is 1; what is not finite counts as zero
 * out  float[RTSEP_SOURCES][RTSEP_CHANNELS][n], overwritten; must not overlap in
 */
void rtsep_process(rtsep *state, const float *in, float *out, int n);

/* The macros above, for those who load the library at run time; the name of a source, or NULL. */
int rtsep_rate(void);
int rtsep_channels(void);
int rtsep_sources(void);
int rtsep_latency(void);
int rtsep_memory_bytes(void);
const char *rtsep_source(int i);
{setters}
#ifdef __cplusplus
}}
#endif

#endif
"""

EXAMPLE = """\
/* Separates a stream of raw samples (float32, RTSEP_RATE, channels interleaved): standard input to standard output.
 *
 *     {compile}
 *     ./example < in.f32 > out.f32            the first source; ./example 1: the second
 */
#include <stdio.h>
#include <stdlib.h>

#include "rtsep.h"

#define BLOCK 64

static rtsep state;

int main(int argc, char **argv)
{{
    static float in[RTSEP_CHANNELS * BLOCK], out[RTSEP_SOURCES * RTSEP_CHANNELS * BLOCK];
    static float frames[BLOCK * RTSEP_CHANNELS];
    int source = argc > 1 ? atoi(argv[1]) : 0;
    size_t n, i, c;

    if (!rtsep_source(source)) {{
        fprintf(stderr, "there is no source %d\\n", source);
        return 2;
    }}
    rtsep_init(&state);
    while ((n = fread(frames, sizeof(float) * RTSEP_CHANNELS, BLOCK, stdin)) > 0) {{
        for (c = 0; c < RTSEP_CHANNELS; c++)
            for (i = 0; i < n; i++)
                in[c * n + i] = frames[i * RTSEP_CHANNELS + c];
        rtsep_process(&state, in, out, (int)n);
        for (c = 0; c < RTSEP_CHANNELS; c++)
            for (i = 0; i < n; i++)
                frames[i * RTSEP_CHANNELS + c] = out[(source * RTSEP_CHANNELS + c) * n + i];
        if (fwrite(frames, sizeof(float) * RTSEP_CHANNELS, n, stdout) != n)
            return 1;
    }}
    return 0;
}}
"""


def title(program: Program) -> str:
    """Estimator and phase recovery, in a line."""
    separator = program.separator
    return f"{separator.estimator.name} + {separator.phase.name}: {', '.join(separator.sources)}"


def framing(program: Program) -> str:
    """Rate, windows and latency, in a sentence."""
    separator, config = program.separator, program.separator.config
    return (
        f"{config.sr} Hz, {config.n_channels} channel{'s' * (config.n_channels > 1)}, analysis window "
        f"{1e3 * config.window_s:.4g} ms, hop {1e3 * config.hop_s:.4g} ms, latency {separator.latency} samples "
        f"({1e3 * separator.latency / config.sr:.4g} ms)."
    )


def header(program: Program, version: str) -> str:
    """The text of rtsep.h."""
    declared = [
        f"\n/* {SETTERS[name][2]} */\nvoid {SETTERS[name][0]}(rtsep *state, {SETTERS[name][1]});\n"
        for name in setters(program)
    ]
    return HEADER.format(
        title=title(program),
        framing=framing(program),
        version=version,
        names=", ".join(program.separator.sources),
        setters="".join(declared),
        **_numbers(program),
    )


def example(compile_line: str) -> str:
    """The text of example.c."""
    return EXAMPLE.format(compile=compile_line)
