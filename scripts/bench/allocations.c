/* Counts the blocks of memory that the interpreter asks for between allocations_begin and allocations_end; loaded by meter.py.
 *
 * The hook stays for the life of the process: blocks from before it are freed through it, which changes nothing. A block that grows
 * counts as a new one. Objects that come from one of the interpreter's free lists are no blocks.
 */
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

static PyMemAllocatorEx inner[2]; /* of PYMEM_DOMAIN_MEM and PYMEM_DOMAIN_OBJ */
static uint64_t count;
static bool counting;

static void *hook_malloc(void *context, size_t size)
{
    PyMemAllocatorEx *allocator = context;
    count += counting;
    return allocator->malloc(allocator->ctx, size);
}

static void *hook_calloc(void *context, size_t number, size_t size)
{
    PyMemAllocatorEx *allocator = context;
    count += counting;
    return allocator->calloc(allocator->ctx, number, size);
}

static void *hook_realloc(void *context, void *block, size_t size)
{
    PyMemAllocatorEx *allocator = context;
    count += counting;
    return allocator->realloc(allocator->ctx, block, size);
}

static void hook_free(void *context, void *block)
{
    PyMemAllocatorEx *allocator = context;
    allocator->free(allocator->ctx, block);
}

void allocations_install(void)
{
    const PyMemAllocatorDomain domains[2] = {PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
    for (int i = 0; i < 2; i++) {
        PyMemAllocatorEx hook = {&inner[i], hook_malloc, hook_calloc, hook_realloc, hook_free};
        PyMem_GetAllocator(domains[i], &inner[i]);
        PyMem_SetAllocator(domains[i], &hook);
    }
}

void allocations_begin(void)
{
    count = 0;
    counting = true;
}

void allocations_end(void) { counting = false; }

uint64_t allocations_count(void) { return count; }
