//! What the validation layer says.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::sync::Mutex;

use ash::vk;

use crate::monitor::lock;

/// Messages that are kept; later ones are logged only.
const KEPT: usize = 256;

/// Errors and warnings about the use of Vulkan, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    kept: Mutex<Vec<String>>,
}

impl Messages {
    pub(crate) fn all(&self) -> Vec<String> {
        lock(&self.kept).clone()
    }

    fn push(&self, message: String) {
        let mut kept = lock(&self.kept);
        if kept.len() < KEPT {
            kept.push(message);
        }
    }

    /// How a messenger is set up that reports here. `self` must live as long as the messenger.
    pub(crate) fn messenger(&self) -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
        use vk::{DebugUtilsMessageSeverityFlagsEXT as Severity, DebugUtilsMessageTypeFlagsEXT as Type};
        vk::DebugUtilsMessengerCreateInfoEXT::default()
            .message_severity(Severity::ERROR | Severity::WARNING)
            .message_type(Type::GENERAL | Type::VALIDATION)
            .pfn_user_callback(Some(report))
            .user_data(std::ptr::from_ref(self).cast_mut().cast())
    }
}

unsafe extern "system" fn report(
    severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    kind: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    user: *mut c_void,
) -> vk::Bool32 {
    if data.is_null() || user.is_null() {
        return vk::FALSE;
    }
    // SAFETY: the layer hands in its data and what the messenger was set up with, which outlives the messenger.
    let (data, messages) = unsafe { (&*data, &*user.cast::<Messages>()) };
    let text = |text: *const std::ffi::c_char| {
        // SAFETY: names and messages are null or end in a zero byte.
        if text.is_null() { Cow::Borrowed("") } else { unsafe { CStr::from_ptr(text) }.to_string_lossy() }
    };
    let message = format!("{}: {}", text(data.p_message_id_name), text(data.p_message));
    // What the loader says about other drivers is no matter of this device.
    if !kind.contains(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION) {
        tracing::debug!("Vulkan: {message}");
        return vk::FALSE;
    }
    if severity.contains(vk::DebugUtilsMessageSeverityFlagsEXT::ERROR) {
        tracing::error!("Vulkan validation: {message}");
    } else {
        tracing::warn!("Vulkan validation: {message}");
    }
    messages.push(message);
    vk::FALSE
}
