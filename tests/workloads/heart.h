/* What programs share whose downtime is measured: a heart that stamps the time every 200 us and keeps the
 * largest gap between two beats.
 *
 * SIGUSR1 forgets the gap so far. SIGUSR2 has `verify` look at everything, in a thread of its own so that
 * the beat goes on. Every 25 ms or so one line goes to standard output:
 *   {"at_us":N,"max_gap_us":N,"max_gap_ended_us":N,"max_gap_monotonic_us":N,"beats":N,"work":N,
 *    "verified":N,"bad_word":N}
 * at_us is the wall clock, in microseconds since 1970, and so is max_gap_ended_us, at the end of the largest
 * gap: where it lies says whose it is. The gap is taken from CLOCK_REALTIME: CLOCK_MONOTONIC goes through
 * the time namespace of a moved process, and could hide exactly the time that is to be measured. `work` is
 * what the program has done besides beating, in units of its own. */
#pragma once
#include "prove.h"

/* The index of the first thing that is wrong, or -1. */
typedef long verify_function(void);

static atomic_bool heart_reset;
static atomic_long heart_work, heart_verified, heart_bad = -1;
static verify_function *heart_verify;

static void heart_on_reset(int signal) {
	(void)signal;
	heart_reset = true;
}

static void *heart_verify_on_request(void *unused) {
	(void)unused;
	sigset_t requests;
	sigemptyset(&requests);
	sigaddset(&requests, SIGUSR2);
	for (;;) {
		siginfo_t request;
		if (sigwaitinfo(&requests, &request) != SIGUSR2)
			continue;
		heart_bad = heart_verify();
		heart_verified++;
	}
	return NULL;
}

/* To be called before any thread is made: all of them have to leave SIGUSR2 to the one that waits for it. */
static inline void heart_prepare(verify_function *verify) {
	heart_verify = verify;
	sigset_t requests;
	sigemptyset(&requests);
	sigaddset(&requests, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &requests, NULL);
}

struct gap {
	int64_t last, longest, ended;
};

static inline void heart_beat(clockid_t clock, struct gap *gap) {
	int64_t now = now_ns(clock), since = now - gap->last;
	gap->last = now;
	if (since > gap->longest)
		gap->longest = since, gap->ended = now;
}

static inline void heart_beats(void) {
	struct gap real = {.last = now_ns(CLOCK_REALTIME)}, monotonic = {.last = now_ns(CLOCK_MONOTONIC)};
	for (long beats = 1; !prove_asked; beats++) {
		struct timespec interval = {0, 200000};
		nanosleep(&interval, NULL);
		if (atomic_exchange(&heart_reset, false))
			real.longest = monotonic.longest = 0;
		heart_beat(CLOCK_REALTIME, &real);
		heart_beat(CLOCK_MONOTONIC, &monotonic);
		if (beats % 100 == 0)
			say("{\"at_us\":%ld,\"max_gap_us\":%ld,\"max_gap_ended_us\":%ld,\"max_gap_monotonic_us\":%ld,"
				"\"beats\":%ld,\"work\":%ld,\"verified\":%ld,\"bad_word\":%ld}",
				(long)(real.last / 1000), (long)(real.longest / 1000), (long)(real.ended / 1000),
				(long)(monotonic.longest / 1000), beats, heart_work, heart_verified, heart_bad);
	}
}

/* Beats until SIGTERM, and looks at everything once more. Returns the exit status. */
static inline int heart_live(void) {
	pthread_t verifier;
	NEED(pthread_create(&verifier, NULL, heart_verify_on_request, NULL) == 0);
	struct sigaction on_usr1 = {.sa_handler = heart_on_reset}, on_term = {.sa_handler = prove_on_term};
	sigaction(SIGUSR1, &on_usr1, NULL);
	sigaction(SIGTERM, &on_term, NULL);
	prctl(PR_SET_TIMERSLACK, 1);
	say("ready");
	heart_beats();
	long bad = heart_verify();
	say(bad < 0 ? "done" : "BAD word %ld of the memory", bad);
	return bad < 0 ? 0 : 1;
}
