//! The data plane: everything that touches the kernel.
