/* A prefork server: a parent with much memory and eight children that share it since they were forked, but
 * for a twentieth each that they have written; and a grandchild, which shares with its own parent. Arguments:
 * MiB of memory; "late" to fork at SIGUSR1 and not before. Each proves every page of its own, among them such as were dropped, mapped over, or never
 * inherited (MADV_WIPEONFORK, MADV_DONTFORK). */
#include "prove.h"

enum { CHILDREN = 8, GRANDCHILD = 9, COUNT = 10, EXTRA = 16 };
enum { DROPS = 3, MAPS_OVER = 4, HAS_CHILD = 2, DROPPED = 40, MAPPED_OVER = 60 };
static struct table {
	atomic_long asked, answered[COUNT];
	atomic_int bad[COUNT], is_spoilt;
} *table;
static char *memory, *wiped, *left_out;
static long pages;
static int self;
static bool has_children;
static volatile sig_atomic_t is_told_to_fork;

static void on_usr1(int signal) {
	(void)signal;
	is_told_to_fork = 1;
}

static bool is_own(int who, long page) {
	if (who == 0) /* Written after the children were there: they have what was before. */
		return has_children && page % 100 == 99;
	return page % 20 == who || (who == GRANDCHILD && page % 20 == HAS_CHILD);
}

static uint64_t seed(int who, long page) {
	if (who == GRANDCHILD && page % 20 == HAS_CHILD)
		who = HAS_CHILD;
	return (uint64_t)page * PAGE + (is_own(who, page) ? (who + 1) * 1000000007ULL : 0);
}

static bool is_zero(const char *page) {
	for (int i = 0; i < PAGE; i++)
		if (page[i] != 0)
			return false;
	return true;
}

static bool is_right(long page) {
	const char *at = memory + page * PAGE;
	if (self == DROPS && page >= DROPPED && page < DROPPED + EXTRA)
		return is_zero(at);
	if (self == MAPS_OVER && page >= MAPPED_OVER && page < MAPPED_OVER + EXTRA)
		return filled(at, PAGE, 5000 + page) == -1;
	return filled(at, PAGE, seed(self, page)) == -1;
}

/* The first page that is wrong, plus one; or 0. */
static int wrong(void) {
	for (long page = 0; page < pages; page++)
		if (!is_right(page))
			return page + 1;
	for (int page = 0; page < EXTRA; page++)
		if (self == 0 ? filled(wiped + page * PAGE, PAGE, page) != -1 : !is_zero(wiped + page * PAGE))
			return pages + page + 1;
	bool is_mapped = msync(left_out, PAGE, MS_ASYNC) == 0;
	bool is_good = is_mapped ? filled(left_out, EXTRA * PAGE, 77) == -1 : errno == ENOMEM;
	return is_mapped == (self == 0) && is_good ? 0 : pages + EXTRA + 1;
}

static void write_own(void) {
	for (long page = 0; page < pages; page++)
		if (is_own(self, page) && !(self == GRANDCHILD && page % 20 == HAS_CHILD))
			fill(memory + page * PAGE, PAGE, seed(self, page));
	if (self == DROPS)
		NEED(madvise(memory + DROPPED * PAGE, EXTRA * PAGE, MADV_DONTNEED) == 0);
	if (self == MAPS_OVER) {
		char *at = memory + MAPPED_OVER * PAGE;
		int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
		NEED(mmap(at, EXTRA * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) == at);
		for (int page = MAPPED_OVER; page < MAPPED_OVER + EXTRA; page++)
			fill(memory + page * PAGE, PAGE, 5000 + page);
	}
}

static void answer_for_ever(void) {
	for (;; usleep(2000)) {
		long asked = table->asked;
		if (asked == table->answered[self])
			continue;
		if (self == 1 && table->is_spoilt)
			memory[11 * PAGE]++;
		table->bad[self] = wrong();
		table->answered[self] = asked;
	}
}

static void start(int who) {
	if (fork_child() != 0)
		return;
	self = who;
	write_own();
	if (who == HAS_CHILD)
		start(GRANDCHILD);
	answer_for_ever();
}

static void have_children(void) {
	for (int who = 1; who <= CHILDREN; who++)
		start(who);
	has_children = true;
	write_own();
}

static bool check(void) {
	if (is_told_to_fork && !has_children)
		have_children();
	long asked = ++table->asked;
	EXPECT_EQ(wrong(), 0);
	for (int who = 1; has_children && who < COUNT; who++) {
		for (int i = 0; table->answered[who] != asked; i++) {
			EXPECT(i < 20000, "process %d does not answer", who);
			usleep(1000);
		}
		EXPECT(table->bad[who] == 0, "page %d of process %d", table->bad[who] - 1, who);
	}
	return true;
}

static void spoil(void) { table->is_spoilt = 1; }

int main(int count, char **arguments) {
	pages = (count > 1 ? atol(arguments[1]) : 16) << 8;
	table = map_anonymous(sizeof *table, MAP_SHARED);
	memory = map_anonymous(pages * PAGE, MAP_PRIVATE);
	wiped = map_anonymous(EXTRA * PAGE, MAP_PRIVATE);
	left_out = map_anonymous(EXTRA * PAGE, MAP_PRIVATE);
	for (long page = 0; page < pages; page++)
		fill(memory + page * PAGE, PAGE, page * PAGE);
	for (int page = 0; page < EXTRA; page++)
		fill(wiped + page * PAGE, PAGE, page);
	fill(left_out, EXTRA * PAGE, 77);
	NEED(madvise(wiped, EXTRA * PAGE, MADV_WIPEONFORK) == 0);
	NEED(madvise(left_out, EXTRA * PAGE, MADV_DONTFORK) == 0);
	struct sigaction on_told = {.sa_handler = on_usr1};
	sigaction(SIGUSR1, &on_told, NULL);
	if (count < 3)
		have_children();
	/* Everybody has written before we say that we are ready. */
	NEED(check());
	return prove(check, spoil);
}
