/* A program with its environment, user and folder, from fork to exec. */
#ifndef FIRKIN_LAUNCH_H
#define FIRKIN_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { MAX_LAUNCH_ENV = 1024 };

/* argv and the environments end with NULL; later variables win over earlier ones. */
struct launch {
    const char *const *argv;
    const char *const *image_env;
    const char *const *given_env;
    const char *workdir; /* NULL: / */
    const char *user;    /* NULL: root. NAME, UID, NAME:GROUP or UID:GID */
    bool tty;
};

enum launch_stage { LAUNCH_USER = 1, LAUNCH_WORKDIR, LAUNCH_EXEC };

/* What stopped a launch; travels through a pipe that a successful exec closes. */
struct launch_failure {
    int32_t stage;
    int32_t error;
};

/* In the child: put stdin, stdout and stderr in place and drop everything of the parent's. */
void launch_adopt(int in, int out, int err);

/* Who a program is to be. Its texts live until the next is looked for. */
struct identity {
    uid_t uid;
    gid_t gid;
    const char *name; /* whose further groups count; NULL: those of nobody */
    const char *home;
};

/* Look a user up: NAME, UID, NAME:GROUP or UID:GID. False when there is none in the image. */
bool launch_find(const char *spec, struct identity *identity);

/* In the child: be that user. False with errno. */
bool launch_become(const struct identity *identity);

/* In the child, after stdin, stdout and stderr are in place: become the program. Returns only what stopped it. */
struct launch_failure launch_program(const struct launch *launch);

#endif
