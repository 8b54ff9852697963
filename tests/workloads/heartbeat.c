/* How long the program itself stands still: it stamps the time every 200 us and keeps the largest gap.
 *
 *   heartbeat [MIB]   with MIB of memory filled with a pattern that does not compress
 *
 * SIGUSR1 forgets the gap so far. SIGUSR2 verifies all memory, in a thread of its own so that the
 * beat goes on. Every 100 ms one line goes to standard output:
 *   {"max_gap_us":N,"max_gap_monotonic_us":N,"beats":N,"verified":N,"bad_word":N}
 * The gap is taken from CLOCK_REALTIME: CLOCK_MONOTONIC goes through the time namespace of a moved
 * process, and could hide exactly the time that is to be measured. */
#include "prove.h"

static atomic_bool reset;
static atomic_long verified, bad_word = -1;
static size_t bytes;
static uint64_t *memory;

static void on_reset(int signal) {
	(void)signal;
	reset = true;
}

static void *verify_on_request(void *unused) {
	(void)unused;
	sigset_t requests;
	sigemptyset(&requests);
	sigaddset(&requests, SIGUSR2);
	for (;;) {
		siginfo_t request;
		if (sigwaitinfo(&requests, &request) != SIGUSR2)
			continue;
		bad_word = filled(memory, bytes, 1);
		verified++;
	}
	return NULL;
}

static int64_t beat(clockid_t clock, int64_t *last, int64_t gap_max) {
	int64_t now = now_ns(clock), gap = now - *last;
	*last = now;
	return gap > gap_max ? gap : gap_max;
}

static void run(void) {
	int64_t real = now_ns(CLOCK_REALTIME), monotonic = now_ns(CLOCK_MONOTONIC);
	int64_t real_gap = 0, monotonic_gap = 0;
	for (long beats = 1; !prove_asked; beats++) {
		struct timespec interval = {0, 200000};
		nanosleep(&interval, NULL);
		if (atomic_exchange(&reset, false))
			real_gap = monotonic_gap = 0;
		real_gap = beat(CLOCK_REALTIME, &real, real_gap);
		monotonic_gap = beat(CLOCK_MONOTONIC, &monotonic, monotonic_gap);
		if (beats % 400 == 0)
			say("{\"max_gap_us\":%ld,\"max_gap_monotonic_us\":%ld,\"beats\":%ld,\"verified\":%ld,\"bad_word\":%ld}",
				(long)(real_gap / 1000), (long)(monotonic_gap / 1000), beats, verified, bad_word);
	}
}

int main(int argc, char **argv) {
	bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1) << 20;
	memory = map_anonymous(bytes, MAP_PRIVATE);
	fill(memory, bytes, 1);
	if (getenv("PROVE_SPOIL"))
		memory[5]++;
	sigset_t requests;
	sigemptyset(&requests);
	sigaddset(&requests, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &requests, NULL);
	pthread_t verifier;
	NEED(pthread_create(&verifier, NULL, verify_on_request, NULL) == 0);
	struct sigaction on_usr1 = {.sa_handler = on_reset}, on_term = {.sa_handler = prove_on_term};
	sigaction(SIGUSR1, &on_usr1, NULL);
	sigaction(SIGTERM, &on_term, NULL);
	prctl(PR_SET_TIMERSLACK, 1);
	say("ready");
	run();
	bad_word = filled(memory, bytes, 1);
	say(bad_word < 0 ? "done" : "BAD word %ld of the memory", bad_word);
	return bad_word < 0 ? 0 : 1;
}
