/* The call that tells the host that the agent is there. */
#ifndef FIRKIN_HELLO_H
#define FIRKIN_HELLO_H

#include "agent.h"

/* Call the host and say HELLO; try again for a while if nobody answers. Returns at once. */
void hello_start(const struct agent *agent);

/* Whether the host may still be about to take the first call: it is not to miss a machine whose life is short. */
bool hello_is_under_way(void);

#endif
