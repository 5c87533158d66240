/* Children and ports for the fuzzer: descriptors that it holds the other ends of. */
#ifndef FIRKIN_FUZZ_WORLD_H
#define FIRKIN_FUZZ_WORLD_H

#include <stddef.h>

#include "agent.h"

/* Child `which`, as they were started, says or reads so many bytes, closes what it has, or exits. */
void world_speak(unsigned which, size_t len);
void world_listen(unsigned which, size_t len);
void world_close(unsigned which);
void world_exit(struct agent *agent, unsigned which);

void world_end(void);

#endif
