//! What a GPU must have, and what is used where it has it.
#![allow(unsafe_code)]

use ash::vk;

/// The features that are asked for, in the form in which Vulkan reports and enables them.
#[derive(Default)]
pub(crate) struct Features {
    pub(crate) core: vk::PhysicalDeviceFeatures,
    pub(crate) v11: vk::PhysicalDeviceVulkan11Features<'static>,
    pub(crate) v12: vk::PhysicalDeviceVulkan12Features<'static>,
    pub(crate) v13: vk::PhysicalDeviceVulkan13Features<'static>,
    pub(crate) matrix: vk::PhysicalDeviceCooperativeMatrixFeaturesKHR<'static>,
}

/// Subgroup operations that kernels are compiled to.
const SUBGROUP: [(vk::SubgroupFeatureFlags, &str); 6] = [
    (vk::SubgroupFeatureFlags::BASIC, "basic"),
    (vk::SubgroupFeatureFlags::VOTE, "vote"),
    (vk::SubgroupFeatureFlags::BALLOT, "ballot"),
    (vk::SubgroupFeatureFlags::ARITHMETIC, "arithmetic"),
    (vk::SubgroupFeatureFlags::SHUFFLE, "shuffle"),
    (vk::SubgroupFeatureFlags::SHUFFLE_RELATIVE, "shuffle relative"),
];

impl Features {
    /// What a physical device of Vulkan 1.3 supports. `matrix` tells whether it has `VK_KHR_cooperative_matrix`.
    pub(crate) fn supported(instance: &ash::Instance, device: vk::PhysicalDevice, matrix: bool) -> Self {
        let mut features = Self::default();
        let mut chain = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut features.v11)
            .push_next(&mut features.v12)
            .push_next(&mut features.v13);
        if matrix {
            chain = chain.push_next(&mut features.matrix);
        }
        // SAFETY: the chain holds structs that live over the call and that a device of 1.3 knows.
        unsafe { instance.get_physical_device_features2(device, &mut chain) };
        features.core = chain.features;
        features.unchained()
    }

    /// The first requirement of every kernel that is not met, by its name in the specification.
    pub(crate) fn missing(&self, subgroup: &vk::PhysicalDeviceVulkan11Properties<'_>) -> Option<String> {
        let needed = [
            (self.v11.storage_buffer16_bit_access, "storageBuffer16BitAccess"),
            (self.v11.uniform_and_storage_buffer16_bit_access, "uniformAndStorageBuffer16BitAccess"),
            (self.v12.shader_float16, "shaderFloat16"),
            (self.v12.shader_int8, "shaderInt8"),
            (self.v12.timeline_semaphore, "timelineSemaphore"),
            (self.v12.host_query_reset, "hostQueryReset"),
            (self.v12.shader_subgroup_extended_types, "shaderSubgroupExtendedTypes"),
            (self.v13.synchronization2, "synchronization2"),
            (self.v13.maintenance4, "maintenance4"),
            (self.v13.shader_integer_dot_product, "shaderIntegerDotProduct"),
            (self.v13.subgroup_size_control, "subgroupSizeControl"),
            (self.v13.compute_full_subgroups, "computeFullSubgroups"),
        ];
        if let Some((_, name)) = needed.iter().find(|(has, _)| *has == vk::FALSE) {
            return Some(format!("its driver lacks the feature {name}"));
        }
        if !subgroup.subgroup_supported_stages.contains(vk::ShaderStageFlags::COMPUTE) {
            return Some("its driver has no subgroup operations in compute shaders".into());
        }
        let lacks = |flag| !subgroup.subgroup_supported_operations.contains(flag);
        SUBGROUP
            .iter()
            .find(|(flag, _)| lacks(*flag))
            .map(|(_, name)| format!("its driver lacks the subgroup operations '{name}'"))
    }

    /// What is enabled: everything needed, and of the rest what shaders may use.
    pub(crate) fn enabled(&self, cooperative_matrix: bool) -> Self {
        let v11 = vk::PhysicalDeviceVulkan11Features::default()
            .storage_buffer16_bit_access(true)
            .uniform_and_storage_buffer16_bit_access(true);
        let v12 = vk::PhysicalDeviceVulkan12Features::default()
            .shader_float16(true)
            .shader_int8(true)
            .timeline_semaphore(true)
            .host_query_reset(true)
            .shader_subgroup_extended_types(true)
            .storage_buffer8_bit_access(self.v12.storage_buffer8_bit_access != 0)
            .vulkan_memory_model(self.v12.vulkan_memory_model != 0)
            .vulkan_memory_model_device_scope(self.v12.vulkan_memory_model_device_scope != 0);
        let v13 = vk::PhysicalDeviceVulkan13Features::default()
            .synchronization2(true)
            .maintenance4(true)
            .shader_integer_dot_product(true)
            .subgroup_size_control(true)
            .compute_full_subgroups(true);
        let core = vk::PhysicalDeviceFeatures::default()
            .shader_int16(self.core.shader_int16 != 0)
            .shader_int64(self.core.shader_int64 != 0);
        let matrix =
            vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(cooperative_matrix);
        Self { core, v11, v12, v13, matrix }
    }

    /// The structs alone, without the links of the chain that they were part of.
    fn unchained(mut self) -> Self {
        self.v11.p_next = std::ptr::null_mut();
        self.v12.p_next = std::ptr::null_mut();
        self.v13.p_next = std::ptr::null_mut();
        self.matrix.p_next = std::ptr::null_mut();
        self
    }
}
