/* Preloaded into the service: while the file that HANGING_DISK names exists, no fsync or fdatasync
 * ends, as on a disk that hangs; but for as many of them as the file says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_int answered;

static int hangs(const char *flag) {
    FILE *file = flag ? fopen(flag, "r") : NULL;
    if (!file) {
        answered = 0;
        return 0;
    }
    int limit = 0;
    if (fscanf(file, "%d", &limit) != 1) limit = 0;
    fclose(file);
    return answered >= limit;
}

static int when_it_answers(const char *name, int file) {
    while (hangs(getenv("HANGING_DISK"))) usleep(5000);
    answered++;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(file);
}

int fsync(int file) { return when_it_answers("fsync", file); }
int fdatasync(int file) { return when_it_answers("fdatasync", file); }
