/* What a machine does to whoever runs on it: on each processor a real-time thread that has nothing to do but to
 * wake every 300 us says when it was kept from that for longer than a millisecond. No program is ahead of it: the
 * kernel did not let it, or whoever runs the machine did not let the machine (a virtual one, or one with a quota).
 *
 * A line for each, in microseconds since 1970: {"processor":N,"began_us":N,"ended_us":N} */
#include "prove.h"
#include <sched.h>

enum { WAKES_NS = 300 * 1000, LEAST_US = 1000 };

static void require(bool done) {
	if (!done) {
		perror("witness");
		exit(1);
	}
}

static int64_t wall_us(void) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void *watch(void *which) {
	long processor = (long)which;
	cpu_set_t alone;
	CPU_ZERO(&alone);
	CPU_SET(processor, &alone);
	require(sched_setaffinity(0, sizeof alone, &alone) == 0);
	require(sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){50}) == 0);
	for (int64_t last = wall_us();;) {
		nanosleep(&(struct timespec){0, WAKES_NS}, NULL);
		int64_t now = wall_us();
		if (now - last > LEAST_US)
			say("{\"processor\":%ld,\"began_us\":%lld,\"ended_us\":%lld}", processor, (long long)last, (long long)now);
		last = now;
	}
	return NULL;
}

int main(void) {
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	cpu_set_t ours;
	require(sched_getaffinity(0, sizeof ours, &ours) == 0);
	for (long processor = 0; processor < CPU_SETSIZE; processor++) {
		pthread_t thread;
		if (CPU_ISSET(processor, &ours))
			require(pthread_create(&thread, NULL, watch, (void *)processor) == 0);
	}
	say("ready");
	pause();
	return 0;
}
