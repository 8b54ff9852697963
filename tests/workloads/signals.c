/* Actions, masks, pending signals with their values, an alternate stack; of the process and of a thread. */
#include "prove.h"

#define STACK 65536
static char *stack;
static volatile sig_atomic_t handled, on_stack;
static pthread_t other;
static atomic_int other_state;
static int value = 40;

static void handle(int signal, siginfo_t *info, void *context) {
	(void)context, (void)info;
	char here;
	handled = signal;
	on_stack = &here >= stack && &here < stack + STACK;
}

static bool actions_are_kept(void) {
	struct sigaction now;
	EXPECT_EQ(sigaction(SIGUSR1, NULL, &now), 0);
	EXPECT(now.sa_sigaction == handle, "another handler");
	EXPECT_EQ(now.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_RESTART), SA_SIGINFO | SA_ONSTACK | SA_RESTART);
	EXPECT_EQ(sigismember(&now.sa_mask, SIGWINCH), 1);
	EXPECT_EQ(sigismember(&now.sa_mask, SIGHUP), 0);
	EXPECT_EQ(sigaction(SIGHUP, NULL, &now), 0);
	EXPECT(now.sa_handler == SIG_IGN, "SIGHUP is not ignored");
	EXPECT_EQ(sigaction(SIGQUIT, NULL, &now), 0);
	EXPECT(now.sa_handler == SIG_DFL, "SIGQUIT is not at its default");
	return true;
}

/* Three queued real-time signals come out in their order, with values and sender; then go in again. */
static bool queue_is_kept(void) {
	sigset_t set;
	siginfo_t info;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(sigtimedwait(&set, &info, &(struct timespec){0, 0}), SIGRTMIN + 5);
		EXPECT_EQ(info.si_value.sival_int, value + i);
		EXPECT_EQ(info.si_code, SI_QUEUE);
		EXPECT_EQ(info.si_pid, getpid());
	}
	EXPECT_EQ(sigtimedwait(&set, &info, &(struct timespec){0, 0}), -1);
	value++;
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = value + i}), 0);
	return true;
}

static bool check(void) {
	sigset_t pending, mask;
	sigpending(&pending);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	EXPECT_EQ(sigismember(&pending, SIGALRM), 1);
	EXPECT_EQ(sigismember(&pending, SIGIO), 0);
	EXPECT_EQ(sigismember(&mask, SIGALRM), 1);
	EXPECT_EQ(sigismember(&mask, SIGIO), 0);
	stack_t now;
	EXPECT_EQ(sigaltstack(NULL, &now), 0);
	EXPECT(now.ss_sp == stack && now.ss_size == STACK && now.ss_flags == 0, "alternate stack %p", now.ss_sp);
	handled = on_stack = 0;
	raise(SIGUSR1);
	EXPECT_EQ(handled, SIGUSR1);
	EXPECT_EQ(on_stack, 1);
	EXPECT_EQ(other_state, 1);
	return actions_are_kept() && queue_is_kept();
}

static void spoil(void) { signal(SIGHUP, SIG_DFL); }

/* A mask of its own, and a signal that is pending for this thread alone. */
static void *watch(void *unused) {
	sigset_t set, pending;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_kill(pthread_self(), SIGUSR2);
	for (;; usleep(5000)) {
		sigpending(&pending);
		pthread_sigmask(SIG_SETMASK, NULL, &set);
		bool good = sigismember(&pending, SIGUSR2) && sigismember(&set, SIGUSR2);
		other_state = good && other_state != -1 ? 1 : -1;
	}
	return unused;
}

int main(void) {
	struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
	sigaddset(&action.sa_mask, SIGWINCH);
	stack = map_anonymous(STACK, MAP_PRIVATE);
	NEED(sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = STACK}, NULL) == 0);
	NEED(sigaction(SIGUSR1, &action, NULL) == 0 && signal(SIGHUP, SIG_IGN) != SIG_ERR);
	NEED(signal(SIGQUIT, SIG_DFL) != SIG_ERR);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigaddset(&set, SIGRTMIN + 5);
	sigprocmask(SIG_BLOCK, &set, NULL);
	NEED(kill(getpid(), SIGALRM) == 0);
	for (int i = 0; i < 3; i++)
		NEED(sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = value + i}) == 0);
	NEED(pthread_create(&other, NULL, watch, NULL) == 0);
	while (!other_state)
		usleep(1000);
	return prove(check, spoil);
}
