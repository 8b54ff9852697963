/* A private mapping of a file: some pages written (copies of our own, some of them zeros), the others the
 * file's. Beside it memory that is nobody's file, for pages that come late. */
#include "prove.h"

#define PAGES 32
#define ANONYMOUS_PAGES 256
static char *memory, *read_only, *anonymous;
static const char zeros[PAGE];
static char path[] = "private-file.XXXXXX";
static int descriptor;

static bool check(void) {
	char page[PAGE];
	for (int i = 0; i < PAGES; i++) {
		bool own = i % 3 == 0;
		if (i % 6 == 1) {
			EXPECT(memcmp(memory + i * PAGE, zeros, PAGE) == 0, "zeros in page %d", i);
			continue;
		}
		EXPECT(filled(memory + i * PAGE, PAGE, (own ? 1000 : 0) + i) == -1, "page %d", i);
		EXPECT_EQ(pread(descriptor, page, PAGE, i * PAGE), PAGE);
		EXPECT(filled(page, PAGE, i) == -1, "page %d of the file", i);
	}
	/* Starts in the middle of the file, and was written before it became read-only. */
	EXPECT_EQ(filled(read_only, PAGE, 555), -1);
	EXPECT_EQ(filled(read_only + PAGE, PAGE, 9), -1);
	EXPECT_EQ(filled(anonymous, ANONYMOUS_PAGES * PAGE, 77), -1);
	return true;
}

static void spoil(void) { memory[8 * PAGE]++; }

int main(void) {
	char page[PAGE];
	descriptor = mkstemp(path);
	NEED(descriptor >= 0);
	for (int i = 0; i < PAGES; i++) {
		fill(page, PAGE, i);
		NEED(write(descriptor, page, PAGE) == PAGE);
	}
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
	read_only = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 8 * PAGE);
	NEED(memory != MAP_FAILED && read_only != MAP_FAILED);
	for (int i = 0; i < PAGES; i += 3)
		fill(memory + i * PAGE, PAGE, 1000 + i);
	for (int i = 1; i < PAGES; i += 6)
		memcpy(memory + i * PAGE, zeros, PAGE);
	anonymous = mmap(NULL, ANONYMOUS_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	NEED(anonymous != MAP_FAILED);
	fill(anonymous, ANONYMOUS_PAGES * PAGE, 77);
	fill(read_only, PAGE, 555);
	NEED(mprotect(read_only, 2 * PAGE, PROT_READ) == 0);
	return prove(check, spoil);
}
