/* Many threads with live vector registers, thread-local storage, and every ordinary way of waiting.
 *
 *   threads [N]
 *
 * Each thread keeps a pattern in its vector registers over a sleep in the kernel, then waits for its
 * turn in a ring, then waits on a condition with an absolute deadline, then signals its neighbour. */
#include "prove.h"

#define LANES 8
static int count = 8;
static bool has_avx512;
static pthread_mutex_t ring = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static long turn;
static atomic_bool bad;
static char reason[200];
static __thread long own_number;
static __thread volatile sig_atomic_t signals_seen;

struct member {
	pthread_t thread;
	atomic_long rounds, signals, ready;
	long seen;
	int idle;
} *members;

static void fail(const char *what, long number) {
	if (!atomic_exchange(&bad, true))
		snprintf(reason, sizeof reason, "thread %ld: %s", number, what);
}

/* The wait is a raw system call between load and store: the compiler has no say over the registers,
 * and the kernel keeps them, so a thread that is moved anywhere in here is moved with live ones. */
#define HOLD(move, reg) \
	move " (%[in]), " reg "0; " move " (%[in]), " reg "7; " move " (%[in]), " reg "15; syscall; " \
	move " " reg "0, (%[out]); " move " " reg "7, 64(%[out]); " move " " reg "15, 128(%[out])"
#define HOLD_ARGS : "+a"(number), "+m"(out) \
	: [in] "r"(in), [out] "r"(out), "D"(&wait), "S"(NULL) \
	: "rcx", "r11", "memory", "xmm0", "xmm7", "xmm15"

static void hold_registers(long seed) {
	_Alignas(64) uint64_t in[LANES], out[3][LANES];
	struct timespec wait = {0, 3000000};
	long number = SYS_nanosleep;
	size_t bytes = has_avx512 ? 64 : 32;
	for (int i = 0; i < LANES; i++)
		in[i] = mix(seed * LANES + i);
	if (has_avx512)
		__asm__ volatile(HOLD("vmovdqu64", "%%zmm") HOLD_ARGS);
	else
		__asm__ volatile(HOLD("vmovdqu", "%%ymm") HOLD_ARGS);
	for (int i = 0; i < 3; i++)
		if (memcmp(in, out[i], bytes) != 0)
			fail("a vector register changed", own_number);
}

static void on_neighbour(int signal) {
	(void)signal;
	signals_seen++;
}

static void pass_the_turn(long number) {
	pthread_mutex_lock(&ring);
	while (turn % count != number)
		pthread_cond_wait(&turn_changed, &ring);
	turn++;
	/* Waking all 500 for one would be quadratic; every member has a deadline of its own as well. */
	pthread_cond_broadcast(&turn_changed);
	pthread_mutex_unlock(&ring);
}

static void wait_for_deadline(void) {
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_condattr_t attributes;
	pthread_cond_t never;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&never, &attributes);
	int64_t end = now_ns(CLOCK_MONOTONIC) + 5000000;
	struct timespec deadline = {end / 1000000000, end % 1000000000};
	pthread_mutex_lock(&mutex);
	if (pthread_cond_timedwait(&never, &mutex, &deadline) == ETIMEDOUT && now_ns(CLOCK_MONOTONIC) < end)
		fail("a deadline came too early", own_number);
	pthread_mutex_unlock(&mutex);
}

static void *live(void *argument) {
	struct member *self = argument;
	own_number = self - members;
	self->ready = 1;
	for (long round = 1;; round++) {
		hold_registers(round * count + own_number);
		if (count <= 64 || round % 16 == 0)
			wait_for_deadline();
		struct member *neighbour = &members[(own_number + 1) % count];
		if (neighbour->ready)
			pthread_kill(neighbour->thread, SIGUSR1);
		if (count <= 64)
			pass_the_turn(own_number);
		if (own_number != self - members)
			fail("its thread-local storage is another's", self - members);
		self->signals = signals_seen;
		self->rounds = round;
	}
	return NULL;
}

static bool check(void) {
	EXPECT(!bad, "%s", reason);
	for (int i = 0; i < count; i++) {
		long rounds = members[i].rounds;
		members[i].idle = rounds == members[i].seen ? members[i].idle + 1 : 0;
		members[i].seen = rounds;
		EXPECT(members[i].idle < 400, "thread %d stands still since 20 s at round %ld", i, rounds);
		/* Who signals it may have begun much later: the last thread signals the first. */
		long chances = members[(i + count - 1) % count].rounds;
		EXPECT(rounds < 100 || chances < 100 || members[i].signals > 0, "no signal reaches thread %d", i);
	}
	return true;
}

static void spoil(void) { fail("spoilt", 0); }

int main(int argc, char **argv) {
	count = argc > 1 ? atoi(argv[1]) : 8;
	has_avx512 = __builtin_cpu_supports("avx512f");
	NEED(has_avx512 || __builtin_cpu_supports("avx2"));
	struct sigaction on_usr1 = {.sa_handler = on_neighbour, .sa_flags = SA_RESTART};
	sigaction(SIGUSR1, &on_usr1, NULL);
	members = calloc(count, sizeof *members);
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	for (int i = 0; i < count; i++)
		NEED(pthread_create(&members[i].thread, &small, live, &members[i]) == 0);
	return prove(check, spoil);
}
