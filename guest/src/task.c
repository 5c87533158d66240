/* Finds a task by its name. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "task.h"
#include "task_io.h"
#include "tasks.h"

static const struct {
    const char *name;
    int least, most; /* arguments after the name */
    task_fn *run;
} TASKS[] = {
    {"get", 1, 2, task_get},
    {"put", 1, 2, task_put},
    {"read", 3, 3, task_read},
    {"write", 3, 3, task_write},
    {"stat", 1, 2, task_stat},
    {"list", 1, 1, task_list},
    {"mkdir", 2, 3, task_mkdir},
    {"remove", 1, 2, task_remove},
    {"rename", 2, 2, task_rename},
    {"symlink", 2, 2, task_symlink},
    {"chmod", 2, 2, task_chmod},
    {"chown", 3, 3, task_chown},
    {"watch", 1, 2, task_watch},
    {"files", 1, INT_MAX, task_files},
    {"processes", 0, 0, task_processes},
};

int task_run(const char *const *argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    for (size_t i = 0; argc && i < sizeof TASKS / sizeof *TASKS; i++)
        if (strcmp(TASKS[i].name, argv[0]) == 0) {
            bool fits = argc - 1 >= TASKS[i].least && argc - 1 <= TASKS[i].most;
            return fits ? TASKS[i].run(argc, argv) : task_refuse(EINVAL, argv[0], "wrong number of arguments");
        }
    return task_refuse(ENOSYS, argc ? argv[0] : "", "the agent has no such task");
}
