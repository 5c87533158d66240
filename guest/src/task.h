/* The agent's own functions: each runs in a child, on a stream's stdin, stdout and stderr. docs/agent-protocol.md lists them. */
#ifndef FIRKIN_TASK_H
#define FIRKIN_TASK_H

/* argv[0] is the task's name; ends with NULL. Returns an exit code: 0, or the errno of what failed, after a line on stderr.
 * Descriptors are blocking, SIGPIPE kills, and nothing but 0, 1 and 2 is open. */
int task_run(const char *const *argv);

#endif
