/* Unix sockets that listen, under every kind of name, each with connections that nobody has accepted
 * yet and one that was accepted long ago. Every other client belongs to a child, which runs as another
 * user, and SO_PEERCRED goes on saying who it was. */
#include "prove.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { PATH, RELATIVE, ABSTRACT, AUTOBOUND, DELETED, DOORS };
enum { WAITING = 2, BACKLOG = 3, QUEUED = 700, CHILDS_USER = 1234 };

struct name {
	struct sockaddr_un address;
	socklen_t length;
};
struct client {
	int socket;
	pid_t pid;
	uid_t user;
	struct name name;
};
static struct door {
	int type, listener, kept;
	struct name name;
	struct client regular, waiting[WAITING];
} doors[DOORS];
static int to_child, child_end;
static pid_t child;
static long turn;

static struct name name_of(int socket, int (*ask)(int, struct sockaddr *, socklen_t *)) {
	struct name name = {.length = sizeof name.address};
	NEED(ask(socket, (struct sockaddr *)&name.address, &name.length) == 0);
	return name;
}

static bool is_same(struct name one, struct name two) {
	return one.length == two.length && memcmp(&one.address, &two.address, one.length) == 0;
}

/* The client's own name is autobound. */
static int connect_to(const struct door *door) {
	int made = socket(AF_UNIX, door->type | SOCK_CLOEXEC, 0);
	sa_family_t nameless = AF_UNIX;
	NEED(bind(made, (struct sockaddr *)&nameless, sizeof nameless) == 0);
	NEED(connect(made, (struct sockaddr *)&door->name.address, door->name.length) == 0);
	return made;
}

/* What the child is told to do: to connect to a door, or with its client to say a byte or to close. The
 * door's file may be connected to by everybody. */
struct order {
	enum { CONNECT, SAY, CLOSE } what;
	int client;
	char byte;
	struct door door;
};
struct answer {
	int client;
	struct name name, peer;
};

static void obey_forever(void) {
	struct order order;
	close(to_child);
	NEED(setegid(CHILDS_USER) == 0 && seteuid(CHILDS_USER) == 0);
	while (recv(child_end, &order, sizeof order, 0) == sizeof order) {
		struct answer answer = {.client = order.client};
		if (order.what == CONNECT)
			answer.client = connect_to(&order.door);
		else if (order.what == SAY)
			(void)!send(order.client, &order.byte, 1, 0);
		answer.name = name_of(answer.client, getsockname), answer.peer = name_of(answer.client, getpeername);
		if (order.what == CLOSE)
			close(order.client);
		NEED(send(child_end, &answer, sizeof answer, 0) == sizeof answer);
	}
	_exit(0);
}

static struct answer tell(struct order order) {
	struct answer answer;
	ssize_t length;
	NEED(send(to_child, &order, sizeof order, 0) == sizeof order);
	while ((length = recv(to_child, &answer, sizeof answer, 0)) == -1 && errno == EINTR)
		;
	NEED(length == sizeof answer);
	return answer;
}

static struct client new_client(const struct door *door) {
	if (turn++ % 2 == 0) {
		int made = connect_to(door);
		return (struct client){made, getpid(), 0, name_of(made, getsockname)};
	}
	struct answer answer = tell((struct order){.what = CONNECT, .door = *door});
	return (struct client){answer.client, child, CHILDS_USER, answer.name};
}

/* The name of whom the client is connected to. */
static struct name speak(const struct client *client, char byte) {
	if (client->pid == child)
		return tell((struct order){.what = SAY, .client = client->socket, .byte = byte}).peer;
	(void)!send(client->socket, &byte, 1, 0);
	return name_of(client->socket, getpeername);
}

static void close_client(const struct client *client) {
	if (client->pid == child)
		tell((struct order){.what = CLOSE, .client = client->socket});
	else
		close(client->socket);
}

static bool remembers(int socket, pid_t pid, uid_t user) {
	struct ucred peer;
	socklen_t length = sizeof peer;
	EXPECT_EQ(getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length), 0);
	EXPECT_EQ(peer.pid, pid);
	EXPECT_EQ(peer.uid, user);
	return true;
}

static bool are_joined(const struct door *door, const struct client *client, int accepted) {
	char byte = 'a' + turn % 26, got = 0;
	struct name peer = speak(client, byte);
	EXPECT_EQ(recv(accepted, &got, 1, 0), 1);
	EXPECT_EQ(got, byte);
	EXPECT(is_same(peer, door->name), "the client's peer has another name");
	EXPECT(is_same(name_of(accepted, getpeername), client->name), "the client has another name");
	EXPECT(is_same(name_of(accepted, getsockname), door->name), "the accepted one has another name");
	return remembers(accepted, client->pid, client->user)
		&& (client->pid == child || remembers(client->socket, getpid(), 0));
}

static bool takes_the_next(struct door *door) {
	int accepted = accept4(door->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	EXPECT(accepted >= 0, "errno %d", errno);
	if (!are_joined(door, &door->waiting[0], accepted))
		return false;
	close(accepted), close_client(&door->waiting[0]);
	memmove(door->waiting, door->waiting + 1, sizeof *door->waiting * (WAITING - 1));
	door->waiting[WAITING - 1] = (struct client){.socket = -1};
	return true;
}

/* A message of that length lies in it all the time. */
static bool keeps(struct door *door) {
	char message[QUEUED + 1] = {0};
	EXPECT_EQ(recv(door->regular.socket, message, QUEUED, 0), QUEUED);
	for (int i = 0; i < QUEUED; i++)
		EXPECT_EQ(message[i], 'q');
	EXPECT_EQ(send(door->kept, message, QUEUED, 0), QUEUED);
	return are_joined(door, &door->regular, door->kept);
}

/* Its file has the owner and the mode that it was given. One that was removed leads nowhere. */
static bool leads_to_it(const struct door *door, bool has_file) {
	struct stat file;
	bool is_removed = door == &doors[DELETED];
	int client = socket(AF_UNIX, door->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (is_removed)
		EXPECT(connect(client, (struct sockaddr *)&door->name.address, door->name.length) == -1 && errno == ENOENT,
			"somebody is at a name that was removed (errno %d)", errno);
	close(client);
	if (has_file && !is_removed) {
		EXPECT_EQ(stat(door->name.address.sun_path, &file), 0);
		EXPECT_EQ(file.st_mode, S_IFSOCK | 0622);
		EXPECT_EQ(file.st_uid, 77);
	}
	return true;
}

/* As many may wait as the backlog says, and one more. */
static bool is_bounded(const struct door *door) {
	for (int waiting = WAITING;; waiting++) {
		int client = socket(AF_UNIX, door->type | SOCK_NONBLOCK, 0);
		int result = connect(client, (struct sockaddr *)&door->name.address, door->name.length);
		if (waiting <= BACKLOG) {
			EXPECT_EQ(result, 0);
			continue;
		}
		EXPECT_EQ(result, -1);
		EXPECT_EQ(errno, EAGAIN);
		return true;
	}
}

static bool check(void) {
	for (struct door *door = doors; door < doors + DOORS; door++) {
		bool has_file = door->name.address.sun_path[0] != 0, is_removed = door == &doors[DELETED];
		EXPECT(is_same(name_of(door->listener, getsockname), door->name), "it has another name");
		if (!leads_to_it(door, has_file) || !keeps(door))
			return false;
		if (prove_last && !is_removed && !is_bounded(door))
			return false;
		if (is_removed && !prove_last)
			continue;
		if (!takes_the_next(door))
			return false;
		if (!is_removed && !prove_last)
			door->waiting[WAITING - 1] = new_client(door);
	}
	return true;
}

static void spoil(void) { close(accept(doors[ABSTRACT].listener, NULL, NULL)); }

static void open_door(struct door *door, const char *path) {
	door->type = (door - doors) % 2 ? SOCK_SEQPACKET : SOCK_STREAM;
	door->name.address.sun_family = AF_UNIX;
	if (path != NULL)
		memcpy(door->name.address.sun_path, path, 1 + strlen(path + 1) + (path[0] != 0));
	door->name.length = offsetof(struct sockaddr_un, sun_path) + (path ? 1 + strlen(path + 1) + (path[0] != 0) : 0);
	door->listener = socket(AF_UNIX, door->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (path != NULL && path[0] != 0)
		unlink(path);
	NEED(bind(door->listener, (struct sockaddr *)&door->name.address, door->name.length) == 0);
	if (path != NULL && path[0] != 0)
		NEED(chmod(path, 0622) == 0 && chown(path, 77, 78) == 0);
	NEED(listen(door->listener, BACKLOG) == 0);
	door->name = name_of(door->listener, getsockname);
}

static void begin(struct door *door) {
	char message[QUEUED];
	memset(message, 'q', sizeof message);
	turn += turn % 2;
	door->regular = new_client(door);
	door->kept = accept4(door->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	NEED(door->kept >= 0 && send(door->kept, message, QUEUED, 0) == QUEUED);
	for (int i = 0; i < WAITING; i++)
		door->waiting[i] = new_client(door);
}

int main(void) {
	int line[2];
	signal(SIGPIPE, SIG_IGN);
	NEED(chdir("/tmp") == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, line) == 0);
	to_child = line[0], child_end = line[1];
	if ((child = fork_child()) == 0)
		obey_forever();
	open_door(&doors[PATH], "/tmp/unix_listen.path");
	open_door(&doors[RELATIVE], "unix_listen.relative");
	open_door(&doors[ABSTRACT], "\0unix_listen");
	open_door(&doors[AUTOBOUND], NULL);
	open_door(&doors[DELETED], "/tmp/unix_listen.deleted");
	for (struct door *door = doors; door < doors + DOORS; door++)
		begin(door);
	NEED(unlink("/tmp/unix_listen.deleted") == 0);
	return prove(check, spoil);
}
