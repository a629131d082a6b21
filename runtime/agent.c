/* The agent: claims the process, listens in the runtime directory, answers requests.
 *
 * By default one thread does it, with a descriptor table of its own, so that the program's table shows nothing
 * of ours and neither side can close the other's descriptors. With poll.o linked in there is no thread: the
 * same steps run inside hotreload_poll(), without blocking, over the program's table.
 *
 * It never writes to the program's output, raises no signal, and where it can't work it stays silent and
 * unreachable: the program must run on as if it were not there. */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define STAGE_MS 2000       /* a client has this long to send its request, and to take the answer */
#define FORK_WAIT_MS 500    /* a fork waits this long for a request that is being served; no attempt takes longer */
#define FRESH_FORK_WAIT_MS 10000 /* the same, where the fork may leave out malloc's locks (single.c) */
#define CHILD_DELAY_MS 50   /* a child that execs at once never creates a socket */
#define START_WAIT_MS 200   /* main() waits this long for the socket to be there */
#define STATUS_SHARE_MS 4000 /* less than the tool gives an agent to say what it runs */
#define MOST_SHARE_MS 60000  /* an order waits this long, at most, for a program of one thread to leave the C library */
#define STACK_SIZE (256u << 10)
#define BACKLOG 16

struct connection {
  struct hr_descriptor socket;
  int64_t deadline_ms;
  struct hr_request request;
  size_t received;
  int files[HR_MAX_PAYLOADS + 1];
  unsigned n_files;
  bool files_lost; /* more came than allowed */
  struct hr_text answer;
  size_t sent;
  int generations;
};

enum want { WANT_NOTHING, WANT_READ, WANT_WRITE };

static struct {
  bool started;     /* this copy is the agent */
  bool unreachable; /* no socket, for good */
  bool runs_cxx;    /* a C++ library is loaded */
  sigset_t program_blocks; /* by the thread that started the agent */
  bool own_table;   /* the thread has a descriptor table of its own */
  struct hr_descriptor listener, epoll;
  struct connection client; /* poll mode: may last from one poll to the next */
  pid_t bound_pid;          /* who made `socket_path`; 0: nobody */
  char socket_path[HR_PATH_MAX];
  char wanted_directory[HR_PATH_MAX], xdg_directory[HR_PATH_MAX], executable[HR_PATH_MAX];
} agent = {.listener = {.fd = -1}, .epoll = {.fd = -1}, .client.socket.fd = -1};

/* What C++ code unwinds by; static libraries of C++ do not show it to dlsym. */
extern const char __gxx_personality_v0[] __attribute__((weak, visibility("default")));

static struct hr_image *owner_image; /* whose copy is the agent, once known */
static bool disabled;
static pthread_mutex_t serve_lock = PTHREAD_MUTEX_INITIALIZER; /* a request is being served */
static pthread_mutex_t poll_lock = PTHREAD_MUTEX_INITIALIZER;  /* some thread is in hotreload_poll */
static bool fork_is_clean = true;
static sem_t first_try; /* the thread has its socket, or can't have one */

static int64_t now_ms(void) {
  struct timespec now;

  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct timespec after_ms(int ms) {
  struct timespec until;

  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += (long)ms * 1000000;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  return until;
}

/* ---- the runtime directory and the socket -------------------------------------------------------- */

static int open_directory(const char *path) {
  struct stat stat;
  int directory;

  mkdir(path, 0700);
  directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory < 0)
    return -1;
  if (!fstat(directory, &stat) && stat.st_uid == geteuid() && (stat.st_mode & 07777) == 0700)
    return directory;
  close(directory);
  return -1;
}

/* The rules are in docs/formats.md. Another user's XDG_RUNTIME_DIR (after su) is passed over: creating a
 * directory in it would lock its owner out. */
static int find_directory(char path[HR_PATH_MAX]) {
  struct stat stat;
  int directory;

  if (agent.wanted_directory[0]) {
    memcpy(path, agent.wanted_directory, HR_PATH_MAX);
    return path[0] == '/' ? open_directory(path) : -1;
  }
  if (agent.xdg_directory[0] == '/' && !lstat(agent.xdg_directory, &stat) && stat.st_uid == geteuid() &&
      snprintf(path, HR_PATH_MAX, "%s/hotreload", agent.xdg_directory) < HR_PATH_MAX) {
    directory = open_directory(path);
    if (directory >= 0)
      return directory;
  }
  snprintf(path, HR_PATH_MAX, "/tmp/hotreload-%u", (unsigned)geteuid());
  return open_directory(path);
}

static bool bind_at(int fd, int directory, const char *path, const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int size = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", path, name);

  if (size >= (int)sizeof address.sun_path) /* thread-self: the thread may have a table of its own */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/thread-self/fd/%d/%s", directory, name);
  return !bind(fd, (const struct sockaddr *)&address, sizeof address);
}

/* The socket gets its name when it listens already: who finds the name and is refused knows that nobody is
 * there any more. */
static bool publish(int fd, int directory, const char *path) {
  char fresh[32], final[32];

  snprintf(fresh, sizeof fresh, ".%d.new", (int)getpid());
  snprintf(final, sizeof final, "%d.sock", (int)getpid());
  unlinkat(directory, fresh, 0);
  if (!bind_at(fd, directory, path, fresh))
    return false;
  if (listen(fd, BACKLOG) || renameat(directory, fresh, directory, final) ||
      snprintf(agent.socket_path, sizeof agent.socket_path, "%s/%s", path, final) >= HR_PATH_MAX) {
    unlinkat(directory, fresh, 0);
    return false;
  }
  __atomic_store_n(&agent.bound_pid, getpid(), __ATOMIC_RELEASE);
  return true;
}

static bool open_listener(int flags) {
  char path[HR_PATH_MAX];
  int directory = find_directory(path), fd;

  if (directory < 0)
    return false;
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  agent.listener.fd = agent.own_table ? fd : hr_descriptor_raise(fd);
  if (fd < 0 || hr_fault(HR_STEP_SOCKET) || !publish(agent.listener.fd, directory, path) ||
      !hr_descriptor_identify(&agent.listener)) {
    if (fd >= 0)
      close(agent.listener.fd);
    agent.listener.fd = -1;
  }
  close(directory);
  return agent.listener.fd >= 0;
}

/* The path of a file of this process beside its socket. */
bool hr_agent_path(char path[HR_PATH_MAX], const char *suffix) {
  size_t size = strlen(agent.socket_path);

  if (size < 5 || size - 5 + strlen(suffix) >= HR_PATH_MAX)
    return false;
  memcpy(path, agent.socket_path, size - 5);
  strcpy(path + size - 5, suffix); /* instead of .sock */
  return true;
}

/* ---- one request ----------------------------------------------------------------------------------- */

static bool check_peer(const struct connection *c, struct hr_error *error) {
  struct ucred peer;
  socklen_t size = sizeof peer;

  if (getsockopt(c->socket.fd, SOL_SOCKET, SO_PEERCRED, &peer, &size))
    return hr_refuse(error, HR_NOT_PERMITTED, "the caller is unknown");
  if (peer.uid == geteuid() || peer.uid == 0)
    return true;
  return hr_refuse(error, HR_NOT_PERMITTED, "user %u asked, the process belongs to user %u", (unsigned)peer.uid,
                   (unsigned)geteuid());
}

static bool check_request(const struct connection *c, struct hr_error *error) {
  static const uint8_t zeros[HR_BUILD_ID_MAX];
  const struct hr_request *request = &c->request;
  unsigned together = (request->flags & HR_TOGETHER) != 0; /* a descriptor */

  if (request->magic != HR_REQUEST_MAGIC)
    return hr_refuse(error, HR_BAD_REQUEST, "it does not begin with the magic number");
  if (request->abi != HR_ABI)
    return hr_refuse(error, HR_ABI_MISMATCH, "the request speaks version %u, the program version %d", request->abi,
                     HR_ABI);
  if (request->n_payloads > HR_MAX_PAYLOADS || c->files_lost || request->n_payloads + together != c->n_files)
    return hr_refuse(error, HR_BAD_REQUEST, "it announces %u payloads, %u descriptors came with it",
                     request->n_payloads, c->n_files);
  if (request->guard_ms > HR_MAX_GUARD_MS ||
      (request->guard_ms && (request->op != HR_OP_APPLY || request->flags & HR_DRY_RUN)))
    return hr_refuse(error, HR_BAD_REQUEST, "a guard of %llu ms, for operation %u",
                     (unsigned long long)request->guard_ms, request->op);
  if (request->flags & ~(uint32_t)(HR_DRY_RUN | HR_TOGETHER | HR_FOR_LATER) ||
      (together && request->flags & HR_DRY_RUN) ||
      (request->op != HR_OP_REVERT && (request->generation || memcmp(request->build_id, zeros, sizeof zeros))))
    return hr_refuse(error, HR_BAD_REQUEST, "it sets bits this version does not know");
  return true;
}

static enum hr_code apply(struct connection *c) {
  bool together = c->request.flags & HR_TOGETHER;
  struct hr_order order = {&c->request, c->files, c->socket.fd, together ? c->files[c->request.n_payloads] : -1};
  enum hr_code code;

  __atomic_store_n(&hr_self.pending, 1, __ATOMIC_RELEASE);
  code = hr_apply(&order, &c->answer, &c->generations);
  __atomic_store_n(&hr_self.pending, 0, __ATOMIC_RELEASE);
  return code;
}

static enum hr_code status(struct connection *c) {
  if (!hr_guard_is_on()) /* which may just need them open */
    hr_close_left_open();
  c->answer.may_grow = true;
  hr_report_status(&c->answer, agent.executable);
  c->answer.may_grow = false;
  return HR_OK;
}

static enum hr_code serve(struct connection *c) {
  struct hr_error error = {.code = HR_OK};

  hr_order_undo_inherited();
  if (check_peer(c, &error) && check_request(c, &error)) {
    switch (c->request.op) {
    case HR_OP_STATUS:
      return status(c);
    case HR_OP_APPLY:
    case HR_OP_REVERT:
      return apply(c);
    default:
      hr_refuse(&error, HR_BAD_REQUEST, "operation %u does not exist", c->request.op);
    }
  }
  hr_report_error(&c->answer, &error);
  return error.code;
}

static void close_files(struct connection *c) {
  unsigned i;

  for (i = 0; i < c->n_files; i++)
    close(c->files[i]);
  c->n_files = 0;
}

/* The program's thread may be in the middle of something that it does without locks, as long as it is the only one. */
static bool program_shares(const struct connection *c, struct hr_error *error) {
  uint64_t ms = c->request.op == HR_OP_STATUS ? STATUS_SHARE_MS : c->request.timeout_ms;

  return hr_single_end(hr_now_ns() + (ms < MOST_SHARE_MS ? ms : MOST_SHARE_MS) * 1000000) ||
         hr_refuse(error, HR_DEADLINE, "the program's only thread was not seen outside of the C library, in which it "
                                       "takes no locks before that");
}

static enum hr_code serve_locked(struct connection *c) {
  struct hr_error error = {.code = HR_OK};
  enum hr_code code;

  if (!program_shares(c, &error)) {
    hr_report_error(&c->answer, &error);
    return error.code;
  }
  pthread_mutex_lock(&serve_lock);
  code = serve(c);
  pthread_mutex_unlock(&serve_lock);
  return code;
}

/* Does what is asked and leaves the whole answer in c->answer. False: no memory for an answer. */
static bool answer(struct connection *c) {
  struct hr_error lost = {.code = HR_INTERNAL, .detail = "the answer does not fit into memory"};
  struct hr_reply reply = {.magic = HR_REPLY_MAGIC, .abi = HR_ABI};

  if (hr_fault(HR_STEP_ANSWER) || !hr_text_new(&c->answer))
    return false;
  reply.code = (uint16_t)serve_locked(c);
  if (c->answer.lost) {
    reply.code = HR_INTERNAL;
    hr_report_error(&c->answer, &lost);
  }
  reply.length = (uint32_t)(c->answer.size - sizeof reply);
  memcpy(c->answer.data, &reply, sizeof reply);
  close_files(c);
  hr_pass(HR_STEP_REPORT);
  return true;
}

/* ---- one connection, never blocking ---------------------------------------------------------------- */

static void take_files(struct connection *c, struct msghdr *message) {
  struct cmsghdr *control;

  c->files_lost |= (message->msg_flags & MSG_CTRUNC) != 0;
  for (control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
    size_t n = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int), i;

    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
      continue;
    for (i = 0; i < n; i++) {
      int file;

      memcpy(&file, CMSG_DATA(control) + i * sizeof file, sizeof file);
      if (c->n_files < sizeof c->files / sizeof *c->files) {
        c->files[c->n_files++] = file;
      } else {
        close(file);
        c->files_lost = true;
      }
    }
  }
}

static enum want receive(struct connection *c) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * (HR_MAX_PAYLOADS + 1))];
  } control;

  while (c->received < sizeof c->request) {
    struct iovec part = {(char *)&c->request + c->received, sizeof c->request - c->received};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    ssize_t n = hr_fault(HR_STEP_RECEIVE) ? -1
                                          : recvmsg(c->socket.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      return WANT_READ;
    if (n <= 0)
      return WANT_NOTHING;
    take_files(c, &message);
    c->received += (size_t)n;
  }
  return WANT_NOTHING;
}

static enum want transmit(struct connection *c) {
  while (c->sent < c->answer.size) {
    const char *rest = c->answer.data + c->sent;
    ssize_t n = hr_fault(HR_STEP_SEND)
                    ? -1 : send(c->socket.fd, rest, c->answer.size - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return errno == EAGAIN || errno == EWOULDBLOCK ? WANT_WRITE : WANT_NOTHING;
    c->sent += (size_t)n;
  }
  return WANT_NOTHING;
}

static void connection_open(struct connection *c, int fd) {
  memset(c, 0, sizeof *c);
  c->socket.fd = fd;
  hr_descriptor_identify(&c->socket);
  c->deadline_ms = now_ms() + STAGE_MS;
}

static void connection_close(struct connection *c) {
  if (hr_descriptor_is_ours(&c->socket)) /* else the program closed descriptors: theirs may be reused as well */
    close_files(c);
  hr_text_free(&c->answer);
  hr_descriptor_forget(&c->socket);
}

/* Goes on as far as it can without waiting. WANT_NOTHING: finished, well or not. */
static enum want connection_step(struct connection *c) {
  if (!c->answer.data) {
    enum want want = receive(c);

    if (c->received < sizeof c->request || !answer(c))
      return want;
    c->deadline_ms = now_ms() + STAGE_MS;
  }
  return transmit(c);
}

/* ---- thread mode ------------------------------------------------------------------------------------- */

static void serve_blocking(int fd) {
  struct connection c;
  enum want want;

  connection_open(&c, fd);
  while ((want = connection_step(&c)) != WANT_NOTHING) {
    struct pollfd ready = {.fd = c.socket.fd, .events = want == WANT_READ ? POLLIN : POLLOUT};
    int64_t left = c.deadline_ms - now_ms();

    if (left <= 0 || poll(&ready, 1, (int)left) == 0)
      break;
  }
  connection_close(&c);
}

/* In a table shared with the program our listener may be gone, and its number somebody else's. */
static bool have_listener(void) {
  if (agent.listener.fd >= 0 && (agent.own_table || hr_descriptor_is_ours(&agent.listener)))
    return true;
  agent.listener.fd = -1;
  return open_listener(0);
}

/* A socket anew, in the directory that is right now. Where that fails, what there was stays. */
static void listen_anew(void) {
  struct hr_descriptor old = agent.listener;
  char path[HR_PATH_MAX];
  bool bound = __atomic_load_n(&agent.bound_pid, __ATOMIC_ACQUIRE) == getpid();

  strcpy(path, agent.socket_path);
  agent.listener.fd = -1;
  if (!open_listener(0)) {
    agent.listener = old;
    return;
  }
  hr_descriptor_forget(&old);
  if (bound && strcmp(path, agent.socket_path))
    unlink(path);
}

/* Until a client comes: true. In the meantime a guard has to be ended when its time is over, and the program may be
 * told to listen anew. */
static bool wait_for_client(void) {
  struct pollfd ready = {.fd = agent.listener.fd, .events = POLLIN};
  int ms, n;

  while ((ms = hr_guard_left_ms()) >= 0 || hr_recall_is_agreed()) {
    n = hr_recall_poll(&ready, 1, ms);
    hr_guard_tick();
    if (hr_recall_came()) {
      listen_anew();
      return false;
    }
    if (n)
      return true;
  }
  return true;
}

/* There is no socket. False: and there will be none. */
static bool wait_for_recall(void) {
  if (!hr_recall_is_agreed())
    return false;
  while (!hr_recall_came())
    hr_recall_poll(NULL, 0, -1);
  return true;
}

static void *agent_thread(void *is_child) {
  prctl(PR_SET_NAME, "hotreload");
  if (agent.runs_cxx)
    hr_helper_start(&agent.program_blocks);
  agent.own_table = hr_descriptors_own_table();
  if (is_child) {
    poll(NULL, 0, CHILD_DELAY_MS);
  } else {
    have_listener();
    sem_post(&first_try);
  }
  while (have_listener() || wait_for_recall()) {
    int fd;

    if (agent.listener.fd < 0 || !wait_for_client())
      continue;
    fd = hr_fault(HR_STEP_ACCEPT) ? -1 : hr_single_accept(agent.listener.fd, agent.own_table);
    if (fd >= 0) {
      have_listener(); /* before the answer: whoever has it may come again at once */
      serve_blocking(fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
      poll(NULL, 0, STAGE_MS); /* the connection stays queued: don't spin on it */
    else if (errno != EINTR && errno != ECONNABORTED && errno != EBADF && errno != ENOTSOCK && errno != EINVAL)
      break;
  }
  hr_single_leave();
  return NULL;
}

static int add_tls_size(struct dl_phdr_info *info, size_t size, void *total) {
  int i;

  (void)size;
  for (i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_TLS)
      *(size_t *)total += info->dlpi_phdr[i].p_memsz + info->dlpi_phdr[i].p_align;
  return 0;
}

/* The stack also holds the thread's copy of all thread-local variables. */
static bool create_thread(void *(*run)(void *), void *argument, size_t size, bool small) {
  pthread_attr_t attributes;
  pthread_t thread;
  bool created;

  if (pthread_attr_init(&attributes))
    return false;
  dl_iterate_phdr(add_tls_size, &size);
  if (small)
    pthread_attr_setstacksize(&attributes, hr_page_up(size));
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  created = !hr_fault(HR_STEP_THREAD) && !pthread_create(&thread, &attributes, run, argument);
  pthread_attr_destroy(&attributes);
  return created;
}

/* With all signals blocked, as the calling thread has them. */
bool hr_thread_start(void *(*run)(void *), void *argument, size_t stack) {
  return create_thread(run, argument, stack, true) || create_thread(run, argument, stack, false);
}

/* Signals are blocked before the thread exists: one meant for the program must never land in it. glibc keeps
 * its own two out of the set, so that setuid and cancellation still reach every thread. */
static bool start_thread(bool is_child) {
  sigset_t all;
  bool started;

  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &agent.program_blocks);
  started = hr_thread_start(agent_thread, is_child ? &agent : NULL, STACK_SIZE);
  pthread_sigmask(SIG_SETMASK, &agent.program_blocks, NULL);
  return started;
}

/* Whoever sees the program run can reach its agent. */
static void start_thread_and_wait(void) {
  struct timespec until = after_ms(START_WAIT_MS);
  int late = -1;

  sem_init(&first_try, 0, 0);
  hr_single_note();
  if (!start_thread(false))
    return;
  while ((late = sem_timedwait(&first_try, &until)) && errno == EINTR)
    ;
  if (!late)
    hr_single_keep(agent.own_table);
}

/* ---- poll mode --------------------------------------------------------------------------------------- */

static bool watch(int operation, int fd, uint32_t events) {
  struct epoll_event event = {.events = events};

  return !epoll_ctl(agent.epoll.fd, operation, fd, &event);
}

/* Modifying our listener's entry succeeds only if both numbers still are ours. */
static bool is_listening(void) {
  return hr_descriptor_is_ours(&agent.listener) && hr_descriptor_is_ours(&agent.epoll) &&
         watch(EPOLL_CTL_MOD, agent.listener.fd, EPOLLIN);
}

static bool start_listening(void) {
  if (agent.unreachable || disabled)
    return false;
  if (agent.client.socket.fd >= 0)
    connection_close(&agent.client);
  hr_descriptor_forget(&agent.listener);
  agent.epoll.fd = -1; /* not closed: all epoll descriptors look alike, it may be the program's */
  if (open_listener(SOCK_NONBLOCK)) {
    agent.epoll.fd = hr_descriptor_raise(epoll_create1(EPOLL_CLOEXEC));
    if (agent.epoll.fd >= 0 && hr_descriptor_identify(&agent.epoll) && watch(EPOLL_CTL_ADD, agent.listener.fd, EPOLLIN))
      return true;
    hr_descriptor_forget(&agent.listener);
  }
  agent.unreachable = true;
  return false;
}

static bool listens(void) {
  if (!hr_recall_came())
    return is_listening() || start_listening();
  agent.unreachable = !fork_is_clean;
  return start_listening();
}

static bool accept_client(void) {
  int fd = accept4(agent.listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

  if (fd < 0)
    return false;
  connection_open(&agent.client, hr_descriptor_raise(fd));
  return watch(EPOLL_CTL_ADD, agent.client.socket.fd, EPOLLIN);
}

/* Serves the client at hand. False: it is not finished and has time left. */
static bool finish_client(int *generations) {
  struct connection *c = &agent.client;
  enum want want = connection_step(c);

  if (want != WANT_NOTHING && now_ms() < c->deadline_ms) {
    watch(EPOLL_CTL_MOD, c->socket.fd, want == WANT_READ ? EPOLLIN : EPOLLOUT);
    return false;
  }
  *generations += c->generations;
  connection_close(c);
  return true;
}

static int poll_locked(void) {
  int generations = 0, clients;

  hr_guard_tick();
  if (!listens())
    return 0;
  for (clients = 0; clients < BACKLOG; clients++) {
    if (!hr_descriptor_is_ours(&agent.client.socket)) {
      connection_close(&agent.client);
      if (!accept_client())
        break;
    }
    if (!finish_client(&generations))
      break;
  }
  return generations;
}

static struct hr_view poller; /* guarded by poll_lock */
static bool is_polling;

const struct hr_view *hr_poller(void) { return is_polling ? &poller : NULL; }

/* What is above this frame is the program's stack: functions in there must not change under it. */
static int own_poll(void) {
  int generations;

  if (!hr_poll_linked || pthread_mutex_trylock(&poll_lock))
    return 0;
  poller.tid = (pid_t)syscall(SYS_gettid);
  poller.is_main = poller.tid == getpid();
  poller.thread_pointer = (uintptr_t)__builtin_thread_pointer();
  hr_capture(&poller.registers);
  is_polling = true;
  generations = poll_locked();
  is_polling = false;
  pthread_mutex_unlock(&poll_lock);
  return generations;
}

static int own_fd(void) {
  int fd;

  if (!hr_poll_linked)
    return -1;
  pthread_mutex_lock(&poll_lock);
  fd = listens() ? agent.epoll.fd : -1;
  pthread_mutex_unlock(&poll_lock);
  return fd;
}

static int own_waiting(void) {
  struct pollfd ready = {.events = POLLIN};
  int waiting = (int)__atomic_load_n(&hr_self.pending, __ATOMIC_ACQUIRE);

  if (waiting || !hr_poll_linked || pthread_mutex_trylock(&poll_lock))
    return waiting;
  ready.fd = listens() ? agent.epoll.fd : -1;
  waiting = ready.fd >= 0 && poll(&ready, 1, 0) == 1;
  pthread_mutex_unlock(&poll_lock);
  return waiting;
}

/* ---- what programs call ------------------------------------------------------------------------------ */

static struct hr_image *owner(void) {
  struct hr_image *found = __atomic_load_n(&owner_image, __ATOMIC_ACQUIRE);

  if (!found && !disabled) {
    found = hr_find_owner();
    __atomic_store_n(&owner_image, found, __ATOMIC_RELEASE);
  }
  return found && found->abi == HR_ABI ? found : NULL;
}

int hr_agent_poll(void) {
  struct hr_image *image = owner();

  return image ? image->poll() : 0;
}

int hr_agent_fd(void) {
  struct hr_image *image = owner();

  return image ? image->poll_fd() : -1;
}

int hotreload_pending(void) {
  struct hr_image *image = owner();

  return image ? image->waiting() : 0;
}

void hotreload_safepoint(void) {
  struct hr_image *image = owner();

  if (image && image->safepoint)
    image->safepoint();
}

int hotreload_stack_add(void *lowest, unsigned long size, const void *context) {
  struct hr_image *image = owner();

  return image && image->stacks && size ? image->stacks(lowest, size, context) : 0;
}

int hotreload_stack_remove(void *lowest) {
  struct hr_image *image = owner();

  return image && image->stacks ? image->stacks(lowest, 0, NULL) : 0;
}

void hotreload_blocked_begin(void) {
  struct hr_image *image = owner();

  if (image && image->blocked)
    image->blocked(1);
}

void hotreload_blocked_end(void) {
  struct hr_image *image = owner();

  if (image && image->blocked)
    image->blocked(0);
}

int hotreload_recovery_begin(struct hotreload_recovery *place) {
  struct hr_image *image = owner();

  _Static_assert(sizeof place->mask == sizeof(sigset_t), "struct hotreload_recovery has room for a sigset_t");
  pthread_sigmask(SIG_SETMASK, NULL, (sigset_t *)place->mask);
  place->stack = hr_caller_stack();
  place->signal = 0;
  if (image && image->recovery)
    image->recovery(place);
  return 0;
}

int hotreload_recovered(struct hotreload_recovery *place) {
  pthread_sigmask(SIG_SETMASK, (const sigset_t *)place->mask, NULL);
  return place->signal;
}

void hotreload_recovery_end(void) {
  struct hr_image *image = owner();

  if (image && image->recovery)
    image->recovery(NULL);
}

/* ---- fork -------------------------------------------------------------------------------------------- */

/* The child must not inherit what is half done. While an order only waits for its moment, nothing is: a child takes
 * back for itself what had been prepared (hr_order_forked). Other work is waited for, but not for ever: another fork
 * handler may hold a lock that the agent needs to finish (an allocator's); then the child goes without an agent. A
 * commit takes no lock and is always waited for. */
void hr_fork_allow(void) { pthread_mutex_unlock(&serve_lock); }
void hr_fork_forbid(void) { pthread_mutex_lock(&serve_lock); }

static void before_fork(void) {
  struct timespec until = after_ms(hr_single_is_fresh() ? FRESH_FORK_WAIT_MS : FORK_WAIT_MS);
  bool clean = !pthread_mutex_timedlock(&serve_lock, &until);

  hr_commit_lock(); /* also guards fork_is_clean against other threads that fork */
  fork_is_clean = clean;
}

static void after_fork_in_parent(void) {
  if (fork_is_clean)
    pthread_mutex_unlock(&serve_lock);
  hr_commit_unlock();
}

/* In poll mode the child gets its socket at its first hotreload_poll(). */
static void after_fork_in_child(void) {
  pthread_mutex_init(&serve_lock, NULL);
  pthread_mutex_init(&poll_lock, NULL);
  hr_commit_lock_reset();
  hr_safepoints_reset();
  hr_guard_forget();
  hr_late_reset();
  hr_order_forked();
  hr_recall_forked();
  hr_store_reset();
  is_polling = false;
  agent.bound_pid = 0;
  hr_self.pending = 0;
  __atomic_store_n(&hr_self.owner_pid, getpid(), __ATOMIC_RELEASE);
  if (hr_poll_linked && is_listening()) {
    close(agent.epoll.fd); /* just shown to be ours */
    if (agent.client.socket.fd >= 0)
      connection_close(&agent.client);
  }
  agent.epoll.fd = -1;
  agent.client.socket.fd = -1;
  hr_descriptor_forget(&agent.listener); /* if it is in this table */
  agent.unreachable = !fork_is_clean;
  if (!hr_poll_linked && fork_is_clean) {
    hr_single_forked();
    start_thread(true);
  }
}

/* ---- start and end of an image ----------------------------------------------------------------------- */

struct claim {
  int32_t pid;
  bool is_main; /* this image is the program */
  bool yields;  /* another image must be the agent */
  struct hr_image *owner; /* that is it */
};

static bool look_at_other(const struct hr_loaded *loaded, void *context) {
  struct hr_image *image = loaded->image;
  struct claim *claim = context;

  if (image == &hr_self) {
    claim->is_main = loaded->is_main;
    return true;
  }
  if (__atomic_load_n(&image->owner_pid, __ATOMIC_ACQUIRE) == claim->pid)
    claim->owner = image;
  /* Its constructor comes later. It forbids threads, so it has to be the agent. */
  if (!hr_poll_linked && !image->ready && image->poll_mode && *image->poll_mode)
    claim->yields = true;
  return true;
}

/* A library that serves the process must outlive dlclose. */
static void pin(void) {
  Dl_info info;

  if (dladdr(&hr_self, &info))
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

static void save_environment(char *to, const char *name) {
  const char *value = getenv(name);

  if (value && strlen(value) < HR_PATH_MAX)
    strcpy(to, value);
}

/* A request that is being served may be reading the records; then they are left behind. */
static void departing(struct hr_image *image) {
  if (pthread_mutex_trylock(&serve_lock))
    return;
  hr_records_free(image);
  pthread_mutex_unlock(&serve_lock);
}

static void become_agent(const struct claim *claim) {
  ssize_t n = readlink("/proc/self/exe", agent.executable, sizeof agent.executable - 1);

  if (hr_fault(HR_STEP_ATFORK) || pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child))
    return; /* children would answer for their parent */
  agent.executable[n > 0 ? n : 0] = 0;
  save_environment(agent.wanted_directory, "HOTRELOAD_RUNTIME_DIR");
  save_environment(agent.xdg_directory, "XDG_RUNTIME_DIR");
  agent.runs_cxx = __gxx_personality_v0 || dlsym(RTLD_DEFAULT, "__gxx_personality_v0");
  hr_self.poll = own_poll;
  hr_self.poll_fd = own_fd;
  hr_self.waiting = own_waiting;
  hr_self.safepoint = hr_safepoint;
  hr_self.blocked = hr_blocked;
  hr_self.recovery = hr_recovery;
  hr_self.stacks = hr_coroutine_declare;
  hr_self.arrived = hr_late_arrive;
  hr_self.departing = departing;
  __atomic_store_n(&owner_image, &hr_self, __ATOMIC_RELEASE);
  __atomic_store_n(&hr_self.owner_pid, claim->pid, __ATOMIC_RELEASE);
  if (!claim->is_main)
    pin();
  agent.started = true;
  hr_recall_agree();
  if (hr_poll_linked)
    start_listening();
  else
    start_thread_and_wait();
}

static bool is_forbidden(void) {
  const char *value = getenv("HOTRELOAD_DISABLE");

  return getauxval(AT_SECURE) || (value && value[0] && strcmp(value, "0"));
}

/* Constructors run one after the other under the loader's lock, so two images can't claim at once. */
__attribute__((constructor(101))) static void image_start(void) {
  struct claim claim = {.pid = getpid()};

  disabled = is_forbidden();
  if (!hr_image_prepare() || disabled)
    return;
  hr_each_image(look_at_other, &claim);
  if (claim.owner && claim.owner->abi == HR_ABI)
    claim.owner->arrived(&hr_self);
  __atomic_store_n(&hr_self.ready, 1, __ATOMIC_RELEASE);
  if (!claim.owner && !claim.yields)
    become_agent(&claim);
}

__attribute__((destructor(101))) static void image_end(void) {
  struct hr_image *image = owner();

  hr_image_release();
  if (image && image != &hr_self)
    image->departing(&hr_self);
  if (agent.started && hr_self.owner_pid == getpid() &&
      __atomic_load_n(&agent.bound_pid, __ATOMIC_ACQUIRE) == getpid())
    unlink(agent.socket_path);
  if (agent.started && hr_self.owner_pid == getpid())
    hr_guard_leave();
}
