/* What every task needs: complaints, whole reads and writes, numbers from words, output in large pieces. */
#ifndef FIRKIN_TASK_IO_H
#define FIRKIN_TASK_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { TASK_PATH = 4096, TASK_BUFFER = 256 * 1024, TASK_PIPE = 1024 * 1024, TASK_MAX_DEPTH = 1024 };

/* One line on stderr, `PATH: REASON`, with what would break the line or a terminal written as \ooo. */
void task_note(const char *path, const char *reason);

/* The same as the end of a task. Both return the errno, never 0. */
int task_refuse(int error, const char *path, const char *reason);
int task_fail(const char *path);

/* A whole number from `least` to `most`, and nothing after it. */
bool task_number(const char *word, int base, long long least, long long most, long long *value);

/* PATH without the slashes at its end, after the last of the others; `/` for the root. */
void task_last_part(const char *path, char part[TASK_PATH]);

/* Bytes read, fewer than asked for at the end only; or -1. */
ssize_t read_full(int fd, void *data, size_t len);
bool write_full(int fd, const void *data, size_t len);

/* Ask for pipes that take large pieces; it does not matter if there is no pipe, or if it stays small. */
void task_widen_pipe(int fd);

/* Descriptors for a folder of each level down to TASK_MAX_DEPTH. */
void task_allow_depth(void);

/* stdout, by way of a buffer. If it cannot be written the task ends: there is nobody left to talk to. */
void out_flush(void);

/* Where at least `len` bytes, TASK_BUFFER at most, can be put; and the statement that they were. */
unsigned char *out_reserve(size_t len);
void out_commit(size_t len);

/* Take the last `len` bytes back: they were put in since the last out_reserve(). */
void out_take_back(size_t len);

void out_add(const void *data, size_t len);
void out_zeros(uint64_t len);
void out_u32(uint32_t value);
void out_u64(uint64_t value);
void out_blob(const void *data, size_t len);

/* Copy `len` bytes of a file from `offset` on. Returns how many there were; with errno 0 the file ended before. */
uint64_t out_file(int fd, off_t offset, uint64_t len);

#endif
