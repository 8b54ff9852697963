/* One description under several numbers, in several processes; each number with its own close-on-exec. */
#include "prove.h"
#include <linux/kcmp.h>

static int first, second, high, other;
static pid_t child;
static char path[] = "dup.XXXXXX";

static long compare(pid_t pid, int a, int b) {
	return syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, a, b);
}

static bool check(void) {
	EXPECT_EQ(compare(getpid(), first, second), 0);
	EXPECT_EQ(compare(getpid(), first, high), 0);
	EXPECT(compare(getpid(), first, other) != 0, "two opens became one");
	EXPECT_EQ(compare(child, first, first), 0);
	/* The child closed `second` and holds the same description under 77. */
	EXPECT_EQ(compare(child, first, 77), 0);
	EXPECT_EQ(compare(child, first, second), -1);
	EXPECT_EQ(errno, EBADF);
	EXPECT_EQ(fcntl(first, F_GETFD), 0);
	EXPECT_EQ(fcntl(second, F_GETFD), FD_CLOEXEC);
	EXPECT_EQ(fcntl(high, F_GETFD), 0);
	EXPECT_EQ(lseek(second, 0, SEEK_CUR), lseek(high, 0, SEEK_CUR));
	EXPECT_EQ(lseek(other, 0, SEEK_CUR), 0);
	lseek(first, 3, SEEK_CUR);
	/* Status flags belong to the description, so all see a change of one. */
	EXPECT_EQ(fcntl(high, F_SETFL, fcntl(first, F_GETFL) ^ O_NONBLOCK), 0);
	EXPECT_EQ(fcntl(first, F_GETFL), fcntl(second, F_GETFL));
	return true;
}

static void spoil(void) { dup2(other, high); }

int main(void) {
	first = mkstemp(path), second = fcntl(first, F_DUPFD_CLOEXEC, 10), high = dup2(first, 900);
	other = open(path, O_RDWR);
	NEED(first >= 0 && second >= 10 && high == 900 && other >= 0);
	if ((child = fork_child()) == 0) {
		dup2(first, 77);
		close(second);
		for (;;)
			pause();
	}
	while (syscall(SYS_kcmp, child, child, KCMP_FILE, first, second) != -1)
		usleep(1000);
	return prove(check, spoil);
}
