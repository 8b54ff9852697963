/* Timers behind descriptors: one that ticks, one far away, an absolute one, one that has fired and was
 * not read, one that is not armed. */
#include "prove.h"
#include <sys/timerfd.h>

static int ticking, far, absolute, fired, idle;
static int64_t started, ticks, far_end, absolute_end;

static int make(clockid_t clock, int flags, int64_t ns, int64_t interval_ns) {
	struct itimerspec setting = {{interval_ns / 1000000000, interval_ns % 1000000000},
		{ns / 1000000000, ns % 1000000000}};
	int timer = timerfd_create(clock, TFD_NONBLOCK);
	NEED(timer >= 0 && timerfd_settime(timer, flags, &setting, NULL) == 0);
	return timer;
}

static int64_t left(int timer) {
	struct itimerspec now;
	return timerfd_gettime(timer, &now) ? -1 : now.it_value.tv_sec * 1000000000LL + now.it_value.tv_nsec;
}

/* Late by at most 1 s: the two clocks are read apart, on a loaded machine. */
static bool ends_at(int timer, clockid_t clock, int64_t end, const char *name) {
	int64_t off = now_ns(clock) + left(timer) - end;
	EXPECT(off > -1000000000LL && off < 1000000000LL, "%s is off by %ld us", name, (long)(off / 1000));
	return true;
}

static bool check(void) {
	uint64_t count;
	if (read(ticking, &count, 8) == 8)
		ticks += count;
	int64_t due = (now_ns(CLOCK_MONOTONIC) - started) / 20000000;
	EXPECT(ticks <= due && ticks >= due - 50, "%ld ticks instead of %ld", (long)ticks, (long)due);
	EXPECT_EQ(left(idle), 0);
	EXPECT_EQ(read(idle, &count, 8), -1);
	if (prove_last) {
		EXPECT_EQ(read(fired, &count, 8), 8);
		EXPECT_EQ(count, 1);
	}
	return ends_at(far, CLOCK_BOOTTIME, far_end, "the far one")
		&& ends_at(absolute, CLOCK_REALTIME, absolute_end, "the absolute one");
}

static void spoil(void) { ticks += 1000000; }

int main(void) {
	started = now_ns(CLOCK_MONOTONIC);
	far_end = now_ns(CLOCK_BOOTTIME) + 1000000000000;
	absolute_end = now_ns(CLOCK_REALTIME) + 2000000000000;
	ticking = make(CLOCK_MONOTONIC, 0, 20000000, 20000000);
	far = make(CLOCK_BOOTTIME, 0, 1000000000000, 0);
	absolute = make(CLOCK_REALTIME, TFD_TIMER_ABSTIME, absolute_end, 0);
	fired = make(CLOCK_MONOTONIC, 0, 1, 0);
	idle = make(CLOCK_MONOTONIC, 0, 0, 0);
	return prove(check, spoil);
}
