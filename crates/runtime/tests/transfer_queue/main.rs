//! The transfer queue on the CPU device, which fails any submission that an event is missing for, and on Vulkan under the
//! validation layer. `BESSEMER_TEST_NO_VALIDATION=1` runs without the layer, where that is not installed.
//!
//! Without a Vulkan driver its tests report that they are skipped; in continuous integration (`CI=true`) that fails.

mod failures;
mod order;
mod paths;
mod statistics;
mod support;
mod transfers;
