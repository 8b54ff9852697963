/* Regular files: an offset, append mode, an offset shared by dup and by fork, read-only and write-only. */
#include "prove.h"

static char path[] = "regular-file.XXXXXX", log_path[] = "append.XXXXXX";
static int file, duplicate, apart, log_file, ask[2], answer[2];
static long lines;

/* The child moves the offset that it shares with its parent, and says that it did. */
static void step_forever(void) {
	char byte;
	while (read(ask[0], &byte, 1) == 1 && lseek(file, 1, SEEK_CUR) && write(answer[1], &byte, 1) == 1)
		;
	_exit(0);
}

static bool check(void) {
	off_t before = lseek(file, 0, SEEK_CUR);
	char byte = 0;
	EXPECT_EQ(before, 100 + lines * 3);
	EXPECT_EQ(lseek(duplicate, 1, SEEK_CUR), before + 1);
	EXPECT_EQ(write(ask[1], "x", 1), 1);
	EXPECT_EQ(read(answer[0], &byte, 1), 1);
	EXPECT_EQ(read(file, &byte, 1), 1);
	EXPECT_EQ((unsigned char)byte, (unsigned char)(before + 2));
	EXPECT_EQ(lseek(apart, 0, SEEK_CUR), 7);
	EXPECT_EQ(fcntl(apart, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
	EXPECT_EQ(fcntl(log_file, F_GETFL) & (O_ACCMODE | O_APPEND), O_WRONLY | O_APPEND);
	EXPECT_EQ(lseek(log_file, 0, SEEK_SET), 0);
	EXPECT_EQ(write(log_file, "line\n", 5), 5);
	EXPECT_EQ(lseek(log_file, 0, SEEK_END), ++lines * 5);
	return true;
}

static void spoil(void) { lseek(duplicate, 1, SEEK_CUR); }

int main(void) {
	static unsigned char bytes[200000];
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = i;
	file = mkstemp(path);
	log_file = mkostemp(log_path, O_APPEND);
	NEED(file >= 0 && log_file >= 0 && write(file, bytes, sizeof bytes) == sizeof bytes);
	close(log_file);
	log_file = open(log_path, O_WRONLY | O_APPEND);
	apart = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	duplicate = dup(file);
	NEED(lseek(file, 100, SEEK_SET) == 100 && lseek(apart, 7, SEEK_SET) == 7);
	NEED(pipe(ask) == 0 && pipe(answer) == 0);
	if (fork_child() == 0)
		step_forever();
	return prove(check, spoil);
}
