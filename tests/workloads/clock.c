/* Clocks that only go forward, seen by the vdso and by the system call alike. */
#include "prove.h"

static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW,
	CLOCK_MONOTONIC_COARSE, CLOCK_REALTIME};
#define CLOCKS 5
static int64_t last[CLOCKS], apart;
static atomic_bool backwards;

static int64_t by_syscall(clockid_t clock) {
	struct timespec now;
	syscall(SYS_clock_gettime, clock, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Spins over the clock without pause: a step backwards lasts only until the clock has caught up. */
static void *watch(void *unused) {
	for (int64_t before = 0;;) {
		int64_t now = now_ns(CLOCK_MONOTONIC);
		if (now < before)
			backwards = true;
		before = now;
		usleep(50);
	}
	return unused;
}

static bool check(void) {
	for (int i = 0; i < CLOCKS; i++) {
		int64_t vdso = now_ns(clocks[i]), kernel = by_syscall(clocks[i]);
		EXPECT(vdso >= last[i], "clock %d runs backwards by %ld us", clocks[i], (long)((last[i] - vdso) / 1000));
		EXPECT(kernel >= vdso && kernel < vdso + 5000000000, "clock %d: the vdso is %ld us away", clocks[i],
			(long)((kernel - vdso) / 1000));
		EXPECT(last[i] == 0 || kernel < last[i] + 600000000000, "clock %d leaps", clocks[i]);
		last[i] = kernel;
	}
	/* Both go on together, or a deadline in one is missed in the other. */
	int64_t now_apart = now_ns(CLOCK_BOOTTIME) - now_ns(CLOCK_MONOTONIC);
	EXPECT(llabs(now_apart - apart) < 5000000000, "boot time went %ld ms away", (long)((now_apart - apart) / 1000000));
	EXPECT(!backwards, "CLOCK_MONOTONIC ran backwards between two checks");
	return true;
}

static void spoil(void) { last[0] += 1000000000000; }

int main(void) {
	pthread_t watcher;
	apart = now_ns(CLOCK_BOOTTIME) - now_ns(CLOCK_MONOTONIC);
	NEED(pthread_create(&watcher, NULL, watch, NULL) == 0);
	return prove(check, spoil);
}
