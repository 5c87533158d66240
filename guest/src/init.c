/* firkin-init: first process of a firkin machine. Its boot is the list below; then it becomes agent and init. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent.h"
#include "boot_id.h"
#include "clock.h"
#include "config.h"
#include "files.h"
#include "log.h"
#include "modules.h"
#include "mount.h"
#include "net.h"
#include "seed.h"
#include "supervise.h"
#include "text.h"

struct boot {
    struct config config;
    struct boot_times times;
    int listener;
    char **argv;
    char **environ;
};

/* 0, or -1 after a line on the console. */
typedef int step_fn(struct boot *boot);

/* A kernel without a console gives us no descriptors at all: lines then go to its log. */
static int open_stdio(struct boot *boot)
{
    int fd;
    (void)boot;
    if (fcntl(2, F_GETFD) >= 0)
        return 0;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd < 2);
    log_to(open("/dev/kmsg", O_WRONLY | O_CLOEXEC));
    return 0;
}

static int step_devices(struct boot *boot)
{
    boot->times.init_ms = (uint32_t)now_ms();
    return mount_devices();
}

static int step_config(struct boot *boot)
{
    return config_load(&boot->config, "/firkin.conf");
}

static int step_modules(struct boot *boot)
{
    (void)boot;
    modules_load();
    return 0;
}

static int step_seed(struct boot *boot)
{
    return seed_add(&boot->config);
}

static int step_root(struct boot *boot)
{
    int result = mount_root(&boot->config);
    boot->times.root_ms = (uint32_t)now_ms();
    return result;
}

static int step_system(struct boot *boot)
{
    (void)boot;
    return mount_system();
}

static int step_switch(struct boot *boot)
{
    (void)boot;
    return switch_root();
}

static int step_boot_id(struct boot *boot)
{
    (void)boot;
    return boot_id_cover();
}

/* What the kernel grants by default suits a small shared host; programs here have the machine to themselves. */
static int step_limits(struct boot *boot)
{
    static const struct rlimit files = {1024, 524288}, processes = {RLIM_INFINITY, RLIM_INFINITY};
    (void)boot;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 || setrlimit(RLIMIT_NPROC, &processes) < 0)
        return log_errno("limits", NULL);
    return 0;
}

static int step_network(struct boot *boot)
{
    int result = net_configure(&boot->config);
    boot->times.network_ms = (uint32_t)now_ms();
    return result;
}

static int step_files(struct boot *boot)
{
    return files_write(&boot->config);
}

static int step_hostname(struct boot *boot)
{
    const char *name = boot->config.hostname;
    if (name && sethostname(name, strlen(name)) < 0)
        return log_errno("hostname", name);
    return 0;
}

/* Listen before anything else of the image runs: whoever reads the line can connect. */
static int step_listen(struct boot *boot)
{
    struct text time = {0};
    boot->listener = agent_listen();
    boot->times.ready_ms = (uint32_t)now_ms();
    text_number(&time, boot->times.ready_ms);
    const char *where = ", vsock port 1024";
    if (boot->listener < 0)
        where = ", but this kernel has no vsock";
    else if (!agent_has_device())
        where = ", but there is no vsock device";
    LOG("agent ready after ", time.data, " ms", where);
    return 0;
}

/* systemd spares processes whose name begins with @ when it ends the machine. Overwrites argv and the environment. */
static void rename_process(const struct boot *boot)
{
    static const char name[] = "@firkin-agent";
    char *start = boot->argv[0], *end = start + strlen(start) + 1;
    for (char **strings = boot->argv + 1; *strings; strings++)
        if (*strings == end)
            end += strlen(*strings) + 1;
    for (char **strings = boot->environ; *strings; strings++)
        if (*strings == end)
            end += strlen(*strings) + 1;
    memset(start, 0, (size_t)(end - start));
    memcpy(start, name, (size_t)(end - start) > sizeof name ? sizeof name - 1 : 1);
    prctl(PR_SET_NAME, "firkin-agent", 0, 0, 0);
}

static void forbid_oom_kill(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "-1000", 5) < 0)
        log_errno("agent", "oom_score_adj");
    if (fd >= 0)
        close(fd);
}

static _Noreturn void become_agent(const struct boot *boot)
{
    const struct agent_setup setup = {
        .listener = boot->listener, .vsock = true,
        .power = boot->config.init ? POWER_IMAGE_INIT : POWER_OWN_INIT,
        .env = boot->config.env, .workdir = boot->config.workdir, .user = boot->config.user,
        .times = boot->times,
    };
    setsid();
    rename_process(boot);
    forbid_oom_kill();
    _exit(agent_run(&setup));
}

static pid_t start_agent(void *context)
{
    const struct boot *boot = context;
    pid_t pid = fork();
    if (pid == 0)
        become_agent(boot);
    return pid < 0 ? log_errno("agent", NULL) : pid;
}

static const struct {
    step_fn *run;
    bool vital; /* the machine cannot go on without */
} BOOT[] = {
    {step_devices, true},
    {open_stdio, false},
    {step_config, true},
    {step_modules, false},
    {step_seed, false},
    {step_root, true},
    {step_system, false},
    {step_switch, true},
    {step_boot_id, false},
    {step_limits, false},
    {step_hostname, false},
    {step_network, false},
    {step_files, false},
    {step_listen, false},
};

/* Hand over to the image's init, or stay. */
static _Noreturn void go_on(struct boot *boot)
{
    static char *const env[] = {"HOME=/", "TERM=linux", "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    const char *init = boot->config.init;
    if (init) {
        if (start_agent(boot) < 0)
            reset_machine();
        boot->argv[0] = (char *)(uintptr_t)init;
        execve(init, boot->argv, env);
        log_errno("init", init);
        reset_machine();
    }
    mount_cgroups();
    supervise(&boot->config, start_agent, boot);
}

static int serve_inherited(const char *fd)
{
    static const char *const no_env[] = {NULL};
    const struct agent_setup setup = {
        .listener = atoi(fd), .power = POWER_REFUSED, .env = no_env,
    };
    return agent_run(&setup);
}

int main(int argc, char **argv, char **environ)
{
    static struct boot boot;
    if (argc == 3 && strcmp(argv[1], "--agent-fd") == 0)
        return serve_inherited(argv[2]);
    if (getpid() != 1) {
        LOG("runs as the first process of a machine, or with --agent-fd N on a listening socket");
        return 2;
    }
    boot.argv = argv;
    boot.environ = environ;
    for (size_t i = 0; i < sizeof BOOT / sizeof *BOOT; i++)
        if (BOOT[i].run(&boot) < 0 && BOOT[i].vital)
            reset_machine();
    go_on(&boot);
}
