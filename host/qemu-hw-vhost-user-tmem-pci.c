/*
 * Vhost-user transcendent memory PCI device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/vhost-user-tmem.h"
#include "hw/virtio/virtio-pci.h"
#include "qemu/module.h"

typedef struct VHostUserTMEMPCI VHostUserTMEMPCI;

#define TYPE_VHOST_USER_TMEM_PCI "vhost-user-tmem-pci-base"
DECLARE_INSTANCE_CHECKER(VHostUserTMEMPCI, VHOST_USER_TMEM_PCI,
                         TYPE_VHOST_USER_TMEM_PCI)

struct VHostUserTMEMPCI {
    VirtIOPCIProxy parent_obj;
    VHostUserTMEM vdev;
};

static const Property vhost_user_tmem_pci_properties[] = {
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
};

static void vhost_user_tmem_pci_realize(VirtIOPCIProxy *vpci_dev, Error **errp)
{
    VHostUserTMEMPCI *dev = VHOST_USER_TMEM_PCI(vpci_dev);

    if (vpci_dev->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        /* One for configuration changes */
        vpci_dev->nvectors = dev->vdev.num_fast + dev->vdev.num_bulk + 1;
    }
    virtio_pci_force_virtio_1(vpci_dev);
    qdev_realize(DEVICE(&dev->vdev), BUS(&vpci_dev->bus), errp);
}

static void vhost_user_tmem_pci_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioPCIClass *k = VIRTIO_PCI_CLASS(klass);
    PCIDeviceClass *pcidev_k = PCI_DEVICE_CLASS(klass);

    device_class_set_props(dc, vhost_user_tmem_pci_properties);
    k->realize = vhost_user_tmem_pci_realize;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    pcidev_k->class_id = PCI_CLASS_OTHERS;
}

static void vhost_user_tmem_pci_instance_init(Object *obj)
{
    VHostUserTMEMPCI *dev = VHOST_USER_TMEM_PCI(obj);

    virtio_instance_init_common(obj, &dev->vdev, sizeof(dev->vdev),
                                TYPE_VHOST_USER_TMEM);
}

static const VirtioPCIDeviceTypeInfo vhost_user_tmem_pci_info = {
    .base_name = TYPE_VHOST_USER_TMEM_PCI,
    .generic_name = "vhost-user-tmem-pci",
    .instance_size = sizeof(VHostUserTMEMPCI),
    .instance_init = vhost_user_tmem_pci_instance_init,
    .class_init = vhost_user_tmem_pci_class_init,
};

static void vhost_user_tmem_pci_register(void)
{
    virtio_pci_types_register(&vhost_user_tmem_pci_info);
}

type_init(vhost_user_tmem_pci_register)
