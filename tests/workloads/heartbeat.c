/* How long the program itself stands still: it stamps the time every 200 us and keeps the largest gap.
 *
 *   heartbeat [MIB]   with MIB of memory filled with a pattern that does not compress
 *
 * SIGUSR1 forgets the gap so far. SIGUSR2 verifies all memory, in a thread of its own so that the
 * beat goes on. Every 100 ms one line goes to standard output:
 *   {"max_gap_us":N,"max_gap_ended_us":N,"max_gap_monotonic_us":N,"beats":N,"verified":N,"bad_word":N}
 * max_gap_ended_us is the wall clock at the end of the largest gap, in microseconds since 1970: where
 * it lies says whose it is. The gap is taken from CLOCK_REALTIME: CLOCK_MONOTONIC goes through the time namespace of a moved
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

struct gap {
	int64_t last, longest, ended;
};

static void beat(clockid_t clock, struct gap *gap) {
	int64_t now = now_ns(clock), since = now - gap->last;
	gap->last = now;
	if (since > gap->longest)
		gap->longest = since, gap->ended = now;
}

static void run(void) {
	struct gap real = {.last = now_ns(CLOCK_REALTIME)}, monotonic = {.last = now_ns(CLOCK_MONOTONIC)};
	for (long beats = 1; !prove_asked; beats++) {
		struct timespec interval = {0, 200000};
		nanosleep(&interval, NULL);
		if (atomic_exchange(&reset, false))
			real.longest = monotonic.longest = 0;
		beat(CLOCK_REALTIME, &real);
		beat(CLOCK_MONOTONIC, &monotonic);
		if (beats % 400 == 0)
			say("{\"max_gap_us\":%ld,\"max_gap_ended_us\":%ld,\"max_gap_monotonic_us\":%ld,"
				"\"beats\":%ld,\"verified\":%ld,\"bad_word\":%ld}",
				(long)(real.longest / 1000), (long)(real.ended / 1000), (long)(monotonic.longest / 1000),
				beats, verified, bad_word);
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
