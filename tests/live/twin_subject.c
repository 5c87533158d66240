// A program with the kinds of threads that QEMU has, which answers on a socket: what a copy of it must still know.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static __thread int mine; // thread-local
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, checked;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static int rung, woken, kicked, events_fd, ready;
static volatile unsigned turns;

static void on_kick(int number)
{
	(void)number;
	kicked = mine;
}

static void *sleeper(void *unused)
{
	(void)unused;
	mine = 17;
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!rung)
			pthread_cond_wait(&bell, &lock);
		rung = 0;
		woken += mine;
		pthread_cond_broadcast(&bell);
	}
}

static void *spinner(void *unused)
{
	(void)unused;
	for (;;)
		turns++;
}

static void *listener(void *unused)
{
	(void)unused;
	uint64_t value;
	sigset_t all;
	sigfillset(&all); // as QEMU's threads do
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	sigdelset(&all, SIGUSR1);
	sigdelset(&all, 44);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	mine = 23;
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	for (;;)
		if (read(events_fd, &value, sizeof value) == sizeof value)
			__atomic_fetch_add(&woken, 100 * (int)value, __ATOMIC_SEQ_CST);
}

static int ring(void)
{
	pthread_mutex_lock(&lock);
	rung = 1;
	pthread_cond_broadcast(&bell);
	while (rung)
		pthread_cond_wait(&bell, &lock);
	pthread_mutex_unlock(&lock);
	return woken;
}

static int turned(void)
{
	unsigned before = turns;
	for (int left = 1000; left > 0 && turns == before; left--)
		usleep(1000);
	return turns != before;
}

static int kick(pthread_t thread)
{
	kicked = 0;
	int error = pthread_kill(thread, SIGUSR1);
	for (int left = 1000; left > 0 && !kicked && !error; left--)
		usleep(1000);
	return error ? -error : kicked;
}

static int again(void) // the lock that we hold, by its owner only
{
	int error = pthread_mutex_unlock(&checked);
	return error ? -error : -pthread_mutex_lock(&checked);
}

static void *finish(void *unused)
{
	return unused;
}

static int made(void)
{
	pthread_t thread;
	void *answer = NULL;
	if (pthread_create(&thread, NULL, finish, &woken) != 0 || pthread_join(thread, &answer) != 0)
		return -1;
	return answer == &woken;
}

static int program(void)
{
	char *const arguments[] = {"true", NULL};
	execv("/bin/true", arguments);
	return errno;
}

int main(int count, char **words)
{
	int commands = atoi(words[1]);
	pthread_t threads[3];
	pthread_mutexattr_t kind;
	(void)count;
	events_fd = eventfd(0, 0);
	signal(SIGUSR1, on_kick);
	pthread_mutexattr_init(&kind);
	pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&checked, &kind);
	pthread_mutex_lock(&checked);
	pthread_create(&threads[0], NULL, sleeper, NULL);
	pthread_create(&threads[1], NULL, spinner, NULL);
	pthread_create(&threads[2], NULL, listener, NULL);
	mine = 5;
	while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < 2)
		usleep(100);
	for (char word[32];;) {
		ssize_t size = recv(commands, word, sizeof word - 1, 0);
		if (size < 0 && errno == EINTR)
			continue;
		if (size <= 0)
			return 3;
		word[size] = '\0';
		uint64_t one = 1;
		int answer = strcmp(word, "ring") == 0      ? ring()
			     : strcmp(word, "turned") == 0  ? turned()
			     : strcmp(word, "kick") == 0    ? kick(threads[2])
			     : strcmp(word, "again") == 0   ? again()
			     : strcmp(word, "made") == 0    ? made()
			     : strcmp(word, "mine") == 0    ? mine
			     : strcmp(word, "woken") == 0   ? __atomic_load_n(&woken, __ATOMIC_SEQ_CST)
			     : strcmp(word, "program") == 0 ? program()
			     : strcmp(word, "fork") == 0    ? (fork() < 0 ? errno : 0)
			     : strcmp(word, "event") == 0   ? (int)write(events_fd, &one, sizeof one)
							    : -1000;
		if (strcmp(word, "exit") == 0)
			exit(42);
		int length = snprintf(word, sizeof word, "%d", answer);
		send(commands, word, (size_t)length, 0);
	}
}
