#include "lifecycle/infra/process/launcher/filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "lifecycle/infra/process/launcher/network.h"

#ifdef __aarch64__
#define OWN_ARCH AUDIT_ARCH_AARCH64
#else
#define OWN_ARCH AUDIT_ARCH_X86_64
#endif

#define X32_BIT        0x40000000U /* of system calls of x86-64's other ABI */
#define LOAD(field)    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, (action))
#define REFUSE(errnum) ANSWER(SECCOMP_RET_ERRNO | (errnum))
/* Skips the next statement unless the loaded value is (is at least) `value`. */
#define IF(value)       BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, 1)
#define IF_LEAST(value) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (value), 0, 1)
#define UNLESS(value)   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 1, 0)

/* All but socket(2) is decided by its number alone, which the kernel remembers: it costs nothing.
 */
void filter_sockets(void)
{
    struct sock_filter code[] = {
        LOAD(arch),
        UNLESS(OWN_ARCH),
        REFUSE(ENOSYS),
        LOAD(nr),
        IF_LEAST(X32_BIT),
        REFUSE(ENOSYS),
        IF(SYS_io_uring_setup), /* makes sockets, unseen */
        REFUSE(ENOSYS),
        UNLESS(SYS_socket),
        ANSWER(SECCOMP_RET_ALLOW),
        LOAD(args[0]), /* little-endian: its lower half, an int as the kernel takes it */
        IF(AF_UNIX),
        ANSWER(SECCOMP_RET_ALLOW),
        IF(AF_INET),
        ANSWER(SECCOMP_RET_ALLOW),
        IF(AF_INET6),
        ANSWER(SECCOMP_RET_ALLOW),
        IF(AF_NETLINK),
        ANSWER(SECCOMP_RET_ALLOW),
        REFUSE(EAFNOSUPPORT),
    };
    const struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0) {
        launch_fail("limiting the kinds of sockets");
    }
}
