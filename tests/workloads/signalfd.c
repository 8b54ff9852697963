/* Signals that are read from a descriptor; one with a value is always pending. */
#include "prove.h"
#include <sys/signalfd.h>

static int descriptor;
static int value = 100;

static bool check(void) {
	struct signalfd_siginfo info;
	EXPECT_EQ(read(descriptor, &info, sizeof info), sizeof info);
	EXPECT_EQ(info.ssi_signo, SIGRTMIN + 3);
	EXPECT_EQ(info.ssi_int, value);
	EXPECT_EQ(info.ssi_pid, getpid());
	EXPECT_EQ(read(descriptor, &info, sizeof info), -1);
	EXPECT_EQ(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = ++value}), 0);
	return true;
}

static void spoil(void) { NEED(kill(getpid(), SIGUSR2) == 0); }

int main(void) {
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGRTMIN + 3);
	sigaddset(&signals, SIGUSR2);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	descriptor = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	NEED(descriptor >= 0);
	NEED(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = value}) == 0);
	return prove(check, spoil);
}
