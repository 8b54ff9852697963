/* Interval timers of the three clocks, and POSIX timers that tick, are far away, or go to one thread. */
#include "prove.h"
#include <sys/time.h>

static volatile sig_atomic_t alarms, ticks;
static timer_t ticking, far, disarmed;
static int64_t far_end, started;

static void on_alarm(int signal) {
	(void)signal;
	alarms++;
}

static void on_tick(int signal, siginfo_t *info, void *context) {
	(void)signal, (void)context;
	ticks += info->si_value.sival_int == 4711 ? 1 + info->si_overrun : -1000000;
}

static bool interval_is(int which, long interval_us, long left_max_s) {
	struct itimerval now;
	EXPECT_EQ(getitimer(which, &now), 0);
	/* One that fires in the middle of the call says that nothing remains, until its signal is taken. */
	if (which == ITIMER_REAL && !now.it_value.tv_sec && !now.it_value.tv_usec)
		EXPECT_EQ(getitimer(which, &now), 0);
	EXPECT(now.it_interval.tv_usec == interval_us, "timer %d: %ld", which, now.it_interval.tv_usec);
	EXPECT(now.it_value.tv_sec || now.it_value.tv_usec, "timer %d is disarmed", which);
	EXPECT(now.it_value.tv_sec <= left_max_s, "timer %d: %ld s", which, now.it_value.tv_sec);
	return true;
}

static bool check(void) {
	struct itimerspec now;
	EXPECT_EQ(timer_gettime(far, &now), 0);
	int64_t off = now_ns(CLOCK_MONOTONIC) + now.it_value.tv_sec * 1000000000LL + now.it_value.tv_nsec - far_end;
	EXPECT(off > -1000000000 && off < 1000000000, "the far timer is off by %ld us", (long)(off / 1000));
	EXPECT_EQ(timer_gettime(disarmed, &now), 0);
	EXPECT_EQ(now.it_value.tv_sec + now.it_value.tv_nsec, 0);
	long due = (now_ns(CLOCK_MONOTONIC) - started) / 20000000;
	EXPECT(ticks >= due - 100 && ticks <= due + 2, "%d ticks instead of %ld", ticks, due);
	/* One alarm in 30 ms is due; a loaded machine may merge some. */
	EXPECT(due < 50 || alarms > 3, "%d alarms", alarms);
	return interval_is(ITIMER_REAL, 30000, 0) && interval_is(ITIMER_VIRTUAL, 500, 1000)
		&& interval_is(ITIMER_PROF, 700, 2000);
}

static void spoil(void) { NEED(timer_settime(far, 0, &(struct itimerspec){{0, 0}, {5, 0}}, NULL) == 0); }

static timer_t make(clockid_t clock, int signal, int64_t ns, int64_t interval_ns) {
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal, .sigev_value.sival_int = 4711};
	struct itimerspec setting = {{0, interval_ns}, {ns / 1000000000, ns % 1000000000}};
	timer_t timer;
	NEED(timer_create(clock, &event, &timer) == 0 && timer_settime(timer, 0, &setting, NULL) == 0);
	return timer;
}

int main(void) {
	struct sigaction alarm_action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	struct sigaction tick_action = {.sa_sigaction = on_tick, .sa_flags = SA_RESTART | SA_SIGINFO};
	sigaction(SIGALRM, &alarm_action, NULL);
	sigaction(SIGRTMIN + 1, &tick_action, NULL);
	setitimer(ITIMER_REAL, &(struct itimerval){{0, 30000}, {0, 30000}}, NULL);
	setitimer(ITIMER_VIRTUAL, &(struct itimerval){{0, 500}, {1000, 0}}, NULL);
	setitimer(ITIMER_PROF, &(struct itimerval){{0, 700}, {2000, 0}}, NULL);
	/* An identifier with a gap below it: the numbers must come back, not only the timers. */
	timer_t gap = make(CLOCK_MONOTONIC, SIGUSR1, 0, 0);
	started = now_ns(CLOCK_MONOTONIC);
	ticking = make(CLOCK_MONOTONIC, SIGRTMIN + 1, 20000000, 20000000);
	far_end = now_ns(CLOCK_MONOTONIC) + 5000000000000;
	far = make(CLOCK_MONOTONIC, SIGUSR1, 5000000000000, 0);
	disarmed = make(CLOCK_REALTIME, SIGUSR1, 0, 0);
	timer_delete(gap);
	return prove(check, spoil);
}
