/* A separator as a plug-in: LV2 where RTSEP_LV2 is defined, else LADSPA.
 *
 * rtsep.h is the separator, plugin.h (written beside it by rtsep/export/plugin.py) has names and ports. What a host and
 * a plug-in agree on is declared here, after the specifications of LV2 1.0 and LADSPA 1.1: no header of theirs is needed.
 * Memory is taken when an instance is made, never in `run`.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"
#include "rtsep.h"

#define CHUNK 64                  /* samples at a time: input and output of a host may be the same memory */
#define FADE (RTSEP_RATE / 100)   /* samples from one source to another */

enum { IN = 0, OUT = RTSEP_CHANNELS, STRENGTH = 2 * RTSEP_CHANNELS, SOURCE, SWITCH, LATENCY, PORTS };

typedef struct {
    rtsep separator;
    float *ports[PORTS];
    float strength;                /* dB; what the separator was told last, NAN: nothing yet */
    int heard;                     /* source, -1: none yet */
    int faded;                     /* samples since another source was chosen, up to FADE */
    float before[RTSEP_SOURCES];   /* share of each source in the output at that moment; they sum to one */
    float in[RTSEP_CHANNELS * CHUNK];
    float out[RTSEP_SOURCES * RTSEP_CHANNELS * CHUNK];
} plugin;

static plugin *make(double rate)
{
    if (rate != RTSEP_RATE) {
        fprintf(stderr, "%s is for %d Hz, not %g Hz: rtsep export ... --rate %g\n", RTSEP_LABEL, RTSEP_RATE, rate, rate);
        return NULL;
    }
    return calloc(1, sizeof(plugin));
}

static void start(void *instance)
{
    plugin *p = instance;

    rtsep_init(&p->separator);
    p->strength = NAN;
    p->heard = -1;
}

static void connect(void *instance, size_t port, void *data)
{
    if (port < PORTS)
        ((plugin *)instance)->ports[port] = data;
}

static float share(const plugin *p, int source, int faded)
{
    return p->before[source] + ((float)(source == p->heard) - p->before[source]) * ((float)faded / FADE);
}

static void choose(plugin *p, float wanted)
{
    int heard = 0, s;

    for (s = 1; s < RTSEP_SOURCES; s++)
        if (wanted > (float)s - 0.5f)
            heard = s;
    if (heard == p->heard)
        return;
    for (s = 0; s < RTSEP_SOURCES; s++)
        p->before[s] = p->heard < 0 ? (float)(s == heard) : share(p, s, p->faded);
    p->faded = p->heard < 0 ? FADE : 0;
    p->heard = heard;
}

static void set_strength(plugin *p, float wanted, int bypassed)
{
    float strength = wanted >= RTSEP_STRENGTH_MAX ? INFINITY : wanted > 0 ? wanted : 0;

    if (bypassed)
        strength = 0;               /* the mixture, as late as the sources */
    if (strength == p->strength)
        return;
    rtsep_set_strength(&p->separator, strength);
    p->strength = strength;
}

static void process(void *instance, size_t n_total)
{
    plugin *p = instance;
    size_t at, n, i;
    int c, s;

    choose(p, *p->ports[SOURCE]);
    set_strength(p, *p->ports[STRENGTH], (*p->ports[SWITCH] > 0.5f) == RTSEP_BYPASSED_AT);
    *p->ports[LATENCY] = RTSEP_LATENCY;
    for (at = 0; at < n_total; at += n) {
        n = n_total - at < CHUNK ? n_total - at : CHUNK;
        for (c = 0; c < RTSEP_CHANNELS; c++)
            memcpy(p->in + c * n, p->ports[IN + c] + at, n * sizeof(float));
        rtsep_process(&p->separator, p->in, p->out, (int)n);
        for (c = 0; c < RTSEP_CHANNELS; c++) {
            const float *sources = p->out + c * n;
            float *out = p->ports[OUT + c] + at;

            memcpy(out, sources + p->heard * RTSEP_CHANNELS * n, n * sizeof(float));
            for (i = 0; i < n && p->faded + (int)i < FADE; i++)
                for (out[i] = 0, s = 0; s < RTSEP_SOURCES; s++)
                    out[i] += share(p, s, p->faded + (int)i) * sources[s * RTSEP_CHANNELS * n + i];
        }
        p->faded = p->faded + (int)n < FADE ? p->faded + (int)n : FADE;
    }
}

#ifdef RTSEP_LV2

typedef struct descriptor {
    const char *uri;
    void *(*instantiate)(const struct descriptor *, double rate, const char *bundle, const void *const *features);
    void (*connect_port)(void *, uint32_t port, void *data);
    void (*activate)(void *);
    void (*run)(void *, uint32_t n);
    void (*deactivate)(void *);
    void (*cleanup)(void *);
    const void *(*extension_data)(const char *uri);
} descriptor;

static void *instantiate(const descriptor *of, double rate, const char *bundle, const void *const *features)
{
    (void)of, (void)bundle, (void)features;
    return make(rate);
}

static void connect_port(void *instance, uint32_t port, void *data)
{
    connect(instance, port, data);
}

static void run(void *instance, uint32_t n)
{
    process(instance, n);
}

static const descriptor plugin_descriptor = {RTSEP_URI, instantiate, connect_port, start, run, NULL, free, NULL};

const descriptor *lv2_descriptor(uint32_t index)
{
    return index == 0 ? &plugin_descriptor : NULL;
}

#else

typedef struct {
    int hint;
    float lower, upper;
} range;

typedef struct descriptor {
    unsigned long id;
    const char *label;
    int properties;
    const char *name, *maker, *copyright;
    unsigned long n_ports;
    const int *kinds;
    const char *const *names;
    const range *ranges;
    void *data;
    void *(*instantiate)(const struct descriptor *, unsigned long rate);
    void (*connect_port)(void *, unsigned long port, float *data);
    void (*activate)(void *);
    void (*run)(void *, unsigned long n);
    void (*run_adding)(void *, unsigned long n);
    void (*set_run_adding_gain)(void *, float gain);
    void (*deactivate)(void *);
    void (*cleanup)(void *);
} descriptor;

static void *instantiate(const descriptor *of, unsigned long rate)
{
    (void)of;
    return make((double)rate);
}

static void connect_port(void *instance, unsigned long port, float *data)
{
    connect(instance, port, data);
}

static void run(void *instance, unsigned long n)
{
    process(instance, n);
}

static const int kinds[PORTS] = {RTSEP_PORT_KINDS};
static const char *const names[PORTS] = {RTSEP_PORT_NAMES};
static const range ranges[PORTS] = {RTSEP_PORT_RANGES};

static const descriptor plugin_descriptor = {
    RTSEP_ID, RTSEP_LABEL, RTSEP_HARD_REAL_TIME, RTSEP_NAME, "rtsep", "MIT", PORTS, kinds, names, ranges, NULL,
    instantiate, connect_port, start, run, NULL, NULL, NULL, free,
};

const descriptor *ladspa_descriptor(unsigned long index)
{
    return index == 0 ? &plugin_descriptor : NULL;
}

#endif
