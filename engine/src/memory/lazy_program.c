// A program whose memory is checked: every word of its area says where it lay at the source.
// Usage: program MODE PAGES. It prints what it has and obeys lines on its standard input.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define WORDS (PAGE / 8)

static char *base;
static unsigned long pages;

static void fail(const char *what, unsigned long page, unsigned long word, uint64_t got) {
    printf("bad %s: page %lu word %lu holds %#lx\n", what, page, word, (unsigned long)got);
    fflush(stdout);
    _exit(1);
}

static void must(int good, const char *what) {
    if (!good) {
        printf("bad %s: %s\n", what, strerror(errno));
        fflush(stdout);
        _exit(1);
    }
}

static uint64_t pattern(uint64_t origin) { return origin * 0x9E3779B97F4A7C15ull + 1; }

static volatile uint64_t *at(char *area, unsigned long page) {
    return (volatile uint64_t *)(area + page * PAGE);
}

// The page at `area + page` holds what lay at `origin`.
static void check_page(const char *what, volatile uint64_t *words, uint64_t origin, unsigned long page) {
    for (unsigned long w = 0; w < WORDS; w++)
        if (words[w] != pattern(origin + w * 8)) fail(what, page, w, words[w]);
}

static void check(const char *what, unsigned long page) {
    check_page(what, at(base, page), (uint64_t)base + page * PAGE, page);
}

static void check_zero(const char *what, volatile uint64_t *words, unsigned long page) {
    for (unsigned long w = 0; w < WORDS; w++)
        if (words[w] != 0) fail(what, page, w, words[w]);
}

static unsigned long *shuffled(unsigned seed) {
    unsigned long *order = malloc(pages * sizeof *order);
    for (unsigned long i = 0; i < pages; i++) order[i] = i;
    for (unsigned long i = pages - 1; i > 0; i--) {
        unsigned long j = rand_r(&seed) % (i + 1), t = order[i];
        order[i] = order[j], order[j] = t;
    }
    return order;
}

static void check_all(const char *what, unsigned seed) {
    unsigned long *order = shuffled(seed);
    for (unsigned long i = 0; i < pages; i++) check(what, order[i]);
    free(order);
}

static void say(const char *line) { puts(line), fflush(stdout); }

static void expect(const char *line) {
    char got[64];
    if (!fgets(got, sizeof got, stdin)) _exit(2);
    got[strcspn(got, "\n")] = 0;
    must(!strcmp(got, line), "line from the test");
}

// Random reads; every page is then written over and checked once more.
static void mode_random(void) {
    check_all("read", 1);
    for (unsigned long p = 0; p < pages; p += 3) at(base, p)[7] = p;
    for (unsigned long p = 0; p < pages; p += 3) {
        if (at(base, p)[7] != p) fail("own write", p, 7, at(base, p)[7]);
        at(base, p)[7] = pattern((uint64_t)base + p * PAGE + 56);
    }
    check_all("read again", 2);
}

static void mode_sequential(void) {
    for (unsigned long p = 0; p < pages; p++) check("sequential", p);
}

// The kernel itself reads from and writes into missing pages.
static void mode_syscalls(void) {
    int ends[2];
    char page[PAGE];
    must(!pipe(ends), "pipe");
    for (unsigned long p = 0; p + 1 < pages; p += 2) {
        must(write(ends[1], (void *)at(base, p), PAGE) == (ssize_t)PAGE, "write from a missing page");
        must(read(ends[0], page, PAGE) == (ssize_t)PAGE, "read");
        check_page("written by the kernel", (void *)page, (uint64_t)base + p * PAGE, p);
        // Half a page read into a missing page: the other half must be the source's.
        memset(page, 0x5a, PAGE);
        must(write(ends[1], page, PAGE / 2) == (ssize_t)PAGE / 2, "write");
        char *into = (char *)at(base, p + 1);
        must(read(ends[0], into, PAGE / 2) == (ssize_t)PAGE / 2, "read into a missing page");
        must(!memcmp(into, page, PAGE / 2), "what was read");
        for (unsigned long w = WORDS / 2; w < WORDS; w++)
            if (at(base, p + 1)[w] != pattern((uint64_t)at(base, p + 1) + w * 8)) fail("half", p + 1, w, 0);
    }
}

static void mode_fork(void) {
    for (unsigned long p = 0; p < pages / 4; p += 5) check("before fork", p);
    for (int round = 0; round < 8; round++) {
        pid_t child = fork();
        must(child >= 0, "fork");
        if (!child) {
            if (round == 3 && !fork()) { check_all("grandchild", 99); _exit(0); }
            check_all("child", 10 + round);
            if (round == 3) { int s; wait(&s); must(s == 0, "grandchild"); }
            _exit(0);
        }
        for (unsigned long p = pages * round / 8; p < pages * (round + 1) / 8; p++) check("parent", p);
    }
    for (int i = 0; i < 8; i++) { int status; wait(&status); must(status == 0, "child"); }
    check_all("after fork", 3);
}

// Dropped pages are zeros at once and for ever, whatever is on its way.
static void mode_dontneed(void) {
    unsigned long *order = shuffled(7);
    for (unsigned long i = 0; i < pages / 8; i++) check("before", order[i]);
    for (unsigned long p = 0; p + 8 <= pages; p += 16) {
        must(!madvise((void *)at(base, p), 8 * PAGE, MADV_DONTNEED), "madvise");
        if (p % 32) check_zero("dropped", at(base, p + 3), p + 3);
    }
    for (unsigned long p = 0; p < pages; p++) if (p % 16 >= 8) check("kept", p);
    say("wait");
    expect("look");
    for (unsigned long p = 0; p < pages; p++)
        if (p % 16 >= 8 || p / 16 * 16 + 8 > pages) check("kept", p);
        else check_zero("dropped", at(base, p), p);
    free(order);
}

// Ranges move, grow and change places.
static void mode_mremap(void) {
    unsigned long half = pages / 2;
    for (unsigned long p = 0; p < pages; p += 7) check("before", p);
    char *there = mmap(0, (pages + 64) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(there != MAP_FAILED, "mmap");
    // The second half first, to the front; it grows by 32 pages.
    char *second = mremap(base + half * PAGE, half * PAGE, half * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there);
    must(second == there, "mremap");
    char *grown = mremap(second, half * PAGE, (half + 32) * PAGE, MREMAP_MAYMOVE);
    must(grown != MAP_FAILED, "grow");
    // The first half goes to where the second one was, in pieces and in reverse.
    for (unsigned long p = 0; p + 16 <= half; p += 16) {
        char *to = base + (pages - 16 - p) * PAGE;
        must(mremap(base + p * PAGE, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "piece");
    }
    for (unsigned long p = 0; p < half; p++)
        check_page("second half", at(grown, p), (uint64_t)base + (half + p) * PAGE, p);
    for (unsigned long p = 0; p < 32; p++) check_zero("grown", at(grown, half + p), p);
    for (unsigned long p = 0; p + 16 <= half; p += 16)
        for (unsigned long i = 0; i < 16; i++)
            check_page("first half", at(base, pages - 16 - p + i), (uint64_t)base + (p + i) * PAGE, p + i);
    say("wait");
    expect("look");
    for (unsigned long p = 0; p < half; p++)
        check_page("second half", at(grown, p), (uint64_t)base + (half + p) * PAGE, p);
}

static void mode_munmap(void) {
    for (unsigned long p = 0; p + 32 <= pages; p += 32) {
        must(!munmap(base + p * PAGE, 8 * PAGE), "munmap");
        char *again = mmap(base + (p + 2) * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        must(again == base + (p + 2) * PAGE, "mmap");
        if (p % 64) check_zero("mapped anew", at(base, p + 3), p + 3);
        // Over what is still there.
        again = mmap(base + (p + 16) * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        must(again != MAP_FAILED, "mmap over");
    }
    say("wait");
    expect("look");
    for (unsigned long p = 0; p + 32 <= pages; p += 32)
        for (unsigned long i = 0; i < 32; i++)
            if ((i >= 2 && i < 6) || (i >= 16 && i < 20)) check_zero("mapped anew", at(base, p + i), p + i);
            else if (i >= 8) check("kept", p + i);
}

// One mapping becomes hundreds.
static void mode_mprotect(void) {
    for (unsigned long p = 0; p < pages; p += 3)
        must(!mprotect(base + p * PAGE, PAGE, PROT_READ), "mprotect");
    check_all("split", 4);
}

// Threads read while one drops, forks and moves.
static atomic_int stop;
static void *reader(void *seed) {
    unsigned s = (unsigned)(uintptr_t)seed;
    while (!stop) {
        unsigned long p = rand_r(&s) % (pages / 2);
        check("reader", p);
    }
    return 0;
}
static void mode_storm(void) {
    pthread_t threads[4];
    unsigned long half = pages / 2;
    for (uintptr_t i = 0; i < 4; i++) pthread_create(&threads[i], 0, reader, (void *)(i + 1));
    char *room = mmap(0, half * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    // The second half: a quarter is dropped, a quarter is moved, children look at the first.
    for (unsigned long p = half; p + 16 <= pages; p += 16) {
        must(!madvise(base + p * PAGE, 4 * PAGE, MADV_DONTNEED), "madvise");
        char *to = room + (p - half) * PAGE;
        must(mremap(base + (p + 4) * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
        check_page("moved", at(to, 2), (uint64_t)base + (p + 6) * PAGE, p + 6);
        if (p % 512 == 0 && !fork()) {
            for (unsigned long q = 0; q < pages; q += 11) if (q < half || q >= p + 16) check("child", q);
            _exit(0);
        }
    }
    for (;;) { int status; if (wait(&status) < 0) break; must(status == 0, "child"); }
    stop = 1;
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    say("wait");
    expect("look");
    for (unsigned long p = half; p + 16 <= pages; p += 16)
        for (unsigned long i = 0; i < 16; i++) {
            if (i < 4) check_zero("dropped", at(base, p + i), p + i);
            else if (i < 8) check_page("moved", at(room + (p - half) * PAGE, i - 4), (uint64_t)base + (p + i) * PAGE, p + i);
            else check("kept", p + i);
        }
}

// Only every second block of eight pages ever was at the source.
static void mode_holes(void) {
    for (unsigned long p = 0; p < pages; p++)
        if (p % 16 < 8) check_zero("never was", at(base, p), p);
        else check("was", p);
}

// Drops, moves and replaces pages unseen, leaves most alone, and looks at all of them at the end,
// together with a child that was forked in the middle.
static char *change(unsigned long from, unsigned long to, char *room) {
    for (unsigned long p = from; p + 64 <= to; p += 64) {
        must(!madvise(base + p * PAGE, 8 * PAGE, MADV_DONTNEED), "madvise");
        char *there = room + p * PAGE;
        must(mremap(base + (p + 8) * PAGE, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there) == there, "mremap");
        must(mmap(base + (p + 16) * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED, "mmap");
    }
    return room;
}
static void look_at_changed(const char *who, unsigned long from, unsigned long to, char *room) {
    for (unsigned long p = from; p + 64 <= to; p += 64)
        for (unsigned long i = 0; i < 64; i++) {
            if (i < 8 || (i >= 16 && i < 24)) check_zero(who, at(base, p + i), p + i);
            else if (i < 16) check_page(who, at(room + p * PAGE, i - 8), (uint64_t)base + (p + i) * PAGE, p + i);
            else check(who, p + i);
        }
}
static void mode_changes(void) {
    unsigned long half = pages / 128 * 64;
    char *room = mmap(0, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int ends[2];
    must(!pipe(ends), "pipe");
    change(0, half, room);
    pid_t child = fork();
    if (!child) {
        char byte;
        must(read(ends[0], &byte, 1) == 1, "read");
        look_at_changed("child", 0, half, room);
        for (unsigned long p = half; p < pages; p++) check("child", p);
        _exit(0);
    }
    change(half, pages, room);
    say("wait");
    expect("look");
    must(write(ends[1], "", 1) == 1, "write");
    look_at_changed("parent", 0, half, room);
    look_at_changed("parent", half, pages, room);
    int status;
    must(wait(&status) == child && status == 0, "child");
}

// The second half is not for children (madvise(2), MADV_WIPEONFORK; asked for before "go").
static void mode_wipe(void) {
    pid_t child = fork();
    if (!child) {
        for (unsigned long p = 0; p < pages; p++)
            if (p < pages / 2) check("inherited", p);
            else check_zero("wiped", at(base, p), p);
        _exit(0);
    }
    int status;
    must(wait(&status) == child && status == 0, "child");
    check_all("parent", 8);
}

// Walks over its pages for ever, and says when it has seen them all.
static void mode_walk(void) {
    check_all("walk", 5);
    say("seen");
    for (;;) { check_all("walk", 6); usleep(1000); }
}

// The same in four processes.
static void mode_family(void) {
    for (int i = 0; i < 3; i++) if (!fork()) break;
    mode_walk();
}

// What a filler needs: mappings of every protection.
static void mode_areas(void) {
    int zero = open("/proc/self/exe", O_RDONLY);
    const int protections[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };
    for (int i = 0; i < 3; i++)
        printf("area %p\n", mmap(0, pages * PAGE, protections[i], MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    printf("area %p\n", mmap(0, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, zero, 0));
    say("wait");
    expect("look");
}

static const struct { const char *name; void (*run)(void); } modes[] = {
    {"random", mode_random}, {"sequential", mode_sequential}, {"syscalls", mode_syscalls},
    {"fork", mode_fork}, {"dontneed", mode_dontneed}, {"mremap", mode_mremap}, {"munmap", mode_munmap},
    {"mprotect", mode_mprotect}, {"storm", mode_storm}, {"holes", mode_holes}, {"wipe", mode_wipe}, {"changes", mode_changes}, {"walk", mode_walk}, {"family", mode_family}, {"areas", mode_areas},
};

int main(int argc, char **argv) {
    must(argc == 3, "arguments");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pages = strtoul(argv[2], 0, 10);
    if (strcmp(argv[1], "areas")) {
        base = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        must(base != MAP_FAILED, "mmap");
        if (!strcmp(argv[1], "wipe"))
            must(!madvise(base + pages / 2 * PAGE, pages / 2 * PAGE, MADV_WIPEONFORK), "wipe");
        int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
        must(uffd >= 0, "userfaultfd");
        printf("serve %d %p\n", uffd, base);
        fflush(stdout);
        expect("go");
        close(uffd);
    }
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[1], modes[i].name)) {
            modes[i].run();
            say("ok");
            return 0;
        }
    return 2;
}
