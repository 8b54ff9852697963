/* Children and grandchildren, with threads, in process groups and sessions of their own; one is a zombie
 * whose status was not asked for yet, one is stopped. At the end every child is waited for. */
#include "prove.h"

enum { SAME_GROUP, OWN_GROUP, OWN_SESSION, WITH_GRANDCHILD, COUNT };
static struct table {
	struct row {
		_Atomic pid_t pid, parent, group, session;
		atomic_long beats;
	} rows[COUNT + 1];
} *table;
static pid_t zombie, stopped, parent_group, parent_session;

static void *beat_in_a_thread(void *row) {
	for (;; usleep(2000))
		((struct row *)row)->beats++;
	return NULL;
}

/* Proves where it stands in the tree by its beats: it stops beating when that is wrong. */
static void live(struct row *row) {
	pthread_t thread;
	row->parent = getppid();
	row->group = getpgrp();
	row->session = getsid(0);
	row->pid = getpid();
	pthread_create(&thread, NULL, beat_in_a_thread, row);
	while (getpid() == row->pid && getppid() == row->parent && getpgrp() == row->group
		&& getsid(0) == row->session)
		usleep(5000);
	_exit(99);
}

static void start(int kind) {
	struct row *row = &table->rows[kind];
	if (fork_child() == 0) {
		if (kind == OWN_GROUP)
			setpgid(0, 0);
		if (kind == OWN_SESSION)
			setsid();
		if (kind == WITH_GRANDCHILD && fork_child() == 0)
			live(&table->rows[COUNT]);
		live(row);
	}
	while (row->pid == 0 || (kind == WITH_GRANDCHILD && table->rows[COUNT].pid == 0))
		usleep(1000);
}

static bool lives(struct row *row) {
	long before = row->beats;
	for (int i = 0; row->beats == before; i++) {
		EXPECT(i < 20000, "process %d stands still", row->pid);
		usleep(1000);
	}
	EXPECT_EQ(getpgid(row->pid), row->group);
	EXPECT_EQ(getsid(row->pid), row->session);
	return true;
}

static bool ends_by_signal(pid_t pid) {
	int status;
	EXPECT_EQ(kill(pid, SIGKILL), 0);
	EXPECT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, SIGKILL);
	return true;
}

/* The zombie still has its status, every child is still ours, and there is no other. */
static bool all_can_be_waited_for(void) {
	int status;
	EXPECT_EQ(waitpid(zombie, &status, 0), zombie);
	EXPECT_EQ(status, 42 << 8);
	for (int kind = 0; kind < COUNT; kind++)
		if (!ends_by_signal(table->rows[kind].pid))
			return false;
	if (!ends_by_signal(stopped))
		return false;
	EXPECT_EQ(waitpid(-1, NULL, WNOHANG), -1);
	EXPECT_EQ(errno, ECHILD);
	return true;
}

static bool check(void) {
	siginfo_t info = {0};
	EXPECT_EQ(waitid(P_PID, zombie, &info, WEXITED | WNOHANG | WNOWAIT), 0);
	EXPECT_EQ(info.si_pid, zombie);
	EXPECT_EQ(info.si_status, 42);
	for (int row = 0; row <= COUNT; row++)
		if (!lives(&table->rows[row]))
			return false;
	EXPECT_EQ(getpgrp(), parent_group);
	EXPECT_EQ(getsid(0), parent_session);
	return !prove_last || all_can_be_waited_for();
}

static void spoil(void) { waitpid(zombie, NULL, 0); }

int main(void) {
	parent_group = getpgrp(), parent_session = getsid(0);
	table = map_anonymous(sizeof *table, MAP_SHARED);
	for (int kind = 0; kind < COUNT; kind++)
		start(kind);
	if ((zombie = fork_child()) == 0)
		_exit(42);
	if ((stopped = fork_child()) == 0)
		for (;;)
			pause();
	siginfo_t info;
	NEED(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT) == 0);
	NEED(kill(stopped, SIGSTOP) == 0 && waitpid(stopped, NULL, WUNTRACED) == stopped);
	return prove(check, spoil);
}
