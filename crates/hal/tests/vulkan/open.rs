//! Finding adapters, opening them, and the pipeline cache.

use bessemer_hal::vulkan::{AdapterKind, VulkanDevice, VulkanOptions, adapters};
use bessemer_hal::*;

use crate::support::*;

#[test]
fn adapters_are_listed_and_opened_by_index() {
    let Some(index) = adapter() else { return };
    let found = adapters().unwrap();
    for (place, adapter) in found.iter().enumerate() {
        assert!(adapter.index == place && !adapter.name.is_empty() && adapter.memory > 0, "{adapter}");
    }
    let Some(device) = device() else { return };
    let (info, adapter) = (device.info(), &found[index]);
    assert_eq!((&info.name, info.backend), (&adapter.name, Backend::Vulkan));
    let gpu = info.limits.gpu.unwrap();
    assert_eq!(gpu.software, adapter.kind == AdapterKind::Software);
    assert!(gpu.min_subgroup <= gpu.max_subgroup && gpu.min_subgroup.is_power_of_two());
    assert!(gpu.workgroup_threads >= 128 && gpu.workgroup_memory >= 16 << 10 && info.limits.workers > 0);
    assert!(info.limits.resubmit && info.limits.memory_budget > 0 && info.limits.max_buffer_size > 0);
    assert!(info.features.iter().any(|f| f.contains(&adapter.driver)), "{:?}", info.features);
}

#[test]
fn a_software_adapter_is_not_chosen_by_itself() {
    if adapter().is_none() {
        return;
    }
    let found = adapters().unwrap();
    let real = found.iter().any(|a| a.kind != AdapterKind::Software && a.unusable.is_none());
    match VulkanDevice::new(&VulkanOptions::default()) {
        Ok(device) => assert!(real && !device.info().limits.gpu.unwrap().software),
        Err(DeviceError::Unavailable(reason)) => {
            assert!(!real && reason.contains(&found[0].name), "{reason}");
        }
        Err(other) => panic!("{other}"),
    }
    let beyond = VulkanOptions { adapter: Some(99), ..VulkanOptions::default() };
    let Err(DeviceError::Unavailable(reason)) = VulkanDevice::new(&beyond) else { panic!("there is no 99") };
    assert!(reason.contains("99") && reason.contains(&found[0].name), "{reason}");
}

#[test]
fn pipelines_are_kept_on_disk() {
    let Some(options) = options() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not there yet").join("pipelines");
    let options = VulkanOptions { pipeline_cache: Some(path.clone()), ..options };
    let build = || {
        let device = open_with(&options);
        let increments = pipeline(&*device, "increment", INCREMENT);
        let x = buffer(&*device, &[4; 8]);
        let commands =
            record(&*device, "step", |e| e.dispatch(&incrementing(&increments, &x.whole())).unwrap());
        run(&*device, &commands).unwrap();
        assert_eq!(get(&*device, &x), [5; 8]);
        // Written before the first submission already.
        std::fs::read(&path).unwrap()
    };
    let first = build();
    assert!(first.len() >= 32);
    assert_eq!(build()[..32], first[..32]);
    // Damaged files are made anew.
    let mut other_driver = first.clone();
    other_driver[16] ^= 1;
    for damaged in [&b""[..], b"damaged", &first[..31], &other_driver] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(build()[..32], first[..32]);
    }
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no half-written file is left");
}

#[test]
fn validation_messages_are_kept() {
    let Some(options) = options().filter(|o| o.validation) else { return };
    let device = VulkanDevice::new(&options).unwrap();
    let (x, y, z) = (buffer(&*device, &[1; 64]), buffer(&*device, &[0; 64]), buffer(&*device, &[0; 64]));
    // A barrier is missing: synchronisation validation sees it.
    let racing = record(&*device, "racing", |e| {
        e.copy(&x.whole(), &y.whole()).unwrap();
        e.copy(&y.whole(), &z.whole()).unwrap();
    });
    run(&*device, &racing).unwrap();
    let messages = device.validation_messages();
    assert!(messages.iter().any(|m| m.contains("SYNC-HAZARD")), "{messages:?}");
}
