/* One number in every sort of private memory: heap, stack, data, zero-initialised, thread-local. */
#include "prove.h"

static long in_data = 7, in_bss;
static __thread long in_tls = 7;
static long *in_heap, *on_stack;

static bool check(void) {
	EXPECT_EQ(in_bss, in_data - 7);
	EXPECT_EQ(in_tls, in_data);
	EXPECT_EQ(*in_heap, in_data);
	EXPECT_EQ(*on_stack, in_data);
	in_data++, in_bss++, in_tls++, (*in_heap)++, (*on_stack)++;
	return true;
}

static void spoil(void) { *in_heap += 1; }

int main(void) {
	volatile long local = 7;
	on_stack = (long *)&local;
	in_heap = malloc(sizeof *in_heap);
	NEED(in_heap);
	*in_heap = 7;
	return prove(check, spoil);
}
