package files

// sysRenameat2 is missing from package syscall.
const sysRenameat2 = 316
