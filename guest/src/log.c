/* One line per event on the console, in a single write so that the kernel's own lines cannot cut it. */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

static int log_fd = 2;
static struct text *kept;

void log_to(int fd)
{
    log_fd = fd;
}

void log_keep(struct text *first)
{
    kept = first;
}

void log_parts(const char *part, ...)
{
    static const char name[] = "firkin-init: ";
    struct text line = {0};
    va_list rest;
    text_add(&line, name);
    va_start(rest, part);
    for (; part; part = va_arg(rest, const char *))
        text_add(&line, part);
    va_end(rest);
    if (kept && !kept->len)
        text_add(kept, line.data + sizeof name - 1);
    line.data[line.len] = '\n'; /* over the terminating NUL: the text is not used as a string again */
    if (write(log_fd, line.data, line.len + 1) < 0)
        return; /* no console: nobody to tell */
}

int log_errno(const char *what, const char *subject)
{
    int error = errno;
    LOG(what, subject ? " " : "", subject ? subject : "", ": ", strerror(error));
    errno = error;
    return -1;
}
