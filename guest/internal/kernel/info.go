package kernel

// Info is what the kernel says about the guest's confinement.
type Info struct {
	UID          int    `json:"uid"`
	GID          int    `json:"gid"`
	Groups       []int  `json:"groups"`
	Capabilities string `json:"capabilities"`
	NoNewPrivs   bool   `json:"no_new_privs"`
	Seccomp      int    `json:"seccomp"`
	RootReadOnly bool   `json:"root_read_only"`
	Kernel       string `json:"kernel"`
	// GVisor: the kernel says that it is gVisor's.
	GVisor bool `json:"gvisor"`
}
