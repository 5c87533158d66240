/* For tests on the host: runs one task of the agent on stdin, stdout and stderr. */
#include <stdint.h>

#include "task.h"

int main(int argc, char **argv)
{
    (void)argc;
    return task_run((const char *const *)(uintptr_t)(argv + 1));
}
