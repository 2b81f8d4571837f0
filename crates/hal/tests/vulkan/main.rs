//! The Vulkan device, on a software rasteriser where there is one, else on the first usable GPU, under the validation layer.
//! `BESSEMER_TEST_NO_VALIDATION=1` runs them without the layer, where that is not installed.
//!
//! Without a Vulkan driver the tests report that they are skipped; in continuous integration (`CI=true`) that fails.

mod dispatch;
mod memory;
mod open;
mod queues;
mod rules;
mod support;
mod threads;
