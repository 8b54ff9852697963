/* A lock whose owner dies after the move: the kernel must find it in the owner's robust list. Held by a
 * child in shared memory, and by a thread that ends while it holds one. */
#include "prove.h"

static struct locks {
	pthread_mutex_t of_child, of_thread;
	atomic_int held, release_thread;
} *locks;
static pid_t child;

static bool died(pthread_mutex_t *lock) {
	EXPECT_EQ(pthread_mutex_lock(lock), EOWNERDEAD);
	EXPECT_EQ(pthread_mutex_consistent(lock), 0);
	EXPECT_EQ(pthread_mutex_unlock(lock), 0);
	EXPECT_EQ(pthread_mutex_lock(lock), 0);
	EXPECT_EQ(pthread_mutex_unlock(lock), 0);
	return true;
}

static bool check(void) {
	EXPECT_EQ(pthread_mutex_trylock(&locks->of_child), EBUSY);
	EXPECT_EQ(pthread_mutex_trylock(&locks->of_thread), EBUSY);
	if (!prove_last)
		return true;
	EXPECT_EQ(kill(child, SIGKILL), 0);
	EXPECT_EQ(waitpid(child, NULL, 0), child);
	locks->release_thread = 1;
	return died(&locks->of_child) && died(&locks->of_thread);
}

static void spoil(void) {
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void *hold(void *unused) {
	pthread_mutex_lock(&locks->of_thread);
	locks->held++;
	while (!locks->release_thread)
		usleep(1000);
	return unused;
}

static void make(pthread_mutex_t *lock) {
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	NEED(pthread_mutex_init(lock, &attributes) == 0);
}

int main(void) {
	pthread_t thread;
	locks = map_anonymous(sizeof *locks, MAP_SHARED);
	make(&locks->of_child);
	make(&locks->of_thread);
	if ((child = fork_child()) == 0) {
		pthread_mutex_lock(&locks->of_child);
		locks->held++;
		for (;;)
			pause();
	}
	NEED(pthread_create(&thread, NULL, hold, NULL) == 0);
	while (locks->held != 2)
		usleep(1000);
	return prove(check, spoil);
}
