//! The loader and the instance: where drivers are found.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use ash::vk;

use super::messages::Messages;
use crate::{DeviceError, Result};

const VALIDATION_LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";

/// An instance of the Vulkan API.
pub(crate) struct Instance {
    pub(crate) raw: ash::Instance,
    /// Holds the loader's library, and is therefore dropped after what came from it.
    pub(crate) entry: ash::Entry,
    debug: Option<(ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    /// At a fixed address, which the messenger knows.
    pub(crate) messages: Box<Messages>,
}

impl Instance {
    /// Opens the loader. With `validation`, the Khronos validation layer watches every call, synchronisation included.
    pub(crate) fn new(validation: bool) -> Result<Self> {
        // SAFETY: the loader's library runs its own initialisation only.
        let entry = unsafe { ash::Entry::load() }.map_err(|error| {
            DeviceError::Unavailable(format!(
                "no Vulkan loader: {error}; install the GPU's driver and the Vulkan loader (libvulkan.so.1)"
            ))
        })?;
        // SAFETY: the entry points were loaded above; the call only asks.
        let version = unsafe { entry.try_enumerate_instance_version() };
        let version = version.map_err(failed)?.unwrap_or(vk::API_VERSION_1_0);
        if version < vk::API_VERSION_1_3 {
            return Err(DeviceError::Unavailable(format!(
                "the Vulkan loader speaks {}.{}; update it to 1.3",
                vk::api_version_major(version),
                vk::api_version_minor(version)
            )));
        }
        let messages = Box::<Messages>::default();
        let raw = create(&entry, &messages, validation)?;
        let mut instance = Self { raw, entry, debug: None, messages };
        if validation {
            let utils = ash::ext::debug_utils::Instance::new(&instance.entry, &instance.raw);
            // SAFETY: the instance was created with the extension; the messages live in a box of the same struct, which
            // destroys the messenger first.
            let messenger =
                unsafe { utils.create_debug_utils_messenger(&instance.messages.messenger(), None) };
            instance.debug = Some((utils, messenger.map_err(failed)?));
        }
        Ok(instance)
    }

    /// Every physical device, in the loader's order.
    pub(crate) fn physical_devices(&self) -> Result<Vec<vk::PhysicalDevice>> {
        // SAFETY: the instance lives; the call only asks.
        unsafe { self.raw.enumerate_physical_devices() }.map_err(failed)
    }

    /// Whether objects can be named.
    pub(crate) fn debug(&self) -> bool {
        self.debug.is_some()
    }
}

fn create(entry: &ash::Entry, messages: &Messages, validation: bool) -> Result<ash::Instance> {
    let application = vk::ApplicationInfo::default()
        .application_name(c"bessemer")
        .engine_name(c"bessemer")
        .api_version(vk::API_VERSION_1_3);
    let (mut layers, mut extensions): (Vec<*const c_char>, Vec<*const c_char>) = (vec![], vec![]);
    if validation {
        // SAFETY: the call only asks.
        let known = unsafe { entry.enumerate_instance_layer_properties() }.map_err(failed)?;
        if !known.iter().any(|layer| layer.layer_name_as_c_str() == Ok(VALIDATION_LAYER)) {
            return Err(DeviceError::Unavailable(
                "validation was asked for, and the layer VK_LAYER_KHRONOS_validation is not installed; install it \
                 or leave validation off"
                    .into(),
            ));
        }
        layers.push(VALIDATION_LAYER.as_ptr());
        extensions
            .extend([ash::ext::debug_utils::NAME.as_ptr(), ash::ext::validation_features::NAME.as_ptr()]);
    }
    let enabled = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
    let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&enabled);
    let mut messenger = messages.messenger();
    let mut info = vk::InstanceCreateInfo::default()
        .application_info(&application)
        .enabled_layer_names(&layers)
        .enabled_extension_names(&extensions);
    if validation {
        info = info.push_next(&mut features).push_next(&mut messenger);
    }
    // SAFETY: everything that `info` points to lives over the call.
    unsafe { entry.create_instance(&info, None) }.map_err(failed)
}

fn failed(result: vk::Result) -> DeviceError {
    let cause = match result {
        vk::Result::ERROR_INCOMPATIBLE_DRIVER => "no Vulkan driver is installed",
        vk::Result::ERROR_INITIALIZATION_FAILED => "the Vulkan driver could not be initialised",
        _ => "Vulkan could not be set up",
    };
    DeviceError::Unavailable(format!("{cause} ({result}); install the GPU's driver"))
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: whoever made objects of this instance holds it and has destroyed them; nobody uses it any more.
        unsafe {
            if let Some((utils, messenger)) = self.debug.take() {
                utils.destroy_debug_utils_messenger(messenger, None);
            }
            self.raw.destroy_instance(None);
        }
    }
}
