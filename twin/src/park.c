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
	pid_t tid;           // set last: the place can be used
};

static struct place places[MAX_THREADS];
static unsigned count;
static unsigned turn; // threads wait for it to change

static struct { pthread_t self; pid_t tid; } revived[MAX_THREADS];

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
			__atomic_store_n(&place->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
			while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) == now)
				syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
		} else {
			syscall(SYS_set_robust_list, place->robust_list, place->robust_size);
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
	bool grew;
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
	roll->grew = true;
	return syscall(SYS_tgkill, getpid(), tid, PARK_SIGNAL) == 0 || errno == ESRCH;
}

static bool stands(pid_t tid)
{
	for (unsigned at = 0; at < MAX_THREADS; at++)
		if (__atomic_load_n(&places[at].tid, __ATOMIC_SEQ_CST) == tid)
			return true;
	return syscall(SYS_tgkill, getpid(), tid, 0) != 0; // or has ended
}

static bool all_stand(const struct roll *roll)
{
	for (unsigned at = 0; at < roll->size; at++)
		if (!stands(roll->called[at]))
			return false;
	return true;
}

static bool wait_for(const struct roll *roll)
{
	struct timespec pause = {.tv_nsec = LOOK_US * 1000};
	for (int left = PATIENCE_MS * 1000 / LOOK_US; left > 0; left--) {
		if (all_stand(roll))
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

bool park_others(void)
{
	struct roll roll = {.grew = true};
	memset(places, 0, sizeof places);
	count = 0;
	while (roll.grew) { // a thread may make another before it stands
		roll.grew = false;
		if (!visit_numbers("/proc/self/task", call_up, &roll) || !wait_for(&roll)) {
			release_others();
			return false;
		}
	}
	return true;
}

void release_others(void)
{
	__atomic_fetch_add(&turn, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, MAX_THREADS, NULL, NULL, 0);
}

// glibc goes on knowing each thread by its old number, which mutexes hold as their owner: only pthread_kill is told.
bool revive_others(void)
{
	const unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
				    CLONE_SETTLS | CLONE_CHILD_CLEARTID;
	for (unsigned at = 0; at < count; at++) {
		long tid = revive(&places[at], flags, places[at].tid_address, places[at].self);
		if (tid < 0)
			return false;
		revived[at].self = places[at].self;
		__atomic_store_n(&revived[at].tid, (pid_t)tid, __ATOMIC_SEQ_CST);
	}
	return true;
}

pid_t revived_tid(pthread_t thread)
{
	for (unsigned at = 0; at < MAX_THREADS; at++) {
		pid_t tid = __atomic_load_n(&revived[at].tid, __ATOMIC_SEQ_CST);
		if (tid != 0 && revived[at].self == thread)
			return tid;
	}
	return 0;
}

void forget_revived(pthread_t thread)
{
	for (unsigned at = 0; at < MAX_THREADS; at++)
		if (revived[at].self == thread)
			__atomic_store_n(&revived[at].tid, 0, __ATOMIC_SEQ_CST);
}
