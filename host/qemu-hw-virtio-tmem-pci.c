/*
 * Virtio transcendent memory PCI device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-pci.h"
#include "hw/virtio/virtio-tmem.h"
#include "qapi/error.h"
#include "qemu/module.h"

typedef struct VirtIOTMEMPCI VirtIOTMEMPCI;

#define TYPE_VIRTIO_TMEM_PCI "virtio-tmem-pci-base"
DECLARE_INSTANCE_CHECKER(VirtIOTMEMPCI, VIRTIO_TMEM_PCI,
                         TYPE_VIRTIO_TMEM_PCI)

struct VirtIOTMEMPCI {
    VirtIOPCIProxy parent_obj;
    VirtIOTMEM vdev;
};

static const Property virtio_tmem_pci_properties[] = {
    DEFINE_PROP_BIT("ioeventfd", VirtIOPCIProxy, flags,
                    VIRTIO_PCI_FLAG_USE_IOEVENTFD_BIT, true),
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
};

static void virtio_tmem_pci_realize(VirtIOPCIProxy *vpci_dev, Error **errp)
{
    VirtIOTMEMPCI *dev = VIRTIO_TMEM_PCI(vpci_dev);
    DeviceState *vdev = DEVICE(&dev->vdev);

    virtio_tmem_default_queues(&dev->vdev);
    if (vpci_dev->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        /* One for configuration changes */
        vpci_dev->nvectors = dev->vdev.num_fast + dev->vdev.num_bulk + 1;
    }
    virtio_pci_force_virtio_1(vpci_dev);
    qdev_realize(vdev, BUS(&vpci_dev->bus), errp);
}

static void virtio_tmem_pci_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioPCIClass *k = VIRTIO_PCI_CLASS(klass);
    PCIDeviceClass *pcidev_k = PCI_DEVICE_CLASS(klass);

    device_class_set_props(dc, virtio_tmem_pci_properties);
    k->realize = virtio_tmem_pci_realize;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    pcidev_k->class_id = PCI_CLASS_OTHERS;
}

static void virtio_tmem_pci_instance_init(Object *obj)
{
    VirtIOTMEMPCI *dev = VIRTIO_TMEM_PCI(obj);

    virtio_instance_init_common(obj, &dev->vdev, sizeof(dev->vdev),
                                TYPE_VIRTIO_TMEM);
}

static const VirtioPCIDeviceTypeInfo virtio_tmem_pci_info = {
    .base_name = TYPE_VIRTIO_TMEM_PCI,
    .generic_name = "virtio-tmem-pci",
    .instance_size = sizeof(VirtIOTMEMPCI),
    .instance_init = virtio_tmem_pci_instance_init,
    .class_init = virtio_tmem_pci_class_init,
};

static void virtio_tmem_pci_register(void)
{
    virtio_pci_types_register(&virtio_tmem_pci_info);
}

type_init(virtio_tmem_pci_register)
