//! Every kernel: what it computes, for which shapes, on which device.
