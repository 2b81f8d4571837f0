//! The device that makes others fail: around the CPU device, and around Vulkan on a software rasteriser where there is one,
//! else on the first usable GPU, under the validation layer.
//!
//! Without a Vulkan driver the tests run on the CPU alone and say so; in continuous integration (`CI=true`) that fails.

#[path = "../kernels/mod.rs"]
mod kernels;

mod faults;
mod loss;
mod schedules;
mod support;
