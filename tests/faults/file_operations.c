/* Numbers the file operations of a process and of its children, and ends the process that comes to a chosen one.
 *
 * Loaded by LD_PRELOAD, so that what libraries do in C, C++ and Rust (SQLite, parquet, safetensors) counts as what
 * Python does. Nothing is counted until `begin_counting` is called, or where FILE_OPERATIONS_ROOT is set at the start;
 * then everything below that folder is, and each operation is a line of the log: its number, its kind, its path.
 * An operation counts before it is done: whoever dies at number n has done n - 1 of them. SQLite's shared memory
 * (-shm) is no content of a file and is left out.
 *
 * What is flushed (fsync) is recorded as it is then, in the folder `LOG.synced`: a file's content under its inode,
 * a folder's names, each with its inode and whether it is a folder (d or f), under that and `.names`. `power_cut.py` makes of it what a power cut leaves.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static long fatal; /* 0: none */
static char synced[PATH_MAX]; /* where what is flushed is recorded */
static int log_file = -1;
static long *counted; /* shared with children */
static ino_t held[1 << 16]; /* inodes that are kept open, lest another file be given one; by open addressing */

void begin_counting(const char *folder, long number, const char *log)
{
    char name[PATH_MAX];
    snprintf(root, sizeof root, "%s/", folder);
    root_length = strlen(root);
    fatal = number;
    log_file = syscall(SYS_openat, AT_FDCWD, log, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0666);
    snprintf(synced, sizeof synced, "%s.synced", log);
    syscall(SYS_mkdirat, AT_FDCWD, synced, 0777);
    snprintf(name, sizeof name, "%s.count", log);
    int file = syscall(SYS_openat, AT_FDCWD, name, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (syscall(SYS_ftruncate, file, sizeof *counted) == 0)
        counted = mmap(NULL, sizeof *counted, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

__attribute__((constructor)) static void begin_as_child(void)
{
    const char *folder = getenv("FILE_OPERATIONS_ROOT"), *log = getenv("FILE_OPERATIONS_LOG");
    const char *number = getenv("FILE_OPERATIONS_FATAL");
    if (folder && log)
        begin_counting(folder, number ? atol(number) : 0, log);
}

static void count(const char *kind, const char *path)
{
    char line[PATH_MAX + 64];
    size_t length_of_path = strlen(path);
    if (!counted || log_file < 0 || strncmp(path, root, root_length))
        return;
    if (length_of_path > 4 && !strcmp(path + length_of_path - 4, "-shm"))
        return;
    long number = __atomic_add_fetch(counted, 1, __ATOMIC_SEQ_CST);
    int length = snprintf(line, sizeof line, "%ld %s %s\n", number, kind, path + root_length);
    syscall(SYS_write, log_file, line, length);
    if (number == fatal) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;)
            pause();
    }
}

/* The path of an open file or folder; 0: it has none. */
static int path_of(int file, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0;
}

static void count_file(const char *kind, int file)
{
    char path[PATH_MAX];
    if (counted && path_of(file, path, sizeof path))
        count(kind, path);
}

/* Keeps a file's inode from being given to another one. By O_PATH: to close any other descriptor of a file would give
 * up the locks that SQLite has on it. */
static void hold(int folder, const char *name, ino_t inode)
{
    const size_t size = sizeof held / sizeof *held;
    size_t at = inode % size;
    for (size_t tried = 0; held[at] && held[at] != inode && tried < size; tried++)
        at = (at + 1) % size;
    if (held[at])
        return; /* it is held, or the table is full */
    int file = syscall(SYS_openat, folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (file >= 0 && fcntl(file, F_DUPFD_CLOEXEC, 400) >= 0)
        held[at] = inode;
    syscall(SYS_close, file);
}

static void record_flushed(int file)
{
    char path[PATH_MAX], target[PATH_MAX + 64], line[PATH_MAX];
    struct stat found;
    struct dirent *entry;
    ssize_t length;
    off_t at = 0;
    if (!counted || !path_of(file, path, sizeof path) || fstat(file, &found))
        return;
    if (strncmp(path, root, root_length) && strncmp(path, root, root_length - 1))
        return;
    int folder = S_ISDIR(found.st_mode);
    snprintf(target, sizeof target, "%s/%lu%s", synced, (unsigned long)found.st_ino, folder ? ".names" : "");
    int record = syscall(SYS_openat, AT_FDCWD, target, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
    if (folder) {
        DIR *names = opendir(path);
        while (names && (entry = readdir(names))) {
            char type = entry->d_type == DT_DIR ? 'd' : 'f';
            length = snprintf(line, sizeof line, "%lu %c %s", (unsigned long)entry->d_ino, type, entry->d_name);
            syscall(SYS_write, record, line, length + 1);
            hold(file, entry->d_name, entry->d_ino);
        }
        if (names)
            closedir(names);
    } else {
        /* By the same descriptor: to close another one of the file would give up the locks that SQLite has on it. */
        int readable = (fcntl(file, F_GETFL) & O_ACCMODE) != O_WRONLY;
        int from = readable ? file : syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
        while ((length = syscall(SYS_sendfile, record, from, &at, 1 << 24)) > 0)
            ;
        if (!readable)
            syscall(SYS_close, from);
    }
    syscall(SYS_close, record);
    hold(AT_FDCWD, path, found.st_ino);
}

static void count_path(const char *kind, int at, const char *path)
{
    char link[64], whole[2 * PATH_MAX];
    ssize_t length = 0;
    if (!counted)
        return;
    if (path[0] != '/') {
        if (at == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        length = syscall(SYS_readlinkat, AT_FDCWD, link, whole, PATH_MAX - 1);
        if (length <= 0)
            return;
        whole[length++] = '/';
    }
    snprintf(whole + length, sizeof whole - length, "%s", path);
    count(kind, whole);
}

static void count_open(int at, const char *path, int flags)
{
    if ((flags & O_TMPFILE) != O_TMPFILE && (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)))
        count_path("open", at, path);
}

#define REAL(result, name, ...)                              \
    static result (*real)(__VA_ARGS__);                      \
    if (!real)                                               \
        *(void **)&real = dlsym(RTLD_NEXT, #name);

#define OPEN(name)                                           \
    int name(const char *path, int flags, ...)               \
    {                                                        \
        va_list rest;                                        \
        va_start(rest, flags);                               \
        mode_t mode = va_arg(rest, mode_t);                  \
        va_end(rest);                                        \
        REAL(int, name, const char *, int, ...)              \
        count_open(AT_FDCWD, path, flags);                   \
        return real(path, flags, mode);                      \
    }

#define OPENAT(name)                                         \
    int name(int at, const char *path, int flags, ...)       \
    {                                                        \
        va_list rest;                                        \
        va_start(rest, flags);                               \
        mode_t mode = va_arg(rest, mode_t);                  \
        va_end(rest);                                        \
        REAL(int, name, int, const char *, int, ...)         \
        count_open(at, path, flags);                         \
        return real(at, path, flags, mode);                  \
    }

#define FOPEN(name)                                          \
    FILE *name(const char *path, const char *mode)           \
    {                                                        \
        REAL(FILE *, name, const char *, const char *)       \
        if (strpbrk(mode, "wa+"))                            \
            count_path("open", AT_FDCWD, path);              \
        return real(path, mode);                             \
    }

#define ON_FILE(result, name, kind, parameters, arguments)   \
    result name parameters                                   \
    {                                                        \
        static result (*real) parameters;                    \
        if (!real)                                           \
            *(void **)&real = dlsym(RTLD_NEXT, #name);       \
        count_file(kind, file);                              \
        return real arguments;                               \
    }

#define FLUSH(name)                                          \
    int name(int file)                                       \
    {                                                        \
        REAL(int, name, int)                                 \
        count_file("fsync", file);                           \
        int failed = real(file);                             \
        if (!failed)                                         \
            record_flushed(file);                            \
        return failed;                                       \
    }

#define ON_PATH(name, kind, at, parameters, arguments)       \
    int name parameters                                      \
    {                                                        \
        static int (*real) parameters;                       \
        if (!real)                                           \
            *(void **)&real = dlsym(RTLD_NEXT, #name);       \
        count_path(kind, at, path);                          \
        return real arguments;                               \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)

ON_FILE(ssize_t, write, "write", (int file, const void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, pwrite, "write", (int file, const void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pwrite64, "write", (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(ssize_t, writev, "write", (int file, const struct iovec *data, int parts), (file, data, parts))
ON_FILE(ssize_t, sendfile, "write", (int file, int from, off_t *at, size_t size), (file, from, at, size))
ON_FILE(ssize_t, sendfile64, "write", (int file, int from, off64_t *at, size_t size), (file, from, at, size))
ON_FILE(ssize_t, copy_file_range, "write",
        (int from, off64_t *from_at, int file, off64_t *at, size_t size, unsigned flags),
        (from, from_at, file, at, size, flags))
ON_FILE(int, ftruncate, "truncate", (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, "truncate", (int file, off64_t size), (file, size))
FLUSH(fsync)
FLUSH(fdatasync)

ON_PATH(mkdir, "mkdir", AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, "mkdir", at, (int at, const char *path, mode_t mode), (at, path, mode))
ON_PATH(rmdir, "rmdir", AT_FDCWD, (const char *path), (path))
ON_PATH(unlink, "unlink", AT_FDCWD, (const char *path), (path))
ON_PATH(unlinkat, "unlink", at, (int at, const char *path, int flags), (at, path, flags))
ON_PATH(rename, "rename", AT_FDCWD, (const char *from, const char *path), (from, path))
ON_PATH(renameat, "rename", at, (int from_at, const char *from, int at, const char *path), (from_at, from, at, path))
ON_PATH(link, "link", AT_FDCWD, (const char *from, const char *path), (from, path))
ON_PATH(linkat, "link", at, (int from_at, const char *from, int at, const char *path, int flags),
        (from_at, from, at, path, flags))
ON_PATH(symlink, "symlink", AT_FDCWD, (const char *to, const char *path), (to, path))
