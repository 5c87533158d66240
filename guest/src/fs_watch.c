/* The task `watch`: inotify's events of a file, a folder or a tree, until that is gone or nobody wants them any more. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "folder.h"
#include "task_io.h"
#include "tasks.h"
#include "watched.h"

enum {
    EVENTS = IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO
        | IN_DELETE_SELF | IN_MOVE_SELF,
};

static struct {
    int fd;
    bool tree;
    const char *root;
    size_t depth;
} watch;

static void tell(uint32_t mask, const char *path)
{
    out_u32(mask);
    out_blob(path, strlen(path));
}

/* `head`, a slash, `tail`; without the slash where one of them is empty. */
static bool join(char path[TASK_PATH], const char *head, const char *tail)
{
    size_t head_len = strlen(head), tail_len = strlen(tail);
    size_t slash = head_len && tail_len;
    if (head_len + slash + tail_len >= TASK_PATH) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(path, head, head_len);
    path[head_len] = '/';
    memcpy(path + head_len + slash, tail, tail_len + 1);
    return true;
}

static int watch_folder(const char *path, bool is_news);

/* What was put into a new folder before it was watched has no event of its own. */
static int watch_entry(const char *folder, const char *name, unsigned char kind, bool is_news)
{
    char path[TASK_PATH];
    if (!join(path, folder, name))
        return task_fail(folder);
    if (is_news)
        tell(kind == DT_DIR ? IN_CREATE | IN_ISDIR : IN_CREATE, path);
    return kind == DT_DIR ? watch_folder(path, is_news) : 0;
}

static int watch_entries(const char *full, const char *path, bool is_news)
{
    struct folder folder;
    int result = 0;
    if (watch.depth == TASK_MAX_DEPTH)
        return task_refuse(ENAMETOOLONG, full, "too many folders within each other");
    if (!folder_open(&folder, open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC)))
        return 0; /* gone, or not ours to read: what happens in there is not told then */
    watch.depth++;
    for (const char *name; !result && (name = folder_next(&folder));)
        result = watch_entry(path, name, folder.type, is_news);
    watch.depth--;
    folder_close(&folder);
    return result;
}

/* The root itself may be a link or a file; below it only folders are watched, and links not followed. */
static int watch_folder(const char *path, bool is_news)
{
    char full[TASK_PATH];
    if (!join(full, watch.root, path))
        return task_fail(path);
    int number = inotify_add_watch(watch.fd, full, *path ? EVENTS | IN_ONLYDIR | IN_DONT_FOLLOW : EVENTS);
    if (number < 0 && *path && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
        return 0;
    if (number < 0 || !watched_add(number, path))
        return task_fail(full);
    return watch.tree ? watch_entries(full, path, is_news) : 0;
}

static void forget_tree(const char *path)
{
    for (int number; (number = watched_below(path)) >= 0; watched_forget(number))
        inotify_rm_watch(watch.fd, number);
}

/* A folder that came, with all that is in it, or went. */
static int follow(uint32_t mask, const char *path)
{
    if (!watch.tree || !(mask & IN_ISDIR))
        return 0;
    if (mask & IN_MOVED_FROM)
        forget_tree(path);
    return mask & (IN_CREATE | IN_MOVED_TO) ? watch_folder(path, true) : 0;
}

/* An errno after a message; `ends` when there is nothing left to watch. */
static int take_event(const struct inotify_event *event, bool *ends)
{
    char path[TASK_PATH];
    const char *folder = event->mask & IN_Q_OVERFLOW ? "" : watched_path(event->wd);
    if (!folder)
        return 0; /* the last words of a watch that was given up */
    if (event->mask & IN_IGNORED) {
        *ends = !*folder;
        watched_forget(event->wd);
        return 0;
    }
    if (*folder && !event->len)
        return 0; /* of a folder below: the one that it is in tells the same */
    if (!join(path, folder, event->len ? event->name : ""))
        return task_fail(folder);
    tell(event->mask, path);
    return follow(event->mask, path);
}

static int take_events(const char *at, const char *end, bool *ends)
{
    int result = 0;
    while (at < end && !result && !*ends) {
        const struct inotify_event *event = (const struct inotify_event *)at;
        result = take_event(event, ends);
        at += sizeof *event + event->len;
    }
    out_flush();
    return result;
}

static int tell_all(void)
{
    static _Alignas(struct inotify_event) char events[65536];
    bool ends = false;
    int result = 0;
    while (!ends && !result) {
        ssize_t got = read(watch.fd, events, sizeof events);
        if (got < 0 && errno != EINTR)
            return task_fail(watch.root);
        if (got > 0)
            result = take_events(events, events + got, &ends);
    }
    return result;
}

int task_watch(int argc, const char *const *argv)
{
    watch.root = argv[1];
    watch.tree = argc == 3;
    if (watch.tree && strcmp(argv[2], "tree") != 0)
        return task_refuse(EINVAL, argv[2], "only `tree` may come after PATH");
    watch.fd = inotify_init1(IN_CLOEXEC);
    if (watch.fd < 0)
        return task_fail(argv[1]);
    task_allow_depth();
    int result = watch_folder("", false);
    if (!result) {
        tell(0, ""); /* from here on nothing is missed */
        out_flush();
        result = tell_all();
    }
    close(watch.fd);
    return result;
}
