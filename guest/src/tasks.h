/* A function for each task, as docs/agent-protocol.md lists them. argv[0] is the name; the count of words was checked. */
#ifndef FIRKIN_TASKS_H
#define FIRKIN_TASKS_H

typedef int task_fn(int argc, const char *const *argv);

task_fn task_get, task_put;
task_fn task_read, task_write;
task_fn task_stat, task_list;
task_fn task_mkdir, task_remove, task_rename, task_symlink, task_chmod, task_chown;
task_fn task_watch;
task_fn task_files, task_processes;

#endif
