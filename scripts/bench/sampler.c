/* Samples the thread that starts it, by its CPU time: where the processor was (kernel or user, with the kernel's call chain), and which
 * Python functions were active then. Loaded by sampling.py; knows the interpreter's frames, and so is compiled against its own headers.
 *
 * The clock is the kernel's cpu-clock event (perf_event_open(2)), which a virtual machine has too. Each sample raises a signal on the thread
 * itself. Its handler runs before the thread goes on in user space, so the Python frames are those of the sample. It takes about 1 us.
 */
#define _GNU_SOURCE
#define Py_BUILD_CORE 1
#include <Python.h>
#include <internal/pycore_frame.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#if PY_VERSION_HEX >= 0x030d0000
#error "frames are read as Python 3.11 and 3.12 have them"
#endif

enum { CHAIN = 64, FRAMES = 24, RING_PAGES = 64, HELD = 1 << 14 };

struct sample {
    uint64_t address;          /* where the processor was */
    uint64_t chain[CHAIN];     /* return addresses in the kernel, innermost first; 0 ends them */
    uint64_t code[FRAMES];     /* code objects of the Python functions, innermost first; 0 ends them */
    uint32_t offset[FRAMES];   /* octet of the code that was executed in each */
    uint32_t in_kernel;
    uint32_t padding;
};

static struct sample *samples;
static uint64_t capacity, count, lost;
static PyThreadState *thread;
static struct perf_event_mmap_page *ring;
static int event = -1;
static PyCodeObject *held[HELD]; /* a hash table */
static unsigned held_count;

static void copy_out(uint64_t position, void *to, size_t length)
{
    const uint8_t *data = (const uint8_t *)ring + ring->data_offset;
    for (size_t i = 0; i < length; i++)
        ((uint8_t *)to)[i] = data[(position + i) % ring->data_size];
}

/* Keeps a code object alive that is seen for the first time, so that it can be given its name in the end; false where there is none. */
static bool hold(PyCodeObject *code)
{
    size_t at = ((uintptr_t)code >> 4) % HELD;
    while (held[at] != NULL && held[at] != code)
        at = (at + 1) % HELD;
    if (held[at] == NULL) {
        if (!PyCode_Check(code) || held_count == HELD / 2)
            return false;
        Py_INCREF(code);
        held[at] = code;
        held_count++;
    }
    return true;
}

static void read_frames(struct sample *sample)
{
    unsigned depth = 0;
    if (thread->cframe != NULL)
        for (const _PyInterpreterFrame *frame = thread->cframe->current_frame; frame != NULL && depth < FRAMES; frame = frame->previous) {
            if (!hold(frame->f_code))
                break;
            sample->code[depth] = (uint64_t)(uintptr_t)frame->f_code;
            sample->offset[depth] = (uint32_t)((const uint8_t *)frame->prev_instr - (const uint8_t *)frame->f_code->co_code_adaptive);
            depth++;
        }
}

static void on_sample(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info, (void)context;
    int saved = errno;
    uint64_t head = __atomic_load_n(&ring->data_head, __ATOMIC_ACQUIRE);
    uint64_t tail = ring->data_tail;
    while (tail < head) {
        struct perf_event_header header;
        copy_out(tail, &header, sizeof header);
        if (header.type == PERF_RECORD_SAMPLE) {
            if (count < capacity) {
                struct sample *sample = &samples[count];
                uint64_t entries, entry;
                copy_out(tail + sizeof header, &sample->address, 8);
                copy_out(tail + sizeof header + 8, &entries, 8);
                sample->in_kernel = (header.misc & PERF_RECORD_MISC_CPUMODE_MASK) == PERF_RECORD_MISC_KERNEL;
                unsigned kept = 0;
                for (uint64_t i = 0; i < entries && kept < CHAIN; i++) {
                    copy_out(tail + sizeof header + 16 + 8 * i, &entry, 8);
                    if (entry < PERF_CONTEXT_MAX && sample->in_kernel)
                        sample->chain[kept++] = entry;
                }
                read_frames(sample);
                count++;
            } else
                lost++;
        } else if (header.type == PERF_RECORD_LOST) {
            uint64_t body[2];
            copy_out(tail + sizeof header, body, sizeof body);
            lost += body[1];
        }
        tail += header.size;
    }
    __atomic_store_n(&ring->data_tail, tail, __ATOMIC_RELEASE);
    errno = saved;
}

/* Begins to sample the calling thread `rate` times a second of its CPU time; at most `most` samples are kept. Returns 0 or an errno. */
int sampler_start(unsigned rate, uint64_t most)
{
    struct perf_event_attr attributes = {
        .type = PERF_TYPE_SOFTWARE,
        .size = sizeof attributes,
        .config = PERF_COUNT_SW_CPU_CLOCK,
        .sample_period = 1000000000u / rate,
        .sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_CALLCHAIN,
        .wakeup_events = 1,
        .disabled = 1,
        .exclude_callchain_user = 1,
    };
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct f_owner_ex owner = {F_OWNER_TID, (pid_t)syscall(SYS_gettid)};
    struct sigaction action = {.sa_sigaction = on_sample, .sa_flags = SA_SIGINFO | SA_RESTART};
    samples = calloc(most, sizeof *samples);
    if (samples == NULL)
        return ENOMEM;
    capacity = most;
    thread = PyThreadState_Get();
    event = (int)syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (event < 0)
        return errno;
    ring = mmap(NULL, (1 + RING_PAGES) * page, PROT_READ | PROT_WRITE, MAP_SHARED, event, 0);
    if (ring == MAP_FAILED)
        return errno;
    if (sigaction(SIGRTMIN + 1, &action, NULL) < 0 || fcntl(event, F_SETOWN_EX, &owner) < 0 || fcntl(event, F_SETSIG, SIGRTMIN + 1) < 0 ||
        fcntl(event, F_SETFL, O_ASYNC | O_NONBLOCK) < 0 || ioctl(event, PERF_EVENT_IOC_ENABLE, 0) < 0)
        return errno;
    return 0;
}

/* Ends it. The samples stay. */
void sampler_stop(void) { ioctl(event, PERF_EVENT_IOC_DISABLE, 0); }

uint64_t sampler_count(void) { return count; }
uint64_t sampler_lost(void) { return lost; }
const struct sample *sampler_samples(void) { return samples; }
