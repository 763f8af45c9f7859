/* A server on lwIP and a TUN interface: the sink, source and echo of protocols.py, and idle connections.
 *
 *     lwip INTERFACE ADDRESS
 *
 * lwIP as Debian builds it (windows of 64 KiB, no SACK, no timestamps), driven by its callbacks from the thread that reads the interface,
 * under lwIP's lock, so that nothing is handed from thread to thread; lwIP's own thread has the timers. Prints {} when it is ready; runs
 * until it is ended.
 */
#include <poll.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

#include <lwip/ip.h>
#include <lwip/netif.h>
#include <lwip/tcp.h>
#include <lwip/tcpip.h>

#include "tun.h"

enum { SINK_PORT = 5001, SOURCE_PORT, ECHO_PORT, IDLE_PORT, MTU = 1500, BATCH = 64, BACKLOG = 255, PARTS_MAX = 16 };

static int tun;
static const uint8_t chunk[65536];

static err_t send_frame(struct netif *netif, struct pbuf *frame, const ip4_addr_t *to)
{
    (void)netif, (void)to;
    struct iovec parts[PARTS_MAX];
    int count = 0;
    for (struct pbuf *part = frame; part; part = part->next) {
        if (count == PARTS_MAX)
            return ERR_BUF;
        parts[count++] = (struct iovec){.iov_base = part->payload, .iov_len = part->len};
    }
    return writev(tun, parts, count) < 0 ? ERR_IF : ERR_OK;
}

static err_t start_interface(struct netif *netif)
{
    netif->name[0] = 't';
    netif->name[1] = 'n';
    netif->mtu = MTU;
    netif->output = send_frame;
    return ERR_OK;
}

/* Gives the source as much to send as it takes. */
static err_t fill(void *argument, struct tcp_pcb *connection, u16_t acknowledged)
{
    (void)argument, (void)acknowledged;
    for (;;) {
        size_t room = tcp_sndbuf(connection);
        size_t length = room < sizeof chunk ? room : sizeof chunk - 1; /* tcp_write counts in 16 bits */
        if (length == 0 || tcp_write(connection, chunk, (u16_t)length, 0) != ERR_OK)
            return tcp_output(connection);
    }
}

static err_t on_data(void *argument, struct tcp_pcb *connection, struct pbuf *data, err_t error)
{
    (void)argument, (void)error;
    if (!data) {
        tcp_sent(connection, NULL); /* a source is not filled any more */
        if (tcp_close(connection) == ERR_OK)
            return ERR_OK;
        tcp_abort(connection);
        return ERR_ABRT;
    }
    if (connection->local_port == ECHO_PORT) {
        if (data->tot_len > tcp_sndbuf(connection))
            return ERR_MEM; /* lwIP comes again with it */
        for (struct pbuf *part = data; part; part = part->next) {
            if (tcp_write(connection, part->payload, part->len, TCP_WRITE_FLAG_COPY) != ERR_OK) {
                tcp_abort(connection);
                return ERR_ABRT;
            }
        }
        tcp_output(connection);
    }
    tcp_recved(connection, data->tot_len);
    pbuf_free(data);
    return ERR_OK;
}

static err_t on_connection(void *argument, struct tcp_pcb *connection, err_t error)
{
    (void)argument;
    if (error != ERR_OK || !connection)
        return ERR_VAL;
    tcp_nagle_disable(connection);
    tcp_recv(connection, on_data);
    if (connection->local_port == SOURCE_PORT) {
        tcp_sent(connection, fill);
        return fill(NULL, connection, 0);
    }
    return ERR_OK;
}

static void listen_at(uint16_t port)
{
    struct tcp_pcb *listener = tcp_new();
    if (!listener || tcp_bind(listener, IP_ADDR_ANY, port) != ERR_OK || !(listener = tcp_listen_with_backlog(listener, BACKLOG))) {
        fputs("lwip: cannot listen\n", stderr);
        exit(1);
    }
    tcp_accept(listener, on_connection);
}

/* Reads what is there, at most a batch; returns whether anything was. */
static int receive(struct netif *netif)
{
    static uint8_t frame[MTU];
    int got = 0;
    ssize_t length;
    LOCK_TCPIP_CORE();
    for (; got < BATCH && (length = read(tun, frame, sizeof frame)) > 0; got++) {
        struct pbuf *packet = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
        if (!packet)
            break;
        pbuf_take(packet, frame, (u16_t)length);
        if (netif->input(packet, netif) != ERR_OK)
            pbuf_free(packet);
    }
    UNLOCK_TCPIP_CORE();
    return got;
}

int main(int count, char **arguments)
{
    static struct netif netif;
    ip4_addr_t address, mask, none;
    if (count != 3 || !ip4addr_aton(arguments[2], &address)) {
        fputs("usage: lwip INTERFACE ADDRESS\n", stderr);
        return 2;
    }
    tun = open_tun(arguments[1], false);
    tcpip_init(NULL, NULL);
    LOCK_TCPIP_CORE();
    IP4_ADDR(&mask, 255, 255, 255, 0);
    ip4_addr_set_zero(&none);
    netif_add(&netif, &address, &mask, &none, NULL, start_interface, ip_input);
    netif_set_default(&netif);
    netif_set_up(&netif);
    netif_set_link_up(&netif);
    for (uint16_t port = SINK_PORT; port <= IDLE_PORT; port++)
        listen_at(port);
    UNLOCK_TCPIP_CORE();
    if (puts("{}") < 0 || fflush(stdout) != 0)
        return 1;
    struct pollfd readable = {.fd = tun, .events = POLLIN};
    for (;;)
        if (!receive(&netif))
            poll(&readable, 1, -1);
}
