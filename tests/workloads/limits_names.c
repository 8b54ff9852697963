/* What a process and its threads are called, where they are, and what they may use. */
#include "prove.h"
#include <sched.h>
#include <sys/resource.h>

static char directory[4096];
static atomic_int thread_is_good = 1;

static bool reads(const char *path, const char *expected) {
	char text[200] = {0};
	int file = open(path, O_RDONLY);
	EXPECT(file >= 0 && read(file, text, sizeof text - 1) > 0, "%s", path);
	close(file);
	EXPECT(strcmp(text, expected) == 0, "%s is %s", path, text);
	return true;
}

static bool limit_is(int resource, rlim_t soft, rlim_t hard) {
	struct rlimit now;
	EXPECT_EQ(getrlimit(resource, &now), 0);
	EXPECT(now.rlim_cur == soft && now.rlim_max == hard, "limit %d: %ld %ld", resource, (long)now.rlim_cur,
		(long)now.rlim_max);
	return true;
}

static bool check(void) {
	char name[16], here[4096];
	cpu_set_t processors;
	mode_t mask = umask(0);
	umask(mask);
	EXPECT_EQ(mask, 0137);
	prctl(PR_GET_NAME, name);
	EXPECT(strcmp(name, "a name\xff)") == 0, "comm is %s", name);
	EXPECT(getcwd(here, sizeof here) && strcmp(here, directory) == 0, "cwd is %s", here);
	EXPECT_EQ(getpriority(PRIO_PROCESS, 0), 7);
	EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH);
	EXPECT_EQ(sched_getaffinity(0, sizeof processors, &processors), 0);
	EXPECT(CPU_COUNT(&processors) == 1 && CPU_ISSET(0, &processors), "%d processors", CPU_COUNT(&processors));
	EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 123456);
	EXPECT_EQ(prctl(PR_GET_CHILD_SUBREAPER, name), 0);
	EXPECT_EQ(name[0], 1);
	EXPECT_EQ(prctl(PR_GET_PDEATHSIG, name), 0);
	EXPECT_EQ(name[0], SIGUSR1);
	EXPECT_EQ(thread_is_good, 1);
	return reads("/proc/self/oom_score_adj", "555\n") && limit_is(RLIMIT_NOFILE, 321, 4321)
		&& limit_is(RLIMIT_CORE, 0, 1 << 20) && limit_is(RLIMIT_STACK, 4 << 20, 64 << 20);
}

static void spoil(void) { umask(022); }

/* Names and scheduling belong to a thread. */
static void *watch(void *unused) {
	char name[16];
	prctl(PR_SET_NAME, "second");
	setpriority(PRIO_PROCESS, 0, 11);
	for (;; usleep(5000)) {
		prctl(PR_GET_NAME, name);
		if (strcmp(name, "second") != 0 || getpriority(PRIO_PROCESS, 0) != 11)
			thread_is_good = 0;
	}
	return unused;
}

static void set_limit(int resource, rlim_t soft, rlim_t hard) {
	NEED(setrlimit(resource, &(struct rlimit){soft, hard}) == 0);
}

int main(void) {
	cpu_set_t first;
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	char made[] = "directory.XXXXXX";
	NEED(mkdtemp(made) && chdir(made) == 0 && getcwd(directory, sizeof directory));
	set_limit(RLIMIT_NOFILE, 321, 4321);
	set_limit(RLIMIT_CORE, 0, 1 << 20);
	set_limit(RLIMIT_STACK, 4 << 20, 64 << 20);
	umask(0137);
	NEED(prctl(PR_SET_NAME, "a name\xff)") == 0 && prctl(PR_SET_TIMERSLACK, 123456) == 0);
	NEED(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
	NEED(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
	NEED(setpriority(PRIO_PROCESS, 0, 7) == 0);
	NEED(sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}) == 0);
	NEED(sched_setaffinity(0, sizeof first, &first) == 0);
	int score = open("/proc/self/oom_score_adj", O_WRONLY);
	NEED(score >= 0 && write(score, "555", 3) == 3 && close(score) == 0);
	pthread_t second;
	NEED(pthread_create(&second, NULL, watch, NULL) == 0);
	return prove(check, spoil);
}
