// Descriptors that a copy must not share with its original. Nothing here allocates: a thread that was stopped may
// hold the allocator's lock.
#define _GNU_SOURCE
#include "twin.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

struct entry { // linux_dirent64
	uint64_t inode;
	int64_t offset;
	uint16_t size;
	uint8_t kind;
	char name[];
};

bool visit_numbers(const char *folder, bool (*visit)(int number, void *context), void *context)
{
	_Alignas(struct entry) char buffer[4096];
	long size = -1;
	bool well = true;
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (well && (size = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
		for (long at = 0; well && at < size; at += ((struct entry *)(buffer + at))->size) {
			int number = atoi(((struct entry *)(buffer + at))->name);
			if (number != 0 && number != fd) // 0: "." and "..", and standard input, which is a file
				well = visit(number, context);
		}
	close(fd);
	return well && size == 0;
}

static void name_entry(char *path, const char *folder, int number)
{
	char digits[12];
	int length = 0;
	do
		digits[length++] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	path = stpcpy(path, folder);
	while (length > 0)
		*path++ = digits[--length];
	*path = '\0';
}

// fdinfo(5) of an event descriptor, of which the value after `field` in hexadecimal.
static bool read_info(int number, char *text, size_t size)
{
	char path[64];
	name_entry(path, "/proc/self/fdinfo/", number);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t length = read(fd, text, size - 1);
	close(fd);
	text[length > 0 ? length : 0] = '\0';
	return length > 0;
}

static bool renew_eventfd(int number)
{
	char text[1024];
	const char *field;
	if (!read_info(number, text, sizeof text) || (field = strstr(text, "eventfd-count:")) == NULL)
		return false;
	uint64_t value = strtoull(field + strlen("eventfd-count:"), NULL, 16);
	int flags = fcntl(number, F_GETFL), own = fcntl(number, F_GETFD);
	int fresh = eventfd(0, EFD_CLOEXEC | (flags & O_NONBLOCK ? EFD_NONBLOCK : 0));
	if (fresh < 0)
		return false;
	bool well = (value == 0 || write(fresh, &value, sizeof value) == sizeof value) &&
		    dup3(fresh, number, own & FD_CLOEXEC ? O_CLOEXEC : 0) == number;
	close(fresh);
	return well;
}

static bool watches_nothing(int number)
{
	char text[1024];
	return read_info(number, text, sizeof text) && strstr(text, "tfd:") == NULL;
}

static bool renew(int number, void *unused)
{
	(void)unused;
	char path[64], kind[64];
	name_entry(path, "/proc/self/fd/", number);
	ssize_t length = readlink(path, kind, sizeof kind - 1);
	if (length < 0)
		return true; // closed since
	kind[length] = '\0';
	if (strcmp(kind, "anon_inode:[eventfd]") == 0)
		return renew_eventfd(number);
	if (strcmp(kind, "anon_inode:[eventpoll]") == 0)
		return watches_nothing(number);
	return strcmp(kind, "anon_inode:[io_uring]") != 0; // its rings are memory that would stay shared
}

bool renew_events(void)
{
	return visit_numbers("/proc/self/fd", renew, NULL);
}
