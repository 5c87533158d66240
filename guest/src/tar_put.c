/* The task `put`: unpacks an archive below a folder. The first failure ends it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tar_late.h"
#include "tar_place.h"
#include "tasks.h"

static struct unpack unpack;

/* A folder that is there already is used, also behind a link that stays below. */
static int put_folder(const char *path)
{
    const char *name;
    int parent = below_parent(&unpack.below, path, &name);
    if (parent < 0)
        return below_fail(path);
    if (mkdirat(parent, name, 0700) < 0) {
        int fd = errno == EEXIST ? below_openat(&unpack.below, path, O_PATH | O_DIRECTORY) : -1;
        if (fd < 0)
            return below_fail(path);
        close(fd);
    }
    return tar_late_add(&unpack.below, &unpack.member, path, unpack.owners);
}

static int put_member(const char *path)
{
    switch (unpack.member.type) {
    case TAR_FOLDER:
        return *path ? put_folder(path) : 0; /* FOLDER itself stays as it is */
    case TAR_FILE:
    case TAR_HARD_LINK:
    case TAR_SYMLINK:
    case TAR_CHAR_DEVICE:
    case TAR_BLOCK_DEVICE:
    case TAR_FIFO:
        if (!*path)
            return task_refuse(EISDIR, unpack.member.path, "the archive has something else than a folder by this name");
        return tar_place(&unpack, path);
    default:
        task_note(unpack.member.path, "a member of an unknown kind is left out");
        return 0;
    }
}

static int bad_archive(void)
{
    const char *problem = unpack.reader.problem;
    return problem ? task_refuse(EBADMSG, "the archive", problem) : task_fail("the archive");
}

/* The data of the member that tar_place() did not take: kinds that have none of ours, and what is left out. */
static int put_next(void)
{
    static char path[TASK_PATH];
    struct tar_member *member = &unpack.member;
    int result = tar_path(member->path, unpack.name, path);
    if (result)
        return result;
    unpack.left = (uint64_t)member->size;
    result = put_member(path);
    if (result)
        return result;
    return pump_skip(&unpack.pump, unpack.left + tar_padding((uint64_t)member->size)) || tar_cut(&unpack.reader)
        ? 0 : bad_archive();
}

static int put_all(void)
{
    for (;;) {
        enum tar_next next = tar_next(&unpack.reader, &unpack.member);
        int result = next == TAR_MEMBER ? put_next() : next == TAR_BAD ? bad_archive() : 0;
        if (result || next == TAR_END)
            return result;
    }
}

/* Whoever writes the archive is not to be cut off in the middle of the zeros that some end it with. */
static void drain(void)
{
    enum { ENOUGH = 1024 * 1024 };
    pump_skip(&unpack.pump, ENOUGH);
}

int task_put(int argc, const char *const *argv)
{
    if (!below_open(&unpack.below, argv[1]))
        return task_fail(argv[1]);
    unpack.name = argc == 3 ? argv[2] : NULL;
    unpack.owners = geteuid() == 0;
    unpack.reader.pump = &unpack.pump;
    pump_open(&unpack.pump, 0);
    umask(0);
    int result = put_all();
    if (!result)
        drain();
    int late = tar_late_apply(&unpack.below, unpack.owners);
    below_close(&unpack.below);
    close(unpack.below.root);
    return result ? result : late;
}
