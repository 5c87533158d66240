// The engine's word. One datagram asks for one copy: the pid of who is to look into it, and numbers of descriptors,
// which in the copy are those that came along. One of them is its own control socket, on which it greets; if that is
// closed without a word, there is none. Whoever has the other end of a control socket has the process: without
// any, it ends.
#define _GNU_SOURCE
#include "twin.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_FILES = 64 };

struct request {
	int32_t tracer;
	int32_t targets[MAX_FILES];
	int files[MAX_FILES];
	unsigned count;
};

int control_fd = -1;
static bool asleep;

static _Noreturn void end(int code)
{
	syscall(SYS_exit_group, code);
	__builtin_unreachable();
}

// False: it is not for us. The number of descriptors that came may be less than was said.
static bool take_files(struct msghdr *message, struct request *request)
{
	struct cmsghdr *part = CMSG_FIRSTHDR(message);
	request->count = 0;
	if (part == NULL || part->cmsg_type != SCM_RIGHTS)
		return false;
	request->count = (unsigned)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	memcpy(request->files, CMSG_DATA(part), request->count * sizeof(int));
	return true;
}

static bool receive(struct request *request)
{
	_Alignas(struct cmsghdr) char parts[CMSG_SPACE(sizeof(int) * MAX_FILES)];
	struct iovec text = {.iov_base = request, .iov_len = sizeof(int32_t) * (1 + MAX_FILES)};
	struct msghdr message = {
		.msg_iov = &text, .msg_iovlen = 1, .msg_control = parts, .msg_controllen = sizeof parts};
	ssize_t size = recvmsg(control_fd, &message, MSG_CMSG_CLOEXEC);
	if (size <= 0)
		end(0);
	return take_files(&message, request) && (size_t)size == sizeof(int32_t) * (1 + request->count);
}

static void close_files(const struct request *request)
{
	for (unsigned at = 0; at < request->count; at++)
		close(request->files[at]);
}

static bool take_places(const struct request *request)
{
	for (unsigned at = 0; at < request->count; at++)
		if (dup3(request->files[at], request->targets[at], 0) < 0)
			return false;
	close_files(request);
	return true;
}

// For ps(1), and for whoever ends or counts what belongs to an engine: a copy is nobody's child that it should be.
static void take_name(pid_t engine)
{
	char name[16] = "qemu-asleep";
	if (!asleep)
		snprintf(name, sizeof name, "qemu-of-%d", engine);
	prctl(PR_SET_NAME, name);
}

// In the copy, which ends if it cannot be made whole.
static void become(const struct request *request)
{
	bool wakes = asleep;
	asleep = !asleep;
	if (!take_places(request) || !renew_events())
		end(1);
	take_name(request->tracer);
	prctl(PR_SET_PTRACER, (unsigned long)request->tracer, 0, 0, 0); // where Yama is, others need leave
	if (wakes && !revive_others())
		end(1);
	if (send(control_fd, "", 1, MSG_NOSIGNAL) != 1)
		end(1);
}

static void copy(const struct request *request)
{
	if (!asleep && !park_others())
		return;
	if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0) {
		become(request);
		return;
	}
	if (!asleep)
		release_others();
}

void *serve(void *unused)
{
	static struct request request;
	pid_t self = getpid();
	sigset_t all;
	(void)unused;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	for (;;) {
		if (receive(&request))
			copy(&request);
		if (getpid() == self)
			close_files(&request);
		self = getpid();
	}
}

static void tell_exit(int code, void *unused)
{
	int32_t word = code;
	(void)unused;
	send(control_fd, &word, sizeof word, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// FIRKIN_TWIN: the control socket; FIRKIN_CALLS: see calls.c.
__attribute__((constructor)) static void begin(void)
{
	const char *control = getenv("FIRKIN_TWIN"), *calls = getenv("FIRKIN_CALLS");
	pthread_t thread;
	if (calls != NULL)
		take_calls_on(calls);
	if (control == NULL)
		return;
	control_fd = atoi(control);
	signal(SIGCHLD, SIG_IGN); // copies are not waited for
	if (!park_init() || !forbid_programs() || on_exit(tell_exit, NULL) != 0 || start_thread(&thread, serve, NULL) != 0)
		end(1);
}
