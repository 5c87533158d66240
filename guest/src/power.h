/* Ending the machine, by way of whoever is process 1. */
#ifndef FIRKIN_POWER_H
#define FIRKIN_POWER_H

/* Signal process 1, and end the machine by force if it does not do so in time. */
void power_ask(int number);

#endif
