// The library calls of QEMU's that go through us.
#define _GNU_SOURCE
#include "twin.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_DEVICES = 64 };

struct call {
	int32_t fd;
	uint32_t request;
	uint64_t argument;
};

struct entry {
	void *(*entry)(void *);
	void *argument;
};

typedef int create_t(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
typedef int kill_t(pthread_t, int);

static int calls_fd = -1;
static int devices[MAX_DEVICES];
static unsigned device_count;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

// "SOCKET DEVICE DEVICE ...": ioctls on the devices are answered by the engine at the other end of the socket.
void take_calls_on(const char *numbers)
{
	char *rest;
	calls_fd = (int)strtol(numbers, &rest, 10);
	while (*rest != '\0' && device_count < MAX_DEVICES)
		devices[device_count++] = (int)strtol(rest, &rest, 10);
}

static bool is_device(int fd)
{
	for (unsigned at = 0; at < device_count; at++)
		if (devices[at] == fd)
			return true;
	return false;
}

static int ask_engine(const struct call *call)
{
	int32_t error = EIO; // nobody is there any more
	pthread_mutex_lock(&one_at_a_time);
	if (send(calls_fd, call, sizeof *call, MSG_NOSIGNAL) == sizeof *call)
		while (recv(calls_fd, &error, sizeof error, 0) < 0 && errno == EINTR)
			;
	pthread_mutex_unlock(&one_at_a_time);
	return error;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;
	va_start(rest, request);
	unsigned long argument = va_arg(rest, unsigned long);
	va_end(rest);
	if (!is_device(fd))
		return (int)syscall(SYS_ioctl, fd, request, argument);
	struct call call = {.fd = fd, .request = (uint32_t)request, .argument = argument};
	int error = ask_engine(&call);
	if (error == 0)
		return 0;
	errno = error;
	return -1;
}

// QEMU keeps guest memory from its children; ours are to have it. And no huge pages, of which each write to a shared
// one would copy more, and each snapshot hold more.
int madvise(void *address, size_t size, int advice)
{
	return (int)syscall(SYS_madvise, address, size, advice == MADV_DONTFORK ? MADV_NOHUGEPAGE : advice);
}

// QEMU's threads block all signals.
static void *begin(void *context)
{
	struct entry entry = *(struct entry *)context;
	sigset_t park;
	free(context);
	sigemptyset(&park);
	sigaddset(&park, PARK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &park, NULL);
	return entry.entry(entry.argument);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*entry)(void *), void *argument)
{
	create_t *create = (create_t *)dlsym(RTLD_NEXT, "pthread_create");
	struct entry *context = malloc(sizeof *context);
	if (context == NULL)
		return EAGAIN;
	*context = (struct entry){.entry = entry, .argument = argument};
	int error = create(thread, attributes, begin, context);
	if (error != 0)
		free(context);
	return error;
}

int start_thread(pthread_t *thread, void *(*entry)(void *), void *argument)
{
	return ((create_t *)dlsym(RTLD_NEXT, "pthread_create"))(thread, NULL, entry, argument);
}

int pthread_kill(pthread_t thread, int number)
{
	pid_t tid = revived_tid(thread);
	if (tid == 0)
		return ((kill_t *)dlsym(RTLD_NEXT, "pthread_kill"))(thread, number);
	return syscall(SYS_tgkill, getpid(), tid, number) == 0 ? 0 : errno;
}
