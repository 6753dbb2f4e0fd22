/*
 * Virtio transcendent memory: what the device and its vhost-user kin share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_TMEM_COMMON_H
#define HW_VIRTIO_TMEM_COMMON_H

#include "hw/qdev-core.h"
#include "qom/object.h"

/* The user's name for the device: its own, or that of its proxy. */
char *virtio_tmem_make_name(DeviceState *dev);

#define TYPE_VIRTIO_TMEM_SYSTEM_RESET "virtio-tmem-system-reset"

/*
 * System resets end all pools: the memory that the pages belonged to is gone.
 * Device resets do not, so they need an object of their own to be told apart.
 * @reset is called, with the BQL held, after each reset of the machine but a
 * wake-up, until what is returned is unregistered, which
 * may be in the middle of a reset.
 */
typedef struct VirtioTmemResetHook VirtioTmemResetHook;
VirtioTmemResetHook *virtio_tmem_register_system_reset(
                                            void (*reset)(void *opaque),
                                            void *opaque);
void virtio_tmem_unregister_system_reset(VirtioTmemResetHook *hook);

#endif /* HW_VIRTIO_TMEM_COMMON_H */
