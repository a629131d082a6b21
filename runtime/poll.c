/* The agent without a thread. This object lies in an archive of its own, so that it is linked in only where the
 * program refers to hotreload_poll or hotreload_fd; being linked in is what turns poll mode on. */
#include "internal.h"

int hr_poll_linked = 1;

int hotreload_poll(void) { return hr_agent_poll(); }

int hotreload_fd(void) { return hr_agent_fd(); }
