//! How many cores a GPU has, from the system's registry: Metal does not tell.
#![allow(unsafe_code)]

use objc2_core_foundation::{CFDictionary, CFMutableDictionary, CFNumber, CFRetained, CFString};
use objc2_io_kit::{
    IO_OBJECT_NULL, IOObjectRelease, IORegistryEntryCreateCFProperty, IORegistryEntryIDMatching,
    IOServiceGetMatchingService, IOServiceMatching, kIOMainPortDefault,
};

/// Of the GPU that `MTLDevice.registryID` names, or of the one that Apple's driver serves.
pub(crate) fn of(registry_id: u64) -> Option<u32> {
    // SAFETY: both calls make a dictionary; the name ends in a zero byte.
    let (own, class) =
        unsafe { (IORegistryEntryIDMatching(registry_id), IOServiceMatching(c"AGXAccelerator".as_ptr())) };
    [own, class].into_iter().flatten().find_map(count)
}

fn count(matching: CFRetained<CFMutableDictionary>) -> Option<u32> {
    // SAFETY: a dictionary that can be changed is a dictionary. The port is a constant of the system.
    let service = unsafe {
        let matching: CFRetained<CFDictionary> = CFRetained::cast_unchecked(matching);
        IOServiceGetMatchingService(kIOMainPortDefault, Some(matching))
    };
    if service == IO_OBJECT_NULL {
        return None;
    }
    let key = CFString::from_static_str("gpu-core-count");
    // SAFETY: the service was found above and is released below, once.
    let value = unsafe { IORegistryEntryCreateCFProperty(service, Some(&key), None, 0) };
    IOObjectRelease(service);
    let count = value?.downcast::<CFNumber>().ok()?.as_i64()?;
    u32::try_from(count).ok()
}
