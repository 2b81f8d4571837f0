//! Metal's objects, under short names.

use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSError, NSString};
use objc2_metal::{
    MTLBuffer, MTLCommandBuffer, MTLCommandQueue, MTLComputePipelineState, MTLDevice, MTLFence, MTLHeap,
    MTLSharedEvent,
};

pub(crate) type RawDevice = Retained<ProtocolObject<dyn MTLDevice>>;
pub(crate) type RawQueue = Retained<ProtocolObject<dyn MTLCommandQueue>>;
pub(crate) type RawCommands = Retained<ProtocolObject<dyn MTLCommandBuffer>>;
pub(crate) type RawBuffer = Retained<ProtocolObject<dyn MTLBuffer>>;
pub(crate) type RawHeap = Retained<ProtocolObject<dyn MTLHeap>>;
pub(crate) type RawPipeline = Retained<ProtocolObject<dyn MTLComputePipelineState>>;
pub(crate) type RawEvent = Retained<ProtocolObject<dyn MTLSharedEvent>>;
pub(crate) type RawFence = Retained<ProtocolObject<dyn MTLFence>>;

/// A label.
pub(crate) fn text(label: &str) -> Retained<NSString> {
    NSString::from_str(label)
}

/// What the system says went wrong.
pub(crate) fn reason(error: &NSError) -> String {
    error.localizedDescription().to_string()
}
