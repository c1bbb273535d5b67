package probe

// System calls that package syscall lacks on some architecture.
const (
	sysSetns           = 268
	sysProcessVMReadv  = 270
	sysFinitModule     = 273
	sysKexecFileLoad   = 294
	sysBPF             = 280
	sysUserfaultfd     = 282
	sysOpenByHandleAt  = 265
	sysIOPrivilegeFrom = 0 // there are no I/O ports
)
