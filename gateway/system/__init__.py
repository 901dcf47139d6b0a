"""What the operating system gives: child processes, file descriptors, memory, disks."""
