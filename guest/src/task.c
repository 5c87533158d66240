/* Finds a task by its name. */
#include "task.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

typedef int task_fn(int argc, const char *const *argv);

static const struct {
    const char *name;
    int least, most; /* arguments after the name */
    task_fn *run;
} TASKS[] = {
    {NULL, 0, 0, NULL},
};

static int refuse(const char *text)
{
    ssize_t wrote = write(2, text, strlen(text));
    (void)wrote;
    return EINVAL;
}

int task_run(const char *const *argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    for (size_t i = 0; argc && TASKS[i].name; i++)
        if (strcmp(TASKS[i].name, argv[0]) == 0) {
            bool fits = argc - 1 >= TASKS[i].least && argc - 1 <= TASKS[i].most;
            return fits ? TASKS[i].run(argc, argv) : refuse("wrong number of arguments");
        }
    return refuse("the agent has no such task");
}
