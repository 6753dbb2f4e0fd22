/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef VHOST_USER_TMEM_STATS_H
#define VHOST_USER_TMEM_STATS_H

#include "vm.h"

/* Statistics of all VMs as one line of JSON to the next who connects. */
void stats_send(int listen_fd, struct vm *vms, unsigned int num);

#endif /* VHOST_USER_TMEM_STATS_H */
