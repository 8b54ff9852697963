/* An ordinary user with groups, a capability that it may not use otherwise, and no way to more. So is its
 * second thread, for which a trap waits that it has sent itself: it must not keep anybody from taking root away. */
#include "prove.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>

#define NET_BIND (1u << CAP_NET_BIND_SERVICE)
static gid_t groups[] = {5, 100, 4242};

static bool capabilities_are(uint32_t effective, uint32_t permitted, uint32_t inheritable) {
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[2] = {0};
	EXPECT_EQ(syscall(SYS_capget, &header, sets), 0);
	EXPECT(sets[0].effective == effective && sets[0].permitted == permitted
		&& sets[0].inheritable == inheritable, "%x %x %x", sets[0].effective, sets[0].permitted,
		sets[0].inheritable);
	return true;
}

static atomic_long other_looks, other_user, other_traps;

static void *other_thread(void *unused) {
	(void)unused;
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_kill(pthread_self(), SIGTRAP);
	for (;;) {
		sigset_t waiting;
		sigpending(&waiting);
		other_traps = sigismember(&waiting, SIGTRAP);
		other_user = syscall(SYS_geteuid);
		other_looks++;
		usleep(5000);
	}
	return NULL;
}

static bool other_is_as_it_was(void) {
	for (long first = other_looks, tries = 0; other_looks < first + 2; tries++) {
		EXPECT(tries < 1000, "the other thread stands still");
		usleep(5000);
	}
	EXPECT_EQ(other_user, 1001);
	EXPECT_EQ(other_traps, 1);
	return true;
}

static bool check(void) {
	uid_t real, effective, saved;
	gid_t now[8];
	getresuid(&real, &effective, &saved);
	EXPECT(real == 1000 && effective == 1001 && saved == 1002, "%d %d %d", real, effective, saved);
	getresgid(&real, &effective, &saved);
	EXPECT(real == 2000 && effective == 2001 && saved == 2002, "%d %d %d", real, effective, saved);
	EXPECT_EQ(getgroups(8, now), 3);
	EXPECT_EQ(memcmp(now, groups, sizeof groups), 0);
	EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	EXPECT_EQ(prctl(PR_GET_SECUREBITS), SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS);
	EXPECT_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_BIND_SERVICE, 0, 0), 1);
	EXPECT_EQ(prctl(PR_CAPBSET_READ, CAP_SYS_TIME), 0);
	EXPECT_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 1);
	EXPECT_EQ(prctl(PR_GET_DUMPABLE), 1);
	EXPECT_EQ(open("/etc/shadow", O_RDONLY), -1);
	return capabilities_are(NET_BIND, NET_BIND, NET_BIND) && other_is_as_it_was();
}

static void spoil(void) { prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); }

int main(void) {
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[2] = {{NET_BIND, NET_BIND, NET_BIND}};
	NEED(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME) == 0);
	NEED(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS) == 0);
	NEED(setgroups(3, groups) == 0 && setresgid(2000, 2001, 2002) == 0 && setresuid(1000, 1001, 1002) == 0);
	NEED(syscall(SYS_capset, &header, sets) == 0);
	NEED(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0);
	NEED(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	/* A change of user makes a process undumpable; a server that wants core files sets it back. */
	NEED(prctl(PR_SET_DUMPABLE, 1) == 0);
	pthread_t other;
	NEED(pthread_create(&other, NULL, other_thread, NULL) == 0);
	return prove(check, spoil);
}
