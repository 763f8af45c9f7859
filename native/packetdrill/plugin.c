/* The library's C half: the table of functions, and getsockopt for those who call the C library's.
 *
 * Every call goes to the function of the same name in glue.py (the ts_* below, made by cffi), which is reached under Python's lock;
 * cffi starts the interpreter with the first of them and carries errno across. Scatter and gather are undone here, so that Python sees
 * one buffer. Included into the source that cffi generates; nothing here is called from elsewhere. */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define OWNED_MAX 4096

static unsigned char ts_owned[OWNED_MAX]; /* which descriptors are ours; written by Python */
static int ts_returning;                  /* thread that is on its way back from a call that blocked, 0: none; written by Python */

/* Wait until a thread sleeps, a fifth of a second of real time at most. */
static void await_sleep(int thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    for (int tries = 0; tries < 2000; tries++) {
        char text[256] = "";
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
        if (fd >= 0)
            close(fd);
        const char *state = length > 0 ? strrchr(text, ')') : NULL;
        if (state == NULL || state[2] == 'S')
            return;
        usleep(100);
    }
}

static size_t pieces_size(const struct iovec *pieces, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].iov_len;
    return size;
}

static ssize_t receive_into(int fd, const struct iovec *pieces, size_t count, int flags)
{
    size_t room = pieces_size(pieces, count);
    char *buffer = malloc(room + 1);
    if (buffer == NULL)
        return -1;
    ssize_t got = ts_receive(fd, buffer, room, flags);
    const char *from = buffer;
    size_t left = got > 0 ? (size_t)got : 0;
    for (size_t i = 0; i < count && left > 0; i++) {
        size_t part = left < pieces[i].iov_len ? left : pieces[i].iov_len;
        memcpy(pieces[i].iov_base, from, part);
        from += part;
        left -= part;
    }
    int saved = errno;
    free(buffer);
    errno = saved;
    return got;
}

static ssize_t send_from(int fd, const struct iovec *pieces, size_t count, int flags, const struct sockaddr *address, socklen_t length)
{
    size_t size = pieces_size(pieces, count);
    char *buffer = malloc(size + 1);
    if (buffer == NULL)
        return -1;
    char *to = buffer;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].iov_len > 0)
            memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
        to += pieces[i].iov_len;
    }
    ssize_t sent = ts_send(fd, buffer, size, flags, address, length);
    int saved = errno;
    free(buffer);
    errno = saved;
    return sent;
}

static void call_free(void *userdata)
{
    (void)userdata;
}

static int call_socket(void *userdata, int domain, int type, int protocol)
{
    (void)userdata;
    return ts_socket(domain, type, protocol);
}

static int call_bind(void *userdata, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)userdata;
    return ts_bind(fd, address, length);
}

static int call_listen(void *userdata, int fd, int backlog)
{
    (void)userdata;
    return ts_listen(fd, backlog);
}

static int call_accept(void *userdata, int fd, struct sockaddr *address, socklen_t *length)
{
    (void)userdata;
    return ts_accept(fd, address, length);
}

static int call_connect(void *userdata, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)userdata;
    return ts_connect(fd, address, length);
}

static ssize_t call_read(void *userdata, int fd, void *buffer, size_t size)
{
    (void)userdata;
    return ts_receive(fd, buffer, size, 0);
}

static ssize_t call_readv(void *userdata, int fd, const struct iovec *pieces, int count)
{
    (void)userdata;
    return receive_into(fd, pieces, (size_t)count, 0);
}

static ssize_t call_recv(void *userdata, int fd, void *buffer, size_t size, int flags)
{
    (void)userdata;
    return ts_receive(fd, buffer, size, flags);
}

static ssize_t call_recvfrom(void *userdata, int fd, void *buffer, size_t size, int flags, struct sockaddr *address, socklen_t *length)
{
    (void)userdata;
    if (address != NULL && length != NULL)
        *length = 0; /* as Linux does on a stream */
    return ts_receive(fd, buffer, size, flags);
}

static ssize_t call_recvmsg(void *userdata, int fd, struct msghdr *message, int flags)
{
    (void)userdata;
    ssize_t got = receive_into(fd, message->msg_iov, message->msg_iovlen, flags);
    if (got >= 0) {
        message->msg_namelen = 0;
        message->msg_controllen = 0;
        message->msg_flags = 0;
    }
    return got;
}

static ssize_t call_write(void *userdata, int fd, const void *data, size_t size)
{
    (void)userdata;
    return ts_send(fd, data, size, 0, NULL, 0);
}

static ssize_t call_writev(void *userdata, int fd, const struct iovec *pieces, int count)
{
    (void)userdata;
    return send_from(fd, pieces, (size_t)count, 0, NULL, 0);
}

static ssize_t call_send(void *userdata, int fd, const void *data, size_t size, int flags)
{
    (void)userdata;
    return ts_send(fd, data, size, flags, NULL, 0);
}

static ssize_t call_sendto(void *userdata, int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                           socklen_t length)
{
    (void)userdata;
    return ts_send(fd, data, size, flags, address, length);
}

static ssize_t call_sendmsg(void *userdata, int fd, const struct msghdr *message, int flags)
{
    (void)userdata;
    return send_from(fd, message->msg_iov, message->msg_iovlen, flags, message->msg_name, message->msg_namelen);
}

static int call_fcntl(void *userdata, int fd, int command, ...)
{
    (void)userdata;
    int argument = 0;
    if (command == F_SETFL || command == F_SETFD) {
        va_list arguments;
        va_start(arguments, command);
        argument = va_arg(arguments, int);
        va_end(arguments);
    }
    return ts_fcntl(fd, command, argument);
}

static int call_ioctl(void *userdata, int fd, unsigned long request, ...)
{
    (void)userdata;
    va_list arguments;
    va_start(arguments, request);
    int *argument = va_arg(arguments, int *);
    va_end(arguments);
    return ts_ioctl(fd, request, argument);
}

static int call_close(void *userdata, int fd)
{
    (void)userdata;
    return ts_close(fd);
}

static int call_shutdown(void *userdata, int fd, int how)
{
    (void)userdata;
    return ts_shutdown(fd, how);
}

static int call_getsockopt(void *userdata, int fd, int level, int name, void *value, socklen_t *length)
{
    (void)userdata;
    return ts_getsockopt(fd, level, name, value, length);
}

static int call_setsockopt(void *userdata, int fd, int level, int name, const void *value, socklen_t length)
{
    (void)userdata;
    return ts_setsockopt(fd, level, name, value, length);
}

static int call_poll(void *userdata, struct pollfd *asked, nfds_t count, int timeout)
{
    (void)userdata;
    return ts_poll(asked, count, timeout);
}

static int call_netdev_send(void *userdata, const void *packet, size_t size)
{
    (void)userdata;
    return ts_netdev_send(packet, size);
}

static int call_netdev_receive(void *userdata, void *buffer, size_t *size, long long *time)
{
    (void)userdata;
    return ts_netdev_receive(buffer, size, time);
}

static int call_usleep(void *userdata, useconds_t microseconds)
{
    (void)userdata;
    /* packetdrill lets its other thread run while it sleeps. What that has to do after its call takes real time, and here a sleep takes
     * none: so it gets the time now, or an event after the sleep would find the call's result not yet taken over. */
    if (ts_returning != 0) {
        await_sleep(ts_returning);
        ts_returning = 0;
    }
    return ts_usleep(microseconds);
}

static int call_gettimeofday(void *userdata, struct timeval *time, struct timezone *zone)
{
    (void)userdata;
    (void)zone;
    long long now = ts_now();
    if (now < 0)
        return -1;
    time->tv_sec = now / 1000000;
    time->tv_usec = now % 1000000;
    return 0;
}

static int call_epoll_create(void *userdata, int size)
{
    (void)userdata;
    if (size <= 0) {
        errno = EINVAL;
        return -1;
    }
    return ts_epoll_create();
}

static int call_epoll_ctl(void *userdata, int epfd, int operation, int fd, struct epoll_event *event)
{
    (void)userdata;
    return ts_epoll_ctl(epfd, operation, fd, event != NULL ? event->events : 0, event != NULL ? event->data.u64 : 0);
}

static int call_epoll_wait(void *userdata, int epfd, struct epoll_event *events, int most, int timeout)
{
    (void)userdata;
    if (most <= 0) {
        errno = EINVAL;
        return -1;
    }
    uint32_t *bits = calloc((size_t)most, sizeof *bits);
    uint64_t *data = calloc((size_t)most, sizeof *data);
    int ready = -1;
    if (bits != NULL && data != NULL)
        ready = ts_epoll_wait(epfd, bits, data, most, timeout);
    for (int i = 0; i < ready; i++) {
        events[i].events = bits[i];
        events[i].data.u64 = data[i];
    }
    int saved = errno;
    free(bits);
    free(data);
    errno = saved;
    return ready;
}

static int call_pipe(void *userdata, int fds[2])
{
    (void)userdata;
    return ts_pipe(fds);
}

static int call_splice(void *userdata, int source, loff_t *source_offset, int target, loff_t *target_offset, size_t size,
                       unsigned int flags)
{
    (void)userdata;
    if (source_offset != NULL || target_offset != NULL) {
        errno = ESPIPE; /* neither a socket nor a pipe has an offset */
        return -1;
    }
    return ts_splice(source, target, size, flags);
}

/* Reads from descriptors that are not ours are the kernel's. It is this function that packetdrill finds for `%{ assert ... }%`, if
 * the library was preloaded. */
EXPORT int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict length)
{
    if (fd >= 0 && fd < OWNED_MAX && ts_owned[fd])
        return ts_getsockopt(fd, level, name, value, length);
    return (int)syscall(SYS_getsockopt, fd, level, name, value, length);
}

/* Starts Python. It looks for cffi's runtime before any code of ours could tell it where that is: PYTHONPATH does, for that moment. */
static int start_python(void)
{
    const char *path = getenv("PYTHONPATH");
    char *before = path != NULL ? strdup(path) : NULL;
    setenv("PYTHONPATH", RUNTIME, 1);
    int status = cffi_start_python();
    if (before != NULL)
        setenv("PYTHONPATH", before, 1);
    else
        unsetenv("PYTHONPATH");
    free(before);
    return status;
}

EXPORT void packetdrill_interface_init(const char *flags, struct packetdrill_interface *interface)
{
    /* This library was opened with RTLD_LOCAL; Python's own extension modules look for its symbols globally. */
    if (dlopen(LIBPYTHON, RTLD_NOW | RTLD_GLOBAL) == NULL)
        fprintf(stderr, "tunstack: %s\n", dlerror());
    unsetenv("LD_PRELOAD"); /* it was for this process; the commands of a script are to go without */
    memset(interface, 0, sizeof *interface);
    if (start_python() != 0 || ts_init(flags != NULL ? flags : "") != 0)
        exit(2); /* it said why; there is no other way to refuse */
    interface->free = call_free;
    interface->socket = call_socket;
    interface->bind = call_bind;
    interface->listen = call_listen;
    interface->accept = call_accept;
    interface->connect = call_connect;
    interface->read = call_read;
    interface->readv = call_readv;
    interface->recv = call_recv;
    interface->recvfrom = call_recvfrom;
    interface->recvmsg = call_recvmsg;
    interface->write = call_write;
    interface->writev = call_writev;
    interface->send = call_send;
    interface->sendto = call_sendto;
    interface->sendmsg = call_sendmsg;
    interface->fcntl = call_fcntl;
    interface->ioctl = call_ioctl;
    interface->close = call_close;
    interface->shutdown = call_shutdown;
    interface->getsockopt = call_getsockopt;
    interface->setsockopt = call_setsockopt;
    interface->poll = call_poll;
    interface->netdev_send = call_netdev_send;
    interface->netdev_receive = call_netdev_receive;
    interface->usleep = call_usleep;
    interface->gettimeofday = call_gettimeofday;
    interface->epoll_create = call_epoll_create;
    interface->epoll_ctl = call_epoll_ctl;
    interface->epoll_wait = call_epoll_wait;
    interface->pipe = call_pipe;
    interface->splice = call_splice;
}
