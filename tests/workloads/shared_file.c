/* A shared mapping of a file that lives on both hosts: what is written is in the file and in memory. */
#include "prove.h"

#define PAGES 32
static char *memory;
static char path[] = "shared-file.XXXXXX";
static int descriptor;
static long generation;

static bool check(void) {
	static char contents[PAGES * PAGE];
	EXPECT_EQ(filled(memory, PAGES * PAGE, generation), -1);
	EXPECT_EQ(pread(descriptor, contents, sizeof contents, 0), sizeof contents);
	EXPECT_EQ(memcmp(memory, contents, sizeof contents), 0);
	fill(memory, PAGES * PAGE, ++generation);
	return true;
}

static void spoil(void) { memory[7 * PAGE]++; }

int main(void) {
	descriptor = mkstemp(path);
	NEED(descriptor >= 0 && ftruncate(descriptor, PAGES * PAGE) == 0);
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
	NEED(memory != MAP_FAILED);
	fill(memory, PAGES * PAGE, generation);
	return prove(check, spoil);
}
