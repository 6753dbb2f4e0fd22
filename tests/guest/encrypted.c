// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * For a test: virtio_tmem is told that this guest's memory is encrypted
 *
 * Linux 5.16 and later, where a driver asks cc_platform_has().  Nobody else is
 * told so: DMA would go through bounce buffers that are not there.
 */
#include <linux/cc_platform.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>

/* Returns 0 for the calls that are to be answered otherwise. */
static int encrypted_enter(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	char caller[KSYM_SYMBOL_LEN];

	if (regs_get_kernel_argument(regs, 0) != CC_ATTR_GUEST_MEM_ENCRYPT)
		return 1;
	sprint_symbol(caller, regs_get_kernel_stack_nth(regs, 0));
	return !strstr(caller, "[virtio_tmem]");
}

static int encrypted_return(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	regs_set_return_value(regs, true);
	return 0;
}

static struct kretprobe encrypted_probe = {
	.kp.symbol_name = "cc_platform_has",
	.entry_handler = encrypted_enter,
	.handler = encrypted_return,
};

static int __init encrypted_init(void)
{
	return register_kretprobe(&encrypted_probe);
}
module_init(encrypted_init);

static void __exit encrypted_exit(void)
{
	unregister_kretprobe(&encrypted_probe);
}
module_exit(encrypted_exit);

MODULE_DESCRIPTION("For a test: virtio_tmem is told that memory is encrypted");
MODULE_LICENSE("GPL");
