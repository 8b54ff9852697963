/* The character devices that are the same everywhere. */
#include "prove.h"
#include <sys/sysmacros.h>

static int null, zero, full, random_device, urandom;
static char *from_zero;

static bool is_device(int descriptor, int minor_number) {
	struct stat now;
	EXPECT_EQ(fstat(descriptor, &now), 0);
	EXPECT(S_ISCHR(now.st_mode), "mode %o", now.st_mode);
	EXPECT_EQ(major(now.st_rdev), 1);
	EXPECT_EQ(minor(now.st_rdev), minor_number);
	return true;
}

static bool check(void) {
	char bytes[16] = "xxxxxxxxxxxxxxx", other[16] = {0}, zeros[16] = {0};
	EXPECT_EQ(read(null, bytes, 16), 0);
	EXPECT_EQ(write(null, bytes, 16), 16);
	EXPECT_EQ(read(zero, bytes, 16), 16);
	EXPECT_EQ(memcmp(bytes, zeros, 16), 0);
	EXPECT_EQ(write(full, bytes, 16), -1);
	EXPECT_EQ(errno, ENOSPC);
	EXPECT_EQ(read(random_device, bytes, 16), 16);
	EXPECT_EQ(read(urandom, other, 16), 16);
	EXPECT(memcmp(bytes, other, 16) && memcmp(bytes, zeros, 16), "random bytes are not");
	EXPECT_EQ(filled(from_zero, 4 * PAGE, 3), -1);
	return is_device(null, 3) && is_device(zero, 5) && is_device(full, 7) && is_device(random_device, 8)
		&& is_device(urandom, 9);
}

static void spoil(void) { dup2(zero, null); }

int main(void) {
	null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY);
	full = open("/dev/full", O_WRONLY), random_device = open("/dev/random", O_RDONLY | O_NONBLOCK);
	urandom = open("/dev/urandom", O_RDONLY);
	NEED(null >= 0 && zero >= 0 && full >= 0 && random_device >= 0 && urandom >= 0);
	from_zero = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
	NEED(from_zero != MAP_FAILED);
	fill(from_zero, 4 * PAGE, 3);
	return prove(check, spoil);
}
