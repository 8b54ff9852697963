/* Every shape of private memory: protections, holes, huge pages, a stack that grows, locked pages, advice. */
#include "prove.h"

#define MIB (1 << 20)
static char *split, *none, *sparse, *huge, *locked, *wiped, *executable;

static long grow(int depth) {
	volatile char frame[8192];
	frame[0] = frame[8191] = depth;
	return depth ? grow(depth - 1) + frame[8191] - depth : frame[0];
}

/* The mode of the mapping that starts at `address`, and its VmFlags. */
static bool smaps_say(void *address, const char *mode, const char *flag) {
	char line[512], start[32];
	bool inside = false, found = false;
	FILE *smaps = fopen("/proc/self/smaps", "r");
	snprintf(start, sizeof start, "%lx-", (unsigned long)address);
	while (fgets(line, sizeof line, smaps)) {
		if (strncmp(line, start, strlen(start)) == 0)
			inside = strstr(line, mode) != NULL;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, flag) != NULL, inside = false;
	}
	fclose(smaps);
	EXPECT(found, "the mapping at %s is not %s with flag %s", start, mode, flag);
	return true;
}

static bool check(void) {
	typedef long function(void);
	for (int i = 0; i < 16; i++)
		EXPECT_EQ(filled(split + i * PAGE, PAGE, i), -1);
	EXPECT_EQ(((function *)executable)(), 4711);
	EXPECT_EQ(filled(sparse + 511L * MIB, PAGE, 5), -1);
	EXPECT_EQ(sparse[300L * MIB], 0);
	EXPECT_EQ(filled(huge, 4 * MIB, 6), -1);
	EXPECT_EQ(filled(locked, 16 * PAGE, 8), -1);
	EXPECT_EQ(filled(wiped, PAGE, 9), -1);
	EXPECT_EQ(grow(64), 0);
	/* Written behind a protection that forbids even reading. */
	EXPECT_EQ(mprotect(none, PAGE, PROT_READ), 0);
	EXPECT_EQ(filled(none, PAGE, 10), -1);
	EXPECT_EQ(mprotect(none, PAGE, PROT_NONE), 0);
	return smaps_say(split + 4 * PAGE, "r--p", "mr") && smaps_say(none, "---p", "mr")
		&& smaps_say(sparse, "rw-p", "nr") && smaps_say(locked, "rw-p", "lo")
		&& smaps_say(wiped, "rw-p", "wf") && smaps_say(executable, "r-xp", "ex");
}

static void spoil(void) { mprotect(split + 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE); }

int main(void) {
	static const unsigned char code[] = {0xb8, 0x67, 0x12, 0, 0, 0xc3};
	split = map_anonymous(16 * PAGE, MAP_PRIVATE);
	for (int i = 0; i < 16; i++)
		fill(split + i * PAGE, PAGE, i);
	NEED(mprotect(split + 4 * PAGE, 4 * PAGE, PROT_READ) == 0);
	none = map_anonymous(PAGE, MAP_PRIVATE), fill(none, PAGE, 10);
	NEED(mprotect(none, PAGE, PROT_NONE) == 0);
	sparse = map_anonymous(512L * MIB, MAP_PRIVATE | MAP_NORESERVE), fill(sparse + 511L * MIB, PAGE, 5);
	huge = map_anonymous(6 * MIB, MAP_PRIVATE);
	huge = (char *)(((uintptr_t)huge + 2 * MIB - 1) & ~(2UL * MIB - 1));
	madvise(huge, 4 * MIB, MADV_HUGEPAGE), fill(huge, 4 * MIB, 6);
	locked = map_anonymous(16 * PAGE, MAP_PRIVATE), fill(locked, 16 * PAGE, 8);
	NEED(mlock(locked, 16 * PAGE) == 0);
	wiped = map_anonymous(PAGE, MAP_PRIVATE), fill(wiped, PAGE, 9);
	NEED(madvise(wiped, PAGE, MADV_WIPEONFORK) == 0);
	executable = map_anonymous(PAGE, MAP_PRIVATE), memcpy(executable, code, sizeof code);
	NEED(mprotect(executable, PAGE, PROT_READ | PROT_EXEC) == 0);
	return prove(check, spoil);
}
