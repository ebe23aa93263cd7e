// A command's words, and the kinds of job "start" knows.
#ifndef APUS_GUEST_JOBS_H
#define APUS_GUEST_JOBS_H

#include <stdint.h>

enum { WORDS_MAX = 16 };

struct words { int count; char *word[WORDS_MAX]; };

// The value of KEY=VALUE; NULL, or `otherwise`, where it is missing.
const char *text(const struct words *w, const char *key);
uint64_t number(const struct words *w, const char *key, uint64_t otherwise);

struct kind {
    const char *name;
    // Runs in the agent, so that what listens does so before the answer; returns a descriptor, or -1 and errno.
    int (*prepare)(const struct words *);
    // Runs in a child; writes one result line to `out`, and a capture to `path`.
    void (*run)(const struct words *, int fd, int out, const char *path);
};

// NULL where there is none.
const struct kind *kind_named(const char *name);

#endif
