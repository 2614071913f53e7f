/* Stands between a node and the C library, and does what two files say: CLOCK names one that holds by how many seconds the machine's
   clock is wrong; where the one that NOSYNC names is there, nothing can be synced. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, at);
    const char *path = getenv("CLOCK");
    if (done || id != CLOCK_REALTIME || !path) return done;
    FILE *file = fopen(path, "r");
    long long wrong = 0;
    if (file && fscanf(file, "%lld", &wrong) == 1) at->tv_sec += wrong;
    if (file) fclose(file);
    return 0;
}

static int refused(void) {
    const char *path = getenv("NOSYNC");
    if (!path || access(path, F_OK)) return 0;
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return refused() ? -1 : real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return refused() ? -1 : real(fd);
}
