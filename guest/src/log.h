/* One line per event on the console, each `firkin-init: what: why`. */
#ifndef FIRKIN_LOG_H
#define FIRKIN_LOG_H

/* Send lines to this descriptor from now on (2 until told otherwise). */
void log_to(int fd);

/* Keep the first line said from now on, as `what: why`, in `first` too; NULL: no more. */
struct text;
void log_keep(struct text *first);

/* Write one line made of the parts up to NULL. */
void log_parts(const char *part, ...) __attribute__((sentinel));
#define LOG(...) log_parts(__VA_ARGS__, (char *)0)

/* `what subject: strerror(errno)`; subject may be NULL. Returns -1 and keeps errno. */
int log_errno(const char *what, const char *subject);

#endif
