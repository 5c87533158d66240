/* The guest of the vsock tests: PID 1 of an initramfs, a small server on AF_VSOCK.
 *
 * Port 1001 echoes, many connections at once. Port 1000 reads one line and does as told:
 *   check            verify the pattern until end of input, then answer "ok BYTES" or "bad OFFSET"
 *   drain            read until end of input, then answer "ok BYTES"
 *   source N         write N bytes of the pattern and close at once
 *   slow MS          wait, then as check
 *   dial PORT        connect to the host and echo there until end of input; answer "closed" or "errno N"
 *   talk N PORT      write N bytes, shut down writing, check the input, then tell the host's PORT the verdict
 *   refuse           shut down reading, wait for the host's last byte, then answer "ok"
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

enum { BLOCK = 65536, MAX_ECHO = 1100 };

static uint64_t pattern[BLOCK / 8], input[BLOCK / 8];

static void fill_pattern(void)
{
	for (uint64_t i = 0; i < BLOCK / 8; i++)
		pattern[i] = i * 0x9E3779B97F4A7C15u;
}

static int listen_on(unsigned port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (fd < 0 || bind(fd, (void *)&address, sizeof address) || listen(fd, 1100))
		exit(1);
	return fd;
}

static int dial(unsigned port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (connect(fd, (void *)&address, sizeof address)) {
		int reason = errno;
		close(fd);
		errno = reason;
		return -1;
	}
	return fd;
}

static int write_all(int fd, const void *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);
		if (n < 0)
			return -1;
		data = (const char *)data + n;
		size -= n;
	}
	return 0;
}

static void say(int fd, const char *word, long number)
{
	char line[64];
	write_all(fd, line, snprintf(line, sizeof line, "%s %ld\n", word, number));
}

/* Block k of the pattern has k in its first word. */
static void write_pattern(int fd, long size)
{
	for (long at = 0; at < size; at += BLOCK) {
		pattern[0] = at / BLOCK;
		if (write_all(fd, pattern, size - at < BLOCK ? size - at : BLOCK))
			return;
	}
}

static void check_input(int fd, int out, int verify)
{
	long at = 0;
	ssize_t n;
	while ((n = read(fd, (char *)input + at % BLOCK, BLOCK - at % BLOCK)) > 0) {
		if (verify) {
			long start = at % BLOCK;
			pattern[0] = at / BLOCK;
			if (memcmp((char *)input + start, (char *)pattern + start, n)) {
				say(out, "bad", at);
				return;
			}
		}
		at += n;
	}
	say(out, n ? "error" : "ok", n ? errno : at);
}

static void echo(int fd)
{
	ssize_t n;
	while ((n = read(fd, input, BLOCK)) > 0)
		if (write_all(fd, input, n))
			return;
}

static void talk(int fd, long size, unsigned port)
{
	write_pattern(fd, size);
	shutdown(fd, SHUT_WR);
	int out = dial(port);
	check_input(fd, out, 1);
}

static void refuse(int fd)
{
	struct pollfd waits = { .fd = fd };
	char byte;
	shutdown(fd, SHUT_RD);
	poll(&waits, 1, 300);
	say(fd, "ok", read(fd, &byte, 1));
}

static void read_line(int fd, char *line, size_t size)
{
	size_t at = 0;
	while (at < size - 1 && read(fd, line + at, 1) == 1 && line[at] != '\n')
		at++;
	line[at] = 0;
}

static void obey(int fd)
{
	char line[64], word[16] = "";
	long a = 0, b = 0;
	read_line(fd, line, sizeof line);
	sscanf(line, "%15s %ld %ld", word, &a, &b);
	if (!strcmp(word, "slow"))
		usleep(a * 1000);
	if (!strcmp(word, "check") || !strcmp(word, "slow"))
		check_input(fd, fd, 1);
	else if (!strcmp(word, "drain"))
		check_input(fd, fd, 0);
	else if (!strcmp(word, "source"))
		write_pattern(fd, a);
	else if (!strcmp(word, "talk"))
		talk(fd, a, b);
	else if (!strcmp(word, "refuse"))
		refuse(fd);
	else if (!strcmp(word, "dial")) {
		int out = dial(a);
		if (out < 0) {
			say(fd, "errno", errno);
			return;
		}
		echo(out);
		close(out);
		say(fd, "closed", 0);
	}
}

static void serve_commands(void)
{
	int fd, listener = listen_on(1000);
	signal(SIGCHLD, SIG_IGN);
	while ((fd = accept(listener, 0, 0)) >= 0) {
		if (!fork()) {
			close(listener);
			obey(fd);
			_exit(0);
		}
		close(fd);
	}
}

static void serve_echo(void)
{
	static struct pollfd polls[MAX_ECHO + 1];
	int count = 1;
	polls[0] = (struct pollfd){ .fd = listen_on(1001), .events = POLLIN };
	while (poll(polls, count, -1) >= 0) {
		for (int i = count - 1; i > 0; i--) {
			if (!polls[i].revents)
				continue;
			ssize_t n = read(polls[i].fd, input, BLOCK);
			if (n <= 0 || write_all(polls[i].fd, input, n)) {
				close(polls[i].fd);
				polls[i] = polls[--count];
			}
		}
		if (polls[0].revents && count <= MAX_ECHO)
			polls[count++] = (struct pollfd){ .fd = accept(polls[0].fd, 0, 0), .events = POLLIN };
	}
}

int main(void)
{
	struct rlimit files = { 4096, 4096 };
	setrlimit(RLIMIT_NOFILE, &files);
	fill_pattern();
	signal(SIGPIPE, SIG_IGN);
	if (!fork())
		serve_commands();
	serve_echo();
	return 0;
}
