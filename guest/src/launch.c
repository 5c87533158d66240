/* Turns a forked child into a program: signals, folder, user, environment, search of PATH, exec. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/close_range.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "text.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { MAX_GROUPS = 64, CUSTOMARY_FILES = 1024 };

static bool parse_id(const char *text, unsigned *id)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value >= UINT_MAX)
        return false;
    *id = (unsigned)value;
    return true;
}

static bool find_user(const char *user, struct identity *identity)
{
    unsigned id;
    bool numeric = parse_id(user, &id);
    const struct passwd *entry = numeric ? getpwuid(id) : getpwnam(user);
    if (!entry && !numeric)
        return false;
    *identity = (struct identity){.uid = id, .gid = 0, .home = "/"};
    if (entry)
        *identity = (struct identity){entry->pw_uid, entry->pw_gid, entry->pw_name, entry->pw_dir};
    return true;
}

static bool find_group(const char *group, gid_t *gid)
{
    if (parse_id(group, gid))
        return true;
    const struct group *entry = getgrnam(group);
    if (entry)
        *gid = entry->gr_gid;
    return entry;
}

bool launch_find(const char *spec, struct identity *identity)
{
    char user[256];
    const char *colon = strchr(spec, ':');
    size_t len = colon ? (size_t)(colon - spec) : strlen(spec);
    if (len == 0 || len >= sizeof user)
        return false;
    memcpy(user, spec, len);
    user[len] = 0;
    if (!find_user(user, identity))
        return false;
    if (!colon)
        return true;
    identity->name = NULL; /* a group that is named stands alone, as with docker */
    return find_group(colon + 1, &identity->gid);
}

bool launch_become(const struct identity *identity)
{
    gid_t groups[MAX_GROUPS];
    int count = MAX_GROUPS;
    if (!identity->name) {
        groups[0] = identity->gid;
        count = 1;
    } else if (getgrouplist(identity->name, identity->gid, groups, &count) < 0) {
        errno = E2BIG;
        return false;
    }
    return setgroups((size_t)count, groups) == 0 && setgid(identity->gid) == 0 && setuid(identity->uid) == 0;
}

/* Put NAME=VALUE in, over an earlier value of NAME. */
static void set_variable(const char **env, const char *variable)
{
    size_t name_len = (size_t)(strchrnul(variable, '=') - variable);
    size_t i = 0;
    while (env[i] && (strncmp(env[i], variable, name_len) != 0 || env[i][name_len] != '='))
        i++;
    if (i < MAX_LAUNCH_ENV)
        env[i] = variable;
}

static void set_variables(const char **env, const char *const *variables)
{
    for (; variables && *variables; variables++)
        set_variable(env, *variables);
}

static const char *get_variable(const char *const *env, const char *name)
{
    size_t len = strlen(name);
    for (; *env; env++)
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
            return *env + len + 1;
    return NULL;
}

static void make_environment(const char **env, const struct launch *launch, const char *home)
{
    set_variable(env, "PATH=" DEFAULT_PATH);
    set_variable(env, home);
    if (launch->tty)
        set_variable(env, "TERM=xterm");
    set_variables(env, launch->image_env);
    set_variables(env, launch->given_env);
}

/* An execve() that finds nothing costs the kernel a new address space; a look costs next to nothing. */
static bool exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

static void execute(const char *path, const struct launch *launch, const char *const *env)
{
    execve(path, (char *const *)(uintptr_t)launch->argv, (char *const *)(uintptr_t)env);
}

/* As a shell searches: the first that can be run; a file that may not be run is remembered. */
static void search_and_execute(const struct launch *launch, const char *const *env)
{
    const char *name = launch->argv[0];
    const char *path = get_variable(env, "PATH");
    int error = ENOENT;
    if (strchr(name, '/')) {
        execute(name, launch, env);
        return;
    }
    for (const char *end; *name && path; path = *end ? end + 1 : NULL) {
        char candidate[PATH_MAX];
        end = strchrnul(path, ':');
        size_t dir_len = (size_t)(end - path), name_len = strlen(name);
        if (dir_len == 0 || dir_len + 1 + name_len >= sizeof candidate)
            continue;
        memcpy(candidate, path, dir_len);
        candidate[dir_len] = '/';
        memcpy(candidate + dir_len + 1, name, name_len + 1);
        if (exists(candidate))
            execute(candidate, launch, env);
        if (errno != ENOENT && errno != ENOTDIR)
            error = errno;
    }
    errno = error;
}

/* The agent raised its own; programs that use select(), or close whatever could be open, want the customary one. */
static void lower_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > CUSTOMARY_FILES) {
        limit.rlim_cur = CUSTOMARY_FILES;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

void launch_adopt(int in, int out, int err)
{
    sigset_t none;
    signal(SIGPIPE, SIG_DFL); /* the one that whoever started us may have had ignored; exec resets handlers itself */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC); /* a second net: each was opened close-on-exec */
    umask(022);
    lower_file_limit();
}

struct launch_failure launch_program(const struct launch *launch)
{
    struct identity identity = {.home = "/root"};
    const char *env[MAX_LAUNCH_ENV + 1] = {NULL};
    struct text home = {0};
    if (launch->user && !launch_find(launch->user, &identity))
        return (struct launch_failure){LAUNCH_USER, ENOENT};
    if (chdir(launch->workdir ? launch->workdir : "/") < 0)
        return (struct launch_failure){LAUNCH_WORKDIR, errno};
    text_add(&home, "HOME=");
    text_add(&home, identity.home);
    make_environment(env, launch, home.data);
    if (launch->user && !launch_become(&identity))
        return (struct launch_failure){LAUNCH_USER, errno};
    search_and_execute(launch, env);
    return (struct launch_failure){LAUNCH_EXEC, errno};
}
