/* Memory with a descriptor: mapped shared and private, with seals, an offset, a hole and a name. */
#include "prove.h"

#define PAGES 64
static int descriptor, sealed;
static char *shared, *private;
static long generation;

static bool check(void) {
	char name[100] = {0}, byte;
	struct stat now;
	NEED(readlink("/proc/self/fd/20", name, sizeof name - 1) > 0);
	EXPECT(strcmp(name, "/memfd:ledger (deleted)") == 0, "%s", name);
	EXPECT_EQ(fstat(20, &now), 0);
	EXPECT_EQ(now.st_size, PAGES * PAGE + 100);
	EXPECT_EQ(lseek(20, 0, SEEK_CUR), 12345);
	EXPECT_EQ(fcntl(sealed, F_GET_SEALS), F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE);
	EXPECT_EQ(filled(shared + PAGE, 8 * PAGE, generation), -1);
	/* The private mapping has a copy of one page and sees the file's other ones. */
	EXPECT_EQ(filled(private + PAGE, PAGE, 99), -1);
	EXPECT_EQ(memcmp(private + 2 * PAGE, shared + 2 * PAGE, 7 * PAGE), 0);
	EXPECT_EQ(shared[40 * PAGE], 0);
	fill(shared + PAGE, 8 * PAGE, ++generation);
	/* write(2) goes by the page tables of the mappings: only the object shows it. */
	byte = generation;
	EXPECT_EQ(pwrite(20, &byte, 1, 50 * PAGE), 1);
	EXPECT_EQ(shared[50 * PAGE], byte);
	return true;
}

static void spoil(void) { shared[3 * PAGE]++; }

int main(void) {
	descriptor = memfd_create("ledger", 0);
	sealed = memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	NEED(dup2(descriptor, 20) == 20 && ftruncate(20, PAGES * PAGE + 100) == 0);
	NEED(write(sealed, "x", 1) == 1);
	NEED(fcntl(sealed, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_WRITE) == 0);
	shared = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 20, 0);
	private = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 20, 0);
	NEED(shared != MAP_FAILED && private != MAP_FAILED);
	fill(shared + PAGE, 8 * PAGE, generation);
	fill(private + PAGE, PAGE, 99);
	NEED(lseek(20, 12345, SEEK_SET) == 12345);
	return prove(check, spoil);
}
