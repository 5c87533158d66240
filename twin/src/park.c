// Stopping every thread but the calling one, and going on with them in a copy of the process.
#define _GNU_SOURCE
#include "twin.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 1000, LOOK_US = 20 };

// What a function may expect to find again after a call, by the x86-64 ABI, and how the kernel knows the thread.
struct place {
	uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip;
	pthread_t self;
	int *tid_address;    // where the kernel notes the thread's end, for pthread_join
	void *robust_list;
	size_t robust_size;
};

static struct place places[MAX_THREADS];
static unsigned count;    // places that are taken
static unsigned standing; // and filled
static unsigned arrived;  // threads that go on in a copy
static unsigned turn;     // threads wait for it to change

// The kernel's number for a thread that glibc knows by an old one; another thread on the same stack has its own.
static struct { pthread_t self; const int *tid_address; int old; pid_t tid; } revived[MAX_THREADS];

int save_place(struct place *place) __attribute__((returns_twice)) HIDDEN;
long revive(struct place *place, unsigned long flags, int *tid_address, pthread_t self) HIDDEN;
_Static_assert(offsetof(struct place, rip) == 56, "the assembly below counts bytes");

__asm__(
	".text\n"
	".hidden save_place\n"
	".globl save_place\n"
	"save_place:\n" // returns 0 here, and 1 in the thread that `revive` makes
	"	mov %rbx, 0(%rdi)\n"
	"	mov %rbp, 8(%rdi)\n"
	"	mov %r12, 16(%rdi)\n"
	"	mov %r13, 24(%rdi)\n"
	"	mov %r14, 32(%rdi)\n"
	"	mov %r15, 40(%rdi)\n"
	"	lea 8(%rsp), %rax\n"
	"	mov %rax, 48(%rdi)\n"
	"	mov (%rsp), %rax\n"
	"	mov %rax, 56(%rdi)\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	".hidden revive\n"
	".globl revive\n"
	"revive:\n" // clone(flags, stack, parent_tid, child_tid, tls)
	"	mov %rdi, %r9\n"
	"	mov %rsi, %rdi\n"
	"	mov 48(%r9), %rsi\n"
	"	mov %rdx, %r10\n"
	"	mov %rcx, %r8\n"
	"	xor %edx, %edx\n"
	"	mov $56, %eax\n"
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jz 1f\n"
	"	ret\n"
	"1:	mov 0(%r9), %rbx\n"
	"	mov 8(%r9), %rbp\n"
	"	mov 16(%r9), %r12\n"
	"	mov 24(%r9), %r13\n"
	"	mov 32(%r9), %r14\n"
	"	mov 40(%r9), %r15\n"
	"	mov 48(%r9), %rsp\n"
	"	mov $1, %eax\n"
	"	jmp *56(%r9)\n");

static void fill(struct place *place)
{
	place->self = pthread_self();
	prctl(PR_GET_TID_ADDRESS, &place->tid_address);
	syscall(SYS_get_robust_list, 0, &place->robust_list, &place->robust_size);
}

// In a copy the handler returns on the same stack, and the kernel takes the registers from the signal's frame.
static void on_park(int number)
{
	(void)number;
	int error = errno;
	unsigned mine = __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST);
	unsigned now = __atomic_load_n(&turn, __ATOMIC_SEQ_CST);
	if (mine < MAX_THREADS) {
		struct place *place = &places[mine];
		fill(place);
		if (save_place(place) == 0) {
			__atomic_fetch_add(&standing, 1, __ATOMIC_SEQ_CST);
			while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) == now)
				syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
		} else {
			syscall(SYS_set_robust_list, place->robust_list, place->robust_size);
			__atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
		}
	}
	errno = error;
}

bool park_init(void)
{
	int *address = NULL;
	if (prctl(PR_GET_TID_ADDRESS, &address) != 0 || address == NULL)
		return false; // a kernel without CHECKPOINT_RESTORE
	struct sigaction action = {.sa_handler = on_park, .sa_flags = SA_RESTART};
	sigfillset(&action.sa_mask);
	return sigaction(PARK_SIGNAL, &action, NULL) == 0;
}

struct roll {
	pid_t called[MAX_THREADS];
	unsigned size;
};

static bool call_up(int tid, void *context)
{
	struct roll *roll = context;
	if (tid == (pid_t)syscall(SYS_gettid))
		return true;
	for (unsigned at = 0; at < roll->size; at++)
		if (roll->called[at] == tid)
			return true;
	if (roll->size == MAX_THREADS)
		return false;
	roll->called[roll->size++] = tid;
	return syscall(SYS_tgkill, getpid(), tid, PARK_SIGNAL) == 0 || errno == ESRCH;
}

// A list of threads that is read while one of them ends can leave out another; their number cannot.
static bool all_stand(void)
{
	struct stat task;
	return stat("/proc/self/task", &task) == 0 &&
	       task.st_nlink == 2 + 1 + __atomic_load_n(&standing, __ATOMIC_SEQ_CST);
}

static bool wait_until(bool (*is_true)(void), bool (*meanwhile)(void *), void *context)
{
	struct timespec pause = {.tv_nsec = LOOK_US * 1000};
	for (int left = PATIENCE_MS * 1000 / LOOK_US; left > 0; left--) {
		if (meanwhile != NULL && !meanwhile(context))
			return false;
		if (is_true())
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

static bool call_all(void *roll) // again and again: a thread may make another before it stands
{
	return visit_numbers("/proc/self/task", call_up, roll);
}

bool park_others(void)
{
	struct roll roll = {.size = 0};
	memset(places, 0, sizeof places);
	count = standing = 0;
	if (wait_until(all_stand, call_all, &roll))
		return true;
	release_others();
	return false;
}

void release_others(void)
{
	__atomic_fetch_add(&turn, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, MAX_THREADS, NULL, NULL, 0);
}

static bool all_arrived(void)
{
	return __atomic_load_n(&arrived, __ATOMIC_SEQ_CST) == count;
}

// glibc goes on knowing each thread by its old number, which mutexes hold as their owner: only pthread_kill is told.
bool revive_others(void)
{
	const unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
				    CLONE_SETTLS | CLONE_CHILD_CLEARTID;
	arrived = 0;
	for (unsigned at = 0; at < count; at++) {
		long tid = revive(&places[at], flags, places[at].tid_address, places[at].self);
		if (tid < 0)
			return false;
		revived[at].self = places[at].self;
		revived[at].tid_address = places[at].tid_address;
		revived[at].old = *places[at].tid_address;
		__atomic_store_n(&revived[at].tid, (pid_t)tid, __ATOMIC_SEQ_CST);
	}
	return wait_until(all_arrived, NULL, NULL); // they read their places, which the next stop overwrites
}

pid_t revived_tid(pthread_t thread)
{
	for (unsigned at = 0; at < MAX_THREADS; at++) {
		pid_t tid = __atomic_load_n(&revived[at].tid, __ATOMIC_SEQ_CST);
		if (tid != 0 && revived[at].self == thread && *revived[at].tid_address == revived[at].old)
			return tid;
	}
	return 0;
}
