/*
 * libqos driver virtio-tmem framework
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_LIBQOS_VIRTIO_TMEM_H
#define TESTS_LIBQOS_VIRTIO_TMEM_H

#include "qgraph.h"
#include "virtio.h"
#include "virtio-pci.h"

typedef struct QVirtioTmem QVirtioTmem;
typedef struct QVirtioTmemPCI QVirtioTmemPCI;
typedef struct QVirtioTmemDevice QVirtioTmemDevice;

/* Tests set up features and queues themselves. */
struct QVirtioTmem {
    QVirtioDevice *vdev;
};

struct QVirtioTmemPCI {
    QVirtioPCIDevice pci_vdev;
    QVirtioTmem tmem;
};

struct QVirtioTmemDevice {
    QOSGraphObject obj;
    QVirtioTmem tmem;
};

#endif
