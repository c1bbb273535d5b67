package probe

// System calls that package syscall lacks on some architecture.
const (
	sysSetns           = 308
	sysProcessVMReadv  = 310
	sysFinitModule     = 313
	sysKexecFileLoad   = 320
	sysBPF             = 321
	sysUserfaultfd     = 323
	sysOpenByHandleAt  = 304
	sysIOPrivilegeFrom = 172 // iopl
)
