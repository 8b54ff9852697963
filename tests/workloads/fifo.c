/* A named pipe with bytes in it.  fifo PATH
 * PATH must not be one file that both hosts see: a kernel's one FIFO would join source and destination. */
#include "prove.h"

static int end;
static unsigned char next_in, next_out;

static bool check(void) {
	unsigned char bytes[10];
	struct stat now;
	int queued;
	EXPECT_EQ(fstat(end, &now), 0);
	EXPECT(S_ISFIFO(now.st_mode), "mode %o", now.st_mode);
	EXPECT_EQ(ioctl(end, FIONREAD, &queued), 0);
	EXPECT_EQ(queued, 500);
	EXPECT_EQ(read(end, bytes, sizeof bytes), 10);
	for (int i = 0; i < 10; i++) {
		EXPECT_EQ(bytes[i], next_out++);
		bytes[i] = next_in++;
	}
	EXPECT_EQ(write(end, bytes, sizeof bytes), 10);
	return true;
}

static void spoil(void) { NEED(write(end, "x", 1) == 1); }

int main(int argc, char **argv) {
	const char *path = argc > 1 ? argv[1] : "/tmp/fifo";
	NEED(mkfifo(path, 0600) == 0 || errno == EEXIST);
	end = open(path, O_RDWR | O_NONBLOCK);
	NEED(end >= 0);
	for (int i = 0; i < 500; i++)
		NEED(write(end, &(unsigned char){next_in++}, 1) == 1);
	return prove(check, spoil);
}
