/* What packetdrill calls in a library that it is given with --so_filename: a table of functions that the library's
 * packetdrill_interface_init fills in. Declared from the description of the interface; the order of the members is the contract.
 * Each function gets `userdata` first and is otherwise the system call of its name: -1 and errno where it fails. */

#ifndef TUNSTACK_PACKETDRILL_INTERFACE_H
#define TUNSTACK_PACKETDRILL_INTERFACE_H

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct packetdrill_interface {
    void *userdata;
    void (*free)(void *userdata);
    int (*socket)(void *userdata, int domain, int type, int protocol);
    int (*bind)(void *userdata, int fd, const struct sockaddr *address, socklen_t length);
    int (*listen)(void *userdata, int fd, int backlog);
    int (*accept)(void *userdata, int fd, struct sockaddr *address, socklen_t *length);
    int (*connect)(void *userdata, int fd, const struct sockaddr *address, socklen_t length);
    ssize_t (*read)(void *userdata, int fd, void *buffer, size_t size);
    ssize_t (*readv)(void *userdata, int fd, const struct iovec *pieces, int count);
    ssize_t (*recv)(void *userdata, int fd, void *buffer, size_t size, int flags);
    ssize_t (*recvfrom)(void *userdata, int fd, void *buffer, size_t size, int flags, struct sockaddr *address, socklen_t *length);
    ssize_t (*recvmsg)(void *userdata, int fd, struct msghdr *message, int flags);
    ssize_t (*write)(void *userdata, int fd, const void *data, size_t size);
    ssize_t (*writev)(void *userdata, int fd, const struct iovec *pieces, int count);
    ssize_t (*send)(void *userdata, int fd, const void *data, size_t size, int flags);
    ssize_t (*sendto)(void *userdata, int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                      socklen_t length);
    ssize_t (*sendmsg)(void *userdata, int fd, const struct msghdr *message, int flags);
    int (*fcntl)(void *userdata, int fd, int command, ...);
    int (*ioctl)(void *userdata, int fd, unsigned long request, ...);
    int (*close)(void *userdata, int fd);
    int (*shutdown)(void *userdata, int fd, int how);
    int (*getsockopt)(void *userdata, int fd, int level, int name, void *value, socklen_t *length);
    int (*setsockopt)(void *userdata, int fd, int level, int name, const void *value, socklen_t length);
    int (*poll)(void *userdata, struct pollfd *asked, nfds_t count, int timeout);
    /* A packet for the stack: 0, or -1. */
    int (*netdev_send)(void *userdata, const void *packet, size_t size);
    /* The stack's next packet and when it left, us; *size is the room in the buffer, then the packet's length. */
    int (*netdev_receive)(void *userdata, void *buffer, size_t *size, long long *time);
    int (*usleep)(void *userdata, useconds_t microseconds);
    int (*gettimeofday)(void *userdata, struct timeval *time, struct timezone *zone);
    int (*epoll_create)(void *userdata, int size);
    int (*epoll_ctl)(void *userdata, int epfd, int operation, int fd, struct epoll_event *event);
    int (*epoll_wait)(void *userdata, int epfd, struct epoll_event *events, int most, int timeout);
    int (*pipe)(void *userdata, int fds[2]);
    int (*splice)(void *userdata, int source, loff_t *source_offset, int target, loff_t *target_offset, size_t size,
                  unsigned int flags);
};

#endif
