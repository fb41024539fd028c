"""Exported libraries on emulated Cortex-M processors: their output, and the instructions and stack of a hop."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rtsep import Separator
from rtsep.export.library import write_library
from rtsep.export.target import Sizes, Target

INSTRUCTIONS_PER_TICK = 40  # the emulator says 1 ns an instruction, SysTick counts at 25 MHz


class Board(NamedTuple):
    """An emulated board."""

    triple: str
    cpu: str
    machine: str
    flags: str  # of the compiler of the program around the library
    code: str  # where code lies, and where all else: origin and length
    data: str


# The C libraries of the tool chain that pass floats as the objects of LLVM expect them are those for `softfp`.
BOARDS = {
    "Cortex-M4": Board(
        "thumbv7em-none-eabi",
        "cortex-m4",
        "mps2-an386",
        "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16",
        "ORIGIN = 0, LENGTH = 4M",
        "ORIGIN = 0x20000000, LENGTH = 4M",
    ),
    "Cortex-M33": Board(
        "thumbv8m.main-none-eabi",
        "cortex-m33",
        "mps2-an505",
        "-mcpu=cortex-m33",
        "ORIGIN = 0x10000000, LENGTH = 4M",
        "ORIGIN = 0x38000000, LENGTH = 4M",
    ),
    "Cortex-M7": Board(
        "thumbv7em-none-eabi",
        "cortex-m7",
        "mps2-an500",
        "-mcpu=cortex-m7 -mfpu=fpv5-d16",
        "ORIGIN = 0, LENGTH = 4M",
        "ORIGIN = 0x20000000, LENGTH = 4M",
    ),
    "Cortex-M55": Board(
        "thumbv8.1m.main-none-eabi",
        "cortex-m55",
        "mps3-an547",
        "-march=armv8-m.main+fp.dp",
        "ORIGIN = 0, LENGTH = 512K",
        "ORIGIN = 0x60000000, LENGTH = 64M",
    ),
}
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"

STARTUP = r"""
#include <stdint.h>
#include <stdio.h>
#include "rtsep.h"
extern uint32_t __stack[], __bss_start__[], __bss_end__[];
extern void _exit(int), initialise_monitor_handles(void);
int main(void);

/* Reset: the loader has filled the memory; floating point is switched on before anything that was compiled for it. */
__attribute__((naked, used)) void reset(void)
{
    __asm__ volatile("ldr r0, =0xE000ED88\n ldr r1, [r0]\n orr r1, r1, #0xF00000\n str r1, [r0]\n"
                     "dsb\n isb\n bl begin");
}
__attribute__((used)) void begin(void)
{
    for (uint32_t *p = __bss_start__; p < __bss_end__; p++) *p = 0;
    initialise_monitor_handles();
    _exit(main());
}
static void fault(void) { _exit(99); }
__attribute__((section(".vectors"), used)) void *const vectors[16] = {
    __stack, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault};
"""
MAIN = r"""
#define CONTROL (*(volatile uint32_t *)0xE000E010)
#define RELOAD (*(volatile uint32_t *)0xE000E014)
#define NOW (*(volatile uint32_t *)0xE000E018)

#define PAINTED 8192             /* words below the stack of the caller */
#define PAINT 0xA5C35A3C

static rtsep state;
static float in[HOP], out[RTSEP_SOURCES * HOP];

int main(void)
{
    FILE *from = fopen("in.f32", "rb"), *to = fopen("out.f32", "wb");
    uint32_t most = 0, deepest = 0;
    uint64_t sum = 0, count = 0;
    if (!from || !to) return 2;
    rtsep_init(&state);
    RELOAD = 0xFFFFFF, NOW = 0, CONTROL = 5;
    while (fread(in, sizeof(float), HOP, from) == HOP) {
        uint32_t before, ticks, depth;
        volatile uint32_t *top;

        __asm__ volatile("mov %0, sp" : "=r"(top));
        for (depth = 1; depth <= PAINTED; depth++) top[-(int)depth] = PAINT;
        before = NOW;
        rtsep_process(&state, in, out, HOP);
        ticks = (before - NOW) & 0xFFFFFF;
        for (depth = PAINTED; depth > 0 && top[-(int)depth] == PAINT; depth--) ;
        deepest = depth > deepest ? depth : deepest;
        most = ticks > most ? ticks : most;
        sum += ticks, count++;
        fwrite(out, sizeof(float), RTSEP_SOURCES * HOP, to);
    }
    fclose(to);
    printf("mean %lu longest %lu stack %lu\n", (unsigned long)(sum / count), (unsigned long)most,
           (unsigned long)(4 * deepest));
    return 0;
}
"""
MEMORY = """
MEMORY {{ code (rx) : {code}  data (rw) : {data} }}
SECTIONS {{
  .text : {{ KEEP(*(.vectors)) *(.text*) }} > code
  .rodata : {{ *(.rodata*) }} > {constants}
  .ARM.exidx : {{ __exidx_start = .; *(.ARM.exidx*) __exidx_end = .; }} > code
  .ARM.extab : {{ *(.ARM.extab*) }} > code
  .data : {{ *(.data*) }} > data
  .bss : {{ __bss_start__ = .; *(.bss*) *(COMMON) . = ALIGN(8); __bss_end__ = .; }} > data
  end = .;
  __end__ = .;
  __stack = ORIGIN(data) + LENGTH(data);
}}
"""


class Run(NamedTuple):
    """What came out."""

    sources: np.ndarray  # float32 (n_src, n_samples)
    instructions: int  # a hop, in the mean
    longest: int
    stack: int  # bytes below the caller's
    sizes: Sizes


def missing() -> str | None:
    """The first tool that is not there."""
    return next((tool for tool in (COMPILER, EMULATOR) if not shutil.which(tool)), None)


def run(separator: Separator, board: Board, x: np.ndarray, folder: Path) -> Run:
    """Export a separator of one channel, and let it work on whole hops of `x`, float32 (n_samples,)."""
    hop = separator.config.hop
    sizes = write_library(separator, Target(board.triple, board.cpu), folder)
    (folder / "board.c").write_text(STARTUP + MAIN.replace("HOP", str(hop)))
    constants = "code" if board.code.endswith("4M") else "data"
    (folder / "board.ld").write_text(MEMORY.format(code=board.code, data=board.data, constants=constants))
    x[: x.size // hop * hop].astype(np.float32).tofile(folder / "in.f32")
    line = (
        f"{COMPILER} {board.flags} -mthumb -mfloat-abi=softfp -O2 -nostartfiles -specs=rdimon.specs -T board.ld "
        "board.c -L. -lrtsep -lm -o board.elf"
    )
    made = subprocess.run(line.split(), cwd=folder, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(made.stderr)
    line = f"{EMULATOR} -M {board.machine} -nographic -monitor none -serial none -icount shift=0 -kernel board.elf"
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    ran = subprocess.run([*line.split(), *semihosting], cwd=folder, capture_output=True, text=True, timeout=1000)
    found = re.search(r"mean (\d+) longest (\d+) stack (\d+)", ran.stdout)
    if not found:
        raise RuntimeError(f"status {ran.returncode}: {ran.stdout}{ran.stderr}")
    y = np.fromfile(folder / "out.f32", np.float32).reshape(-1, separator.n_src, hop)
    mean, longest = (INSTRUCTIONS_PER_TICK * int(ticks) for ticks in found.groups()[:2])
    return Run(y.transpose(1, 0, 2).reshape(separator.n_src, -1), mean, longest, int(found[3]), sizes)
