// load - makes traffic and counts it, for the benchmarks.
//
//   load serve PORT CPU                              TCP server on every address, IPv4 and IPv6
//   load rr    ADDRESS PORT SECONDS CPU              1-byte ping-pong on one connection
//   load crr   ADDRESS PORT SECONDS CPU              connect, 1 byte each way, close; one after the other
//   load flow  ADDRESS PORT SECONDS CPU              as many bytes as go through one connection
//   load dns   ADDRESS PORT SECONDS CPU AHEAD NAME   A questions over UDP, AHEAD of them unanswered
//   load pause                                       does nothing until SIGTERM
//
// Prints one JSON object: {"per_second", "p50_us", "p99_us", "failed"}; of a flow, the bytes that arrived.
//
// Client and server are best pinned to the same CPU: then a round trip is the cost of the path and two
// context switches, without the cross-CPU wake-ups that hide it. CPU -1 does not pin. Congestion control
// is reno on every socket, because it is the one that every kernel allows in every namespace, and the
// machine's default may be one that paces (bbr).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// What a client asks of the server with its first byte: echo; echo and close; take everything, then say how much.
enum { PING = 'p', ONCE = 'c', FLOW = 'f' };

static void fail(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void pin(int cpu) {
  cpu_set_t set;
  if (cpu < 0) return;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set)) fail("pin to a CPU");
}

// --- addresses and sockets ---------------------------------------------------------------------------

struct target {
  struct sockaddr_storage address;
  socklen_t length;
};

static struct target parse(const char *address, const char *port) {
  struct target t = {0};
  struct sockaddr_in *v4 = (void *)&t.address;
  struct sockaddr_in6 *v6 = (void *)&t.address;
  if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(atoi(port));
    t.length = sizeof *v4;
  } else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(atoi(port));
    t.length = sizeof *v6;
  } else {
    errno = EINVAL;
    fail(address);
  }
  return t;
}

static void tune(int fd) {
  int on = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) fail("TCP_NODELAY");
  if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)) fail("TCP_CONGESTION");
}

static int dial(const struct target *t) { // -1 if refused or not answered
  int fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  struct timeval patience = {2, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); // connect(2) heeds it too
  tune(fd);
  if (connect(fd, (void *)&t->address, t->length)) {
    close(fd);
    return -1;
  }
  return fd;
}

// --- what was measured -------------------------------------------------------------------------------

static uint64_t *times; // nanoseconds of each success
static size_t count, room, failed;

static void note(uint64_t ns) {
  if (count == room) {
    room = room ? room * 2 : 1 << 16;
    times = realloc(times, room * sizeof *times);
    if (!times) fail("memory");
  }
  times[count++] = ns;
}

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static double percentile(double part) { return count ? times[(size_t)((count - 1) * part)] / 1e3 : 0; }

static void report(uint64_t elapsed) {
  qsort(times, count, sizeof *times, by_size);
  printf("{\"per_second\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"failed\": %zu}\n",
         count * 1e9 / elapsed, percentile(.5), percentile(.99), failed);
}

// --- TCP ---------------------------------------------------------------------------------------------

enum { CHUNK = 128 * 1024, CHUNKS = 8, DESCRIPTORS = 1024 };
static char chunk[CHUNK];
static uint64_t taken[DESCRIPTORS]; // bytes of each flow, by descriptor; 0 is not a flow

static void take(int fd) {
  for (int i = 0; i < CHUNKS; i++) { // then it is the others' turn
    ssize_t got = read(fd, chunk, CHUNK);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0) {
      taken[fd] += got;
      continue;
    }
    if (got == 0 && write(fd, &taken[fd], sizeof taken[fd]) < 0) perror("load: a flow's end");
    taken[fd] = 0;
    close(fd);
    return;
  }
}

static void answer(int fd) {
  char byte;
  if (fd < DESCRIPTORS && taken[fd]) {
    take(fd);
    return;
  }
  ssize_t got = read(fd, &byte, 1);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got == 1 && byte == FLOW && fd < DESCRIPTORS) {
    taken[fd] = 1;
    return;
  }
  if (got == 1 && write(fd, &byte, 1) == 1 && byte == PING) return;
  close(fd); // the server closes first, so that no client runs out of ports by TIME_WAIT
}

static void serve(const char *port) {
  struct target t = parse("::", port);
  int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, off = 0;
  if (listener < 0) fail("socket");
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  tune(listener); // accepted sockets inherit it
  if (bind(listener, (void *)&t.address, t.length) || listen(listener, 4096)) fail("listen");
  int poll = epoll_create1(0);
  struct epoll_event want = {.events = EPOLLIN, .data.fd = listener}, ready[64];
  epoll_ctl(poll, EPOLL_CTL_ADD, listener, &want);
  puts("ready");
  fflush(stdout);
  for (;;) {
    int n = epoll_wait(poll, ready, 64, -1);
    for (int i = 0; i < n; i++) {
      if (ready[i].data.fd != listener) {
        answer(ready[i].data.fd);
        continue;
      }
      int fd = accept4(listener, 0, 0, SOCK_NONBLOCK);
      if (fd < 0) continue;
      want.data.fd = fd;
      epoll_ctl(poll, EPOLL_CTL_ADD, fd, &want);
    }
  }
}

static void ping_pong(const struct target *t, uint64_t seconds_ns) {
  char byte = PING;
  int fd = dial(t);
  if (fd < 0) fail("connect");
  uint64_t start = now_ns(), before = start, after;
  do {
    if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) fail("the connection ended");
    after = now_ns();
    note(after - before);
    before = after;
  } while (after - start < seconds_ns);
  report(after - start);
}

static int once(const struct target *t) {
  char byte = ONCE;
  int fd = dial(t);
  if (fd < 0) return 0;
  int fine = write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 0;
  close(fd);
  return fine;
}

static void connections(const struct target *t, uint64_t seconds_ns) {
  uint64_t start = now_ns(), before = start, after;
  do {
    int fine = once(t);
    after = now_ns();
    if (fine)
      note(after - before);
    else
      failed++;
    before = after;
  } while (after - start < seconds_ns);
  report(after - start);
}

static void flow(const struct target *t, uint64_t seconds_ns) {
  int fd = dial(t);
  if (fd < 0) fail("connect");
  memset(chunk, FLOW, CHUNK);
  uint64_t arrived, start = now_ns();
  do {
    if (write(fd, chunk, CHUNK) < 0) fail("the connection ended");
  } while (now_ns() - start < seconds_ns);
  shutdown(fd, SHUT_WR);
  if (read(fd, &arrived, sizeof arrived) != sizeof arrived) fail("no word of what arrived");
  printf("{\"per_second\": %.1f, \"p50_us\": 0, \"p99_us\": 0, \"failed\": 0}\n", arrived * 1e9 / (now_ns() - start));
}

// --- DNS ---------------------------------------------------------------------------------------------

enum { BATCH = 64, MESSAGE = 512 };

static size_t question(unsigned char *out, const char *name) { // RFC 1035 section 4.1; the id is left 0
  memset(out, 0, 12);
  out[2] = 1; // recursion desired
  out[5] = 1; // one question
  size_t at = 12;
  for (const char *dot; *name; name = *dot ? dot + 1 : dot) {
    dot = strchrnul(name, '.');
    out[at++] = dot - name;
    memcpy(out + at, name, dot - name);
    at += dot - name;
  }
  static const unsigned char tail[] = {0, 0, 1, 0, 1}; // root; type A; class IN
  memcpy(out + at, tail, sizeof tail);
  return at + sizeof tail;
}

static void questions(const struct target *t, uint64_t seconds_ns, int ahead, const char *name) {
  static uint64_t sent[65536]; // by message id; 0 is not asked
  static unsigned char asked[BATCH][MESSAGE], answers[BATCH][MESSAGE];
  struct iovec out[BATCH], in[BATCH];
  struct mmsghdr send[BATCH] = {0}, receive[BATCH] = {0};
  if (ahead < 1 || ahead > BATCH) fail("AHEAD must be 1 to 64");
  for (int i = 0; i < BATCH; i++) {
    out[i] = (struct iovec){asked[i], question(asked[i], name)};
    in[i] = (struct iovec){answers[i], MESSAGE};
    send[i].msg_hdr = (struct msghdr){.msg_iov = &out[i], .msg_iovlen = 1};
    receive[i].msg_hdr = (struct msghdr){.msg_iov = &in[i], .msg_iovlen = 1};
  }
  int fd = socket(t->address.ss_family, SOCK_DGRAM, 0);
  struct timeval patience = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (connect(fd, (void *)&t->address, t->length)) fail("connect");

  uint16_t id = 0;
  uint64_t start = now_ns(), now = start;
  int owed = ahead; // how many questions may be asked now
  while (now - start < seconds_ns) {
    now = now_ns();
    for (int i = 0; i < owed; i++) {
      id++;
      asked[i][0] = id >> 8;
      asked[i][1] = id & 255;
      sent[id] = now;
    }
    if (owed && sendmmsg(fd, send, owed, 0) != owed) fail("send");
    int got = recvmmsg(fd, receive, BATCH, MSG_WAITFORONE, 0);
    now = now_ns();
    if (got < 0) { // all that were on their way are lost
      if (errno != EAGAIN && errno != EINTR) fail("receive");
      failed += ahead;
      owed = ahead;
      memset(sent, 0, sizeof sent);
      continue;
    }
    owed = 0;
    for (int i = 0; i < got; i++) {
      uint16_t of = answers[i][0] << 8 | answers[i][1];
      if (!sent[of]) continue; // an answer that came too late
      int fine = (answers[i][3] & 15) == 0 && (answers[i][6] | answers[i][7]); // NOERROR, with an answer
      if (fine)
        note(now - sent[of]);
      else
        failed++;
      sent[of] = 0;
      owed++;
    }
  }
  report(now - start);
}

// -----------------------------------------------------------------------------------------------------

static void pause_until_told(void) { // PID 1 of a container gets no default handlers
  sigset_t set;
  int got;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, 0);
  sigwait(&set, &got);
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  signal(SIGPIPE, SIG_IGN);
  if (argc == 2 && !strcmp(mode, "pause")) {
    pause_until_told();
    return 0;
  }
  if (argc == 4 && !strcmp(mode, "serve")) {
    pin(atoi(argv[3]));
    serve(argv[2]);
  }
  if (argc < 6) {
    fputs("load: see the first lines of load.c\n", stderr);
    return 64;
  }
  struct target t = parse(argv[2], argv[3]);
  uint64_t seconds_ns = atof(argv[4]) * 1e9;
  pin(atoi(argv[5]));
  if (!strcmp(mode, "rr")) ping_pong(&t, seconds_ns);
  if (!strcmp(mode, "crr")) connections(&t, seconds_ns);
  if (!strcmp(mode, "flow")) flow(&t, seconds_ns);
  if (!strcmp(mode, "dns") && argc == 8) questions(&t, seconds_ns, atoi(argv[6]), argv[7]);
  return 0;
}
