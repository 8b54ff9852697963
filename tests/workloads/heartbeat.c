/* How long the program itself stands still, with nothing but memory:
 *
 *   heartbeat [MIB]   with MIB of memory filled with a pattern that does not compress
 *
 * What it says, and what it does when it is asked, is in heart.h. */
#include "heart.h"

static size_t bytes;
static uint64_t *memory;

static long verify(void) { return filled(memory, bytes, 1); }

int main(int argc, char **argv) {
	heart_prepare(verify);
	bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1) << 20;
	memory = map_anonymous(bytes, MAP_PRIVATE);
	fill(memory, bytes, 1);
	if (getenv("PROVE_SPOIL"))
		memory[5]++;
	return heart_live();
}
