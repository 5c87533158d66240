// A copy of a running QEMU, with all of its threads: what fork(2) would be if it copied more than the calling one.
//
// QEMU loads this library before it starts (LD_PRELOAD). A thread of ours waits for the engine's word on a socket. On
// request the others are brought to a stop in a signal handler, the process is forked, and the original goes on. The
// copy sleeps: it has no thread but ours. It is forked in its turn, and in those copies the threads go on where they
// were stopped: each has a stack, registers and thread-local storage that a new kernel thread takes over. What QEMU
// has translated of the guest's code comes along, shared until somebody writes it.
#ifndef FIRKIN_TWIN_H
#define FIRKIN_TWIN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define HIDDEN __attribute__((visibility("hidden")))

enum { MAX_THREADS = 256, PARK_SIGNAL = 44 }; // a real-time signal that neither QEMU nor glibc uses

// park.c
HIDDEN bool park_init(void);
HIDDEN bool park_others(void);  // false: not all of them came, and all run again
HIDDEN void release_others(void);
HIDDEN bool revive_others(void); // in a copy, in which they are not there
HIDDEN pid_t revived_tid(pthread_t thread); // 0: none that was revived

// files.c
HIDDEN bool visit_numbers(const char *folder, bool (*visit)(int number, void *context), void *context);
HIDDEN bool renew_events(void); // event descriptors are shared by copies otherwise. False: something cannot be copied

// filter.c
HIDDEN bool forbid_programs(void);

// serve.c
HIDDEN void *serve(void *unused);
HIDDEN extern int control_fd;

// calls.c
HIDDEN int start_thread(pthread_t *thread, void *(*entry)(void *), void *argument);
HIDDEN void take_calls_on(const char *numbers);

#endif
