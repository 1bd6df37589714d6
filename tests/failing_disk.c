/* A disk that fails when it is told to: preloaded, it stands before the system's own functions that change files.
   Calls are counted that concern files below one folder; from the chosen one on, all fail, or that one alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static int chosen, reason, lasting, counted;

void disk_fails(const char *below, int at, int with, int from_then_on) {
    snprintf(folder, sizeof folder, "%s", below);
    chosen = at, reason = with, lasting = from_then_on, counted = 0;
}

int disk_calls(void) { return counted; }

static int fails(const char *path) {
    if (!folder[0] || !path || strncmp(path, folder, strlen(folder))) return 0;
    int call = __sync_add_and_fetch(&counted, 1);
    if (call != chosen && !(lasting && call > chosen)) return 0;
    errno = reason;
    return 1;
}

static int fails_at(int handle) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define THEIRS(name) __typeof__(&name) theirs = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int handle, const void *data, size_t size) {
    THEIRS(write);
    return fails_at(handle) ? -1 : theirs(handle, data, size);
}

ssize_t writev(int handle, const struct iovec *pieces, int count) {
    THEIRS(writev);
    return fails_at(handle) ? -1 : theirs(handle, pieces, count);
}

int ftruncate64(int handle, off64_t size) {
    THEIRS(ftruncate64);
    return fails_at(handle) ? -1 : theirs(handle, size);
}

int fsync(int handle) {
    THEIRS(fsync);
    return fails_at(handle) ? -1 : theirs(handle);
}

int rename(const char *from, const char *to) {
    THEIRS(rename);
    return fails(to) ? -1 : theirs(from, to);
}

int link(const char *from, const char *to) {
    THEIRS(link);
    return fails(to) ? -1 : theirs(from, to);
}

int mkdir(const char *path, mode_t mode) {
    THEIRS(mkdir);
    return fails(path) ? -1 : theirs(path, mode);
}

int open64(const char *path, int flags, ...) {
    THEIRS(open64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return (flags & O_CREAT) && fails(path) ? -1 : theirs(path, flags, mode);
}
